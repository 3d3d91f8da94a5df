-- Refreshing the aggregates. These procedures commit, so they cannot pin search_path: every name
-- in them is qualified.
--
-- On the Community edition the last ten minutes stay with the tail that is computed when read: what
-- is materialised and changes again has to be materialised again.
create or replace procedure market.refresh_aggregate(name text, batch integer default 20000)
language plpgsql
as $$
declare
    v_native boolean;
    v_source text;
    v_width interval;
    v_definition text;
    v_kept_from timestamptz;
    v_columns text;
    v_symbols text [];
    v_buckets timestamptz [];
begin
    select a.native, a.source::text, a.width, a.definition, nullif(a.kept_from, '-infinity')
    into v_native, v_source, v_width, v_definition, v_kept_from
    from market.aggregates a where a.name = refresh_aggregate.name;
    if not found then
        raise exception 'unknown aggregate %', coalesce(pg_catalog.quote_literal(name), 'null')
        using errcode = 'AP108', hint = 'List them with: select name from market.aggregates';
    end if;
    if v_native then
        -- TimescaleDB lets nobody but the owner refresh, and not from a definer's procedure.
        if not pg_catalog.pg_has_role((
            select c.relowner from pg_catalog.pg_class c
            where c.oid = pg_catalog.format('market.%I', name || '_rows')::pg_catalog.regclass
        ), 'usage') then
            raise notice '% is left to the clock, which runs as its owner', name;
            return;
        end if;
        call public.refresh_continuous_aggregate(
            pg_catalog.format('market.%I', name || '_rows')::pg_catalog.regclass, v_kept_from,
            public.time_bucket(v_width, pg_catalog.now() - interval '10 minutes')
        );
        return;
    end if;
    if pg_catalog.current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'aggregates are refreshed under read committed only'
        using errcode = 'AP103',
        detail = pg_catalog.format(
            'This transaction is %s.', pg_catalog.current_setting('transaction_isolation')
        ),
        hint = 'set default_transaction_isolation = ''read committed''';
    end if;
    select pg_catalog.string_agg(
        case when a.attname in ('symbol', 'bucket') then 'd.' else 'a.' end
        || pg_catalog.quote_ident(a.attname), ', ' order by a.attnum
    ) into v_columns
    from pg_catalog.pg_attribute a
    where a.attrelid = pg_catalog.format('market.%I', name || '_rows')::pg_catalog.regclass
        and a.attnum > 0 and not a.attisdropped;
    loop
        -- One refresher at a time; who comes second leaves the work to the first.
        exit when not ops._try_lock('market:' || name);
        -- A truncation of the source locks the source, then the marks: so do we.
        execute pg_catalog.format('lock table only %s in access share mode', v_source);
        -- A mark commits together with the rows it stands for, and whoever relies on a mark of
        -- another holds its lock until he commits. So all rows of the marks deleted here are
        -- visible to the next statement; a mark not visible yet, or held, is left for later.
        -- In the order in which rows are read: neighbours in time come to lie side by side.
        execute pg_catalog.format(
            'with gone as (delete from market.%1$I where ctid = any(array('
            '    select m.ctid from market.%1$I m limit $1 for update skip locked))'
            ' returning symbol, bucket),'
            ' pairs as (select distinct symbol, bucket from gone)'
            ' select pg_catalog.array_agg(symbol order by symbol, bucket),'
            ' pg_catalog.array_agg(bucket order by symbol, bucket) from pairs',
            name || '_marks'
        ) into v_symbols, v_buckets using batch;
        exit when v_symbols is null;
        execute pg_catalog.format(
            'delete from market.%I r using unnest($1, $2) as d (symbol, bucket)'
            ' where r.symbol = d.symbol and r.bucket = d.bucket', name || '_rows'
        ) using v_symbols, v_buckets;
        execute pg_catalog.format(
            'insert into market.%I select %s from unnest($1, $2) as d (symbol, bucket)'
            ' cross join lateral (%s) a',
            name || '_rows', v_columns, pg_catalog.replace(v_definition, '{range}', pg_catalog.format(
                's.symbol = d.symbol and s.ts >= d.bucket and s.ts < d.bucket + %L::interval', v_width
            ))
        ) using v_symbols, v_buckets;
        commit;
    end loop;
    commit;
end
$$;

comment on procedure market.refresh_aggregate(text, integer) is
'Bring one aggregate (market.aggregates.name) up to date, batch marks at a time; see market.refresh_aggregates. Errors: AP103 the transaction is not read committed, AP108 unknown aggregate.';

