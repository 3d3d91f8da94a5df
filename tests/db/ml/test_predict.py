"""Serving: the library's own numbers, the right version, and a clear no."""

from __future__ import annotations

import datetime as dt
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import psycopg
import pytest
from alphaplus.trainer import spec as trainer_spec

from tests.conftest import Server
from tests.db import serving as w
from tests.db.serving import Array, at, named, one

Conn = psycopg.Connection[Any]
Connect = Callable[[str, str], Conn]
RAW = "select (ml.score_version(%s, %s)).raw"


@pytest.fixture(scope="module")
def data() -> tuple[Array, Array, Array]:
    """(training x, training y, test x): LightGBM's example, or rows like it."""
    folder = Path(__file__).resolve().parents[4] / "shared" / "data" / "lightgbm"
    if folder.is_dir():
        train = np.loadtxt(folder / "binary.train")
        test = np.loadtxt(folder / "binary.test")
        return train[:, 1:], train[:, 0], test[:, 1:]
    warnings.warn(f"REAL DATA ABSENT: {folder} is not there; rows like it are used", stacklevel=1)
    x, y = w.synthetic(7500)
    return x[:7000], y[:7000], x[7000:]


@pytest.fixture(scope="module")
def booster(data: tuple[Array, Array, Array]) -> lightgbm.Booster:
    return w.train(data[0], data[1], 100)


@pytest.fixture(scope="module")
def world(db_module: Conn, data: tuple[Array, Array, Array]) -> Conn:
    w.install(db_module)
    w.store(db_module, data[2])
    return db_module


@pytest.fixture(scope="module")
def version(world: Conn, booster: lightgbm.Booster) -> int:
    """The pooled champion of model 'fixed'."""
    return w.register(world, booster, promote=True)


def lists(x: Array) -> list[list[float]]:
    rows: list[list[float]] = x.tolist()
    return rows


def sqlstate(db: Conn, query: str, *params: Any) -> str:
    """The SQLSTATE a statement fails with; it must come with a hint."""
    with pytest.raises(psycopg.Error) as caught:
        db.execute(query, params or None)
    assert caught.value.diag.message_hint, caught.value
    return str(caught.value.sqlstate)


def test_raw_scores_are_lightgbms_own_to_the_last_bit(
    world: Conn, version: int, booster: lightgbm.Booster, data: tuple[Array, Array, Array]
) -> None:
    expected = booster.predict(data[2], raw_score=True)
    rows = world.execute(
        "select (ml.score_version(%s, v.values)).raw from feature.vectors v"
        " join feature.sets s using (set_id) where s.name = 'fixed' and symbol = 'AAA' order by v.ts",
        (version,),
    ).fetchall()
    assert [row[0] for row in rows] == expected.tolist()


def test_single_stored_many_and_batch_agree(
    world: Conn, version: int, booster: lightgbm.Booster, data: tuple[Array, Array, Array]
) -> None:
    expected = booster.predict(data[2])
    many = world.execute(
        "select prediction, version_id from ml.predict_many('fixed',"
        " 'select v.symbol, v.ts from feature.vectors v join feature.sets s using (set_id)"
        "   where s.name = ''fixed'' and v.symbol = ''AAA''') order by ts"
    ).fetchall()
    assert {row[1] for row in many} == {version}
    found = np.array([row[0] for row in many])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)
    batch = one(world, "select ml.score_many(%s, %s)", version, lists(data[2]))
    assert batch == found.tolist()
    history = world.execute(
        "select ts, prediction, version_id from ml.predict_history('fixed', 'aaa/usdt', %s, %s)"
        " order by ts",
        (at(3), at(490)),
    ).fetchall()
    assert [row[0] for row in history] == [at(i) for i in range(3, 490)]
    assert [row[1] for row in history] == batch[3:490]
    assert {row[2] for row in history} == {version}
    nothing = "select count(*) from ml.predict_history('fixed', 'AAA', %s, %s)"
    assert one(world, nothing, at(-90), at(0)) == 0
    for i in (0, 17, 499):
        single = one(world, "select ml.predict('fixed', %s::float8[])", lists(data[2])[i])
        stored = named(world, "select * from ml.predict_stored('fixed', 'AAA', %s)", at(i))
        live = named(world, "select * from ml.predict('fixed', 'aaa/usdt', %s)", at(i))
        assert single == stored.prediction == live.prediction == live.probability == found[i]
        assert stored.version_id == live.version_id == version
        assert single == one(
            world, "select ml.predict_vector('fixed', 'BBB', %s::float8[])", lists(data[2])[i]
        )
        assert (live.symbol, live.feature_as_of, live.partition_used) == ("AAA", at(i), "pooled")
        assert not live.is_fallback and not live.expired


