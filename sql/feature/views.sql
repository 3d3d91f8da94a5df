-- Stored vectors as people look at them.
create or replace view feature.vectors_long as
select
    s.name as feature_set,
    s.version as feature_version,
    v.symbol,
    v.ts,
    f.name as feature,
    nullif(f.value, 'NaN') as value,
    v.computed_at
from feature.valid_vectors as v
inner join feature.sets as s on v.set_id = s.set_id
cross join lateral unnest(s.features, v.values) as f (name, value);
comment on view feature.vectors_long is
'Stored vectors that are valid (feature.valid_vectors), a row for each feature: feature_set, feature_version, symbol, ts, feature, value (null: not knowable). Conditions on feature_set, symbol and ts reach the stored rows'' index.';

create or replace function feature.quality(
    feature_set text, symbol text, "from" timestamptz, "to" timestamptz,
    version integer default null
)
returns table (
    feature text, row_count bigint, null_share double precision, mean double precision,
    variance double precision, min_value double precision, max_value double precision,
    distinct_values bigint, last_value double precision, last_known timestamptz,
    staleness interval
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
    select
        f.name, count(*), avg((f.value = 'NaN')::integer)::double precision,
        avg(nullif(f.value, 'NaN')), var_samp(nullif(f.value, 'NaN')),
        min(nullif(f.value, 'NaN')), max(nullif(f.value, 'NaN')),
        count(distinct nullif(f.value, 'NaN')),
        (array_agg(nullif(f.value, 'NaN') order by v.ts desc))[1],
        max(v.ts) filter (where f.value <> 'NaN'),
        max(v.ts) - max(v.ts) filter (where f.value <> 'NaN')
    from feature._set($1, $5) s
    -- offset: asked once, also where there are no vectors.
    cross join (select market.resolve($2) as name offset 0) y
    join feature.valid_vectors v
        on v.set_id = s.set_id and v.symbol = y.name and v.ts >= $3 and v.ts < $4
    cross join lateral unnest(s.features, v.values) with ordinality as f (name, value, position)
    group by f.name, f.position
    order by f.position
$$;
comment on function feature.quality(text, text, timestamptz, timestamptz, integer) is
'Quality of each feature of a set over the stored vectors of a symbol in [from, to), in the set''s order: share of nulls, mean, variance, range, number of distinct values (1: constant), the newest vector''s value (null: not known), when the feature was last known, and how far that is behind the newest vector. Errors: AP101 unknown symbol, AP202 unknown feature set.';

create or replace view feature.quality_recent as
select
    s.name as feature_set,
    s.version as feature_version,
    m.symbol,
    q.*,
    m.through
from feature.watermarks as m
inner join feature.sets as s on m.set_id = s.set_id
cross join
    lateral feature.quality(s.name, m.symbol, m.through - interval '24 hours', m.through, s.version) as q;
comment on view feature.quality_recent is
'feature.quality of every set and symbol over the last 24 hours of its stored vectors, and through: up to when they are stored.';

create or replace view feature.importance as
select
    v.model,
    v.symbol,
    v.regime,
    v.version_id,
    v.algorithm,
    a.alias,
    v.feature_set,
    v.feature_version,
    k.kind,
    f.key as feature,
    f.value::double precision as importance,
    f.value::double precision
    / nullif(sum(f.value::double precision) over (partition by v.version_id, a.alias, k.kind), 0)
        as share,
    rank() over (
        partition by v.version_id, a.alias, k.kind order by f.value::double precision desc
    ) as rank
from ml.model_versions as v
inner join ml.aliases as a on v.version_id = a.version_id
-- What a trainer wrote of its own that is no number for a feature is passed over.
cross join lateral jsonb_each(
    case jsonb_typeof(v.importance) when 'object' then v.importance end
) as k (kind, by_feature)
cross join lateral jsonb_each(
    case jsonb_typeof(k.by_feature) when 'object' then k.by_feature end
) as f (key, value)
where jsonb_typeof(f.value) = 'number';
comment on view feature.importance is
'What the versions in service (alias champion, challenger, shadow) make of their features: importance by kind (gain, split, weight), its share of the version''s sum, and rank. Versions whose algorithm has no such thing (the deep models) have no rows: ask ml.explain.';
