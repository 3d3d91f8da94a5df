-- Out-of-fold predictions: handed in with a version, measured by the database, readable by all who
-- read.

create or replace function ml._training_labels(
    model text, symbols text [], start bigint, stop bigint, as_of bigint
) returns bytea
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.training import dataset
    return dataset.targets(plpy, GD, model, symbols, start, stop, as_of)
$python$;

create or replace function ml._training_targets(
    model text, symbol text, as_of timestamptz, "from" timestamptz
)
returns bytea
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbols text [] := ml._training_symbols(symbol);
    v_span record;
begin
    select p.start, p.stop into v_span from ml._training_span($1, v_symbols, $4, null, $3) p;
    return ml._training_labels(
        $1, v_symbols, v_span.start, v_span.stop, ops._micros($3)
    );
end
$$;
comment on function ml._training_targets(text, text, timestamptz, timestamptz) is
'What became of the grid times of a training set, little-endian: int8 n, int8 ts (n) and label_end (n)
in microseconds since 1970, float8 target (n), int4 symbols (n) as in ml.training_matrix.';

create or replace function ml._measured(
    task text, horizon double precision, targets bytea, handed bytea, champion jsonb,
    out metrics jsonb, out fold_metrics jsonb, out ts bigint [], out symbol integer [],
    out fold integer [], out raw double precision [], out prediction double precision [],
    out target double precision [], out base_rate double precision []
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.training import out_of_fold
    return out_of_fold.accept(plpy, task, horizon, targets, handed, champion)
$python$;
comment on function ml._measured(text, double precision, bytea, bytea, jsonb) is
'Metrics of out-of-fold predictions (handed) by the database''s own outcomes (targets), pooled and by
fold, and the rows by columns: AP431 where they are none.';

create or replace function ml.out_of_fold(version_id bigint)
returns table (
    symbol text, ts timestamptz, fold integer, prediction double precision,
    target double precision, base_rate double precision, raw double precision
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from ml.model_versions v where v.version_id = out_of_fold.version_id) then
        raise exception 'unknown model version %', coalesce(version_id::text, 'null')
        using errcode = 'AP404', hint = 'select version_id, model, symbol from ml.registry';
    end if;
    return query
        select
            p.symbols[u.symbol], timestamptz '1970-01-01 00:00:00+00' + u.ts * interval '1 microsecond', u.fold, u.prediction, u.target,
            u.base_rate, u.raw
        from ml.version_predictions p
        cross join lateral unnest(
            p.ts, p.symbol, p.fold, p.prediction, p.target, p.base_rate, p.raw
        ) as u (ts, symbol, fold, prediction, target, base_rate, raw)
        where p.version_id = out_of_fold.version_id;
end
$$;
comment on function ml.out_of_fold(bigint) is
'The out-of-fold predictions by which a version was judged: each row''s by a model that had seen nothing
later (walk-forward), calibrated by what was known before; target: what happened, by the database''s
labels; base_rate: the mean outcome known when the fold began; raw: the score before calibration. All
metrics of ml.model_versions can be recomputed from them. No rows: none were handed in. A timeline
without leak. Errors: AP404 unknown version.';
