-- Who owns what and who may do what; applied last, whole, every time. The rule is by kind, so that
-- a new function, view or table gets sensible rights without a line here:
--
-- * everything belongs to alphaplus_owner, nothing is granted to public;
-- * reader, app and operator read all tables and views, but no artifact and no half-made one;
-- * functions that read (STABLE, IMMUTABLE) may be called by those who read. Helpers (leading
--   underscore) with the owner's rights by nobody; those with the caller's rights by the operator and
--   the loader, and by reader and app only where a function or view that these may use comes to them:
--   by its text, or through PL/Python, whose calls are listed below;
-- * functions that write and procedures belong to the operator, less helpers that run with the
--   owner's rights;
-- * nobody inserts, updates or deletes but in the tables listed below, each with the role that
--   fills it by hand. A new table gets nothing: procedures and functions that are SECURITY DEFINER
--   write it with the owner's rights. Where something that commits, and so runs with the caller's
--   rights, has to write a table, list it here and in tests/db/ops/test_privileges.py;
-- * a table that holds text which somebody executes (SQL, a name of a function) is never listed for
--   a role that may do less than the one who executes it;
-- * what else the loader, the trainer and the app may do is listed by name.
--
-- The trainer has no right on any table but Optuna's; its doors are the functions
-- listed. No login role may create anything but temporary tables: what a role could create, whoever
-- restores a backup would run.
do $$
declare
    v_schemas constant text [] := array[
        'ops', 'market', 'feature', 'regime', 'ml', 'drift', 'sentiment', 'analytics', 'backtest', 'bi',
        'research'
    ];
    v_roles constant text := 'alphaplus_loader, alphaplus_trainer, alphaplus_app, alphaplus_reader, alphaplus_operator';
    v_readers constant text := 'alphaplus_app, alphaplus_reader, alphaplus_operator';
    -- What the trainer may call.
    v_trainer constant text [] := array[
        'ml._trainer_start', 'ml._trainer_beat', 'ml._trainer_stop', 'ml._next_job', 'ml._job_progress', 'ml._job_matrix', 'ml._job_folds',
        'ml._save_checkpoint', 'ml._load_checkpoint', 'ml._job_span',
        'ml._finish_job', 'ml._fail_job', 'ml._requeue_stalled',
        'sentiment._job_texts'
    ];
    -- Writing functions that the app may call.
    v_app constant text [] := array[
        'ml.record_prediction', 'ml.warm', 'ml.latest'
    ];
    -- Helpers with the owner's rights inside procedures that commit, and so run with the caller's.
    v_operator constant text [] := array[
        'feature._store', 'feature._store_at', 'feature._store_many', 'feature._pack', 'feature._note_error',
        'regime._refresh_batch',
        'ops._note_that_it_commits', 'ml._store_live', 'sentiment._score_batch',
        'analytics._refresh_snapshot', 'analytics._refresh_states'
    ];
    -- Functions that run with the rights of a role made for them alone, which nobody logs in as: an
    -- owner may drop and alter. Users' SELECTs, and the COPY of vectors from memory.
    v_apart constant jsonb := '{
        "feature._set_rows": "alphaplus_select", "feature._set_columns": "alphaplus_select",
        "ml._label_select": "alphaplus_select",
        "feature._copy_vectors": "alphaplus_copy",
        "regime._copy_blocks": "alphaplus_copy"
    }';
    -- Schemas whose tables the loader fills, and what it may call there.
    v_loaded constant text [] := array['market', 'sentiment'];
    v_loader constant text [] := array[
        'market.refresh_aggregates', 'market.refresh_aggregate', 'market._refresh',
        'market.set_instrument', 'market.add_event',
        'market.forget_simulation'
    ];
    -- Tables in which the loader and the operator insert, update and delete. Only data, no text that is
    -- executed: market.aggregates, feature.sets and feature.definitions are the code's.
    v_rows constant text [] := array[
        'market.candles', 'market.trades', 'market.order_book_snapshots',
        'market.liquidation_events', 'market.funding_rates', 'market.open_interest',
        'market.instruments', 'market.loads', 'market.quarantine', 'market.sequence_gaps',
        'market.simulation_runs', 'market.simulation_truth', 'market.contract_rules',
        'sentiment.texts', 'sentiment.labelled_texts', 'sentiment.asset_names',
        'market.trade_spans', 'market.corporate_actions',
        'market.streams', 'market.gaps'
    ];
    -- … and the operator alone: what the procedures of the clock store, and configuration.
    v_configured constant text [] := array[
        'feature.vectors', 'feature.vector_blocks', 'feature.watermarks', 'feature.pending',
        'regime.mappings', 'regime.thresholds', 'regime.classifiers',
        'sentiment.blend_weights', 'ops.settings', 'ml.labels', 'ml.models', 'ml.gates', 'ml.risk_levels',
        'ml.regime_weight_presets',
        'ml.retraining_policies', 'ml.traffic', 'drift.thresholds',
        'ops.retention'
    ];
    -- Helpers that reading functions call from PL/Python, where the catalogue does not see it (a test
    -- looks there).
    v_python constant text [] := array[
        'feature._bars', 'feature._bars_live', 'feature._bars_of_many', 'feature._blocks', 'feature._blocks_within',
        'feature._book', 'feature._book_live', 'feature._bytes', 'feature._candles_1m_plain',
        'feature._candles_plain', 'feature._covered', 'feature._declared',
        'feature._first_stored', 'feature._funding', 'feature._funding_live', 'feature._liquidation_cover',
        'feature._liquidation_cover_live', 'feature._liquidations', 'feature._liquidations_live',
        'feature._longer_loaded', 'feature._no_trades', 'feature._open_interest',
        'feature._open_interest_live', 'feature._packed', 'feature._set_calls', 'feature._set_declared', 'feature._set_joined',
        'feature._set_tables', 'feature._source_columns', 'feature._sources_known', 'feature._stored_many', 'feature._stored_rows', 'feature._technical_declared',
        'feature._top_rows', 'feature._top_rows_live', 'feature._trade_rows', 'feature._trade_rows_live',
        'feature._valid_rows', 'feature._valid_rows_of_many', 'feature._bits', 'ml._external', 'ml._kept',
        'ml._version_spec', 'regime._artifact', 'regime._at', 'regime._bars', 'regime._classifier',
        'regime._simulated', 'regime._thresholds_of', 'regime._us', 'regime._width', 'sentiment._assets_state',
        'sentiment._champion', 'sentiment._score_rows', 'feature._as_of_newest', 'feature._as_of_sql', 'ml._ensemble_setup',
        'ml._training_spec', 'ops._at', 'ops._length', 'ops._micros', 'analytics._state_sums',
        'market._first', 'ops._failure', 'ops._failed'
    ];
    v_schema text;
    v_item record;
    v_list text;
    v_columns text;
