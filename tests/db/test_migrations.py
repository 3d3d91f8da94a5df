"""The applier: up, down, up; twice is once; data survives; what was released stays as released."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alphaplus.loaders import db as applier
from psycopg import sql

ROOT = Path(__file__).resolve().parents[2]

Conn = psycopg.Connection[Any]

# What a schema is: relations with columns, constraints, indexes, triggers, routines with bodies and
# settings, types, comments and rights. Without TimescaleDB's own numbers and yoyo's own tables.
CATALOG = r"""
with ours as (
    select n.oid, n.nspname from pg_namespace n
    where n.nspname in ('ops', 'market', 'feature', 'regime', 'ml', 'drift', 'sentiment', 'analytics',
        'backtest', 'bi',
        'procrastinate')
)
select 'relation', c.oid::regclass::text, c.relkind::text, pg_get_userbyid(c.relowner),
    coalesce((select string_agg(a.x, e'\n' order by a.x) from (select unnest(c.relacl)::text as x) a), ''),
    coalesce(obj_description(c.oid, 'pg_class'), '')
from pg_class c join ours on ours.oid = c.relnamespace
where c.relname !~ 'yoyo' and c.relkind not in ('t')
union all
select 'column', a.attrelid::regclass::text || '.' || a.attname, format_type(a.atttypid, a.atttypmod),
    a.attnotnull::text || a.attidentity::text || a.attstorage::text, coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
    coalesce(col_description(a.attrelid, a.attnum), '')
from pg_attribute a
join pg_class c on c.oid = a.attrelid
join ours on ours.oid = c.relnamespace
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'v', 'p', 'm') and c.relname !~ 'yoyo'
union all
select 'constraint', k.conrelid::regclass::text || '.' || k.conname, pg_get_constraintdef(k.oid), '', '', ''
from pg_constraint k join pg_class c on c.oid = k.conrelid join ours on ours.oid = c.relnamespace
where c.relname !~ 'yoyo'
union all
select 'index', i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), '', '', ''
from pg_index i join pg_class c on c.oid = i.indrelid join ours on ours.oid = c.relnamespace
where c.relname !~ 'yoyo'
union all
select 'trigger', t.tgrelid::regclass::text || '.' || t.tgname, pg_get_triggerdef(t.oid), '', '', ''
from pg_trigger t join pg_class c on c.oid = t.tgrelid join ours on ours.oid = c.relnamespace
where not t.tgisinternal and t.tgname not like 'ts\_%' -- TimescaleDB's, with a number of its own
union all
select 'routine', p.oid::regprocedure::text, p.prokind::text || p.provolatile::text || p.proparallel::text || p.prosecdef::text,
    pg_get_userbyid(p.proowner), md5(coalesce(pg_get_functiondef(p.oid), '')),
    coalesce((select string_agg(a.x, e'\n' order by a.x) from (select unnest(p.proacl)::text as x) a), '')
        || coalesce(obj_description(p.oid, 'pg_proc'), '')
from pg_proc p join ours on ours.oid = p.pronamespace
where p.prokind in ('f', 'p')
union all
select 'view', c.oid::regclass::text,
    regexp_replace(pg_get_viewdef(c.oid), '(_materialized_hypertable)_\d+', '\1'), '', '', ''
from pg_class c join ours on ours.oid = c.relnamespace where c.relkind = 'v'
union all
select 'type', t.oid::regtype::text, pg_get_userbyid(t.typowner), coalesce(
    (select string_agg(e.enumlabel, ',' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid), ''),
    '', coalesce(obj_description(t.oid, 'pg_type'), '')
from pg_type t join ours on ours.oid = t.typnamespace
where t.typtype in ('e', 'd') or t.typtype = 'c' and exists (
    select from pg_class c where c.oid = t.typrelid and c.relkind = 'c')
union all
select 'schema', ours.nspname, coalesce(obj_description(ours.oid, 'pg_namespace'), ''), '', '', '' from ours
union all
select 'hypertable', h.hypertable_schema || '.' || h.hypertable_name, h.num_dimensions::text,
    (select string_agg(d.column_name || d.time_interval, ',') from timescaledb_information.dimensions d
     where d.hypertable_schema = h.hypertable_schema and d.hypertable_name = h.hypertable_name), '', ''
from timescaledb_information.hypertables h
"""

ROWS = ("ml.models", "ml.labels", "ml.gates", "feature.sets", "ops.schedules", "ops.settings")


def catalog(conn: Conn) -> set[tuple[str, ...]]:
    return set(conn.execute(CATALOG).fetchall())


def delivered(conn: Conn) -> dict[str, int]:
    counts = {}
    for name in ROWS:
        row = conn.execute(f"select count(*) from {name}").fetchone()  # type: ignore[arg-type]
        assert row is not None
        counts[name] = row[0]
    return counts


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the applier reads, for a test to edit."""
    for folder in ("migrations", "sql", "docker"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "sql" / "analytics").mkdir(exist_ok=True)
    return tmp_path


@pytest.fixture
def name(admin: Conn) -> Iterator[str]:
    """The name of a database that does not exist yet."""
    value = f"aptest_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    yield value
    admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(value)))


