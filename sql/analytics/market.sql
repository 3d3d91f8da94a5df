-- The market as dashboards look at it: bars as known at a time, volume, liquidations, quality of data.
create or replace function analytics._last_bar(
    symbol text, as_of timestamptz, out timeframe interval, out ts timestamptz,
    out close double precision, out known_at timestamptz
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_width interval;
    v_bar record;
begin
    -- The finest bars there are, unless coarser ones go on for longer than one of them.
    foreach v_width in array array[
        interval '1 minute', interval '5 minutes', interval '15 minutes', interval '1 hour',
        interval '4 hours', interval '1 day'
    ] loop
        -- In the version that held then: one that was corrected later is in the history.
        select x.ts, x.close, x.known_at into v_bar
        from (
            (
                select c.ts, c.close, c.known_at
                from market.candles c
                where c.symbol = $1 and c.timeframe = v_width and c.ts < $2 and c.known_at <= $2
                order by c.ts desc limit 1
            )
            union all
            (
                select h.ts, h.close, h.known_at
                from market.candles_history h
                where h.symbol = $1 and h.timeframe = v_width and h.ts < $2 and h.known_at <= $2
                    and h.superseded_at > $2
                order by h.ts desc limit 1
            )
        ) x
        order by x.ts desc
        limit 1;
        if found and (ts is null or v_bar.ts + v_width > ts + timeframe + v_width) then
            timeframe := v_width;
            ts := v_bar.ts;
            close := v_bar.close;
            known_at := v_bar.known_at;
        end if;
    end loop;
    select x.ts, x.close, x.known_at into v_bar
    from (
        (
            select t.ts, t.price as close, t.known_at
            from market.trades t
            where t.symbol = $1 and t.ts <= $2 and t.known_at <= $2
            order by t.ts desc limit 1
        )
        union all
        (
            select h.ts, h.price, h.known_at
            from market.trades_history h
            where h.symbol = $1 and h.ts <= $2 and h.known_at <= $2 and h.superseded_at > $2
            order by h.ts desc limit 1
        )
    ) x
    order by x.ts desc
    limit 1;
    if found and (ts is null or v_bar.ts >= ts + timeframe) then
        v_bar.ts := public.time_bucket(interval '1 minute', v_bar.ts)
        - case
            when market.usable_at(interval '1 minute', v_bar.ts, v_bar.known_at) <= $2 then interval '0'
            else interval '1 minute'
        end;
        if ts is null or v_bar.ts >= ts + timeframe then
            timeframe := interval '1 minute';
            ts := v_bar.ts;
            close := v_bar.close;
            known_at := v_bar.known_at;
        end if;
    end if;
end
$$;
comment on function analytics._last_bar(text, timestamptz) is
'The last closed bar of a symbol known at a time: its length, opening time, last price and when it was
known; of a symbol with trades only, the minute before that of the last trade, with the last price.';

create or replace function analytics._bars(
    symbol text, timeframe interval, "from" timestamptz, as_of timestamptz
)
returns table (
    ts timestamptz, open double precision, high double precision, low double precision,
    close double precision, volume double precision, quote_volume double precision,
    buy_volume double precision, trade_count bigint
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
        select distinct on (m.bucket)
            m.bucket, m.open, m.high, m.low, m.close, m.volume, m.quote_volume, m.buy_volume,
            m.trades
        from (
            select
                v.bucket, v.priority,
                (array_agg(v.open order by v.first_ts, v.tie))[1] as open, max(v.high) as high,
                min(v.low) as low,
                (array_agg(v.close order by v.last_ts desc, v.tie desc))[1] as close,
                sum(v.volume order by v.first_ts, v.tie) as volume,
                sum(v.quote_volume order by v.first_ts, v.tie) as quote_volume,
                sum(v.taker_buy_volume order by v.first_ts, v.tie) as buy_volume,
                sum(v.trade_count)::bigint as trades
            from market.candle_versions($1, $2, $3, $4) v
            where v.usable_at <= $4 and v.expires_at > $4 and v.bucket + $2 <= $4
            group by v.bucket, v.priority
        ) m
        order by m.bucket, m.priority;
end
$$;
comment on function analytics._bars(text, interval, timestamptz, timestamptz) is
'Closed bars of a symbol from a time on as known at as_of, those loaded before those made of minutes or trades.';

create or replace function analytics._sentiment(symbol text, as_of timestamptz, hours double precision)
returns table (score double precision, texts bigint)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
begin
    if to_regprocedure('sentiment.summary(text,double precision,timestamptz,text)') is not null then
        return query execute
            'select s.mean, s.text_count from sentiment.summary($1, $2, $3) s'
            using symbol, hours, as_of;
    end if;
end
$$;
comment on function analytics._sentiment(text, timestamptz, double precision) is
'Mean sentiment of the texts of the last hours and how many there were; no row where texts are not scored here.';

create or replace function analytics._volume_analysis(
    asked_symbol text, asked_as_of timestamptz, asked_window interval
)
returns table (
    symbol text, ts timestamptz, timeframe interval, bars bigint, close double precision,
    volume double precision, quote_volume double precision, buy_volume double precision,
    sell_volume double precision, buy_share double precision, net_volume double precision,
    last_volume double precision, mean_volume double precision, volume_ratio double precision,
    volume_zscore double precision, breakout text, price_change double precision,
    volume_divergence text, price_flow_correlation double precision,
    point_of_control double precision, value_area_low double precision,
    value_area_high double precision, sentiment_score double precision, texts bigint,
    reason text
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($2);
    v_symbol constant text := market.resolve($1);
    v_last record;
begin
    if $3 is null or $3 < interval '1 minute' or $3 > interval '366 days' then
        raise exception 'a window of % is not possible', coalesce($3::text, 'null')
        using errcode = 'AP962', hint = 'From one minute to 366 days, as interval ''24 hours''.';
    end if;
    select b.timeframe, b.ts, b.close into v_last from analytics._last_bar(v_symbol, v_as_of) b;
    if v_last.ts is null then
        symbol := v_symbol;
        reason := format('nothing of %s is known at %s', v_symbol, v_as_of);
        return next;
        return;
    end if;
    return query
        with bars as materialized (
            select b.*, row_number() over (order by b.ts desc) as age
            from analytics._bars(
                v_symbol, v_last.timeframe,
                v_last.ts + v_last.timeframe - greatest($3, v_last.timeframe), v_as_of
            ) b
        ),
        sums as (
            select
                count(*) as bars, sum(b.volume) as volume,
                sum(coalesce(b.quote_volume, b.volume * (b.high + b.low + b.close) / 3)) as quote_volume,
                sum(b.buy_volume) as buy_volume, sum(b.volume) filter (where b.buy_volume is not null) as sided,
                max(b.volume) filter (where b.age = 1) as last_volume,
                max(b.close) filter (where b.age = 1) as last_close,
                max(b.high) filter (where b.age > 1) as before_high,
                min(b.low) filter (where b.age > 1) as before_low,
                avg(b.volume) filter (where b.age > 1) as mean_volume,
                stddev_samp(b.volume) filter (where b.age > 1) as deviation,
                (array_agg(b.open order by b.ts))[1] as first_open,
                corr(ln(b.close / b.open), 2 * b.buy_volume - b.volume)
                    filter (where b.open > 0 and b.close > 0) as agreement
            from bars b
        )
        select
            v_symbol, v_last.ts + v_last.timeframe, v_last.timeframe, s.bars, coalesce(s.last_close, v_last.close),
            s.volume, s.quote_volume, s.buy_volume, s.sided - s.buy_volume,
            s.buy_volume / nullif(s.sided, 0), 2 * s.buy_volume - s.sided, s.last_volume,
            s.mean_volume, s.last_volume / nullif(s.mean_volume, 0), z.zscore,
            case
                when z.zscore is null then null
                when z.zscore >= 2 and s.last_close > s.before_high then 'up'
                when z.zscore >= 2 and s.last_close < s.before_low then 'down'
                else 'none'
            end,
            s.last_close / nullif(s.first_open, 0) - 1,
            case
                when s.buy_volume is null or s.bars < 2 then null
                when s.last_close > s.first_open and 2 * s.buy_volume < s.sided then 'bearish'
                when s.last_close < s.first_open and 2 * s.buy_volume > s.sided then 'bullish'
                else 'none'
            end,
            s.agreement, p.poc, p.low, p.high, t.score, t.texts,
            case when s.bars = 0 then 'no closed bar in the window' end
        from sums s
        cross join lateral (
            select (s.last_volume - s.mean_volume) / nullif(s.deviation, 0) as zscore
        ) z
        left join lateral (
            select
                max(x.price) filter (where x.is_control) as poc,
                min(x.lower) filter (where x.in_value_area) as low,
                max(x.upper) filter (where x.in_value_area) as high
            from analytics._profile(
                array(select b.low from bars b), array(select b.high from bars b),
                array(select b.volume from bars b), array(select b.buy_volume from bars b), 50
            ) x
        ) p on true
        left join lateral analytics._sentiment(
            v_symbol, v_as_of, least(extract(epoch from $3) / 3600, 8760)::double precision
        ) t on true;
end
$$;
comment on function analytics._volume_analysis(text, timestamptz, interval) is
'See analytics.volume_analysis, which calls it: there a parameter may have the name of a column.';

create or replace function analytics.volume_analysis(
    symbol text, as_of timestamptz default null, "window" interval default interval '24 hours'
)
returns table (
    symbol text, ts timestamptz, timeframe interval, bars bigint, close double precision,
    volume double precision, quote_volume double precision, buy_volume double precision,
    sell_volume double precision, buy_share double precision, net_volume double precision,
    last_volume double precision, mean_volume double precision, volume_ratio double precision,
    volume_zscore double precision, breakout text, price_change double precision,
    volume_divergence text, price_flow_correlation double precision,
    point_of_control double precision, value_area_low double precision,
    value_area_high double precision, sentiment_score double precision, texts bigint,
    reason text
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1
as $$
    select x.* from analytics._volume_analysis($1, $2, $3) x
$$;
comment on function analytics.volume_analysis(text, timestamptz, interval) is
'Volume of a symbol over a window that ends with its last bar known at as_of (default: now), in bars of the finest length it has. Volumes in base units, quote_volume in quote currency; buy: the aggressor bought (null where the source does not say). breakout: last bar''s volume at least two standard deviations above the window''s mean, and its close beyond the window''s range before it. volume_divergence: price rose while more was sold (bearish), or fell while more was bought (bullish). point_of_control and value area: analytics.volume_profile. sentiment_score: mean of the texts of the window. Errors: AP101, AP102 symbol, AP960 as_of, AP962 window.';

create or replace function analytics._profile(
    lows double precision [], highs double precision [], volumes double precision [],
    buy_volumes double precision [], bins integer
)
returns table (
    bin integer, lower double precision, upper double precision, price double precision,
    volume double precision, buy_volume double precision, share double precision,
    is_control boolean, in_value_area boolean
)
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
    with bars as (
        select b.low, b.high, b.volume, b.buy_volume
        from unnest(lows, highs, volumes, buy_volumes) b (low, high, volume, buy_volume)
        where b.low > 0 and b.high < 'infinity' and b.volume > 0 and b.volume < 'infinity'
    ),
    ends as (
        select
            min(b.low) as low, max(b.high) as high,
            greatest((max(b.high) - min(b.low)) / bins, max(b.high) * 1e-12) as step
        from bars b
    ),
    steps as (
        select n as bin, e.low + (n - 1) * e.step as lower, e.low + n * e.step as upper
        from ends e
        cross join generate_series(1, bins) n
        where e.low is not null and (n = 1 or e.high > e.low)
    ),
    -- A bar's volume lies evenly between its low and its high; only the bins that it touches are
    -- looked at, and one more on either side, as a quotient may be rounded.
    parts as (
        select
            s.bin,
            b.volume * w.part as volume, b.buy_volume * w.part as buy_volume
        from ends e
        cross join bars b
        cross join lateral generate_series(
            greatest(1, floor((b.low - e.low) / e.step)::integer),
            least(bins, floor((b.high - e.low) / e.step)::integer + 2)
        ) n (bin)
        join steps s on s.bin = n.bin
        cross join lateral (
            select case
                when b.high > b.low
                    then greatest(least(b.high, s.upper) - greatest(b.low, s.lower), 0) / (b.high - b.low)
                when b.low >= s.lower and (b.low < s.upper or s.bin = bins or e.high = e.low) then 1
                else 0
            end as part
        ) w
        where w.part > 0
    ),
    filled as (
        select
            s.bin, s.lower, s.upper, coalesce(sum(p.volume), 0) as volume,
            sum(p.buy_volume) as buy_volume
        from steps s
        left join parts p on p.bin = s.bin
        group by s.bin, s.lower, s.upper
    ),
    ranked as (
        select
            f.*,
            row_number() over (order by f.volume desc, f.bin) as place,
            sum(f.volume) over () as total,
            sum(f.volume) over (order by f.volume desc, f.bin) - f.volume as before
        from filled f
    )
    select
        r.bin, r.lower, r.upper, (r.lower + r.upper) / 2, r.volume, r.buy_volume,
        r.volume / nullif(r.total, 0), r.place = 1, r.volume > 0 and r.before < 0.7 * r.total
    from ranked r
    order by r.bin
$$;
comment on function analytics._profile(
    double precision [], double precision [], double precision [], double precision [], integer
) is
'Volume by price of bars; see analytics.volume_profile.';

create or replace function analytics._volume_profile(
    asked_symbol text, asked_as_of timestamptz, asked_window interval, asked_bins integer
)
returns table (
    symbol text, bin integer, lower double precision, upper double precision,
    price double precision, volume double precision, buy_volume double precision,
    share double precision, is_control boolean, in_value_area boolean
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 50
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($2);
    v_symbol constant text := market.resolve($1);
    v_last record;
    v_bars record;
begin
    if $3 is null or $3 < interval '1 minute' or $3 > interval '366 days' then
        raise exception 'a window of % is not possible', coalesce($3::text, 'null')
        using errcode = 'AP962', hint = 'From one minute to 366 days, as interval ''24 hours''.';
    end if;
    if $4 is null or $4 not between 1 and 1000 then
        raise exception '% bins are not possible', coalesce($4::text, 'null')
        using errcode = 'AP963', hint = 'From 1 to 1000.';
    end if;
    select b.timeframe, b.ts into v_last from analytics._last_bar(v_symbol, v_as_of) b;
    if v_last.ts is null then
        return;
    end if;
    select
        array_agg(b.low) as lows, array_agg(b.high) as highs, array_agg(b.volume) as volumes,
        array_agg(b.buy_volume) as buys
    into v_bars
    from analytics._bars(
        v_symbol, v_last.timeframe,
        v_last.ts + v_last.timeframe - greatest($3, v_last.timeframe), v_as_of
    ) b;
    return query
        select v_symbol, p.*
        from analytics._profile(v_bars.lows, v_bars.highs, v_bars.volumes, v_bars.buys, $4) p;
end
$$;
comment on function analytics._volume_profile(text, timestamptz, interval, integer) is
'See analytics.volume_profile, which calls it: there a parameter may have the name of a column.';

create or replace function analytics.volume_profile(
    symbol text, as_of timestamptz default null, "window" interval default interval '24 hours',
    bins integer default 50
)
returns table (
    symbol text, bin integer, lower double precision, upper double precision,
    price double precision, volume double precision, buy_volume double precision,
    share double precision, is_control boolean, in_value_area boolean
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
rows 50
as $$
    select x.* from analytics._volume_profile($1, $2, $3, $4) x
$$;
comment on function analytics.volume_profile(text, timestamptz, interval, integer) is
'Volume by price of a symbol over a window that ends with its last bar known at as_of (default: now): between the window''s low and high in equal bins, each bar''s volume spread evenly over its range; in base units. is_control: the bin with most volume; in_value_area: the fullest bins that together hold 70 %. No rows where nothing is known. Source: market profile, Steidlmayer (1984). Errors: AP101, AP102 symbol, AP960 as_of, AP962 window, AP963 bins.';

create or replace function analytics._liquidations(
    asked_symbol text, asked_as_of timestamptz, asked_days integer
)
returns table (
    symbol text, ts timestamptz, events bigint, long_notional double precision,
    short_notional double precision, notional double precision, long_share double precision,
    max_notional double precision, predictions bigint, mean_probability double precision,
    max_probability double precision
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 200
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($2);
    v_symbol constant text := case when $1 is not null then market.resolve($1) end;
    v_from constant timestamptz := public.time_bucket(
        interval '1 hour', v_as_of
    ) - least(greatest(coalesce($3, 7), 1), 366) * interval '24 hours';
begin
    return query
        with events as (
            select
                i.symbol, public.time_bucket(interval '1 hour', l.bucket) as ts,
                sum(l.event_count)::bigint as events, sum(l.long_notional) as longs,
                sum(l.short_notional) as shorts, max(l.max_notional) as largest
            from market.instruments i
            cross join lateral market.liquidations_1m_versions(i.symbol, v_from, v_as_of) l
            where (v_symbol is null or i.symbol = v_symbol)
                and l.usable_at <= v_as_of and l.expires_at > v_as_of
            group by 1, 2
        ),
        said as (
            select
                p.symbol, public.time_bucket(interval '1 hour', p.as_of) as ts, count(*) as n,
                avg(p.probability) as mean, max(p.probability) as most
            from ml.models m
            join ml.labels l on l.label = m.label and l.kind = 'liquidation'
                and l.horizon = interval '15 minutes'
            join ml.predictions p on p.model = m.model
            where p.as_of >= v_from and p.as_of <= v_as_of and p.created_at <= v_as_of
                and (v_symbol is null or p.symbol = v_symbol) and p.probability is not null
            group by 1, 2
        )
        select
            coalesce(e.symbol, p.symbol), coalesce(e.ts, p.ts), coalesce(e.events, 0),
            coalesce(e.longs, 0), coalesce(e.shorts, 0),
            coalesce(e.longs, 0) + coalesce(e.shorts, 0),
            e.longs / nullif(e.longs + e.shorts, 0), e.largest, coalesce(p.n, 0), p.mean, p.most
        from events e
        full join said p on p.symbol = e.symbol and p.ts = e.ts
        order by 1, 2;
end
$$;
comment on function analytics._liquidations(text, timestamptz, integer) is
'See analytics.liquidations, which calls it: there a parameter may have the name of a column.';

create or replace function analytics.liquidations(
    symbol text default null, as_of timestamptz default null, days integer default 7
)
returns table (
    symbol text, ts timestamptz, events bigint, long_notional double precision,
    short_notional double precision, notional double precision, long_share double precision,
    max_notional double precision, predictions bigint, mean_probability double precision,
    max_probability double precision
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
rows 200
as $$
    select x.* from analytics._liquidations($1, $2, $3) x
$$;
comment on function analytics.liquidations(text, timestamptz, integer) is
'Forced liquidations by symbol and hour (UTC) over the last days before as_of (default: now), as known then: notional in quote currency of liquidated longs (forced sells) and shorts, beside what was recorded of the 15-minute risk in that hour. Hours without either have no row. Errors: AP101, AP102 symbol, AP960 as_of.';

create or replace function analytics.data_quality(as_of timestamptz default null)
returns table (
    symbol text, source text, status text, last_ts timestamptz, last_known_at timestamptz,
    age interval, rows_24h bigint, missing_24h bigint, mean_delay interval,
    corrected_24h bigint, quarantined bigint, sequence_gaps bigint, detail text
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 30
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($1);
    v_stale constant interval := ops.setting_interval('ops.stale_after', interval '15 minutes');
begin
    return query
        with newest as (
            select i.symbol, 'candles' as source, n.*
            from market.instruments i
            cross join lateral (
                select x.ts, x.known_at
                from (
                    (
                        select c.ts + c.timeframe as ts, c.known_at from market.candles c
                        where c.symbol = i.symbol and c.timeframe = interval '1 minute' and c.ts < v_as_of and c.known_at <= v_as_of
                        order by c.ts desc limit 1
                    )
                    union all
                    (
                        select c.ts + c.timeframe, c.known_at from market.candles_history c
                        where c.symbol = i.symbol and c.timeframe = interval '1 minute' and c.ts < v_as_of and c.known_at <= v_as_of
                            and c.superseded_at > v_as_of
                        order by c.ts desc limit 1
                    )
                ) x
                order by x.ts desc limit 1
            ) n
            union all
            select i.symbol, 'trades', n.*
            from market.instruments i
            cross join lateral (
                select x.ts, x.known_at
                from (
                    (
                        select c.ts as ts, c.known_at from market.trades c
                        where c.symbol = i.symbol and c.ts <= v_as_of and c.known_at <= v_as_of
                        order by c.ts desc limit 1
                    )
                    union all
                    (
                        select c.ts, c.known_at from market.trades_history c
                        where c.symbol = i.symbol and c.ts <= v_as_of and c.known_at <= v_as_of
                            and c.superseded_at > v_as_of
                        order by c.ts desc limit 1
                    )
                ) x
                order by x.ts desc limit 1
            ) n
            union all
            select i.symbol, 'order_book_snapshots', n.*
            from market.instruments i
            cross join lateral (
                select x.ts, x.known_at
                from (
                    (
                        select c.ts as ts, c.known_at from market.order_book_snapshots c
                        where c.symbol = i.symbol and c.ts <= v_as_of and c.known_at <= v_as_of
                        order by c.ts desc limit 1
                    )
                    union all
                    (
                        select c.ts, c.known_at from market.order_book_snapshots_history c
                        where c.symbol = i.symbol and c.ts <= v_as_of and c.known_at <= v_as_of
                            and c.superseded_at > v_as_of
                        order by c.ts desc limit 1
                    )
                ) x
                order by x.ts desc limit 1
            ) n
            union all
            select i.symbol, 'liquidation_events', n.*
            from market.instruments i
            cross join lateral (
                select x.ts, x.known_at
                from (
                    (
                        select c.ts as ts, c.known_at from market.liquidation_events c
                        where c.symbol = i.symbol and c.ts <= v_as_of and c.known_at <= v_as_of
                        order by c.ts desc limit 1
                    )
                    union all
                    (
                        select c.ts, c.known_at from market.liquidation_events_history c
                        where c.symbol = i.symbol and c.ts <= v_as_of and c.known_at <= v_as_of
                            and c.superseded_at > v_as_of
                        order by c.ts desc limit 1
                    )
                ) x
                order by x.ts desc limit 1
            ) n
            union all
            select i.symbol, 'funding_rates', n.*
            from market.instruments i
            cross join lateral (
                select x.ts, x.known_at
                from (
                    (
                        select c.ts as ts, c.known_at from market.funding_rates c
                        where c.symbol = i.symbol and c.ts <= v_as_of and c.known_at <= v_as_of
                        order by c.ts desc limit 1
                    )
                    union all
                    (
                        select c.ts, c.known_at from market.funding_rates_history c
                        where c.symbol = i.symbol and c.ts <= v_as_of and c.known_at <= v_as_of
                            and c.superseded_at > v_as_of
                        order by c.ts desc limit 1
                    )
                ) x
                order by x.ts desc limit 1
            ) n
            union all
            select i.symbol, 'open_interest', n.*
            from market.instruments i
            cross join lateral (
                select x.ts, x.known_at
                from (
                    (
                        select c.ts as ts, c.known_at from market.open_interest c
                        where c.symbol = i.symbol and c.ts <= v_as_of and c.known_at <= v_as_of
                        order by c.ts desc limit 1
                    )
                    union all
                    (
                        select c.ts, c.known_at from market.open_interest_history c
                        where c.symbol = i.symbol and c.ts <= v_as_of and c.known_at <= v_as_of
                            and c.superseded_at > v_as_of
                        order by c.ts desc limit 1
                    )
                ) x
                order by x.ts desc limit 1
            ) n
        )
        select
            n.symbol, n.source,
            case
                when v_as_of - n.known_at > interval '1 day' then 'history'
                when n.source in ('candles', 'trades', 'order_book_snapshots')
                    and v_as_of - n.known_at > v_stale then 'stale'
                when c.missing > 0 then 'gaps'
                else 'good'
            end,
            n.ts, n.known_at, v_as_of - n.ts, c.n, c.missing, c.delay, h.n, q.n, g.n,
            nullif(concat_ws(
                '; ',
                case when c.missing > 0 then format('%s minutes without a bar', c.missing) end,
                case when h.n > 0 then format('%s rows were corrected', h.n) end,
                case when q.n > 0 then format('%s rows were refused in a day (market.quarantine)', q.n) end,
                case when g.n > 0 then format('%s gaps in the feed', g.n) end
            ), '')
        from newest n
        -- Of the last 24 hours that it has.
        cross join lateral analytics._rows_of(n.symbol, n.source, n.ts - interval '24 hours', n.ts, v_as_of) c
        cross join lateral analytics._corrected(n.symbol, n.source, n.ts - interval '24 hours', v_as_of) h
        cross join lateral (
            select count(*) as n
            from market.quarantine k
            where k.kind = n.source and k.created_at <= v_as_of
                and k.created_at > v_as_of - interval '1 day'
        ) q
        cross join lateral (
            select count(*) as n
            from market.sequence_gaps k
            where n.source = 'order_book_snapshots' and k.symbol = n.symbol
                and k.ts > n.ts - interval '24 hours' and k.ts <= n.ts
        ) g
        order by n.symbol, n.source;
end
$$;
comment on function analytics.data_quality(timestamptz) is
'Each symbol''s market data by table as known at as_of (default: now): the newest row and how old it is; over the last 24 hours that it has how many rows, how many minutes have no bar, mean time from event to knowledge, corrections; rows refused in the day before as_of (of that kind of file, all symbols) and holes in sequence numbers. status: good, gaps, stale (rows arrived within a day and have stopped for longer than ops.stale_after), history (nothing for a day). Errors: AP960.';

create or replace function analytics._rows_of(
    symbol text, source text, "from" timestamptz, "to" timestamptz, as_of timestamptz,
    out n bigint, out missing bigint, out delay interval
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    case source
        when 'candles' then
            select count(*), avg(c.known_at - c.ts - c.timeframe) into n, delay
            from market._candles_known($1, $3, $4, $5) c
            where c.timeframe = interval '1 minute';
            missing := greatest(0, least(1440, extract(epoch from $4 - greatest($3, (
                select c.ts from market.candles c
                where c.symbol = $1 and c.timeframe = interval '1 minute' order by c.ts limit 1
            ))) / 60)::bigint - n);
        when 'trades' then
            select sum(t.trade_count)::bigint into n
            from market._trades_1m t
            where t.symbol = $1 and t.bucket >= $3 and t.bucket <= $4 and t.usable_at <= $5;
        when 'order_book_snapshots' then
            select sum(t.snapshot_count)::bigint into n
            from market._book_1m t
            where t.symbol = $1 and t.bucket >= $3 and t.bucket <= $4 and t.usable_at <= $5;
        when 'liquidation_events' then
            select count(*), avg(c.known_at - c.ts) into n, delay
            from market._liquidation_events_known($1, $3, $4 + interval '1 microsecond', $5) c;
        when 'funding_rates' then
            select count(*), avg(c.known_at - c.ts) into n, delay
            from market._funding_rates_known($1, $3, $4 + interval '1 microsecond', $5) c;
        else
            select count(*), avg(c.known_at - c.ts) into n, delay
            from market._open_interest_known($1, $3, $4 + interval '1 microsecond', $5) c;
    end case;
end
$$;
comment on function analytics._rows_of(text, text, timestamptz, timestamptz, timestamptz) is
'Rows of a symbol in a table of market data in a stretch, minutes without a bar, mean delay.';

create or replace function analytics._corrected(
    symbol text, source text, "from" timestamptz, as_of timestamptz, out n bigint
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    case source
        when 'candles' then
            select count(*) into n from market.candles_history c
            where c.symbol = $1 and c.timeframe = interval '1 minute' and c.ts >= $3 and c.superseded_at <= $4;
        when 'trades' then
            select count(*) into n from market.trades_history c
            where c.symbol = $1 and c.ts >= $3 and c.superseded_at <= $4;
        when 'order_book_snapshots' then
            select count(*) into n from market.order_book_snapshots_history c
            where c.symbol = $1 and c.ts >= $3 and c.superseded_at <= $4;
        when 'liquidation_events' then
            select count(*) into n from market.liquidation_events_history c
            where c.symbol = $1 and c.ts >= $3 and c.superseded_at <= $4;
        when 'funding_rates' then
            select count(*) into n from market.funding_rates_history c
            where c.symbol = $1 and c.ts >= $3 and c.superseded_at <= $4;
        else
            select count(*) into n from market.open_interest_history c
            where c.symbol = $1 and c.ts >= $3 and c.superseded_at <= $4;
    end case;
end
$$;
comment on function analytics._corrected(text, text, timestamptz, timestamptz) is
'Versions of a symbol''s rows from a time on that had been superseded by as_of.';

create or replace function analytics._feature_quality(
    asked_feature_set text, asked_symbol text, asked_as_of timestamptz
)
returns table (
    feature_set text, feature_version integer, symbol text, feature text, status text,
    row_count bigint, null_share double precision, mean double precision,
    variance double precision, min_value double precision, max_value double precision,
    distinct_values bigint, last_value double precision, last_known timestamptz,
    staleness interval, ts_from timestamptz, ts_to timestamptz, checked_at timestamptz
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 500
as $$
#variable_conflict use_column
declare
    v_as_of constant timestamptz := analytics._asked($3);
    v_symbol constant text := case when $2 is not null then market.resolve($2) end;
begin
    if $1 is not null then
        perform feature._set($1, null);
    end if;
    return query
        select
            c.feature_set, c.feature_version, c.symbol, c.feature,
            case
                when c.null_share = 1 then 'unknown'
                when c.last_value is null and c.staleness > interval '1 hour' then 'stale'
                when c.distinct_values = 1 and c.row_count > 1 then 'constant'
                when c.null_share > 0.5 then 'sparse'
                else 'good'
            end,
            c.row_count, c.null_share, c.mean, c.variance, c.min_value, c.max_value,
            c.distinct_values, c.last_value, c.last_known, c.staleness, c.ts_from, c.ts_to,
            c.checked_at
        from (
            select distinct k.feature_set, k.feature_version, k.symbol
            from analytics.feature_checks k
            where ($1 is null or k.feature_set = $1) and (v_symbol is null or k.symbol = v_symbol)
        ) s
        cross join lateral (
            select max(k.checked_at) as checked_at
            from analytics.feature_checks k
            where k.feature_set = s.feature_set and k.feature_version = s.feature_version
                and k.symbol = s.symbol and k.checked_at <= v_as_of
        ) n
        join analytics.feature_checks c on c.feature_set = s.feature_set
            and c.feature_version = s.feature_version and c.symbol = s.symbol
            and c.checked_at = n.checked_at
        order by c.feature_set, c.feature_version, c.symbol, c.position;
end
$$;
comment on function analytics._feature_quality(text, text, timestamptz) is
'See analytics.feature_quality, which calls it: there a parameter may have the name of a column.';

create or replace function analytics.feature_quality(
    feature_set text default null, symbol text default null, as_of timestamptz default null
)
returns table (
    feature_set text, feature_version integer, symbol text, feature text, status text,
    row_count bigint, null_share double precision, mean double precision,
    variance double precision, min_value double precision, max_value double precision,
    distinct_values bigint, last_value double precision, last_known timestamptz,
    staleness interval, ts_from timestamptz, ts_to timestamptz, checked_at timestamptz
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
rows 500
as $$
    select x.* from analytics._feature_quality($1, $2, $3) x
$$;
comment on function analytics.feature_quality(text, text, timestamptz) is
'Quality of features over 24 hours of stored vectors, as last written down (analytics.refresh, hourly) by as_of (default: now): share of nulls, moments, range, newest value. status: unknown (always null), stale (null at the end for more than an hour), constant, sparse (mostly null), good. Errors: AP101, AP102 symbol, AP202 feature set, AP960 as_of.';

create or replace view analytics.volume_analysis as
select v.*
from market.instruments as i
cross join lateral analytics.volume_analysis(i.symbol) as v;
comment on view analytics.volume_analysis is
'Volume of every symbol over its last 24 hours; analytics.volume_analysis(symbol, as_of, window) gives one at any time.';
comment on column analytics.volume_analysis.symbol is 'The canonical symbol.';
comment on column analytics.volume_analysis.ts is 'Close of the last bar.';
comment on column analytics.volume_analysis.timeframe is 'Length of the bars.';
comment on column analytics.volume_analysis.bars is 'Bars in the window.';
comment on column analytics.volume_analysis.close is 'Last price.';
comment on column analytics.volume_analysis.volume is 'Volume in base units.';
comment on column analytics.volume_analysis.quote_volume is 'Volume in quote currency.';
comment on column analytics.volume_analysis.buy_volume is 'Volume whose aggressor bought, base units.';
comment on column analytics.volume_analysis.sell_volume is 'Volume whose aggressor sold, base units.';
comment on column analytics.volume_analysis.buy_share is 'buy_volume over both, 0 to 1.';
comment on column analytics.volume_analysis.net_volume is 'Bought less sold, base units.';
comment on column analytics.volume_analysis.last_volume is 'Volume of the last bar.';
comment on column analytics.volume_analysis.mean_volume is 'Mean volume of the bars before it.';
comment on column analytics.volume_analysis.volume_ratio is 'last_volume over mean_volume.';
comment on column analytics.volume_analysis.volume_zscore is 'Standard deviations of last_volume above the mean.';
comment on column analytics.volume_analysis.breakout is 'up, down or none.';
comment on column analytics.volume_analysis.price_change is 'Relative change of price over the window.';
comment on column analytics.volume_analysis.volume_divergence is 'bullish, bearish or none.';
comment on column analytics.volume_analysis.price_flow_correlation is 'Correlation of a bar''s return with its net buying.';
comment on column analytics.volume_analysis.point_of_control is 'Price at which most was traded.';
comment on column analytics.volume_analysis.value_area_low is 'Lower end of the prices of 70 % of the volume.';
comment on column analytics.volume_analysis.value_area_high is 'Upper end of them.';
comment on column analytics.volume_analysis.sentiment_score is 'Mean sentiment of the window''s texts.';
comment on column analytics.volume_analysis.texts is 'How many texts.';
comment on column analytics.volume_analysis.reason is 'Why there is nothing, where there is nothing.';

create or replace view analytics.data_quality as
select * from analytics.data_quality();
comment on view analytics.data_quality is
'Market data by symbol and table now; analytics.data_quality(as_of) at any time.';
comment on column analytics.data_quality.symbol is 'The canonical symbol.';
comment on column analytics.data_quality.source is 'The table in schema market.';
comment on column analytics.data_quality.status is 'good, gaps, stale or history.';
comment on column analytics.data_quality.last_ts is 'Time of the newest row (of bars: its close).';
comment on column analytics.data_quality.last_known_at is 'When it became known.';
comment on column analytics.data_quality.age is 'Now less last_ts.';
comment on column analytics.data_quality.rows_24h is 'Rows of the last 24 hours that there are.';
comment on column analytics.data_quality.missing_24h is 'Minutes of them without a bar.';
comment on column analytics.data_quality.mean_delay is 'Mean time from event to knowledge.';
comment on column analytics.data_quality.corrected_24h is 'Row versions of that time that were superseded.';
comment on column analytics.data_quality.quarantined is 'Rows of that kind refused in a day, all symbols.';
comment on column analytics.data_quality.sequence_gaps is 'Holes in the feed''s numbers.';
comment on column analytics.data_quality.detail is 'The same in words.';

create or replace view analytics.liquidations as
select * from analytics.liquidations();
comment on view analytics.liquidations is
'Forced liquidations of the last seven days by symbol and hour; analytics.liquidations(symbol, as_of, days) at any time.';
comment on column analytics.liquidations.symbol is 'The canonical symbol.';
comment on column analytics.liquidations.ts is 'Start of the hour (UTC).';
comment on column analytics.liquidations.events is 'Forced orders.';
comment on column analytics.liquidations.long_notional is 'Liquidated longs, quote currency.';
comment on column analytics.liquidations.short_notional is 'Liquidated shorts, quote currency.';
comment on column analytics.liquidations.notional is 'Both.';
comment on column analytics.liquidations.long_share is 'Longs'' share, 0 to 1.';
comment on column analytics.liquidations.max_notional is 'Largest of them.';
comment on column analytics.liquidations.predictions is 'Recorded predictions of the 15-minute risk in that hour.';
comment on column analytics.liquidations.mean_probability is 'Their mean.';
comment on column analytics.liquidations.max_probability is 'Their largest.';

create or replace view analytics.feature_quality as
select * from analytics.feature_quality();
comment on view analytics.feature_quality is
'Quality of features as last written down; analytics.feature_quality(feature_set, symbol, as_of) at any time.';
comment on column analytics.feature_quality.feature_set is 'The feature set.';
comment on column analytics.feature_quality.feature_version is 'Its version.';
comment on column analytics.feature_quality.symbol is 'The canonical symbol.';
comment on column analytics.feature_quality.feature is 'The feature.';
comment on column analytics.feature_quality.status is 'good, sparse, constant, stale or unknown.';
comment on column analytics.feature_quality.row_count is 'Vectors looked at.';
comment on column analytics.feature_quality.null_share is 'Share in which it is not known.';
comment on column analytics.feature_quality.mean is 'Mean.';
comment on column analytics.feature_quality.variance is 'Sample variance.';
comment on column analytics.feature_quality.min_value is 'Least value.';
comment on column analytics.feature_quality.max_value is 'Largest value.';
comment on column analytics.feature_quality.distinct_values is 'Different values.';
comment on column analytics.feature_quality.last_value is 'Value in the newest vector.';
comment on column analytics.feature_quality.last_known is 'Newest vector in which it is known.';
comment on column analytics.feature_quality.staleness is 'How far that is behind the newest vector.';
comment on column analytics.feature_quality.ts_from is 'Start of the stretch.';
comment on column analytics.feature_quality.ts_to is 'Its end.';
comment on column analytics.feature_quality.checked_at is 'When it was written down.';
