-- Hours that stand out, as events: when, how far, by which texts, marked by which words.

create or replace function sentiment._bursts(
    counts double precision [], sums double precision [], squares double precision [],
    scored double precision []
)
returns table (
    hour integer, kind text, p double precision, expected double precision, shift double precision
)
language plpython3u immutable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sentiment import bursts
    return bursts.found(counts, sums, squares, scored)
$python$;
comment on function sentiment._bursts(double precision [], double precision [], double precision [], double precision []) is
'Hours that stand out against the seven days before each; hour counts from 0.';

create or replace function sentiment._marking_terms(inside text [], before text []) returns text []
language plpython3u immutable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sentiment import bursts
    return bursts.terms(inside, before)
$python$;
comment on function sentiment._marking_terms(text [], text []) is
'Words that more of the texts inside have than those before, strongest first.';

create or replace function sentiment.events(
    symbol text, hours double precision default 168, as_of timestamptz default null,
    method text default null
)
returns table (
    asset text, started_at timestamptz, ended_at timestamptz, kind text, text_count bigint,
    expected double precision, p double precision, mean double precision, shift double precision,
    novelty double precision, terms text [], text_ids bigint []
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 5
as $$
declare
    v_as_of timestamptz := sentiment._as_of(as_of);
    v_end timestamptz := date_trunc('hour', v_as_of, 'UTC');
    v_from timestamptz := date_trunc('hour', v_as_of - sentiment._hours(hours), 'UTC');
    v_first timestamptz := v_from - interval '7 days';
    v_asset text := sentiment._as_asset(symbol);
    v_method text := sentiment._method(method);
    v_counts double precision [];
    v_sums double precision [];
    v_squares double precision [];
    v_scored double precision [];
    v_event record;
    v_before text [];
    v_inside text [];
begin
    select
        array_agg(coalesce(h.n, 0) order by g.at), array_agg(coalesce(h.score_sum, 0) order by g.at),
        array_agg(coalesce(h.squares, 0) order by g.at), array_agg(coalesce(h.scored, 0) order by g.at)
    into v_counts, v_sums, v_squares, v_scored
    from generate_series(v_first, v_end - interval '1 hour', interval '1 hour') g (at)
    left join (
        select
            b.bucket, sum(b.text_count)::double precision as n, sum(b.score_sum)::double precision as score_sum,
            sum(b.score_squares)::double precision as squares, sum(b.scored_count)::double precision as scored
        from sentiment._between(v_asset, v_method, v_first, v_end, v_as_of) b
        group by b.bucket
    ) h on h.bucket = g.at;
    if v_counts is null then
        return;
    end if;
    for v_event in
        -- Hours that follow one another are one event.
        with marked as (
            select b.*, b.hour - row_number() over (order by b.hour) as run
            from sentiment._bursts(v_counts, v_sums, v_squares, v_scored) b
            where v_first + b.hour * interval '1 hour' >= v_from
        )
        select
            v_first + min(m.hour) * interval '1 hour' as started, v_first + (max(m.hour) + 1) * interval '1 hour' as ended,
            case when bool_or(m.kind = 'volume') then 'volume' else 'sentiment' end as kind,
            sum(m.expected) as expected, min(m.p) as p, (array_agg(m.shift order by abs(m.shift) desc))[1] as shift
        from marked m
        group by m.run
        order by min(m.hour)
    loop
        select
            count(*), (avg(s.score) filter (where not s.is_copy)), avg(s.novelty),
            array_agg(t.text order by s.ts, s.text_id) filter (where not s.is_copy),
            (array_agg(s.text_id order by s.weight desc, s.ts, s.text_id) filter (where not s.is_copy)) [:50]
        into text_count, mean, novelty, v_inside, text_ids
        from sentiment.scores s
        join sentiment.texts t on t.text_id = s.text_id and t.ts = s.ts
        where s.symbol = v_asset and s.method = v_method and s.ts >= v_event.started
            and s.ts < v_event.ended and s.known_at <= v_as_of;
        select array_agg(x.text) into v_before
        from (
            select t.text from sentiment.scores s
            join sentiment.texts t on t.text_id = s.text_id and t.ts = s.ts
            where s.symbol = v_asset and s.method = v_method and s.ts < v_event.started
                and s.ts >= v_event.started - interval '7 days' and s.known_at <= v_as_of
            order by s.ts desc, s.text_id
            limit 2000
        ) x;
        asset := v_asset;
        started_at := v_event.started;
        ended_at := v_event.ended;
        kind := v_event.kind;
        expected := v_event.expected;
        p := v_event.p;
        shift := v_event.shift;
        terms := sentiment._marking_terms(coalesce(v_inside, '{}'), coalesce(v_before, '{}'));
        return next;
    end loop;
end
$$;
comment on function sentiment.events(text, double precision, timestamptz, text) is
'Events among the texts about an asset in the last hours (168), as known at as_of: hours with more texts than a negative binomial of the seven days before has once in a hundred thousand hours (kind volume), or with a mean five standard errors from theirs (kind sentiment); neighbouring hours are one event. started_at, ended_at, text_count and expected, p of the count, mean, shift in standard errors, mean novelty, terms that mark it (Dunning 1993), up to 50 texts, most engaging first. Needs a day of texts before. Errors: AP101/AP102 symbol, AP673 hours, AP674 as_of.';

create or replace procedure sentiment.raise_events(hours double precision default 3)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_event record;
begin
    for v_event in
        select e.*
        from (
            select distinct s.symbol from sentiment.scores s
            where s.ts >= clock_timestamp() - sentiment._hours(hours) and s.symbol <> '*'
        ) a
        cross join lateral sentiment.events(a.symbol, hours) e
    loop
        perform ops.raise_alert(
            'sentiment_event', case when v_event.p < 1e-9 or abs(v_event.shift) >= 8 then 'high' else 'medium' end,
            format('sentiment:%s:%s', v_event.asset, v_event.started_at),
            format(
                '%s: %s texts from %s (%s expected), mean %s: %s', v_event.asset, v_event.text_count,
                v_event.started_at, round(v_event.expected::numeric, 1), round(v_event.mean::numeric, 2),
                array_to_string(v_event.terms, ', ')
            ),
            jsonb_build_object('kind', v_event.kind, 'terms', v_event.terms, 'text_ids', v_event.text_ids),
            v_event.started_at
        );
    end loop;
end
$$;
comment on procedure sentiment.raise_events(double precision) is
'Raises an alert (ops.alerts, kind sentiment_event) for each event of the last hours (3), once each. For the clock. Errors: AP673 hours.';
