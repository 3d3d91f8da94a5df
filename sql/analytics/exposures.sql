-- What hangs on what: tiles of dashboards and users' views, down to models and features.
create or replace function analytics._query_parts(query text)
returns table (problem text, relations text [], functions text [], words text [], columns text [])
language plpython3u immutable parallel safe set search_path = pg_catalog, pg_temp
rows 1
as $python$
    from alphaplus.server.analytics import exposures
    return list(exposures.parts(query))
$python$;
comment on function analytics._query_parts(text) is
'What a SELECT names: relations, functions, texts between quotes, columns; problem: why it is none.';

create or replace function analytics.register_tile(dashboard text, tile text, query text) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_problem text := case
        when coalesce($1, '') = '' or coalesce($2, '') = '' then 'a dashboard and a tile need names'
        when $3 is null then 'there is no query'
        when length($3) > 100000 then 'it is longer than 100,000 characters'
        else (select p.problem from analytics._query_parts($3) p)
    end;
begin
    if v_problem is not null then
        raise exception 'tile % of dashboard % is refused: %', coalesce(quote_literal($2), 'null'),
            coalesce(quote_literal($1), 'null'), v_problem
        using errcode = 'AP979', hint = 'A tile is one SELECT on views and functions of analytics.';
    end if;
    insert into analytics.tiles as t (dashboard, tile, query) values ($1, $2, $3)
    on conflict on constraint tiles_pkey do update
    set query = excluded.query, registered_at = clock_timestamp(), registered_by = session_user
    where t.query <> excluded.query;
    return $2;
end
$$;
comment on function analytics.register_tile(text, text, text) is
'Notes a tile of a dashboard with its SELECT, so that analytics.exposures shows what it hangs on and a migration that would break it fails with its name. Again with another query changes it. Errors: AP979 no name, or no SELECT.';

create or replace function analytics.forget_tiles(dashboard text, tile text default null) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_count bigint;
begin
    delete from analytics.tiles t where t.dashboard = $1 and ($2 is null or t.tile = $2);
    get diagnostics v_count = row_count;
    return v_count;
end
$$;
comment on function analytics.forget_tiles(text, text) is
'Forgets a tile of a dashboard, or all of them (null); gives how many there were.';

create or replace function analytics._users_views()
returns table (view regclass, kind text, owner text, definition text)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select
        c.oid::regclass, case c.relkind when 'm' then 'materialized view' else 'view' end,
        pg_get_userbyid(c.relowner)::text, pg_get_viewdef(c.oid)
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('v', 'm') and n.nspname !~ '^(pg_|information_schema|_?timescaledb|procrastinate)'
        and not exists (
            select from pg_depend d
            where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
        )
        and pg_get_userbyid(c.relowner) <> 'alphaplus_owner'
$$;
comment on function analytics._users_views() is
'Views that the applier did not make.';

