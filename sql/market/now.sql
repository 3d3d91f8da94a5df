-- What a user's SELECT reads in place of a table: its rows of one symbol as known at one moment, which
-- alphaplus.server.sets.user says for as long as it runs the SELECT, and nothing in the SELECT can
-- change. They run as the owner, and alphaplus_select, as which users' SELECTs run, may call them and
-- read nothing else: whatever a SELECT holds, it reaches no later row and no other table. alias: the
-- name under which a set has asked for other symbols; null: the symbol itself.

-- The moment, a row for each symbol that is meant.
create or replace function market._moments(
    alias text, out symbol text, out start timestamptz, out stop timestamptz,
    out as_of timestamptz, out until timestamptz
)
returns setof record
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
begin
    -- Written out: a call of ops._at for each costs more than all the rest.
    return query
        select
            s.symbol,
            timestamptz '1970-01-01 00:00:00+00' + m.start * interval '1 microsecond',
            timestamptz '1970-01-01 00:00:00+00' + m.stop * interval '1 microsecond',
            timestamptz '1970-01-01 00:00:00+00' + m.as_of * interval '1 microsecond',
            timestamptz '1970-01-01 00:00:00+00' + m.until * interval '1 microsecond'
        from feature._moment($1) m
        cross join lateral unnest(m.symbols) as s (symbol);
end
$$;

create or replace function market._candles_now(alias text default null)
returns setof market.candles
language plpgsql stable parallel restricted security definer rows 100
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now record;
begin
    for v_now in select m.* from market._moments($1) m loop
        return query
            select r.*
            from market._candles_known(v_now.symbol, v_now.start, v_now.stop, v_now.as_of) r;
        -- For the audit: beside those, what happened later.
        if v_now.until is not null then
            return query
                select r.*
                from market._candles_known(v_now.symbol, v_now.stop, v_now.until, v_now.until) r;
        end if;
    end loop;
end
$$;

create or replace function market._trades_now(alias text default null)
returns setof market.trades
language plpgsql stable parallel restricted security definer rows 100
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now record;
begin
    for v_now in select m.* from market._moments($1) m loop
        return query
            select r.*
            from market._trades_known(v_now.symbol, v_now.start, v_now.stop, v_now.as_of) r;
        -- For the audit: beside those, what happened later.
        if v_now.until is not null then
            return query
                select r.*
                from market._trades_known(v_now.symbol, v_now.stop, v_now.until, v_now.until) r;
        end if;
    end loop;
end
$$;

create or replace function market._order_book_snapshots_now(alias text default null)
returns setof market.order_book_snapshots
language plpgsql stable parallel restricted security definer rows 100
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now record;
begin
    for v_now in select m.* from market._moments($1) m loop
        return query
            select r.*
            from market._order_book_snapshots_known(v_now.symbol, v_now.start, v_now.stop, v_now.as_of) r;
        -- For the audit: beside those, what happened later.
        if v_now.until is not null then
            return query
                select r.*
                from market._order_book_snapshots_known(v_now.symbol, v_now.stop, v_now.until, v_now.until) r;
        end if;
    end loop;
end
$$;

create or replace function market._liquidation_events_now(alias text default null)
returns setof market.liquidation_events
language plpgsql stable parallel restricted security definer rows 100
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now record;
begin
    for v_now in select m.* from market._moments($1) m loop
        return query
            select r.*
            from market._liquidation_events_known(v_now.symbol, v_now.start, v_now.stop, v_now.as_of) r;
        -- For the audit: beside those, what happened later.
        if v_now.until is not null then
            return query
                select r.*
                from market._liquidation_events_known(v_now.symbol, v_now.stop, v_now.until, v_now.until) r;
        end if;
    end loop;
end
$$;

create or replace function market._funding_rates_now(alias text default null)
returns setof market.funding_rates
language plpgsql stable parallel restricted security definer rows 100
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now record;
begin
    for v_now in select m.* from market._moments($1) m loop
        return query
            select r.*
            from market._funding_rates_known(v_now.symbol, v_now.start, v_now.stop, v_now.as_of) r;
        -- For the audit: beside those, what happened later.
        if v_now.until is not null then
            return query
                select r.*
                from market._funding_rates_known(v_now.symbol, v_now.stop, v_now.until, v_now.until) r;
        end if;
    end loop;
end
$$;

create or replace function market._open_interest_now(alias text default null)
returns setof market.open_interest
language plpgsql stable parallel restricted security definer rows 100
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now record;
begin
    for v_now in select m.* from market._moments($1) m loop
        return query
            select r.*
            from market._open_interest_known(v_now.symbol, v_now.start, v_now.stop, v_now.as_of) r;
        -- For the audit: beside those, what happened later.
        if v_now.until is not null then
            return query
                select r.*
                from market._open_interest_known(v_now.symbol, v_now.stop, v_now.until, v_now.until) r;
        end if;
    end loop;
end
$$;

