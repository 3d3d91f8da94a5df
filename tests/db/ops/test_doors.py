"""Ways from a lesser role to a greater one, each tried as that role: what was open and is shut."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alphaplus import migrations as applier
from psycopg import errors

from tests.conftest import Server

Connection = psycopg.Connection[Any]
Connect = Callable[[str, str], Connection]
ROOT = Path(__file__).resolve().parents[3]
# Words of the PL/Python modules that are names of helpers, but that no reader comes to.
NOT_FOR_READERS = {"regime._moment", "regime._stored"} | {
    # What backtest.run comes to, which runs with its owner's rights.
    "backtest._bars_packed", "backtest._funding_packed", "backtest._predictions",
    "backtest._predictions_packed", "backtest._rows", "backtest._rows_packed",
    # Of ml.create_label and of the trigger on ml.labels, and of analytics.refresh_states.
    "ml._label_declared", "ml._label_task", "analytics._states",
}  # fmt: skip
DENIED = errors.InsufficientPrivilege
BREAKOUT = "a$f$; alter role alphaplus_operator superuser; select $f$b"


@pytest.mark.parametrize("role", ["loader", "operator", "app", "reader", "trainer"])
@pytest.mark.parametrize(
    "statement",
    [
        # What the clock executes as the owner.
        "update market.aggregates set source = 'market.trades', width = '1 s'",
        "update market.aggregates set name = 'x', kept_from = now()",
        "insert into market.aggregates select * from market.aggregates",
        "delete from market.aggregates",
        # What users' SELECTs are run from, and what migrate makes functions of.
        "update feature.sets set definition = 'select ts, 1 as p from ml.predictions'",
        "insert into feature.sets (name, version, features, definition, kind, grid, lookback, sha256)"
        f" values ('{BREAKOUT}', 1, array['p'], 'select ts, price as p from market.trades', 'select',"
        " '1 min', '1 hour', '')",
        "insert into feature.definitions (feature_set, feature_version, feature, position, formula,"
        f" unit, source) values ('{BREAKOUT}', 1, 'p', 1, 'p', '', '')",
        # What the applier drops and runs.
        "insert into ops.logic values ('function', 'ops.health(); alter role alphaplus_operator superuser')",
        "insert into ops.sql_files (path, sha256) values ('x', '')",
        "delete from ops.runs",
        "copy pg_temp.x from '/etc/passwd'",
        "select pg_read_file('/etc/passwd')",
        "select feature._copy_vectors(0, 'feature.vectors')",
    ],
)
def test_no_role_writes_what_a_greater_one_executes(
    db_module: Connection, connect_as: Connect, role: str, statement: str
) -> None:
    conn = connect_as(f"alphaplus_{role}", db_module.info.dbname)
    conn.execute("create temporary table x (l text)")
    with pytest.raises(DENIED):
        conn.execute(statement)  # type: ignore[call-overload]


def test_the_owner_reads_no_file(db_module: Connection) -> None:
    """Nor is it a member of a role that could, or owns a function of one that can."""
    rows = db_module.execute(
        "select r.rolname, p.rolname from pg_roles r, pg_roles p where r.rolname like 'alphaplus%%'"
        " and r.rolname <> 'alphaplus_copy' and r.oid <> p.oid and pg_has_role(r.oid, p.oid, 'member')"
        " and p.rolname = any(%s)",
        (
            [
                "pg_read_server_files",
                "pg_write_server_files",
                "pg_execute_server_program",
                "alphaplus_copy",
                "alphaplus_select",
            ],
        ),
    ).fetchall()
    assert rows == []
    row = db_module.execute(
        "select rolcanlogin, rolsuper from pg_roles where rolname = 'alphaplus_copy'"
    ).fetchone()
    assert row == (False, False)
    with db_module.transaction(force_rollback=True):
        db_module.execute("set local role alphaplus_owner")
        with pytest.raises(DENIED):
            db_module.execute("copy feature.pending from '/etc/passwd'")


def test_vectors_are_copied_from_memory_only(db_module: Connection) -> None:
    """A temporary table of the caller's, with a trigger, does not get the copier's rights either."""
    for into in ("feature.vectors", "pg_temp._vectors"):
        with db_module.transaction(force_rollback=True):
            db_module.execute("create temporary table _vectors (l text)")
            db_module.execute("grant all on pg_temp._vectors to public")
            with pytest.raises(psycopg.Error) as caught:
                db_module.execute("select feature._copy_vectors(1, %s::regclass)", (into,))
            assert caught.value.sqlstate == "AP720"


@pytest.mark.parametrize("name", [BREAKOUT, "a'b", 'a"b', "a b", "", "1a", "a\u00a0b", "x" * 64])
def test_a_name_that_is_none_is_not_stored(db_module: Connection, name: str) -> None:
    """Not even by the owner."""
    for statement, values in (
        (
            "insert into feature.sets (name, features, definition, kind, lookback, sha256)"
            " values (%s, '{p}', 'select ts, price as p from market.trades', 'select', '1 h', '')",
            (name,),
        ),
        (
            "insert into feature.sets (name, features, definition, kind, lookback, sha256)"
            " values ('fine', %s, 'select ts, price as p from market.trades', 'select', '1 h', '')",
            (["p", name],),
        ),
    ):
        with pytest.raises(errors.CheckViolation):
            db_module.execute(statement, values)  # type: ignore[arg-type]


def test_migrate_runs_no_text_of_users_as_superuser(db: Connection, server: Server) -> None:
    """A set whose texts hold quotes of every kind: its functions are made anew, and do only that."""
    evil = "$f$ $$ ' \" \\ ; alter role alphaplus_operator superuser; --"
    db.execute(
        "select feature.create_set('tame', 'select ts, price as p from market.trades', '1 hour',"
        " description => %s, formulas => jsonb_build_object('p', jsonb_build_object("
        "'formula', %s::text, 'unit', %s::text, 'source', %s::text)))",
        (evil, evil, evil, evil),
    )
    db.execute("drop function feature.tame")
    applier.migrate(server.conninfo(db.info.dbname))
    row = db.execute(
        "select p.proowner::regrole::text, (select rolsuper from pg_roles where rolname ="
        " 'alphaplus_operator'), obj_description(p.oid) like '%%alter role%%'"
        " from pg_proc p where p.oid = 'feature.tame(text, timestamptz)'::regprocedure"
    ).fetchone()
    assert row == ("alphaplus_owner", False, True)


@pytest.mark.parametrize("role", ["loader", "operator", "app", "reader", "trainer"])
def test_no_login_role_creates_what_a_restore_would_run(
    db_module: Connection, connect_as: Connect, role: str
) -> None:
    """Neither in a schema of ours nor in one of its own; asked of the catalogue and tried."""
    rows = db_module.execute(
        "select n.nspname from pg_namespace n where has_schema_privilege(%s, n.oid, 'create')"
        " and n.nspname !~ '^pg_(toast_)?temp'"
        " union all select datname from pg_database where has_database_privilege(%s, oid, 'create')"
        " union all select c.oid::regclass::text from pg_class c where c.relowner = %s::regrole"
        " union all select p.oid::regprocedure::text from pg_proc p where p.proowner = %s::regrole",
        (f"alphaplus_{role}",) * 4,
    ).fetchall()
    assert rows == []
    conn = connect_as(f"alphaplus_{role}", db_module.info.dbname)
    schemas = db_module.execute(
        "select nspname from pg_namespace where nspname !~ '^pg_(toast|temp)'"
    ).fetchall()
    assert ("optuna",) in schemas
    for (schema,) in schemas:
        for statement in (
            f"create table {schema}.mine (x int)",
            f"create function {schema}.mine() returns int language sql as 'select 1'",
            f"create type {schema}.mine as enum ('x')",
            f"create view {schema}.mine as select 1",
        ):
            with pytest.raises(DENIED):
                conn.execute(statement)  # type: ignore[call-overload]
    with pytest.raises(DENIED):
        conn.execute("alter table optuna.studies add check (study_id > 0)")


def test_optuna_finds_its_tables_and_makes_none(db: Connection, server: Server) -> None:
    """As the trainer, with what it asks for: a study, trials, values, a study taken up again."""
    from alphaplus.trainer import job

    optuna = pytest.importorskip("optuna")
    storage = job.search_storage(server.conninfo(db.info.dbname, "alphaplus_trainer"))
    query = (
        "select count(*), (select count(*) from pg_type where typnamespace = 'optuna'::regnamespace)"
        " from pg_class where relnamespace = 'optuna'::regnamespace"
    )
    before = db.execute(query).fetchone()
    for trials in (3, 5):
        study = optuna.create_study(storage=storage, study_name="s", load_if_exists=True)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=trials)
    assert len(study.trials) == 8
    assert db.execute(query).fetchone() == before
    row = db.execute("select schema_version, library_version from optuna.version_info").fetchone()
    assert row is not None
    from optuna.storages._rdb import models

    assert row[0] == models.SCHEMA_VERSION


def test_a_schedule_runs_as_the_role_that_wrote_it(db: Connection, connect_as: Connect) -> None:
    """No other runs it, and what it does is logged as that role's doing."""
    operator = connect_as("alphaplus_operator", db.info.dbname)
    insert = (
        "insert into ops.schedules (name, cron, command, expected_interval, description)"
        " values (%s, '* * * * *', %s, '1 minute', '')"
    )
    operator.execute(insert, ("mine", "call ml.promote(1, 'mine', true)"))
    row = db.execute("select run_as from ops.schedules where name = 'mine'").fetchone()
    assert row == ("alphaplus_operator",)
    assert db.execute(
        "select distinct run_as from ops.schedules where name <> 'mine'"
    ).fetchall() == [("alphaplus_owner",)]
    for statement in (
        "insert into ops.schedules (name, cron, command, expected_interval, description, run_as)"
        " values ('x', '* * * * *', 'call ml.promote(1)', '1 minute', '', 'alphaplus_owner')",
        "update ops.schedules set run_as = 'alphaplus_owner' where name = 'mine'",
        "update ops.schedules set command = 'call ml.promote(1)' where name = 'housekeeping'",
    ):
        with pytest.raises(DENIED):
            operator.execute(statement)  # type: ignore[call-overload]
    with pytest.raises(psycopg.Error) as refused:  # a superuser does not run the operator's text
        db.execute("call ops.run('mine')")
    assert refused.value.sqlstate == "AP722"
    db.execute("set role alphaplus_operator")  # nor in the operator's clothes: reset role is a text
    with pytest.raises(psycopg.Error) as refused:
        db.execute("call ops.run('mine')")
    assert refused.value.sqlstate == "AP722"
    db.execute("reset role")
    db.execute("call ops.tick()")
    assert db.execute("select 1 from ops.runs where schedule = 'mine'").fetchone() is None
    with pytest.raises(psycopg.Error) as refused:
        operator.execute("call ops.run('mine')")
    assert refused.value.sqlstate == "AP404"  # no such version: it was run
    db.execute(insert, ("dba's", "call ops.housekeeping()"))
    for statement in (
        "update ops.schedules set enabled = false where name = 'dba''s'",
        "delete from ops.schedules where name = 'dba''s'",
        "call ops.run('dba''s')",
    ):
        with pytest.raises(psycopg.Error) as refused:
            operator.execute(statement)  # type: ignore[call-overload]
        assert refused.value.sqlstate == "AP722"
    operator.execute("update ops.schedules set enabled = false where name = 'housekeeping'")
    operator.execute("delete from ops.schedules where name = 'mine'")


