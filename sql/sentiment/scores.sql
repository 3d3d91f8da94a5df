-- Scoring what arrives, and keeping the hours.

create or replace function sentiment._score_many(
    text text, symbols text [], language text, methods text []
)
returns table (
    symbol text, method text, version text, score double precision, label text,
    confidence double precision, keywords text [], reason text
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sentiment import analyze
    return analyze.score_many(plpy, GD, text, symbols, language, methods)
$python$;

create or replace function sentiment._weight(engagement jsonb) returns double precision
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_sum double precision := 0;
    v_key text;
begin
    foreach v_key in array array['likes', 'retweets', 'comments'] loop
        if jsonb_typeof(engagement -> v_key) = 'number' then
            v_sum := v_sum + greatest(0, least(1e15, (engagement ->> v_key)::numeric));
        end if;
    end loop;
    return 1 + ln(1 + v_sum);
end
$$;
comment on function sentiment._weight(jsonb) is
'1 + ln(1 + likes + retweets + comments): a text that a thousand people liked counts about eight times, not a thousand times.';

create or replace function sentiment._champion(method text, as_of bigint) returns bigint
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if as_of is null then
        return (
            select a.version_id from ml.aliases a
            where a.model = _champion.method and a.symbol is null and a.regime is null
                and a.alias = 'champion'
        );
    end if;
    return (
        select h.version_id from ml.alias_history h
        where h.model = _champion.method and h.symbol is null and h.regime is null
            and h.alias = 'champion' and extract(epoch from h.at) * 1000000 <= as_of
        order by h.history_id desc limit 1
    );
end
$$;
comment on function sentiment._champion(text, bigint) is
'The champion of a text model, now or as of a time (microseconds since 1970); null: none.';

create or replace function sentiment._usable_from(method text) returns timestamptz
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce(
        (
            select h.at from ml.alias_history h
            where h.model = _usable_from.method and h.symbol is null and h.regime is null
                and h.alias = 'champion'
            order by h.history_id desc limit 1
        ),
        '-infinity'
    );
end
$$;
comment on function sentiment._usable_from(text) is
'Since when the present version of a method answers; a lexicon''s: always.';

create or replace function sentiment._score_batch(most integer) returns integer
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_methods text [] := array(select jsonb_array_elements_text(ops.setting('sentiment.methods')));
    v_ids bigint [];
    v_times timestamptz [];
begin
    with taken as (
        delete from sentiment.unscored u
        where u.unscored_id in (
            select n.unscored_id from sentiment.unscored n
            order by n.unscored_id limit most for update skip locked
        )
        returning u.text_id, u.ts
    )
    select array_agg(t.text_id), array_agg(t.ts) into v_ids, v_times from taken t;
    if v_ids is null then
        return 0;
    end if;
    insert into sentiment.scores (
        symbol, ts, text_id, method, version, known_at, source, author, score, label, confidence,
        keywords, reason, is_copy, novelty, weight, weight_known_at
    )
    select
        s.symbol, t.ts, t.text_id, s.method, s.version,
        greatest(t.known_at, m.usable_from), t.source, t.author, s.score, s.label, s.confidence,
        coalesce(s.keywords, '{}'), s.reason, t.duplicate_of is not null, t.novelty,
        sentiment._weight(t.engagement), t.engagement_known_at
    from sentiment.texts t
    cross join lateral sentiment._score_many(t.text, t.symbols, t.language, v_methods) s
    join (
        select u.method, sentiment._usable_from(u.method) as usable_from from unnest(v_methods) u (method)
    ) m on m.method = s.method
    where (t.text_id, t.ts) in (select u.id, u.at from unnest(v_ids, v_times) u (id, at))
        and t.ts >= (select min(u.at) from unnest(v_times) u (at))
        and t.ts <= (select max(u.at) from unnest(v_times) u (at))
    on conflict do nothing;
    return cardinality(v_ids);
end
$$;
comment on function sentiment._score_batch(integer) is
'Scores up to so many waiting texts; returns how many. Two at once take different ones.';

create or replace procedure sentiment.score_pending(batch integer default 2000)
language plpgsql
as $$
begin
    -- It commits, so it cannot pin its search_path; every name is qualified.
    if batch is null or batch < 1 then
        raise exception 'a batch of % texts is not possible', coalesce(batch::text, 'null')
        using errcode = 'AP672', hint = 'At least 1; 2000 by default.';
    end if;
    loop
        exit when sentiment._score_batch(batch) = 0;
        commit;
    end loop;
end
$$;
comment on procedure sentiment.score_pending(integer) is
'Scores the texts that wait, by the methods of setting sentiment.methods, batch by batch; commits after each. For the clock. Errors: AP672 batch below 1.';

-- One partial row for each time from which texts, or their engagement, can be used. Sums are of
-- numeric, so that they do not depend on how the rows are grouped.
create or replace function sentiment._hourly(symbol text, bucket timestamptz)
returns setof sentiment.hourly_rows
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select
        $1, $2, p.method, p.source, p.usable_at,
        sum(p.n)::bigint, sum(p.copies)::bigint, sum(p.scored)::bigint,
        sum(p.score), sum(p.score * p.score),
        sum(p.positive)::bigint, sum(p.negative)::bigint,
        sum(p.weight), sum(p.weighted),
        sum(p.novel)::bigint, sum(p.novelty)
    from (
        select
            s.text_id, s.method, s.source, greatest($2 + interval '1 hour', s.known_at) as usable_at,
            1 as n, s.is_copy::integer as copies, (counts.yes)::integer as scored,
            case when counts.yes then s.score::numeric else 0 end as score,
            (counts.yes and s.label = 'positive')::integer as positive,
            (counts.yes and s.label = 'negative')::integer as negative,
            case when counts.yes then 1 else 0 end as weight,
            case when counts.yes then s.score::numeric else 0 end as weighted,
            (s.novelty is not null)::integer as novel, coalesce(s.novelty::numeric, 0) as novelty
        from sentiment.scores s
        cross join lateral (select s.score is not null and not s.is_copy as yes) counts
        where s.symbol = $1 and s.ts >= $2 and s.ts < $2 + interval '1 hour'
        union all
        select
            s.text_id, s.method, s.source,
            greatest($2 + interval '1 hour', s.known_at, s.weight_known_at),
            0, 0, 0, 0, 0, 0, s.weight::numeric - 1, (s.weight::numeric - 1) * s.score::numeric, 0, 0
        from sentiment.scores s
        where s.symbol = $1 and s.ts >= $2 and s.ts < $2 + interval '1 hour'
            and s.score is not null and not s.is_copy and s.weight > 1
            and s.weight_known_at is not null
    ) p
    group by p.method, p.source, p.usable_at
$$;
comment on function sentiment._hourly(text, timestamptz) is 'The rows of one asset and hour, from its scores.';

create or replace procedure sentiment.refresh()
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_mark record;
begin
    -- One at a time; a second comes when the first is done, and finds nothing left.
    perform ops._lock('sentiment:refresh');
    for v_mark in
        with gone as (
            delete from sentiment.hourly_marks m returning m.symbol, m.bucket
        )
        select distinct g.symbol, g.bucket from gone g order by g.symbol, g.bucket
    loop
        delete from sentiment.hourly_rows r
        where r.symbol = v_mark.symbol and r.bucket = v_mark.bucket;
        insert into sentiment.hourly_rows
        select h.* from sentiment._hourly(v_mark.symbol, v_mark.bucket) h;
    end loop;
end
$$;
comment on procedure sentiment.refresh() is
'Brings the hours (sentiment.hourly_rows) up to date with the scores that came, changed or went since the last time; reads are right before it too, only slower. For the clock.';