create or replace function analytics.exposures()
returns table (
    kind text, name text, owner text, depends_on text, depends_on_kind text, depth integer, via text
)
language sql stable parallel restricted set search_path = pg_catalog, pg_temp
rows 200
as $$
    with recursive things as materialized (
        select 'tile' as kind, t.dashboard || ' / ' || t.tile as name, t.registered_by as owner, t.query as definition
        from analytics.tiles t
        union all
        select v.kind, v.view::text, v.owner, v.definition from analytics._users_views() v
    ),
    parsed as materialized (
        select t.kind, t.name, t.owner, p.relations, p.functions, p.words, p.columns
        from things t
        cross join lateral analytics._query_parts(t.definition) p
    ),
    known as materialized (
        select
            (n.nspname || '.' || c.relname) collate "default" as name,
            case c.relkind when 'v' then 'view' when 'm' then 'materialized view' else 'table' end as kind
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^(pg_|_?timescaledb|information_schema)'
        union all
        select distinct (n.nspname || '.' || p.proname) collate "default", 'function'
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname !~ '^(pg_|_?timescaledb|information_schema)'
    ),
    -- What each view is made of, by the catalogue: columns and all.
    edges as materialized (
        select distinct
            (vn.nspname || '.' || v.relname) collate "default" as view,
            coalesce(rn.nspname || '.' || r.relname, pn.nspname || '.' || p.proname) collate "default" as object,
            case when p.oid is not null then 'function'
                when r.relkind = 'v' then 'view' when r.relkind = 'm' then 'materialized view'
                else 'table' end as kind
        from pg_rewrite w
        join pg_class v on v.oid = w.ev_class
        join pg_namespace vn on vn.oid = v.relnamespace
        join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
            and d.refobjid <> v.oid
        left join pg_class r on d.refclassid = 'pg_class'::regclass and r.oid = d.refobjid
        left join pg_namespace rn on rn.oid = r.relnamespace
        left join pg_proc p on d.refclassid = 'pg_proc'::regclass and p.oid = d.refobjid
        left join pg_namespace pn on pn.oid = p.pronamespace
        where vn.nspname !~ '^(pg_|_?timescaledb|information_schema)'
            and coalesce(rn.nspname, pn.nspname) !~ '^(pg_|_?timescaledb|information_schema)'
            and coalesce(rn.nspname, pn.nspname) is not null
    ),
    direct as materialized (
        select p.kind, p.name, p.owner, k.name as object, k.kind as object_kind
        from parsed p
        cross join lateral (
            select x.name, 'relation' as sort from unnest(p.relations) x (name)
            union all
            select x.name, 'function' from unnest(p.functions) x (name)
        ) u
        join known k on k.name = u.name and (k.kind = 'function') = (u.sort = 'function')
        union
        select p.kind, p.name, p.owner, e.object, e.kind
        from parsed p join edges e on e.view = p.name and p.kind <> 'tile'
    ),
    reached as (
        select d.kind, d.name, d.owner, d.object, d.object_kind, 1 as depth, null::text as via
        from direct d
        union
        select r.kind, r.name, r.owner, e.object, e.kind, r.depth + 1, r.object
        from reached r
        join edges e on e.view = r.object
        where r.object_kind in ('view', 'materialized view') and r.depth < 20
    ),
    -- Models and sets by their names between quotes, sets also by their functions.
    models as (
        select p.kind, p.name, p.owner, m.model as object, p.columns
        from parsed p join ml.models m on m.model = any (p.words)
    ),
    sets as (
        select distinct
            p.kind, p.name, p.owner, s.name::text as object, s.version, s.features, p.columns,
            p.words, d.depth, d.via
        from parsed p
        join lateral (
            select s.set_id, 1 as depth, null::text as via from feature.sets s
            where s.name = any (p.words) or 'feature.' || s.name = any (p.functions)
                or 'feature.' || s.name = any (p.relations)
            union
            select s.set_id, 2, m.model
            from ml.models m
            join feature.sets s on s.name = m.feature_set and s.version = m.feature_version
            where m.model = any (p.words)
        ) d on true
        join feature.sets s on s.set_id = d.set_id
    )
    select
        x.kind, x.name, x.owner, x.object, x.object_kind, min(x.depth),
        (array_agg(x.via order by x.depth, x.via))[1]
    from (
        select r.kind, r.name, r.owner, r.object, r.object_kind, r.depth, r.via from reached r
        union all
        select m.kind, m.name, m.owner, m.object, 'model', 1, null from models m
        union all
        select s.kind, s.name, s.owner, s.object, 'feature set', s.depth, s.via from sets s
        union all
        -- Of a set that is read itself the features that are named; of a model's all.
        select s.kind, s.name, s.owner, s.object || '.' || f.feature, 'feature', s.depth + 1, s.object
        from sets s
        cross join lateral unnest(s.features) f (feature)
        where s.via is not null or f.feature = any (s.columns) or f.feature = any (s.words)
            or '*' = any (s.columns)
    ) x
    group by x.kind, x.name, x.owner, x.object, x.object_kind
    order by 1, 2, 6, 5, 4
$$;
comment on function analytics.exposures() is
'See the view analytics.exposures.';

create or replace view analytics.exposures as
select * from analytics.exposures();
comment on view analytics.exposures is
'Which tile of a dashboard and which view of a user hangs on which view, table, function, model, feature set and feature. Tiles: analytics.register_tile. By the database''s own catalogue and by what the SELECT names (a model or feature whose name is put together at run time is not seen). A migration that would break one of them fails with its name.';
comment on column analytics.exposures.kind is 'tile, view or materialized view.';
comment on column analytics.exposures.name is 'Dashboard / tile, or the view.';
comment on column analytics.exposures.owner is 'Who registered the tile, or owns the view.';
comment on column analytics.exposures.depends_on is 'What it hangs on.';
comment on column analytics.exposures.depends_on_kind is 'view, materialized view, table, function, model, feature set or feature.';
comment on column analytics.exposures.depth is 'How many steps away; 1: named by it.';
comment on column analytics.exposures.via is 'The view, model or set it comes through; null: directly.';
