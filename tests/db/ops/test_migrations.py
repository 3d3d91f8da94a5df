"""The applier: up, down, up; twice is once; data survives; what was released stays as released."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alphaplus import migrations as applier
from alphaplus.migrations.patience import Patience, patiently
from psycopg import sql

ROOT = Path(__file__).resolve().parents[3]

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
    extra = checkout / "sql" / "analytics" / "extra.sql"

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
    extra = checkout / "sql" / "analytics" / "extra.sql"
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
    (checkout / "sql" / "analytics" / "extra.sql").write_text(
        "-- For the test.\n"
        "create or replace view analytics.extra_view as select 1 as one;\n"
        "create or replace view analytics.other as select no_such_column from ops.runs;\n"
    )
    with pytest.raises(psycopg.errors.UndefinedColumn) as caught:
        applier.migrate(conninfo(server, db), checkout)
    assert "extra.sql, line 3" in "".join(caught.value.__notes__)
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


def newest_migration() -> str:
    names = (ROOT / "migrations").glob("????_*.*")
    return max(path.stem for path in names if ".rollback" not in path.name)


def upgrade(checkout: Path) -> None:
    """A new release: a migration, a view with other columns, a changed trigger, a function gone."""
    migrations = checkout / "migrations"
    (migrations / "9000_next.sql").write_text(
        f"-- depends: {newest_migration()}\n"
        "alter table market.trades add column venue_flags integer;\n"
        "create table market.flags (flag integer primary key);\n"
        "insert into market.flags values (1), (2);\n"
    )
    (migrations / "9000_next.rollback.sql").write_text(
        "drop table market.flags;\nalter table market.trades drop column venue_flags;\n"
    )
    (checkout / "sql" / "analytics" / "extra.sql").write_text(
        "-- For the test.\n"
        "create or replace function analytics.flags() returns bigint language sql stable\n"
        "set search_path = pg_catalog, pg_temp as 'select count(*) from market.flags';\n"
    )
    (checkout / "sql" / "market" / "instruments.sql").write_text(
        (ROOT / "sql" / "market" / "instruments.sql").read_text() + "\n-- Changed.\n"
    )
    triggers = checkout / "sql" / "ml" / "triggers.sql"
    triggers.write_text(triggers.read_text() + "-- Changed.\n")


def migrate_and_die(conninfo: str, checkout: Path, step: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tests" / "db" / "kill_at.py")],
        env={
            **os.environ,
            "CONNINFO": conninfo,
            "CHECKOUT": str(checkout),
            "KILL_AT": str(step),
            "PYTHONPATH": os.pathsep.join(str(ROOT / room) for room in ("migrations", "plpython")),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def wait_for_backends_to_go(db: Conn) -> None:
    """A client that was killed leaves its backend to find out."""
    for _ in range(600):
        row = db.execute(
            "select count(*) from pg_stat_activity where datname = current_database()"
            " and pid <> pg_backend_pid() and backend_type = 'client backend'"
        ).fetchone()
        if row == (0,):
            return
        time.sleep(0.1)
    raise AssertionError("a backend of the killed migration is still there after a minute")


def die_at(server: Any, db: Conn, checkout: Path, steps: range, total: int) -> None:
    """Killed before each of these steps, the old database serves as before."""
    before, rows = catalog(db), delivered(db)
    for step in steps:
        done = migrate_and_die(conninfo(server, db), checkout, step)
        assert done.returncode == -9, (step, total, done.stdout, done.stderr)
        wait_for_backends_to_go(db)
        assert catalog(db) ^ before == set(), f"killed before step {step} of {total}"
        assert delivered(db) == rows
        assert db.execute("select count(*) from ops.health").fetchone() != (0,)
        assert db.execute("select market.resolve('AAA')").fetchone() == ("AAA",)


@pytest.fixture
def upgradable(db: Conn, checkout: Path) -> Path:
    db.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('AAA', 'x', 'AAA', 'A', 'A')"
    )
    upgrade(checkout)
    return checkout


def count_steps(server: Any, db: Conn, checkout: Path, admin: Conn) -> int:
    """Of the same upgrade on a copy of the database."""
    name = f"aptest_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    db.execute("select 1")
    applier.migrate(server.conninfo(name), ROOT)
    done = migrate_and_die(server.conninfo(name), checkout, 0)
    admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_killed_midway_the_old_database_serves_and_the_next_migrate_works(
    server: Any, admin: Conn, db: Conn, upgradable: Path
) -> None:
    total = count_steps(server, db, upgradable, admin)
    assert total > 100
    # The last steps are after COMMIT.
    die_at(server, db, upgradable, range(40, total - 8, total // 4), total)
    die_at(server, db, upgradable, range(total - 8, total - 4, 2), total)
    report = applier.migrate(conninfo(server, db), upgradable)
    assert report.migrations == ("9000_next",)
    assert db.execute("select analytics.flags()").fetchone() == (2,)
    assert applier.migrate(conninfo(server, db), upgradable) == applier.Report(False, (), ())


@pytest.mark.long
def test_killed_at_any_step_the_old_database_serves(
    server: Any, admin: Conn, db: Conn, upgradable: Path
) -> None:
    total = count_steps(server, db, upgradable, admin)
    die_at(server, db, upgradable, range(1, total - 4), total)
    assert applier.migrate(conninfo(server, db), upgradable).migrations == ("9000_next",)
    assert db.execute("select analytics.flags()").fetchone() == (2,)


@pytest.mark.long
def test_a_first_migrate_that_is_killed_can_be_done_again(server: Any, db: Conn, name: str) -> None:
    expected = catalog(db)
    step = 5
    while (done := migrate_and_die(server.conninfo(name), ROOT, step)).returncode == -9:
        step += 23
    assert done.returncode == 0, done.stderr
    with psycopg.connect(server.conninfo(name), autocommit=True) as conn:
        assert catalog(conn) ^ expected == set()


def test_killed_after_its_commit_nothing_is_left_to_do(
    server: Any, db: Conn, upgradable: Path
) -> None:
    done = migrate_and_die(conninfo(server, db), upgradable, -1)
    assert done.returncode == -9, done.stderr
    wait_for_backends_to_go(db)
    assert applier.migrate(conninfo(server, db), upgradable) == applier.Report(False, (), ())


def test_an_idle_reader_is_named_and_does_not_hold_up_the_others(
    server: Any, db: Conn, checkout: Path, connect_as: Callable[[str, str], Conn]
) -> None:
    before = catalog(db)
    upgrade(checkout)
    idle = connect_as("alphaplus_reader", db.info.dbname)
    idle.execute("begin; select * from ops.health")
    others = connect_as("alphaplus_reader", db.info.dbname)
    others.execute("set statement_timeout = '60 s'")
    said: list[str] = []

    def say(message: str) -> None:
        said.append(message)
        # Between two tries nothing is held.
        others.execute("select * from ops.health")

    with pytest.raises(applier.MigrationError, match="alphaplus_reader") as caught:
        applier.migrate(conninfo(server, db), checkout, patience=Patience(0.5, 3, 0.1), say=say)
    assert f"pid {idle.info.backend_pid}" in str(caught.value)
    assert "idle in transaction" in str(caught.value)
    assert len(said) == 2
    assert catalog(db) ^ before == set()
    idle.execute("commit")
    assert applier.migrate(conninfo(server, db), checkout).migrations == ("9000_next",)


def test_a_writer_holds_up_no_migrate_that_changes_no_trigger(
    server: Any, db: Conn, connect_as: Callable[[str, str], Conn]
) -> None:
    """A load is one transaction, and may last for hours."""
    loader = connect_as("alphaplus_loader", db.info.dbname)
    loader.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('AAA', 'x', 'AAA', 'A', 'A')"
    )
    trade = (
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " values ('AAA', '2026-01-03', '{0}', '2026-01-03', 1, 1, 'buy')"
    )
    loader.execute(trade.format(1))
    loader.execute("begin; " + trade.format(2))
    report = applier.migrate(conninfo(server, db), patience=Patience(0.5, 1))
    assert report == applier.Report(False, (), ())


def test_a_trigger_that_is_missing_comes_back_and_one_no_longer_said_goes(
    server: Any, db: Conn, checkout: Path
) -> None:
    before = catalog(db)
    db.execute("drop trigger keep_superseded on market.trades")
    applier.migrate(conninfo(server, db))
    assert catalog(db) ^ before == set()
    path = checkout / "sql" / "ops" / "triggers.sql"
    said = re.findall(
        r"(?s)create or replace trigger (\w+)\s[^;]*?\son (\w+\.\w+)", path.read_text()
    )
    assert ("keep_interval", "ops.schedules") in said
    path.write_text("-- For the test: none.\n")
    applier.migrate(conninfo(server, db), checkout)
    gone = {row[1] for row in before - catalog(db) if row[0] == "trigger"}
    assert gone == {f"{table}.{trigger}" for trigger, table in said}


def test_a_reader_cannot_lock_migrate_out(
    server: Any, db: Conn, connect_as: Callable[[str, str], Conn]
) -> None:
    reader = connect_as("alphaplus_reader", db.info.dbname)
    reader.execute("select pg_advisory_lock(hashtextextended('alphaplus.migrate', 0))")
    reader.execute("begin; lock table ops._yoyo_migration in access share mode")
    assert applier.migrate(conninfo(server, db), patience=Patience(0.5, 1)) == applier.Report(
        False, (), ()
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("lock table ops._yoyo_migration in row exclusive mode")


def test_the_order_of_files_is_the_rule_of_sql_readme(checkout: Path) -> None:
    for file in ("seed", "views", "triggers", "zebra"):
        (checkout / "sql" / "analytics" / f"{file}.sql").write_text("-- For the test.\n")
    order = [path.relative_to(checkout / "sql").as_posix() for path in applier.sql_files(checkout)]
    assert [name for name in order if name.startswith("analytics/")][-4:] == [
        f"analytics/{file}.sql" for file in ("zebra", "triggers", "views", "seed")
    ]
    assert order[-2:] == ["schedules.sql", "privileges.sql"]
    assert order.index("ops/seed.sql" if "ops/seed.sql" in order else "ops/views.sql") < min(
        number for number, name in enumerate(order) if name.startswith("market/")
    )


def test_a_deadlock_is_tried_again(db: Conn, server: Any) -> None:
    """The clock's jobs lock tables in an order of their own: migrate is ended, and begins anew."""
    url = conninfo(server, db)
    db.execute("create table one (a int); create table two (a int)")
    said: list[str] = []
    tries: list[int] = []
    held, tried = threading.Event(), threading.Event()

    def clock() -> None:
        with psycopg.connect(url) as other:
            other.execute("set deadlock_timeout = '1min'")
            other.execute("lock table one")
            held.set()
            tried.wait(600)
            other.execute("lock table two")

    thread = threading.Thread(target=clock)
    thread.start()
    held.wait(600)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("set deadlock_timeout = '10ms'")

        def work() -> str:
            tries.append(1)
            with conn.transaction():
                conn.execute("lock table two")
                tried.set()
                conn.execute("lock table one")
            return "done"

        pid = conn.info.backend_pid
        assert patiently(url, pid, work, Patience(600.0, 5, 0.1), said.append) == "done"
    thread.join()
    # Whoever came first to the second table was ended: at most this one, and then once.
    assert len(tries) == 1 + len(said) <= 2
