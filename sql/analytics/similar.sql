-- Moments of the past that were like the present, and what followed them.
create or replace function analytics._state_sums(symbol text, width bigint, month bigint)
returns table (
    regime smallint, n double precision [], total double precision [], square double precision []
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select s.regime, s.n, s.total, s.square
    from analytics.state_scales s
    where s.symbol = $1 and s.timeframe = $2 * interval '1 microsecond' and s.month = ops._at($3)
$$;
comment on function analytics._state_sums(text, bigint, bigint) is
'analytics.state_scales of a month for Python.';

create or replace function analytics._states(symbol text, width bigint, first bigint, stop bigint)
returns table (
    month bigint, n double precision [], total double precision [], square double precision [],
    ts bigint [], regime bigint [], raw double precision [], states text []
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
rows 12
as $python$
    from alphaplus.server.analytics import similar
    return list(similar.compute(plpy, GD, symbol, width, first, stop))
$python$;
comment on function analytics._states(text, bigint, bigint, bigint) is
'States of grid times in [first, stop) computed month by month, see analytics.refresh_states.';

create or replace function analytics._present_state(symbol text, width bigint, at bigint)
returns table (regime integer, state text, has_scale boolean)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $python$
    from alphaplus.server.analytics import similar
    return list(similar.present(plpy, GD, symbol, width, at))
$python$;
comment on function analytics._present_state(text, bigint, bigint) is
'The state of one grid time, computed as known then.';

create or replace function analytics._closes(
    symbol text, timeframe interval, "from" timestamptz, "to" timestamptz
)
returns table (ts timestamptz, known_at timestamptz, price double precision)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select distinct on (m.bucket) m.bucket + $2, m.known_at, m.close
    from (
        select
            v.bucket, v.priority, max(v.usable_at) as known_at,
            (array_agg(v.close order by v.last_ts desc, v.tie desc))[1] as close
        from market.candle_versions($1, $2, $3 - $2, $4 - $2) v
        where v.usable_at <= v.bucket + 2 * $2 and v.expires_at > v.bucket + 2 * $2
        group by v.bucket, v.priority
    ) m
    where m.close > 0 and m.close < 'infinity'
    order by m.bucket, m.priority
$$;
comment on function analytics._closes(text, interval, timestamptz, timestamptz) is
'Closes of the bars that ended in [from, to), of those known within one bar, as known by then.';

create or replace function analytics._refresh_states(
    symbol text, timeframe interval, everything boolean, as_of timestamptz
)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
#variable_conflict use_column
declare
    v_width constant bigint := ops._micros($2);
    v_stop constant timestamptz := public.time_bucket($2, $4) + interval '1 microsecond';
    v_first_bar constant timestamptz := (
        select least(
            (select c.ts from market.candles c where c.symbol = $1 order by c.ts limit 1),
            (select t.ts from market.trades t where t.symbol = $1 order by t.ts limit 1)
        )
    );
    v_last timestamptz;
    v_from timestamptz;
    v_month record;
    v_rows bigint := 0;
    v_changed bigint;
begin
    if v_first_bar is null then
        delete from analytics.states s where s.symbol = $1 and s.timeframe = $2;
        delete from analytics.state_scales s where s.symbol = $1 and s.timeframe = $2;
        return 0;
    end if;
    select max(s.ts) into v_last from analytics.states s where s.symbol = $1 and s.timeframe = $2;
    v_from := date_trunc('month', case when $3 then null else v_last end);
    -- From the beginning where nothing is kept, and where bars are older than what is.
    if v_from is null or not exists (
        select from analytics.state_scales s
        where s.symbol = $1 and s.timeframe = $2 and s.month <= date_trunc('month', v_first_bar)
    ) then
        v_from := date_trunc('month', v_first_bar);
        delete from analytics.state_scales s where s.symbol = $1 and s.timeframe = $2;
        delete from analytics.states s where s.symbol = $1 and s.timeframe = $2 and s.ts < v_from;
    end if;
    for v_month in
        select m.* from analytics._states($1, v_width, ops._micros(v_from), ops._micros(v_stop)) m
    loop
        delete from analytics.state_scales s
        where s.symbol = $1 and s.timeframe = $2 and s.month = ops._at(v_month.month);
        insert into analytics.state_scales (symbol, timeframe, month, regime, n, total, square)
        select
            $1, $2, ops._at(v_month.month), r,
            v_month.n [(r - 1) * k.k + 1 : r * k.k], v_month.total [(r - 1) * k.k + 1 : r * k.k],
            v_month.square [(r - 1) * k.k + 1 : r * k.k]
        from generate_series(1, 6) r
        cross join (select cardinality(v_month.n) / 6 as k) k;
        delete from analytics.states s
        where s.symbol = $1 and s.timeframe = $2 and s.ts >= ops._at(v_month.month)
            and s.ts < ops._at(v_month.month) + interval '1 month'
            and ops._micros(s.ts) <> all (v_month.ts);
        insert into analytics.states as o (
            symbol, timeframe, ts, known_at, price, regime, raw, state
        )
        select
            $1, $2, u.ts, c.known_at, c.price, u.regime, u.raw, u.state::public.vector
        from (
            select
                ops._at(x.ts) as ts, x.regime::smallint as regime, x.state,
                v_month.raw [(x.i - 1) * k.k + 1 : x.i * k.k] as raw
            from unnest(v_month.ts, v_month.regime, v_month.states)
                with ordinality x (ts, regime, state, i)
            cross join (select cardinality(v_month.n) / 6 as k) k
        ) u
        left join analytics._closes(
            $1, $2, ops._at(v_month.month), least(ops._at(v_month.month) + interval '1 month', v_stop)
        ) c on c.ts = u.ts
        on conflict on constraint states_pkey do update
        set known_at = excluded.known_at, price = excluded.price, regime = excluded.regime,
            raw = excluded.raw, state = excluded.state
        where (o.known_at, o.price, o.regime, o.raw, o.state::text)
            is distinct from (
                excluded.known_at, excluded.price, excluded.regime, excluded.raw,
                excluded.state::text
            );
        get diagnostics v_changed = row_count;
        v_rows := v_rows + v_changed;
    end loop;
    return v_rows;
end
$$;
comment on function analytics._refresh_states(text, interval, boolean, timestamptz) is
'Keeps the states of a symbol from the start of the month of the newest kept one (everything: from its first bar) up to as_of; gives how many rows are new or changed.';

-- Commits after each symbol, so it cannot pin search_path; every name is qualified.
create or replace procedure analytics.refresh_states(
    symbols text [] default null, everything boolean default false
)
language plpgsql
as $$
declare
    v_some text [] := case when symbols is not null then array(
        select market.resolve(u.name) from pg_catalog.unnest(symbols) u (name)
    ) end;
    v_work record;
begin
    for v_work in
        select i.symbol, t.timeframe
        from market.instruments i
        cross join analytics._state_timeframes() t (timeframe)
        where v_some is null or i.symbol = any (v_some)
        order by i.symbol, t.timeframe
    loop
        -- One at a time; who comes second leaves the work to the first.
        exit when not ops._try_lock('analytics.refresh_states');
        perform analytics._refresh_states(
            v_work.symbol, v_work.timeframe, coalesce(everything, false), pg_catalog.clock_timestamp()
        );
        commit;
    end loop;
end
$$;
comment on procedure analytics.refresh_states(text [], boolean) is
'Keeps the states that analytics.similar_states looks through, of symbols (null: all) at the lengths of bars in the setting analytics.state_timeframes: those of the current month anew, and what is new. everything: all of history anew, as the clock does once a day; so what was loaded for an earlier month, or corrected there, is seen within a day. Commits after each symbol; a second call while one runs returns at once. Errors: AP101, AP102 symbol, AP976 setting.';

create or replace function analytics._state_timeframes() returns setof interval
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 2
as $$
declare
    v_value constant jsonb := coalesce(
        (select s.value from ops.settings s where s.name = 'analytics.state_timeframes'), '["1 hour"]'
    );
    v_name text;
begin
    if jsonb_typeof(v_value) = 'array' then
        for v_name in select e.value from jsonb_array_elements_text(v_value) e (value) loop
            exit when v_name is null
                or v_name not in ('1 hour', '15 minutes', '5 minutes');
            return next v_name::interval;
            v_name := '';
        end loop;
    end if;
    if v_name is distinct from '' and v_value <> '[]' then
        raise exception 'setting analytics.state_timeframes is %', v_value
        using errcode = 'AP976', hint = 'It is an array of "1 hour", "15 minutes", "5 minutes".';
    end if;
end
$$;
comment on function analytics._state_timeframes() is
'Lengths of bars at which states are kept. Errors: AP976 the setting.';

create or replace function analytics.state_features() returns text []
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
return array[
    'log_range', 'return', 'range_fast', 'volatility_z', 'volatility_slow_z', 'trend_fast', 'trend',
    'trend_slow', 'drawdown', 'fall', 'volume_z', 'return_local'
];
comment on function analytics.state_features() is
'The features of a state, in the order of analytics.states.raw and state; features of regime_1h, see feature.definitions.';

create or replace function analytics._state_width(symbol text, horizon interval) returns interval
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select max(s.timeframe)
    from analytics.state_scales s
    where s.symbol = $1 and ops._micros($2) % ops._micros(s.timeframe) = 0
$$;
comment on function analytics._state_width(text, interval) is
'The longest bars that states of a symbol are kept of and that make up a horizon; null: none.';

create or replace function analytics._check_similar(k integer, horizon interval) returns void
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
set intervalstyle = 'postgres'
as $$
begin
    if k is null or k not between 1 and 500 then
        raise exception '% similar states are not possible', coalesce(k::text, 'null')
        using errcode = 'AP978', hint = 'From 1 to 500.';
    end if;
    if horizon is null or horizon < interval '5 minutes' or horizon > interval '30 days'
        or ops._micros(horizon) % 300000000 <> 0
    then
        raise exception 'a horizon of % is not possible', coalesce(horizon::text, 'null')
        using errcode = 'AP975',
        hint = 'From five minutes to 30 days, whole bars of which states are kept (setting analytics.state_timeframes), as interval ''24 hours''.';
    end if;
end
$$;
comment on function analytics._check_similar(integer, interval) is
'Refuses a number of states or a horizon. Errors: AP978, AP975.';

create or replace function analytics._nearest_states(
    state public.vector, symbols text [], timeframe interval, "limit" timestamptz,
    horizon interval, as_of timestamptz, count integer, exact boolean,
    out symbol text [], out ts timestamptz [], out distance double precision []
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
set "hnsw.iterative_scan" = 'strict_order'
set "hnsw.ef_search" = 200
set "hnsw.max_scan_tuples" = 100000
as $$
#variable_conflict use_variable
begin
    -- Only moments whose outcome was known.
    if exact then
        select array_agg(x.symbol order by x.d, x.ts, x.symbol), array_agg(x.ts order by x.d, x.ts, x.symbol),
            array_agg(x.d order by x.d, x.ts, x.symbol)
        into symbol, ts, distance
        from (
            select s.symbol, s.ts, (s.state operator(public.<->) $1) as d
            from analytics.states s
            join analytics.states o on o.symbol = s.symbol and o.timeframe = s.timeframe
                and o.ts = s.ts + $5 and o.price is not null and o.known_at <= $6
            where s.symbol = any ($2) and s.timeframe = $3 and s.ts <= $4
                and s.state is not null and s.price is not null
            order by d, s.ts, s.symbol
            limit $7
        ) x;
    else
        select array_agg(x.symbol order by x.d, x.ts, x.symbol), array_agg(x.ts order by x.d, x.ts, x.symbol),
            array_agg(x.d order by x.d, x.ts, x.symbol)
        into symbol, ts, distance
        from (
            select s.symbol, s.ts, (s.state operator(public.<->) $1) as d
            from analytics.states s
            where s.symbol = any ($2) and s.timeframe = $3 and s.ts <= $4
                and s.state is not null and s.price is not null
                and exists (
                    select from analytics.states o
                    where o.symbol = s.symbol and o.timeframe = s.timeframe
                        and o.ts = s.ts + $5 and o.price is not null and o.known_at <= $6
                )
            order by s.state operator(public.<->) $1
            limit $7
        ) x;
    end if;
end
$$;
comment on function analytics._nearest_states(
    public.vector, text [], interval, timestamptz, interval, timestamptz, integer, boolean
) is
'The nearest states not after a time whose outcome was known by as_of, nearest first; exact: without the index.';

create or replace function analytics._picked_states(
    symbol text, as_of timestamptz, k integer, horizon interval, symbols text [], exact boolean,
    out at timestamptz, out width interval, out present_regime text, out picked_symbol text [],
    out picked_ts timestamptz [], out picked_distance double precision [], out pool text [],
    out last_ts timestamptz, out reason text
)
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp set intervalstyle = 'postgres'
as $$
#variable_conflict use_variable
declare
    v_state record;
    v_near record;
    v_count integer;
begin
    picked_symbol := '{}';
    picked_ts := '{}';
    picked_distance := '{}';
    pool := array(select distinct market.resolve(u.name) from unnest(coalesce(symbols, array[symbol])) u (name));
    width := analytics._state_width(symbol, horizon);
    if width is null then
        reason := format(
            'no states of %s are kept that make up %s: call analytics.refresh_states()', symbol, horizon
        );
        return;
    end if;
    at := public.time_bucket(width, as_of);
    -- The state looks back over 72 bars, so what followed the other has ended before those begin.
    last_ts := at - horizon - 72 * width;
    -- The kept one where there is one: it is the same.
    select s.regime::integer as regime, s.state::text as state, true as has_scale into v_state
    from analytics.states s
    where s.symbol = $1 and s.timeframe = width and s.ts = at and s.state is not null;
    if not found then
        select p.* into v_state
        from analytics._present_state(symbol, ops._micros(width), ops._micros(at)) p;
    end if;
    select s.state into present_regime from regime.states s where s.position = v_state.regime;
    if v_state.state is null then
        reason := case
            when v_state.regime is null then format('the state of %s at %s is not known', symbol, at)
            when not v_state.has_scale then format(
                'states of %s are not kept up to %s: call analytics.refresh_states()', symbol, at
            )
            else format('too little is known of %s before %s', symbol, at)
        end;
        return;
    end if;
    v_count := 10 * k + 100;
    loop
        select n.* into v_near from analytics._nearest_states(
            v_state.state::public.vector, pool, width, last_ts, horizon, as_of, v_count, exact
        ) n;
        if not exact and coalesce(cardinality(v_near.ts), 0) < v_count then
            -- There are no more, or the index gave up looking.
            select n.* into v_near from analytics._nearest_states(
                v_state.state::public.vector, pool, width, last_ts, horizon, as_of, v_count, true
            ) n;
        end if;
        picked_symbol := '{}';
        picked_ts := '{}';
        picked_distance := '{}';
        for i in 1 .. coalesce(cardinality(v_near.ts), 0) loop
            if not exists (
                select from unnest(picked_ts) p (ts)
                where p.ts > v_near.ts[i] - horizon and p.ts < v_near.ts[i] + horizon
            ) then
                picked_symbol := picked_symbol || v_near.symbol[i];
                picked_ts := picked_ts || v_near.ts[i];
                picked_distance := picked_distance || v_near.distance[i];
                exit when cardinality(picked_ts) = k;
            end if;
        end loop;
        exit when cardinality(picked_ts) = k or coalesce(cardinality(v_near.ts), 0) < v_count;
        v_count := 4 * v_count;
    end loop;
    if cardinality(picked_ts) < k then
        reason := format(
            'only %s moments before %s do not overlap', cardinality(picked_ts), last_ts
        );
    end if;
end
$$;
comment on function analytics._picked_states(text, timestamptz, integer, interval, text [], boolean) is
'The states that analytics.similar_states shows, and why there are none.';

create or replace function analytics._similar_states(
    asked_symbol text, asked_as_of timestamptz, k integer, horizon interval, symbols text [],
    exact boolean
)
returns table (
    place integer, symbol text, ts timestamptz, distance double precision, regime text,
    present_regime text, price double precision, followed_return double precision,
    followed_volatility double precision, followed_low double precision,
    followed_high double precision, ended_at timestamptz
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($2);
    v_symbol constant text := market.resolve($1);
    v_picked record;
begin
    perform analytics._check_similar($3, $4);
    select p.* into v_picked
    from analytics._picked_states(v_symbol, v_as_of, $3, $4, $5, coalesce($6, false)) p;
    return query
        select
            u.place::integer, s.symbol, s.ts, u.distance, r.state, v_picked.present_regime, s.price,
            ln(o.price / s.price), f.volatility, ln(f.low / s.price), ln(f.high / s.price), o.ts
        from unnest(v_picked.picked_symbol, v_picked.picked_ts, v_picked.picked_distance)
            with ordinality u (symbol, ts, distance, place)
        join analytics.states s on s.symbol = u.symbol and s.timeframe = v_picked.width and s.ts = u.ts
        join analytics.states o on o.symbol = u.symbol and o.timeframe = v_picked.width
            and o.ts = u.ts + $4
        join regime.states r on r.position = s.regime
        cross join lateral (
            select
                least(min(p.price), s.price) as low, greatest(max(p.price), s.price) as high,
                sqrt(sum(ln(p.price / p.before) ^ 2)) as volatility
            from (
                select q.price, q.ts, lag(q.price) over (order by q.ts) as before
                from analytics.states q
                where q.symbol = u.symbol and q.timeframe = v_picked.width
                    and q.ts >= u.ts and q.ts <= u.ts + $4 and q.known_at <= v_as_of
            ) p
            where p.ts > u.ts
        ) f
        order by u.place;
end
$$;
comment on function analytics._similar_states(
    text, timestamptz, integer, interval, text [], boolean
) is
'See analytics.similar_states, which calls it: there a parameter may have the name of a column.';

create or replace function analytics.similar_states(
    symbol text, as_of timestamptz default null, k integer default 20,
    horizon interval default interval '24 hours', symbols text [] default null,
    exact boolean default false
)
returns table (
    place integer, symbol text, ts timestamptz, distance double precision, regime text,
    present_regime text, price double precision, followed_return double precision,
    followed_volatility double precision, followed_low double precision,
    followed_high double precision, ended_at timestamptz
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 20
as $$
    select x.* from analytics._similar_states($1, $2, $3, $4, $5, $6) x
$$;
comment on function analytics.similar_states(
    text, timestamptz, integer, interval, text [], boolean
) is
'The k past moments of a symbol (or of symbols) most like its state at as_of (default: now), nearest first, and what followed each over horizon: log return, volatility (root of the summed squared log returns), lowest and highest log price on the way. A state: twelve features of its bars (analytics.state_features) as known then, in units of what is usual in its regime; distance is Euclidean, unlike moments of two unrelated states are about 4.9 apart. No moment overlaps the present (what followed it ended before the 72 bars that the present state looks back on) nor another of them; only what was known at as_of counts. exact: without the HNSW index. No rows where too little is kept; analytics.similar_outcomes says why. Errors: AP101, AP102 symbol, AP960 as_of, AP978 k, AP975 horizon.';

create or replace function analytics._similar_outcomes(
    asked_symbol text, asked_as_of timestamptz, k integer, asked_horizon interval, symbols text []
)
returns table (
    symbol text, as_of timestamptz, ts timestamptz, regime text, horizon interval, moments bigint,
    nearest double precision, mean_distance double precision, mean_return double precision,
    return_p05 double precision, return_p25 double precision, return_p50 double precision,
    return_p75 double precision, return_p95 double precision, mean_volatility double precision,
    ups bigint, up_low double precision, up_high double precision, probability_up double precision,
    base_moments bigint, base_probability_up double precision, base_p05 double precision,
    base_p50 double precision, base_p95 double precision, reason text
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($2);
    v_symbol constant text := market.resolve($1);
    v_picked record;
begin
    perform analytics._check_similar($3, $4);
    select p.* into v_picked
    from analytics._picked_states(v_symbol, v_as_of, $3, $4, $5, false) p;
    return query
        select
            v_symbol, v_as_of, v_picked.at, v_picked.present_regime, $4, n.moments, n.nearest,
            n.mean_distance, n.mean_return, n.q[1], n.q[2], n.q[3], n.q[4], n.q[5],
            n.mean_volatility, n.ups,
            -- Wilson's interval at 95 %.
            (n.ups + 1.92073 - 1.959964 * sqrt(n.ups * (n.moments - n.ups) / nullif(n.moments, 0)::double precision + 0.960365))
            / nullif(n.moments + 3.841459, 3.841459),
            (n.ups + 1.92073 + 1.959964 * sqrt(n.ups * (n.moments - n.ups) / nullif(n.moments, 0)::double precision + 0.960365))
            / nullif(n.moments + 3.841459, 3.841459),
            ((n.ups + 20 * b.p) / nullif(n.moments + 20, 20))::double precision,
            b.moments, b.p, b.q[1], b.q[2], b.q[3], v_picked.reason
        from (
            select
                count(*) as moments, min(u.distance) as nearest, avg(u.distance) as mean_distance,
                avg(f.r) as mean_return,
                percentile_cont(array[0.05, 0.25, 0.5, 0.75, 0.95]) within group (order by f.r) as q,
                count(*) filter (where f.r > 0) as ups, avg(f.volatility) as mean_volatility
            from unnest(v_picked.picked_symbol, v_picked.picked_ts, v_picked.picked_distance)
                u (symbol, ts, distance)
            cross join lateral (
                select
                    ln((array_agg(p.price order by p.ts desc))[1] / (array_agg(p.price order by p.ts))[1]) as r,
                    sqrt(sum(ln(p.price / p.before) ^ 2)) as volatility
                from (
                    select q.price, q.ts, lag(q.price) over (order by q.ts) as before
                    from analytics.states q
                    where q.symbol = u.symbol and q.timeframe = v_picked.width
                        and q.ts >= u.ts and q.ts <= u.ts + $4 and q.known_at <= v_as_of
                ) p
            ) f
        ) n
        cross join (
            select
                count(*) as moments,
                case when count(*) > 0
                    then ((count(*) filter (where x.r > 0) + 0.5) / (count(*) + 1.0))::double precision
                end as p,
                percentile_cont(array[0.05, 0.5, 0.95]) within group (order by x.r) as q
            from (
                select ln(o.price / s.price) as r
                from analytics.states s
                join analytics.states o on o.symbol = s.symbol and o.timeframe = s.timeframe
                    and o.ts = s.ts + $4
                where s.symbol = any (v_picked.pool) and s.timeframe = v_picked.width
                    and s.ts <= v_picked.last_ts and s.state is not null
                    and s.price is not null and o.price is not null and o.known_at <= v_as_of
                    and (ops._micros(v_picked.last_ts) - ops._micros(s.ts)) % ops._micros($4) = 0
            ) x
        ) b;
end
$$;
comment on function analytics._similar_outcomes(text, timestamptz, integer, interval, text []) is
'See analytics.similar_outcomes, which calls it: there a parameter may have the name of a column.';

create or replace function analytics.similar_outcomes(
    symbol text, as_of timestamptz default null, k integer default 20,
    horizon interval default interval '24 hours', symbols text [] default null
)
returns table (
    symbol text, as_of timestamptz, ts timestamptz, regime text, horizon interval, moments bigint,
    nearest double precision, mean_distance double precision, mean_return double precision,
    return_p05 double precision, return_p25 double precision, return_p50 double precision,
    return_p75 double precision, return_p95 double precision, mean_volatility double precision,
    ups bigint, up_low double precision, up_high double precision, probability_up double precision,
    base_moments bigint, base_probability_up double precision, base_p05 double precision,
    base_p50 double precision, base_p95 double precision, reason text
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $$
    select x.* from analytics._similar_outcomes($1, $2, $3, $4, $5) x
$$;
comment on function analytics.similar_outcomes(text, timestamptz, integer, interval, text []) is
'What followed the k past moments most like a symbol''s state at as_of (default: now), as a distribution: quantiles of log returns over horizon, how many rose (with Wilson''s interval at 95 %), beside the same of all earlier moments that do not overlap (base_). probability_up weighs in the base rate with 20 moments, so few or indifferent ones say little. See analytics.similar_states for which moments; analytics.similar_skill for whether it is worth anything. Always one row; reason says why something is null. Errors: AP101, AP102 symbol, AP960 as_of, AP978 k, AP975 horizon.';

create or replace function analytics._skill(
    packed bytea [], start bigint, stop bigint, count integer, horizon bigint, gap bigint, seed bigint
)
returns table (
    forecasts bigint, log_loss double precision, base_log_loss double precision,
    gain double precision, gain_low double precision, gain_high double precision,
    crps double precision, base_crps double precision, crps_gain double precision,
    crps_gain_low double precision, crps_gain_high double precision, coverage_90 double precision,
    base_coverage_90 double precision
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $python$
    from alphaplus.server.analytics import similar
    return list(similar.skill(plpy, GD, packed, start, stop, count, horizon, gap, seed))
$python$;
comment on function analytics._skill(bytea [], bigint, bigint, integer, bigint, bigint, bigint) is
'See analytics.similar_skill, which calls it.';

create or replace function analytics.similar_skill(
    symbol text, "from" timestamptz default null, "to" timestamptz default null,
    k integer default 20, horizon interval default interval '24 hours', seed bigint default 1
)
returns table (
    forecasts bigint, log_loss double precision, base_log_loss double precision,
    gain double precision, gain_low double precision, gain_high double precision,
    crps double precision, base_crps double precision, crps_gain double precision,
    crps_gain_low double precision, crps_gain_high double precision, coverage_90 double precision,
    base_coverage_90 double precision, reason text
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $$
#variable_conflict use_column
declare
    v_symbol constant text := market.resolve($1);
    v_to constant timestamptz := analytics._asked($3);
    v_width interval;
    v_packed bytea [];
begin
    perform analytics._check_similar($4, $5);
    v_width := analytics._state_width(v_symbol, $5);
    select array[
        array_send(array_agg(x.ts)), array_send(array_agg(x.known)), array_send(array_agg(x.price))
    ]
    into v_packed
    from (
        select
            ops._micros(s.ts) as ts, coalesce(ops._micros(s.known_at), 9223372036854775807) as known,
            coalesce(s.price, 'NaN') as price
        from analytics.states s
        where s.symbol = v_symbol and s.timeframe = v_width and s.ts <= v_to
        order by s.ts
    ) x;
    v_packed := v_packed || (
        select array_send(array_agg(u.value::double precision order by s.ts, u.i))
        from analytics.states s
        cross join lateral unnest(
            coalesce(s.state::real [], array_fill('NaN'::real, array[12]))
        ) with ordinality u (value, i)
        where s.symbol = v_symbol and s.timeframe = v_width and s.ts <= v_to
    );
    return query
        select
            q.*,
            case
                when v_width is null then format(
                    'no states of %s are kept that make up %s: call analytics.refresh_states()', v_symbol, $5
                )
                when q.forecasts < 20 then format('only %s forecasts that do not overlap', q.forecasts)
            end
        from analytics._skill(
            v_packed, ops._micros(coalesce($2, '1970-01-01 00:00:00+00')), ops._micros(v_to), $4,
            ops._micros($5), ops._micros($5 + 72 * coalesce(v_width, interval '1 hour')),
            coalesce($6, 1)
        ) q;
end
$$;
comment on function analytics.similar_skill(
    text, timestamptz, timestamptz, integer, interval, bigint
) is
'What the forecasts of analytics.similar_outcomes over [from, to) would have been worth, one after the other without overlap, each from what was known then: log loss of probability_up beside the base rate''s, continuous ranked probability score of the k log returns beside that of all earlier ones, and how often the middle 90 % held what came. gain and crps_gain are the means of how much less was lost, with 95 % intervals by circular block bootstrap: skill is where the lower end is above zero. Null under 20 forecasts. Errors: AP101, AP102 symbol, AP960 to, AP978 k, AP975 horizon.';
