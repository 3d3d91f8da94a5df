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

create or replace view market.candles_5m as select b.* from market._bars_of(interval '5 minutes') b;
comment on view market.candles_5m is
'Bars of 00:05:00: those loaded at this length, else made from loaded one-minute bars, else from loaded bars
of a length between that divides this one (the length that covers most of the bar, then the longest),
else from trades; source says which. ts is the opening time, UTC.';

create or replace view market.candles_15m as select b.* from market._bars_of(interval '15 minutes') b;
comment on view market.candles_15m is
'Bars of 00:15:00: those loaded at this length, else made from loaded one-minute bars, else from loaded bars
of a length between that divides this one (the length that covers most of the bar, then the longest),
else from trades; source says which. ts is the opening time, UTC.';

create or replace view market.candles_1h as select b.* from market._bars_of(interval '1 hour') b;
comment on view market.candles_1h is
'Bars of 01:00:00: those loaded at this length, else made from loaded one-minute bars, else from loaded bars
of a length between that divides this one (the length that covers most of the bar, then the longest),
else from trades; source says which. ts is the opening time, UTC.';

create or replace view market.candles_4h as select b.* from market._bars_of(interval '4 hours') b;
comment on view market.candles_4h is
'Bars of 04:00:00: those loaded at this length, else made from loaded one-minute bars, else from loaded bars
of a length between that divides this one (the length that covers most of the bar, then the longest),
else from trades; source says which. ts is the opening time, UTC.';

create or replace view market.candles_1d as select b.* from market._bars_of(interval '1 day') b;
comment on view market.candles_1d is
'Bars of 1 day: those loaded at this length, else made from loaded one-minute bars, else from loaded bars
of a length between that divides this one (the length that covers most of the bar, then the longest),
else from trades; source says which. ts is the opening time, UTC.';
