"""Views that users made on ours: taken away while ours are made anew, and given back as they were.

A view of a user's holds on to what it reads, so nothing of that could be dropped or changed. What
it cannot be given back on would break it: then nothing is changed, and the message names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from alphaplus.migrations.files import SCHEMAS, MigrationError
from psycopg import sql

# Views and materialized views, not ours, that read anything of ours, each after those it reads.
_FIND: LiteralString = """
with recursive ours as (
    select n.oid from pg_catalog.pg_namespace n where n.nspname = any (%(schemas)s)
),
reads as (
    select r.ev_class as view, d.refclassid as class, d.refobjid as object
    from pg_catalog.pg_rewrite r
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
        and d.objid = r.oid and d.refobjid <> r.ev_class
),
others as (
    select c.oid, c.relnamespace
    from pg_catalog.pg_class c
    where c.relkind in ('v', 'm') and c.relpersistence <> 't'
        and (
            c.relnamespace not in (select o.oid from ours o)
            or pg_catalog.pg_get_userbyid(c.relowner) <> 'alphaplus_owner'
        )
        and not exists (
            select from pg_catalog.pg_depend d
            where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
                and d.deptype = 'e'
        )
        and c.relnamespace not in (
            select n.oid from pg_catalog.pg_namespace n
            where n.nspname in ('pg_catalog', 'information_schema', 'procrastinate')
                or n.nspname ~ '^_?timescaledb'
        )
),
on_ours as (
    select r.view as oid, 1 as depth
    from reads r join others o on o.oid = r.view
    where exists (
        select from pg_catalog.pg_class c join ours on ours.oid = c.relnamespace
        where r.class = 'pg_catalog.pg_class'::pg_catalog.regclass and c.oid = r.object
            and r.object not in (select x.oid from others x)
    ) or exists (
        select from pg_catalog.pg_proc p join ours on ours.oid = p.pronamespace
        where r.class = 'pg_catalog.pg_proc'::pg_catalog.regclass and p.oid = r.object
    )
    union
    select r.view, f.depth + 1
    from on_ours f join reads r on r.object = f.oid join others o on o.oid = r.view
    where r.class = 'pg_catalog.pg_class'::pg_catalog.regclass and f.depth < 100
)
select
    n.nspname, c.relname, c.relkind::text, pg_catalog.pg_get_userbyid(c.relowner),
    coalesce(c.reloptions, '{}'), pg_catalog.rtrim(pg_catalog.pg_get_viewdef(c.oid), ';'),
    c.relispopulated,
    pg_catalog.obj_description(c.oid, 'pg_class'),
    array(
        select array[a.attname::text, pg_catalog.col_description(c.oid, a.attnum)]
        from pg_catalog.pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            and pg_catalog.col_description(c.oid, a.attnum) is not null
    ),
    array(
        select array[
            case x.grantee when 0 then null else pg_catalog.pg_get_userbyid(x.grantee)::text end,
            x.privilege_type, x.is_grantable::text
        ]
        from pg_catalog.aclexplode(c.relacl) x
    ),
    array(
        select pg_catalog.pg_get_indexdef(i.indexrelid)
        from pg_catalog.pg_index i where i.indrelid = c.oid
    ),
    exists (
        select from pg_catalog.pg_trigger t where t.tgrelid = c.oid
        union all
        select from pg_catalog.pg_rewrite w where w.ev_class = c.oid and w.rulename <> '_RETURN'
        union all
        select from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attacl is not null
    )
from (select f.oid, max(f.depth) as depth from on_ours f group by f.oid) u
join pg_catalog.pg_class c on c.oid = u.oid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
order by u.depth, n.nspname, c.relname
"""


@dataclass(frozen=True)
class View:
    """A view as it was."""

    schema: str
    name: str
    kind: str
    owner: str
    options: list[str]
    text: str
    populated: bool
    comment: str | None
    columns: list[list[str]]
    rights: list[list[str | None]]
    indexes: list[str]
    bound: bool  # triggers, rules or rights on columns hang on it: it is not taken away

    @property
    def identifier(self) -> sql.Identifier:
        """Its name in a statement."""
        return sql.Identifier(self.schema, self.name)

    @property
    def word(self) -> sql.SQL:
        """What it is in a statement."""
        return sql.SQL("materialized view" if self.kind == "m" else "view")


def take(conn: psycopg.Connection[Any]) -> list[View]:
    """Drop the users' views on ours; :func:`give_back` makes them again."""
    if conn.execute("select pg_catalog.to_regclass('ops.logic')").fetchone() == (None,):
        return []
    conn.execute("set local search_path = pg_catalog, pg_temp")
    rows = conn.execute(_FIND, {"schemas": list(SCHEMAS)}).fetchall()
    found = [View(*row) for row in rows]
    # What holds on to a view that stays stays too, and the database says so where it is in the way.
    if any(view.bound for view in found):
        return []
    for view in reversed(found):
        conn.execute(sql.SQL("drop {} {}").format(view.word, view.identifier))
    return found


