-- depends: 0003_ops
--
-- 0004: feature sets are rows; their vectors are one wide row per (set, symbol, ts).
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

create table feature.vectors (
    set_id integer not null references feature.sets (set_id),
    symbol text collate "C" not null,
    ts timestamptz not null,
    computed_at timestamptz not null default clock_timestamp(),
    values double precision [] not null,
    primary key (set_id, symbol, ts)
);
select public.create_hypertable('feature.vectors', public.by_range('ts', interval '7 days'), create_default_indexes => false);

create table feature.pending (
    set_id integer not null references feature.sets (set_id) on delete cascade,
    symbol text collate "C" not null,
    ts_from timestamptz not null,
    ts_to timestamptz not null,
    reason text not null,
    created_at timestamptz not null default clock_timestamp()
);
create index pending_set_idx on feature.pending (set_id, symbol);

comment on table feature.sets is 'A feature set: ordered feature names and the definition behind them. A row never changes; a new definition is a new version.';
comment on column feature.sets.kind is 'builtin: the definition is the name of a feature function; select: the definition is a SELECT checked by feature.create_set.';
comment on column feature.sets.grid is 'Distance of two consecutive times at which the set is defined.';
comment on column feature.sets.lookback is 'How far back from ts the set reads.';
comment on table feature.definitions is 'Formula, unit and source of every feature of a set.';
comment on table feature.vectors is 'Feature values as known at ts: rows that happened before ts and were known by ts. values follows feature.sets.features; null where not knowable.';
comment on table feature.pending is 'Stretches of vectors that later-known rows may have changed and that are to be computed again.';