def test_a_version_is_served_with_the_set_it_was_trained_on(
    db: Conn, booster: lightgbm.Booster, data: tuple[Array, Array, Array]
) -> None:
    """Whatever set the model's next version is to be trained on."""
    w.install(db)
    x = data[2][:50]
    w.store(db, x)
    old = w.register(db, booster, promote=True)
    queries = (
        "select ts, prediction, version_id from ml.predict_many('fixed',"
        " 'select v.symbol, v.ts from feature.vectors v') order by ts",
        "select ts, prediction, version_id from ml.predict_history('fixed', 'AAA', '-infinity',"
        " 'infinity') order by ts",
        "select p.* from generate_series(0, 49) i, lateral ml.predict_stored('fixed', 'AAA',"
        f" '{w.START}'::timestamptz + i * interval '1 minute') p order by i",
        "select prediction, version_id, feature_as_of, reason from ml.predict('fixed', 'AAA',"
        f" '{at(7)}')",
        f"select * from ml.explain('fixed', 'AAA', '{at(7)}')",
    )
    before = [db.execute(query).fetchall() for query in queries]  # type: ignore[arg-type]
    assert len(before[0]) == 50 and before[3][0][1] == old
    db.execute(
        "insert into feature.sets (name, version, features, definition, kind, lookback, sha256)"
        " select name, 2, features, definition, kind, lookback, sha256('two') from feature.sets"
        " where name = 'fixed'"
    )
    db.execute(
        "insert into feature.vectors (set_id, symbol, ts, values)"
        " select s.set_id, v.symbol, v.ts, array(select -x from unnest(v.values) x)"
        " from feature.vectors v, feature.sets s where s.name = 'fixed' and s.version = 2"
    )
    db.execute("update ml.models set feature_version = 2 where model = 'fixed'")
    query = queries[0].replace("select v.symbol", "select distinct v.symbol")
    assert db.execute(query).fetchall() == before[0]  # type: ignore[arg-type]
    for query, found in list(zip(queries, before, strict=True))[1:]:
        assert db.execute(query).fetchall() == found, query  # type: ignore[arg-type]
    # Both are kept up to date until the new one serves.
    sets = "select version from ml.sets_in_use where name = 'fixed' order by version"
    assert [row[0] for row in db.execute(sets)] == [1, 2]
    new = w.register(db, booster, promote=True)
    served = one(db, "select version_id from ml.predict('fixed', 'AAA', %s)", at(7))
    assert served == new
    history = db.execute(queries[1]).fetchall()  # type: ignore[arg-type]
    np.testing.assert_allclose([row[1] for row in history], booster.predict(-x), rtol=1e-15)


def test_null_and_nan_are_missing_values(
    world: Conn, version: int, booster: lightgbm.Booster, data: tuple[Array, Array, Array]
) -> None:
    row = data[2][3].copy()
    row[[0, 5, 27]] = np.nan
    expected = booster.predict(row.reshape(1, -1), raw_score=True)[0]
    assert one(world, RAW, version, row.tolist()) == expected
    nulls = [None if math.isnan(v) else v for v in row.tolist()]
    assert one(world, RAW, version, nulls) == expected
    # what a row left behind is not seen by the next one
    assert (
        one(world, RAW, version, data[2][3].tolist())
        == booster.predict(data[2][3:4], raw_score=True)[0]
    )


@pytest.mark.parametrize(
    ("model", "spec"),
    [
        ("fixed", {"output": {"kind": "log_odds"}, "calibration": {"method": "platt", "a": 0.7, "b": -0.3}}),
        ("fixed", {"output": {"kind": "log_odds"}, "calibration": {
            "method": "isotonic", "x": [0.1, 0.4, 0.9], "y": [0.05, 0.5, 0.7]}}),
        ("fixed_value", {"output": {"kind": "identity"}}),
        ("fixed_value", {"output": {"kind": "exp", "scale": 3.0}}),
        ("fixed_value", {"output": {"kind": "expm1", "scale": 10.0}}),
    ],
)  # fmt: skip
def test_predictions_follow_the_trainers_spec(
    world: Conn,
    booster: lightgbm.Booster,
    data: tuple[Array, Array, Array],
    model: str,
    spec: dict[str, Any],
) -> None:
    id_ = w.register(
        world, booster, model, spec={**spec, "inputs": {"kind": "row", "features": 28}}
    )
    raw = booster.predict(data[2], raw_score=True)
    expected = (trainer_spec.probability if model == "fixed" else trainer_spec.value)(spec, raw)
    found = one(world, "select ml.score_many(%s, %s)", id_, lists(data[2]))
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-15)


