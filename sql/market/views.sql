-- The aggregates as one reads them: current state, partial rows merged.
create or replace view market.trades_1m as
select
    a.symbol,
    a.bucket,
    public.first(a.open, row(a.first_ts, a.first_id)) as open,
    max(a.high) as high,
    min(a.low) as low,
    public.last(a.close, row(a.last_ts, a.last_id)) as close,
    sum(a.volume) as volume,
    sum(a.quote_volume) as quote_volume,
    sum(a.buy_volume) as buy_volume,
    sum(a.volume) - sum(a.buy_volume) as sell_volume,
    sum(a.buy_quote_volume) as buy_quote_volume,
    sum(a.trade_count)::bigint as trade_count,
    max(a.usable_at) as usable_at
from market._trades_1m a
group by a.symbol, a.bucket;
comment on view market.trades_1m is
'Trades by minute: prices in quote currency, volumes in base units, quote volumes in quote currency, buy = the aggressor bought. Trades of one microsecond are in the order of their ids as text ("C"), which is that of numbers of as many digits. usable_at: since when all of it was known.';

create or replace view market.book_1m as
select
    a.symbol,
    a.bucket,
    sum(a.snapshot_count)::bigint as snapshot_count,
    sum(a.spread_sum) / nullif(sum(a.two_sided_count), 0) as mean_spread,
    sum(a.mid_sum) / nullif(sum(a.two_sided_count), 0) as mean_mid,
    1e4 * sum(a.relative_spread_sum) / nullif(sum(a.two_sided_count), 0) as mean_spread_bps,
    sum(a.imbalance_sum) / nullif(sum(a.two_sided_count), 0) as mean_imbalance,
    max(a.last_ts) as last_ts,
    public.last(a.bid_prices, row(a.last_ts, a.last_sequence)) as bid_prices,
    public.last(a.bid_sizes, row(a.last_ts, a.last_sequence)) as bid_sizes,
    public.last(a.ask_prices, row(a.last_ts, a.last_sequence)) as ask_prices,
    public.last(a.ask_sizes, row(a.last_ts, a.last_sequence)) as ask_sizes,
    max(a.usable_at) as usable_at
from market._book_1m a
group by a.symbol, a.bucket;
comment on view market.book_1m is
'Order books by minute: means over snapshots (imbalance = (bid - ask) / (bid + ask) size at the top) and the levels of the last snapshot.';

create or replace view market.liquidations_1m as
select
    a.symbol,
    a.bucket,
    sum(a.event_count)::bigint as event_count,
    sum(a.long_notional) as long_notional,
    sum(a.short_notional) as short_notional,
    max(a.max_notional) as max_notional,
    max(a.usable_at) as usable_at
from market._liquidations_1m a
group by a.symbol, a.bucket;
comment on view market.liquidations_1m is
'Forced liquidations by minute, notional in quote currency; long_notional is that of liquidated longs (forced sells).';

create or replace view market.candles_1m as
select
    c.symbol,
    c.ts,
    c.open,
    c.high,
    c.low,
    c.close,
    c.volume,
    c.quote_volume,
    c.trade_count,
    c.taker_buy_volume,
    'loaded' as source
from market.candles c
where c.timeframe = interval '1 minute'
union all
select
    t.symbol,
    t.bucket,
    t.open,
    t.high,
    t.low,
    t.close,
    t.volume,
    t.quote_volume,
    t.trade_count,
    t.buy_volume,
    'trades'
from market.trades_1m t
where not exists (
    select from market.candles c
    where c.symbol = t.symbol and c.timeframe = interval '1 minute' and c.ts = t.bucket
);
comment on view market.candles_1m is
'One-minute bars: those loaded, and bars made from trades where none was (source says which). ts is the opening time.';

-- Not pinned, so that it is inlined and a symbol asked for is looked up; every name is qualified.
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

