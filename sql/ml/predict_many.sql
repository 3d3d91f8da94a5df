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

-- Which versions answer for a symbol's rows: the one asked for, the champion of now, or for each
-- time the one that answers then.
create or replace function ml._spans(model text, symbol text, version bigint, choose text)
returns table (version_id bigint, "from" timestamptz, "to" timestamptz)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if version is not null then
        return query
            select v.version_id, timestamptz '-infinity', timestamptz 'infinity'
            from ml.model_versions v
            where v.version_id = _spans.version and v.model = _spans.model
                and (v.symbol is null or v.symbol = _spans.symbol);
    elsif choose = 'then' then
        return query select t.version_id, t."from", t."to" from ml._timeline(model, symbol) t;
    else
        return query
            select c.id, timestamptz '-infinity', timestamptz 'infinity'
            from (values (ml.champion(model, symbol))) c (id)
            where c.id is not null;
    end if;
end
$$;

create or replace function ml._check_choice(
    model text, version bigint, choose text, on_error text default 'error'
)
returns void
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if on_error is null or on_error not in ('error', 'null') then
        raise exception 'on_error is %, it must be error or null', coalesce(quote_literal(on_error), 'null')
        using errcode = 'AP512',
        hint = 'error: raise it. null: a row of nulls whose reason says what is wrong.';
    end if;
    if choose is null or choose not in ('champion', 'then') then
        raise exception 'choose is %, it must be champion or then', coalesce(quote_literal(choose), 'null')
        using errcode = 'AP512',
        hint = 'champion: the one of now for all rows. then: for each row the one that answers then, see ml.predict.';
    end if;
    if not exists (select from ml.models m where m.model = $1) then
        perform ml._no_champion($1, null);
    end if;
    if version is not null and not exists (
        select from ml.model_versions v where v.version_id = $2 and v.model = $1
    ) then
        raise exception 'version % is no version of model %', version, model
        using errcode = 'AP511',
        hint = format('List them with: select version_id, symbol from ml.registry where model = %L', model);
    end if;
end
$$;

create or replace function ml.predict_many(
    model text, query text, version bigint default null, choose text default 'champion',
    on_error text default 'error'
)
returns table (
    symbol text, ts timestamptz, prediction double precision, version_id bigint,
    trained_to timestamptz, in_sample boolean, reason text
)
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp set timezone = 'UTC'
rows 1000
as $$
#variable_conflict use_column
declare
    v_problem record;
begin
    perform ml._check_choice($1, $3, $4, $5);
    select c.reason, c.hint into v_problem from ml._check_query(coalesce($2, '')) c limit 1;
    if found then
        raise exception 'the query cannot be used: %', v_problem.reason
        using errcode = 'AP508', hint = v_problem.hint;
    end if;
    begin
        execute format(
            E'select g.symbol::text, g.ts::timestamptz from (%s\n) g limit 0', rtrim($2, E'; \n\t')
        );
    exception when undefined_column or undefined_table or undefined_function or cannot_coerce
        or syntax_error or ambiguous_column or data_exception then
        raise exception 'the query cannot be used: %', sqlerrm
        using errcode = 'AP508',
            hint = 'One SELECT that gives the columns symbol (text) and ts (timestamptz), all names with their schema.';
    end;
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
                a.symbol, v.version_id, p."from", p."to",
                least(v.as_of, v.train_to + v.horizon) as trained_to,
                (v.spec #>> '{inputs,length}')::integer as length, s.set_id, s.grid
            from (select distinct symbol from asked) a
            cross join lateral ml._spans($1, a.symbol, $2, $3) p
            join ml.model_versions v on v.version_id = p.version_id
            join feature.sets s on s.name = v.feature_set and s.version = v.feature_version
        ),
        -- By the thousand: one call of the library for all, of bounded memory.
        parts as materialized (
            select
                p.version_id, p.trained_to, array_agg(p.symbol) as symbols,
                array_agg(p.ts) as times,
                ml.score_block(p.version_id, string_agg(array_send(p.x), ''::bytea)) as scores
            from (
                select
                    s.version_id, s.trained_to, q.symbol, q.ts, v.values as x,
                    row_number() over () / 4096 as part
                from asked q
                join served s
                    on s.symbol = q.symbol and s.length is null and q.ts >= s."from" and q.ts < s."to"
                join feature.valid_vectors v
                    on v.set_id = s.set_id and v.symbol = q.symbol and v.ts = q.ts
            ) p
            group by p.version_id, p.trained_to, p.part
        ),
        sequences as materialized (
            select
                s.version_id, s.trained_to, s.symbol, s.set_id, s.grid,
                array_agg(extract(epoch from q.ts)::float8) as times
            from asked q
            join served s
                on s.symbol = q.symbol and s.length is not null and q.ts >= s."from" and q.ts < s."to"
            group by s.version_id, s.trained_to, s.symbol, s.set_id, s.grid
        ),
        answers as (
            select u.symbol, u.ts, u.score as prediction, p.version_id, p.trained_to
            from parts p
            cross join lateral unnest(p.symbols, p.times, p.scores) as u (symbol, ts, score)
            union all
            select e.symbol, to_timestamp(n.seconds), n.prediction, e.version_id, e.trained_to
            from sequences e
            cross join lateral ml.score_sequences(
                e.version_id, e.set_id, e.symbol, e.times, extract(epoch from e.grid)::float8
            ) n
        )
        %s
        $q$, rtrim($2, E'; \n\t'), case $5
        when 'error' then
            'select a.symbol, a.ts, a.prediction, a.version_id, a.trained_to, a.ts < a.trained_to,'
            ' case when a.prediction is null then ''no feature is known'' end from answers a'
        else $r$
            select
                q.symbol, q.ts, a.prediction, a.version_id, a.trained_to, a.ts < a.trained_to,
                case
                    when a.prediction is not null then null
                    when a.version_id is not null then 'no feature is known'
                    when exists (
                        select from served s
                        where s.symbol = q.symbol and q.ts >= s."from" and q.ts < s."to"
                    ) then 'no valid vector is stored'
                    else 'no version may answer then'
                end
            from asked q
            left join answers a on a.symbol = q.symbol and a.ts = q.ts
            $r$
        end
    ) using $1, $3, $4;