def test_trust_is_the_trainers_too(
    world: Conn, booster: lightgbm.Booster, data: tuple[Array, Array, Array]
) -> None:
    from alphaplus.trainer import calibrate

    raw = booster.predict(data[0], raw_score=True)
    block = np.arange(len(raw)) // 10
    spec = {
        "output": {"kind": "log_odds"},
        "inputs": {"kind": "row", "features": 28},
        "calibration": calibrate.calibration("isotonic", raw, data[1]),
        "confidence": calibrate.confidence(data[1], w.sigmoid(raw), block),
        "support": calibrate.support(data[0]),
    }
    id_ = w.register(world, booster, spec=spec)
    x = data[2].copy()
    x[::7, 3] = np.nan
    x[5] = 1e4
    raw = booster.predict(x, raw_score=True)
    p = trainer_spec.probability(spec, raw)
    confidence, lower, upper = trainer_spec.confidence(spec, p)
    distance = trainer_spec.distance(spec["support"], x) / spec["support"]["threshold"]
    rows = world.execute(
        "select (ml.score_version(%s, array(select jsonb_array_elements_text(r)::float8))).*"
        " from jsonb_array_elements(%s::jsonb) with ordinality as t (r, i) order by i",
        (id_, psycopg.types.json.Jsonb([["NaN" if v != v else v for v in r] for r in x.tolist()])),  # noqa: PLR0124
    ).fetchall()
    expected = np.column_stack([raw, p, confidence, lower, upper, distance])
    np.testing.assert_allclose(np.array(rows, dtype=float), expected, rtol=1e-12, atol=1e-14)
    assert distance[5] > 1


def test_shap_values_sum_to_the_raw_score(
    world: Conn, version: int, booster: lightgbm.Booster, data: tuple[Array, Array, Array]
) -> None:
    for i in (0, 100, 200):
        rows = world.execute("select * from ml.explain('fixed', 'AAA', %s)", (at(i),)).fetchall()
        expected = booster.predict(data[2][i : i + 1], pred_contrib=True)[0]
        assert math.isclose(
            math.fsum(row[2] for row in rows), one(world, RAW, version, lists(data[2])[i]),
            rel_tol=0, abs_tol=1e-9,
        )  # fmt: skip
        by_name = {row[0]: row[2] for row in rows}
        assert [by_name[name] for name in [*w.NAMES, "base"]] == expected.tolist()
        sizes = [abs(row[2]) for row in rows[:-1]]
        assert sizes == sorted(sizes, reverse=True)


def test_every_no_has_its_sqlstate_and_a_hint(world: Conn, version: int) -> None:
    vector = [0.0] * 28
    assert sqlstate(world, "select ml.predict_version(-1, %s)", vector) == "AP501"
    assert sqlstate(world, "select ml.predict_version(%s, %s)", version, vector[1:]) == "AP504"
    assert sqlstate(world, "select ml.predict_version(%s, null)", version) == "AP504"
    assert sqlstate(world, "select ml.score_many(%s, %s)", version, [vector[1:]]) == "AP504"
    for model, symbol, state in (
        ("fixed", "NOBODY", "AP101"), ("magic", "AAA", "AP302"), ("fixed_value", "AAA", "AP505"),
    ):  # fmt: skip
        ask = "select * from ml.predict_history(%s, %s, %s, %s)"
        assert sqlstate(world, ask, model, symbol, at(0), at(9)) == state
    with world.transaction(force_rollback=True):
        world.execute("update feature.vectors set values = values[2:] where ts = %s", (at(5),))
        assert sqlstate(world, ask, "fixed", "AAA", at(0), at(9)) == "AP504"
    assert sqlstate(world, "select ml.predict('nothing', %s::float8[])", vector) == "AP302"
    assert sqlstate(world, "select ml.predict('fixed_value', %s::float8[])", vector) == "AP505"
    assert sqlstate(world, "select * from ml.predict('nothing', 'AAA')") == "AP302"
    assert sqlstate(world, "select * from ml.predict('fixed', 'NOPE')") == "AP101"
    assert sqlstate(world, "select * from ml.predict('fixed', 'AAA', '2020-01-01')") == "AP506"
    assert sqlstate(world, "select * from ml.predict('fixed', 'AAA', '2027-01-01')") == "AP506"
    liquidation = "select * from ml.predict_liquidation"
    assert sqlstate(world, f"{liquidation}('AAA', '7 minutes', %s)", at(9)) == "AP507"
    assert sqlstate(world, f"{liquidation}('NOPE', '15 minutes', %s)", at(9)) == "AP101"
    assert sqlstate(world, f"{liquidation}('AAA', '15 minutes', '2020-01-01')") == "AP506"
    for query in ("delete from ml.models", "select 1; select 2", "nonsense ("):
        assert sqlstate(world, "select * from ml.predict_many('fixed', %s)", query) == "AP508"
    assert one(world, "select count(*) from ml.models") > 0


