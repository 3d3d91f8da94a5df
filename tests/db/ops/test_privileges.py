"""Who may do what: read from the catalog against rules stated here, and tried as each role."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from tests.conftest import Server
from tests.db import lifecycle as toy

ROOT = Path(__file__).resolve().parents[3]
Connection = psycopg.Connection[Any]
Connect = Callable[[str, str], Connection]
SCHEMAS = ["ops", "market", "feature", "regime", "ml", "drift", "sentiment", "analytics"]
ALL = [*SCHEMAS, "procrastinate"]
ROLES = ["loader", "trainer", "app", "reader", "operator"]
DENIED = errors.InsufficientPrivilege

# Models, and what will be one: nobody but the owner reads their bytes.
COLUMNS_HIDDEN = {"ml.training_checkpoints", "sentiment.author_keys"}

# The trainer's doors; adding one is a decision.
TRAINER = {
    "ml._trainer_start",
    "ml._trainer_beat",
    "ml._trainer_stop",
    "ml._next_job",
    "ml._job_progress",
    "ml._job_matrix",
    "sentiment._job_texts",
    "ml._job_span",
    "ml._load_checkpoint",
    "ml._save_checkpoint",
    "ml._job_folds",
    "ml._finish_job",
    "ml._fail_job",
    "ml._requeue_stalled",
}
# What the app may write with; adding one is a decision.
APP_WRITES = {
    "ml.record_prediction",
    "ml.record_predictions",
    "ml.warm",
    "ml.latest",
    "ml.warm_all",
}
# Helpers that run with another role's rights and that all readers may call: this one runs users'
# SELECTs with alphaplus_select's.
READING_DEFINERS = {"feature._set_rows", "ml._label_select"}
# Functions that belong to a role made for them alone.
APART = {
    "feature._set_rows": "alphaplus_select",
    "feature._set_columns": "alphaplus_select",
    "ml._label_select": "alphaplus_select",
    "feature._copy_vectors": "alphaplus_copy",
    "regime._copy_blocks": "alphaplus_copy",
}
# Who inserts, updates and deletes where; in every other table nobody, but functions with the owner's
# rights. Adding a line is a decision: no text that somebody executes may be in such a table.
BOTH, OPERATOR = {"loader", "operator"}, {"operator"}
WRITTEN = {
    "market.candles": BOTH,
    "market.trades": BOTH,
    "market.order_book_snapshots": BOTH,
    "market.liquidation_events": BOTH,
    "market.funding_rates": BOTH,
    "market.open_interest": BOTH,
    "market.instruments": BOTH,
    "market.loads": BOTH,
    "market.quarantine": BOTH,
    "market.sequence_gaps": BOTH,
    "market.simulation_runs": BOTH,
    "market.simulation_truth": BOTH,
    "sentiment.texts": BOTH,
    "sentiment.labelled_texts": BOTH,
    "sentiment.asset_names": BOTH,
    "sentiment.blend_weights": OPERATOR,
    "market.contract_rules": BOTH,
    "market.trade_spans": BOTH,
    "market.streams": BOTH,
    "market.gaps": BOTH,
    "market.corporate_actions": BOTH,
    "feature.vectors": OPERATOR,
    "feature.vector_blocks": OPERATOR,
    "feature.watermarks": OPERATOR,
    "feature.pending": OPERATOR,
    "regime.mappings": OPERATOR,
    "regime.thresholds": OPERATOR,
    "regime.classifiers": OPERATOR,
    "ops.settings": OPERATOR,
    "ops.schedules": OPERATOR,
    "ml.labels": OPERATOR,
    "ml.models": OPERATOR,
    "ml.gates": OPERATOR,
    "ml.regime_weight_presets": OPERATOR,
    "ml.risk_levels": OPERATOR,
    "ml.retraining_policies": OPERATOR,
    "ml.traffic": OPERATOR,
    "drift.thresholds": OPERATOR,
    "ops.retention": OPERATOR,
}
# … and where rows are only removed by hand: what is written there, a procedure checks.
REMOVED = {"ops.training_schedules": OPERATOR}


@pytest.fixture(scope="module")
def world(db_module: Connection) -> Connection:
    toy.install(db_module)
    return db_module


def test_everything_belongs_to_the_owner(db_module: Connection) -> None:
    rows = db_module.execute(
        "select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = any(%(s)s) and c.relkind in ('r', 'p', 'v', 'm', 'S')"
        " and c.relowner <> 'alphaplus_owner'::regrole"
        " union all select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
        " where n.nspname = any(%(s)s) and p.proowner <> 'alphaplus_owner'::regrole"
        " and not (p.prosecdef and p.proowner::regrole::text"
        " is not distinct from %(apart)s::jsonb ->> (n.nspname || '.' || p.proname))"
        " union all select nspname from pg_namespace where nspname = any(%(s)s)"
        " and nspowner <> 'alphaplus_owner'::regrole",
        {"s": ALL, "apart": Jsonb(APART)},
    ).fetchall()
    assert rows == []


def test_nothing_is_granted_to_public(db_module: Connection) -> None:
    rows = db_module.execute(
        "select 'table', c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace,"
        " aclexplode(c.relacl) a where n.nspname = any(%(s)s) and a.grantee = 0"
        " union all select 'routine', p.oid::regprocedure::text from pg_proc p"
        " join pg_namespace n on n.oid = p.pronamespace,"
        " aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a"
        " where n.nspname = any(%(s)s) and a.grantee = 0"
        " union all select 'schema', nspname from pg_namespace, aclexplode(nspacl) a"
        " where nspname = any(%(s)s) and a.grantee = 0"
        " union all select 'database', datname from pg_database,"
        " aclexplode(coalesce(datacl, acldefault('d', datdba))) a"
        " where datname = current_database() and a.grantee = 0",
        {"s": ALL},
    ).fetchall()
    assert rows == []


def test_every_security_definer_function_pins_its_search_path(db_module: Connection) -> None:
    rows = db_module.execute(
        "select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
        " where n.nspname = any(%s) and p.prosecdef and not exists ("
        " select from unnest(p.proconfig) c where c like 'search_path=%%pg_temp')",
        (ALL,),
    ).fetchall()
    assert rows == []


def test_only_the_superuser_makes_python_functions(world: Connection, connect_as: Connect) -> None:
    for role in [*ROLES, "owner"]:
        if role == "owner":
            row = world.execute(
                "select has_language_privilege('alphaplus_owner', 'plpython3u', 'usage')"
            ).fetchone()
            assert row is not None
            with world.transaction(force_rollback=True):
                world.execute("set local role alphaplus_owner")
                with pytest.raises(DENIED):
                    world.execute(
                        "create function ml.evil() returns int language plpython3u as 'return 1'"
                    )
            continue
        conn = connect_as(f"alphaplus_{role}", world.info.dbname)
        for statement in (
            "create function pg_temp.evil() returns int language plpython3u as 'return 1'",
            "create table ml.mine (x int)",
            "create schema mine",
            "create table public.mine (x int)",
            "copy market.candles to program 'cat'",
            "alter function ml.champion owner to current_user",
            "drop table ml.predictions",
        ):
            with pytest.raises(DENIED):
                conn.execute(statement)  # type: ignore[call-overload]


def test_table_rights_are_those_of_the_rules(db_module: Connection) -> None:
    """Every table and view of the catalogue, each role, each verb."""
    rows = db_module.execute(
        "select n.nspname, c.relname, c.relkind::text, r.role, v.verb, has_table_privilege("
        "'alphaplus_' || r.role, c.oid, v.verb) or v.verb in ('select', 'insert', 'update',"
        " 'references') and has_any_column_privilege('alphaplus_' || r.role, c.oid, v.verb)"
        " from pg_class c join pg_namespace n on n.oid = c.relnamespace, unnest(%s::text[]) r (role),"
        " unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'trigger',"
        " 'references', 'maintain']) v (verb)"
        " where n.nspname = any(%s) and c.relkind in ('r', 'p', 'v', 'm', 'f')",
        (ROLES, ALL),
    ).fetchall()
    tables = {f"{schema}.{table}" for schema, table, kind, *_ in rows if kind in "rp"}
    assert set(WRITTEN) <= tables
    assert len(tables) > 60
    wrong = []
    for schema, table, kind, role, verb, may in rows:
        name = f"{schema}.{table}"
        if verb == "select":
            right = (role in ("app", "reader", "operator") and name not in COLUMNS_HIDDEN) or (
                role == "loader" and (schema in ("market", "sentiment") or name == "ops.settings")
            )
        elif verb in ("insert", "update", "delete"):
            kept = schema == "market" and re.fullmatch(r"_[a-z0-9_]+_rows|dirty_buckets", table)
            right = kind in "rp" and role in WRITTEN.get(name, BOTH if kept else set())
            right = right or (verb == "delete" and role in REMOVED.get(name, set()))
        else:
            right = False
        if schema == "procrastinate":
            right = False
        if may != right:
            wrong.append((role, name, verb, may))
    assert wrong == []


def test_function_rights_are_those_of_the_rules(db_module: Connection) -> None:
    rows = db_module.execute(
        "select n.nspname || '.' || p.proname, p.oid::regprocedure::text, p.prokind::text, p.provolatile::text,"
        " p.prosecdef, p.prorettype = 'trigger'::regtype, r.role"
        " from pg_proc p join pg_namespace n on n.oid = p.pronamespace, unnest(%s::text[]) r (role)"
        " where n.nspname = any(%s) and has_function_privilege('alphaplus_' || r.role, p.oid, 'execute')",
        (ROLES, SCHEMAS),
    ).fetchall()
    assert len(rows) > 100
    wrong = []
    for name, identity, kind, volatile, definer, trigger, role in rows:
        helper = name.split(".")[1].startswith("_")
        writes = kind == "p" or volatile == "v"
        if trigger:
            allowed = False
        elif role == "trainer":
            allowed = name in TRAINER
        elif not writes:
            allowed = not (definer and helper) or name in READING_DEFINERS
        elif role == "reader":
            allowed = False
        elif role == "app":
            allowed = name in APP_WRITES
        elif role == "loader":
            allowed = name in (
                "market.refresh_aggregates",
                "market.refresh_aggregate",
                "market.set_instrument",
                "market.add_event",
                "market.forget_simulation",
                "ops._lock",
                "ops._try_lock",
                "ops._hold",
                "ops._let_go",
                "ops._holder",
            ) or (helper and not definer and name.startswith(("market.", "sentiment.")))
        else:
            stores = (
                "feature._store",
                "feature._store_at",
                "feature._note_error",
                "feature._store_many",
                "feature._pack",
                "regime._refresh_batch",
                "ops._note_that_it_commits",
                "ops._lock",
                "ops._try_lock",
                "ops._hold",
                "ops._let_go",
                "ops._holder",
                "sentiment._score_batch",
                "ml._store_live",
                "analytics._refresh_snapshot",
                "analytics._refresh_states",
            )
            allowed = not (definer and helper) or name in stores
        if not allowed:
            wrong.append((role, identity))
    assert wrong == []
    trainer = {row[0] for row in rows if row[6] == "trainer"}
    assert trainer == TRAINER


def test_the_trainer_can_only_train(world: Connection, connect_as: Connect) -> None:
    version = toy.register(world, regime="trainer")
    conn = connect_as("alphaplus_trainer", world.info.dbname)
    for statement in (
        f"call ml.promote({version}, 'mine')",
        f"call ml.rollback('toy', 'AAA')",  # noqa: F541
        f"call ml.archive({version})",
        "select ml.evaluate_gates(1)",
        "call ml.retrain('toy', 'AAA')",
        "select * from ml.model_versions",
        "select * from ml.models",
        "select * from ml.training_jobs",
        "update ml.training_jobs set options = '{\"auto_promote\": true}'",
        "select * from market.candles",
        "select ml._register('toy', 'AAA', null, '', '', '{}')",
        "select ml._set_alias(1, 'champion', 'promote', 'mine')",
        "insert into ml.aliases values ('toy', 'AAA', 'r', 'champion', 1)",
        "update ml.gates set enabled = false",
        "select ml._enqueue(1, 'x')",
    ):
        with pytest.raises(DENIED):
            conn.execute(statement)  # type: ignore[call-overload]
    for statement in (
        "select * from procrastinate.procrastinate_jobs",
        "select procrastinate.procrastinate_finish_job_v1(1, 'succeeded', true)",
        "select procrastinate.procrastinate_register_worker_v1()",
        "select ml._claim_job(1, 'me')",
        "select ml._queue_end(1, 'succeeded')",
        "update ops.settings set value = '1'",
        "select ops.set_setting('training.max_attempts', '99')",
    ):
        with pytest.raises(DENIED):
            conn.execute(statement)  # type: ignore[call-overload]
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("select * from ml._next_job(gen_random_uuid())")
    assert caught.value.sqlstate == "AP430"
    # Training data only of a job that it holds.
    toy.retrain(world)
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("select * from ml._job_matrix(1, gen_random_uuid())")
    assert caught.value.sqlstate == "AP311"


def test_readers_do_not_see_artifacts(world: Connection, connect_as: Connect) -> None:
    version = toy.register(world, regime="reader")
    for role in ("reader", "app", "operator"):
        conn = connect_as(f"alphaplus_{role}", world.info.dbname)
        for statement in (
            "select state from ml.training_checkpoints",
            "select artifact from ml.model_versions",
            "select * from ml.model_versions",
            "select m.* from ml.model_versions m",
            "select m::text from ml.model_versions m",
            "copy ml.model_versions to stdout",
        ):
            with pytest.raises(DENIED):
                conn.execute(statement)  # type: ignore[call-overload]
        row = conn.execute(
            "select artifact_bytes from ml.registry where version_id = %s", (version,)
        ).fetchone()
        assert row == (len(toy.fake_artifact()),)
        assert conn.execute(
            "select metrics is not null from ml.model_versions where version_id = %s", (version,)
        ).fetchone() == (True,)


def test_what_reader_and_app_may_not(world: Connection, connect_as: Connect) -> None:
    version = toy.register(world, regime="no")
    for role in ("reader", "app"):
        conn = connect_as(f"alphaplus_{role}", world.info.dbname)
        for statement in (
            f"call ml.promote({version}, 'mine', true)",
            "call ml.retrain('toy', 'AAA')",
            "select ml.cancel_job(1)",
            "update ml.gates set enabled = false",
            "delete from market.candles",
            "insert into ml.predictions (as_of, symbol, model, horizon, prediction) values (now(), 'AAA', 'toy', '1 min', 1)",
            "update ops.settings set value = '1'",
        ):
            with pytest.raises(DENIED):
                conn.execute(statement)  # type: ignore[call-overload]


def test_what_the_operator_may_and_may_not(world: Connection, connect_as: Connect) -> None:
    conn = connect_as("alphaplus_operator", world.info.dbname)
    a, b = (toy.register(world, regime="op") for _ in range(2))
    conn.execute("call ml.promote(%s, 'a')", (a,))
    conn.execute("call ml.promote(%s, 'b', true)", (b,))
    conn.execute("call ml.rollback('toy', 'AAA', regime => 'op')")
    conn.execute("call ml.archive(%s, 'done')", (b,))
    actors = conn.execute("select distinct actor from ml.alias_log where regime = 'op'").fetchall()
    assert actors == [("alphaplus_operator",)]
    row = conn.execute("call ml.retrain('toy', 'BBB')").fetchone()
    assert row is not None
    assert conn.execute("select ml.cancel_job(%s)", (row[0],)).fetchone() == ("cancelled",)
    conn.execute("update ml.gates set threshold = threshold")
    conn.execute("update ops.settings set value = value where name = 'training.max_attempts'")
    conn.execute("update ops.schedules set enabled = enabled")
    for statement in (
        "update ml.aliases set version_id = 1",
        "delete from ml.model_versions",
        "update ml.training_jobs set status = 'succeeded'",
        "insert into ml.gate_results (version_id, gate, metric, threshold, comparison, against, passed, detail)"
        " values (1, 'x', 'x', 0, '>', 'absolute', true, 'x')",
        "select ml._finish_job(1, gen_random_uuid(), '{}', '', '', '')",
        "select ml._set_alias(1, 'champion', 'promote', 'mine')",
        "set role alphaplus_owner",
    ):
        with pytest.raises(DENIED):
            conn.execute(statement)  # type: ignore[call-overload]


def test_what_the_loader_may_and_may_not(world: Connection, connect_as: Connect) -> None:
    conn = connect_as("alphaplus_loader", world.info.dbname)
    conn.execute(
        "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
        " values ('AAA', '1 min', '2026-01-01', '2026-01-01 00:01', 1, 1, 1, 1, 1)"
    )
    conn.execute("call market.refresh_aggregates()")
    for statement in (
        "select * from ml.models",
        "update ops.settings set value = '1'",
        "call ml.retrain('toy', 'AAA')",
        "delete from feature.vectors",
        "drop table market.candles",
    ):
        with pytest.raises(DENIED):
            conn.execute(statement)  # type: ignore[call-overload]


def test_a_planted_function_does_not_lead_the_owner_astray(
    world: Connection, connect_as: Connect
) -> None:
    """Names that shadow built-in ones in the caller's own schemas are not looked at."""
    conn = connect_as("alphaplus_operator", world.info.dbname)
    conn.execute(
        "create function pg_temp.clock_timestamp() returns timestamptz language plpgsql as"
        " $$ begin raise exception 'astray as %', current_user; end $$"
    )
    conn.execute("set search_path = pg_temp, pg_catalog")
    version = toy.register(world, regime="planted")
    conn.execute("call ml.promote(%s, 'x')", (version,))
    conn.execute("call ml.retrain('toy', 'AAA', options => '{\"seed\": 77}')")


