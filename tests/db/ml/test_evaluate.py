"""Versions held against what happened: out of fold, on any rows, beside each other; own models."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import psycopg
import pytest
from alphaplus.cli import model as cli
from alphaplus.trainer.job import run_next
from psycopg.types.json import Jsonb
from sklearn import metrics as sk

from tests.conftest import Server

Conn = psycopg.Connection[Any]
START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
MINUTES = 2600
MINUTE = dt.timedelta(minutes=1)
CUT = START + 2000 * MINUTE
MODEL = "direction_15m"


@pytest.fixture(scope="module")
def market(db_module: Conn) -> Conn:
    """A price that swings, so that there is something to learn."""
    db = db_module
    db.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('AAA', 'test', 'AAA', 'A', 'USD')"
    )
    rng = np.random.default_rng(3)
    i = np.arange(MINUTES)
    price = 100 * np.exp(0.01 * np.sin(i / 25) + np.cumsum(rng.normal(0, 4e-4, MINUTES)))
    with (
        db.cursor() as cursor,
        cursor.copy(
            "copy market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
            " from stdin"
        ) as copy,
    ):
        for n in range(MINUTES):
            ts, p = START + n * MINUTE, float(price[n])
            known, volume = ts + MINUTE, float(10 + n % 7)
            copy.write_row(("AAA", MINUTE, ts, known, p, p * 1.0004, p * 0.9996, p, volume))
    db.execute("call market.refresh_aggregates()")
    return db


@pytest.fixture(scope="module")
def trained(market: Conn, server: Server) -> list[int]:
    """Two versions, trained on what was known at the cut."""
    as_trainer = server.conninfo(market.info.dbname, "alphaplus_trainer")
    found = []
    for params in ({"rounds": 30, "min_rounds": 30}, {"rounds": 3, "min_rounds": 3}):
        market.execute(
            "call ml.retrain(%s, 'AAA', as_of => %s, options => %s)",
            (MODEL, CUT, Jsonb({"folds": 3, "params": params})),
        )
        version = run_next(as_trainer, threads=1, shutdown=threading.Event())
        assert version is not None, market.execute("select error from ml.jobs").fetchall()
        found.append(version)
    return found


def one(conn: Conn, query: str, *params: Any) -> Any:
    row = conn.execute(query, params).fetchone()  # type: ignore[call-overload]
    assert row is not None
    return row[0] if len(row) == 1 else row


def test_metrics_are_those_of_the_out_of_fold_predictions(
    market: Conn, trained: list[int], connect_as: Callable[[str, str], Conn]
) -> None:
    reader = connect_as("alphaplus_reader", market.info.dbname)
    rows = reader.execute("select * from ml.out_of_fold(%s)", (trained[0],)).fetchall()
    symbols, ts, fold, p, y, base, _ = zip(*rows, strict=True)
    assert set(symbols) == {"AAA"} and set(fold) == {1, 2, 3} and len(set(ts)) == len(ts)
    p, y, base = (np.array(v) for v in (p, y, base))
    # The outcomes are the database's own labels.
    labels = dict(
        market.execute(
            "select ts, target from ml.label_values(%s, 'AAA', %s, %s, %s)",
            (MODEL, START, CUT, CUT),
        ).fetchall()
    )
    assert [labels[t] for t in ts] == y.tolist()
    measured, claimed = one(
        market, "select metrics, claimed_metrics from ml.model_versions where version_id = %s",
        trained[0],
    )  # fmt: skip
    assert measured["rows"] == len(y)
    for name, value in {
        "auc": sk.roc_auc_score(y, p), "log_loss": sk.log_loss(y, p),
        "average_precision": sk.average_precision_score(y, p),
        "brier": sk.brier_score_loss(y, p),
    }.items():  # fmt: skip
        assert measured[name] == pytest.approx(value, abs=1e-12), name
        assert claimed[name] == pytest.approx(value, abs=1e-9), name
    assert measured["baseline"]["log_loss"] == pytest.approx(sk.log_loss(y, base), abs=1e-12)
    assert measured["f1_base_rate"] == pytest.approx(sk.f1_score(y, np.ones(len(y))), abs=1e-12)
    # The base rate of a fold is what was known when it began.
    first = min(t for t, f in zip(ts, fold, strict=True) if f == 2)
    known = [v for t, v in labels.items() if t + 15 * MINUTE < first]
    assert base[fold.index(2)] == pytest.approx(np.mean(known), abs=1e-12)
    assert one(
        market, "select measured_on from ml.leaderboard where version_id = %s", trained[0]
    ) == ("out of fold")


def test_a_trainer_cannot_forge_its_metrics(market: Conn, server: Server) -> None:
    """Whatever it claims: outcomes are the database's, and rows it has not are refused."""
    from alphaplus.server.training import out_of_fold

    conninfo = server.conninfo(market.info.dbname, "alphaplus_trainer")
    market.execute("call ml.retrain(%s, 'AAA', as_of => %s)", (MODEL, CUT))
    with psycopg.connect(conninfo, autocommit=True) as conn:
        token = one(conn, "select ml._trainer_start('forger')")
        state, lease, job, _ = (
            conn.execute("select * from ml._next_job(%s)", (token,)).fetchone() or (None,) * 4
        )
        assert state == "claimed"

        def rows(count: int) -> Any:
            made = np.zeros(count, dtype=out_of_fold.ROW)
            start = round((START + 1000 * MINUTE).timestamp() * 1e6)
            made["ts"] = start + np.arange(count) * 60_000_000
            made["symbol"], made["fold"], made["prediction"] = 1, 1, 0.5
            made[["champion", "persistence", "linear"]] = np.nan
            return made

        def bad(change: Callable[[Any], Any]) -> Any:
            made = rows(200)
            change(made)
            return made

        def finish(handed: bytes) -> Any:
            return conn.execute(
                "select ml._finish_job(%s, %s, '{}', '', '', %s)", (job["job_id"], lease, handed)
            )

        for handed in (
            b"",
            b"x" * 1000,
            rows(10).tobytes(),
            bad(lambda m: m["prediction"].fill(2.0)).tobytes(),
            bad(lambda m: m["prediction"].fill(np.nan)).tobytes(),
            bad(lambda m: m["symbol"].fill(7)).tobytes(),
            bad(lambda m: m["ts"].fill(m["ts"][0])).tobytes(),
            bad(lambda m: m["ts"].__iadd__(10**15)).tobytes(),
            bad(lambda m: m["fold"].__setitem__(slice(None), np.arange(200) % 2 + 1)).tobytes(),
        ):
            with pytest.raises(psycopg.Error) as caught:
                finish(handed)
            assert caught.value.sqlstate == "AP431", caught.value
        # Another's lease, or none, says nothing of the job.
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(
                "select ml._finish_job(%s, gen_random_uuid(), '{}', '', '', '')", (job["job_id"],)
            )
        assert caught.value.sqlstate == "AP311"
        kept = one(market, "select lease from ml.training_jobs where job_id = %s", job["job_id"])
        assert kept != lease
        assert one(conn, "select ml._job_progress(%s, %s)", job["job_id"], kept) == "lost"
        assert one(conn, "select ml._fail_job(%s, %s, 'error')", job["job_id"], kept) == "lost"
        assert (
            one(conn, "select ml._fail_job(%s, %s, 'error', 'x')", job["job_id"], lease) == "failed"
        )