def test_predicting_is_stable_and_writes_nothing(world: Conn, version: int, server: Server) -> None:
    rows = world.execute(
        "select p.proname, p.provolatile, p.proparallel from pg_proc p"
        " join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'ml'"
        " and p.proname ~ '^_?(predict|score|explain|warm|champion|replay|cache_status)'"
    ).fetchall()
    assert len(rows) >= 12
    assert {(name, volatile) for name, volatile, _ in rows if volatile != "s"} == set()
    with psycopg.connect(server.conninfo(world.info.dbname), autocommit=True) as fresh:
        fresh.execute("set default_transaction_read_only = on")
        vector = [0.5] * 28
        fresh.execute("select ml.predict('fixed', %s::float8[])", (vector,))
        fresh.execute("select * from ml.predict('fixed', 'AAA', %s)", (at(3),))
        fresh.execute("select * from ml.predict_stored('fixed', 'AAA', %s)", (at(3),))
        fresh.execute("select * from ml.explain('fixed', 'AAA', %s)", (at(3),))
        fresh.execute(
            "select * from ml.predict_many('fixed', 'select symbol, ts from feature.vectors')"
        )
        fresh.execute("select * from ml.predict_liquidation('AAA', '15 min', %s)", (at(3),))
        assert one(fresh, "select ml.warm()") >= 1
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            fresh.execute("select ml.record_prediction('fixed', 'AAA', %s)", (at(3),))


def test_a_prepared_statement_sees_the_next_version(db: Conn, server: Server) -> None:
    w.install(db)
    x, y = w.synthetic()
    w.store(db, x)
    first = w.register(db, w.train(x, y, 5), promote=True)
    second = w.register(db, w.train(x, y, 20, seed=2))
    with psycopg.connect(server.conninfo(db.info.dbname), autocommit=True) as other:
        other.prepare_threshold = 0
        query = "select version_id, prediction from ml.predict_stored('fixed', 'AAA', %s)"
        many = "select distinct version_id from ml.predict_many('fixed', 'select symbol, ts from feature.vectors')"
        other.execute("prepare by_vector (float8[]) as select ml.predict('fixed', $1)")
        vector = x[1].tolist()

        def by_vector() -> float:
            return float(one(other, f"execute by_vector('{{{','.join(map(str, vector))}}}')"))

        for _ in range(7):  # past the fifth execution, from which on the plan is a generic one
            before = other.execute(query, (at(1),)).fetchone()
            assert before is not None and before[0] == first and before[1] == by_vector()
            assert one(other, many) == first
        db.execute("begin")
        db.execute("call ml.promote(%s, 'test', true)", (second,))
        during = other.execute(query, (at(1),)).fetchone()
        assert during == before
        db.execute("rollback")
        assert other.execute(query, (at(1),)).fetchone() == before
        db.execute("call ml.promote(%s, 'test', true)", (second,))
        after = other.execute(query, (at(1),)).fetchone()
        assert after is not None and after[0] == second and after[1] != before[1]
        assert by_vector() == after[1] and one(other, many) == second
        db.execute("call ml.rollback('fixed', null)")
        assert other.execute(query, (at(1),)).fetchone() == before
        assert by_vector() == before[1]
        # a symbol's own model goes before the pooled one, for that symbol only
        own = w.register(db, w.train(x, y, 9, seed=3), symbol="AAA", promote=True)
        w.store(db, x, "BBB")
        assert named(other, query, at(1)).version_id == own
        assert named(other, query.replace("AAA", "BBB"), at(1)).version_id == first
        live = named(other, "select * from ml.predict('fixed', 'AAA', %s)", at(1))
        assert (live.version_id, live.partition_used) == (own, "symbol")


def test_a_tampered_artifact_is_refused(db: Conn, server: Server) -> None:
    w.install(db)
    x, y = w.synthetic()
    id_ = w.register(db, w.train(x, y, 5))
    assert sqlstate(
        db, "update ml.model_versions set artifact = artifact || 'x' where version_id = %s", id_
    ) == "AP401"  # fmt: skip
    db.execute("set session_replication_role = replica")
    db.execute("alter table ml.model_versions drop constraint model_versions_hash")
    db.execute(
        "update ml.model_versions set artifact = set_byte(artifact, 9000, 57) where version_id = %s",
        (id_,),
    )
    assert sqlstate(db, "select ml.predict_version(%s, %s)", id_, [0.0] * 28) == "AP502"
    assert sqlstate(db, "select ml.explain_version(%s, %s)", id_, [0.0] * 28) == "AP502"
    # a pickle that got into the table is not opened, by whatever format it claims to have
    import pickle

    content = pickle.dumps({"a": 1})
    for claimed in ("lightgbm", "onnx"):
        db.execute(
            "update ml.model_versions set artifact = %s, sha256 = sha256(%s), format = %s"
            " where version_id = %s",
            (content, content, claimed, id_),
        )
        assert sqlstate(db, "select ml.predict_version(%s, %s)", id_, [0.0] * 28) == "AP503"
    db.execute("set session_replication_role = origin")
    with pytest.raises(psycopg.Error) as caught:
        w.register(db, content)
    assert caught.value.sqlstate == "AP411"
    # the backend lives
    assert one(db, "select 1") == 1


