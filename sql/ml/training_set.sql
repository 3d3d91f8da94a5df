-- Training sets: features as known at each time, and what happened after, as known by as_of.
create or replace function ml._training_spec(model text)
returns table (
    kind text, horizon bigint, params jsonb, step bigint, set_id integer,
    definition text, set_kind text, k integer, noise jsonb
)
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return query
        select
            l.kind, ops._micros(l.horizon), l.params, ops._micros(s.grid), s.set_id,
            feature._source(s), s.kind, cardinality(s.features), m.training -> 'noise'
        from ml.models m
        join ml.labels l on l.label = m.label
        join feature.sets s on s.name = m.feature_set and s.version = m.feature_version
        where m.model = _training_spec.model;
    if not found then
        raise exception 'unknown model %', quote_literal(model)
        using errcode = 'AP302', hint = 'List them with: select model, label from ml.models';
    end if;
end
$$;

create or replace function ml._training_symbols(symbol text) returns text []
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if symbol is not null then
        return array[market.resolve(symbol)];
    end if;
    return array(select i.symbol from market.instruments i order by i.symbol);
end
$$;

-- From when to when there is anything to train on, in microseconds since 1970.
create or replace function ml._training_span(
    model text, symbols text [], "from" timestamptz, "to" timestamptz, as_of timestamptz,
    out start bigint, out stop bigint
)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select
        ops._micros(coalesce($3, min(e.first_ts), $5)),
        ops._micros(least($4, $5, max(e.last_ts)))
    from unnest($2) as u (symbol)
    cross join lateral feature._extent(
        u.symbol, (select ops._length(s.step) from ml._training_spec($1) s)
    ) e
$$;