def test_evaluation_on_rows_after_training(market: Conn, trained: list[int]) -> None:
    symbol, count, low, _, to, in_sample, found = one(
        market, "select * from ml.evaluate(%s, as_of => %s)", trained[0], START + MINUTES * MINUTE
    )
    assert (symbol, in_sample) == (None, False) and low > to
    y = dict(
        market.execute(
            "select ts, target from ml.label_values(%s, 'AAA', %s, %s, %s)",
            (MODEL, low, START + MINUTES * MINUTE, START + MINUTES * MINUTE),
        ).fetchall()
    )
    assert count == len(y)
    said = market.execute(
        "select g.ts, ml.predict_version(%s, feature.vector('technical_1m', 'AAA', g.ts))"
        " from generate_series(%s::timestamptz, %s, interval '20 minutes') as g (ts)",
        (trained[0], low, max(y)),
    ).fetchall()
    assert len(said) > 20
    # The whole in one query, so that the test does not ask row by row.
    rows = market.execute(
        "select ts, prediction from ml.predict_history(%s, 'AAA', %s, %s, version_id => %s)",
        (MODEL, low, START + MINUTES * MINUTE, trained[0]),
    ).fetchall() if has_version(market) else []  # fmt: skip
    if rows:
        p = {t: v for t, v in rows if t in y}
        assert found["auc"] == pytest.approx(
            sk.roc_auc_score([y[t] for t in p], list(p.values())), abs=1e-9
        )
    inside = one(market, "select in_sample from ml.evaluate(%s, %s, %s)", trained[0], START, CUT)
    assert inside is True
    with pytest.raises(psycopg.Error) as caught:
        market.execute("select * from ml.evaluate(%s, '2031-01-01')", (trained[0],))
    assert caught.value.sqlstate == "AP432"