def test_nobody_alters_the_functions_that_run_users_selects(
    world: Connection, connect_as: Connect
) -> None:
    for role in ROLES:
        with connect_as(f"alphaplus_{role}", world.info.dbname) as conn:
            for statement in (
                "alter function feature._set_columns(text) security invoker",
                "drop function feature._set_columns(text)",
                "set role alphaplus_select",
            ):
                with pytest.raises(DENIED):
                    conn.execute(statement)  # type: ignore[call-overload]


@pytest.mark.parametrize("role", ROLES)
def test_connections_are_encrypted(server: Server, world: Connection, role: str) -> None:
    with psycopg.connect(server.conninfo(world.info.dbname, f"alphaplus_{role}")) as conn:
        assert conn.execute(
            "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
        ).fetchone() == (True,)


def test_applying_again_changes_no_right(db_module: Connection, server: Server) -> None:
    from alphaplus import migrations as applier

    query = (
        "select n.nspname, p.oid::regprocedure::text, array(select x::text from unnest(p.proacl) x order by 1),"
        " p.proowner::regrole::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
        " where n.nspname = any(%s) order by 2"
    )
    before = db_module.execute(query, (ALL,)).fetchall()
    logic = db_module.execute("select * from ops.logic order by 1, 2").fetchall()
    applier.migrate(server.conninfo(db_module.info.dbname))
    # What the toy world replaced is back, the rest is as it was.
    again = db_module.execute(query, (ALL,)).fetchall()
    kept = {row[1]: row for row in again}
    toys = ("ml.training_set", "ml._training_bytes", "ml._training_targets")
    assert [r for r in before if not r[1].startswith(toys) and kept.get(r[1]) != r] == []
    assert db_module.execute("select * from ops.logic order by 1, 2").fetchall() == logic


def test_rights_on_functions_that_are_not_there_are_refused(db: Connection) -> None:
    text = (ROOT / "sql" / "privileges.sql").read_text()
    with pytest.raises(psycopg.Error, match=r"not there: ml\.no_such_function") as caught:
        db.execute(text.replace("'ml.record_prediction',", "'ml.no_such_function',"))
    assert caught.value.diag.sqlstate == "AP800"
