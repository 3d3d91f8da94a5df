-- depends: 0350_live
--
-- 0351: what is done with what comes in live: predictions at the close of a bar, rules that raise
-- alerts, and the calendar of events.
create table ml.live_predictions (
    rule_id bigint generated always as identity primary key,
    model text not null references ml.models (model),
    symbols text [],
    horizon interval,
    enabled boolean not null default true,
    last_close timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    created_by text not null default session_user,
    unique nulls not distinct (model, symbols)
);

create table ml.live_runs (
    rule_id bigint not null references ml.live_predictions (rule_id) on delete cascade,
    close timestamptz not null,
    started_at timestamptz not null,
    materialised_at timestamptz not null,
    stored_at timestamptz not null,
    symbols integer not null,
    stored integer not null,
    left_out jsonb not null default '{}',
    primary key (rule_id, close)
);

create table ops.alert_rules (
    rule text primary key,
    view_name text not null,
    key_columns text [] not null,
    column_name text not null,
    operator text not null check (operator in ('=', '<>', '<', '<=', '>', '>=')),
    threshold text not null,
    kind text not null,
    severity text check (severity in ('info', 'low', 'medium', 'high', 'critical')),
    severity_column text,
    message text not null,
    cooldown interval not null default interval '15 minutes' check (cooldown >= interval '0'),
    channel text,
    resolves boolean not null default false,
    enabled boolean not null default true,
    shipped boolean not null default false,
    created_by text not null default session_user,
    check (severity is not null or severity_column is not null)
);

create table ops.alert_channels (
    alert_id bigint primary key references ops.alerts (alert_id) on delete cascade,
    channel text not null
);

create table market.trade_size_quantiles (
    symbol text collate "C" not null,
    computed_at timestamptz not null,
    quantile double precision not null check (quantile > 0 and quantile < 1),
    trade_count bigint not null,
    size double precision not null,
    primary key (symbol, quantile, computed_at)
);

create table market.events (
    event_id bigint generated always as identity primary key,
    source text not null,
    source_id text not null,
    kind text not null check (kind ~ '^[a-z][a-z0-9_]{0,62}$'),
    symbol text collate "C",
    ts timestamptz not null check (isfinite(ts)),
    known_at timestamptz not null check (isfinite(known_at)),
    title text not null default '',
    amount double precision check (amount >= 0 and amount < 'infinity'),
    share_of_float double precision check (share_of_float >= 0 and share_of_float <= 1),
    cancelled boolean not null default false,
    details jsonb not null default '{}',
    loaded_at timestamptz not null default clock_timestamp(),
    loaded_by text not null default session_user,
    unique (source, source_id, known_at)
);
create index events_symbol_idx on market.events (symbol, ts);
create index events_kind_idx on market.events (kind, ts);

create sequence ml.latest_hits minvalue 0 start 0;
create sequence ml.latest_misses minvalue 0 start 0;