def test_a_reader_holds_nobody_up(db: Connection, connect_as: Connect) -> None:
    """He cannot lock what sessions take turns at; who waits for another is told whom."""
    db.execute("select ops._lock('ml:x')")
    for role in ("reader", "app", "trainer"):
        conn = connect_as(f"alphaplus_{role}", db.info.dbname)
        for statement in (
            "select ops._lock('ml:x')",
            "select ops._try_lock('ml:x')",
            "select from ops.locks for key share",
            "select from ops.locks for update",
            "insert into ops.locks values ('ml:y')",
            "do $$ begin lock table ops.locks in row share mode; end $$",
            "select from market.aggregates for update",
            "select from ops.schedules for share",
        ):
            with pytest.raises(DENIED):
                conn.execute(statement)  # type: ignore[call-overload]
    # Advisory locks of any key are in nobody's way.
    reader = connect_as("alphaplus_reader", db.info.dbname)
    reader.execute(
        "select pg_advisory_lock(hashtextextended(k, 0)) from (select 'market.' || name"
        " from market.aggregates union all select 'ops.run:' || current_database() || ':' || name"
        " from ops.schedules union all select 'ml:[\"liquidation_15m\", null, null]') u (k)"
    )
    operator = connect_as("alphaplus_operator", db.info.dbname)
    operator.execute("set statement_timeout = '20s'")
    operator.execute("call ops.run('refresh aggregates')")
    operator.execute("call ml.retrain('liquidation_15m', null)")
    rows = db.execute("select status from ops.runs where schedule = 'refresh aggregates'")
    assert rows.fetchall() == [("succeeded",)]
    # Two that do take turns.
    with operator.transaction():
        operator.execute("select ops._lock('ml:z')")
        db.execute("select ops.set_setting('ops.lock_timeout', '\"300 milliseconds\"')")
        with pytest.raises(psycopg.Error) as refused:
            db.execute("select ops._lock('ml:z')")
        assert refused.value.sqlstate == "AP723"
    db.execute("select ops._lock('ml:z')")
    with operator.transaction():
        operator.execute("select ops._lock('ml:z')")
        with pytest.raises(psycopg.Error) as refused:
            db.execute("select ops._lock('ml:z')")
        assert "alphaplus_operator" in (refused.value.diag.message_detail or "")
        assert db.execute("select ops._try_lock('ml:z')").fetchone() == (False,)
    assert db.execute("select ops._try_lock('ml:z')").fetchone() == (True,)
    assert db.execute("show lock_timeout").fetchone() == ("0",)


