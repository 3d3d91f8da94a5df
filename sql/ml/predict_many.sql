-- Scoring sets.
create or replace function ml._check_query(query text, out reason text, out hint text)
returns setof record
language plpython3u stable parallel safe set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sets.sqlcheck import reading
    return [(str(problem), problem.hint) for problem in reading.read_only(query)]
$python$;

create or replace function ml.score_many(version_id bigint, vectors double precision [])
returns double precision []
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving.score import score_many
    return score_many(plpy, GD, version_id, vectors)
$python$;
comment on function ml.score_many(bigint, double precision []) is
'ml.predict_version for many vectors in one call: vectors is a two-dimensional array, one row a vector; the predictions in the same order. Errors: AP501 to AP504.';

create or replace function ml.score_block(version_id bigint, vectors bytea)
returns double precision []
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving.score import score_block
    return score_block(plpy, GD, version_id, vectors)
$python$;
comment on function ml.score_block(bigint, bytea) is
'ml.score_many without an object for every number: vectors is string_agg(array_send(values), empty bytea), arrays without nulls (NaN: not known). Errors: AP501 to AP504.';

create or replace function ml.score_sequences(
    version_id bigint, set_id integer, symbol text, times double precision [],
    step double precision
)
returns table (seconds double precision, prediction double precision)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.serving.score import score_sequences
    return score_sequences(plpy, GD, version_id, set_id, symbol, times, step)
$python$;
comment on function ml.score_sequences(bigint, integer, text, double precision [], double precision) is
'What a version that reads sequences (spec inputs.length) says at stored vectors'' times (seconds since 1970; step: seconds of the set''s grid): the vectors of a stretch are read once, times without a whole sequence before them are left out. Errors: AP501 to AP503.';

create or replace function ml.predict_many(model text, query text)
returns table (symbol text, ts timestamptz, prediction double precision, version_id bigint)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1000
as $$
#variable_conflict use_column
declare
    v_problem record;
begin
    if not exists (select from ml.models m where m.model = $1) then
        perform ml._no_champion($1, null);
    end if;
    select c.reason, c.hint into v_problem from ml._check_query(coalesce($2, '')) c limit 1;
    if found then
        raise exception 'the query cannot be used: %', v_problem.reason
        using errcode = 'AP508', hint = v_problem.hint;
    end if;
    return query execute format($q$
        with asked as materialized (
            select g.symbol::text collate "C" as symbol, g.ts
            from (
                %s
            ) as g
            where isfinite(g.ts)
        ),
        served as materialized (
            select
                a.symbol, v.version_id, (v.spec #>> '{inputs,length}')::integer as length,
                s.set_id, s.grid
            from (select distinct symbol from asked) a
            join ml.model_versions v on v.version_id = ml.champion($1, a.symbol)
            join feature.sets s on s.name = v.feature_set and s.version = v.feature_version
        ),
        -- By the thousand: one call of the library for all, of bounded memory.
        parts as materialized (
            select
                p.version_id, array_agg(p.symbol) as symbols, array_agg(p.ts) as times,
                ml.score_block(p.version_id, string_agg(array_send(p.x), ''::bytea)) as scores
            from (
                select
                    s.version_id, q.symbol, q.ts, v.values as x,
                    row_number() over () / 4096 as part
                from asked q
                join served s on s.symbol = q.symbol and s.length is null
                join feature.vectors v
                    on v.set_id = s.set_id and v.symbol = q.symbol and v.ts = q.ts
            ) p
            group by p.version_id, p.part
        ),
        sequences as materialized (
            select
                s.version_id, s.symbol, s.set_id, s.grid,
                array_agg(extract(epoch from q.ts)::float8) as times
            from asked q
            join served s on s.symbol = q.symbol and s.length is not null
            group by s.version_id, s.symbol, s.set_id, s.grid
        )
        select u.symbol, u.ts, u.score, p.version_id
        from parts p
        cross join lateral unnest(p.symbols, p.times, p.scores) as u (symbol, ts, score)
        union all
        select e.symbol, to_timestamp(n.seconds), n.prediction, e.version_id
        from sequences e
        cross join lateral ml.score_sequences(
            e.version_id, e.set_id, e.symbol, e.times, extract(epoch from e.grid)::float8
        ) n
        $q$, rtrim($2, E'; \n\t')
    ) using $1;
end
$$;
comment on function ml.predict_many(text, text) is
'The champion''s prediction for many rows at once: query is one SELECT giving symbol (canonical) and ts, all names qualified by their schema; rows without a stored vector (a sequence model: with a gap in its vectors) or a promoted version are left out. Runs with the caller''s rights and writes nothing. Errors: AP302 unknown model, AP508 not one read-only SELECT.';

create or replace function ml.predict_history(
    model text, symbol text, "from" timestamptz, "to" timestamptz
)
returns table (ts timestamptz, prediction double precision, version_id bigint)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 1000
as $$
#variable_conflict use_column
declare
    v_symbol text := market.resolve($2);
    v_version record;
    v_block interval;
begin
    select v.version_id, s.set_id, s.grid, (v.spec #>> '{inputs,length}')::integer as length
    into v_version
    from ml.models m
    join ml.model_versions v on v.version_id = ml.champion(m.model, v_symbol)
    join feature.sets s on s.name = v.feature_set and s.version = v.feature_version
    where m.model = $1;
    if not found then
        perform ml._no_champion($1, v_symbol);
    end if;
    if v_version.length is not null then
        return query
            select to_timestamp(n.seconds), n.prediction, v_version.version_id
            from (
                select array_agg(extract(epoch from v.ts)::float8) as times
                from feature.vectors v
                where v.set_id = v_version.set_id and v.symbol = v_symbol
                    and v.ts >= $3 and v.ts < $4
            ) q
            cross join lateral ml.score_sequences(
                v_version.version_id, v_version.set_id, v_symbol, q.times,
                extract(epoch from v_version.grid)::float8
            ) n
            where q.times is not null;
        return;
    end if;
    v_block := v_version.grid * 4096;
    return query
        select u.ts, u.score, v_version.version_id
        from (
            select
                array_agg(v.ts) as times,
                ml.score_block(
                    v_version.version_id, string_agg(array_send(v.values), ''::bytea)
                ) as scores
            from feature.vectors v
            where v.set_id = v_version.set_id and v.symbol = v_symbol
                and v.ts >= $3 and v.ts < $4
            group by public.time_bucket(v_block, v.ts)
        ) p
        cross join lateral unnest(p.times, p.scores) as u (ts, score);
end
$$;
comment on function ml.predict_history(text, text, timestamptz, timestamptz) is
'What the champion of now (the symbol''s, else the pooled one) says of every vector stored in [from, to), in no order: for charts and studies, in one pass. It may have been trained on these rows: what was said at the time is in ml.predictions, held-out figures in ml.model_versions. A sequence model leaves out times whose sequence has a gap. Errors: AP101, AP102 symbol, AP302 unknown model, AP505 no promoted version.';