def has_version(conn: Conn) -> bool:
    return bool(
        one(
            conn,
            "select exists (select from pg_proc p where p.proname = 'predict_history'"
            " and 'version_id' = any (p.proargnames[:p.pronargs]))",
        )
    )


def test_two_versions_on_the_same_rows(market: Conn, trained: list[int]) -> None:
    a, b = trained
    row = market.execute("select * from ml.compare_versions(%s, %s)", (a, b)).fetchone()
    assert row is not None
    method, count, loss, loss_a, loss_b, gap, low, high, p_value, *_ = row
    assert (method, loss) == ("out_of_fold", "log_loss")
    ps = [
        dict(market.execute("select ts, prediction from ml.out_of_fold(%s)", (v,)).fetchall())
        for v in (a, b)
    ]
    y = dict(market.execute("select ts, target from ml.out_of_fold(%s)", (a,)).fetchall())
    both = sorted(set(ps[0]) & set(ps[1]))
    assert count == len(both)
    losses = [sk.log_loss([y[t] for t in both], [p[t] for t in both]) for p in ps]
    assert (loss_a, loss_b) == pytest.approx(tuple(losses), abs=1e-9)
    assert gap == pytest.approx(losses[1] - losses[0], abs=1e-9)
    assert low <= gap <= high and 0 < p_value <= 1
    # The other way round is the same with the other sign; a version beside itself is no better.
    back = market.execute("select * from ml.compare_versions(%s, %s)", (b, a)).fetchone()
    assert back is not None and back[5] == pytest.approx(-gap, abs=1e-12)
    same = market.execute("select * from ml.compare_versions(%s, %s)", (a, a)).fetchone()
    assert same is not None and same[5:9] == (0, 0, 0, 1)
    later = market.execute(
        "select * from ml.compare_versions(%s, %s, %s, as_of => %s)",
        (a, b, CUT + 30 * MINUTE, START + MINUTES * MINUTE),
    ).fetchone()
    assert later is not None and later[0] == "unseen"
    seen = market.execute(
        "select method from ml.compare_versions(%s, %s, %s, %s)", (a, b, START, CUT)
    ).fetchone()
    assert seen == ("in_sample",)


