"""Pictures: what is drawn is what the database says; wrong calls say what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import alphaplus.client as ap
import numpy as np
import psycopg
import pytest
from alphaplus.cli import plot
from alphaplus.cli.main import app
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import Server
from tests.db import lifecycle
from tests.db import market_data as market

Conn = psycopg.Connection[Any]


@dataclass
class World:
    db: Conn
    client: ap.Client
    version: int


@pytest.fixture(scope="module")
def world(db_module: Conn, server: Server) -> Iterator[World]:
    """A version of the toy model, trained through the queue, and bars with a hole."""
    db = db_module
    lifecycle.install(db)
    lifecycle.fill(db, "AAA", 600)
    db.execute("call ml.retrain('toy', 'AAA')")
    lifecycle.train_all(server.conninfo(db.info.dbname, "alphaplus_trainer"))
    row = db.execute("select max(version_id) from ml.model_versions").fetchone()
    assert row is not None and row[0], db.execute("select error from ml.training_jobs").fetchall()
    market.instrument(db, "BBBUSDT")
    db.execute(
        "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
        " select 'BBBUSDT', interval '1 hour', t, t + interval '1 hour', 1, 1, 1, 1, 1"
        " from generate_series(%s::timestamptz, %s, interval '1 hour') t"
        " where extract(hour from t) <> 5",
        (market.at(0), market.at(60 * 72)),
    )
    with ap.connect(server.conninfo(db.info.dbname, "alphaplus_reader")) as client:
        yield World(db, client, row[0])


def figure() -> Any:
    return Figure(layout="constrained")


def test_calibration_shows_the_out_of_fold_rows(world: World) -> None:
    drawn = figure()
    words = plot.draw_calibration(world.client, drawn, world.version)
    rows = world.client.out_of_fold(world.version).sort_values("prediction", kind="stable")
    assert f"{len(rows):,} out-of-fold rows" in words
    panel, histogram = drawn.axes
    line = next(x for x in panel.lines if len(x.get_xdata()) == plot.BINS)
    parts = np.array_split(rows[["prediction", "target"]].to_numpy(float), plot.BINS)
    np.testing.assert_allclose(
        np.asarray(line.get_xdata(), float), [part[:, 0].mean() for part in parts]
    )
    np.testing.assert_allclose(
        np.asarray(line.get_ydata(), float), [part[:, 1].mean() for part in parts]
    )
    assert sum(bar.get_height() for bar in histogram.patches) == len(rows)
    assert panel.get_ylabel() and histogram.get_xlabel() and panel.get_legend()


def test_wilson_is_the_textbook_interval() -> None:
    from scipy.stats import binomtest

    for k, n in ((0, 20), (3, 20), (50, 100), (100, 100)):
        expected = binomtest(k, n).proportion_ci(0.95, "wilson")
        assert plot.wilson(k / n, n) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_folds(world: World) -> None:
    drawn = figure()
    words = plot.draw_folds(world.client, drawn, world.version)
    (parts,) = (
        world.db.execute(
            "select fold_metrics from ml.model_versions where version_id = %s", (world.version,)
        ).fetchone()
        or ()
    )
    assert words.startswith(f"{len(parts)} folds")
    said = {text.get_text() for text in drawn.axes[0].texts}
    assert said == {f"{part['fold']}: {part['auc']:.3f}" for part in parts}
    assert [axis.get_ylabel() for axis in drawn.axes] == ["AUC", "log loss (nats)", "ECE"]


def test_importance(world: World) -> None:
    drawn = figure()
    plot.draw_importance(world.client, drawn, world.version, 3)
    (found,) = (
        world.db.execute(
            "select importance -> 'gain' from ml.model_versions where version_id = %s",
            (world.version,),
        ).fetchone()
        or ()
    )
    best = sorted(found, key=lambda name: -found[name])[:3]
    (panel,) = drawn.axes
    assert [label.get_text() for label in panel.get_yticklabels()] == best[::-1]
    total = sum(found.values())
    widths = [bar.get_width() for bar in panel.patches][::-1]
    np.testing.assert_allclose(widths, [100 * found[name] / total for name in best])


def test_coverage(world: World) -> None:
    drawn = figure()
    words = plot.draw_coverage(world.client, drawn, ["BBBUSDT"])
    assert words == "1 series of 1 symbols"
    (panel,) = drawn.axes
    assert [t.get_text() for t in panel.get_yticklabels()] == ["BBBUSDT candles 01:00:00 (70)"]
    black = [c for c in panel.collections if tuple(c.get_color()[0]) == (0, 0, 0, 1)]
    assert len(black) == 3  # five o'clock on three days


def test_predictions(world: World) -> None:
    world.db.execute("call ml.promote(%s, 'test', true)", (world.version,))
    world.db.execute(
        "insert into ml.predictions (as_of, symbol, model, horizon, prediction, probability,"
        " is_fallback, outcome) select %s + n * interval '1 minute', 'AAA', 'toy', '5 min', n / 10.0,"
        " n / 10.0, n > 7, case when n < 9 then n %% 2 end from generate_series(1, 9) n",
        (lifecycle.START,),
    )
    drawn = figure()
    words = plot.draw_predictions(world.client, drawn, "toy", "AAA", None, None)
    assert words == "9 predictions of toy for AAA, 1 without an outcome yet"
    (panel,) = drawn.axes
    labels = [text.get_text() for text in panel.get_legend().get_texts()]
    assert labels == ["model", "base rate (fallback)", "it happened (4 of 8)"]


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "html"])
def test_files(world: World, server: Server, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"x.{ending}"
    conninfo = server.conninfo(world.db.info.dbname, "alphaplus_reader")
    done = CliRunner().invoke(
        app, ["plot", "folds", str(world.version), "--out", str(out)],
        env={"DATABASE_URL": conninfo, "ALPHAPLUS_PGPASS": ""},
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    if ending == "png":
        with Image.open(out) as picture:
            assert picture.width > 800 and len(picture.convert("L").getcolors()) > 20
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "html": b"<!doctype html>"}[ending]
    assert out.read_bytes().startswith(start) and out.stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["folds", "999999", "--out", "x.png"], "unknown model version 999999"),
        (["calibration", "999999", "--out", "x.gif"], "the ending says the format"),
        (["predictions", "toy", "--symbol", "BBBUSDT", "--out", "x.png"], "no prediction of toy"),
        (["predictions", "toy", "--symbol", "NO", "--out", "x.png"], "AP101"),
        (["coverage", "NO", "--out", "x.png"], "AP101"),
    ],
)
def test_what_cannot_be_drawn(
    world: World, server: Server, tmp_path: Path, arguments: list[str], words: str
) -> None:
    arguments[-1] = str(tmp_path / arguments[-1])
    conninfo = server.conninfo(world.db.info.dbname, "alphaplus_reader")
    done = CliRunner().invoke(
        app, ["plot", *arguments], env={"DATABASE_URL": conninfo, "ALPHAPLUS_PGPASS": ""}
    )
    assert done.exit_code == 1 and words in done.output, done.output
    assert list(tmp_path.iterdir()) == []
