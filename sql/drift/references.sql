-- What versions were trained on, as distributions.

create or replace function drift._reference_spec(
    version_id bigint, out set_id integer, out symbol text, out features text [],
    out symbols text [], out grid interval
)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select s.set_id, v.symbol, v.features, ml._training_symbols(v.symbol), s.grid
    from ml.model_versions v
    join feature.sets s on s.name = v.feature_set and s.version = v.feature_version
    where v.version_id = $1
$$;
comment on function drift._reference_spec(bigint) is
'The feature set, features, symbols and grid that a version was trained on.';

create or replace function drift._shap(version_id bigint, vectors double precision [])
returns table (feature text, weight double precision)
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
        select e.feature, avg(abs(e.contribution))
        from generate_subscripts(vectors, 1) as i
        cross join lateral ml.explain_version(
            _shap.version_id, array(select x from unnest(vectors[i:i]) as x)
        ) e
        where e.feature <> 'base'
        group by e.feature;
exception when others then
    -- A version that takes sequences, or cannot be explained, has no shares.
    if sqlstate !~ '^AP5' then
        raise;
    end if;
end
$$;
comment on function drift._shap(bigint, double precision []) is
'Mean absolute contribution of each feature to a version''s raw score over some vectors; no row for
one that has no explanation of single vectors.';

create or replace function drift._held_out_packed(version_id bigint)
returns table (symbol text, p bytea, y bytea)
language sql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
    select
        o.symbol, array_send(array_agg(o.prediction order by o.ts)),
        array_send(array_agg(o.target order by o.ts))
    from ml.out_of_fold($1) o
    where o.prediction is not null and o.target is not null
    group by o.symbol
    order by o.symbol
$$;
comment on function drift._held_out_packed(bigint) is
'A version''s predictions on held-out rows by symbol and time, and what happened, as bytes; no row where
none were handed in.';

create or replace function drift._reference_taken(
    version_id bigint, binning_id integer, symbols text [], row_count bigint, first_ts bigint,
    last_ts bigint
)
returns void
language sql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
    insert into drift.version_references (
        version_id, binning_id, symbols, grid, row_count, ts_from, ts_to
    )
    select $1, $2, $3, s.grid, $4, to_timestamp($5 / 1e6), to_timestamp($6 / 1e6)
    from drift._reference_spec($1) s
    on conflict (version_id) do update
    set binning_id = excluded.binning_id, symbols = excluded.symbols, grid = excluded.grid,
        row_count = excluded.row_count, ts_from = excluded.ts_from, ts_to = excluded.ts_to,
        error = null, taken_at = clock_timestamp()
$$;
comment on function drift._reference_taken(bigint, integer, text [], bigint, bigint, bigint) is
'Writes that a version''s reference was taken; times are microseconds since 1970.';

create or replace function drift._take_reference(version_id bigint, training bytea, bins integer)
returns bigint
language plpython3u volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.drift import reference
    return reference.take(plpy, GD, version_id, training, bins)
$python$;

create or replace function drift.take_reference(version_id bigint)
returns bigint
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version ml.model_versions := ml._version(version_id);
    v_bins integer := drift._bins((ops.setting('drift.bins', '50') #>> '{}')::integer);
    v_most bigint := (ops.setting('drift.reference_rows', '300000') #>> '{}')::bigint;
    v_from timestamptz := v_version.train_from;
    v_spec record := drift._reference_spec(version_id);
    v_rows bigint;
begin
    select r.row_count into v_rows
    from drift.version_references r
    where r.version_id = take_reference.version_id and r.binning_id is not null;
    if found then
        return v_rows;
    end if;
    v_from := greatest(
        v_from,
        v_version.train_to - v_spec.grid * (v_most / greatest(1, cardinality(v_spec.symbols)))
    );
    v_rows := drift._take_reference(
        version_id,
        ml._training_bytes(
            v_version.model, v_version.symbol, v_version.as_of, v_from, null, v_version.regime
        ),
        v_bins
    );
    return v_rows;
end
$$;
comment on function drift.take_reference(bigint) is
'Stores the distributions that a version was trained on (drift.reference_features), from its training
set as known at its as_of, of the last drift.reference_rows rows of it; how many rows. The clock does
it for every new version (drift.refresh); a second call changes nothing. Errors: AP404 unknown
version.';

create or replace function drift.adopt_reference(
    version_id bigint, "from" timestamptz, "to" timestamptz
)
returns bigint
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version ml.model_versions := ml._version(version_id);
begin
    if "from" is null or "to" is null or not isfinite("from") or not isfinite("to")
        or "from" >= "to" then
        raise exception 'a reference needs a time from when and a later one to when'
        using errcode = 'AP635', hint = 'select drift.adopt_reference(version, ''2024-06-01'', ''2024-06-15'')';
    end if;
    delete from drift.reference_features r where r.version_id = adopt_reference.version_id;
    delete from drift.version_references r where r.version_id = adopt_reference.version_id;
    return drift._take_reference(
        version_id,
        ml._training_bytes(
            v_version.model, v_version.symbol, "to", "from", "to", v_version.regime
        ),
        drift._bins((ops.setting('drift.bins', '50') #>> '{}')::integer)
    );
end
$$;
comment on function drift.adopt_reference(bigint, timestamptz, timestamptz) is
'Takes another stretch of time as a version''s reference, as known at its end: for a version trained
elsewhere, or where the new normal is accepted. How many rows. Errors: AP404 unknown version, AP635
no stretch of time.';

create or replace function drift._references_due()
returns setof bigint
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select v.version_id
    from ml.model_versions v
    where v.archived_at is null
        and (
            exists (select from ml.aliases a where a.version_id = v.version_id)
            or v.created_at > clock_timestamp() - interval '1 day'
        )
        and not exists (
            select from drift.version_references r
            where r.version_id = v.version_id
                and (r.error is null or r.taken_at > clock_timestamp() - interval '1 hour')
        )
    order by v.version_id desc
$$;
comment on function drift._references_due() is
'Versions that serve, or are new, without a reference; one that failed is tried again after an hour.';

create or replace procedure drift.take_references()
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id bigint;
    v_error text;
begin
    for v_id in select d from drift._references_due() as d loop
        begin
            perform drift.take_reference(v_id);
        exception when others then
            get stacked diagnostics v_error = message_text;
            insert into drift.version_references as r (version_id, error)
            values (v_id, left(v_error, 1000))
            on conflict (version_id) do update
            set error = excluded.error, taken_at = clock_timestamp();
        end;
    end loop;
end
$$;
comment on procedure drift.take_references() is
'For the clock: takes the reference of every version that serves or is new and has none. One that
fails says why in drift.version_references and does not keep the others from theirs.';