create or replace procedure market.refresh_aggregates()
language plpgsql
as $$
declare
    v_names text [];
    v_name text;
begin
    select pg_catalog.array_agg(a.name order by a.name) into v_names from market.aggregates a;
    foreach v_name in array v_names loop
        call market.refresh_aggregate(v_name);
    end loop;
end
$$;
comment on procedure market.refresh_aggregates() is
'Bring every aggregate up to date with what was inserted, corrected or deleted since the last time; only changed buckets are recomputed. Commits as it goes; on the Apache edition a second call while one runs returns at once. Reads are right before it too, only slower: what changed is computed from the rows when it is read. On Community only the owner (so the clock) can refresh: others get a notice. Errors: AP103 the transaction is not read committed.';

-- Reading a stretch of one symbol. What is refreshed comes from an index; the hypertable is only
-- touched, and planned for, where something changed since: the cost of a read does not grow with
-- the number of chunks. The reader is not pinned, so that it is inlined.
create or replace procedure market._make_readers(name text)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    v_aggregate market.aggregates;
    v_changed text;
    v_columns text;
begin
    select a.* into strict v_aggregate from market.aggregates a where a.name = _make_readers.name;
    execute format(
        'comment on view market.%I is %L', name, format(
            'Partial rows of %s in buckets of %s: one per symbol, bucket and usable_at (the minute from which its source rows could be used), to be merged.',
            v_aggregate.source, v_aggregate.width
        )
    );
    execute format(
        'comment on %s market.%I is %L',
        case when v_aggregate.native then 'view' else 'table' end, name || '_rows',
        'Rows of market.' || name || ' as of the last refresh.'
    );
    if v_aggregate.native then
        v_changed := format(
            'from market._stale(%L) m where r.bucket >= m."from" and r.bucket < m."to"', name
        );
        execute format($body$
create or replace function market.%1$I(symbol text, "from" timestamptz, "to" timestamptz)
returns setof market.%2$I
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 10
as $fn$
declare
    v_first timestamptz [];
    v_end timestamptz [];
begin
    select array_agg(greatest(u."from", public.time_bucket(interval %3$L, $2))), array_agg(least(u."to", $3 + interval %3$L))
    into v_first, v_end
    from market._stale(%2$L) u
    where u."from" < $3 and u."to" > $2;
    if v_first is null then
        return;
    end if;
    return query execute format(
        'select a.* from unnest($1, $2) d (first, stop) cross join lateral (%4$s) a'
        ' where a.bucket >= %%2$L and a.bucket < %%3$L',
        $1, $2, $3, (select min(x) from unnest(v_first) x), (select max(x) from unnest(v_end) x)
    ) using v_first, v_end;
end
$fn$
$body$,
            name || '_marked', name, v_aggregate.width,
            replace(
                replace(v_aggregate.definition, '''', ''''''), '{range}',
                's.symbol = %1$L and s.ts >= d.first and s.ts < d.stop'
                ' and s.ts >= %4$L and s.ts < %5$L'
            )
        );
        -- The clock refreshes too, and more often: this is for a server without one. What was
        -- aggregated of rows that were dropped must stay out of its window, which is two buckets or
        -- more. A library of the Apache edition has no policies.
        if current_setting('timescaledb.license', true) = 'timescale'
            and now() - v_aggregate.kept_from > 3 * v_aggregate.width + interval '1 hour'
        then
            perform public.add_continuous_aggregate_policy(
                format('market.%I', name || '_rows')::regclass,
                start_offset => case when v_aggregate.kept_from > '-infinity'
                    then date_trunc('minute', now() - v_aggregate.kept_from) end,
                end_offset => interval '10 minutes', schedule_interval => interval '15 minutes',
                if_not_exists => true
            );
        end if;
    else
        execute format(
            'comment on table market.%I is %L', name || '_marks',
            'Buckets of market.' || name || ' that changed since the last refresh.'
        );
        v_changed := format(
            'from market.%I m where m.symbol = r.symbol and m.bucket = r.bucket', name || '_marks'
        );
        select string_agg('a.' || quote_ident(a.attname), ', ' order by a.attnum) into v_columns
        from pg_attribute a
        where a.attrelid = format('market.%I', name)::regclass and a.attnum > 0;
        execute format($body$
create or replace function market.%1$I(symbol text, "from" timestamptz, "to" timestamptz)
returns setof market.%2$I
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
rows 10
as $fn$
declare
    v_first timestamptz;
    v_last timestamptz;
    v_count bigint;
    v_range text;
begin
    select min(m.bucket), max(m.bucket), count(distinct m.bucket) into v_first, v_last, v_count
    from market.%3$I m
    where m.symbol = $1 and m.bucket >= $2 and m.bucket < $3;
    if v_count = 0 then
        return;
    end if;
    v_range := format(
        's.symbol = %%1$L and s.ts >= %%2$L and s.ts < %%3$L', $1, v_first, v_last + interval %4$L
    );
    -- Few marks far apart are looked up one by one, many in one pass.
    if extract(epoch from v_last - v_first) / extract(epoch from interval %4$L) > 4 * v_count then
        v_range := v_range || ' and s.ts >= d.bucket and s.ts < d.bucket + interval ''%5$s''';
    end if;
    return query execute format(
        'select %6$s from (select distinct m.bucket from market.%3$I m'
        ' where m.symbol = %%1$L and m.bucket >= %%2$L and m.bucket <= %%3$L) d'
        ' join lateral (%7$s) a on a.bucket = d.bucket',
        $1, v_first, v_last, v_range
    );
end
$fn$
$body$,
            name || '_marked', name, name || '_marks', v_aggregate.width, v_aggregate.width,
            v_columns, replace(
                replace(v_aggregate.definition, '''', ''''''), '{range}', '%4$s'
            )
        );
    end if;
    execute format($body$
create or replace function market.%1$I(symbol text, "from" timestamptz, "to" timestamptz)
returns setof market.%2$I
language sql stable parallel safe
as $fn$
    select r.* from market.%3$I r
    where r.symbol = $1 and r.bucket >= $2 and r.bucket < $3 and not exists (select %4$s)
    union all
    select m.* from market.%5$I($1, $2, $3) m
$fn$
$body$,
        name || '_between', name, name || '_rows', v_changed, name || '_marked'
    );
end
$$;

set local role alphaplus_owner;
do $do$
declare
    v_name text;
begin
    for v_name in select a.name from market.aggregates a order by a.name loop
        call market._make_readers(v_name);
    end loop;
end
$do$;
reset role;

create or replace procedure market.switch_aggregates(native boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $$
declare
    v_aggregate market.aggregates;
    v_source regclass;
    v_trigger text;
    v_right record;
begin
    if native and not market._native_works() then
        raise exception 'no continuous aggregates with this TimescaleDB'
        using errcode = 'AP104', hint = 'They are in its Community edition, with timescaledb.license = timescale; from 2.23 on they miss late rows that COPY brings.';
    end if;
    for v_source in
        select distinct a.source from market.aggregates a
        where a.native <> switch_aggregates.native order by 1
    loop
        -- Nobody writes while what watches the writers changes.
        execute format('lock table %s in share row exclusive mode', v_source);
        if native and exists (
            select from market.aggregates a where a.source = v_source and a.kept_from > '-infinity'
        ) then
            raise exception 'a continuous aggregate cannot take over what was aggregated of the rows of % that were dropped', v_source
            using errcode = 'AP105', hint = 'Its aggregates are kept by marks; that works on either edition.';
        end if;
        foreach v_trigger in array array['mark_inserted', 'mark_deleted', 'mark_updated', 'forget_all'] loop
            execute format('drop trigger if exists %I on %s', v_trigger, v_source);
        end loop;
        for v_aggregate in
            update market.aggregates a set native = switch_aggregates.native
            where a.source = v_source returning a.*
        loop
            -- The view stays, as others read it: meanwhile it reads what the aggregate is made of.
            execute format(
                'create or replace view market.%I as %s', v_aggregate.name,
                replace(v_aggregate.definition, '{range}', 'true')
            );
            if native then
                execute format(
                    'drop table market.%I, market.%I',
                    v_aggregate.name || '_rows', v_aggregate.name || '_marks'
                );
            else
                execute format(
                    'create temporary table kept on commit drop as'
                    ' select r.* from market.%I r where r.bucket < %L',
                    v_aggregate.name || '_rows', v_aggregate.kept_from
                );
                execute format('drop materialized view market.%I', v_aggregate.name || '_rows');
            end if;
            call market._make_rows(v_aggregate.name);
            if not native then
                execute format(
                    'insert into market.%I select k.* from pg_temp.kept k', v_aggregate.name || '_rows'
                );
                drop table pg_temp.kept;
            end if;
            call market._make_readers(v_aggregate.name);
            -- The rights that sql/privileges.sql gives: a view's, or a table's.
            for v_right in
                select t.relname, x.privilege_type, x.grantee::regrole as grantee
                from pg_class v
                cross join lateral aclexplode(v.relacl) x
                join pg_class t on t.relnamespace = v.relnamespace
                    and t.relname in (v_aggregate.name || '_rows', v_aggregate.name || '_marks')
                where x.grantee not in (0, v.relowner) and v.oid = case
                    when native then format('market.%I', v_aggregate.name)::regclass else v_source
                end
            loop
                execute format(
                    'grant %s on market.%I to %s',
                    v_right.privilege_type, v_right.relname, v_right.grantee
                );
            end loop;
            if not native then
                execute format(
                    'insert into market.%I (symbol, bucket)'
                    ' select distinct s.symbol, public.time_bucket(%L::interval, s.ts)'
                    ' from %s s where s.ts >= %L%s order by 1, 2',
                    v_aggregate.name || '_marks', v_aggregate.width, v_source,
                    v_aggregate.kept_from, case when v_source = 'market.candles'::regclass
                        then ' and s.timeframe = interval ''1 minute''' else '' end
                );
            end if;
        end loop;
        call market._watch(v_source);
    end loop;
end
$$;
comment on procedure market.switch_aggregates(boolean) is
'Let TimescaleDB keep the aggregates (true: continuous aggregates; Community edition before 2.23), or keep them by marks (false: either edition). Before a database goes to a server with the Apache edition: false. In one transaction, which holds up writers; the next refresh has everything to do, and until then reads are slow. Errors: AP104 no Community edition here, or one that misses rows, AP105 to continuous aggregates where rows were dropped (market.drop_rows).';

create or replace procedure market.drop_rows("table" text, older_than timestamptz)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_source regclass;
    v_until timestamptz;
    v_aggregate market.aggregates;
    v_waits boolean;
begin
    select format('market.%I', h.hypertable_name)::regclass into v_source
    from timescaledb_information.hypertables h
    where h.hypertable_schema = 'market' and h.hypertable_name = "table";
    if not found then
        raise exception 'no table of market rows: %', coalesce(quote_literal("table"), 'null')
        using errcode = 'AP106', hint = format('One of %s.', (
            select string_agg(h.hypertable_name, ', ' order by h.hypertable_name)
            from timescaledb_information.hypertables h where h.hypertable_schema = 'market'
        ));
    end if;
    if older_than is null or older_than > now() - interval '1 day' then
        raise exception 'rows younger than a day are not dropped: %', coalesce(older_than::text, 'null')
        using errcode = 'AP725', hint = 'Say before which time, with its date.';
    end if;
    -- Nobody writes meanwhile: what is dropped has to be aggregated.
    execute format('lock table %s in share row exclusive mode', v_source);
    select max(c.range_end) into v_until
    from timescaledb_information.chunks c
    where c.hypertable_schema = 'market' and c.hypertable_name = "table" and c.range_end <= older_than;
    if v_until is null then
        return;
    end if;
    for v_aggregate in select a.* from market.aggregates a where a.source = v_source order by a.name loop
        execute format(
            case when v_aggregate.native then
                'select exists (select from market._stale(%1$L) u join %2$s s'
                ' on s.ts >= u."from" and s.ts < u."to" where s.ts < %3$L%4$s)'
            else
                'select exists (select from market.%5$I m where m.bucket < %3$L)'
            end,
            v_aggregate.name, v_source, v_until, case when v_source = 'market.candles'::regclass
                then ' and s.timeframe = interval ''1 minute''' else '' end,
            v_aggregate.name || '_marks'
        ) into v_waits;
        if v_waits then
            raise exception 'rows of % before % are not aggregated yet', v_source, v_until
            using errcode = 'AP107', hint = 'call market.refresh_aggregates(), as alphaplus_owner on the Community edition, or wait a minute for the clock.';
        end if;
    end loop;
    update market.aggregates a set kept_from = v_until
    where a.source = v_source and a.kept_from < v_until;
    perform public.drop_chunks(v_source, older_than => v_until);
    for v_aggregate in select a.* from market.aggregates a where a.source = v_source and a.native loop
        perform public.remove_continuous_aggregate_policy(
            format('market.%I', v_aggregate.name || '_rows')::regclass, if_exists => true
        );
        call market._make_readers(v_aggregate.name);
    end loop;
end
$$;
comment on procedure market.drop_rows(text, timestamptz) is
'Drop the chunks of a table of market rows that lie wholly before a time, and keep what was aggregated of them: bars, flow and book by the minute stay readable, and so do stored vectors. Rows that arrive later for that time do not change its aggregates. Versions that corrections replaced stay in <table>_history. By the clock: setting market.keep_rows. Errors: AP106 no such table, AP107 not all of it is aggregated yet, AP725 a time within the last day.';
