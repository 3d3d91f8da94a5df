-- Alerts: raised by whoever notices, read by whoever delivers, looked after by SQL.

create or replace function ops._severity_rank(severity text)
returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select array_position(array['info', 'low', 'medium', 'high', 'critical'], severity)
$$;
comment on function ops._severity_rank(text) is
'1 for info to 5 for critical; null where it is no severity.';

create or replace function ops.raise_alert(
    kind text,
    severity text,
    dedup_key text,
    message text,
    payload jsonb default '{}',
    ts timestamptz default null,
    symbol text default null,
    model text default null,
    out alert_id bigint,
    out is_new boolean
)
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := clock_timestamp();
    v_ts timestamptz := coalesce(ts, v_now);
    v_rank integer := ops._severity_rank(severity);
    v_muted boolean;
    v_open ops.alerts;
begin
    if coalesce(btrim(kind), '') = '' or coalesce(btrim(dedup_key), '') = ''
        or coalesce(btrim(message), '') = '' then
        raise exception 'an alert needs a kind, a dedup_key and a message'
        using errcode = 'AP630', hint = 'select ops.raise_alert(''data'', ''high'', ''gap:BTCUSDT'', ''no trades since noon'')';
    end if;
    if v_rank is null then
        raise exception 'no severity: %', coalesce(quote_literal(severity), 'null')
        using errcode = 'AP630', hint = 'Severities: info, low, medium, high, critical.';
    end if;
    if not isfinite(v_ts) then
        raise exception 'an alert is about a finite time'
        using errcode = 'AP630', hint = 'Leave ts out for now.';
    end if;
    v_muted := exists (
        select from ops.alert_mutes m
        where m.until > v_now and raise_alert.dedup_key like m.pattern
    );
    insert into ops.alerts as a (
        ts, dedup_key, kind, severity, symbol, model, message, payload, last_ts, muted, known_at,
        last_known_at
    )
    values (
        v_ts, raise_alert.dedup_key, raise_alert.kind, raise_alert.severity, raise_alert.symbol,
        raise_alert.model, left(raise_alert.message, 2000), coalesce(raise_alert.payload, '{}'), v_ts,
        v_muted, v_now, v_now
    )
    on conflict (dedup_key) where resolved_at is null do nothing
    returning a.alert_id into alert_id;
    is_new := found;
    if is_new then
        return;
    end if;
    select * into v_open
    from ops.alerts a
    where a.dedup_key = raise_alert.dedup_key and a.resolved_at is null
    for update;
    if not found then
        -- It was resolved in between.
        select r.alert_id, r.is_new into alert_id, is_new
        from ops.raise_alert(kind, severity, dedup_key, message, payload, ts, symbol, model) r;
        return;
    end if;
    alert_id := v_open.alert_id;
    if v_rank > ops._severity_rank(v_open.severity) then
        -- Worse than it was: said again.
        update ops.alerts a
        set severity = raise_alert.severity, occurrences = a.occurrences + 1,
            message = left(raise_alert.message, 2000), payload = coalesce(raise_alert.payload, '{}'),
            last_ts = greatest(a.last_ts, v_ts), last_known_at = v_now, muted = v_muted,
            acknowledged_at = null, acknowledged_by = null, batch = pg_current_xact_id()
        where a.alert_id = v_open.alert_id;
    else
        update ops.alerts a
        set occurrences = a.occurrences + 1, message = left(raise_alert.message, 2000),
            payload = coalesce(raise_alert.payload, '{}'), last_ts = greatest(a.last_ts, v_ts),
            last_known_at = v_now
        where a.alert_id = v_open.alert_id;
    end if;
end
$$;
comment on function ops.raise_alert(text, text, text, text, jsonb, timestamptz, text, text) is
'Raises an alert: kind, severity (info, low, medium, high, critical), dedup_key (one open alert per
key: raising it again counts it, and raises its severity where it is worse), message for people,
payload for programs, ts: the time it is about (null: now). is_new: no alert of this key was open.
All alerts of one transaction are announced by one NOTIFY on alphaplus_alerts at its commit, with
count, highest severity, kinds and the first 100 numbers as JSON. Errors: AP630 kind, key or message
missing, no such severity, no finite time.';

