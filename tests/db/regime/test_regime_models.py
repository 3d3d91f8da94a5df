"""Learned regime classifiers through queue, registry and store; training on one regime's rows."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import numpy as np
import psycopg
import pytest
from alphaplus.trainer.job import run_next

from tests.conftest import Server
from tests.db.regime.test_regime import HOUR, START, STATES, Conn, classify, loaded

BARS = 2600
END = START + BARS * HOUR


@pytest.fixture(scope="module")
def trained(db_module: Conn, server: Server) -> Conn:
    """A model of hourly regimes, trained through the queue on what was known at bar 2,000."""
    loaded(db_module, "LEARNUSDT", 7, BARS)
    db_module.execute("select regime.create_model('regimes')")
    row = db_module.execute(
        "call ml.retrain('regimes', 'LEARNUSDT', as_of => %s, options => '{\"folds\": 3}')",
        (START + 2000 * HOUR,),
    ).fetchone()
    assert row is not None
    conninfo = server.conninfo(db_module.info.dbname, "alphaplus_trainer")
    assert run_next(conninfo, threads=1, shutdown=threading.Event()) is not None
    return db_module


def version(conn: Conn) -> Any:
    row = conn.execute(
        "select version_id, metrics, format, artifact, as_of from ml.model_versions order by 1 desc"
    ).fetchone()
    assert row is not None
    return row


def test_it_is_measured_and_says_more_than_chance(trained: Conn) -> None:
    _, metrics, form, artifact, _ = version(trained)
    assert form == "json" and bytes(artifact)[:1] == b"{"
    assert metrics["log_loss"] < metrics["baseline"]["log_loss"]
    assert metrics["balanced_accuracy"] > 2 * metrics["baseline"]["balanced_accuracy"]
    assert 0 <= metrics["ece"] <= 1 and metrics["rules"]["accuracy"] > 0


def test_promoted_it_classifies_and_rolled_back_it_does_not(trained: Conn) -> None:
    version_id, _, _, _, trained_as_of = version(trained)
    before = classify(trained, "LEARNUSDT", END)
    trained.execute("call ml.promote(%s, 'test', force => true)", (version_id,))
    assert trained.execute(
        "select regime.use('learned', 'LEARNUSDT', model => 'regimes')"
    ).fetchone() == (f"learned/{version_id}",)
    times = [START + h * HOUR for h in (1500, 2100, 2590, 2600)]
    computed = [classify(trained, "LEARNUSDT", t) for t in times]
    assert all(row[4] == f"learned/{version_id}" for row in computed)
    assert computed[-1] != before
    assert sum(computed[-1][2].values()) == pytest.approx(1, abs=1e-12)
    trained.execute("call regime.refresh(array['LEARNUSDT'])")
    assert [classify(trained, "LEARNUSDT", t) for t in times] == computed
    in_sample = trained.execute(
        "select (select in_sample from regime.classify('LEARNUSDT', %s)),"
        " (select in_sample from regime.classify('LEARNUSDT', %s))",
        (trained_as_of - HOUR, trained_as_of + HOUR),
    ).fetchone()
    assert in_sample == (True, False)
    trained.execute("call ml.clear_alias('regimes', 'LEARNUSDT', 'champion')")
    assert classify(trained, "LEARNUSDT", END) == before


def test_labels_are_the_verdicts_known_by_then(trained: Conn) -> None:
    as_of = START + 1200 * HOUR
    labels = trained.execute(
        "select ts, target from ml.label_values('regime_1h', 'LEARNUSDT', %s, %s, %s, '1 hour')",
        (START, as_of, as_of),
    ).fetchall()
    verdicts = dict(
        trained.execute(
            "select ts, verdict from regime.verdicts('LEARNUSDT', %s, %s, %s)",
            (START, as_of + HOUR, as_of),
        ).fetchall()
    )
    assert len(labels) > 1000
    assert {ts: STATES[int(x)] for ts, x in labels} == {ts: verdicts[ts] for ts, _ in labels}


def test_features_are_observations_as_known_then(trained: Conn) -> None:
    """A vector is that of history, and its probabilities are those of the rules as delivered."""
    names = trained.execute("select features from feature.sets where name = 'regime_1h'").fetchone()
    assert names is not None
    for hour in (100, 777, 1441, 2600):
        t = START + hour * HOUR
        row = trained.execute(
            "select feature.vector('regime_1h', 'LEARNUSDT', %s),"
            " (select vector from feature._history('regime_1h', null, 'LEARNUSDT', %s, %s)"
            "  where ts = %s),"
            " (select probabilities from regime.classify('LEARNUSDT', %s))",
            (t, START + 50 * HOUR, END + HOUR, t, t),
        ).fetchone()
        assert row is not None and row[0] == row[1]
        vector = dict(zip(names[0], row[0], strict=True))
        assert {s: vector[f"p_{s}"] for s in STATES} == row[2]


def test_the_rules_as_delivered_are_the_rows(db_module: Conn) -> None:
    from alphaplus.server.regime import rules

    row = db_module.execute("select regime.rule_thresholds('delivered')").fetchone()
    assert row is not None
    assert row[0] == rules.DELIVERED


def test_training_rows_of_one_regime(trained: Conn) -> None:
    """Those whose verdict, known by as_of, is of that regime: by an own join."""
    as_of = START + 1500 * HOUR
    trained.execute(
        "insert into ml.models (model, label, feature_set, feature_version, algorithm)"
        " values ('up', 'direction_4h', 'regime_1h', 1, 'lightgbm') on conflict do nothing"
    )
    whole = dict(
        trained.execute(
            "select ts, target from ml.training_set('up', 'LEARNUSDT', %s)", (as_of,)
        ).fetchall()
    )
    cut = dict(
        trained.execute(
            "select ts, target from ml.training_set('up', 'LEARNUSDT', %s, regime => 'trending')",
            (as_of,),
        ).fetchall()
    )
    verdicts = trained.execute(
        "select ts, verdict from regime.verdicts('LEARNUSDT', %s, %s, %s)", (START, as_of, as_of)
    ).fetchall()
    chosen = {t for t, v in verdicts if v in ("bull_trending", "bear_trending")}
    assert cut == {t: y for t, y in whole.items() if t in chosen}
    assert 50 < len(cut) < len(whole)


def test_the_chain_symbol_and_regime_symbol_pooled(trained: Conn, server: Server) -> None:
    """A version trained for trending serves in a bull trend, and the symbol's own elsewhere."""
    row = trained.execute(
        "call ml.retrain('up', 'LEARNUSDT', 'Trending', as_of => %s,"
        """ options => '{"folds": 2, "min_rows": 100, "baselines": false}')""",
        (START + 2000 * HOUR,),
    ).fetchone()
    assert row is not None
    assert trained.execute(
        "select regime from ml.training_jobs where job_id = %s", (row[0],)
    ).fetchone() == ("trending",)
    conninfo = server.conninfo(trained.info.dbname, "alphaplus_trainer")
    version_id = run_next(conninfo, threads=1, shutdown=threading.Event())
    assert version_id is not None
    trained.execute("call ml.promote(%s, 'test', force => true)", (version_id,))
    served = trained.execute(
        "select ml.champion('up', 'LEARNUSDT', 'bull_trending'),"
        " ml.champion('up', 'LEARNUSDT', 'trending'), ml.champion('up', 'LEARNUSDT', 'crash')"
    ).fetchone()
    assert served == (version_id, version_id, None)
    seen = set()
    for hour in range(2010, 2600, 30):
        answer = trained.execute(
            "select regime, partition_used, version_id from ml.predict('up', 'LEARNUSDT', %s)",
            (START + hour * HOUR,),
        ).fetchone()
        assert answer is not None
        trending = answer[0] in ("bull_trending", "bear_trending")
        assert answer[1] == ("symbol and regime" if trending else "base rate")
        assert answer[2] == (version_id if trending else None)
        seen.add(trending)
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("call ml.retrain('up', 'LEARNUSDT', 'boom')", "AP601"),
        ("call ml.retrain('up', null, 'trending')", "AP305"),
        ("select regime.create_model('x', '4 hours')", "AP613"),
        ("select regime.create_model('Not a name')", "AP614"),
        ("select regime.create_model('up')", "AP615"),
        ("select regime._check_artifact('{}')", "AP411"),
        (
            "select count(*) from ml.training_set('up', 'LEARNUSDT', now(), regime => 'boom')",
            "AP601",
        ),
    ],
)
def test_a_clear_no(trained: Conn, query: str, code: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        trained.execute(query)
    assert caught.value.sqlstate == code and caught.value.diag.message_hint


def test_no_other_artifact_passes_for_one(trained: Conn) -> None:
    _, _, _, artifact, _ = version(trained)
    damaged = bytes(artifact).replace(b'"evidence":', b'"evidence":1e999,"x":', 1)
    with pytest.raises(psycopg.Error) as caught:
        trained.execute("select regime._check_artifact(%s)", (damaged,))
    assert caught.value.sqlstate == "AP411"


def test_the_simulator_says_how_well_one_could_do() -> None:
    """The posterior sums to one and is calibrated; a trend is more than noise over its dwell."""
    from alphaplus.loaders import simulator as s

    minutes = 20 * 1440
    market = s.simulate(3, minutes, hazards=False)
    posterior, regime = market.truth["posterior"], market.truth["regime"]
    assert posterior.shape == (minutes, 6)
    assert posterior.sum(axis=1) == pytest.approx(np.ones(minutes))
    hit = posterior.argmax(axis=1) == regime
    assert abs(hit.mean() - posterior.max(axis=1).mean()) < 0.05 and hit.mean() > 0.8
    sigma = s.Config().volatility * np.exp(s._LOG_VOL) * np.sqrt(s._DWELL)
    assert (np.abs(s._DRIFT * s._DWELL)[:2] >= 1.5 * sigma[:2]).all()
    assert dt.timedelta(minutes=int(s._DWELL[5])) >= dt.timedelta(hours=6)
