-- What is stored of regimes, as one reads it: by bar, by episode, and how often it was revised.
create or replace view regime.history as
select
    b.symbol,
    b.timeframe,
    u.ts,
    s.state as regime,
    case u.state
        when 1 then u.bull_trending when 2 then u.bear_trending when 3 then u.sideways
        when 4 then u.high_volatility when 5 then u.low_volatility else u.crash
    end as confidence,
    jsonb_build_object(
        'bull_trending', u.bull_trending, 'bear_trending', u.bear_trending,
        'sideways', u.sideways, 'high_volatility', u.high_volatility,
        'low_volatility', u.low_volatility, 'crash', u.crash
    ) as probabilities,
    u.since,
    u.known_at,
    b.version,
    v.state as verdict,
    nullif(u.verdict_known_at, 'infinity') as verdict_known_at
from regime.blocks b
cross join lateral unnest(
    b.ts, b.states, b.since, b.known_at, b.bull_trending, b.bear_trending, b.sideways,
    b.high_volatility, b.low_volatility, b.crash, b.verdicts, b.verdict_known_at
) as u (
    ts, state, since, known_at, bull_trending, bear_trending, sideways, high_volatility,
    low_volatility, crash, verdict, verdict_known_at
)
join regime.states s on s.position = u.state
left join regime.states v on v.position = u.verdict;
comment on view regime.history is
'The regime of every stored bar: ts (the bar''s close), regime, confidence, probabilities and since as
known at known_at, by version; and verdict, the regime in hindsight by a statistical jump model, known
at verdict_known_at and not changed by any later bar (null: not known yet). Filter by symbol. Kept
current by regime.refresh. Source of the verdict: Bemporad, Breschi, Piga, Boyd (2018), Fitting jump
models, Automatica 96.';

create or replace view regime.episodes as
with changes as (
    select
        h.symbol, h.timeframe, h.version, h.ts, h.regime, h.known_at,
        coalesce(h.regime <> lag(h.regime) over w, true) as begins
    from regime.history h
    window w as (partition by h.symbol, h.timeframe, h.version order by h.ts)
),

runs as (
    select
        c.symbol, c.timeframe, c.version, c.regime, c.ts, c.known_at,
        count(*) filter (where c.begins)
            over (partition by c.symbol, c.timeframe, c.version order by c.ts) as run
    from changes c
),

dwells as materialized (
    select
        d.symbol, d.timeframe,
        (
            regime.rule_thresholds(regime._rule_set_of(d.symbol, d.timeframe)) ->> 'min_dwell'
        )::integer as bars
    from (select distinct b.symbol, b.timeframe from regime.blocks b) d
),

lengths as (
    select
        r.symbol, r.timeframe, r.version, r.regime, r.run, min(r.ts) as first_ts,
        max(r.ts) as last_ts, count(*) as bar_count,
        (array_agg(r.known_at order by r.ts))[m.bars] as confirmed_at
    from runs r
    join dwells m on m.symbol = r.symbol and m.timeframe = r.timeframe
    group by r.symbol, r.timeframe, r.version, r.regime, r.run, m.bars
),

kept as (
    select
        l.symbol, l.timeframe, l.version, l.regime, l.first_ts, l.confirmed_at,
        coalesce(l.regime <> lag(l.regime) over w, true) as begins
    from lengths l
    where l.confirmed_at is not null
    window w as (partition by l.symbol, l.timeframe, l.version order by l.first_ts)
),

starts as (
    select
        k.symbol, k.timeframe, k.version, k.regime, k.first_ts as start, k.confirmed_at,
        lead(k.first_ts) over w as stop
    from kept k
    where k.begins
    window w as (partition by k.symbol, k.timeframe, k.version order by k.first_ts)
)

select
    s.symbol,
    s.timeframe,
    s.version,
    s.regime,
    s.start,
    s.stop as "end",
    coalesce(s.stop, e.last_ts) - s.start as duration,
    s.confirmed_at,
    s.stop is null as is_open
from starts s
cross join lateral (
    select max(b.through) as last_ts
    from regime.blocks b
    where b.symbol = s.symbol and b.timeframe = s.timeframe and b.version = s.version
) e;
comment on view regime.episodes is
'Stretches of one regime: start (close of the first bar), end (start of the next episode; null while it
lasts), duration. Hysteresis: a regime becomes an episode once it has lasted the threshold min_dwell
(6 bars) without a break, at confirmed_at, which is when one could have known; shorter ones belong to
the episode in which they lie. Filter by symbol.';

create or replace view regime.revision as
select
    h.symbol,
    h.timeframe,
    h.version,
    count(*) as bar_count,
    avg((h.regime = h.verdict)::integer) as agreement,
    1 - avg((h.regime = h.verdict)::integer) as revision,
    avg((h.regime = h.verdict)::integer) filter (where h.verdict_age > 12) as agreement_after_12,
    count(*) filter (where h.regime <> h.before) as nowcast_changes,
    count(*) filter (where h.verdict <> h.verdict_before) as verdict_changes,
    percentile_cont(0.5) within group (
        order by extract(epoch from h.verdict_known_at - h.known_at)
    ) * interval '1 second' as median_wait
from (
    select
        r.*,
        row_number() over (
            partition by r.symbol, r.timeframe, r.version, r.run order by r.ts
        ) as verdict_age
    from (
        select
            q.*,
            count(*) filter (where q.verdict is distinct from q.verdict_before)
                over (partition by q.symbol, q.timeframe, q.version order by q.ts) as run
        from (
            select
                p.*,
                lag(p.regime) over w as before,
                lag(p.verdict) over w as verdict_before
            from regime.history p
            where p.verdict is not null
            window w as (partition by p.symbol, p.timeframe, p.version order by p.ts)
        ) q
    ) r
) h
group by h.symbol, h.timeframe, h.version;
comment on view regime.revision is
'How often the regime as known then was revised in hindsight, by symbol, timeframe and version:
agreement is the share of bars whose nowcast is the verdict, revision the rest; agreement_after_12 of
bars that were more than 12 bars in their verdict; changes of either; median_wait: from nowcast to
verdict.';
