-- A challenger against its champion; ask as often as you like. Usage: psql -v version=12 -f sql/psql/compare.sql
\set ON_ERROR_STOP on
\if :{?version} \else
\warn 'usage: psql -v version=12 -f sql/psql/compare.sql'
do $$ begin raise exception 'a variable is missing; the usage is above' using errcode = 'AP700', hint = 'Give it with psql -v name=value.'; end $$;
\endif
select challenger_id, champion_id, pairs, mean_difference, lower, upper, verdict, reason
from ml.compare(:version);
select version_id, decision, reason, at from ml.decisions order by decision_id desc limit 5;