create or replace view market.candles_5m as
with made as (
    select
        a.symbol, a.bucket as ts, public.first(a.open, a.first_ts) as open, max(a.high) as high,
        min(a.low) as low, public.last(a.close, a.last_ts) as close, sum(a.volume) as volume,
        sum(a.quote_volume) as quote_volume, sum(a.trade_count)::bigint as trade_count,
        sum(a.taker_buy_volume) as taker_buy_volume
    from market._candles_5m a
    group by a.symbol, a.bucket
),

traded as (
    select
        t.symbol, public.time_bucket(interval '5 minutes', t.bucket) as ts,
        public.first(t.open, t.bucket) as open, max(t.high) as high, min(t.low) as low,
        public.last(t.close, t.bucket) as close, sum(t.volume) as volume,
        sum(t.quote_volume) as quote_volume, sum(t.trade_count)::bigint as trade_count,
        sum(t.buy_volume) as taker_buy_volume
    from market.trades_1m t
    group by t.symbol, public.time_bucket(interval '5 minutes', t.bucket)
)

select
    c.symbol, c.ts, c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trade_count,
    c.taker_buy_volume, 'loaded' as source
from market.candles c
where c.timeframe = interval '5 minutes'
union all
select m.*, 'minutes' from made m
where not exists (
    select from market.candles c
    where c.symbol = m.symbol and c.timeframe = interval '5 minutes' and c.ts = m.ts
)
union all
select r.* from market._rolled(interval '5 minutes') r
where not exists (
    select from market.candles c
    where c.symbol = r.symbol and c.timeframe = interval '5 minutes' and c.ts = r.ts
)
and not exists (select from market._candles_5m a where a.symbol = r.symbol and a.bucket = r.ts)
union all
select t.*, 'trades' from traded t
where not exists (
    select from market.candles c
    where c.symbol = t.symbol and c.timeframe = interval '5 minutes' and c.ts = t.ts
)
and not exists (select from market._candles_5m a where a.symbol = t.symbol and a.bucket = t.ts)
and not exists (
    select from market._rolled(interval '5 minutes') r where r.symbol = t.symbol and r.ts = t.ts
);
comment on view market.candles_5m is
'Bars of 00:05:00: those loaded at this length, else made from loaded one-minute bars, else from loaded bars
of a length between that divides this one (the length that covers most of the bar, then the longest),
else from trades; source says which. ts is the opening time, UTC.';

create or replace view market.candles_15m as
with made as (
    select
        a.symbol, a.bucket as ts, public.first(a.open, a.first_ts) as open, max(a.high) as high,
        min(a.low) as low, public.last(a.close, a.last_ts) as close, sum(a.volume) as volume,
        sum(a.quote_volume) as quote_volume, sum(a.trade_count)::bigint as trade_count,
        sum(a.taker_buy_volume) as taker_buy_volume
    from market._candles_15m a
    group by a.symbol, a.bucket
),

traded as (
    select
        t.symbol, public.time_bucket(interval '15 minutes', t.bucket) as ts,
        public.first(t.open, t.bucket) as open, max(t.high) as high, min(t.low) as low,
        public.last(t.close, t.bucket) as close, sum(t.volume) as volume,
        sum(t.quote_volume) as quote_volume, sum(t.trade_count)::bigint as trade_count,
        sum(t.buy_volume) as taker_buy_volume
    from market.trades_1m t
    group by t.symbol, public.time_bucket(interval '15 minutes', t.bucket)
)

select
    c.symbol, c.ts, c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trade_count,
    c.taker_buy_volume, 'loaded' as source
