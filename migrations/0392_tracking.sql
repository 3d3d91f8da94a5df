-- depends: 0382_sparse
--
-- 0392: aggregates kept in one way. Rows of bars of every timeframe lie in one table, and the buckets
-- that changed since the last refresh in market.dirty_buckets, whichever aggregate they are of. What
-- keeps them is in sql/market/: back_end.apache.sql, or back_end.community.sql where TimescaleDB's
-- own continuous aggregates take the place of these tables.
drop trigger if exists mark_inserted on market.trades;
drop trigger if exists mark_deleted on market.trades;
drop trigger if exists mark_updated on market.trades;
drop trigger if exists forget_all on market.trades;
drop trigger if exists mark_inserted on market.order_book_snapshots;
drop trigger if exists mark_deleted on market.order_book_snapshots;
drop trigger if exists mark_updated on market.order_book_snapshots;
drop trigger if exists forget_all on market.order_book_snapshots;
drop trigger if exists mark_inserted on market.liquidation_events;
drop trigger if exists mark_deleted on market.liquidation_events;
drop trigger if exists mark_updated on market.liquidation_events;
drop trigger if exists forget_all on market.liquidation_events;
drop trigger if exists mark_inserted on market.candles;
drop trigger if exists mark_deleted on market.candles;
drop trigger if exists mark_updated on market.candles;
drop trigger if exists forget_all on market.candles;

create table market.dirty_buckets (
    source regclass not null,
    width interval not null,
    symbol text collate "C" not null,
    bucket timestamptz not null
);
create index dirty_buckets_idx on market.dirty_buckets (source, width, symbol, bucket);
comment on table market.dirty_buckets is
'Buckets of the aggregates whose rows changed since the last refresh: computed from their rows when they are read. Empty where TimescaleDB keeps the aggregates itself (Community edition).';
comment on column market.dirty_buckets.source is 'The table of market rows.';
comment on column market.dirty_buckets.width is 'Length of the bucket.';
comment on column market.dirty_buckets.symbol is 'The instrument.';
comment on column market.dirty_buckets.bucket is 'Start of the bucket. Several rows may name one bucket.';

-- A row of each aggregate: partial, one per symbol, bucket and usable_at.
create type market._trades_1m_row as (
    symbol text collate "C",
    bucket timestamptz,
    usable_at timestamptz,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume double precision,
    quote_volume double precision,
    buy_volume double precision,
    buy_quote_volume double precision,
    trade_count bigint,
    first_ts timestamptz,
    first_id text collate "C",
    last_ts timestamptz,
    last_id text collate "C"
);
create type market._book_1m_row as (
    symbol text collate "C",
    bucket timestamptz,
    usable_at timestamptz,
    snapshot_count bigint,
    two_sided_count bigint,
    spread_sum double precision,
    mid_sum double precision,
    relative_spread_sum double precision,
    imbalance_sum double precision,
    last_ts timestamptz,
    last_sequence bigint,
    bid_prices double precision [],
    bid_sizes double precision [],
    ask_prices double precision [],
    ask_sizes double precision []
);
create type market._liquidations_1m_row as (
    symbol text collate "C",
    bucket timestamptz,
    usable_at timestamptz,
    event_count bigint,
    long_notional double precision,
    short_notional double precision,
    max_notional double precision
);
create type market._candles_row as (
    timeframe interval,
    symbol text collate "C",
    bucket timestamptz,
    usable_at timestamptz,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume double precision,
    quote_volume double precision,
    trade_count bigint,
    taker_buy_volume double precision,
    bar_count bigint,
    first_ts timestamptz,
    last_ts timestamptz
);
-- What is there already moves over, as it is where marks kept it; what continuous aggregates held is
-- computed anew.
do $$
declare
    v_aggregate market.aggregates;
begin
    create table market._candles_rows of market._candles_row (
        primary key (timeframe, symbol, bucket, usable_at)
    );
    for v_aggregate in select a.* from market.aggregates a order by a.name loop
        execute format('drop view market.%I', v_aggregate.name);
        if v_aggregate.native then
            execute format('drop materialized view market.%I', v_aggregate.name || '_rows');
            if v_aggregate.source <> 'market.candles'::regclass then
                execute format(
                    'create table market.%I of market.%I (primary key (symbol, bucket, usable_at))',
                    v_aggregate.name || '_rows', v_aggregate.name || '_row'
                );
            end if;
            execute format(
                'insert into market.dirty_buckets (source, width, symbol, bucket)'
                ' select distinct %L::regclass, %L::interval, s.symbol, public.time_bucket(%L::interval, s.ts)'
                ' from %s s%s',
                v_aggregate.source, v_aggregate.width, v_aggregate.width, v_aggregate.source,
                case when v_aggregate.source = 'market.candles'::regclass
                    then ' where s.timeframe = interval ''1 minute''' else '' end
            );
            continue;
        end if;
        execute format(
            'insert into market.dirty_buckets (source, width, symbol, bucket)'
            ' select distinct %L::regclass, %L::interval, m.symbol, m.bucket from market.%I m',
            v_aggregate.source, v_aggregate.width, v_aggregate.name || '_marks'
        );
        execute format('drop table market.%I', v_aggregate.name || '_marks');
        if v_aggregate.source <> 'market.candles'::regclass then
            execute format(
                'alter table market.%I of market.%I', v_aggregate.name || '_rows', v_aggregate.name || '_row'
            );
        else
            execute format(
                'insert into market._candles_rows select %L::interval, r.* from market.%I r',
                v_aggregate.width, v_aggregate.name || '_rows'
            );
            execute format('drop table market.%I', v_aggregate.name || '_rows');
        end if;
    end loop;
end
$$;

drop procedure market._watch(regclass);
drop procedure market._create_aggregate(text, regclass, interval, text);
drop procedure market._make_rows(text);
drop procedure market._make_view(text);
drop function market._native_works();
drop function market._stale(text);
drop function market._forget_all();
drop function market._mark_changed();
alter table market.aggregates drop column definition;
update market.aggregates set native = false where native;
comment on table market.aggregates is
'The aggregates of market rows by bucket: of what, how long. A timeframe of bars is a row here, of source market.candles.';
comment on column market.aggregates.name is 'Its name, for market.refresh_aggregate.';
comment on column market.aggregates.source is 'The table of market rows it is made of; of market.candles the one-minute bars.';
comment on column market.aggregates.width is 'Length of a bucket: whole minutes that divide a day.';
comment on column market.aggregates.native is 'Whether TimescaleDB keeps it, as a continuous aggregate (Community edition), or dirty buckets do.';
comment on type market._trades_1m_row is 'A partial row of trades by minute: prices in quote currency, volumes in base units.';
comment on type market._book_1m_row is 'A partial row of order books by minute: sums over snapshots, and the last one.';
comment on type market._liquidations_1m_row is 'A partial row of forced liquidations by minute, notional in quote currency.';
comment on type market._candles_row is 'A partial bar of a timeframe, made from one-minute bars.';

-- Up to when rows were superseded is asked before every insert on the Community edition.
create index on market.candles_history (ts);
create index on market.trades_history (ts);
create index on market.order_book_snapshots_history (ts);
create index on market.liquidation_events_history (ts);
create index on market.funding_rates_history (ts);
create index on market.open_interest_history (ts);