begin
    execute format('grant connect, temporary on database %I to %s, alphaplus_owner', current_database(), v_roles);
    execute format('grant usage on schema public to %s', v_roles);

    -- Ownership. Chunks follow their hypertables; sequences of identity columns their tables.
    for v_item in
        select n.nspname, c.relname, c.relkind, c.oid
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname = any (v_schemas || array['procrastinate'])
            and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')
            and c.relowner <> 'alphaplus_owner'::regrole
            and not exists (
                select from pg_catalog.pg_depend d
                where d.objid = c.oid and d.deptype in ('i', 'a', 'e') and c.relkind = 'S'
            )
    loop
        execute format(
            'alter %s %I.%I owner to alphaplus_owner',
            case v_item.relkind when 'v' then 'view' when 'm' then 'materialized view'
                when 'S' then 'sequence' else 'table' end,
            v_item.nspname, v_item.relname
        );
    end loop;
    for v_item in
        select p.oid::regprocedure::text as identity
        from pg_catalog.pg_proc p
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname = any (v_schemas || array['procrastinate'])
            and p.proowner <> 'alphaplus_owner'::regrole
            and not v_apart ? (n.nspname || '.' || p.proname)
    loop
        execute format('alter routine %s owner to alphaplus_owner', v_item.identity);
    end loop;
    for v_item in
        select p.oid::regprocedure::text as identity, v_apart ->> (n.nspname || '.' || p.proname) as role
        from pg_catalog.pg_proc p
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where v_apart ? (n.nspname || '.' || p.proname)
    loop
        execute format('alter routine %s owner to %I', v_item.identity, v_item.role);
    end loop;
    for v_item in
        select n.nspname, t.typname, t.typtype
        from pg_catalog.pg_type t
        join pg_catalog.pg_namespace n on n.oid = t.typnamespace
        where n.nspname = any (v_schemas || array['procrastinate'])
            and t.typowner <> 'alphaplus_owner'::regrole
            and t.typtype in ('e', 'd', 'r', 'c')
            and (t.typrelid = 0 or (select c.relkind = 'c' from pg_catalog.pg_class c where c.oid = t.typrelid))
    loop
        execute format('alter type %I.%I owner to alphaplus_owner', v_item.nspname, v_item.typname);
    end loop;

    -- Nobody has anything …
    foreach v_schema in array v_schemas || array['procrastinate'] loop
        execute format('alter schema %I owner to alphaplus_owner', v_schema);
        execute format('revoke all on schema %I from public, %s', v_schema, v_roles);
        execute format('revoke all on all tables in schema %I from public, %s', v_schema, v_roles);
        execute format('revoke all on all sequences in schema %I from public, %s', v_schema, v_roles);
        execute format('revoke all on all routines in schema %I from public, %s', v_schema, v_roles);
        execute format(
            'alter default privileges for role alphaplus_owner in schema %I revoke all on tables from public',
            v_schema
        );
    end loop;
    execute 'alter default privileges for role alphaplus_owner revoke execute on routines from public';
    execute 'alter default privileges for role alphaplus_owner revoke usage on types from public';

    -- … but may look around …
    foreach v_schema in array v_schemas loop
        execute format('grant usage on schema %I to %s, alphaplus_loader', v_schema, v_readers);
        execute format('grant select on all tables in schema %I to %s', v_schema, v_readers);
    end loop;
    -- (a right on the table covers all its columns, so it goes before the columns are given)
    execute format('revoke select on ml.model_versions, ml.training_checkpoints, sentiment.author_keys from %s', v_readers);
    select string_agg(format('%I', a.attname), ', ' order by a.attnum)
    into v_columns
    from pg_catalog.pg_attribute a
    where a.attrelid = 'ml.model_versions'::regclass
        and a.attnum > 0 and not a.attisdropped and a.attname <> 'artifact';
    execute format('grant select (%s) on ml.model_versions to %s', v_columns, v_readers);

    -- … call what reads …
    select string_agg(p.oid::regprocedure::text, ', ')
    into v_list
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = any (v_schemas)
        and p.prokind in ('f', 'a', 'w')
        and p.prorettype <> 'trigger'::regtype
        and p.provolatile <> 'v'
        and not (p.prosecdef and p.proname like '\_%');
    if v_list is not null then
        execute format('grant execute on routine %s to alphaplus_operator, alphaplus_loader', v_list);
    end if;
    with recursive code as (
        select
            p.oid, n.nspname || '.' || p.proname as name,
            p.proname like '\_%' as helper,
            p.provolatile <> 'v' and not p.prosecdef as plain,
            p.provolatile <> 'v' and not (p.prosecdef and p.proname like '\_%') as reads,
            concat(
                pg_catalog.pg_get_function_arguments(p.oid),
                coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc)
            ) as body
        from pg_catalog.pg_proc p
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname = any (v_schemas) and p.prokind in ('f', 'a', 'w')
            and p.prorettype <> 'trigger'::regtype
    ),
    calls as (
        select c.oid, c.helper, c.plain, m.found[1] as called
        from code c, regexp_matches(c.body, '\m([a-z]+\._[a-z0-9_]+)', 'g') m (found)
    ),
    needed as (
        select w.called as name
        from (
            select k.called from calls k where k.plain and not k.helper
            union all
            select m.found[1]
            from pg_catalog.pg_class c
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace,
                regexp_matches(pg_catalog.pg_get_viewdef(c.oid), '\m([a-z]+\._[a-z0-9_]+)', 'g') m (found)
            where n.nspname = any (v_schemas) and c.relkind = 'v'
            union all
            select unnest(v_python)
        ) w
        union
        select k.called
        from needed d
        join code c on c.name = d.name and c.plain
        join calls k on k.oid = c.oid
    )
    select string_agg(c.oid::regprocedure::text, ', ')
    into v_list
    from code c
    where c.reads and (not c.helper or c.name in (select d.name from needed d));
    if v_list is not null then
        execute format('grant execute on routine %s to alphaplus_reader, alphaplus_app', v_list);
    end if;

    -- … and the operator what changes things: all procedures and writing functions but definer's
    -- helpers, and the rows that the procedures of the clock write with the caller's rights.
    select string_agg(p.oid::regprocedure::text, ', ')
    into v_list
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = any (v_schemas)
        and (p.prokind = 'p' or p.provolatile = 'v')
        and p.prorettype is distinct from 'trigger'::regtype
        and p.prorettype is distinct from 'event_trigger'::regtype
        and not (p.prosecdef and p.proname like '\_%');
    if v_list is not null then
        execute format('grant execute on routine %s to alphaplus_operator', v_list);
    end if;
    for v_item in
        select n.nspname, c.relname, case
            when n.nspname || '.' || c.relname = any (v_configured) then 'alphaplus_operator'
            else 'alphaplus_operator, alphaplus_loader'
        end as grantees
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p') and (
            n.nspname || '.' || c.relname = any (v_rows || v_configured)
            -- What market.refresh_aggregates keeps: buckets, and which of them changed.
            or n.nspname = 'market' and (c.relname = 'dirty_buckets' or c.relname ~ '^_[a-z0-9_]+_rows$')
        )
    loop
        execute format(
            'grant select, insert, update, delete on %I.%I to %s',
            v_item.nspname, v_item.relname, v_item.grantees
        );
    end loop;

    -- Tables of users' own hold data, and no text that is executed.
    for v_item in
        select c.oid from pg_catalog.pg_class c
        where c.relnamespace = 'research'::regnamespace and c.relkind in ('r', 'p')
    loop
        perform feature._grant_research(v_item.oid);
    end loop;

    -- Taking turns, of procedures that commit and so run with the caller's rights.
    grant execute on function ops._lock, ops._try_lock, ops._hold, ops._let_go, ops._holder
    to alphaplus_operator, alphaplus_loader;

    -- Schedules: whoever writes a command is whom it runs as, so nobody changes another's.
    grant delete,
    insert (name, cron, command, expected_interval, commits, enabled, description, updated_at, updated_by),
    update (cron, expected_interval, enabled, description, updated_at, updated_by)
    on ops.schedules to alphaplus_operator;

    -- Training schedules are written by ops.set_training_schedule, which checks them (one that is no
    -- cron expression would stop the others); removed by hand.
    grant delete on ops.training_schedules to alphaplus_operator;

    -- Users' SELECTs: the rows of a moment, and the functions of PostgreSQL and its extensions.
    grant usage on schema public, market, feature to alphaplus_select;
    grant execute on function feature.safe_div, feature.safe_ln, feature.zscore, feature.ewma, feature.quantile,
    feature.time_of_day, feature.session_start, feature._zone to alphaplus_select;
    select string_agg(p.oid::regprocedure::text, ', ')
    into v_list
    from pg_catalog.pg_proc p
    where p.pronamespace = 'market'::regnamespace and p.prosecdef and p.proname like '\_%\_now';
    execute format('grant execute on routine %s to alphaplus_select', v_list);

    -- The copier of vectors and of regimes: nothing but that.
    grant usage on schema feature to alphaplus_copy;
    grant insert on feature.vectors to alphaplus_copy;
    grant execute on function feature._copy_vectors to alphaplus_owner;
    grant usage on schema regime to alphaplus_copy;
    grant insert on regime.blocks to alphaplus_copy;
    grant execute on function regime._copy_blocks to alphaplus_owner;

    execute 'grant execute on function feature._set_rows, ml._label_select to alphaplus_owner, ' || v_readers;
    grant execute on function feature._set_columns to alphaplus_owner;

    -- The loader's helpers in its own schemas run with its own rights.
    select string_agg(p.oid::regprocedure::text, ', ')
    into v_list
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = any (v_loaded)
        and p.provolatile = 'v' and not p.prosecdef and p.proname like '\_%'
        and p.prorettype is distinct from 'trigger'::regtype;
    if v_list is not null then
        execute format('grant execute on routine %s to alphaplus_loader', v_list);
    end if;

    -- The operator, the app, the loader and the trainer, by name.
    select string_agg(x.name, ', ' order by x.name) into v_list
    from unnest(v_operator || v_app || v_loader || v_trainer) x (name)
    where not exists (
        select from pg_catalog.pg_proc p
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname || '.' || p.proname = x.name
    );
    if v_list is not null then
        raise exception 'sql/privileges.sql names functions that are not there: %', v_list
        using errcode = 'AP800', hint = 'Take them out of its lists, or define them under sql/.';
    end if;
    for v_item in
        select
            p.oid::regprocedure::text as identity,
            case
                when n.nspname || '.' || p.proname = any (v_operator) then 'alphaplus_operator'
                when n.nspname || '.' || p.proname = any (v_app) then 'alphaplus_app'
                when n.nspname || '.' || p.proname = any (v_loader) then 'alphaplus_loader'
                when n.nspname || '.' || p.proname = any (v_trainer) then 'alphaplus_trainer'
            end as grantee
        from pg_catalog.pg_proc p
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname = any (v_schemas)
            and n.nspname || '.' || p.proname = any (v_operator || v_app || v_loader || v_trainer)
    loop
        execute format('grant execute on routine %s to %s', v_item.identity, v_item.grantee);
    end loop;
    foreach v_schema in array v_loaded loop
        execute format('grant usage on all sequences in schema %I to alphaplus_loader', v_schema);
        execute format('grant select on all tables in schema %I to alphaplus_loader', v_schema);
    end loop;
    -- The loader reads settings and says what it did.
    grant select on ops.settings to alphaplus_loader;

    grant usage on schema ml, sentiment to alphaplus_trainer;

    -- Optuna's tables are the owner's, the rows in them the trainer's.
    revoke all on schema optuna from public, alphaplus_trainer;
    revoke all on all tables in schema optuna from public, alphaplus_trainer;
    grant usage on schema optuna to alphaplus_trainer;
    grant select, insert, update, delete on all tables in schema optuna to alphaplus_trainer;
    grant usage on all sequences in schema optuna to alphaplus_trainer;
end
$$;