create or replace function ops._alert(alert_id bigint)
returns ops.alerts
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_alert ops.alerts;
begin
    select * into v_alert from ops.alerts a where a.alert_id = _alert.alert_id for update;
    if not found then
        raise exception 'unknown alert %', coalesce(alert_id::text, 'null')
        using errcode = 'AP631', hint = 'select alert_id, severity, message from ops.open_alerts';
    end if;
    return v_alert;
end
$$;
comment on function ops._alert(bigint) is 'The alert''s row, locked, or AP631.';

create or replace function ops.acknowledge_alert(alert_id bigint, note text default null)
returns void
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform ops._alert(alert_id);
    update ops.alerts a
    set acknowledged_at = clock_timestamp(), acknowledged_by = session_user,
        note = coalesce(acknowledge_alert.note, a.note)
    where a.alert_id = acknowledge_alert.alert_id and a.acknowledged_at is null;
end
$$;
comment on function ops.acknowledge_alert(bigint, text) is
'Says that somebody has seen an alert; it stays open, and an escalation is said again. A second call
changes nothing. Errors: AP631 unknown alert.';

create or replace function ops.assign_alert(alert_id bigint, assigned_to text, note text default null)
returns void
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform ops._alert(alert_id);
    update ops.alerts a
    set assigned_to = assign_alert.assigned_to, note = coalesce(assign_alert.note, a.note)
    where a.alert_id = assign_alert.alert_id;
end
$$;
comment on function ops.assign_alert(bigint, text, text) is
'Gives an alert to somebody (null: to nobody). Errors: AP631 unknown alert.';

create or replace function ops.resolve_alert(alert_id bigint, note text default null)
returns void
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform ops._alert(alert_id);
    update ops.alerts a
    set resolved_at = clock_timestamp(), note = coalesce(resolve_alert.note, a.note)
    where a.alert_id = resolve_alert.alert_id and a.resolved_at is null;
end
$$;
comment on function ops.resolve_alert(bigint, text) is
'Closes an alert: the next one of its key is a new alert. A second call changes nothing. Errors:
AP631 unknown alert.';

create or replace function ops.mute_alerts(pattern text, until timestamptz, reason text)
returns bigint
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id bigint;
begin
    if coalesce(pattern, '') = '' or coalesce(btrim(reason), '') = '' or until is null
        or until <= clock_timestamp() or not isfinite(until) then
        raise exception 'a mute needs a pattern, an end that is to come, and a reason'
        using errcode = 'AP632',
            hint = 'select ops.mute_alerts(''drift:liquidation_5m:%'', now() + interval ''1 day'', ''maintenance'')';
    end if;
    insert into ops.alert_mutes (pattern, until, reason)
    values (mute_alerts.pattern, mute_alerts.until, mute_alerts.reason)
    returning mute_id into v_id;
    return v_id;
end
$$;
comment on function ops.mute_alerts(text, timestamptz, text) is
'Until then, alerts whose dedup_key is like the pattern are written down and delivered to nobody; ends
early with ops.unmute_alerts. Errors: AP632 no pattern, no reason, or no end to come.';

create or replace function ops.unmute_alerts(mute_id bigint)
returns void
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update ops.alert_mutes m
    set until = least(m.until, clock_timestamp())
    where m.mute_id = unmute_alerts.mute_id;
    if not found then
        raise exception 'unknown mute %', coalesce(mute_id::text, 'null')
        using errcode = 'AP632', hint = 'select * from ops.alert_mutes where until > now()';
    end if;
end
$$;
comment on function ops.unmute_alerts(bigint) is 'Ends a mute now. Errors: AP632 unknown mute.';

create or replace function ops.claim_alerts(
    consumer text, most integer default 100, lease interval default interval '1 minute'
)
returns setof ops.alerts
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_consumer ops.alert_consumers;
    v_alert ops.alerts;
