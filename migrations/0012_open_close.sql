-- depends: 0011_marks
--
-- 0012: open and close of a minute of trades by position in the order in which the sums are taken
-- anyway. Comparing a composite key for each of them took half of the aggregate's time (88 against
-- 47 ms for four hours, 56 000 trades); the values are the same.
do $do$
declare
    v_aggregate market.aggregates;
begin
    delete from market.aggregates a where a.name = '_trades_1m' returning a.* into strict v_aggregate;
    if v_aggregate.native then
        drop materialized view market._trades_1m;
    else
        drop view market._trades_1m;
        drop table market._trades_1m_rows, market._trades_1m_marks;
    end if;
    v_aggregate.definition := regexp_replace(
        v_aggregate.definition,
        'public\.first\((s\.\w+), row\(s\.ts, s\.trade_id\)\)',
        '(array_agg(\1 order by s.ts, s.trade_id))[1]', 'g'
    );
    v_aggregate.definition := regexp_replace(
        v_aggregate.definition,
        'public\.last\((s\.\w+), row\(s\.ts, s\.trade_id\)\)',
        '(array_agg(\1 order by s.ts, s.trade_id))[count(*)]', 'g'
    );
    call market._create_aggregate(
        v_aggregate.name, v_aggregate.source, v_aggregate.width, v_aggregate.definition
    );
    if not v_aggregate.native then
        insert into market._trades_1m_marks (symbol, bucket)
        select distinct s.symbol, public.time_bucket(v_aggregate.width, s.ts) from market.trades s;
    end if;
end
$do$;
