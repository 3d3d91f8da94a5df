-- The roles of AlphaPlus; repeatable. `make up` gives each a generated password (.server/pgpass).
-- None may create databases or roles; what each may do is in sql/privileges.sql.
do $$
declare
    v_role text;
begin
    foreach v_role in array array[
        'alphaplus_owner', 'alphaplus_loader', 'alphaplus_trainer',
        'alphaplus_app', 'alphaplus_reader', 'alphaplus_operator'
    ] loop
        if not exists (select from pg_catalog.pg_roles r where r.rolname = v_role) then
            execute format(
                'create role %I login nosuperuser nocreatedb nocreaterole noreplication', v_role
            );
        end if;
    end loop;
end
$$;
-- Whose rights users' SELECTs run with: those to read the rows of a moment (sql/market/now.sql) and
-- nothing else. Nobody logs in as it.
do $$
begin
    if not exists (select from pg_catalog.pg_roles r where r.rolname = 'alphaplus_select') then
        create role alphaplus_select nologin nosuperuser nocreatedb nocreaterole noreplication;
    end if;
end
$$;
revoke alphaplus_reader from alphaplus_select;
comment on role alphaplus_select is
'Owns the functions that run users'' SELECTs; reads rows as known at the moment asked for, and no table.';
comment on role alphaplus_owner is 'Owns every object of AlphaPlus; migrations run as it.';
comment on role alphaplus_loader is 'Loads market data.';
comment on role alphaplus_trainer is 'Claims training jobs and reports versions; cannot promote.';
comment on role alphaplus_app is 'Predicts and records predictions.';
comment on role alphaplus_reader is 'Reads what business intelligence needs.';
comment on role alphaplus_operator is 'Retrains, promotes, rolls back, schedules.';
-- Vectors are stored by a binary COPY from a backend's own memory, which to PostgreSQL is a file. The
-- role that may read files owns one function, feature._copy_vectors; nobody logs in as it.
do $$
begin
    if not exists (select from pg_catalog.pg_roles r where r.rolname = 'alphaplus_copy') then
        create role alphaplus_copy nologin nosuperuser nocreatedb nocreaterole noreplication;
    end if;
end
$$;
comment on role alphaplus_copy is 'Owns the function that copies vectors from a backend''s memory.';
grant pg_read_server_files to alphaplus_copy;
revoke pg_read_server_files from alphaplus_owner;
-- To tell a run that is still going from one that broke off, by its backend.
grant pg_read_all_stats to alphaplus_owner, alphaplus_operator;
-- Connections kept free for who has to look when all others are taken (reserved_connections).
grant pg_use_reserved_connections to alphaplus_operator;
-- How long a statement may take and a transaction lie idle, by role; an administrator's own stay. Who
-- loads, trains and operates has work that takes long, and no limit.
do $$
declare
    v_default record;
begin
    for v_default in
        select d.*
        from (
            values
            ('alphaplus_reader', 'statement_timeout', '15min'),
            ('alphaplus_reader', 'idle_in_transaction_session_timeout', '10min'),
            ('alphaplus_app', 'statement_timeout', '5min'),
            ('alphaplus_app', 'idle_in_transaction_session_timeout', '5min')
        ) as d (role, name, value)
        where not exists (
            select
            from pg_catalog.pg_db_role_setting s
            cross join lateral pg_catalog.unnest(s.setconfig) as c (setting)
            where s.setdatabase = 0 and s.setrole = d.role::pg_catalog.regrole
                and c.setting like d.name || '=%'
        )
    loop
        execute format('alter role %I set %I = %L', v_default.role, v_default.name, v_default.value);
    end loop;
end
$$;