begin
    select * into v_consumer
    from ops.alert_consumers c
    where c.consumer = claim_alerts.consumer
    for update;
    if not found then
        raise exception 'unknown consumer %', coalesce(quote_literal(consumer), 'null')
        using errcode = 'AP633', hint = 'select ops.add_alert_consumer(name)';
    end if;
    for v_alert in
        select a.*
        from ops.alerts a
        left join ops.alert_deliveries d
            on d.consumer = claim_alerts.consumer and d.alert_id = a.alert_id
        where a.last_known_at >= v_consumer.since and not a.muted
            and ops._severity_rank(a.severity) >= ops._severity_rank(v_consumer.min_severity)
            and (v_consumer.kinds is null or a.kind = any (v_consumer.kinds))
            and (
                d.alert_id is null
                or ops._severity_rank(a.severity) > ops._severity_rank(d.severity)
                or d.delivered_at is null and d.claimed_at <= clock_timestamp() - lease
            )
        order by a.alert_id
        limit most
    loop
        insert into ops.alert_deliveries as d (consumer, alert_id, severity)
        values (claim_alerts.consumer, v_alert.alert_id, v_alert.severity)
        on conflict on constraint alert_deliveries_pkey do update
        set severity = excluded.severity, attempts = d.attempts + 1,
            claimed_at = clock_timestamp(), delivered_at = null;
        return next v_alert;
    end loop;
end
$$;
comment on function ops.claim_alerts(text, integer, interval) is
'Up to most alerts that a consumer has not confirmed yet, oldest first: new ones, worse ones, and
those it claimed longer than the lease ago without ops.confirm_alert. So each is delivered at least
once, whenever the consumer dies. Two callers of one consumer take turns. Errors: AP633 unknown
consumer.';

create or replace function ops.confirm_alert(consumer text, alert_id bigint, error text default null)
returns void
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update ops.alert_deliveries d
    set delivered_at = case when confirm_alert.error is null then clock_timestamp() end,
        error = left(confirm_alert.error, 2000)
    where d.consumer = confirm_alert.consumer and d.alert_id = confirm_alert.alert_id;
    if not found then
        raise exception 'consumer % has not claimed alert %', coalesce(quote_literal(consumer), 'null'),
            coalesce(alert_id::text, 'null')
        using errcode = 'AP633', hint = 'Claim with: select * from ops.claim_alerts(consumer)';
    end if;
end
$$;
comment on function ops.confirm_alert(text, bigint, text) is
'Says that a claimed alert was delivered, or with error why not: then it is claimed again when its
lease is over. Errors: AP633 not claimed by this consumer.';

create or replace function ops.add_alert_consumer(
    consumer text, kinds text [] default null, min_severity text default 'info',
    since timestamptz default null
)
returns void
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(btrim(consumer), '') = '' or ops._severity_rank(min_severity) is null then
        raise exception 'a consumer needs a name and a severity from which on it is told'
        using errcode = 'AP633', hint = 'Severities: info, low, medium, high, critical.';
    end if;
    insert into ops.alert_consumers as c (consumer, kinds, min_severity, since)
    values (
        add_alert_consumer.consumer, add_alert_consumer.kinds, add_alert_consumer.min_severity,
        coalesce(add_alert_consumer.since, clock_timestamp())
    )
    on conflict on constraint alert_consumers_pkey do update
    set kinds = excluded.kinds, min_severity = excluded.min_severity,
        since = case when add_alert_consumer.since is null then c.since else excluded.since end;
end
$$;
comment on function ops.add_alert_consumer(text, text [], text, timestamptz) is
'Adds somebody who delivers alerts, or changes what he gets: kinds (null: all), from which severity
on, raised since when (null: now, and unchanged where he is known). Errors: AP633 no name, no such
severity.';

create or replace view ops.open_alerts as
select
    a.alert_id,
    a.severity,
    a.kind,
    a.symbol,
    a.model,
    a.message,
    a.ts,
    a.last_ts,
    a.occurrences,
    a.acknowledged_at is not null as acknowledged,
    a.acknowledged_by,
    a.assigned_to,
    a.muted,
    a.dedup_key,
    a.payload
from ops.alerts as a
where a.resolved_at is null
order by ops._severity_rank(a.severity) desc, a.last_known_at desc;
comment on view ops.open_alerts is
'Alerts that are not resolved, worst first; acknowledged ones are among them.';