from market.candles c
where c.timeframe = interval '15 minutes'
union all
select m.*, 'minutes' from made m
where not exists (
    select from market.candles c
    where c.symbol = m.symbol and c.timeframe = interval '15 minutes' and c.ts = m.ts
)
union all
select r.* from market._rolled(interval '15 minutes') r
where not exists (
    select from market.candles c
    where c.symbol = r.symbol and c.timeframe = interval '15 minutes' and c.ts = r.ts
)
and not exists (select from market._candles_15m a where a.symbol = r.symbol and a.bucket = r.ts)
union all
select t.*, 'trades' from traded t
where not exists (
    select from market.candles c
    where c.symbol = t.symbol and c.timeframe = interval '15 minutes' and c.ts = t.ts
)
and not exists (select from market._candles_15m a where a.symbol = t.symbol and a.bucket = t.ts)
and not exists (
    select from market._rolled(interval '15 minutes') r where r.symbol = t.symbol and r.ts = t.ts
);
comment on view market.candles_15m is
'Bars of 00:15:00: those loaded at this length, else made from loaded one-minute bars, else from loaded bars
of a length between that divides this one (the length that covers most of the bar, then the longest),
else from trades; source says which. ts is the opening time, UTC.';

create or replace view market.candles_1h as
with made as (
    select
        a.symbol, a.bucket as ts, public.first(a.open, a.first_ts) as open, max(a.high) as high,
        min(a.low) as low, public.last(a.close, a.last_ts) as close, sum(a.volume) as volume,
        sum(a.quote_volume) as quote_volume, sum(a.trade_count)::bigint as trade_count,
        sum(a.taker_buy_volume) as taker_buy_volume
    from market._candles_1h a
    group by a.symbol, a.bucket
),

traded as (
    select
        t.symbol, public.time_bucket(interval '1 hour', t.bucket) as ts,
        public.first(t.open, t.bucket) as open, max(t.high) as high, min(t.low) as low,
        public.last(t.close, t.bucket) as close, sum(t.volume) as volume,
        sum(t.quote_volume) as quote_volume, sum(t.trade_count)::bigint as trade_count,
        sum(t.buy_volume) as taker_buy_volume
    from market.trades_1m t
    group by t.symbol, public.time_bucket(interval '1 hour', t.bucket)
)

select
    c.symbol, c.ts, c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trade_count,
    c.taker_buy_volume, 'loaded' as source
from market.candles c
where c.timeframe = interval '1 hour'
union all
select m.*, 'minutes' from made m
where not exists (
    select from market.candles c
    where c.symbol = m.symbol and c.timeframe = interval '1 hour' and c.ts = m.ts
)
union all
select r.* from market._rolled(interval '1 hour') r
where not exists (
    select from market.candles c
    where c.symbol = r.symbol and c.timeframe = interval '1 hour' and c.ts = r.ts
)
and not exists (select from market._candles_1h a where a.symbol = r.symbol and a.bucket = r.ts)
union all
select t.*, 'trades' from traded t
where not exists (
    select from market.candles c
    where c.symbol = t.symbol and c.timeframe = interval '1 hour' and c.ts = t.ts
)
and not exists (select from market._candles_1h a where a.symbol = t.symbol and a.bucket = t.ts)
and not exists (
    select from market._rolled(interval '1 hour') r where r.symbol = t.symbol and r.ts = t.ts
);
comment on view market.candles_1h is
'Bars of 01:00:00: those loaded at this length, else made from loaded one-minute bars, else from loaded bars
of a length between that divides this one (the length that covers most of the bar, then the longest),
else from trades; source says which. ts is the opening time, UTC.';

create or replace view market.candles_4h as
with made as (
    select
        a.symbol, a.bucket as ts, public.first(a.open, a.first_ts) as open, max(a.high) as high,
        min(a.low) as low, public.last(a.close, a.last_ts) as close, sum(a.volume) as volume,
        sum(a.quote_volume) as quote_volume, sum(a.trade_count)::bigint as trade_count,
        sum(a.taker_buy_volume) as taker_buy_volume
    from market._candles_4h a
    group by a.symbol, a.bucket
),

traded as (
    select
        t.symbol, public.time_bucket(interval '4 hours', t.bucket) as ts,
        public.first(t.open, t.bucket) as open, max(t.high) as high, min(t.low) as low,
        public.last(t.close, t.bucket) as close, sum(t.volume) as volume,
        sum(t.quote_volume) as quote_volume, sum(t.trade_count)::bigint as trade_count,
        sum(t.buy_volume) as taker_buy_volume
    from market.trades_1m t
    group by t.symbol, public.time_bucket(interval '4 hours', t.bucket)
)