@pytest.fixture(scope="module")
def own(market: Conn) -> tuple[lightgbm.Booster, list[str], Any]:
    """A model of one's own on nine of the features: (booster, their names, probe rows)."""
    names = one(market, "select features from feature.sets s join ml.models m"
                " on m.feature_set = s.name and m.feature_version = s.version"
                " where m.model = %s", MODEL)  # fmt: skip
    rows = market.execute(
        "select features, target from ml.training_set(%s, 'AAA', %s)", (MODEL, CUT)
    ).fetchall()
    x = np.array([r[0] for r in rows], dtype=float)
    used = [n for n in names if np.isfinite(x[:, names.index(n)]).mean() > 0.9][:9]
    x = x[:, [names.index(n) for n in used]]
    y = np.array([r[1] for r in rows])
    booster = lightgbm.train(
        {"objective": "binary", "num_leaves": 8, "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(x, y, feature_name=used), 20,
    )  # fmt: skip
    return booster, used, x[50:400:50]


def register(conn: Conn, text: str, names: Any, rows: Any, outputs: Any, **more: Any) -> int:
    given = {"spec": {}, "model": MODEL, "from": START, "to": CUT, **more}
    return int(
        one(
            conn,
            "select ml.register_external(%s, %s, %s, %s, %s, %s, %s, 'AAA', %s,"
            " claimed_metrics => %s)",
            given["model"], text.encode(), names,
            [[None if v != v else float(v) for v in r] for r in rows],  # noqa: PLR0124
            [float(v) for v in outputs], given["from"], given["to"], Jsonb(given["spec"]),
            Jsonb({"auc": 0.999, "log_loss": 0.001, "ece": 0, "ece_beyond_chance": 0}),
        )
    )  # fmt: skip


def test_a_model_of_ones_own_is_matched_by_name(market: Conn, own: Any, tmp_path: Path) -> None:
    booster, names, rows = own
    said = booster.predict(rows)
    text = booster.model_to_string()
    version = register(market, text, names, rows, said)
    wanted = one(market, "select features from ml.model_versions where version_id = %s", version)
    for row, expected in zip(rows, said, strict=True):
        vector: list[float | None] = [None] * len(wanted)
        for name, v in zip(names, row, strict=True):
            vector[wanted.index(name)] = None if np.isnan(v) else float(v)
        assert one(
            market, "select ml.predict_version(%s, %s::float8[])", version, vector
        ) == pytest.approx(expected, abs=1e-9)
    # Names it carries itself need not be given; its claims promote nothing.
    assert register(market, text, None, rows, said) > version
    with pytest.raises(psycopg.Error) as caught:
        market.execute("call ml.promote(%s)", (version,))
    assert caught.value.sqlstate == "AP406"
    market.execute(
        "select ml.record_evaluation(%s, as_of => %s)", (version, START + MINUTES * MINUTE)
    )
    verdicts = dict(
        market.execute("select gate, value from ml.gate_report(%s)", (version,)).fetchall()
    )
    assert verdicts["auc"] is not None and verdicts["auc"] < 0.999
    # And out again: what is exported says the same.
    exported = market.execute("select * from ml.export_version(%s)", (version,)).fetchone()
    assert exported is not None
    cli.write(tmp_path, *exported)
    about = json.loads((tmp_path / "about.json").read_text())
    again = lightgbm.Booster(model_file=str(tmp_path / "model.txt"))
    assert again.feature_name() == about["features"]
    np.testing.assert_allclose(
        again.predict(np.array(about["probe"]["rows"])), about["probe"]["outputs"], atol=1e-9
    )


def test_what_does_not_belong_together_is_refused(market: Conn, own: Any) -> None:
    booster, names, rows = own
    said = booster.predict(rows)
    text = booster.model_to_string()
    plain = lightgbm.train(
        {"objective": "binary", "num_leaves": 8, "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(rows.repeat(20, axis=0), np.arange(20 * len(rows)) % 2.0), 2,
    ).model_to_string()  # fmt: skip
    values = lightgbm.train(
        {"objective": "regression", "num_leaves": 8, "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(rows.repeat(20, axis=0), rows.repeat(20, axis=0)[:, 0], feature_name=names),
        2,
    ).model_to_string()  # fmt: skip
    reversed_rows = rows[:, ::-1]
    for case in (
        (text, names[::-1], rows, said),  # other names than its own
        (text, [*names[:-1], "nothing"], rows, said),
        (text, None, reversed_rows, said),  # the columns of the probe the wrong way round
        (text, None, rows, said + 1e-4),
        (text, None, rows[:, :-1], said),
        (text, None, rows, said[:-1]),
        (text, None, rows[:1], said[:1]),
        (text, None, np.zeros_like(rows), np.full(len(rows), 0.5)),  # a probe that says nothing
        (plain, None, rows, said),  # no names
        (plain, names, rows, said),
        (values, None, rows, said),  # a value where a class is asked for
    ):
        with pytest.raises(psycopg.Error) as caught:
            register(market, *case)
        assert caught.value.sqlstate == "AP434" and caught.value.diag.message_hint, case[1:]
    for spec in ({"output": {"kind": "identity"}}, {"output": {"kind": "probability"}}):
        with pytest.raises(psycopg.Error) as caught:
            register(market, text, None, rows, said, spec=spec)
        assert caught.value.sqlstate == "AP434"
    for more in ({"from": None}, {"to": START - MINUTE}, {"to": "infinity"}, {"to": "2999-01-01"}):
        with pytest.raises(psycopg.Error) as caught:
            register(market, text, None, rows, said, **more)
        assert caught.value.sqlstate == "AP435"


def test_a_plain_registration_of_reversed_columns_is_refused(market: Conn) -> None:
    names = one(market, "select features from feature.sets s join ml.models m"
                " on m.feature_set = s.name and m.feature_version = s.version"
                " where m.model = %s", MODEL)  # fmt: skip
    x = np.random.default_rng(1).normal(size=(300, len(names)))
    text = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(x, (x[:, 0] > 0) * 1.0, feature_name=names[::-1]), 2,
    ).model_to_string().encode()  # fmt: skip
    version = {
        "algorithm": "lightgbm", "format": "lightgbm", "features": names,
        "spec": {"output": {"kind": "log_odds"}}, "metrics": {}, "train_from": START.isoformat(),
        "train_to": CUT.isoformat(), "as_of": CUT.isoformat(), "row_count": 1,
        "training_sha256": "00", "library_versions": {}, "code_version": "mine",
    }  # fmt: skip
    with pytest.raises(psycopg.Error) as caught:
        market.execute(
            "select ml.register_version(%s, 'AAA', %s, sha256(%s), %s)",
            (MODEL, text, text, Jsonb(version)),
        )
    assert caught.value.sqlstate == "AP412"
