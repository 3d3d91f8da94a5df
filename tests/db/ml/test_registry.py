"""The registry: immutable versions, aliases as rows, gates, history as a stack."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from psycopg import errors

from tests.conftest import Server, copy_of, drop_database
from tests.db import lifecycle as toy

Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def world(db_module: Connection) -> Connection:
    toy.install(db_module)
    return db_module


@pytest.fixture
def regime(request: pytest.FixtureRequest) -> str:
    """A line of versions of the test's own."""
    return str(request.node.name)


def champion(conn: Connection, regime: str | None, symbol: str = "AAA") -> int | None:
    row = conn.execute("select ml.champion('toy', %s, %s)", (symbol, regime)).fetchone()
    assert row is not None
    return row[0]


def promote(conn: Connection, version: int) -> None:
    conn.execute("call ml.promote(%s, 'test', true)", (version,))


def rollback(conn: Connection, regime: str | None, steps: int = 1, to: int | None = None) -> None:
    conn.execute("call ml.rollback('toy', 'AAA', %s, %s, %s, 'test')", (steps, to, regime))


def sqlstate(conn: Connection, statement: str, arguments: Any = ()) -> str | None:
    """The SQLSTATE that a statement raises; its HINT must be there."""
    try:
        conn.execute(statement, arguments)  # type: ignore[call-overload]
    except psycopg.Error as error:
        assert error.diag.message_hint, f"{error.sqlstate} has no hint"
        return error.sqlstate
    return None


def test_three_promotions_and_two_rollbacks_give_the_first(world: Connection, regime: str) -> None:
    a, b, c = (toy.register(world, regime=regime) for _ in range(3))
    for version in (a, b, c):
        promote(world, version)
    rollback(world, regime)
    assert champion(world, regime) == b
    rollback(world, regime)
    assert champion(world, regime) == a
    assert sqlstate(world, "call ml.rollback('toy', 'AAA', regime => %s)", (regime,)) == "AP408"
    log = world.execute(
        "select action, version_id, previous_version_id, actor, reason from ml.alias_log"
        " where regime = %s order by history_id",
        (regime,),
    ).fetchall()
    assert [row[:3] for row in log] == [
        ("promote", a, None),
        ("promote", b, a),
        ("promote", c, b),
        ("rollback", b, c),
        ("rollback", a, b),
    ]
    assert {row[3] for row in log} == {"postgres"}
    assert all("test" in row[4] for row in log)


def test_rollback_of_two_steps_and_to_a_version(world: Connection, regime: str) -> None:
    versions = [toy.register(world, regime=regime) for _ in range(4)]
    for version in versions:
        promote(world, version)
    rollback(world, regime, steps=2)
    assert champion(world, regime) == versions[1]
    for version in versions[2:]:
        promote(world, version)
    rollback(world, regime, to=versions[0])
    assert champion(world, regime) == versions[0]
    promote(world, versions[3])
    # 1 is no longer below: the way back from there was given up.
    assert (
        sqlstate(world, "call ml.rollback('toy', 'AAA', 1, %s, %s)", (versions[1], regime))
        == "AP408"
    )


def test_a_rolled_back_promotion_changes_nothing(world: Connection, regime: str) -> None:
    a, b = (toy.register(world, regime=regime) for _ in range(2))
    promote(world, a)
    before = world.execute("select count(*) from ml.alias_history").fetchone()
    with world.transaction(force_rollback=True):
        promote(world, b)
        assert champion(world, regime) == b
    assert champion(world, regime) == a
    assert world.execute("select count(*) from ml.alias_history").fetchone() == before


def test_two_promotions_at_once_serialise(
    world: Connection, regime: str, connect_as: Callable[[str, str], Connection]
) -> None:
    a, b, c = (toy.register(world, regime=regime) for _ in range(3))
    promote(world, a)
    one, two = (connect_as("alphaplus_operator", world.info.dbname) for _ in range(2))
    one.autocommit = False
    promote(one, b)
    started = threading.Event()

    def second() -> None:
        started.set()
        promote(two, c)

    thread = threading.Thread(target=second)
    thread.start()
    started.wait()
    toy.until(
        lambda: world.execute(
            "select 1 from pg_locks where not granted and pid = %s", (two.info.backend_pid,)
        ).fetchone()
    )
    assert champion(world, regime) == a  # nobody sees half of it
    one.commit()
    thread.join(timeout=30)
    assert champion(world, regime) == c
    rows = world.execute(
        "select previous_version_id, version_id from ml.alias_history where regime = %s"
        " order by history_id",
        (regime,),
    ).fetchall()
    assert rows == [(None, a), (a, b), (b, c)]