comment on table ml.live_predictions is 'Rules: at the close of each bar of the model''s grid, predict these symbols and write it down. ml.record_live does it.';
comment on column ml.live_predictions.rule_id is 'Number of the rule.';
comment on column ml.live_predictions.model is 'The model; its champions answer.';
comment on column ml.live_predictions.symbols is 'Canonical symbols; null: all that a live stream reads.';
comment on column ml.live_predictions.horizon is 'The horizon that the model''s label is to have; null: not said.';
comment on column ml.live_predictions.enabled is 'Whether it is done.';
comment on column ml.live_predictions.last_close is 'The last close that was predicted at.';
comment on column ml.live_predictions.created_at is 'When it was made.';
comment on column ml.live_predictions.created_by is 'Who made it.';
comment on table ml.live_runs is 'One row per rule and close: how long each stage took.';
comment on column ml.live_runs.rule_id is 'The rule.';
comment on column ml.live_runs.close is 'The close of the bar.';
comment on column ml.live_runs.started_at is 'When work on it began.';
comment on column ml.live_runs.materialised_at is 'When the vectors were there.';
comment on column ml.live_runs.stored_at is 'When the predictions were written.';
comment on column ml.live_runs.symbols is 'Symbols asked for.';
comment on column ml.live_runs.stored is 'Predictions written.';
comment on column ml.live_runs.left_out is 'How many symbols have none, by reason.';
comment on table ops.alert_rules is 'Rules: a row of a view whose column meets the condition raises an alert. Nothing in it is SQL: view and columns are names, the threshold a value of the column''s type.';
comment on column ops.alert_rules.rule is 'Its name; part of the alerts'' dedup_key.';
comment on column ops.alert_rules.view_name is 'A view of this database, schema.name.';
comment on column ops.alert_rules.key_columns is 'Columns of the view that tell one alert of the rule from another: rows with the same values are one alert.';
comment on column ops.alert_rules.column_name is 'The column that is compared.';
comment on column ops.alert_rules.operator is 'How: =, <>, <, <=, > or >=.';
comment on column ops.alert_rules.threshold is 'With what, as text of the column''s type.';
comment on column ops.alert_rules.kind is 'The alerts'' kind.';
comment on column ops.alert_rules.severity is 'Their severity.';
comment on column ops.alert_rules.severity_column is 'Column that says the severity, where rows differ; null: severity.';
comment on column ops.alert_rules.message is 'Their message; {column} stands for a column''s value.';
comment on column ops.alert_rules.cooldown is 'Within this time after its last occurrence an alert is not raised again.';
comment on column ops.alert_rules.channel is 'Dispatchers of this channel deliver it; null: all do.';
comment on column ops.alert_rules.resolves is 'Whether an alert ends by itself once no row meets the condition.';
comment on column ops.alert_rules.enabled is 'Whether it is checked.';
comment on column ops.alert_rules.shipped is 'Part of AlphaPlus: a deploy brings its condition and message up to date.';
comment on column ops.alert_rules.created_by is 'Who made it.';
comment on table ops.alert_channels is 'Alerts that only one channel delivers.';
comment on column ops.alert_channels.alert_id is 'The alert.';
comment on column ops.alert_channels.channel is 'The channel of its rule.';
comment on table market.trade_size_quantiles is 'Quantiles of each symbol''s own trade sizes, computed from time to time: what a whale is at that symbol.';
comment on column market.trade_size_quantiles.symbol is 'The symbol.';
comment on column market.trade_size_quantiles.computed_at is 'Up to when trades count; it holds from then on.';
comment on column market.trade_size_quantiles.quantile is 'The quantile, as 0.999.';
comment on column market.trade_size_quantiles.trade_count is 'Trades it is taken from.';
comment on column market.trade_size_quantiles.size is 'Its size in base units.';
comment on table market.events is 'Calendar: token unlocks, listings, macro releases, maintenance. A version a row: a changed or cancelled event is a further row with a later known_at; market.events_known answers as of a time.';
comment on column market.events.event_id is 'Number of the row.';
comment on column market.events.source is 'Who says so.';
comment on column market.events.source_id is 'The source''s own number or name of the event.';
comment on column market.events.kind is 'unlock, listing, delisting, macro, maintenance, or a word of one''s own.';
comment on column market.events.symbol is 'The symbol it concerns; null: all.';
comment on column market.events.ts is 'When it happens or happened.';
comment on column market.events.known_at is 'Since when it was known to happen then.';
comment on column market.events.title is 'What it is, in words.';
comment on column market.events.amount is 'Base units, of an unlock.';
comment on column market.events.share_of_float is 'The part of the circulating supply, 0 to 1, of an unlock.';
comment on column market.events.cancelled is 'It will not happen, as known from known_at on.';
comment on column market.events.details is 'What else the source says.';
comment on column market.events.loaded_at is 'When it was loaded.';
comment on column market.events.loaded_by is 'Who loaded it.';
