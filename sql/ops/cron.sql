-- Cron expressions, for schedulers other than pg_cron and for telling when a schedule is due.

create or replace function ops._cron_field(field text, low integer, high integer)
returns integer []
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_part text;
    v_match text [];
    v_from integer;
    v_to integer;
    v_values integer [] := array[]::integer [];
begin
    foreach v_part in array string_to_array(coalesce(field, ''), ',') loop
        v_match := regexp_match(v_part, '^(?:(\*)|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,2}))?$');
        v_from := coalesce(v_match[2]::integer, low);
        v_to := case
            when v_match[1] is not null then high
            when v_match[3] is not null then v_match[3]::integer
            when v_match[4] is not null then high
            else v_from
        end;
        if v_match is null or v_from < low or v_to > high or v_from > v_to or v_match[4] = '0' then
            return null;
        end if;
        v_values := v_values || array(
            select g from generate_series(v_from, v_to, coalesce(v_match[4]::integer, 1)) as g
        );
    end loop;
    return v_values;
end
$$;
comment on function ops._cron_field(text, integer, integer) is
'The numbers that one field of a cron expression stands for; null where it is no such field.';

create or replace function ops.cron_last_due(cron text, at timestamptz)
returns timestamptz
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_fields text [] := regexp_split_to_array(btrim(cron), '\s+');
    v_minutes integer [] := ops._cron_field(v_fields[1], 0, 59);
    v_hours integer [] := ops._cron_field(v_fields[2], 0, 23);
    v_days integer [] := ops._cron_field(v_fields[3], 1, 31);
    v_months integer [] := ops._cron_field(v_fields[4], 1, 12);
    v_weekdays integer [] := ops._cron_field(v_fields[5], 0, 7);
    v_at timestamp := at at time zone 'UTC';
    v_day timestamp;
    v_due timestamp;
    v_on_day boolean;
    v_on_weekday boolean;
begin
    if cardinality(v_fields) is distinct from 5
        or v_minutes is null or v_hours is null or v_days is null
        or v_months is null or v_weekdays is null then
        raise exception 'no cron expression: %', coalesce(quote_literal(cron), 'null')
        using errcode = 'AP703',
            detail = 'Five fields: minute, hour, day of month, month, day of week (0 or 7: Sunday).',
            hint = 'For instance ''*/5 * * * *'' (every five minutes) or ''0 2 * * *'' (02:00 UTC).';
    end if;
    if ops._micros(at) is null then
        return null;
    end if;
    for v_back in 0 .. 366 loop
        v_day := date_trunc('day', v_at) - make_interval(days => v_back);
        v_on_day := date_part('day', v_day)::integer = any (v_days);
        v_on_weekday := date_part('dow', v_day)::integer = any (v_weekdays)
            or date_part('isodow', v_day)::integer = any (v_weekdays);
        -- As in every cron: where both days are restricted, either will do.
        if date_part('month', v_day)::integer = any (v_months)
            and (case
                when v_fields[3] like '*%' or v_fields[5] like '*%' then v_on_day and v_on_weekday
                else v_on_day or v_on_weekday
            end) then
            select max(v_day + make_interval(hours => h, mins => m)) into v_due
            from unnest(v_hours) as h, unnest(v_minutes) as m
            where v_day + make_interval(hours => h, mins => m) <= v_at;
            if v_due is not null then
                return v_due at time zone 'UTC';
            end if;
        end if;
    end loop;
    return null;
end
$$;
comment on function ops.cron_last_due(text, timestamptz) is
'The last minute not after at (UTC) at which a five-field cron expression was due; null where there
was none within a year. Fields: *, numbers, ranges, lists and steps. Errors: AP703 no such expression.';

create or replace function ops.cron_interval(cron text)
returns interval
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_due timestamptz := ops.cron_last_due(cron, timestamptz '2026-12-31 23:59:00+00');
    v_before timestamptz;
    v_longest interval;
begin
    for v_back in 1 .. 200 loop
        v_before := ops.cron_last_due(cron, v_due - interval '1 minute');
        exit when v_before is null;
        v_longest := greatest(v_longest, v_due - v_before);
        v_due := v_before;
    end loop;
    return justify_hours(v_longest);
end
$$;
comment on function ops.cron_interval(text) is
'The longest time between two of the last 200 minutes at which a five-field cron expression was due;
null where it is due less than twice in a year. Errors: AP703 no such expression.';

create or replace function ops.cron_next_due(cron text, after timestamptz)
returns timestamptz
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_due timestamptz;
    v_before timestamptz;
    v_step interval;
begin
    perform ops.cron_last_due(cron, timestamptz '2000-01-01 00:00:00+00');
    if ops._micros(after) is null then
        return null;
    end if;
    foreach v_step in array array[interval '1 hour', '1 day', '8 days', '32 days', '366 days'] loop
        v_due := ops.cron_last_due(cron, after + v_step);
        exit when v_due > after;
    end loop;
    if v_due is null or v_due <= after then
        return null;
    end if;
    loop
        v_before := ops.cron_last_due(cron, v_due - interval '1 minute');
        exit when v_before is null or v_before <= after;
        v_due := v_before;
    end loop;
    return v_due;
end
$$;
comment on function ops.cron_next_due(text, timestamptz) is
'The first minute after a time (UTC) at which a five-field cron expression is due; null where there is
none within a year. Errors: AP703 no such expression.';
