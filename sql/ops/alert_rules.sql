-- Rules that raise alerts: a view, a column, an operator, a threshold. A rule holds names and
-- values, never SQL: it is checked against the catalogue, and each name is quoted.

create or replace function ops._check_alert_rule(rule ops.alert_rules) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_view regclass := to_regclass(rule.view_name);
    v_column text;
    v_type text;
begin
    if v_view is null or not exists (
        select from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        where c.oid = v_view and c.relkind = 'v' and c.relowner = 'alphaplus_owner'::regrole
            and n.nspname in ('ops', 'market', 'feature', 'regime', 'ml', 'drift', 'sentiment', 'analytics', 'backtest', 'bi')
    ) then
        raise exception '% is no view of AlphaPlus', coalesce(quote_literal(rule.view_name), 'null')
        using errcode = 'AP933', hint = 'A rule looks at a view, as analytics.live_feed_gaps; functions and tables cannot be named.';
    end if;
    foreach v_column in array rule.key_columns || rule.column_name
        || array_remove(array[rule.severity_column], null)
        || array(select m[1] from regexp_matches(rule.message, '\{([^{}]*)\}', 'g') m) loop
        if not exists (
            select from pg_attribute a
            where a.attrelid = v_view and a.attnum > 0 and not a.attisdropped and a.attname = v_column
        ) then
            raise exception 'view % has no column %', rule.view_name, coalesce(quote_literal(v_column), 'null')
            using errcode = 'AP934', hint = format('It has %s.', (
                select string_agg(a.attname, ', ' order by a.attnum)
                from pg_attribute a where a.attrelid = v_view and a.attnum > 0 and not a.attisdropped
            ));
        end if;
    end loop;
    select format_type(a.atttypid, a.atttypmod) into v_type
    from pg_attribute a where a.attrelid = v_view and a.attname = rule.column_name;
    begin
        execute format('select %L::%s', rule.threshold, v_type);
    exception when data_exception or undefined_function then
        raise exception '% is no value of %, which is %',
            coalesce(quote_literal(rule.threshold), 'null'), rule.column_name, v_type
        using errcode = 'AP935', hint = 'The threshold is text of the column''s type, as ''3.5''.';
    end;
end
$$;
comment on function ops._check_alert_rule(ops.alert_rules) is 'Raises what is wrong with a rule: AP933, AP934, AP935.';

create or replace function ops.set_alert_rule(
    rule text, view_name text, key_columns text [], column_name text, operator text,
    threshold text, kind text, message text, severity text default null,
    severity_column text default null, cooldown interval default interval '15 minutes',
    channel text default null, resolves boolean default false, enabled boolean default true
)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_rule ops.alert_rules;
begin
    if coalesce(btrim(rule), '') = '' or coalesce(btrim(kind), '') = ''
        or coalesce(btrim(message), '') = '' or coalesce(cardinality(key_columns), 0) = 0
        or operator is null or operator not in ('=', '<>', '<', '<=', '>', '>=')
        or threshold is null or cooldown is null or cooldown < interval '0'
        or severity is null and severity_column is null
        or severity is not null and ops._severity_rank(severity) is null then
        raise exception 'a rule needs a name, key columns, an operator, a threshold, a kind, a message and a severity'
        using errcode = 'AP936',
            hint = 'Operators: =, <>, <, <=, >, >=. Severities: info, low, medium, high, critical.';
    end if;
    v_rule := row(
        rule, view_name, key_columns, column_name, operator, threshold, kind, severity,
        severity_column, message, cooldown, channel, resolves, enabled, false, session_user
    )::ops.alert_rules;
    perform ops._check_alert_rule(v_rule);
    insert into ops.alert_rules values (v_rule.*)
    on conflict on constraint alert_rules_pkey do update
    set view_name = excluded.view_name, key_columns = excluded.key_columns,
        column_name = excluded.column_name, operator = excluded.operator,
        threshold = excluded.threshold, kind = excluded.kind, severity = excluded.severity,
        severity_column = excluded.severity_column, message = excluded.message,
        cooldown = excluded.cooldown, channel = excluded.channel, resolves = excluded.resolves,
        enabled = excluded.enabled, shipped = false, created_by = excluded.created_by;
end
$$;
comment on function ops.set_alert_rule(
    text, text, text [], text, text, text, text, text, text, text, interval, text, boolean, boolean
) is
'Makes or changes a rule: rows of view_name whose column_name stands in the operator to the threshold
raise an alert each (one per value of key_columns), with message, in which {column} is a column''s value,
severity or severity_column, not again within cooldown; resolves: it ends when no row is left. A shipped
rule that is changed is the operator''s from then on. Errors: AP933 no view of AlphaPlus, AP934 no such
column, AP935 the threshold is no value of the column''s type, AP936 a part missing.';

