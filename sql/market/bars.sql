-- Bars of a timeframe longer than a minute. Not pinned, so that it is inlined and what is asked of the
-- views (views.sql) reaches the tables; every name is qualified.

create or replace function market._rolled(width interval)
returns table (
    symbol text, ts timestamptz, open double precision, high double precision,
    low double precision, close double precision, volume double precision,
    quote_volume double precision, trade_count bigint, taker_buy_volume double precision,
    source text
)
language sql stable parallel safe
as $$
    select distinct on (r.symbol, r.ts)
        r.symbol, r.ts, r.open, r.high, r.low, r.close, r.volume, r.quote_volume, r.trade_count,
        r.taker_buy_volume, 'bars of ' || r.timeframe
    from (
        select
            c.symbol, public.time_bucket($1, c.ts) as ts, c.timeframe,
            public.first(c.open, c.ts) as open, max(c.high) as high, min(c.low) as low,
            public.last(c.close, c.ts) as close, sum(c.volume) as volume,
            sum(c.quote_volume) as quote_volume, sum(c.trade_count)::bigint as trade_count,
            sum(c.taker_buy_volume) as taker_buy_volume, count(*) * c.timeframe as covered
        from market.candles c
        where c.timeframe > interval '1 minute' and c.timeframe < $1
            and mod(extract(epoch from $1)::bigint, greatest(extract(epoch from c.timeframe)::bigint, 1)) = 0
        group by c.symbol, public.time_bucket($1, c.ts), c.timeframe
    ) r
    order by r.symbol, r.ts, r.covered desc, r.timeframe desc
$$;
comment on function market._rolled(interval) is
'Bars of width made from loaded bars of a length between one minute and width that divides it: of several
lengths the one that covers most of the bar, then the longest. source: bars of that length.';

create or replace function market._bars_of(timeframe interval)
returns table (
    symbol text, ts timestamptz, open double precision, high double precision, low double precision,
    close double precision, volume double precision, quote_volume double precision,
    trade_count bigint, taker_buy_volume double precision, source text
)
language sql stable parallel safe
as $$
    with made as (
        select
            a.symbol, a.bucket as ts, public.first(a.open, a.first_ts) as open, max(a.high) as high,
            min(a.low) as low, public.last(a.close, a.last_ts) as close, sum(a.volume) as volume,
            sum(a.quote_volume) as quote_volume, sum(a.trade_count)::bigint as trade_count,
            sum(a.taker_buy_volume) as taker_buy_volume
        from market._candles a
        where a.timeframe = $1
        group by a.symbol, a.bucket
    ),

    traded as (
        select
            t.symbol, public.time_bucket($1, t.bucket) as ts,
            public.first(t.open, t.bucket) as open, max(t.high) as high, min(t.low) as low,
            public.last(t.close, t.bucket) as close, sum(t.volume) as volume,
            sum(t.quote_volume) as quote_volume, sum(t.trade_count)::bigint as trade_count,
            sum(t.buy_volume) as taker_buy_volume
        from market.trades_1m t
        group by t.symbol, public.time_bucket($1, t.bucket)
    )

    select
        c.symbol, c.ts, c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trade_count,
        c.taker_buy_volume, 'loaded'
    from market.candles c
    where c.timeframe = $1
    union all
    select m.*, 'minutes' from made m
    where not exists (
        select from market.candles c
        where c.symbol = m.symbol and c.timeframe = $1 and c.ts = m.ts
    )
    union all
    select r.* from market._rolled($1) r
    where not exists (
        select from market.candles c
        where c.symbol = r.symbol and c.timeframe = $1 and c.ts = r.ts
    )
    and not exists (select from market._candles a where a.timeframe = $1 and a.symbol = r.symbol and a.bucket = r.ts)
    union all
    select t.*, 'trades' from traded t
    where not exists (
        select from market.candles c
        where c.symbol = t.symbol and c.timeframe = $1 and c.ts = t.ts
    )
    and not exists (select from market._candles a where a.timeframe = $1 and a.symbol = t.symbol and a.bucket = t.ts)
    and not exists (
        select from market._rolled($1) r where r.symbol = t.symbol and r.ts = t.ts
    )
$$;
