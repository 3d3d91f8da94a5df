-- Event studies.
create or replace function analytics._event_study(
    times bigint [], closes double precision [], market double precision [], events bigint [],
    window_us bigint, bar_us bigint
)
returns table (
    events_used integer, alpha double precision, beta double precision,
    mean_abnormal double precision, lower double precision, upper double precision,
    p_value double precision, significant boolean, abnormal double precision []
)
language plpython3u immutable parallel safe rows 1
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.analytics.event_study import answer
    return answer(times, closes, market, events, window_us, bar_us)
$python$;
comment on function analytics._event_study(
    bigint [], double precision [], double precision [], bigint [], bigint, bigint
) is 'See alphaplus.server.analytics.event_study.';

create or replace function analytics.event_study(
    kind text, symbol text, "window" interval default interval '1 day',
    as_of timestamptz default null, timeframe interval default interval '1 hour'
)
returns table (
    events_used integer, alpha double precision, beta double precision,
    mean_abnormal double precision, lower double precision, upper double precision,
    p_value double precision, significant boolean, abnormal double precision []
)
language plpgsql stable parallel restricted rows 1
set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
declare
    v_symbol text := market.resolve($2);
    v_at timestamptz := coalesce($4, now());
    v_times bigint [];
    v_closes double precision [];
    v_market double precision [];
    v_events bigint [];
begin
    if kind is null or "window" is null or timeframe is null or "window" < timeframe
        or timeframe <= interval '0' or not isfinite(v_at) then
        raise exception 'an event study needs a kind, and a window no shorter than a bar'
        using errcode = 'AP939', hint = 'select * from analytics.event_study(''unlock'', ''ARBUSDT'', ''1 day'')';
    end if;
    with returns as (
        select
            c.symbol, c.ts, c.close,
            case when lag(c.ts) over w = c.ts - event_study.timeframe and lag(c.close) over w > 0 and c.close > 0
                then ln(c.close / lag(c.close) over w) end as r
        from market.candles c
        where c.timeframe = event_study.timeframe and c.known_at <= v_at and c.ts + c.timeframe <= v_at
        window w as (partition by c.symbol order by c.ts)
    ),
    others as (
        select r.ts, avg(r.r) as r from returns r where r.symbol <> v_symbol group by r.ts
    )
    select
        array_agg(ops._micros(s.ts) order by s.ts), array_agg(s.close order by s.ts),
        -- Without another symbol there is no market: the mean model.
        array_agg(coalesce(o.r, case when not exists (select from others x where x.r is not null) then 0 end) order by s.ts)
    into v_times, v_closes, v_market
    from returns s
    left join others o on o.ts = s.ts
    where s.symbol = v_symbol;
    select array_agg(ops._micros(e.ts) order by e.ts) into v_events
    from market.events_known(v_at, event_study.kind) e
    where (e.symbol is null or e.symbol = v_symbol) and e.ts <= v_at - "window";
    if v_times is null or v_events is null then
        return;
    end if;
    return query
        select x.*
        from analytics._event_study(
            v_times, v_closes, v_market, v_events, ops._micros("window"), ops._micros(timeframe)
        ) x;
end
$$;
comment on function analytics.event_study(text, text, interval, timestamptz, interval) is
'What events of a kind (known and over by as_of, default: now) did to a symbol: the mean cumulative
abnormal log return over the window from the bar of the event on, by the market model (alpha and beta fitted
outside the windows, the market being the mean of all other symbols'' bars; without others the mean model).
lower, upper: the 95 % band of the same mean over blocks drawn at random outside the windows; p_value from
1,999 draws, always the same ones; significant: p_value <= 0.05; abnormal: event by event. No row where
there are no such events or too few bars to fit. Errors: AP101 unknown symbol, AP939 kind or window
missing or shorter than a bar.';