select
    c.symbol, c.ts, c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trade_count,
    c.taker_buy_volume, 'loaded' as source
from market.candles c
where c.timeframe = interval '4 hours'
union all
select m.*, 'minutes' from made m
where not exists (
    select from market.candles c
    where c.symbol = m.symbol and c.timeframe = interval '4 hours' and c.ts = m.ts
)
union all
select r.* from market._rolled(interval '4 hours') r
where not exists (
    select from market.candles c
    where c.symbol = r.symbol and c.timeframe = interval '4 hours' and c.ts = r.ts
)
and not exists (select from market._candles_4h a where a.symbol = r.symbol and a.bucket = r.ts)
union all
select t.*, 'trades' from traded t
where not exists (
    select from market.candles c
    where c.symbol = t.symbol and c.timeframe = interval '4 hours' and c.ts = t.ts
)
and not exists (select from market._candles_4h a where a.symbol = t.symbol and a.bucket = t.ts)
and not exists (
    select from market._rolled(interval '4 hours') r where r.symbol = t.symbol and r.ts = t.ts
);
comment on view market.candles_4h is
'Bars of 04:00:00: those loaded at this length, else made from loaded one-minute bars, else from loaded bars
of a length between that divides this one (the length that covers most of the bar, then the longest),
else from trades; source says which. ts is the opening time, UTC.';

create or replace view market.candles_1d as
with made as (
    select
        a.symbol, a.bucket as ts, public.first(a.open, a.first_ts) as open, max(a.high) as high,
        min(a.low) as low, public.last(a.close, a.last_ts) as close, sum(a.volume) as volume,
        sum(a.quote_volume) as quote_volume, sum(a.trade_count)::bigint as trade_count,
        sum(a.taker_buy_volume) as taker_buy_volume
    from market._candles_1d a
    group by a.symbol, a.bucket
),

traded as (
    select
        t.symbol, public.time_bucket(interval '1 day', t.bucket) as ts,
        public.first(t.open, t.bucket) as open, max(t.high) as high, min(t.low) as low,
        public.last(t.close, t.bucket) as close, sum(t.volume) as volume,
        sum(t.quote_volume) as quote_volume, sum(t.trade_count)::bigint as trade_count,
        sum(t.buy_volume) as taker_buy_volume
    from market.trades_1m t
    group by t.symbol, public.time_bucket(interval '1 day', t.bucket)
)

select
    c.symbol, c.ts, c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trade_count,
    c.taker_buy_volume, 'loaded' as source
from market.candles c
where c.timeframe = interval '1 day'
union all
select m.*, 'minutes' from made m
where not exists (
    select from market.candles c
    where c.symbol = m.symbol and c.timeframe = interval '1 day' and c.ts = m.ts
)
union all
select r.* from market._rolled(interval '1 day') r
where not exists (
    select from market.candles c
    where c.symbol = r.symbol and c.timeframe = interval '1 day' and c.ts = r.ts
)
and not exists (select from market._candles_1d a where a.symbol = r.symbol and a.bucket = r.ts)
union all
select t.*, 'trades' from traded t
where not exists (
    select from market.candles c
    where c.symbol = t.symbol and c.timeframe = interval '1 day' and c.ts = t.ts
)
and not exists (select from market._candles_1d a where a.symbol = t.symbol and a.bucket = t.ts)
and not exists (
    select from market._rolled(interval '1 day') r where r.symbol = t.symbol and r.ts = t.ts
);
comment on view market.candles_1d is
'Bars of 1 day: those loaded at this length, else made from loaded one-minute bars, else from loaded bars
of a length between that divides this one (the length that covers most of the bar, then the longest),
else from trades; source says which. ts is the opening time, UTC.';
