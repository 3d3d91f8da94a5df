-- The two scores of the seeds' comprehensive analysis, 0 to 1.
create or replace function feature.liquidity_score(symbol text, as_of timestamptz default null)
returns double precision
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select l.liquidity_score from feature.liquidation($1, $2) l
$$;
comment on function feature.liquidity_score(text, timestamptz) is
'How much of what is traded the book could take at once, 0 (nothing) to 1: d / (d + v), d the notional within 25 bp of mid on both sides of the last book (at most five minutes old), v the mean quote volume of a minute over the last 60; so 1/2 where the book near mid holds a minute''s trading. As known at the last whole minute not after as_of (default: now); null where not knowable. The feature liquidity_score of feature.liquidation. Source: after Kyle''s depth (1985), Econometrica 53(6). Errors: AP101, AP102 symbol, AP211 an infinite time.';

create or replace function feature._volatility_score(symbol text, at bigint)
returns double precision
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.features import scores
    return scores.volatility(plpy, GD, symbol, at)
$python$;

create or replace function feature.volatility_score(symbol text, as_of timestamptz default null)
returns double precision
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select feature._volatility_score(
        market.resolve($1),
        ops._micros(public.time_bucket(interval '1 minute', coalesce($2, now())))
    )
$$;
comment on function feature.volatility_score(text, timestamptz) is
'How volatile the market is by its own standard, 0 (calmest of the day) to 1: the share of the minutes of the last 24 hours whose volatility (sqrt of the mean squared one-minute log return over the 30 minutes before) was lower than the last minute''s, ties counting half. As known at the last whole minute not after as_of (default: now); null where the last 30 minutes or half of the day''s minutes are not known. Source: percentile rank of realised volatility, Andersen and Bollerslev (1998), International Economic Review 39(4). Errors: AP101, AP102 symbol, AP211 an infinite time.';
