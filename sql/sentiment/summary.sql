-- What texts say of an asset over a stretch of time, as known at a time.

create or replace function sentiment._hours(hours double precision) returns interval
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if hours is null or not (hours > 0 and hours <= 87660) then
        raise exception '% hours are not possible', coalesce(hours::text, 'null')
        using errcode = 'AP673', hint = 'More than 0, up to 87660 (ten years).';
    end if;
    return make_interval(secs => hours * 3600);
end
$$;
comment on function sentiment._hours(double precision) is 'So many hours. Errors: AP673.';

create or replace function sentiment._as_of(as_of timestamptz) returns timestamptz
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if not isfinite(as_of) then
        raise exception 'as_of % is no time', as_of
        using errcode = 'AP674', hint = 'Give a time that has a date, or none for now.';
    end if;
    return coalesce(as_of, now());
end
$$;
comment on function sentiment._as_of(timestamptz) is 'The time as of which is asked; null: now. Errors: AP674.';

create or replace function sentiment._method(method text) returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce(method, ops.setting_text('sentiment.method', 'blend'));
end
$$;
comment on function sentiment._method(text) is 'The method asked for, or that of setting sentiment.method.';

create or replace function sentiment._as_asset(symbol text) returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce(sentiment._asset(symbol), '*');
end
$$;
comment on function sentiment._as_asset(text) is 'As sentiment._asset; null is *, all texts.';

-- Part of an hour, or one that has not closed, from the scores.
create or replace function sentiment._edge(
    asset text, method text, "from" timestamptz, "to" timestamptz, as_of timestamptz
)
returns setof sentiment.hourly_rows
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select
        s.symbol, date_trunc('hour', s.ts, 'UTC'), s.method, s.source, $5,
        count(*), count(*) filter (where s.is_copy), count(*) filter (where c.yes),
        coalesce(sum(s.score::numeric) filter (where c.yes), 0),
        coalesce(sum(s.score::numeric * s.score::numeric) filter (where c.yes), 0),
        count(*) filter (where c.yes and s.label = 'positive'),
        count(*) filter (where c.yes and s.label = 'negative'),
        coalesce(sum(c.weight) filter (where c.yes), 0),
        coalesce(sum(c.weight * s.score::numeric) filter (where c.yes), 0),
        count(s.novelty), coalesce(sum(s.novelty::numeric), 0)
    from sentiment.scores s
    cross join lateral (
        select
            s.score is not null and not s.is_copy as yes,
            case when s.weight_known_at <= $5 then s.weight::numeric else 1 end as weight
    ) c
    where s.symbol = $1 and s.method = $2 and s.ts >= $3 and s.ts < $4 and s.known_at <= $5
    group by s.symbol, date_trunc('hour', s.ts, 'UTC'), s.method, s.source
$$;
comment on function sentiment._edge(text, text, timestamptz, timestamptz, timestamptz) is
'The scores of [from, to) known at as_of, by hour and source, added up as sentiment.hourly_rows.';

create or replace function sentiment._between(
    asset text, method text, "from" timestamptz, "to" timestamptz, as_of timestamptz
)
returns setof sentiment.hourly_rows
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_to timestamptz := least("to", as_of);
    -- Whole hours that had closed.
    v_first timestamptz := date_trunc('hour', "from" + interval '1 hour' - interval '1 microsecond', 'UTC');
    v_last timestamptz := date_trunc('hour', v_to, 'UTC');
begin
    if v_first >= v_last then
        return query select e.* from sentiment._edge(asset, method, "from", v_to, as_of) e;
        return;
    end if;
    if "from" < v_first then
        return query select e.* from sentiment._edge(asset, method, "from", v_first, as_of) e;
    end if;
    return query
    select r.* from sentiment.hourly_rows r
    where r.symbol = asset and r.bucket >= v_first and r.bucket < v_last
        and r.method = _between.method and r.usable_at <= as_of
        and not exists (
            select from sentiment.hourly_marks m where m.symbol = r.symbol and m.bucket = r.bucket
        );
    return query
    select h.*
    from (
        select distinct m.bucket from sentiment.hourly_marks m
        where m.symbol = asset and m.bucket >= v_first and m.bucket < v_last
    ) d
    cross join lateral sentiment._edge(asset, _between.method, d.bucket, d.bucket + interval '1 hour', as_of) h;
    if v_last < v_to then
        return query select e.* from sentiment._edge(asset, method, v_last, v_to, as_of) e;
    end if;