create or replace function ml._training_rows(
    model text, symbols text [], start bigint, stop bigint, as_of bigint,
    states integer []
)
returns table (
    symbol text, at bigint, label_end bigint,
    features double precision [], target double precision
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.training import dataset
    return dataset.training_rows(plpy, GD, model, symbols, start, stop, as_of, states)
$python$;

create or replace function ml._training_matrix(
    model text, symbols text [], start bigint, stop bigint, as_of bigint,
    states integer [],
    out n bigint, out ts bytea, out label_end bytea, out target bytea, out columns bytea [],
    out sha256 bytea, out symbols bytea
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.training import dataset
    return dataset.training_matrix(plpy, GD, model, symbols, start, stop, as_of, states)
$python$;

create or replace function ml._training_block(
    model text, symbols text [], start bigint, stop bigint, as_of bigint,
    states integer []
) returns bytea
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.training import dataset
    return dataset.training_block(plpy, GD, model, symbols, start, stop, as_of, states)
$python$;

create or replace function ml.training_set(
    model text, symbol text, as_of timestamptz, "from" timestamptz default null,
    "to" timestamptz default null, regime text default null
)
returns table (
    symbol text, ts timestamptz, label_end timestamptz, features double precision [],
    target double precision
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select
        r.symbol, ops._at(r.at), ops._at(r.label_end), r.features, r.target
    from ml._training_symbols($2) as y (symbols)
    cross join lateral ml._training_span($1, y.symbols, $4, $5, $3) p
    cross join lateral ml._training_rows(
        $1, y.symbols, p.start, p.stop, ops._micros($3), regime._positions($6)
    ) r
$$;
comment on function ml.training_set(
    text, text, timestamptz, timestamptz, timestamptz, text
) is
'The training set of a model for a symbol (null: all symbols, pooled) as of a time: one row per grid time in [from, to) (default: all there is) whose label had ended and was known by as_of; features as known at ts in the order of the feature set, NaN where not knowable. Rows that become known after as_of never change it. regime: only rows whose hourly regime, by the verdict that was known by as_of, is of that name (regime.resolve; null: all). Errors: AP101 unknown symbol, AP302 unknown model, AP601 unknown regime.';

create or replace function ml.training_matrix(
    model text, symbol text, as_of timestamptz, "from" timestamptz default null,
    "to" timestamptz default null, regime text default null
)
returns table (
    n bigint, ts bytea, label_end bytea, target bytea, columns bytea [], sha256 bytea,
    symbols bytea
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select m.n, m.ts, m.label_end, m.target, m.columns, m.sha256, m.symbols
    from ml._training_symbols($2) as y (symbols)
    cross join lateral ml._training_span($1, y.symbols, $4, $5, $3) p
    cross join lateral ml._training_matrix(
        $1, y.symbols, p.start, p.stop, ops._micros($3), regime._positions($6)
    ) m
$$;
comment on function ml.training_matrix(
    text, text, timestamptz, timestamptz, timestamptz, text
) is
'ml.training_set by columns, for numpy.frombuffer: n rows by time; ts and label_end big-endian int8 microseconds since 1970, target and each of columns big-endian float8; symbols: big-endian int4, the number of each row''s symbol among those of the set by name. sha256 is of ts, label_end, target and the features row by row, all little-endian; ml.model_versions.training_sha256 is this of the set that the version was trained on.';

create or replace function ml._training_bytes(
    model text, symbol text, as_of timestamptz, "from" timestamptz, "to" timestamptz, regime text
)
returns bytea
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbols text [] := ml._training_symbols(symbol);
    v_span record;
begin
    select p.start, p.stop into v_span from ml._training_span($1, v_symbols, $4, $5, $3) p;
    -- An SQL function would write the value to a file and read it again.
    return ml._training_block(
        $1, v_symbols, v_span.start, v_span.stop, ops._micros($3), regime._positions($6)
    );
end
$$;
comment on function ml._training_bytes(
    text, text, timestamptz, timestamptz, timestamptz, text
) is
'ml.training_set as numpy holds it, little-endian, in one value (a row would be written to disk on its way): int8 n and k, then int8 ts (n) and label_end (n) in microseconds since 1970, float8 target (n), int4 symbols (n) as in ml.training_matrix, float8 features (n, k) row by row; where the model asks for noise filtering, last int8 counts (6) of the rows it dropped: hampel, bad_tick, volume, spread, gap, any.';

create or replace function ml.training_block(
    model text, symbol text, as_of timestamptz, "from" timestamptz default null,
    "to" timestamptz default null, regime text default null
)
returns bytea
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
begin
    return ml._training_bytes($1, $2, $3, $4, $5, $6);
end
$$;
comment on function ml.training_block(
    text, text, timestamptz, timestamptz, timestamptz, text
) is
'ml.training_set as numpy holds it, little-endian, in one value of less than 1 GB: int8 n and k, then int8 ts (n) and label_end (n) in microseconds since 1970, float8 target (n), int4 symbols (n), the number of each row''s symbol among those of the set by name, float8 features (n, k) row by row, NaN where not knowable. Rows by time, then symbol. What is larger is read in stretches of [from, to): alphaplus.client does. Errors: AP101 unknown symbol, AP302 unknown model, AP601 unknown regime.';

create or replace function ml._folds(times bytea, ends bytea, folds integer)
returns table (fold integer, train_from bigint, train_to bigint, test_from bigint, test_to bigint)
language plpython3u immutable parallel safe set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.training import dataset
    return dataset.folds(plpy, times, ends, folds)
$python$;

create or replace function ml.folds(
    model text, symbol text, as_of timestamptz, folds integer default 5,
    "from" timestamptz default null, "to" timestamptz default null
)
returns table (
    fold integer, train_from timestamptz, train_to timestamptz, test_from timestamptz,
    test_to timestamptz
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select
        f.fold, ops._at(f.train_from), ops._at(f.train_to),
        ops._at(f.test_from), ops._at(f.test_to)
    from ml.training_matrix($1, $2, $3, $5, $6) m
    cross join lateral ml._folds(m.ts, m.label_end, $4) f
$$;
comment on function ml.folds(text, text, timestamptz, integer, timestamptz, timestamptz) is
'Walk-forward folds of a training set, purged by the label''s horizon: a row trains when train_from <= ts and label_end <= train_to, and tests when test_from <= ts < test_to; no training label interval meets the span of the test''s labels. Source: Lopez de Prado (2018), Advances in Financial Machine Learning, chapter 7.';