def test_a_model_that_would_end_the_server_is_refused(db: Conn) -> None:
    w.install(db)
    x, y = w.synthetic()
    good = w.train(x, y, 5).model_to_string()
    id_ = w.register(db, good.encode())
    # The library would read beside the row, go round in circles, or end its process.
    for line, old, new in (("split_feature", r"\b\d\d\b", "99"), ("left_child", r"\b1\b", "0")):
        values = re.findall(rf"(?m)^{line}=(.*)$", good)[0]
        worse = f"\n{line}={re.sub(old, new, values, count=1)}"
        bad = good.replace(f"\n{line}={values}", worse, 1).encode()
        assert len(bad) == len(good)
        assert bad != good.encode()
        with pytest.raises(psycopg.Error) as caught:
            w.register(db, bad)
        assert caught.value.sqlstate == "AP411"
        assert "Tree=0" in str(caught.value.diag.message_detail)
        # Registered before the registry looked: never handed to the library.
        db.execute("set session_replication_role = replica")
        db.execute(
            "update ml.model_versions set artifact = %s, sha256 = sha256(%s) where version_id = %s",
            (bad, bad, id_),
        )
        db.execute("set session_replication_role = origin")
        pid = db.info.backend_pid
        for share in ("true", "false"):
            db.execute(
                "update ops.settings set value = %s where name = 'ml.share_models'", (share,)
            )
            for ask in ("ml.predict_version", "ml.explain_version"):
                assert sqlstate(db, f"select {ask}(%s, %s)", id_, [0.5] * 28) == "AP503"
        assert one(db, "select pg_backend_pid()") == pid