end
$$;
comment on function sentiment._between(text, text, timestamptz, timestamptz, timestamptz) is
'What was known at as_of of the texts of [from, to), by hour and source, partial: to be added up.';

create or replace function sentiment.summary(
    symbol text, hours double precision default 24, as_of timestamptz default null,
    method text default null,
    out asset text, out text_count bigint, out copy_count bigint, out scored_count bigint,
    out mean double precision, out dispersion double precision, out weighted_mean double precision,
    out share_positive double precision, out share_negative double precision,
    out novelty double precision, out label text, out change double precision
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_as_of timestamptz := sentiment._as_of(as_of);
    v_length interval := sentiment._hours(hours);
    v_method text := sentiment._method(method);
    v_before double precision;
begin
    asset := sentiment._as_asset(symbol);
    select
        coalesce(sum(r.text_count), 0), coalesce(sum(r.copy_count), 0), coalesce(sum(r.scored_count), 0),
        (sum(r.score_sum) / nullif(sum(r.scored_count), 0))::double precision,
        sqrt(greatest(0, (
            sum(r.score_squares) / nullif(sum(r.scored_count), 0)
            - (sum(r.score_sum) / nullif(sum(r.scored_count), 0)) ^ 2
        )::double precision)) * case when sum(r.scored_count) > 0 then 1 end,
        (sum(r.weighted_sum) / nullif(sum(r.weight_sum), 0))::double precision,
        sum(r.positive_count)::double precision / nullif(sum(r.scored_count), 0),
        sum(r.negative_count)::double precision / nullif(sum(r.scored_count), 0),
        (sum(r.novelty_sum) / nullif(sum(r.novelty_count), 0))::double precision
    into
        text_count, copy_count, scored_count, mean, dispersion, weighted_mean, share_positive,
        share_negative, novelty
    from sentiment._between(asset, v_method, v_as_of - v_length, v_as_of, v_as_of) r;
    label := case when mean >= 0.05 then 'positive' when mean <= -0.05 then 'negative' when mean is not null then 'neutral' end;
    select sum(r.score_sum) / nullif(sum(r.scored_count), 0) into v_before
    from sentiment._between(asset, v_method, v_as_of - 2 * v_length, v_as_of - v_length, v_as_of) r;
    change := mean - v_before;
end
$$;
comment on function sentiment.summary(text, double precision, timestamptz, text) is
'The texts of the last hours (24) about an asset, by any name of it (null or *: all texts), as known at as_of (null: now): how many, how many of them near-duplicates, and over those scored that are no duplicates mean, dispersion (standard deviation), mean weighted by engagement as far as that was known, shares labelled positive and negative; novelty (mean over all), label of the mean, change of the mean against the hours before. Null where there is nothing. method: null: setting sentiment.method. Errors: AP101/AP102 symbol, AP673 hours, AP674 as_of.';

create or replace function sentiment.trends(
    symbol text, hours double precision default 24, as_of timestamptz default null,
    method text default null, step interval default interval '1 hour'
)
returns table (
    "from" timestamptz, text_count bigint, copy_count bigint, scored_count bigint,
    mean double precision, dispersion double precision, weighted_mean double precision,
    share_positive double precision, share_negative double precision, novelty double precision
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 24
as $$
declare
    v_as_of timestamptz := sentiment._as_of(as_of);
    v_from timestamptz := date_trunc('hour', v_as_of - sentiment._hours(hours), 'UTC');
    v_asset text := sentiment._as_asset(symbol);
    v_method text := sentiment._method(method);
begin
    if step is null or step < interval '1 hour' or mod(extract(epoch from step), 3600) <> 0
        or hours / (extract(epoch from step) / 3600) > 10000 then
        raise exception 'a step of % is not possible', coalesce(step::text, 'null')
        using errcode = 'AP675', hint = 'Whole hours, and no more than 10000 steps.';
    end if;
    return query
    select
        g.at, coalesce(sum(r.text_count), 0)::bigint, coalesce(sum(r.copy_count), 0)::bigint,
        coalesce(sum(r.scored_count), 0)::bigint,
        (sum(r.score_sum) / nullif(sum(r.scored_count), 0))::double precision,
        sqrt(greatest(0, (
            sum(r.score_squares) / nullif(sum(r.scored_count), 0)
            - (sum(r.score_sum) / nullif(sum(r.scored_count), 0)) ^ 2
        )::double precision)) * case when sum(r.scored_count) > 0 then 1 end,
        (sum(r.weighted_sum) / nullif(sum(r.weight_sum), 0))::double precision,
        sum(r.positive_count)::double precision / nullif(sum(r.scored_count), 0),
        sum(r.negative_count)::double precision / nullif(sum(r.scored_count), 0),
        (sum(r.novelty_sum) / nullif(sum(r.novelty_count), 0))::double precision
    from generate_series(v_from, v_as_of - interval '1 microsecond', step) g (at)
    left join sentiment._between(v_asset, v_method, v_from, v_as_of, v_as_of) r
        on r.bucket >= g.at and r.bucket < g.at + step
    group by g.at
    order by g.at;
end
$$;
comment on function sentiment.trends(text, double precision, timestamptz, text, interval) is
'As sentiment.summary, step by step (1 hour) over the last hours, from the whole hour on; steps without texts too, with null means. The last step ends at as_of. Errors: AP101/AP102 symbol, AP673 hours, AP674 as_of, AP675 step.';

create or replace function sentiment.sources(
    symbol text, hours double precision default 24, as_of timestamptz default null,
    method text default null
)
returns table (
    source text, text_count bigint, copy_count bigint, scored_count bigint, share double precision,
    mean double precision, dispersion double precision, weighted_mean double precision,
    novelty double precision
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 5
as $$
declare
    v_as_of timestamptz := sentiment._as_of(as_of);
begin
    return query
    select
        r.source, sum(r.text_count)::bigint, sum(r.copy_count)::bigint, sum(r.scored_count)::bigint,
        (sum(r.text_count) / nullif(sum(sum(r.text_count)) over (), 0))::double precision,
        (sum(r.score_sum) / nullif(sum(r.scored_count), 0))::double precision,
        sqrt(greatest(0, (
            sum(r.score_squares) / nullif(sum(r.scored_count), 0)
            - (sum(r.score_sum) / nullif(sum(r.scored_count), 0)) ^ 2
        )::double precision)) * case when sum(r.scored_count) > 0 then 1 end,
        (sum(r.weighted_sum) / nullif(sum(r.weight_sum), 0))::double precision,
        (sum(r.novelty_sum) / nullif(sum(r.novelty_count), 0))::double precision
    from sentiment._between(
        sentiment._as_asset(symbol), sentiment._method(method),
        v_as_of - sentiment._hours(hours), v_as_of, v_as_of
    ) r
    group by r.source
    order by sum(r.text_count) desc, r.source;
end
$$;
comment on function sentiment.sources(text, double precision, timestamptz, text) is
'As sentiment.summary, by kind of source, with each one''s share of the texts. Errors: AP101/AP102 symbol, AP673 hours, AP674 as_of.';

create or replace function sentiment.recent(
    symbol text, "limit" integer default 20, as_of timestamptz default null,
    method text default null
)
returns table (
    ts timestamptz, known_at timestamptz, source text, author text, text text, url text,
    language text, score double precision, label text, confidence double precision,
    keywords text [], reason text, engagement jsonb, is_copy boolean, text_id bigint
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 20
as $$
declare
    v_as_of timestamptz := sentiment._as_of(as_of);
    v_asset text := sentiment._as_asset(symbol);
    v_method text := sentiment._method(method);
begin
    if "limit" is null or "limit" < 1 or "limit" > 100000 then
        raise exception 'a limit of % is not possible', coalesce("limit"::text, 'null')
        using errcode = 'AP676', hint = 'From 1 to 100000.';
    end if;
    return query
    select
        s.ts, s.known_at, t.source, t.author, t.text, t.url, t.language, s.score, s.label,
        s.confidence, s.keywords, s.reason,
        case when t.engagement_known_at <= v_as_of then t.engagement else '{}'::jsonb end,
        s.is_copy, s.text_id
    from (
        select x.* from sentiment.scores x
        where x.symbol = v_asset and x.method = v_method and x.ts <= v_as_of and x.known_at <= v_as_of
        order by x.ts desc, x.text_id
        limit "limit"
    ) s
    join sentiment.texts t on t.text_id = s.text_id and t.ts = s.ts
    order by s.ts desc, s.text_id;
end
$$;
comment on function sentiment.recent(text, integer, timestamptz, text) is
'The newest texts about an asset (null or *: all) with their scores, as known at as_of; engagement as far as it was known. Errors: AP101/AP102 symbol, AP674 as_of, AP676 limit.';
