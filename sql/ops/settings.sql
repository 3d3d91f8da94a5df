-- Reading and changing settings.
create or replace function ops.setting_text(name text, fallback text) returns text
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select coalesce((select s.value #>> '{}' from ops.settings s where s.name = $1), $2)
$$;
comment on function ops.setting_text(text, text) is 'A setting as text, or the fallback where it is not set.';

create or replace function ops.setting_interval(name text, fallback interval) returns interval
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select coalesce((select (s.value #>> '{}')::interval from ops.settings s where s.name = $1), $2)
$$;
comment on function ops.setting_interval(text, interval) is 'A setting as an interval, or the fallback where it is not set.';