def conninfo(server: Any, conn: Conn) -> str:
    return str(server.conninfo(conn.info.dbname))


def test_creates_the_database_and_twice_is_once(server: Any, name: str) -> None:
    first = applier.migrate(server.conninfo(name))
    assert first.created_database
    assert first.migrations
    with psycopg.connect(server.conninfo(name), autocommit=True) as conn:
        before, rows = catalog(conn), delivered(conn)
        second = applier.migrate(server.conninfo(name))
        assert second == applier.Report(False, (), ())
        assert catalog(conn) == before
        assert delivered(conn) == rows


def test_up_down_up_is_up(server: Any, db: Conn) -> None:
    before, rows = catalog(db), delivered(db)
    undone = applier.rollback(conninfo(server, db))
    assert undone[-1] == "0001_schemas"
    left = {row[:2] for row in catalog(db)} - {("schema", "ops")}
    assert not left
    applier.migrate(conninfo(server, db))
    after = catalog(db)
    assert sorted(before - after) == []
    assert sorted(after - before) == []
    assert delivered(db) == rows


def test_the_newest_migration_alone_goes_down_and_up(server: Any, db: Conn) -> None:
    before = catalog(db)
    names = sorted(
        path.stem for path in (ROOT / "migrations").glob("????_*") if "rollback" not in path.name
    )
    undone = applier.rollback(conninfo(server, db), to=names[-2])
    assert undone == (names[-1],)
    assert applier.migrate(conninfo(server, db)).migrations == (names[-1],)
    assert catalog(db) ^ before == set()


def test_data_survives_a_new_migration(server: Any, db: Conn, checkout: Path) -> None:
    db.execute(
        """
        insert into market.instruments (symbol, exchange, native_symbol, base, quote)
        values ('AAA', 'x', 'AAA', 'A', 'A');
        insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)
        select 'AAA', t, t::text, t, 1, 1, 'buy'
        from generate_series(timestamptz '2026-01-01', '2026-01-02', '1 minute') t;
        select ops.set_setting('ops.run_timeout', '"7 minutes"');
        update ops.schedules set enabled = false, cron = '1 1 * * *' where name = 'housekeeping';
        """
    )
    db.execute("call market.refresh_aggregates()")
    bars = db.execute("select * from market.candles_5m order by ts").fetchall()
    assert len(bars) == 289
    newest = max(path.stem for path in (ROOT / "migrations").glob("????_*"))
    newest = newest.removesuffix(".rollback")
    (checkout / "migrations" / "9000_next.sql").write_text(
        f"-- depends: {newest}\n"
        "alter table market.trades add column venue_flags integer;\n"
        "comment on column market.trades.venue_flags is 'As the venue gives them.';\n"
    )
    (checkout / "migrations" / "9000_next.rollback.sql").write_text(
        "alter table market.trades drop column venue_flags;\n"
    )
    report = applier.migrate(conninfo(server, db), checkout)
    assert report.migrations == ("9000_next",)
    assert db.execute("select count(*) from market.trades").fetchone() == (1441,)
    assert db.execute("select * from market.candles_5m order by ts").fetchall() == bars
    assert db.execute("select ops.setting('ops.run_timeout')").fetchone() == ("7 minutes",)
    assert db.execute(
        "select enabled, cron from ops.schedules where name = 'housekeeping'"
    ).fetchone() == (False, "1 1 * * *")
    # An older checkout does not touch a newer database.
    with pytest.raises(applier.MigrationError, match="database is newer"):
        applier.migrate(conninfo(server, db))


def test_an_applied_migration_that_was_edited_is_refused(
    server: Any, db: Conn, checkout: Path
) -> None:
    path = checkout / "migrations" / "0002_ops.sql"
    path.write_text(path.read_text() + "\nselect 1;\n")
    with pytest.raises(applier.MigrationError, match="0002_ops"):
        applier.migrate(conninfo(server, db), checkout)