end
$$;
comment on function ml.predict_many(text, text, bigint, text, text) is
'Predictions for many rows at once: query is one SELECT giving symbol (canonical) and ts, all names qualified by their schema; rows without a valid stored vector (a sequence model: with a gap in its vectors) or a version are left out, or with on_error => ''null'' given as nulls with their reason. By the champion of now (in_sample where a row lies before trained_to, the end of the data it was trained on); choose => ''then'': each row by the version that ml.predict would choose for that time; version: by that one. Runs with the caller''s rights and writes nothing. Errors: AP302 unknown model, AP508 not one read-only SELECT, AP511 version of another model, AP512 choose or on_error.';

create or replace function ml.predict_history(
    model text, symbol text, "from" timestamptz, "to" timestamptz, version bigint default null,
    choose text default 'champion', on_error text default 'error'
)
returns table (
    ts timestamptz, prediction double precision, version_id bigint, trained_to timestamptz,
    in_sample boolean, reason text
)
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp set timezone = 'UTC'
rows 1000
as $$
#variable_conflict use_column
declare
    v_symbol text;
    v_version record;
    v_any boolean := false;
begin
    perform ml._check_choice($1, $5, $6, $7);
    begin
        v_symbol := market.resolve($2);
    exception when sqlstate 'AP101' or sqlstate 'AP102' then
        if $7 = 'error' then
            raise;
        end if;
        return query select
            null::timestamptz, null::float8, null::bigint, null::timestamptz, null::boolean, sqlerrm;
        return;
    end;
    for v_version in
        select
            v.version_id, s.set_id, s.grid, (v.spec #>> '{inputs,length}')::integer as length,
            least(v.as_of, v.train_to + v.horizon) as trained_to,
            greatest(p."from", $3) as "from", least(p."to", $4) as "to"
        from ml._spans($1, v_symbol, $5, $6) p
        join ml.model_versions v on v.version_id = p.version_id
        join feature.sets s on s.name = v.feature_set and s.version = v.feature_version
    loop
        v_any := true;
        if v_version.length is not null then
            return query
                select
                    to_timestamp(n.seconds), n.prediction, v_version.version_id,
                    v_version.trained_to, to_timestamp(n.seconds) < v_version.trained_to,
                    case when n.prediction is null then 'no feature is known' end
                from (
                    select array_agg(extract(epoch from v.ts)::float8) as times
                    from feature.valid_vectors v
                    where v.set_id = v_version.set_id and v.symbol = v_symbol
                        and v.ts >= v_version."from" and v.ts < v_version."to"
                ) q
                cross join lateral ml.score_sequences(
                    v_version.version_id, v_version.set_id, v_symbol, q.times,
                    extract(epoch from v_version.grid)::float8
                ) n
                where q.times is not null;
        else
            return query
                select
                    u.ts, u.score, v_version.version_id, v_version.trained_to,
                    u.ts < v_version.trained_to,
                    case when u.score is null then 'no feature is known' end
                from (
                    select
                        array_agg(v.ts) as times,
                        ml.score_block(
                            v_version.version_id, string_agg(array_send(v.values), ''::bytea)
                        ) as scores
                    from feature.valid_vectors v
                    where v.set_id = v_version.set_id and v.symbol = v_symbol
                        and v.ts >= v_version."from" and v.ts < v_version."to"
                    group by public.time_bucket(v_version.grid * 4096, v.ts)
                ) p
                cross join lateral unnest(p.times, p.scores) as u (ts, score);
        end if;
    end loop;
    if not v_any and $7 = 'error' and $6 = 'champion' then
        perform ml._no_champion($1, v_symbol);
    elsif not v_any and $7 = 'null' then
        return query select
            null::timestamptz, null::float8, null::bigint, null::timestamptz, null::boolean,
            format('no version of model %s may answer for %s', $1, v_symbol);
    end if;
end
$$;
comment on function ml.predict_history(text, text, timestamptz, timestamptz, bigint, text, text) is
'What the champion of now (the symbol''s, else the pooled one) says of every valid vector stored in [from, to), in no order: for charts and studies, in one pass. in_sample: the row lies before trained_to, the end of the data it was trained on; what was said at the time is in ml.predictions, held-out figures in ml.model_versions. choose => ''then'': each row by the version that ml.predict would choose for that time, rows of times at which there is none left out; version: by that one. A sequence model leaves out times whose sequence has a gap. on_error => ''null'': in place of an error one row of nulls with the reason. Errors: AP101, AP102 symbol, AP302 unknown model, AP505 no promoted version, AP511 version of another model, AP512 choose or on_error.';
