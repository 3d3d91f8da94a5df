"""Ensembles in the database: weights known at a time, sleepers, records that replay, views."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from alphaplus.server.serving import ensemble as numeric

from tests.db import market_data as market
from tests.db import serving as w
from tests.db.serving import at, named, one
from tests.db.toy_labels import unchecked

Conn = psycopg.Connection[Any]
Connect = Callable[[str, str], Conn]
MEMBERS = ["m_one", "m_two", "m_three"]
X, Y = w.synthetic(2000)


def say(db: Conn, minute: int, **more: Any) -> Any:
    extra = "".join(f", {name} => %s" for name in more)
    return named(
        db, f"select * from ml.predict_ensemble('AAA', ensemble => 'three', as_of => %s{extra})",
        at(minute), *more.values(),
    )  # fmt: skip


@pytest.fixture
def world(db: Conn) -> Conn:
    """Three models of one label, each with a version trained before START, and their ensemble."""
    w.install(db)
    w.store(db, X[1000:1600])
    db.execute(
        "insert into ml.models (model, label, feature_set, feature_version)"
        " select m, 'fixed', 'fixed', 1 from unnest(%s::text[]) m", (MEMBERS,),
    )  # fmt: skip
    for i, model in enumerate(MEMBERS):
        booster = w.train(X[:1000], Y[:1000], (40, 10, 3)[i], seed=i)
        w.register(db, booster, model, promote=True)
    one(
        db, "select ml.create_ensemble('three', 'fixed', %s, settings =>"
        ' \'{"regime_weights": {"trending": {"m_one": 0.5, "m_two": 0.3, "m_three": 0.2}}}\')',
        MEMBERS,
    )  # fmt: skip
    return db


def rounds(db: Conn, minutes: range, outcomes: Any = None, late: int = 5) -> None:
    """Rounds at some minutes from what the members say, and their outcomes."""
    for minute in minutes:
        ps = {
            m: one(db, "select prediction from ml.predict_stored(%s, 'AAA', %s)", m, at(minute))
            for m in MEMBERS
        }
        db.execute(
            "insert into ml.ensemble_rounds values ('three', 'AAA', %s, %s, %s, '{}', 'back-filled')",
            (at(minute), at(minute), psycopg.types.json.Jsonb(ps)),
        )
        if outcomes is not None:
            db.execute(
                "insert into ml.ensemble_outcomes values ('fixed', 'AAA', %s, %s, %s)",
                (at(minute), at(minute + late), float(outcomes[minute])),
            )


TRUTH = Y[1000:1600]


def test_members_are_mixed_and_all_columns_are_told(world: Conn) -> None:
    found = say(world, 30)
    ps = [m["probability"] for m in found.members.values()]
    assert set(found.members) == set(MEMBERS) and found.slept == {}
    assert math.isclose(found.probability, np.mean(ps), rel_tol=1e-12)  # nothing learned yet
    assert found.weights == pytest.approx(dict.fromkeys(MEMBERS, 1 / 3))
    assert found.method == "auto" and not found.is_fallback and found.reason is None
    assert sum(found.method_weights.values()) == pytest.approx(1)
    assert "stacking" not in found.method_weights  # not fitted
    assert found.lower <= found.probability <= found.upper
    assert found.confidence == pytest.approx(1 - (found.upper - found.lower))
    assert found.risk_level and found.horizon == dt.timedelta(minutes=5)
    assert not found.in_sample and found.trained_to == at(0) and found.staleness_s < 120
    for member in MEMBERS:
        assert found.members[member]["probability"] == one(
            world, "select prediction from ml.predict(%s, 'AAA', %s)", member, at(30)
        )
    for method in ("voting", "blending", "boa", "ml_poly", "fixed_share", "regime_weights"):
        each = say(world, 30, method=method)
        assert each.method == method and 0 < each.probability < 1


def test_an_ensemble_is_explained_by_its_members(world: Conn) -> None:
    rounds(world, range(0, 60, 5), TRUTH)
    found = world.execute("select * from ml.explain('three', 'AAA', %s)", (at(70),)).fetchall()
    said = say(world, 70)
    assert {row[0] for row in found} == {*MEMBERS, "base"}
    assert math.isclose(math.fsum(row[2] for row in found), said.probability, rel_tol=1e-12)
    for member, value, part in found:
        if member != "base":
            assert value == said.members[member]["probability"]
            assert math.isclose(part, value * said.weights[member], rel_tol=1e-12)


def test_sleepers_are_left_out_and_said(world: Conn) -> None:
    world.execute("call ml.clear_alias('m_two', null, 'champion')")
    found = say(world, 30)
    assert found.slept == {"m_two": "no promoted version"} or "no promoted" in found.slept["m_two"]
    assert found.weights == pytest.approx({"m_one": 0.5, "m_three": 0.5})
    assert found.reason == "1 of 3 members sleep"
    for model in ("m_one", "m_three"):
        world.execute("call ml.clear_alias(%s, null, 'champion')", (model,))
    none = say(world, 30)
    assert none.probability is None and none.is_fallback and none.reason == "all members sleep"


def test_weights_are_those_of_the_module_over_what_was_known(world: Conn) -> None:
    """An independent fold over the same rounds; with and without states kept; and an outcome that
    comes late, or is corrected, changes later weights only."""
    rounds(world, range(0, 120, 5), TRUTH)
    x = np.array([
        [one(world, "select prediction from ml.predict_stored(%s, 'AAA', %s)", m, at(i)) for m in MEMBERS]
        for i in range(0, 120, 5)
    ])  # fmt: skip
    setup = numeric.Setup(tuple(MEMBERS))
    y = TRUTH[0:120:5]
    names = ["voting", "blending", "boa", "ml_poly", "fixed_share"]
    said = numeric.run(setup, names, x[:, None, :], np.zeros((24, 1, 0)), y[:, None])
    before = {}
    for minute in (57, 90, 200):
        found = say(world, minute, method="fixed_share")
        known = sum(i + 5 <= minute for i in range(0, 120, 5))
        assert found.outcomes == known
        if known < 24:
            mine = said.weights[known, 0, names.index("fixed_share")]
            assert found.weights == pytest.approx(dict(zip(MEMBERS, mine, strict=True)), rel=1e-9)
        before[minute] = (found.weights, say(world, minute).probability)
    world.execute("call ml.refresh_ensembles(%s)", (at(57),))
    world.execute("call ml.refresh_ensembles(%s)", (at(100),))
    assert one(world, "select count(*) from ml.ensemble_states") == 2
    for minute, (weights, p) in before.items():
        assert say(world, minute, method="fixed_share").weights == weights
        assert say(world, minute).probability == p
    # A correction, known from minute 150 on.
    world.execute(
        "insert into ml.ensemble_outcomes values ('fixed', 'AAA', %s, %s, %s)",
        (at(20), at(150), 1 - float(TRUTH[20])),
    )
    assert [say(world, m).probability for m in (57, 90)] == [before[m][1] for m in (57, 90)]
    corrected = say(world, 200)
    assert corrected.probability != before[200][1] and corrected.outcomes == 24
    world.execute("delete from ml.ensemble_states")
    assert say(world, 200).probability == corrected.probability
    # A round that comes late, known from minute 180 on, and its outcome.
    world.execute("call ml.refresh_ensembles(%s)", (at(170),))
    rounds(world, range(7, 8))
    assert one(world, "select max(through) from ml.ensemble_states") is None  # it was known by then
    regrets = world.execute("select count(*) from ml.regret").fetchone()
    assert regrets == (0,)
    world.execute("call ml.refresh_ensembles(%s)", (at(300),))
    rows = world.execute(
        "select kind, name, outcomes, regret, bound, within_bound from ml.regret order by 1, 2"
    ).fetchall()
    assert {row[1] for row in rows if row[0] == "member"} == set(MEMBERS)
    assert all(row[5] for row in rows if row[0] == "method") and len(rows) >= 8


def test_records_replay_after_promotions_and_outcomes(world: Conn) -> None:
    rounds(world, range(0, 120, 5), TRUTH)
    first = one(world, "select ml.record_prediction('three', 'AAA', %s)", at(130))
    kept = named(world, "select * from ml.predictions where prediction_id = %s", first)
    assert kept.prediction == say(world, 130).probability and kept.version_id is None
    assert one(world, "select count(*) from ml.ensemble_rounds where source = 'recorded'") == 1
    for i, model in enumerate(MEMBERS):
        w.register(world, w.train(X[:900], Y[:900], 7, seed=40 + i), model, promote=True)
    rounds(world, range(121, 128, 2), TRUTH)
    world.execute("call ml.clear_alias('m_two', null, 'champion')")
    world.execute("update ml.ensemble_outcomes set outcome = 1 - outcome where ts = %s", (at(10),))
    again = named(world, "select * from ml.replay(%s)", first)
    assert again.recorded == again.replayed == kept.prediction
    second = one(world, "select ml.record_prediction('three', 'AAA', %s)", at(131))
    sleeping = named(world, "select * from ml.replay(%s)", second)
    assert sleeping.recorded == sleeping.replayed != again.recorded
    weights = world.execute(
        "select member, weight from ml.ensemble_weights where as_of = %s", (at(130),)
    ).fetchall()
    assert {row[0] for row in weights} == set(MEMBERS)
    assert sum(row[1] for row in weights) == pytest.approx(1)


def test_performance_is_what_the_predictions_say(world: Conn) -> None:
    rng = np.random.default_rng(1)
    rows = []
    for i in range(300):
        model = ["three", *MEMBERS][i % 4]
        p, y = float(rng.uniform(0.05, 0.95)), float(rng.random() < 0.4)
        rows.append((at(i), model, p, y, ["crash", "sideways", "bull_trending"][i % 3]))
        world.execute(
            "insert into ml.predictions (as_of, symbol, model, horizon, prediction, probability,"
            " regime, outcome) values (%s, 'AAA', %s, '5 min', %s, %s, %s, %s)",
            (rows[-1][0], model, p, p, rows[-1][4], y if i % 2 else None),
        )
    world.execute("update ml.predictions set outcome = 0.0 where outcome is null")
    rows = [(*r[:3], r[3] if i % 2 else 0.0, r[4]) for i, r in enumerate(rows)]
    world.execute("update ml.predictions set outcome = 1 - outcome where as_of = %s", (at(8),))
    rows[8] = (*rows[8][:3], 1 - rows[8][3], rows[8][4])
    world.execute("delete from ml.predictions where as_of = %s", (at(9),))
    rows = [r for i, r in enumerate(rows) if i != 9]

    def loss(some: list[Any]) -> float:
        return float(np.mean([-math.log(r[2] if r[3] else 1 - r[2]) for r in some]))

    found = world.execute(
        "select model, is_ensemble, n, log_loss from ml.ensemble_performance(30, %s)", (at(400),)
    ).fetchall()
    assert len(found) == 4 and [r[3] for r in found] == sorted(r[3] for r in found)
    for model, is_ensemble, n, value in found:
        mine = [r for r in rows if r[1] == model]
        assert (is_ensemble, n) == (model == "three", len(mine))
        assert value == pytest.approx(loss(mine), rel=1e-9)
    best = world.execute(
        "select model, log_loss from ml.best_models('trending', 2, 30, %s)", (at(400),)
    ).fetchall()
    trending = {
        m: loss([r for r in rows if r[1] == m and r[4] == "bull_trending"]) for m in MEMBERS
    }
    assert [b[0] for b in best] == sorted(trending, key=trending.__getitem__)[:2]
    assert best[0][1] == pytest.approx(trending[best[0][0]], rel=1e-9)
    by_regime = world.execute(
        "select log_loss from ml.regime_performance where model = 'm_one' and regime = 'crash'"
    ).fetchone()
    assert by_regime == (
        pytest.approx(loss([r for r in rows if r[1] == "m_one" and r[4] == "crash"]), rel=1e-9),
    )


def test_filling_fitting_and_the_lines_of_an_ensemble(world: Conn) -> None:
    with unchecked(world):
        world.execute("update ml.labels set kind = 'direction' where label = 'fixed'")
    world.execute("call ml.fill_ensemble('three', 'AAA', %s, %s, '1 minute')", (at(0), at(500)))
    assert one(world, "select count(*) from ml.ensemble_rounds") == 500
    # The toy's prices stand still: nothing to learn from one class.
    assert world.execute("select distinct outcome from ml.ensemble_outcomes").fetchall() == [(0.0,)]
    with pytest.raises(psycopg.Error) as caught:
        world.execute("select ml.fit_ensemble('three', 'AAA', %s)", (at(500),))
    assert caught.value.sqlstate == "AP528"
    world.execute("delete from ml.ensemble_outcomes")
    world.execute(
        "insert into ml.ensemble_outcomes select 'fixed', 'AAA', r.ts, r.ts + interval '5 min',"
        " (%s::float8[])[1 + (extract(epoch from r.ts - %s) / 60)::int] from ml.ensemble_rounds r",
        (TRUTH.tolist(), at(0)),
    )
    fitted = one(world, "select ml.fit_ensemble('three', 'AAA', %s)", at(505))
    row = named(world, "select * from ml.ensemble_versions where ensemble_version_id = %s", fitted)
    assert row.row_count == 500 and len(row.stacking) == 3 + len(row.regimes) + 1
    assert row.metrics["methods"]["auto"] < row.metrics["base_rate"]
    # Three members of one kind: no method beats equal weights here, and the gate says so.
    with pytest.raises(psycopg.Error) as caught:
        world.execute("call ml.promote_ensemble(%s)", (fitted,))
    assert caught.value.sqlstate == "AP524" and "equal weights" in str(caught.value)
    promote = "call ml.promote_ensemble(%s, 'to see', force => true)"
    world.execute(promote, (fitted,))
    assert say(world, 507).ensemble_version_id == fitted
    assert say(world, 507, method="stacking").probability is not None
    # What was not known yet does not answer: the first version does.
    assert say(world, 400).ensemble_version_id != fitted
    with pytest.raises(psycopg.Error) as caught:
        world.execute("call ml.rollback_ensemble('three', 'AAA')")
    assert caught.value.sqlstate == "AP525"
    again = one(world, "select ml.fit_ensemble('three', 'AAA', %s)", at(505))
    world.execute(promote, (again,))
    world.execute("call ml.rollback_ensemble('three', 'AAA', 'worse')")
    assert say(world, 507).ensemble_version_id == fitted
    with pytest.raises(psycopg.Error) as caught:
        world.execute("update ml.ensemble_versions set stacking = null")
    assert caught.value.sqlstate == "AP526"


def test_clear_noes(world: Conn, connect_as: Connect) -> None:
    def state(query: str, *params: Any) -> str:
        with pytest.raises(psycopg.Error) as caught:
            world.execute(query, params)
        assert caught.value.diag.message_hint
        return str(caught.value.sqlstate)

    make = "select ml.create_ensemble(%s, %s, %s)"
    assert state(make, "bad name", "fixed", MEMBERS) == "AP521"
    assert state(make, "m_one", "fixed", MEMBERS) == "AP521"
    assert state(make, "ok", "fixed_value", MEMBERS) == "AP521"
    assert state(make, "ok", "fixed", [*MEMBERS, "m_one"]) == "AP521"
    assert state(make, "ok", "fixed", ["fixed_value"]) == "AP521"
    ask = "select * from ml.predict_ensemble('AAA', as_of => %s"
    assert state(ask + ", ensemble => 'none')", at(5)) == "AP520"
    assert state(ask + ", ensemble => 'three', method => 'magic')", at(5)) == "AP529"
    assert state(ask + ", horizon => '7 hours')", at(5)) == "AP530"
    assert state(ask + ", ensemble => 'three', version => 99)", at(5)) == "AP522"
    row = named(
        world, "select * from ml.predict_ensemble('NOPE', ensemble => 'three', on_error => 'null')"
    )
    assert row.probability is None and "NOPE" in row.reason
    reader = connect_as("alphaplus_reader", world.info.dbname)
    reader.execute("set default_transaction_read_only = on")
    row = named(
        reader, "select * from ml.predict_ensemble('AAA', ensemble => 'three', as_of => %s)", at(5)
    )
    assert row.probability is not None
    for view in (
        "ml.ensemble_weights",
        "ml.regret",
        "ml.regime_performance",
        "ml.ensemble_methods",
    ):
        reader.execute(f"select * from {view}")  # type: ignore[arg-type]


DOC = Path(__file__).resolve().parents[3] / "docs" / "ensembles.md"


def test_every_block_of_the_page_runs(db: Conn) -> None:
    db.execute(
        "update ml.labels set params = params || '{\"lookback_days\": 0.05}' where kind = 'liquidation'"
    )
    market.fill(db, "ETHUSDT", 300, per_minute=2.0)
    db.execute("call market.refresh_aggregates()")
    names = one(
        db,
        "select features from feature.sets where name = 'liquidation' order by version desc limit 1",
    )
    rng = np.random.default_rng(1)
    x = rng.normal(size=(600, len(names)))
    for i, model in enumerate(
        ("liquidation_15m", "liquidation_15m_linear", "liquidation_15m_small")
    ):
        db.execute(
            "insert into ml.models (model, label, feature_set, feature_version)"
            " select %s, label, feature_set, feature_version from ml.models"
            " where model = 'liquidation_15m' on conflict do nothing", (model,),
        )  # fmt: skip
        w.register(
            db, w.train(x, (x[:, i] > 0).astype(float), 5), model, features=names, promote=True,
            as_of=market.at(60).isoformat(), train_to=market.at(50).isoformat(),
        )  # fmt: skip
    db.execute(
        "call feature.materialise('liquidation', 'ETHUSDT', %s, %s)",
        (market.at(100), market.at(290)),
    )
    blocks = re.findall(r"```sql\n(.*?)```", DOC.read_text(), re.S)
    assert len(blocks) >= 14
    for block in blocks:
        found = db.execute(block)
        if "regret" in block:
            assert found.fetchall()
    # What the page says of the rounds: some, with outcomes.
    assert one(db, "select count(*) from ml.ensemble_rounds") > 100
    assert one(db, "select count(*) from ml.ensemble_outcomes") > 50


def test_weights_start_where_the_seeds_say(db: Conn) -> None:
    """By the members' algorithms; what is left over is shared by the others."""
    w.install(db)
    for model, algorithm in (
        ("a", "lightgbm"), ("b", "xgboost"), ("c", "lstm"), ("d", "lstm"), ("e", "transformer")
    ):  # fmt: skip
        db.execute(
            "insert into ml.models (model, label, feature_set, feature_version, algorithm)"
            " values (%s, 'fixed', 'fixed', 1, %s)",
            (model, algorithm),
        )
    db.execute(
        "select ml.create_ensemble('five', 'fixed', array['a', 'b', 'c', 'd', 'e'],"
        ' settings => \'{"regime_weights": "seeds"}\')'
    )
    (found,) = db.execute(
        "select settings -> 'regime_weights' from ml.ensembles where ensemble = 'five'"
    ).fetchone() or (None,)
    rest = 0.55 / 3
    assert found["trending"] == pytest.approx(
        {"a": rest, "b": rest, "c": 0.225, "d": 0.225, "e": rest}
    )
    assert found["ranging"] == pytest.approx(
        {"a": 0.5, "b": 0.125, "c": 0.125, "d": 0.125, "e": 0.125}
    )
    assert found["volatile"]["e"] == 0.5 and sum(found["volatile"].values()) == pytest.approx(1)
    with pytest.raises(psycopg.Error) as caught:
        db.execute(
            "select ml.create_ensemble('six', 'fixed', array['a'],"
            ' settings => \'{"regime_weights": "none"}\')'
        )
    assert caught.value.sqlstate == "AP521"
