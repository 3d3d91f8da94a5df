-- Tables of users' own (news, macro, on-chain, signals) under both clocks, as sources of feature sets.

create or replace function feature.create_table(
    name text, columns jsonb, per_symbol boolean default true, key text [] default '{}',
    description text default ''
)
returns regclass
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    c_types constant text [] := array[
        'double precision', 'float8', 'real', 'numeric', 'integer', 'bigint', 'boolean', 'text',
        'timestamptz'
    ];
    v_bad text;
    v_list text;
    v_key text;
begin
    if name is null or name !~ '^[a-z][a-z0-9_]{0,47}$' then
        raise exception 'a table cannot be named %', coalesce(quote_literal(name), 'null')
        using errcode = 'AP232',
            hint = 'Use up to 48 lower-case letters, digits and underscores, beginning with a letter.';
    end if;
    if to_regclass(format('research.%I', name)) is not null then
        raise exception 'table research.% is there already', name
        using errcode = 'AP233', hint = 'Choose another name, or drop it: feature.drop_table.';
    end if;
    if columns is null or jsonb_typeof(columns) <> 'object' or columns = '{}' then
        raise exception 'the columns of a table are an object of names and types'
        using errcode = 'AP234', hint = 'Give {"score": "double precision", "headline": "text"}.';
    end if;
    select c.key || ': ' || c.value into v_bad
    from jsonb_each_text(columns) c
    where c.value <> all (c_types) or c.key !~ '^[a-z][a-z0-9_]{0,47}$'
        or c.key in ('symbol', 'ts', 'known_at')
    limit 1;
    if found then
        raise exception 'a column cannot be %', quote_literal(v_bad)
        using errcode = 'AP234',
            hint = 'symbol, ts and known_at come by themselves; others: a plain name, and of '
            || array_to_string(c_types, ', ') || '.';
    end if;
    select k.name into v_bad from unnest(key) k (name) where not columns ? k.name limit 1;
    if found then
        raise exception 'a key has no column %', quote_literal(v_bad)
        using errcode = 'AP234', hint = 'Name columns of the table; symbol, ts and known_at are in it.';
    end if;
    select string_agg(format('%I %s', c.key, c.value), ', ' order by c.key) into v_list
    from jsonb_each_text(columns) c;
    select string_agg(format('%I, ', k.name), '' order by k.n) into v_key
    from unnest(key) with ordinality as k (name, n);
    execute format(
        'create table research.%I (%s ts timestamptz not null,'
        ' known_at timestamptz not null default clock_timestamp(), %s, primary key (%s ts, %s known_at))',
        name, case when per_symbol then 'symbol text collate "C" not null,' else '' end, v_list,
        case when per_symbol then 'symbol,' else '' end, coalesce(v_key, '')
    );
    execute format(
        'comment on table research.%I is %L', name,
        coalesce(nullif(description, ''), 'A table of a user''s own, made by feature.create_table.')
    );
    execute format('comment on column research.%I.ts is %L', name, 'When it happened.');
    execute format(
        'comment on column research.%I.known_at is %L', name,
        'When it was known here. A correction is a row of the same ts that is known later.'
    );
    perform feature._grant_research(format('research.%I', name)::regclass);
    return format('research.%I', name)::regclass;
end
$$;
comment on function feature.create_table(text, jsonb, boolean, text [], text) is
'Makes a table in schema research for data of your own: ts (when it happened), known_at (when it was known here; default: now), with per_symbol a symbol, and columns: {"name": type}, types double precision, real, numeric, integer, bigint, boolean, text, timestamptz. key: what beside symbol and ts tells rows apart; a correction is a row with the same key that is known later. The operator and the loader fill it, readers read it; feature.create_source makes it readable in feature sets. Errors: AP232 the name, AP233 it is there, AP234 the columns or the key.';

