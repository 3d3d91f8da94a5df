-- depends: 0381_corporate_actions
--
-- 0390: labels have versions; tables of users' own, other symbols in a set, sets of sets, errors of sets.
alter table ml.labels add column name text,
add column version integer not null default 1 check (version > 0);
alter table ml.labels add constraint labels_version_key unique (name, version);

comment on column ml.labels.label is 'What models name it by: its name, from the second version on name@version.';
comment on column ml.labels.name is 'Name that ml.create_label was given; null: of a label that came otherwise.';
comment on column ml.labels.version is 'Version of the label of that name. One that model versions predict never changes.';
comment on column ml.labels.task is 'classification, regression, regime or text; follows from the kind.';
comment on column ml.labels.kind is 'What is looked at: ml.label_kinds.';
comment on column ml.labels.horizon is 'How far the label looks from its time; purging and embargo follow from it.';
comment on column ml.labels.params is 'Parameters of the kind (ml.label_kinds).';
comment on column ml.labels.description is 'What it is, in words.';
comment on column ml.labels.created_at is 'When it was declared.';
comment on column ml.labels.created_by is 'Who declared it.';

create schema research;
comment on schema research is 'Tables of users'' own, made by feature.create_table.';

create table feature.sources (
    source text primary key,
    relation regclass not null unique,
    symbol_column text,
    ts_column text not null,
    known_at_column text not null,
    key_columns text [] not null default '{}',
    columns text [] not null,
    types text [] not null,
    description text not null default '',
    created_at timestamptz not null default clock_timestamp(),
    created_by text not null default session_user
);
comment on table feature.sources is 'Tables of users'' own that feature sets read as source.<name>, see feature.create_source.';
comment on column feature.sources.source is 'Name under which a SELECT reads it.';
comment on column feature.sources.relation is 'The table, of schema research.';
comment on column feature.sources.symbol_column is 'Its column of canonical symbols; null: its rows are for all symbols.';
comment on column feature.sources.ts_column is 'Its column of when a row happened.';
comment on column feature.sources.known_at_column is 'Its column of when a row was known here.';
comment on column feature.sources.key_columns is 'What beside symbol and ts tells rows apart; of those alike the one known last holds.';
comment on column feature.sources.columns is 'Its other columns, as a SELECT sees them.';
comment on column feature.sources.types is 'Types of these columns.';
comment on column feature.sources.description is 'What it is, in words.';
comment on column feature.sources.created_at is 'When it was declared.';
comment on column feature.sources.created_by is 'Who declared it.';

alter table feature.sets add column other_symbols jsonb not null default '{}';
comment on column feature.sets.other_symbols is
'Other symbols that the SELECT reads, by the alias that stands before the table: a list, or an object of lists by the symbol that is computed.';

create table feature.set_symbols (
    set_id integer not null references feature.sets (set_id) on delete cascade,
    symbol text collate "C" not null,
    of_symbol text collate "C",
    constraint set_symbols_key unique nulls not distinct (set_id, symbol, of_symbol)
);
create index set_symbols_symbol_idx on feature.set_symbols (symbol);
comment on table feature.set_symbols is 'Whose rows beside their own symbol''s the sets of feature.sets.other_symbols read: late ones void their vectors.';
comment on column feature.set_symbols.set_id is 'The set.';
comment on column feature.set_symbols.symbol is 'The symbol whose rows are read.';
comment on column feature.set_symbols.of_symbol is 'For vectors of which symbol; null: of all.';

create table feature.set_sources (
    set_id integer not null references feature.sets (set_id) on delete cascade,
    source text not null references feature.sources (source),
    primary key (set_id, source)
);
comment on table feature.set_sources is 'Which sources a set reads.';
comment on column feature.set_sources.set_id is 'The set.';
comment on column feature.set_sources.source is 'The source.';

-- Sets of sets.
alter table feature.sets drop constraint sets_kind_check,
add constraint sets_kind_check check (kind in ('builtin', 'select', 'text', 'joined'));
comment on column feature.sets.kind is
'builtin: the definition is the name of a feature function; select: it is a SELECT checked by feature.create_set; joined: other sets one after the other (feature.set_members); text: the text itself.';

create table feature.set_members (
    set_id integer not null references feature.sets (set_id) on delete cascade,
    position integer not null check (position > 0),
    member_id integer not null references feature.sets (set_id),
    prefix text not null,
    primary key (set_id, position),
    unique (set_id, prefix)
);
comment on table feature.set_members is 'The sets that a joined set (feature.join_sets) is made of.';
comment on column feature.set_members.set_id is 'The joined set.';
comment on column feature.set_members.position is 'Place of the member, from 1.';
comment on column feature.set_members.member_id is 'The member.';
comment on column feature.set_members.prefix is 'What stands before the names of its features.';

create table feature.set_errors (
    set_id integer not null references feature.sets (set_id) on delete cascade,
    symbol text collate "C" not null,
    ts timestamptz not null,
    sqlstate text not null,
    message text not null,
    first_at timestamptz not null default clock_timestamp(),
    last_at timestamptz not null default clock_timestamp(),
    attempts integer not null default 1,
    retry_at timestamptz not null,
    primary key (set_id, symbol, ts)
);
comment on table feature.set_errors is
'Times at which a user''s set could not be computed for a symbol, until it can: the others go on, and it is tried again.';
comment on column feature.set_errors.set_id is 'The set.';
comment on column feature.set_errors.symbol is 'The symbol.';
comment on column feature.set_errors.ts is 'The grid time that could not be computed; where nothing could, the first.';
comment on column feature.set_errors.sqlstate is 'Code of the error.';
comment on column feature.set_errors.message is 'The error in words.';
comment on column feature.set_errors.first_at is 'When it first failed.';
comment on column feature.set_errors.last_at is 'When it last failed.';
comment on column feature.set_errors.attempts is 'How often it failed.';
comment on column feature.set_errors.retry_at is 'From when on it is tried again.';
