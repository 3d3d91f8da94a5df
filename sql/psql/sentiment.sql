-- Sentiment of a symbol, all texts where none is named.
-- Usage: psql -v symbol=BTC -v hours=24 -f sql/psql/sentiment.sql
\set ON_ERROR_STOP on
\if :{?symbol}
\else
\set symbol '*'
\endif
\if :{?hours}
\else
\set hours 24
\endif
select * from sentiment.summary(:'symbol', :'hours'::double precision);
select * from sentiment.sources(:'symbol', :'hours'::double precision);
select started_at, kind, text_count, expected, mean, terms
from sentiment.events(:'symbol', :'hours'::double precision);
select ts, source, score, left(text, 80) as text from sentiment.recent(:'symbol', 10);
