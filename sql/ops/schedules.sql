-- ops.schedules and pg_cron: the table is what counts, pg_cron's jobs follow it.

create or replace function ops._has_cron()
returns boolean
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select exists (select from pg_extension e where e.extname = 'pg_cron')
$$;
comment on function ops._has_cron() is 'Whether pg_cron works in this database.';

-- pg_cron runs a job as whoever scheduled it: so each role schedules its own, a superuser all.
create or replace function ops._sync_own_schedules()
returns integer
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_super constant boolean := (select r.rolsuper from pg_roles r where r.rolname = current_user);
    v_item record;
    v_count integer := 0;
begin
    for v_item in select * from ops.schedules s order by s.name loop
        perform ops.cron_last_due(v_item.cron, clock_timestamp());
    end loop;
    if not ops._has_cron() then
        return 0;
    end if;
    -- pg_cron's tables are there only in its own database, hence EXECUTE.
    for v_item in execute $query$
        select j.jobid
        from cron.job j
        where j.jobname like 'alphaplus %' and j.database = current_database()
            and (j.username = current_user or $1)
            and not exists (
                select from ops.schedules s
                where 'alphaplus ' || s.name = j.jobname and s.enabled and s.run_as = j.username
            )
    $query$ using v_super
    loop
        execute 'select cron.unschedule($1::bigint)' using v_item.jobid;
    end loop;
    for v_item in
        select * from ops.schedules s
        where s.enabled and (s.run_as = current_user or v_super)
        order by s.name
    loop
        if v_item.run_as = current_user then
            execute 'select cron.schedule($1, $2, $3)'
            using 'alphaplus ' || v_item.name, v_item.cron, format('call ops.run(%L)', v_item.name);
        else
            execute 'select cron.schedule_in_database($1, $2, $3, $4, $5)'
            using 'alphaplus ' || v_item.name, v_item.cron, format('call ops.run(%L)', v_item.name),
                current_database()::text, v_item.run_as::text;
        end if;
        v_count := v_count + 1;
    end loop;
    return v_count;
end
$$;
comment on function ops._sync_own_schedules() is
'Makes pg_cron''s jobs of the calling role what ops.schedules says; a superuser''s call does all.';

create or replace function ops.sync_schedules()
returns integer
language plpgsql volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return ops._sync_own_schedules();
end
$$;
comment on function ops.sync_schedules() is
'Makes pg_cron''s jobs what ops.schedules says: one "call ops.run(name)" per enabled schedule, none
for the others: of those that run as alphaplus_owner; each role''s own follow when it changes them.
Answers how many there are; 0 where pg_cron is not in this database, and something
else has to call ops.tick() once a minute. Runs by itself when ops.schedules changes. Errors: AP703
no cron expression.';

create or replace function ops.cron_jobs()
returns table (schedule text, cron text, active boolean)
language plpgsql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if ops._has_cron() then
        return query execute $query$
            select substr(j.jobname, 11), j.schedule, j.active
            from cron.job j
            where j.jobname like 'alphaplus %' and j.database = current_database()
        $query$;
    end if;
end
$$;
comment on function ops.cron_jobs() is 'The schedules that pg_cron knows of; none where it is not here.';

create or replace procedure ops.schedule_retraining(
    model text, symbol text default null, cron text default null
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbol text := case when symbol is not null then market.resolve(symbol) end;
    v_name text;
    v_cron text := cron;
begin
    if not exists (select from ml.models m where m.model = schedule_retraining.model) then
        raise exception 'unknown model %', coalesce(quote_literal(model), 'null')
        using errcode = 'AP302', hint = 'select model from ml.models';
    end if;
    if v_cron is null then
        -- From 02:00 on, an hour per symbol, the models within it one after the other.
        select format('%s %s * * *',
            ((row_number() over (order by m.model) - 1) * 5 % 60)::integer,
            (2 + coalesce((select count(*) from market.instruments i where i.symbol < v_symbol), 0)) % 24)
        into v_cron
        from ml.models m
        order by m.model = schedule_retraining.model desc
        limit 1;
    end if;
    v_name := 'retrain:' || model || coalesce(':' || v_symbol, '');
    insert into ops.schedules (name, cron, command, expected_interval, description)
    values (
        v_name, v_cron, format('call ml.retrain(%L, %s)', model, coalesce(quote_literal(v_symbol), 'null')),
        coalesce(ops.cron_interval(v_cron), interval '1 year'), format('Asks for a new version of %s for %s.', model, coalesce(v_symbol, 'all symbols'))
    )
    on conflict on constraint schedules_pkey do update
    set cron = excluded.cron, enabled = true,
        updated_at = clock_timestamp(), updated_by = session_user;
end
$$;
comment on procedure ops.schedule_retraining(text, text, text) is
'Retrains a model for a symbol (null: pooled) every day, at times staggered over symbols and models
from 02:00 UTC on, or at those of a cron expression. A row of ops.schedules is the result: disable
it with update ops.schedules set enabled = false. Errors: AP302 unknown model, AP101/AP102 symbol,
AP703 no cron expression.';