def test_a_released_migration_that_was_edited_or_lost_is_refused(checkout: Path) -> None:
    applier.freeze(checkout)
    applier.check_frozen(checkout)
    path = checkout / "migrations" / "0002_ops.rollback.sql"
    text = path.read_text()
    path.write_text(text + "\n")
    with pytest.raises(applier.MigrationError, match="edited after its release"):
        applier.check_frozen(checkout)
    path.unlink()
    with pytest.raises(applier.MigrationError, match="missing"):
        applier.check_frozen(checkout)


def test_sql_follows_its_files(server: Any, db: Conn, checkout: Path) -> None:
    """New, changed in result, renamed and removed functions and views; nothing of others' goes."""
    extra = checkout / "sql" / "analytics" / "zz_extra.sql"

    def apply(text: str) -> None:
        extra.write_text("-- For the test.\n" + text)
        applier.migrate(conninfo(server, db), checkout)

    def named() -> set[str]:
        return {
            value
            for (value,) in db.execute(
                "select p.oid::regprocedure::text from pg_proc p where p.proname ~ '^extra($|_)'"
                " union all select c.relname from pg_class c where c.relname ~ '^extra_'"
            ).fetchall()
        }

    apply(
        "create or replace function analytics.extra(a integer) returns integer language sql return a;\n"
        "create or replace view analytics.extra_view as select analytics.extra(1) as one;\n"
    )
    assert named() == {"analytics.extra(integer)", "extra_view"}
    # another result type, which no CREATE OR REPLACE can do, and a view on it
    apply(
        "create or replace function analytics.extra(a integer) returns text language sql return a::text;\n"
        "create or replace view analytics.extra_view as select analytics.extra(1) as two, 3 as three;\n"
    )
    assert db.execute("select two, three from analytics.extra_view").fetchone() == ("1", 3)
    # another signature: the old one goes
    apply(
        "create or replace function analytics.extra(a text) returns text language sql return a;\n"
    )
    assert named() == {"analytics.extra(text)"}
    # a user's own function stays, whatever schema it is in
    db.execute("create function analytics.extra_mine() returns integer language sql return 1")
    extra.unlink()
    applier.migrate(conninfo(server, db), checkout)
    assert named() == {"analytics.extra_mine()"}


def test_what_users_made_on_ours_is_named(server: Any, db: Conn, checkout: Path) -> None:
    extra = checkout / "sql" / "analytics" / "zz_extra.sql"
    extra.write_text(
        "-- For the test.\ncreate or replace view analytics.extra_view as select 1 as one;\n"
    )
    applier.migrate(conninfo(server, db), checkout)
    db.execute("create view public.my_view as select * from analytics.extra_view")
    before = catalog(db)
    extra.unlink()
    with pytest.raises(applier.MigrationError, match="my_view"):
        applier.migrate(conninfo(server, db), checkout)
    assert catalog(db) == before  # all or nothing


def test_a_failing_file_changes_nothing_and_is_named(server: Any, db: Conn, checkout: Path) -> None:
    before = catalog(db)
    (checkout / "sql" / "analytics" / "zz_extra.sql").write_text(
        "-- For the test.\n"
        "create or replace view analytics.extra_view as select 1 as one;\n"
        "create or replace view analytics.other as select no_such_column from ops.runs;\n"
    )
    with pytest.raises(psycopg.errors.UndefinedColumn) as caught:
        applier.migrate(conninfo(server, db), checkout)
    assert "zz_extra.sql, line 3" in "".join(caught.value.__notes__)
    assert catalog(db) == before


def test_several_databases_on_one_server(server: Any, db: Conn, name: str) -> None:
    applier.migrate(server.conninfo(name))
    with psycopg.connect(server.conninfo(name), autocommit=True) as other:
        other.execute("select ops.set_setting('ops.run_timeout', '\"1 minute\"')")
        assert db.execute("select ops.setting('ops.run_timeout')").fetchone() != ("1 minute",)
        # the claims of the clock do not meet
        other.execute("select ops.begin_run('housekeeping')")
        db.execute("call ops.run('housekeeping')")
        row = db.execute("select status from ops.runs order by run_id desc limit 1").fetchone()
        assert row == ("succeeded",)


def test_only_a_superuser_migrates(server: Any, db: Conn) -> None:
    with pytest.raises(applier.MigrationError, match="no superuser"):
        applier.migrate(server.conninfo(db.info.dbname, "alphaplus_operator"))