-- Bars of a length as market.candles_5m and its like show them, as they were known: loaded, else made of
-- loaded minutes, else of trades.
create or replace function market._bars_known(
    symbol text, timeframe interval, "from" timestamptz, "to" timestamptz, as_of timestamptz
)
returns table (
    symbol text, ts timestamptz, open double precision, high double precision,
    low double precision, close double precision, volume double precision,
    quote_volume double precision, trade_count bigint, taker_buy_volume double precision
)
language sql stable parallel safe rows 100 set search_path = pg_catalog, pg_temp
as $$
    select
        $1, v.bucket, public.first(v.open, v.first_ts), max(v.high), min(v.low),
        public.last(v.close, v.last_ts), sum(v.volume), sum(v.quote_volume),
        sum(v.trade_count)::bigint, sum(v.taker_buy_volume)
    from (
        select k.*, min(k.priority) over (partition by k.bucket) as best
        from market.candle_versions($1, $2, $3, $4, $5) k
        where k.usable_at <= $5 and k.expires_at > $5 and k.bucket + $2 <= $4
    ) v
    where v.priority = v.best
    group by v.bucket
$$;

create or replace function market._bars_now(timeframe interval, alias text default null)
returns table (
    symbol text, ts timestamptz, open double precision, high double precision,
    low double precision, close double precision, volume double precision,
    quote_volume double precision, trade_count bigint, taker_buy_volume double precision
)
language plpgsql stable parallel restricted security definer rows 100
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now record;
begin
    for v_now in select m.* from market._moments($2) m loop
        return query
            select r.*
            from market._bars_known(v_now.symbol, $1, v_now.start, v_now.stop, v_now.as_of) r;
        if v_now.until is not null then
            return query
                select r.*
                from market._bars_known(v_now.symbol, $1, v_now.stop, v_now.until, v_now.until) r;
        end if;
    end loop;
end
$$;

-- The rows of a user's source (feature.create_source) as known at the moment: of those with the same
-- symbol, ts and key the one that was known last. Tables of schema research belong to the owner, and
-- their columns' types are looked at when they become sources.
create or replace function market._source_now(source text)
returns setof record
language plpgsql stable parallel restricted security definer rows 100
set search_path = pg_catalog, pg_temp
as $$
declare
    v_source feature.sources;
    v_now record;
    v_select text;
begin
    select s.* into strict v_source from feature.sources s where s.source = $1;
    v_select := feature._source_select(v_source);
    for v_now in select m.* from market._moments(null) m loop
        return query execute v_select
            using v_now.symbol, v_now.start, v_now.stop, v_now.as_of;
        if v_now.until is not null then
            return query execute v_select
                using v_now.symbol, v_now.stop, v_now.until, v_now.until;
        end if;
    end loop;
end
$$;

-- What a label's SELECT reads as market.label_interval: the one interval that it is asked for.
create or replace function market._label_interval_now(alias text default null)
returns table (ts timestamptz, label_end timestamptz)
language plpgsql stable parallel restricted security definer rows 1
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
        select
            timestamptz '1970-01-01 00:00:00+00' + m.label_start * interval '1 microsecond',
            timestamptz '1970-01-01 00:00:00+00' + m.stop * interval '1 microsecond'
        from feature._moment($1) m
        where m.label_start is not null;
end
$$;

-- Of the rows of a stretch those that were not there, or were other, at a grid time after they
-- happened: from ts to until. There a SELECT over the stretch is not that over each time's rows.
create or replace function market._unsettled_now(relation text, grid bigint, bars interval)
returns table (ts timestamptz, until timestamptz)
language plpgsql stable parallel restricted security definer rows 10
set search_path = pg_catalog, pg_temp
as $$
declare
    v_grid constant interval := $2 * interval '1 microsecond';
    v_now record;
begin
    select m.* into v_now from market._moments(null) m;
    if $3 is not null then
        return query
            select v.bucket, u.until
            from market.candle_versions(v_now.symbol, $3, v_now.start, v_now.stop) v
            cross join lateral (values (v.usable_at), (v.expires_at)) as u (until)
            where u.until <= v_now.stop
                and public.time_bucket(v_grid, v.bucket) + v_grid < u.until;
        return;
    end if;
    return query execute format(
        'select r.ts, u.until from market.%1$I r cross join lateral (values (%2$s)) as u (until)'
        ' where r.symbol = $1 and r.ts >= $2 and r.ts < $3 and r.known_at <= $3'
        ' and public.time_bucket($4, r.ts) + $4 < u.until'
        ' union all'
        ' select r.ts, u.until from market.%3$I r'
        ' cross join lateral (values (%2$s), (r.superseded_at)) as u (until)'
        ' where r.symbol = $1 and r.ts >= $2 and r.ts < $3 and u.until <= $3'
        ' and public.time_bucket($4, r.ts) + $4 < u.until',
        $1, case when $1 = 'candles' then 'greatest(r.known_at, r.ts + r.timeframe)' else 'r.known_at' end,
        $1 || '_history'
    ) using v_now.symbol, v_now.start, v_now.stop, v_grid;
end
$$;