def test_readers_call_only_the_helpers_that_their_functions_need(db_module: Connection) -> None:
    """Helpers are the code's: a reader may call one only where something he uses comes to it.

    What needs what is read from the text of all functions and views, and from the PL/Python modules.
    """
    rows = db_module.execute(
        "select n.nspname || '.' || p.proname, p.proname like '\\_%%', p.provolatile <> 'v' and not"
        " p.prosecdef, pg_get_functiondef(p.oid),"
        " array(select r from unnest(array['reader', 'app']) r"
        " where has_function_privilege('alphaplus_' || r, p.oid, 'execute'))"
        " from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
        " where n.nspname in ('ops', 'market', 'feature', 'regime', 'ml', 'drift', 'sentiment',"
        " 'analytics', 'backtest', 'bi') and p.prokind = 'f' and p.prorettype <> 'trigger'::regtype"
    ).fetchall()
    views = db_module.execute(
        "select pg_get_viewdef(c.oid) from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where c.relkind = 'v' and n.nspname !~ '^(pg_|_?timescale|information)'"
    ).fetchall()
    helpers = {row[0] for row in rows if row[1]}
    python = " ".join(p.read_text() for p in (ROOT / "plpython").rglob("*.py"))
    words = set(re.findall(r"\w+", python))
    by_python = {
        name
        for name in helpers
        for word in (name.split(".")[1],)
        if word in words or word.removesuffix("_live") in words
    }

    def called(text: str) -> set[str]:
        return set(re.findall(r"\b[a-z]+\._[a-z0-9_]+", text)) & helpers

    texts: dict[str, str] = {}
    for name, _, plain, text, _ in rows:
        if plain:
            texts[name] = texts.get(name, "") + text
    needed: set[str] = set()
    to_do = {h for name, text in texts.items() if name not in helpers for h in called(text)}
    to_do |= {h for (text,) in views for h in called(text)}
    by_text = True
    while to_do:
        needed |= to_do
        to_do = {h for name in to_do for h in called(texts.get(name, ""))} - needed
        if not to_do and by_text:
            by_text, to_do = False, by_python - needed
    may = {row[0] for row in rows if row[1] and row[4] and row[2]}
    assert may <= needed
    assert len(helpers - may) > 100
    # What a stretch of Python calls for a reader's function he may call.
    writes = re.compile(r"(train|probe|external_probe|measured|shap|reference|held_out|chunk)")
    lacking = {
        name for name in needed if name in texts and name not in may and not writes.search(name)
    }
    assert lacking <= NOT_FOR_READERS, lacking
    for name in ("ml._check_onnx", "ml._check_lightgbm", "ml._shadow"):
        assert name not in may


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("market.keep_rows", '{"trades": 5}'),
        ("market.keep_rows", '{"trades": "5"}'),
        ("market.keep_rows", '{"trades": "-10 days"}'),
        ("market.keep_rows", '{"trades": "5 seconds"}'),
        ("market.keep_rows", '{"no_such": "90 days"}'),
        ("market.keep_rows", '"90 days"'),
        ("ml.cache_bytes", "1.5"),
        ("ml.cache_bytes", "-1"),
        ("ml.cache_bytes", '"1 GB"'),
        ("training.lease_timeout", '"-1 second"'),
        ("training.lease_timeout", '"0"'),
        ("training.lease_timeout", "30"),
        ("training.max_attempts", "0"),
        ("ops.run_timeout", '"0 seconds"'),
        ("ops.keep_runs", '"-30 days"'),
        ("ops.queue_lag", '"soon"'),
        ("ops.dirty_buckets", "1e400"),
        ("ml.keep_base_rates", '"-1 day"'),
    ],
)
def test_a_setting_is_refused_when_it_is_set(
    db_module: Connection, connect_as: Connect, name: str, value: str
) -> None:
    """By the function and by hand alike; the old value stays."""
    conn = connect_as("alphaplus_operator", db_module.info.dbname)
    before = conn.execute("select value from ops.settings where name = %s", (name,)).fetchone()
    for statement in (
        "update ops.settings set value = %(v)s where name = %(n)s",
        "select ops.set_setting(%(n)s, %(v)s)",
    ):
        with pytest.raises(psycopg.Error) as refused:
            conn.execute(statement, {"n": name, "v": value})  # type: ignore[call-overload]
        assert refused.value.sqlstate in ("AP702", "AP724")
    after = conn.execute("select value from ops.settings where name = %s", (name,)).fetchone()
    assert after == before
    assert conn.execute("select count(*) > 5 from ops.health").fetchone() == (True,)


