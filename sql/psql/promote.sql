-- Serve a version. Usage: psql -v version=7 [-v reason='why'] [-v force=true] -f sql/psql/promote.sql
\set ON_ERROR_STOP on
\if :{?version} \else
\warn 'usage: psql -v version=7 [-v reason=why] [-v force=true] -f sql/psql/promote.sql   (versions: sql/psql/models.sql)'
do $$ begin raise exception 'a variable is missing; the usage is above' using errcode = 'AP700', hint = 'Give it with psql -v name=value.'; end $$;
\endif
\if :{?reason} \else
\set reason ''
\endif
\if :{?force} \else
\set force false
\endif
call ml.promote(:'version'::bigint, nullif(:'reason', ''), :'force'::boolean);
select a.model, a.symbol, a.regime, a.alias, a.version_id, a.updated_at
from ml.aliases a where a.version_id = :'version'::bigint;
