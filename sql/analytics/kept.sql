-- Sums over recorded predictions, kept by when they became known. Whoever asks as of a time adds the
-- days that had ended by then, the hours that had ended since, and reads the rest from the rows.

create or replace function analytics._outcomes_of("from" timestamptz, "to" timestamptz)
returns table (
    as_of timestamptz, model text, symbol text, version_id bigint, regime text,
    prediction double precision, probability double precision, outcome double precision,
    sign double precision
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select
        p.as_of, p.model, p.symbol, p.version_id, p.regime, p.prediction, p.probability, p.outcome,
        1::double precision
    from ml.predictions p
    where p.outcome_known_at >= $1 and p.outcome_known_at < $2
    union all
    -- One that was corrected later counted from when it was known to when it was corrected.
    select
        h.as_of, h.model, h.symbol, h.version_id, h.regime, h.prediction, h.probability, h.outcome,
        1::double precision
    from analytics.superseded_outcomes h
    where h.known_at >= $1 and h.known_at < $2
    union all
    select
        h.as_of, h.model, h.symbol, h.version_id, h.regime, h.prediction, h.probability, h.outcome,
        -1::double precision
    from analytics.superseded_outcomes h
    where h.superseded_at >= $1 and h.superseded_at < $2
$$;
comment on function analytics._outcomes_of(timestamptz, timestamptz) is
'Outcomes that began (sign 1) or ceased (-1) to count in [from, to); summed up to a time they are those that counted then.';

create or replace function analytics._sums_of("from" timestamptz, "to" timestamptz)
returns table (
    ts timestamptz, model text, symbol text, version_id bigint, regime text, n double precision,
    fallbacks double precision, latency_ms double precision, latencies double precision,
    latency_max double precision, outcomes double precision, classes double precision,
    hits double precision, events double precision, said double precision,
    log_loss double precision, square double precision, absolute double precision
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select
        x.ts, x.model, x.symbol, x.version_id, x.regime, sum(x.n), sum(x.fallbacks),
        sum(x.latency_ms), sum(x.latencies), max(x.latency_max), sum(x.outcomes), sum(x.classes),
        sum(x.hits), sum(x.events), sum(x.said), sum(x.log_loss), sum(x.square), sum(x.absolute)
    from (
        select
            public.time_bucket(interval '1 hour', p.as_of) as ts, p.model, p.symbol,
            coalesce(p.version_id, 0) as version_id, coalesce(p.regime, '') as regime,
            count(*)::double precision as n,
            count(*) filter (where p.is_fallback)::double precision as fallbacks,
            coalesce(sum((p.details ->> 'latency_ms')::double precision), 0) as latency_ms,
            count(p.details ->> 'latency_ms')::double precision as latencies,
            max((p.details ->> 'latency_ms')::double precision) as latency_max,
            0::double precision as outcomes, 0::double precision as classes,
            0::double precision as hits, 0::double precision as events, 0::double precision as said,
            0::double precision as log_loss, 0::double precision as square,
            0::double precision as absolute
        from ml.predictions p
        where p.created_at >= $1 and p.created_at < $2
        group by 1, 2, 3, 4, 5
        union all
        select
            public.time_bucket(interval '1 hour', p.as_of), p.model, p.symbol,
            coalesce(p.version_id, 0), coalesce(p.regime, ''), 0, 0, 0, 0, null,
            sum(p.sign), coalesce(sum(p.sign) filter (where p.probability is not null), 0),
            coalesce(sum(p.sign * ((p.probability >= 0.5) = (p.outcome >= 0.5))::integer), 0),
            coalesce(sum(p.sign * p.outcome), 0), coalesce(sum(p.sign * p.prediction), 0),
            coalesce(sum(
                p.sign * case when p.outcome >= 0.5 then -ln(greatest(p.probability, 1e-15))
                    else -ln(greatest(1 - p.probability, 1e-15)) end
            ), 0),
            sum(p.sign * (p.prediction - p.outcome) ^ 2), sum(p.sign * abs(p.prediction - p.outcome))
        from analytics._outcomes_of($1, $2) p
        -- What is not a number, or too large to be squared, is no loss.
        where p.prediction between -1e150 and 1e150 and p.outcome between -1e150 and 1e150
        group by 1, 2, 3, 4, 5
    ) x
    group by 1, 2, 3, 4, 5
$$;
comment on function analytics._sums_of(timestamptz, timestamptz) is
'The sums of analytics.prediction_sums over what became known in [from, to), from the predictions.';

create or replace function analytics._cells_of("from" timestamptz, "to" timestamptz)
returns table (
    kind text, ts timestamptz, model text, symbol text, version_id bigint, cell integer,
    n double precision, events double precision, said double precision
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select
        'calibration', public.time_bucket(interval '1 day', p.as_of), p.model, p.symbol,
        coalesce(p.version_id, 0), least(9, floor(p.probability * 10))::integer,
        sum(p.sign), sum(p.sign * p.outcome), sum(p.sign * p.probability)
    from analytics._outcomes_of($1, $2) p
    where p.probability is not null and p.outcome between -1e150 and 1e150
    group by 2, 3, 4, 5, 6
    union all
    select
        'latency', public.time_bucket(interval '1 hour', p.as_of), p.model, '', 0,
        floor(8 * log(2, greatest((p.details ->> 'latency_ms')::numeric, 0.001)))::integer,
        count(*)::double precision, 0, 0
    from ml.predictions p
    where p.created_at >= $1 and p.created_at < $2 and p.details ->> 'latency_ms' is not null
    group by 2, 3, 6
$$;
comment on function analytics._cells_of(timestamptz, timestamptz) is
'The histograms of analytics.prediction_cells over what became known in [from, to).';

create or replace function analytics._pieces(as_of timestamptz)
returns table (width interval, known_from timestamptz, known_to timestamptz)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    with edges as materialized (
        select
            least(k.through, public.time_bucket(interval '1 hour', $1)) as hour,
            public.time_bucket(
                interval '1 day', least(k.through, public.time_bucket(interval '1 hour', $1))
            ) as day
        from analytics.kept k
    ),
    marked as materialized (
        select distinct m.ts as hour, public.time_bucket(interval '1 day', m.ts) as day
        from analytics.known_marks m
        cross join edges e
        where m.ts < e.hour
    )
    -- Days before the last: from their sums, unless an hour of theirs is marked.
    select interval '1 day', '-infinity'::timestamptz, e.day from edges e
    union all
    select interval '1 hour', e.day, e.hour from edges e
    union all
    select distinct interval '-1 day', m.day, m.day + interval '24 hours'
    from marked m cross join edges e where m.day < e.day
    union all
    select interval '-1 hour', m.hour, m.hour + interval '1 hour' from marked m
    -- What no sum holds: marked hours, and all since the last full hour.
    union all
    select null, m.hour, m.hour + interval '1 hour' from marked m
    union all
    select null, e.hour, $1 + interval '1 microsecond' from edges e
$$;
comment on function analytics._pieces(timestamptz) is
'Which sums make up what was known at a time: stretches of days and hours, those to leave out
(negative widths), and stretches to be read from the rows (null).';

create or replace function analytics._sums(
    as_of timestamptz, "from" timestamptz default '-infinity', "to" timestamptz default 'infinity',
    only_model text default null, only_symbol text default null
)
returns table (
    ts timestamptz, model text, symbol text, version_id bigint, regime text, n double precision,
    fallbacks double precision, latency_ms double precision, latencies double precision,
    latency_max double precision, outcomes double precision, classes double precision,
    hits double precision, events double precision, said double precision,
    log_loss double precision, square double precision, absolute double precision
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_piece record;
    v_pieces record;
begin
    select
        max(x.known_to) filter (where x.width = interval '1 day') as day,
        max(x.known_to) filter (where x.width = interval '1 hour') as hour,
        coalesce(array_agg(x.known_from) filter (where x.width = interval '-1 day'), '{}') as days,
        coalesce(array_agg(x.known_from) filter (where x.width = interval '-1 hour'), '{}') as hours
    into v_pieces
    from analytics._pieces($1) x;
    return query
        select
            s.ts, s.model, s.symbol, s.version_id, s.regime, s.n, s.fallbacks, s.latency_ms,
            s.latencies, s.latency_max, s.outcomes, s.classes, s.hits, s.events, s.said,
            s.log_loss, s.square, s.absolute
        from analytics.prediction_sums s
        where (
            s.width = interval '1 day' and s.known_from < v_pieces.day
            and s.known_from <> all (v_pieces.days)
            or s.width = interval '1 hour' and s.known_from >= v_pieces.day
            and s.known_from < v_pieces.hour and s.known_from <> all (v_pieces.hours)
        ) and s.ts >= $2 and s.ts < $3 and ($4 is null or s.model = $4)
            and ($5 is null or s.symbol = $5);
    if cardinality(v_pieces.days) > 0 then
        return query
            select
                s.ts, s.model, s.symbol, s.version_id, s.regime, s.n, s.fallbacks, s.latency_ms,
                s.latencies, s.latency_max, s.outcomes, s.classes, s.hits, s.events, s.said,
                s.log_loss, s.square, s.absolute
            from unnest(v_pieces.days) d (day)
            join analytics.prediction_sums s on s.width = interval '1 hour'
                and s.known_from >= d.day and s.known_from < d.day + interval '24 hours'
            where s.known_from <> all (v_pieces.hours)
                and s.ts >= $2 and s.ts < $3 and ($4 is null or s.model = $4)
                and ($5 is null or s.symbol = $5);
    end if;
    for v_piece in
        select x.known_from, x.known_to from analytics._pieces($1) x where x.width is null
    loop
        return query
            select s.* from analytics._sums_of(v_piece.known_from, v_piece.known_to) s
            where s.ts >= $2 and s.ts < $3 and ($4 is null or s.model = $4)
                and ($5 is null or s.symbol = $5);
    end loop;
end
$$;
comment on function analytics._sums(timestamptz, timestamptz, timestamptz, text, text) is
'Sums over predictions of hours in [from, to) as known at as_of; add them up by what they are asked for.';

create or replace function analytics._cells(
    kind text, as_of timestamptz, "from" timestamptz default '-infinity',
    "to" timestamptz default 'infinity', only_model text default null
)
returns table (
    ts timestamptz, model text, symbol text, version_id bigint, cell integer, n double precision,
    events double precision, said double precision
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_piece record;
    v_pieces record;
begin
    select
        max(x.known_to) filter (where x.width = interval '1 day') as day,
        max(x.known_to) filter (where x.width = interval '1 hour') as hour,
        coalesce(array_agg(x.known_from) filter (where x.width = interval '-1 day'), '{}') as days,
        coalesce(array_agg(x.known_from) filter (where x.width = interval '-1 hour'), '{}') as hours
    into v_pieces
    from analytics._pieces($2) x;
    return query
        select s.ts, s.model, s.symbol, s.version_id, s.cell, s.n, s.events, s.said
        from analytics.prediction_cells s
        where (
            s.width = interval '1 day' and s.known_from < v_pieces.day
            and s.known_from <> all (v_pieces.days)
            or s.width = interval '1 hour' and s.known_from < v_pieces.hour
            and s.known_from <> all (v_pieces.hours) and (
                s.known_from >= v_pieces.day
                or public.time_bucket(interval '1 day', s.known_from) = any (v_pieces.days)
            )
        ) and s.kind = $1 and s.ts >= $3 and s.ts < $4 and ($5 is null or s.model = $5);
    for v_piece in
        select x.known_from, x.known_to from analytics._pieces($2) x where x.width is null
    loop
        return query
            select s.ts, s.model, s.symbol, s.version_id, s.cell, s.n, s.events, s.said
            from analytics._cells_of(v_piece.known_from, v_piece.known_to) s
            where s.kind = $1 and s.ts >= $3 and s.ts < $4 and ($5 is null or s.model = $5);
    end loop;
end
$$;
comment on function analytics._cells(text, timestamptz, timestamptz, timestamptz, text) is
'Histograms of a kind as known at as_of, of predictions in [from, to).';

create or replace function analytics._refresh_sums(at timestamptz) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_before timestamptz;
    v_through timestamptz;
    v_hours timestamptz [];
    v_days timestamptz [];
begin
    -- One at a time.
    select k.through into v_before from analytics.kept k for update;
    v_through := greatest(v_before, public.time_bucket(interval '1 hour', at));
    with taken as (
        select m.ctid as id, m.ts from analytics.known_marks m where m.ts < v_through
        for update skip locked
    ),
    gone as (
        delete from analytics.known_marks m using taken t where m.ctid = t.id returning m.ts
    )
    select coalesce(array_agg(distinct g.ts), '{}') into v_hours from gone g;
    delete from analytics.prediction_sums s
    where s.width = interval '1 hour' and s.known_from = any (v_hours);
    delete from analytics.prediction_cells s
    where s.width = interval '1 hour' and s.known_from = any (v_hours);
    insert into analytics.prediction_sums
    select h.hour, interval '1 hour', s.*
    from unnest(v_hours) h (hour)
    cross join lateral analytics._sums_of(h.hour, h.hour + interval '1 hour') s;
    insert into analytics.prediction_cells
    select h.hour, interval '1 hour', s.*
    from unnest(v_hours) h (hour)
    cross join lateral analytics._cells_of(h.hour, h.hour + interval '1 hour') s;
    -- Days that have ended since, and ended days an hour of which was summed anew.
    select coalesce(array_agg(distinct d.day), '{}') into v_days
    from (
        select public.time_bucket(interval '1 day', h.hour) as day from unnest(v_hours) h (hour)
        union
        select public.time_bucket(interval '1 day', s.known_from)
        from analytics.prediction_sums s
        where s.width = interval '1 hour'
            and s.known_from >= public.time_bucket(interval '1 day', v_before)
    ) d
    where d.day < public.time_bucket(interval '1 day', v_through);
    delete from analytics.prediction_sums s
    where s.width = interval '1 day' and s.known_from = any (v_days);
    delete from analytics.prediction_cells s
    where s.width = interval '1 day' and s.known_from = any (v_days);
    insert into analytics.prediction_sums
    select
        d.day, interval '1 day', s.ts, s.model, s.symbol, s.version_id, s.regime, sum(s.n),
        sum(s.fallbacks), sum(s.latency_ms), sum(s.latencies), max(s.latency_max), sum(s.outcomes),
        sum(s.classes), sum(s.hits), sum(s.events), sum(s.said), sum(s.log_loss), sum(s.square),
        sum(s.absolute)
    from unnest(v_days) d (day)
    join analytics.prediction_sums s on s.width = interval '1 hour'
        and s.known_from >= d.day and s.known_from < d.day + interval '24 hours'
    group by d.day, s.ts, s.model, s.symbol, s.version_id, s.regime;
    insert into analytics.prediction_cells
    select
        d.day, interval '1 day', s.kind, s.ts, s.model, s.symbol, s.version_id, s.cell, sum(s.n),
        sum(s.events), sum(s.said)
    from unnest(v_days) d (day)
    join analytics.prediction_cells s on s.width = interval '1 hour'
        and s.known_from >= d.day and s.known_from < d.day + interval '24 hours'
    group by d.day, s.kind, s.ts, s.model, s.symbol, s.version_id, s.cell;
    update analytics.kept set through = v_through where through is distinct from v_through;
    return cardinality(v_hours);
end
$$;
comment on function analytics._refresh_sums(timestamptz) is
'Sums the marked hours before at, and the days that they complete; gives how many hours it summed.';

create or replace function analytics._check_features(at timestamptz) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_rows bigint;
begin
    insert into analytics.feature_checks
    select
        at, s.name, s.version, m.symbol, m.through - interval '24 hours', m.through, q.feature,
        row_number() over (partition by s.set_id, m.symbol), q.row_count, q.null_share, q.mean,
        q.variance, q.min_value, q.max_value, q.distinct_values, q.last_value, q.last_known,
        q.staleness
    from feature.watermarks m
    join feature.sets s on s.set_id = m.set_id
    cross join lateral feature.quality(
        s.name, m.symbol, m.through - interval '24 hours', m.through, s.version
    ) q
    where not exists (
        select from analytics.feature_checks c
        where c.feature_set = s.name and c.feature_version = s.version and c.symbol = m.symbol
            and c.checked_at > at - interval '30 days' and (
                c.checked_at >= at or c.ts_to > m.through - interval '1 hour'
            )
    );
    get diagnostics v_rows = row_count;
    delete from analytics.feature_checks c where c.checked_at < at - interval '30 days';
    return v_rows;
end
$$;
comment on function analytics._check_features(timestamptz) is
'Writes down the quality of features whose stored vectors went on by an hour since the last time;
what is older than 30 days goes.';

create or replace procedure analytics.refresh(as_of timestamptz default null)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_as_of constant timestamptz := ops._moment(as_of);
begin
    perform analytics._refresh_sums(v_as_of);
    perform analytics._check_features(v_as_of);
end
$$;
comment on procedure analytics.refresh(timestamptz) is
'For the clock: brings the sums that dashboards read up to as_of (default: now), and writes down the quality of features. Views are right without it, from the rows, only slower. Errors: AP211 as_of.';