def test_rows_of_today_are_not_dropped(db_module: Connection) -> None:
    for time in ("now()", "'infinity'", "now() + interval '10 days'", "null"):
        with pytest.raises(psycopg.Error) as refused:
            db_module.execute(f"call market.drop_rows('trades', {time})")  # type: ignore[call-overload]
        assert refused.value.sqlstate == "AP725"


def test_idle_readers_and_endless_statements_end(
    db_module: Connection, connect_as: Connect
) -> None:
    """The limits of each role, and that some connections are kept for the operator."""
    limits = {}
    for role in ("reader", "app", "operator", "loader", "trainer"):
        row = (
            connect_as(f"alphaplus_{role}", db_module.info.dbname)
            .execute(
                "select current_setting('statement_timeout'),"
                " current_setting('idle_in_transaction_session_timeout'),"
                " pg_has_role('pg_use_reserved_connections', 'usage')"
            )
            .fetchone()
        )
        limits[role] = row
    assert limits == {
        "reader": ("15min", "10min", False),
        "app": ("5min", "5min", False),
        "operator": ("0", "0", True),
        "loader": ("0", "0", False),
        "trainer": ("0", "0", False),
    }


def test_arguments_do_not_exhaust_a_backend(db_module: Connection, connect_as: Connect) -> None:
    conn = connect_as("alphaplus_reader", db_module.info.dbname)
    db_module.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, kind, base, quote)"
        " values ('AAAUSDT', 'sim', 'AAAUSDT', 'spot', 'AAA', 'USDT') on conflict do nothing"
    )
    conn.execute("set statement_timeout = '20s'")
    for statement in (
        "select * from ml._folds(int8send(1), int8send(2), 100000000)",
        "select * from ml._folds(int8send(1), int8send(2), 999999999)",
        "select * from feature.audit_lookahead('liquidation', 'AAAUSDT', '1980-01-01', '2030-01-01')",
        "select * from feature.audit_lookahead('liquidation', 'AAAUSDT', '2024-01-01', '2024-01-02',"
        " 1000000000)",
    ):
        with pytest.raises(psycopg.Error) as refused:
            conn.execute(statement)  # type: ignore[call-overload]
        assert refused.value.sqlstate == "AP726", refused.value


