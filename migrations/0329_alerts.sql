-- depends: 0008_simulation
--
-- 0329: the outbox of alerts. Whatever notices something (drift, a rule on live data, a job that
-- always fails) writes one row here in its own transaction; who delivers reads them from here.
create table ops.alerts (
    alert_id bigint generated always as identity primary key,
    ts timestamptz not null,
    known_at timestamptz not null default clock_timestamp(),
    dedup_key text not null,
    kind text not null,
    severity text not null check (severity in ('info', 'low', 'medium', 'high', 'critical')),
    symbol text collate "C",
    model text,
    message text not null,
    payload jsonb not null default '{}',
    occurrences integer not null default 1 check (occurrences > 0),
    last_ts timestamptz not null,
    last_known_at timestamptz not null default clock_timestamp(),
    muted boolean not null default false,
    raised_by text not null default session_user,
    acknowledged_at timestamptz,
    acknowledged_by text,
    assigned_to text,
    resolved_at timestamptz,
    note text,
    batch xid8 not null default pg_current_xact_id()
);
create unique index alerts_open_idx on ops.alerts (dedup_key) where resolved_at is null;
create index alerts_known_idx on ops.alerts (known_at desc);
create index alerts_batch_idx on ops.alerts (batch);

create table ops.alert_mutes (
    mute_id bigint generated always as identity primary key,
    pattern text not null,
    until timestamptz not null,
    reason text not null,
    muted_by text not null default session_user,
    created_at timestamptz not null default clock_timestamp()
);

create table ops.alert_consumers (
    consumer text primary key,
    since timestamptz not null default clock_timestamp(),
    kinds text [],
    min_severity text not null default 'info'
    check (min_severity in ('info', 'low', 'medium', 'high', 'critical'))
);

create table ops.alert_deliveries (
    consumer text not null references ops.alert_consumers (consumer) on delete cascade,
    alert_id bigint not null references ops.alerts (alert_id) on delete cascade,
    severity text not null,
    attempts integer not null default 1,
    claimed_at timestamptz not null default clock_timestamp(),
    delivered_at timestamptz,
    error text,
    primary key (consumer, alert_id)
);
create index alert_deliveries_alert_idx on ops.alert_deliveries (alert_id);

-- One NOTIFY for all that a transaction raised: sending takes a lock of the whole server at commit.
-- (A constraint trigger cannot be replaced, so it is here and not in sql/.)
create function ops._announce_alerts() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_batch text := pg_current_xact_id()::text;
begin
    if current_setting('alphaplus.alerts_announced', true) = v_batch then
        return null;
    end if;
    perform set_config('alphaplus.alerts_announced', v_batch, true);
    perform pg_notify('alphaplus_alerts', (
        select jsonb_build_object(
            'count', count(*),
            'severity', (array['info', 'low', 'medium', 'high', 'critical'])[max(
                array_position(array['info', 'low', 'medium', 'high', 'critical'], a.severity)
            )],
            'kinds', jsonb_agg(distinct a.kind),
            'alert_ids', (jsonb_agg(a.alert_id order by a.alert_id)) - 100
        )::text
        from (
            select * from ops.alerts x
            where x.batch = v_batch::xid8 and not x.muted
            order by x.alert_id
            limit 100
        ) a
        having count(*) > 0
    ));
    return null;
end
$$;
create constraint trigger announce_alerts after insert or update of batch on ops.alerts
deferrable initially deferred for each row execute function ops._announce_alerts();

comment on table ops.alerts is
'The outbox of alerts: one row per thing that needs somebody, however often it is noticed while open.';
comment on column ops.alerts.alert_id is 'Number of the alert.';
comment on column ops.alerts.ts is 'The time that the alert is about, when it was first raised.';
comment on column ops.alerts.known_at is 'When it was first raised.';
comment on column ops.alerts.dedup_key is 'What makes two alerts the same; one open alert per key.';
comment on column ops.alerts.kind is 'Who raised it: drift, performance, lifecycle, training, or the name of a rule''s kind.';
comment on column ops.alerts.severity is 'info, low, medium, high or critical; the highest it reached while open.';
comment on column ops.alerts.symbol is 'The instrument concerned; null: none or all.';
comment on column ops.alerts.model is 'The model concerned; null: none.';
comment on column ops.alerts.message is 'One sentence for people, as of the last time it was raised.';
comment on column ops.alerts.payload is 'Facts for programs, as of the last time it was raised.';
comment on column ops.alerts.occurrences is 'How often it was raised while open.';
comment on column ops.alerts.last_ts is 'The time that it was last about.';
comment on column ops.alerts.last_known_at is 'When it was last raised.';
comment on column ops.alerts.muted is 'A mute (ops.alert_mutes) held when it was raised: written down, delivered to nobody.';
comment on column ops.alerts.raised_by is 'The role that raised it.';
comment on column ops.alerts.acknowledged_at is 'When somebody said that he has seen it.';
comment on column ops.alerts.acknowledged_by is 'Who has seen it.';
comment on column ops.alerts.assigned_to is 'Who looks after it.';
comment on column ops.alerts.resolved_at is 'When it was closed; the next one of its key is a new row.';
comment on column ops.alerts.note is 'What was said when it was acknowledged, assigned or resolved.';
comment on column ops.alerts.batch is 'The transaction that last raised it for delivery; its NOTIFY names all of one batch.';
comment on table ops.alert_mutes is 'Alerts that are written down but delivered to nobody for a while.';
comment on column ops.alert_mutes.mute_id is 'Number of the mute.';
comment on column ops.alert_mutes.pattern is 'LIKE pattern of dedup keys.';
comment on column ops.alert_mutes.until is 'Until when it holds.';
comment on column ops.alert_mutes.reason is 'Why.';
comment on column ops.alert_mutes.muted_by is 'Who muted.';
comment on column ops.alert_mutes.created_at is 'When it was made.';
comment on table ops.alert_consumers is 'Who delivers alerts: each gets every alert at least once.';
comment on column ops.alert_consumers.consumer is 'Name of the consumer.';
comment on column ops.alert_consumers.since is 'It gets alerts raised from then on.';
comment on column ops.alert_consumers.kinds is 'Only these kinds; null: all.';
comment on column ops.alert_consumers.min_severity is 'Only alerts at least as severe.';
comment on table ops.alert_deliveries is 'Which consumer has which alert: claimed, then delivered or failed.';
comment on column ops.alert_deliveries.consumer is 'The consumer.';
comment on column ops.alert_deliveries.alert_id is 'The alert.';
comment on column ops.alert_deliveries.severity is 'Its severity when it was claimed; a higher one later is delivered again.';
comment on column ops.alert_deliveries.attempts is 'How often it was claimed.';
comment on column ops.alert_deliveries.claimed_at is 'When it was last claimed.';
comment on column ops.alert_deliveries.delivered_at is 'When its delivery was confirmed; null: not yet.';
comment on column ops.alert_deliveries.error is 'Why the last attempt failed.';