create or replace function feature._grant_research(relation regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    execute format(
        'grant select on %s to alphaplus_reader, alphaplus_app, alphaplus_operator, alphaplus_loader',
        relation
    );
    execute format(
        'grant insert, update, delete, truncate on %s to alphaplus_operator, alphaplus_loader', relation
    );
end
$$;

create or replace function feature.drop_table(name text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_table constant regclass := case when name <> '' then to_regclass(format('research.%I', name)) end;
begin
    if v_table is null then
        raise exception 'there is no table research.%', coalesce(name, 'null')
        using errcode = 'AP241', hint = 'List them with: \d research.*';
    end if;
    if exists (select from feature.sources s where s.relation = v_table) then
        raise exception 'table research.% is a source', name
        using errcode = 'AP236', hint = 'Drop the source first: feature.drop_source.';
    end if;
    execute format('drop table %s', v_table);
end
$$;
comment on function feature.drop_table(text) is
'Drops a table of schema research that is no source. Errors: AP241 there is none, AP236 it is a source.';

create or replace function feature.create_source(
    relation regclass, source text default null, symbol text default 'symbol',
    ts text default 'ts', known_at text default 'known_at', key text [] default '{}',
    description text default ''
)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    c_values constant text [] := array[
        'double precision', 'real', 'numeric', 'integer', 'bigint', 'smallint', 'boolean', 'text',
        'timestamp with time zone', 'character varying'
    ];
    v_class pg_catalog.pg_class;
    v_name text;
    v_columns text [];
    v_types text [];
    v_bad text;
begin
    select c.* into v_class from pg_catalog.pg_class c where c.oid = create_source.relation;
    if not found or v_class.relnamespace <> 'research'::regnamespace or v_class.relkind not in ('r', 'p')
        or v_class.relowner <> 'alphaplus_owner'::regrole then
        raise exception '% cannot be a source', coalesce(relation::text, 'null')
        using errcode = 'AP237',
            hint = 'A source is a table of schema research that belongs to alphaplus_owner: feature.create_table makes one.';
    end if;
    v_name := coalesce(create_source.source, v_class.relname);
    if v_name !~ '^[a-z][a-z0-9_]{0,47}$' then
        raise exception 'a source cannot be named %', quote_literal(v_name)
        using errcode = 'AP232',
            hint = 'Use up to 48 lower-case letters, digits and underscores, beginning with a letter.';
    end if;
    select
        array_agg(a.attname::text order by a.attnum),
        array_agg(format_type(a.atttypid, null) order by a.attnum)
    into v_columns, v_types
    from pg_catalog.pg_attribute a
    where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
        and a.attname not in (coalesce(symbol, ''), ts, known_at);
    select w.name into v_bad
    from (
        values (symbol, array['text', 'character varying']),
        (ts, array['timestamp with time zone']), (known_at, array['timestamp with time zone'])
    ) as w (name, types)
    where w.name is not null and not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = relation and a.attname = w.name and not a.attisdropped
            and format_type(a.atttypid, null) = any (w.types)
    );
    if found or ts is null or known_at is null then
        raise exception 'the columns of % are not a symbol and two times', relation
        using errcode = 'AP238', detail = format('%s is not there, or of another type.', coalesce(v_bad, 'A time')),
            hint = 'symbol: a text (null: its rows are for all symbols); ts: when it happened, known_at: when it was known, both timestamptz.';
    end if;
    select u.name || ' ' || u.type into v_bad
    from unnest(v_columns, v_types) as u (name, type)
    where u.type <> all (c_values) or u.name !~ '^[a-z_][a-z0-9_]{0,62}$' limit 1;
    if found or v_columns is null then
        raise exception 'a source has no column %', coalesce(quote_literal(v_bad), 'beside its symbol and times')
        using errcode = 'AP239', hint = 'Columns are of ' || array_to_string(c_values, ', ') || ', with plain names.';
    end if;
    select k.name into v_bad from unnest(key) k (name) where k.name <> all (v_columns) limit 1;
    if found then
        raise exception 'a key has no column %', quote_literal(v_bad)
        using errcode = 'AP234', hint = 'Name columns of the table; symbol, ts and known_at are in it.';
    end if;
    if symbol is not null then
        execute format(
            'select min(r.%1$I) from %2$s r'
            ' where not exists (select from market.instruments i where i.symbol = r.%1$I)',
            symbol, relation
        ) into v_bad;
        if v_bad is not null then
            raise exception 'source % has rows of %, which is no symbol', quote_literal(v_name), quote_literal(v_bad)
            using errcode = 'AP231', hint = 'Write symbols as market.instruments does: market.resolve gives it for an alias.';
        end if;
    end if;
    if exists (select from feature.sources s where s.source = v_name or s.relation = create_source.relation) then
        perform from feature.sources s
        where s.source = v_name and s.relation = create_source.relation
            and s.symbol_column is not distinct from create_source.symbol
            and (s.ts_column, s.known_at_column, s.key_columns, s.columns, s.types)
            = (create_source.ts, create_source.known_at, create_source.key, v_columns, v_types);
        if found then
            return v_name;
        end if;
        raise exception 'source %, or a source of its table, is there already', quote_literal(v_name)
        using errcode = 'AP240', hint = 'Drop it first: feature.drop_source.';
    end if;
    insert into feature.sources
        (source, relation, symbol_column, ts_column, known_at_column, key_columns, columns, types, description)
    values (
        v_name, create_source.relation, create_source.symbol, create_source.ts,
        create_source.known_at, create_source.key, v_columns, v_types,
        coalesce(create_source.description, '')
    );
    perform feature._watch_source(create_source.relation);
    return v_name;
end
$$;
comment on function feature.create_source(regclass, text, text, text, text, text [], text) is
'Makes a table of schema research readable in feature sets as source.<name> (default: the table''s), with the columns symbol (where it has one), ts, known_at and its own. At a time a set sees the rows of its symbol (of all, where symbol is null) that happened before it and were known by it, of those of one symbol, ts and key the one known last. Late rows, corrections and deletions void the stored vectors that they can have changed. Returns the name; the same again is the same source. Errors: AP231 rows of what is no symbol, AP232 the name, AP234 the key, AP237 no such table, AP238 its symbol or times, AP239 its columns, AP240 it is there already.';

create or replace function feature._watch_source(relation regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    execute format(
        'create or replace trigger mark_source_insert after insert on %1$s'
        ' referencing new table as changed_rows for each statement execute function feature._mark_source();'
        ' create or replace trigger mark_source_update after update on %1$s'
        ' referencing new table as changed_rows for each statement execute function feature._mark_source();'
        ' create or replace trigger mark_source_was after update on %1$s'
        ' referencing old table as changed_rows for each statement execute function feature._mark_source();'
        ' create or replace trigger mark_source_delete after delete on %1$s'
        ' referencing old table as changed_rows for each statement execute function feature._mark_source();'
        ' create or replace trigger mark_source_truncate after truncate on %1$s'
        ' for each statement execute function feature._mark_source_emptied()',
        relation
    );
end
$$;

create or replace function feature.drop_source(source text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_source feature.sources;
    v_used text;
begin
    select s.* into v_source from feature.sources s where s.source = drop_source.source;
    if not found then
        raise exception 'unknown source %', coalesce(quote_literal(source), 'null')
        using errcode = 'AP241', hint = 'List them with: select source, relation from feature.sources';
    end if;
    select string_agg(distinct s.name, ', ') into v_used
    from feature.set_sources x join feature.sets s on s.set_id = x.set_id
    where x.source = drop_source.source;
    if v_used is not null then
        raise exception 'source % is in use', quote_literal(source)
        using errcode = 'AP242', detail = format('By the sets %s.', v_used), hint = 'Drop those sets first.';
    end if;
    execute format(
        'drop trigger mark_source_insert on %1$s; drop trigger mark_source_update on %1$s;'
        ' drop trigger mark_source_was on %1$s; drop trigger mark_source_delete on %1$s;'
        ' drop trigger mark_source_truncate on %1$s',
        v_source.relation
    );
    delete from feature.sources s where s.source = drop_source.source;
end
$$;
comment on function feature.drop_source(text) is
'Takes a table back from the sources of feature sets; the table stays. Errors: AP241 unknown source, AP242 a set reads it.';

-- Its columns as a SELECT sees them: name and type.
create or replace function feature._source_columns(s feature.sources) returns text
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select concat(
        case when s.symbol_column is not null then 'symbol text, ' end,
        'ts timestamptz, known_at timestamptz, ',
        string_agg(format('%I %s', u.name, u.type), ', ' order by u.n)
    )
    from unnest(s.columns, s.types) with ordinality as u (name, type, n)
$$;

-- The rows as known: $1 symbol, $2 from, $3 to, $4 as_of.
create or replace function feature._source_select(s feature.sources) returns text
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select format(
        'select %6$s r.%3$I, r.%4$I, %5$s from (select distinct on (%7$s q.%3$I %8$s) q.*'
        ' from %1$s q where %2$s and q.%3$I >= $2 and q.%3$I < $3 and q.%4$I <= $4'
        ' order by %7$s q.%3$I %8$s, q.%4$I desc) r',
        s.relation::text,
        case when s.symbol_column is null then '$1 is not null'
            else format('q.%I = $1', s.symbol_column) end,
        s.ts_column, s.known_at_column,
        (select string_agg(format('r.%I::%s', u.name, u.type), ', ' order by u.n)
            from unnest(s.columns, s.types) with ordinality as u (name, type, n)),
        case when s.symbol_column is not null then format('r.%I::text,', s.symbol_column) end,
        case when s.symbol_column is not null then format('q.%I,', s.symbol_column) end,
        (select string_agg(format(', q.%I', k.name), '' order by k.n)
            from unnest(s.key_columns) with ordinality as k (name, n))
    )
$$;

create or replace function feature._sources_known()
returns table (source text, columns text [])
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select
        s.source,
        case when s.symbol_column is not null then array['symbol'] else '{}' end
        || array['ts', 'known_at'] || s.columns
    from feature.sources s
$$;