def test_housekeeping_cuts_a_queue_of_months(db: Connection) -> None:
    db.execute("call ml.retrain('liquidation_15m', null)")
    db.execute(
        "update procrastinate.procrastinate_jobs set status = 'succeeded';"
        "update procrastinate.procrastinate_events set at = now() - interval '100 days'"
    )
    db.execute("call ops.housekeeping()")
    assert db.execute("select count(*) from procrastinate.procrastinate_jobs").fetchone() == (0,)


def test_health_tells_of_the_server_whatever_is_wrong(db: Connection, connect_as: Connect) -> None:
    """Disk and replication slots are rows; a part that fails is a row, and the others stay."""
    reader = connect_as("alphaplus_reader", db.info.dbname)
    read = "select status, detail from ops.health where check_name = %s and subject = %s"
    found = reader.execute(read, ("disk", "data directory")).fetchone()
    assert found is not None and "free" in found[1]
    free, total = reader.execute("select * from ops.disk_space()").fetchone() or (0, 0)
    assert 0 < free < total
    slot = f"health_{db.info.backend_pid}"
    db.execute("select pg_create_physical_replication_slot(%s, true)", (slot,))
    try:
        found = reader.execute(read, ("wal", f"slot {slot}")).fetchone()
        assert found is not None and found[0] == "yellow" and "nobody reads it" in found[1]
    finally:
        db.execute("select pg_drop_replication_slot(%s)", (slot,))
    before = dict(
        reader.execute("select check_name, count(*) from ops.health group by 1").fetchall()
    )
    db.execute("alter table ml.training_jobs rename column status to was_status")
    failed = reader.execute(
        "select subject, detail from ops.health where check_name = 'health' and status = 'red'"
    ).fetchall()
    after = dict(
        reader.execute("select check_name, count(*) from ops.health group by 1").fetchall()
    )
    assert len(failed) >= 1 and "42703" in failed[0][1]
    assert after["disk"] == 1 and after["extension"] == before["extension"]
