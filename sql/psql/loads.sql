-- What was loaded, what it was taken for and what was refused. Usage: psql -f sql/psql/loads.sql
\set ON_ERROR_STOP on
\echo '== loads'
select
    load_id, file, status, format, rows_read, rows_loaded, rows_duplicate, rows_quarantined,
    description -> 'symbol' ->> 'value' as symbol, description -> 'unit' ->> 'value' as unit,
    description -> 'unit' ->> 'from' as unit_from, error
from market.loads order by load_id desc limit 50;
\echo '== refused, by reason'
select file, reason, count(*), min(line) as first_line
from market.quarantine group by file, reason order by count(*) desc limit 50;
\echo '== instruments whose contract is not known'
select symbol, exchange, kind, margin, contract_size, size_unit
from market.instruments
where size_unit is null or (size_unit = 'contracts' and contract_size is null) order by symbol;