def test_many_promotions_at_once_leave_one_chain(
    world: Connection, regime: str, connect_as: Callable[[str, str], Connection]
) -> None:
    versions = [toy.register(world, regime=regime) for _ in range(6)]
    connections = [connect_as("alphaplus_operator", world.info.dbname) for _ in versions]
    threads = [
        threading.Thread(target=promote, args=pair)
        for pair in zip(connections, versions, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    rows = world.execute(
        "select previous_version_id, version_id from ml.alias_history where regime = %s"
        " order by history_id",
        (regime,),
    ).fetchall()
    assert sorted(row[1] for row in rows) == versions
    assert [row[0] for row in rows] == [None, *(row[1] for row in rows[:-1])]
    assert champion(world, regime) == rows[-1][1]


def test_a_prepared_statement_sees_the_new_version_at_its_next_execution(
    world: Connection, regime: str, connect_as: Callable[[str, str], Connection]
) -> None:
    a, b = (toy.register(world, regime=regime) for _ in range(2))
    promote(world, a)
    reader = connect_as("alphaplus_reader", world.info.dbname)
    reader.execute(f"prepare p as select ml.champion('toy', 'AAA', '{regime}')")
    reader.execute("set plan_cache_mode = force_generic_plan")
    for _ in range(8):
        assert reader.execute("execute p").fetchone() == (a,)
    promote(world, b)
    assert reader.execute("execute p").fetchone() == (b,)
    rollback(world, regime)
    assert reader.execute("execute p").fetchone() == (a,)


def test_two_databases_on_one_server_do_not_meet(
    world: Connection, server: Server, admin: Connection, template_db: str
) -> None:
    other_name = copy_of(admin, template_db)
    try:
        with psycopg.connect(server.conninfo(other_name), autocommit=True) as other:
            toy.install(other)
            a = toy.register(other, regime="shared")
            promote(other, a)
            assert champion(other, "shared") == a
            assert champion(world, "shared") is None
            # Locks, too, are the database's own.
            with other.transaction():
                promote(other, toy.register(other, regime="shared"))
                promote(world, toy.register(world, regime="shared"))
    finally:
        drop_database(admin, other_name)


def test_the_fallback_chain(world: Connection) -> None:
    exact, symbol, pooled = (
        toy.register(world, symbol=s, regime=r)
        for s, r in (("BBB", "chain"), ("BBB", None), (None, None))
    )
    assert champion(world, "chain", "BBB") is None
    for version in (pooled, symbol, exact):
        promote(world, version)
        assert champion(world, "chain", "BBB") == version
    assert champion(world, None, "BBB") == symbol
    assert champion(world, "other", "BBB") == symbol
    assert champion(world, "chain", "CCC") == pooled
    world.execute("call ml.clear_alias('toy', null, 'champion')")
    world.execute("call ml.clear_alias('toy', 'BBB', 'champion')")


def test_versions_are_immutable_and_the_served_one_stays(world: Connection, regime: str) -> None:
    a = toy.register(world, regime=regime)
    promote(world, a)
    for change, state in (
        ("update ml.model_versions set artifact = '\\x00' where version_id = %s", "AP401"),
        ("update ml.model_versions set metrics = '{}' where version_id = %s", None),
        ("update ml.model_versions set metrics = '{\"auc\": 1}' where version_id = %s", "AP401"),
        ("delete from ml.model_versions where version_id = %s", "AP402"),
        ("call ml.archive(%s, 'no')", "AP402"),
    ):
        if state is not None:
            assert sqlstate(world, change, (a,)) == state
    for table in ("alias_history", "gate_results"):
        for change in ("update ml.{} set actor = 'x'", "delete from ml.{}", "truncate ml.{}"):
            assert sqlstate(world, change.format(table)) == "AP403"


def test_archived_versions_are_out_of_play(world: Connection, regime: str) -> None:
    a, b, c = (toy.register(world, regime=regime) for _ in range(3))
    for version in (a, b, c):
        promote(world, version)
    world.execute("call ml.archive(%s, 'old')", (b,))
    world.execute("call ml.archive(%s, 'again')", (b,))  # changes nothing
    assert world.execute(
        "select archived_by, archive_reason from ml.registry where version_id = %s", (b,)
    ).fetchone() == ("postgres", "old")
    assert sqlstate(world, "call ml.promote(%s, 'x', true)", (b,)) == "AP405"
    assert sqlstate(world, "call ml.set_alias(%s, 'challenger')", (b,)) == "AP405"
    rollback(world, regime)
    assert champion(world, regime) == a
    rows = world.execute(
        "select action, previous_version_id from ml.alias_log where regime = %s and action = 'archive'",
        (regime,),
    ).fetchall()
    assert rows == [("archive", b)]


def test_challenger_and_shadow(world: Connection, regime: str) -> None:
    a, b = (toy.register(world, regime=regime) for _ in range(2))
    world.execute("call ml.set_alias(%s, 'challenger', 'try')", (a,))
    world.execute("call ml.set_alias(%s, 'shadow', 'watch')", (b,))
    aliases = dict(
        world.execute(
            "select version_id, alias from ml.registry where regime = %s", (regime,)
        ).fetchall()
    )
    assert aliases == {a: "challenger", b: "shadow"}
    promote(world, a)
    aliases = dict(
        world.execute(
            "select version_id, alias from ml.registry where regime = %s", (regime,)
        ).fetchall()
    )
    assert aliases == {a: "champion", b: "shadow"}
    assert sqlstate(world, "call ml.set_alias(%s, 'challenger')", (a,)) == "AP409"
    assert sqlstate(world, "call ml.set_alias(%s, 'champion')", (b,)) == "AP409"
    world.execute("call ml.archive(%s, 'done')", (b,))
    assert world.execute(
        "select alias from ml.registry where version_id = %s", (b,)
    ).fetchone() == (None,)


@pytest.mark.parametrize(
    ("artifact", "changes", "state"),
    [
        (b"\x80\x04\x95pickle", {}, "AP411"),
        (b"PK\x03\x04torch.save", {}, "AP411"),
        (b"\x1f\x8bgzip", {}, "AP411"),
        (b"tree but not quite", {}, "AP411"),
        (b"\xff\xfe\xfd", {}, "AP411"),
        (toy.fake_artifact(), {"format": "pickle"}, "AP411"),
        (toy.fake_artifact(), {"format": "onnx"}, "AP411"),
        (toy.fake_artifact().replace(b"idx=3", b"idx=4"), {}, "AP412"),
        (toy.fake_artifact(), {"features": list(reversed(toy.FEATURES))}, "AP412"),
        (toy.fake_artifact("x" * 200_000), {}, "AP413"),
        (toy.fake_artifact(), {"code_version": None}, "AP415"),
    ],
)
def test_what_is_refused(
    world: Connection, artifact: bytes, changes: dict[str, Any], state: str
) -> None:
    world.execute(
        "update ops.settings set value = '100000' where name = 'registry.max_artifact_bytes'"
    )
    before = world.execute("select count(*) from ml.model_versions").fetchone()
    with pytest.raises(psycopg.Error) as caught:
        toy.register(world, artifact=artifact, **changes)
    assert caught.value.sqlstate == state
    assert world.execute("select count(*) from ml.model_versions").fetchone() == before


def test_a_damaged_artifact_is_refused(world: Connection) -> None:
    with pytest.raises(psycopg.Error) as caught:
        world.execute(
            "select ml.register_version('toy', 'AAA', %s, sha256('other'), '{}')",
            (toy.fake_artifact(),),
        )
    assert caught.value.sqlstate == "AP414"


def test_unknown_things_have_their_own_sqlstate(world: Connection) -> None:
    assert sqlstate(world, "call ml.promote(-1)") == "AP404"
    assert sqlstate(world, "call ml.archive(-1)") == "AP404"
    assert sqlstate(world, "call ml.rollback('toy', 'NONE')") == "AP101"
    assert sqlstate(world, "call ml.retrain('none', 'AAA')") == "AP302"
    assert sqlstate(world, "call ml.retrain('toy', 'NONE')") == "AP101"
    assert sqlstate(world, "call ml.retrain('toy', 'AAA', as_of => '2999-01-01')") == "AP303"
    for options in ("[1]", '"folds"', '{"every": "1 day"}'):
        assert sqlstate(world, f"call ml.retrain('toy', 'AAA', options => '{options}')") == "AP304"
    assert sqlstate(world, "call ml.retrain('toy', 'AAA', as_of => '-infinity')") == "AP303"
    assert sqlstate(world, "call ml.retrain('toy', 'AAA', 'calm')") == "AP601"
    assert sqlstate(world, "call ml.retrain('toy', null, 'trending')") == "AP305"
    assert sqlstate(world, "select ml.cancel_job(-1)") == "AP306"


def test_gates_decide(world: Connection, regime: str) -> None:
    bad = toy.register(world, regime=regime, metrics={**toy.GOOD, "auc": 0.51, "auc_low": 0.49})
    with pytest.raises(psycopg.Error) as caught:
        world.execute("call ml.promote(%s, 'please')", (bad,))
    assert caught.value.sqlstate == "AP406"
    assert "auc" in str(caught.value.diag.message_detail)
    assert champion(world, regime) is None
    assert sqlstate(world, "call ml.promote(%s, force => true)", (bad,)) == "AP407"
    good = toy.register(world, regime=regime)
    world.execute("call ml.promote(%s, 'good')", (good,))
    assert champion(world, regime) == good
    world.execute("call ml.promote(%s, 'must', true)", (bad,))
    reason = world.execute(
        "select reason from ml.alias_log where regime = %s order by history_id desc limit 1",
        (regime,),
    ).fetchone()
    assert reason is not None
    assert "must [forced past: auc" in reason[0]
    count = world.execute(
        "select count(*), bool_and(passed) from ml.gate_results where version_id = %s", (good,)
    ).fetchone()
    assert count is not None
    assert count[0] >= 4
    assert count[1]


def test_a_relative_gain(world: Connection, regime: str) -> None:
    """The seeds' F1 better by 3 %: of the champion's, on the same rows."""
    champion_id = toy.register(world, regime=regime)
    world.execute("call ml.promote(%s, 'first', true)", (champion_id,))
    with world.transaction(force_rollback=True):
        world.execute("update ml.gates set enabled = true where gate = 'f1_champion'")
        for f1, passed in ((0.5149, False), (0.5151, True)):
            compared = {"version_id": champion_id, "values": {"f1": 0.5}, "challenger": {"f1": f1}}
            new = toy.register(world, regime=regime, metrics={**toy.GOOD, "champion": compared})
            row = world.execute(
                "select passed, value, reference_value, detail from ml.gate_report(%s)"
                " where gate = 'f1_champion'",
                (new,),
            ).fetchone()
            assert row is not None
            assert row[:3] == (passed, f1, 0.5) and "relative difference 0.03" in row[3].replace(
                "0.0298", "0.03"
            )
        compared = {"version_id": champion_id, "values": {"f1": 0}, "challenger": {"f1": 0.5}}
        new = toy.register(world, regime=regime, metrics={**toy.GOOD, "champion": compared})
        assert world.execute(
            "select passed from ml.gate_report(%s) where gate = 'f1_champion'", (new,)
        ).fetchone() == (False,), "a share of nothing is no number"


@pytest.mark.parametrize("odd", ["NaN", "Infinity", "-Infinity", None])
def test_what_is_no_number_passes_no_gate(world: Connection, regime: str, odd: str | None) -> None:
    metrics = {
        **dict.fromkeys(("auc", "auc_low", "log_loss", "ece_beyond_chance"), odd),
        "baseline": {"log_loss": 1},
    }
    version = toy.register(world, regime=regime, metrics=metrics)
    verdicts = world.execute(
        "select passed, detail from ml.gate_report(%s) where against <> 'champion'", (version,)
    ).fetchall()
    assert verdicts
    for passed, detail in verdicts:
        assert not passed
        assert "is missing" in detail


@pytest.mark.parametrize(
    ("theirs", "ours", "passes"), [(0.80, 0.81, True), (0.80, 0.796, True), (0.80, 0.79, False)]
)
def test_the_champion_is_compared_on_the_same_rows(
    world: Connection, request: pytest.FixtureRequest, theirs: float, ours: float, passes: bool
) -> None:
    regime = request.node.name
    first = toy.register(world, regime=regime)
    promote(world, first)
    metrics = {
        **toy.GOOD,
        "champion": {
            "version_id": first,
            "values": {"auc": theirs, "log_loss": 0.4},
            "challenger": {"auc": ours, "log_loss": 0.4},
        },
    }
    second = toy.register(world, regime=regime, metrics=metrics)
    passed = world.execute(
        "select passed from ml.evaluate_gates(%s) where gate = 'auc_champion'", (second,)
    ).fetchone()
    assert passed == (passes,)
    # Compared with a champion that is no longer one, it proves nothing.
    promote(world, toy.register(world, regime=regime))
    detail = world.execute(
        "select passed, detail from ml.gate_report(%s) where gate = 'auc_champion'", (second,)
    ).fetchone()
    assert detail is not None
    assert not detail[0]
    assert f"compared with version {first}" in detail[1]


def test_a_model_s_own_gate_takes_the_general_one_s_place(world: Connection, regime: str) -> None:
    version = toy.register(world, regime=regime)
    with world.transaction(force_rollback=True):
        world.execute(
            "insert into ml.gates (gate, model, metric, comparison, threshold, description)"
            " values ('toy_auc', 'toy', 'auc', '>=', 0.9, 'test')"
        )
        rows = dict(
            world.execute("select gate, passed from ml.gate_report(%s)", (version,)).fetchall()
        )
    assert rows["toy_auc"] is False
    assert "auc" not in rows


class Registry(RuleBasedStateMachine):
    """Random promotions, rollbacks, archivings beside a Python model of the stack."""

    conn: Connection
    number = 0

    def __init__(self) -> None:
        super().__init__()
        Registry.number += 1
        self.regime = f"machine {Registry.number}"
        self.versions: list[int] = []
        self.stack: list[int] = []
        self.archived: set[int] = set()

    def _call(self, statement: str, arguments: Any) -> str | None:
        return sqlstate(self.conn, statement, arguments)

    def _back(self, stack: list[int]) -> list[int] | None:
        for i in range(len(stack) - 2, -1, -1):
            if stack[i] != stack[-1] and stack[i] not in self.archived:
                return stack[: i + 1]
        return None

    @rule()
    def register(self) -> None:
        self.versions.append(toy.register(self.conn, regime=self.regime))

    @rule(pick=st.integers(0, 100))
    def promote(self, pick: int) -> None:
        if not self.versions:
            return
        version = self.versions[pick % len(self.versions)]
        state = self._call("call ml.promote(%s, 'why', true)", (version,))
        if version in self.archived:
            assert state == "AP405"
        else:
            assert state is None
            if not self.stack or self.stack[-1] != version:
                self.stack.append(version)

    @rule(steps=st.integers(1, 3))
    def rollback(self, steps: int) -> None:
        expected: list[int] | None = list(self.stack)
        for _ in range(steps):
            expected = self._back(expected) if expected else None
        state = self._call("call ml.rollback('toy', 'AAA', %s, regime => %s)", (steps, self.regime))
        assert state == (None if expected else "AP408")
        self.stack = expected or self.stack

    @rule(pick=st.integers(0, 100))
    def rollback_to(self, pick: int) -> None:
        if not self.versions:
            return
        version = self.versions[pick % len(self.versions)]
        expected = self._back(self.stack) if self.stack else None
        while expected and expected[-1] != version:
            expected = self._back(expected)
        state = self._call(
            "call ml.rollback('toy', 'AAA', to_version => %s, regime => %s)", (version, self.regime)
        )
        assert state == (None if expected else "AP408")
        self.stack = expected or self.stack

    @rule(pick=st.integers(0, 100))
    def archive(self, pick: int) -> None:
        if not self.versions:
            return
        version = self.versions[pick % len(self.versions)]
        state = self._call("call ml.archive(%s, 'why')", (version,))
        if self.stack and self.stack[-1] == version:
            assert state == "AP402"
        else:
            assert state is None
            self.archived.add(version)

    @rule()
    def clear(self) -> None:
        state = self._call("call ml.clear_alias('toy', 'AAA', 'champion', %s)", (self.regime,))
        assert state == (None if self.stack else "AP409")
        self.stack = []

    @invariant()
    def same(self) -> None:
        assert champion(self.conn, self.regime) == (self.stack[-1] if self.stack else None)
        row = self.conn.execute(
            "select ml._alias_stack('toy', 'AAA', %s)", (self.regime,)
        ).fetchone()
        assert row == (self.stack,)


@pytest.fixture
def machine(world: Connection) -> Iterator[type[Registry]]:
    Registry.conn = world
    yield Registry


def test_random_histories_are_those_of_a_stack(machine: type[Registry]) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


SERVING = """
select array_agg(c.version_id) from ml.serving c
where c.model = 'toy' and (c.symbol = %(symbol)s or c.symbol is null and %(symbol)s <> all (c.others))
"""


@pytest.mark.parametrize("seed", range(4))
def test_one_row_says_who_serves_a_symbol(
    db: Connection, connect_as: Callable[[str, str], Connection], seed: int
) -> None:
    """As ml.champion does without regimes, whatever is promoted, taken back and cleared at once."""
    toy.install(db)
    lines = [None, "AAA", "BBB"]
    versions = {line: [toy.register(db, symbol=line) for _ in range(3)] for line in lines}
    versions["regime"] = [toy.register(db, symbol="AAA", regime="calm")]
    refused: list[str | None] = []

    def change(conn: Connection, random: Random, isolation: str) -> None:
        conn.execute(f"set default_transaction_isolation = '{isolation}'")
        for _ in range(25):
            line = random.choice(lines)
            try:
                match random.randrange(4):
                    case 0:
                        conn.execute("call ml.rollback('toy', %s)", (line,))
                    case 1:
                        conn.execute("call ml.clear_alias('toy', %s, 'champion')", (line,))
                    case 2:
                        promote(conn, versions["regime"][0])
                    case _:
                        promote(conn, random.choice(versions[line]))
            except psycopg.Error as error:
                refused.append(error.sqlstate)

    threads = [
        threading.Thread(
            target=change,
            args=(
                connect_as("alphaplus_operator", db.info.dbname),
                Random(10 * seed + i),
                isolation,
            ),
        )
        for i, isolation in enumerate(["read committed", "read committed", "repeatable read"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=900)
    # Nothing to roll back to or to clear, or overtaken under a snapshot of the whole transaction.
    assert set(refused) <= {"AP408", "AP409", "40001"}, set(refused)
    for symbol in ("AAA", "BBB", "CCC"):
        row = db.execute(SERVING, {"symbol": symbol}).fetchone()
        assert row is not None
        serves = champion(db, None, symbol)
        assert row[0] == (None if serves is None else [serves]), symbol
    # And one after the other.
    for line in (None, "BBB", "AAA"):
        promote(db, versions[line][0])
        for symbol in ("AAA", "BBB", "CCC"):
            row = db.execute(SERVING, {"symbol": symbol}).fetchone()
            assert row == ([champion(db, None, symbol)],)


def test_nothing_is_lost_when_the_session_dies(
    world: Connection, regime: str, server: Server
) -> None:
    a = toy.register(world, regime=regime)
    conn = psycopg.connect(server.conninfo(world.info.dbname))
    promote(conn, a)
    world.execute("select pg_terminate_backend(%s)", (conn.info.backend_pid,))
    with pytest.raises((errors.AdminShutdown, psycopg.OperationalError)):
        conn.execute("select 1")
    assert champion(world, regime) is None
    conn.close()