def give_back(conn: psycopg.Connection[Any], views: list[View]) -> None:
    """Make the views again as they were.

    Raises:
        MigrationError: one of them cannot be; names it.
    """
    conn.execute("set local search_path = pg_catalog, pg_temp")
    for view in views:
        try:
            with conn.transaction():
                _make(conn, view)
        except psycopg.Error as error:
            kind = "the materialized view" if view.kind == "m" else "the view"
            raise MigrationError(
                f"this would break {kind} {view.schema}.{view.name} of {view.owner}:"
                f" {error.diag.message_primary}. Change or drop it, then run `make migrate`."
            ) from error


def _make(conn: psycopg.Connection[Any], view: View) -> None:
    options: sql.Composable = sql.SQL("")
    if view.options:
        options = sql.SQL(" with ({})").format(
            sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value))
                for name, _, value in (option.partition("=") for option in view.options)
            )
        )
    body = sql.SQL(view.text)  # the catalogue's own text
    parts = [sql.SQL("create "), view.word, sql.SQL(" "), view.identifier, options]
    parts += [sql.SQL(" as "), body]
    if view.kind == "m" and not view.populated:
        parts.append(sql.SQL(" with no data"))
    conn.execute(sql.Composed(parts))
    owner = sql.Identifier(view.owner)
    for index in view.indexes:
        conn.execute(index)  # the catalogue's own text
    for grantee, privilege, grantable in view.rights:
        conn.execute(
            sql.SQL("grant {} on {} to {}{}").format(
                sql.SQL(str(privilege)),  # a word of the catalogue
                view.identifier,
                sql.SQL("public") if grantee is None else sql.Identifier(grantee),
                sql.SQL(" with grant option" if grantable == "true" and grantee else ""),
            )
        )
    if view.comment is not None:
        conn.execute(
            sql.SQL("comment on {} {} is {}").format(
                view.word, view.identifier, sql.Literal(view.comment)
            )
        )
    for column, comment in view.columns:
        conn.execute(
            sql.SQL("comment on column {} is {}").format(
                sql.Identifier(view.schema, view.name, column), sql.Literal(comment)
            )
        )
    conn.execute(sql.SQL("alter {} {} owner to {}").format(view.word, view.identifier, owner))


def broken_tiles(conn: psycopg.Connection[Any]) -> dict[tuple[str, str], str]:
    """The registered tiles whose query a reader could not run, with what is wrong.

    The queries are analysed as a reader's; nothing of them is executed.
    """
    if conn.execute("select pg_catalog.to_regclass('analytics.tiles')").fetchone() == (None,):
        return {}
    query = "select dashboard, tile, query from analytics.tiles order by 1, 2"
    found: dict[tuple[str, str], str] = {}
    for dashboard, tile, text in conn.execute(query).fetchall():
        try:
            with conn.transaction():
                conn.execute("set local role alphaplus_reader")
                # Asked for in binary a statement goes alone: nothing can be written behind it.
                conn.execute(f"prepare alphaplus_tile as {text}", binary=True)
                conn.execute("deallocate alphaplus_tile")
                conn.execute("set local role none")
        except psycopg.Error as error:
            found[dashboard, tile] = str(error.diag.message_primary)
    return found


def check_tiles(conn: psycopg.Connection[Any], before: dict[tuple[str, str], str]) -> None:
    """Look at the registered tiles again.

    Raises:
        MigrationError: one of them is broken that was not before; names it.
    """
    for (dashboard, tile), problem in broken_tiles(conn).items():
        if (dashboard, tile) not in before:
            raise MigrationError(
                f"this would break tile {tile!r} of dashboard {dashboard!r}: {problem}. Change it"
                " (analytics.register_tile) or forget it (analytics.forget_tiles), then run"
                " `make migrate`."
            )