def pss(pid: int) -> int:
    """Proportional set size in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss")


@pytest.mark.parametrize("share", [False, True])
def test_many_models_in_a_bounded_cache(db: Conn, server: Server, share: bool) -> None:
    w.install(db)
    limit = 600_000 if share else 3_000_000  # what packed trees take is less
    db.execute(
        "update ops.settings set value = to_jsonb(%s) where name = 'ml.share_models'", (share,)
    )
    x, y = w.synthetic(3000)
    boosters = [w.train(x, y, 60, seed=i, bagging_fraction=0.5, bagging_freq=1) for i in range(8)]
    ids = [w.register(db, boosters[i % 8], params={"n": i}) for i in range(40)]
    expected = [float(b.predict(x[:1], raw_score=True)[0]) for b in boosters]
    db.execute(
        "update ops.settings set value = to_jsonb(%s) where name = 'ml.cache_bytes'", (limit,)
    )
    with psycopg.connect(server.conninfo(db.info.dbname), autocommit=True) as fresh:
        pid = int(one(fresh, "select pg_backend_pid()"))
        sizes = []
        for lap in range(3):
            for i, id_ in enumerate(ids):
                assert one(fresh, RAW, id_, x[0].tolist()) == expected[i % 8]
                held = named(
                    fresh,
                    "select count(*) as n, sum(bytes) as bytes, max(total_bytes) as total,"
                    " max(limit_bytes) as most, max(evictions) as evictions from ml.cache_status()",
                )
                assert held.bytes == held.total <= held.most == limit
                assert 1 <= held.n < len(ids)
            assert held.evictions >= (lap + 1) * len(ids) - 40
            if os.access(f"/proc/{pid}/smaps_rollup", os.R_OK):
                sizes.append(pss(pid))
        # more room takes effect at the next load, and then all stay
        db.execute("update ops.settings set value = '300000000' where name = 'ml.cache_bytes'")
        for id_ in ids:
            one(fresh, RAW, id_, x[0].tolist())
        assert one(fresh, "select count(*) from ml.cache_status()") == len(ids)
        if sizes:
            assert sizes[2] - sizes[0] < 3_000_000, sizes
            grown = pss(pid) - sizes[2]
            counted = one(fresh, "select max(total_bytes) from ml.cache_status()") - held.total
            # what the cache says it holds is what the process grew by; versions of one artifact
            # share its pages within a backend too
            assert (0 if share else 0.6 * counted) <= grown < 1.6 * counted, (grown, counted)


def test_a_new_backend_and_an_old_version_give_the_same(
    world: Conn,
    version: int,
    booster: lightgbm.Booster,
    server: Server,
    data: tuple[Array, Array, Array],
) -> None:
    expected = booster.predict(data[2][:1], raw_score=True)[0]
    with psycopg.connect(server.conninfo(world.info.dbname), autocommit=True) as first:
        pid = one(first, "select pg_backend_pid()")
        assert one(first, RAW, version, lists(data[2])[0]) == expected
        world.execute("select pg_terminate_backend(%s, 5000)", (pid,))
        with pytest.raises(psycopg.OperationalError):
            first.execute("select 1")
    with psycopg.connect(server.conninfo(world.info.dbname), autocommit=True) as second:
        assert one(second, RAW, version, lists(data[2])[0]) == expected


def test_roles_predict_without_reading_artifacts(
    world: Conn, version: int, connect_as: Connect
) -> None:
    name = world.info.dbname
    for role in ("alphaplus_app", "alphaplus_reader", "alphaplus_operator"):
        conn = connect_as(role, name)
        assert 0 < one(conn, "select ml.predict('fixed', %s::float8[])", [0.1] * 28) < 1
        assert (
            named(conn, "select * from ml.predict('fixed', 'AAA', %s)", at(2)).version_id == version
        )
        assert named(conn, "select * from ml.predict_stored('fixed', 'AAA', %s)", at(2)).prediction
        assert conn.execute("select * from ml.explain('fixed', 'AAA', %s)", (at(2),)).fetchall()
        assert one(conn, "select ml.warm('fixed')") == 1
        assert conn.execute(
            "select * from ml.predict_many('fixed', 'select symbol, ts from feature.vectors')"
        ).fetchall()
        assert (
            named(conn, "select * from ml.predict_liquidation('AAA', '15 min', %s)", at(2)).symbol
            == "AAA"
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("select artifact from ml.model_versions")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(
                "select * from ml.predict_many('fixed',"
                " 'select sha256(artifact)::text as symbol, now() as ts from ml.model_versions')"
            )
    app = connect_as("alphaplus_app", name)
    assert one(app, "select ml.record_prediction('fixed', 'AAA', %s)", at(2))
    reader = connect_as("alphaplus_reader", name)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("select ml.record_prediction('fixed', 'AAA', %s)", (at(2),))
    trainer = connect_as("alphaplus_trainer", name)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        trainer.execute("select ml.predict('fixed', %s::float8[])", ([0.1] * 28,))


def test_odd_arguments_get_a_clear_no(lapsed: Conn) -> None:
    version = one(lapsed, "select ml.champion('fixed', 'AAA')")

    def refused(query: str, *params: Any) -> psycopg.Error:
        with pytest.raises(psycopg.Error) as caught:
            lapsed.execute(query, params)
        return caught.value

    flat, nested = [0.1] * 28, [[0.1] for _ in range(28)]
    for call, vector in (("score_many", flat), ("predict_version", nested)):
        found = refused(f"select ml.{call}(%s, %s::float8[])", version, vector)
        assert found.sqlstate == "AP504" and found.diag.message_hint
    assert refused("select * from ml.predict_many('fixed', null)").sqlstate == "AP508"
    found = refused("select * from ml.predict('fixed', 'AAA', '-infinity')")
    assert found.sqlstate == "AP506" and found.diag.message_detail == "No row was known then."
    assert "alphaplus load" in str(found.diag.message_hint)
    commented = "select symbol, ts from feature.vectors -- all of them"
    assert one(lapsed, "select count(*) from ml.predict_many('fixed', %s)", commented) == 500
    endless = (
        "select 'AAA'::text as symbol, t as ts from unnest(array[null, timestamptz 'infinity']) t"
    )
    assert one(lapsed, "select count(*) from ml.predict_many('fixed', %s)", endless) == 0


@pytest.fixture
def lapsed(db: Conn) -> Iterator[Conn]:
    """A version promoted at START that expires an hour later."""
    w.install(db)
    x, y = w.synthetic()
    w.store(db, x)
    db.execute("update ml.models set expires_after = '1 hour' where model = 'fixed'")
    spec = {
        "output": {"kind": "log_odds"},
        "inputs": {"kind": "row", "features": 28},
        "support": {"center": [0.0] * 28, "scale": [1.0] * 28, "threshold": 3.0},
    }
    w.register(db, w.train(x, y, 5), promote=True, spec=spec)
    yield db


def test_expiry_and_support_by_policy(lapsed: Conn) -> None:
    def ask(minute: int, model: str = "fixed") -> Any:
        return named(lapsed, "select * from ml.predict(%s, 'AAA', %s)", model, at(minute))

    def policy(name: str, value: str) -> None:
        lapsed.execute(
            "update ops.settings set value = to_jsonb(%s::text) where name = %s", (value, name)
        )

    fine = ask(60)
    assert (fine.expired, fine.is_fallback, fine.out_of_support, fine.reason) == (
        False,
        False,
        False,
        None,
    )
    late = ask(61)
    assert late.expired and late.is_fallback and late.prediction is not None
    assert "expired" in late.reason and late.partition_used == "pooled"
    policy("ml.expired_policy", "null")
    late = ask(61)
    assert late.expired and late.prediction is None and "expired" in late.reason
    assert ask(60).prediction == fine.prediction
    policy("ml.expired_policy", "fallback")
    rate = ask(61)
    assert rate.partition_used == "base rate" and rate.version_id is None
    policy("ml.expired_policy", "flag")
    lapsed.execute(
        "update feature.vectors set values = array_fill(1000::float8, array[28]) where ts = %s",
        (at(7),),
    )
    strange = ask(7)
    assert strange.out_of_support and strange.prediction is not None and not strange.is_fallback
    policy("ml.out_of_support_policy", "null")
    strange = ask(7)
    assert strange.out_of_support and strange.prediction is None and strange.reason
    # Expired and far from the training rows: the stricter policy holds.
    lapsed.execute(
        "update feature.vectors set values = array_fill(1000::float8, array[28]) where ts = %s",
        (at(61),),
    )
    both = ask(61)
    assert both.expired and both.out_of_support and both.prediction is None


def test_a_refused_version_leaves_it_to_the_next_partition(lapsed: Conn) -> None:
    pooled = one(lapsed, "select ml.champion('fixed', 'AAA')")
    lapsed.execute("update ml.models set expires_after = '10 minutes' where model = 'fixed'")
    x, y = w.synthetic(seed=2)
    spec = {"output": {"kind": "log_odds"}, "inputs": {"kind": "row", "features": 28}}
    own = w.register(lapsed, w.train(x, y, 5), symbol="AAA", promote=True, spec=spec)

    def ask(minute: int) -> Any:
        return named(lapsed, "select * from ml.predict('fixed', 'AAA', %s)", at(minute))

    assert (ask(10).version_id, ask(10).partition_used, ask(10).is_fallback) == (
        own,
        "symbol",
        False,
    )
    assert (ask(11).version_id, ask(11).expired) == (own, True)
    lapsed.execute(
        "update ops.settings set value = '\"fallback\"' where name = 'ml.expired_policy'"
    )
    next_one = ask(11)
    assert (next_one.version_id, next_one.partition_used) == (pooled, "pooled")
    assert next_one.is_fallback and not next_one.expired
    assert next_one.reason.startswith(f"version {own} expired")
    vector = one(
        lapsed, "select values from feature.vectors where symbol = 'AAA' and ts = %s", at(11)
    )
    assert next_one.prediction == one(
        lapsed, "select ml.predict_version(%s, %s::float8[])", pooled, vector
    )
    last = ask(61)
    assert (last.version_id, last.partition_used, last.expired) == (None, "base rate", True)


def test_no_promoted_version_falls_back_to_the_trailing_base_rate(db: Conn) -> None:
    from tests.db import market_data as market

    db.execute(
        "update ml.labels set params = params || '{\"lookback_days\": 0.5}' where kind = 'liquidation'"
    )
    market.fill(db, "AAAUSDT", 1600, per_minute=1.0)
    db.execute("call market.refresh_aggregates()")
    asked = market.at(1590.5)
    row = named(db, "select * from ml.predict_liquidation('AAA/USDT', '15 min', %s)", asked)
    assert row.is_fallback and row.partition_used == "base rate" and row.model_version is None
    assert row.reason == "no promoted version"
    assert row.symbol == "AAAUSDT" and row.horizon == dt.timedelta(minutes=15)
    assert row.feature_as_of == market.at(1590)
    assert dt.timedelta(0) <= row.staleness < dt.timedelta(minutes=10)
    known = db.execute(
        "select l.label, v.target from unnest(array['liquidation_15m', 'liquidation_volume_15m'])"
        " as l (label), ml.label_values(l.label, 'AAAUSDT', %s, %s, %s) v"
        " where mod(extract(epoch from v.label_end - %s)::int, 900) = 0",
        (market.at(0), market.at(1590), market.at(1590), market.at(1590)),
    ).fetchall()
    events, volumes = (
        [y for label, y in known if label == name]
        for name in ("liquidation_15m", "liquidation_volume_15m")
    )
    assert len(events) > 40 and len(volumes) > 80 and 0 < sum(events) < len(events)
    assert row.probability == pytest.approx((sum(events) + 0.5) / (len(events) + 1), rel=1e-12)
    assert row.expected_volume == pytest.approx(np.mean(volumes), rel=1e-12)
    base_rate = one(db, "select ml.record_prediction('liquidation_15m', 'AAAUSDT', %s)", asked)
    # what happens later changes nothing
    market.fill(db, "AAAUSDT", 200, seed=5, start=1591)
    db.execute("call market.refresh_aggregates()")
    assert named(db, "select * from ml.predict_liquidation('AAAUSDT', '15 min', %s)", asked) == row
    # with models, both answers are theirs
    names = one(
        db,
        "select features from feature.sets where name = 'liquidation' order by version desc limit 1",
    )
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, len(names)))
    p = w.register(db, w.train(x, (x[:, 0] > 0).astype(float), 10), "liquidation_15m", features=names, promote=True,
                   as_of=asked.isoformat())  # fmt: skip
    v = w.register(db, w.train(x, np.exp(x[:, 0]), 10, objective="regression"), "liquidation_volume_15m", "AAAUSDT",
                   features=names, promote=True, spec={"output": {"kind": "identity"}},
                   as_of=asked.isoformat())  # fmt: skip
    served = named(db, "select * from ml.predict_liquidation('AAAUSDT', '15 min', %s)", asked)
    vector = one(db, "select feature.vector('liquidation', 'AAAUSDT', %s)", asked)
    assert (served.model_version, served.is_fallback, served.partition_used) == (p, False, "pooled")
    assert served.probability == one(db, "select ml.predict_version(%s, %s)", p, vector)
    assert served.expected_volume == max(0, one(db, "select ml.predict_version(%s, %s)", v, vector))
    assert served.risk_level == one(
        db, "select ml.risk_level('liquidation_15m', %s)", served.probability
    )
    # a volume version that may not answer any more does not
    with db.transaction(force_rollback=True):
        db.execute(
            "update ml.models set expires_after = '1 minute' where model = 'liquidation_volume_15m'"
        )
        w.register(db, w.train(x, np.exp(x[:, 0]), 10, objective="regression"),
                   "liquidation_volume_15m", "AAAUSDT", features=names, promote=True,
                   spec={"output": {"kind": "identity"}},
                   as_of=(asked - dt.timedelta(days=1)).isoformat())  # fmt: skip
        for policy, expected in (
            ("flag", served.expected_volume), ("null", None), ("fallback", row.expected_volume),
        ):  # fmt: skip
            db.execute(
                "update ops.settings set value = to_jsonb(%s::text)"
                " where name = 'ml.expired_policy'",
                (policy,),
            )
            told = named(db, "select * from ml.predict_liquidation('AAAUSDT', '15 min', %s)", asked)
            assert (told.expected_volume, told.probability) == (expected, served.probability)
    # written down, replayed, and judged once what came of it is known
    id_ = one(db, "select ml.record_prediction('liquidation_15m', 'AAAUSDT', %s)", asked)
    kept = named(db, "select * from ml.predictions where prediction_id = %s", id_)
    assert (kept.probability, kept.expected_volume, kept.risk_level) == (
        served.probability, served.expected_volume, served.risk_level,
    )  # fmt: skip
    w.register(
        db,
        w.train(x, (x[:, 1] > 0).astype(float), 10),
        "liquidation_15m",
        features=names,
        promote=True,
    )
    again = named(db, "select * from ml.replay(%s)", id_)
    assert again.recorded == again.replayed == served.probability and again.version_id == p
    outcome = "select outcome from ml.predictions where prediction_id = %s"
    # … as what it was made as, whatever the model is to predict by then
    db.execute(
        "update ml.models m set label = 'direction_60m', feature_set = s.name, feature_version = s.version"
        " from feature.sets s where s.name = 'technical_1h' and m.model = 'liquidation_15m'"
    )
    db.execute("call ml.join_outcomes(%s)", (market.at(1604),))
    assert one(db, outcome, id_) is None
    db.execute("call ml.join_outcomes(%s)", (market.at(1606),))
    truth = one(db, "select target from ml.label_values('liquidation_15m', 'AAAUSDT', %s, %s, %s)",
                market.at(1590), market.at(1591), market.at(1606))  # fmt: skip
    assert one(db, outcome, id_) == one(db, outcome, base_rate) == truth


def test_risk_levels(world: Conn) -> None:
    levels = [
        one(world, "select ml.risk_level('fixed', %s)", p) for p in (0.0, 0.29, 0.3, 0.6, 0.8, 1.0)
    ]
    assert levels == ["low", "low", "medium", "high", "critical", "critical"]
    world.execute(
        "insert into ml.risk_levels values ('fixed', 'low', 0), ('fixed', 'critical', 0.01)"
    )
    assert one(world, "select ml.risk_level('fixed', 0.02)") == "critical"
    assert one(world, "select ml.risk_level('other', 0.02)") == "low"
