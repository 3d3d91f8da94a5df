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

-- Where nothing has been superseded only the newest value known at "to", a whole minute, can count.
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
        usable := timestamptz_send(
            market.usable_at(interval '1 minute', v_last.ts, v_last.known_at)
        );
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
        usable := timestamptz_send(
            market.usable_at(interval '1 minute', v_last.ts, v_last.known_at)
        ) || coalesce(usable, '');
        expires := timestamptz_send('infinity') || coalesce(expires, '');
        open_interest := feature._send(v_last.open_interest) || coalesce(open_interest, '');
        value := feature._send(v_last.value) || coalesce(value, '');
        exit when v_last.ts <= $4;
        v_end := $4 + interval '1 microsecond';
    end loop;
    return next;
end
$$;