create or replace function ops.enable_alert_rule(rule text, enabled boolean default true)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update ops.alert_rules r set enabled = coalesce(enable_alert_rule.enabled, false)
    where r.rule = enable_alert_rule.rule;
    if not found then
        raise exception 'unknown rule %', coalesce(quote_literal(rule), 'null')
        using errcode = 'AP937', hint = 'select rule from ops.alert_rules';
    end if;
end
$$;
comment on function ops.enable_alert_rule(text, boolean) is
'Switches a rule on or off. Errors: AP937 unknown rule.';

create or replace function ops._check_rule(rule ops.alert_rules, at timestamptz) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_row jsonb;
    v_key text;
    v_keys text [] := array[]::text [];
    v_message text;
    v_column text;
    v_severity text;
    v_last timestamptz;
    v_id bigint;
    v_new boolean;
    v_count integer := 0;
    v_prefix text := 'rule:' || rule.rule || ':';
begin
    perform ops._check_alert_rule(rule);
    for v_row in execute format(
        'select to_jsonb(v) from %s v where v.%I %s %L limit 1000', to_regclass(rule.view_name),
        rule.column_name, rule.operator, rule.threshold
    ) loop
        select v_prefix || string_agg(coalesce(v_row ->> k.name, ''), ':' order by k.place)
        into v_key
        from unnest(rule.key_columns) with ordinality k (name, place);
        v_keys := v_keys || v_key;
        select max(a.last_known_at) into v_last from ops.alerts a where a.dedup_key = v_key;
        continue when v_last > at - rule.cooldown;
        v_message := rule.message;
        for v_column in select m[1] from regexp_matches(rule.message, '\{([^{}]*)\}', 'g') m loop
            v_message := replace(
                v_message, '{' || v_column || '}', coalesce(left(v_row ->> v_column, 200), '?')
            );
        end loop;
        v_severity := coalesce(
            case when ops._severity_rank(v_row ->> rule.severity_column) is not null
                then v_row ->> rule.severity_column end,
            rule.severity, 'medium'
        );
        select r.alert_id, r.is_new into v_id, v_new
        from ops.raise_alert(
            rule.kind, v_severity, v_key, v_message, v_row, at, v_row ->> 'symbol', v_row ->> 'model'
        ) r;
        if rule.channel is not null then
            insert into ops.alert_channels values (v_id, rule.channel)
            on conflict (alert_id) do update set channel = excluded.channel;
        end if;
        v_count := v_count + 1;
    end loop;
    if rule.resolves then
        update ops.alerts a
        set resolved_at = clock_timestamp(), note = coalesce(a.note, 'over')
        where a.resolved_at is null and starts_with(a.dedup_key, v_prefix)
            and a.dedup_key <> all (v_keys);
    end if;
    return v_count;
end
$$;
comment on function ops._check_rule(ops.alert_rules, timestamptz) is 'Raises what a rule finds; how many alerts.';

create or replace function ops.check_alert_rules(at timestamptz default null)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_rule ops.alert_rules;
    v_count integer := 0;
    v_at timestamptz := coalesce(at, clock_timestamp());
begin
    if not pg_try_advisory_xact_lock(hashtextextended('alphaplus.alert_rules', 0)) then
        return 0; -- another is at it
    end if;
    for v_rule in select r.* from ops.alert_rules r where r.enabled order by r.rule loop
        begin
            v_count := v_count + ops._check_rule(v_rule, v_at);
        exception when others then
            perform ops.raise_alert(
                'rule', 'high', 'rule_broken:' || v_rule.rule,
                format('alert rule %s cannot be checked: %s', v_rule.rule, sqlerrm), ts => v_at
            );
        end;
    end loop;
    return v_count;
end
$$;
comment on function ops.check_alert_rules(timestamptz) is
'Checks all enabled rules and raises their alerts, in one transaction and so with one NOTIFY; returns how
many. A rule that cannot be checked raises an alert of its own. For the clock and the dispatcher.';

create or replace procedure ops.check_alerts()
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform ops.check_alert_rules();
end
$$;
comment on procedure ops.check_alerts() is 'ops.check_alert_rules() for the clock.';

create or replace function ops.claim_alerts_of(
    consumer text, channel text default null, most integer default 100,
    lease interval default interval '1 minute'
)
returns setof ops.alerts
language sql volatile security definer rows 100
set search_path = pg_catalog, pg_temp
as $$
    -- Another channel's alerts are none of this consumer's.
    with claimed as materialized (
        select c.* from ops.claim_alerts($1, $3, $4) c
    ),
    others as (
        select k.alert_id
        from claimed k
        join ops.alert_channels x on x.alert_id = k.alert_id
        where x.channel is distinct from $2
    ),
    done as materialized (
        select o.alert_id, ops.confirm_alert($1, o.alert_id) from others o
    )
    select k.*
    from claimed k
    where k.alert_id not in (select d.alert_id from done d)
    order by k.alert_id
$$;
comment on function ops.claim_alerts_of(text, text, integer, interval) is
'ops.claim_alerts for a dispatcher of a channel: alerts whose rule names another channel are left out.
Errors: AP633 unknown consumer.';
