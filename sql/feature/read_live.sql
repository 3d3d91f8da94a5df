-- The same inputs for one grid time, where planning would take longer than reading. Each function
-- keeps its plans: those that read the aggregates' tables keep one plan for all values (by index,
-- as the tables may have been empty when it was made), those that
-- read a hypertable plan for the values at hand, which leaves all chunks but one or two out at once.
create or replace function feature._bars_live(
    symbol text, timeframe interval, "from" timestamptz, "to" timestamptz,
    since timestamptz default null
)
returns table (rows bytea)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
set enable_seqscan = off
rows 1
as $$
begin
    return query select b.* from feature._bars($1, $2, $3, $4, $5) b;
end
$$;

-- Bars in the plain case: one row, or none where this is not plain (then feature._bars is the answer).
-- Nothing of the stretch was ever superseded, and all bars are of one source, as
-- market.candle_versions numbers it: 0 loaded at this length, 1 made from loaded minutes, 2 made
-- from trades. Whether each was known in time, and what is missing, is for the caller to see.
-- rows: the bars one after the other, of eight bytes each the time, when it was known, open, high,
-- low, close and volume; and of source 0 and 2 the quote volume, and bought by takers the volume and
-- the quote volume; and of source 2 the times of the first and last trade. NaN where not known.
create or replace function feature._candles_1m_plain(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns table (source integer, rows bytea)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
set enable_seqscan = off
rows 1
as $$
#variable_conflict use_column
begin
    if exists (
        select from market.candles_history h
        where h.symbol = $1 and h.timeframe = interval '1 minute' and h.ts >= $2 and h.ts < $3
    ) then
        return;
    end if;
    return query select 0, l.rows from feature._bars_loaded($1, interval '1 minute', $2, $3) l;
    if not found then
        return query select m.* from feature._minutes_of_trades($1, $2, $3) m;
    end if;
end
$$;

-- One-minute bars made from trades, none where one was ever superseded.
create or replace function feature._minutes_of_trades(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns table (source integer, rows bytea)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
set enable_seqscan = off
rows 1
as $$
#variable_conflict use_column
begin
    if exists (
        select from market.trades_history h where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ) then
        return;
    end if;
    return query
        select 2, string_agg(feature._bytes(array[
            feature._bits(a.bucket), feature._bits(a.usable_at), coalesce(a.open, 'NaN'),
            coalesce(a.high, 'NaN'), coalesce(a.low, 'NaN'), coalesce(a.close, 'NaN'),
            coalesce(a.volume, 'NaN'), coalesce(a.quote_volume, 'NaN'),
            coalesce(a.buy_volume, 'NaN'), coalesce(a.buy_quote_volume, 'NaN'),
            feature._bits(a.first_ts), feature._bits(a.last_ts)
        ], 21), ''::bytea)
        from market._trades_1m_between($1, $2, $3) a
        having count(*) > 0;
end
$$;

-- The same of longer bars; but of source 2 the one-minute bars that they are to be made of, and those
-- only where no bars longer than a minute are loaded. loaded: whether there may be any.
create or replace function feature._candles_plain(
    symbol text, timeframe interval, "from" timestamptz, "to" timestamptz, loaded boolean
)
returns table (source integer, rows bytea)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
set enable_seqscan = off
rows 1
as $$
#variable_conflict use_column
begin
    if exists (
        select from market.candles_history h
        where h.symbol = $1 and h.timeframe in (interval '1 minute', $2)
            and h.ts >= $3 and h.ts < $4
    ) then
        return;
    end if;
    if $5 then
        return query select 0, l.rows from feature._bars_loaded($1, $2, $3, $4) l;
        if found then
            return;
        end if;
    end if;
    return query
        select 1, string_agg(feature._bytes(array[
            feature._bits(a.bucket), feature._bits(a.usable_at), coalesce(a.open, 'NaN'),
            coalesce(a.high, 'NaN'), coalesce(a.low, 'NaN'), coalesce(a.close, 'NaN'),
            coalesce(a.volume, 'NaN')
        ], 21), ''::bytea)
        from market._candles_between($1, $2, $3, $4) a
        having count(*) > 0;
    if not found and not $5 then
        return query select m.* from feature._minutes_of_trades($1, $3, $4) m;
    end if;
end
$$;

-- Planned for the values at hand: that leaves all chunks out but those asked for.
create or replace function feature._bars_loaded(
    symbol text, timeframe interval, "from" timestamptz, "to" timestamptz
)
returns table (rows bytea)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan
rows 1
as $$
begin
    return query
        select string_agg(feature._bytes(array[
            feature._bits(c.ts), feature._bits(c.known_at), c.open, c.high, c.low, c.close,
            c.volume,
            -- As feature._bars has them.
            coalesce(c.quote_volume, c.volume * (c.high + c.low + c.close) / 3, 'NaN'),
            coalesce(c.taker_buy_volume, 'NaN'),
            coalesce(
                c.taker_buy_volume * coalesce(c.quote_volume / nullif(c.volume, 0), c.close), 'NaN'
            )
        ], 21), ''::bytea)
        from market.candles c
        where c.symbol = $1 and c.timeframe = $2 and c.ts >= $3 and c.ts < $4
        having count(*) > 0;
end
$$;

-- Whether bars longer than a minute are loaded in [from, to).
create or replace function feature._longer_loaded(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns boolean
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan
as $$
begin
    return exists (
        select from market.candles c
        where c.symbol = $1 and c.timeframe > interval '1 minute' and c.ts >= $2 and c.ts < $3
    );
end
$$;

-- Whether there is no trade in [from, to), and was none: then there are no bars from trades.
create or replace function feature._no_trades(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns boolean
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
begin
    return not exists (select from market._trades_1m_between($1, $2, $3))
        and not exists (
            select from market.trades_history h where h.symbol = $1 and h.ts >= $2 and h.ts < $3
        );
end
$$;

create or replace function feature._book_live(symbol text, "from" timestamptz, "to" timestamptz)
returns table (
    bucket bytea, usable bytea, expires bytea, last_ts bytea, two_sided_count bytea,
    relative_spread_sum bytea, imbalance_sum bytea, mid_sum bytea, n bigint,
    bid_prices bytea, bid_sizes bytea, ask_prices bytea, ask_sizes bytea
)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
set enable_seqscan = off
rows 1
as $$
begin
    return query select b.* from feature._book($1, $2, $3) b;
end
$$;

create or replace function feature._liquidations_live(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns table (
    bucket bytea, usable bytea, expires bytea, long_notional bytea, short_notional bytea,
    event_count bytea
)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
set enable_seqscan = off
rows 1
as $$
begin
    return query select l.* from feature._liquidations($1, $2, $3) l;
end
$$;

-- as_of where an event at least an hour old was known by then, else null. Most are of the last day.
create or replace function feature._liquidation_cover_live(symbol text, as_of timestamptz)
returns bytea
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_stop constant timestamptz := as_of - interval '59 minutes';
    v_start timestamptz;
begin
    foreach v_start in array array[as_of - interval '1 day', timestamptz '-infinity'] loop
        if exists (
            select from market._liquidations_1m_between($1, v_start, v_stop) a
            where a.usable_at <= $2
        ) or exists (
            select from market.liquidation_events_history h
            where h.symbol = $1 and h.ts >= v_start and h.ts < v_stop and h.known_at <= $2
        ) then
            return timestamptz_send(as_of);
        end if;
    end loop;
    return null;
end
$$;

-- Where nothing has been superseded only the newest value known at "to", a whole minute, can count;
-- there it does not matter whether usable is rounded up to a minute.
create or replace function feature._funding_live(symbol text, "from" timestamptz, "to" timestamptz)
returns table (ts bytea, usable bytea, expires bytea, rate bytea)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan
rows 1
as $$
#variable_conflict use_column
declare
    v_last record;
begin
    if exists (
        select from market.funding_rates_history h
        where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ) then
        return query select f.* from feature._funding($1, $2, $3) f;
        return;
    end if;
    select s.ts, s.known_at, s.rate, s.funding_interval into v_last
    from market.funding_rates s
    where s.symbol = $1 and s.ts >= $2 and s.ts < $3 and s.known_at <= $3
    order by s.ts desc
    limit 1;
    if found then
        ts := timestamptz_send(v_last.ts);
        usable := timestamptz_send(greatest(v_last.ts, v_last.known_at));
        expires := timestamptz_send('infinity');
        rate := feature._send(
            v_last.rate
            * coalesce(28800 / nullif(date_part('epoch', v_last.funding_interval), 0), 1)
        );
    end if;
    return next;
end
$$;

-- As funding; and the newest value known now of those not after "before".
create or replace function feature._open_interest_live(
    symbol text, "from" timestamptz, "to" timestamptz, before timestamptz
)
returns table (ts bytea, usable bytea, expires bytea, open_interest bytea, value bytea)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan
rows 1
as $$
#variable_conflict use_column
declare
    v_last record;
    v_end timestamptz := $3;
begin
    if exists (
        select from market.open_interest_history h
        where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ) then
        return query select o.* from feature._open_interest($1, $2, $3) o;
        return;
    end if;
    for i in 1..2 loop
        select s.ts, s.known_at, s.open_interest, s.value into v_last
        from market.open_interest s
        where s.symbol = $1 and s.ts >= $2 and s.ts < v_end and s.known_at <= $3
        order by s.ts desc
        limit 1;
        exit when not found;
        -- Ordered by time: what is found second comes first.
        ts := timestamptz_send(v_last.ts) || coalesce(ts, '');
        usable := timestamptz_send(greatest(v_last.ts, v_last.known_at))
            || coalesce(usable, '');
        expires := timestamptz_send('infinity') || coalesce(expires, '');
        open_interest := feature._send(v_last.open_interest) || coalesce(open_interest, '');
        value := feature._send(v_last.value) || coalesce(value, '');
        exit when v_last.ts <= $4;
        v_end := $4 + interval '1 microsecond';
    end loop;
    return next;
end
$$;

create or replace function feature._trade_rows_live(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns table (rows bytea)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan
rows 1
as $$
begin
    if exists (
        select from market.trades_history h where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ) then
        return query select r.* from feature._trade_rows($1, $2, $3) r;
        return;
    end if;
    return query
        select
            string_agg(feature._bytes(array[
                feature._bits(v.ts), feature._bits(v.known_at), feature._bits('infinity'),
                v.price, case v.side when 'buy' then v.size else -v.size end
            ], 21), ''::bytea)
        from (
            select t.ts, t.known_at, t.price, t.size, t.side
            from market.trades t
            where t.symbol = $1 and t.ts >= $2 and t.ts < $3
            order by t.ts, t.trade_id
        ) v;
end
$$;

create or replace function feature._top_rows_live(
    symbol text, "from" timestamptz, "to" timestamptz
)
returns table (rows bytea)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan
rows 1
as $$
begin
    if exists (
        select from market.order_book_snapshots_history h
        where h.symbol = $1 and h.ts >= $2 and h.ts < $3
    ) then
        return query select r.* from feature._top_rows($1, $2, $3) r;
        return;
    end if;
    return query
        select
            string_agg(feature._bytes(array[
                feature._bits(v.ts), feature._bits(v.known_at), feature._bits('infinity'),
                coalesce(v.bid_prices[1], 'NaN'),
                coalesce(case when v.after_gap then -v.bid_sizes[1] else v.bid_sizes[1] end, 'NaN'),
                coalesce(v.ask_prices[1], 'NaN'), coalesce(v.ask_sizes[1], 'NaN')
            ], 21), ''::bytea)
        from (
            select
                b.ts, b.known_at, b.bid_prices, b.bid_sizes, b.ask_prices, b.ask_sizes, b.after_gap
            from market.order_book_snapshots b
            where b.symbol = $1 and b.ts >= $2 and b.ts < $3
            order by b.ts, b.sequence
        ) v;
end
$$;
