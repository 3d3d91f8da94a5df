-- depends: 0004_aggregates
--
-- 0005: feature sets are rows; their vectors are one wide row per (set, symbol, ts), and once more
-- blocks of numbers for those who read many.
create table feature.sets (
    set_id integer generated always as identity primary key,
    name text not null,
    version integer not null default 1 check (version > 0),
    features text [] not null check (cardinality(features) > 0),
    definition text not null,
    kind text not null check (kind in ('builtin', 'select')),
    grid interval not null default interval '1 minute' check (grid > interval '0'),
    lookback interval not null check (lookback >= interval '0'),
    sha256 bytea not null,
    description text not null default '',
    created_at timestamptz not null default clock_timestamp(),
    created_by text not null default session_user,
    unique (name, version)
);

create table feature.definitions (
    feature_set text not null,
    feature_version integer not null,
    feature text not null,
    position integer not null check (position > 0),
    formula text not null,
    unit text not null,
    source text not null,
    lookback interval,
    primary key (feature_set, feature_version, feature),
    foreign key (feature_set, feature_version) references feature.sets (name, version) on delete cascade
);

-- No foreign key to feature.sets: looking up the set of each vector by itself took a quarter of the
-- time that storing them takes. What stores vectors holds their set's row once per statement, and a
-- trigger on feature.sets refuses to delete a set that has vectors.
create table feature.vectors (
    set_id integer not null,
    symbol text collate "C" not null,
    ts timestamptz not null,
    computed_at timestamptz not null default clock_timestamp(),
    values double precision [] not null,
    primary key (set_id, symbol, ts)
);
select public.create_hypertable('feature.vectors', public.by_range('ts', interval '30 days'), create_default_indexes => false);

create table feature.pending (
    set_id integer not null references feature.sets (set_id) on delete cascade,
    symbol text collate "C" not null,
    ts_from timestamptz not null,
    ts_to timestamptz not null,
    reason text not null,
    created_at timestamptz not null default clock_timestamp(),
    pending_id bigint generated always as identity primary key
);
create index pending_set_idx on feature.pending (set_id, symbol);

create table feature.watermarks (
    set_id integer not null references feature.sets (set_id) on delete cascade,
    symbol text collate "C" not null,
    through timestamptz not null,
    since timestamptz,
    primary key (set_id, symbol)
);

-- A block holds all vectors of a set and symbol in its stretch, with holes known to be holes, and
-- goes with the first change to one of them.
create table feature.vector_blocks (
    set_id integer not null references feature.sets (set_id) on delete cascade,
    symbol text collate "C" not null,
    ts_from timestamptz not null,
    ts_to timestamptz not null,
    first_ts timestamptz not null,
    last_ts timestamptz not null,
    n integer not null,
    ts bytea not null,
    vectors bytea not null,
    primary key (set_id, symbol, ts_from)
);
-- Numbers hardly compress, and reading them is what the table is for.
alter table feature.vector_blocks alter column ts set storage external;
alter table feature.vector_blocks alter column vectors set storage external;

comment on table feature.sets is 'A feature set: ordered feature names and the definition behind them. A row never changes; a new definition is a new version.';
comment on column feature.sets.kind is 'builtin: the definition is the name of a feature function; select: the definition is a SELECT checked by feature.create_set.';
comment on column feature.sets.grid is 'Distance of two consecutive times at which the set is defined.';
comment on column feature.sets.lookback is 'How far back from ts the set reads.';
comment on table feature.definitions is 'Formula, unit and source of every feature of a set.';
comment on table feature.vectors is 'Feature values as known at ts: rows that happened before ts and were known by ts. values follows feature.sets.features; null where not knowable.';
comment on table feature.pending is 'Stretches of vectors that later-known rows may have changed and that are to be computed again.';
comment on table feature.watermarks is 'Up to which grid time the vectors of a set and symbol are stored (exclusive).';
comment on column feature.watermarks.since is
'From where on, up to through, every vector that can be known is stored; null: not recorded.';
comment on table feature.vector_blocks is
'The vectors of a set and symbol with ts in [ts_from, ts_to), all that can be known, as blocks of numbers; made by feature.pack, deleted with the first change to one of them.';
comment on column feature.vector_blocks.ts is
'n little-endian int8: microseconds since 2000-01-01 UTC.';
comment on column feature.vector_blocks.vectors is
'n by k little-endian float8, row by row, k the number of the set''s features.';
