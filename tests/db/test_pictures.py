"""What pictures and reports are drawn of, against plain computations on the rows."""

from __future__ import annotations

import datetime as dt
import html.parser
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import psycopg
import pytest
from alphaplus import report
from alphaplus.screens import tiles
from matplotlib.figure import Figure
from psycopg import conninfo as pq
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from tests.conftest import Server
from tests.db import screens_world

ROOT = Path(__file__).resolve().parents[2]
Conn = psycopg.Connection[Any]
START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def world(db_module: Conn) -> Conn:
    screens_world.fill(db_module)
    return db_module


def frame(db: Conn, query: str, *arguments: Any) -> Any:
    cursor = db.execute(query.encode(), arguments or None)
    names = [column.name for column in cursor.description or ()]
    return pd.DataFrame(cursor.fetchall(), columns=names)


def late_market(db: Conn, seed: int) -> Any:
    """Trades of two days, a fifth of them known hours late, and a book a minute."""
    rng = np.random.default_rng(seed)
    db.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('AAA', 'test', 'AAA', 'AAA', 'USDT')"
    )
    n = 800
    at = np.sort(rng.uniform(0, 2 * 86400, n))
    late = np.where(rng.random(n) < 0.2, rng.exponential(20000, n), 0.1)
    trades: Any = pd.DataFrame(
        {
            "ts": [START + dt.timedelta(seconds=float(s)) for s in at],
            "known": [START + dt.timedelta(seconds=float(s)) for s in at + late],
            "price": 100 * np.exp(np.cumsum(rng.normal(0, 0.001, n))),
            "size": rng.lognormal(0, 1, n), "buy": rng.random(n) < 0.5,
        }
    )  # fmt: skip
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
            " values ('AAA', %s, %s, %s, %s, %s, %s)",
            [
                (r.ts, f"{i:05d}", r.known, r.price, r.size, "buy" if r.buy else "sell")
                for i, r in enumerate(trades.itertuples())
            ],
        )
        cursor.executemany(
            "insert into market.order_book_snapshots (symbol, ts, sequence, known_at, bid_prices,"
            " bid_sizes, ask_prices, ask_sizes) values ('AAA', %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    START + dt.timedelta(minutes=i), i, START + dt.timedelta(minutes=i, seconds=1),
                    [99.9, 99.8], [1.0 + i % 3, 2.0], [100.1, 100.3], [1.0, 4.0],
                )
                for i in range(300)
            ],
        )  # fmt: skip
    return trades


@pytest.mark.parametrize("seed", [1, 2])
def test_candles_are_the_trades_known_by_then(db: Conn, seed: int) -> None:
    trades = late_market(db, seed)
    db.execute("call market.refresh_aggregates()")
    as_of = START + dt.timedelta(hours=30, minutes=20)
    known = trades[trades.known <= as_of]
    bars = known.set_index(pd.to_datetime(known.ts, utc=True)).resample("1h")
    right = bars.agg(
        open=("price", "first"), high=("price", "max"), low=("price", "min"), close=("price", "last"),
        volume=("size", "sum"), buys=("buy", "sum"), n=("price", "size"),
    )  # fmt: skip
    right = right[right.n > 0]
    right = right[right.index + pd.Timedelta("1h") <= pd.Timestamp(as_of)]
    got = frame(
        db, "select * from analytics.candles('AAA', timeframe => '1 hour', as_of => %s)", as_of
    )
    assert list(got.ts) == list(right.index)
    for name in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(got[name], right[name])
    np.testing.assert_allclose(got.volume, right.volume, rtol=1e-12)
    bought = known[known.buy].set_index(pd.to_datetime(known[known.buy].ts, utc=True))
    share = bought["size"].resample("1h").sum().reindex(right.index).fillna(0) / right.volume
    np.testing.assert_allclose(got.buy_share, share, rtol=1e-12)
    # … and what becomes known later changes nothing of it.
    db.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " values ('AAA', %s, 'late', %s, 1000, 5, 'buy')",
        (START + dt.timedelta(hours=3), as_of + dt.timedelta(microseconds=1)),
    )
    db.execute("call market.refresh_aggregates()")
    again = frame(
        db, "select * from analytics.candles('AAA', timeframe => '1 hour', as_of => %s)", as_of
    )
    pd.testing.assert_frame_equal(got, again)
    now = frame(db, "select max(high) as m from analytics.candles('AAA', timeframe => '1 hour')")
    assert now.m[0] == 1000


def test_a_range_without_a_length_has_at_most_300_candles(db: Conn) -> None:
    late_market(db, 3)
    db.execute("call market.refresh_aggregates()")
    for hours, width in ((4, 60), (20, 300), (47, 900)):
        got = frame(
            db, "select * from analytics.candles('AAA', %s, %s)",
            START, START + dt.timedelta(hours=hours),
        )  # fmt: skip
        assert 0 < len(got) <= 300
        assert set(got.timeframe) == {dt.timedelta(seconds=width)}


def test_the_book_is_the_last_one_known(db: Conn) -> None:
    late_market(db, 4)
    as_of = START + dt.timedelta(minutes=100, milliseconds=500)
    got = frame(db, "select * from analytics.book('AAA', %s)", as_of)
    assert set(got.ts) == {START + dt.timedelta(minutes=99)}  # that of 100 is known a second later
    assert list(got.price) == [99.8, 99.9, 100.1, 100.3]
    assert list(got.cumulative) == [1.0 + 99 % 3 + 2.0, 1.0 + 99 % 3, 1.0, 5.0]
    np.testing.assert_allclose(got.distance_bps, [-20, -10, 10, 30], atol=1e-9)
    books = frame(db, "select * from analytics.books('AAA', as_of => %s)", as_of)
    assert books.snapshots.sum() == 100
    np.testing.assert_allclose(books.spread_bps, 20, rtol=1e-9)


def test_measures_of_the_report_are_those_of_the_out_of_fold_rows(world: Conn) -> None:
    card = report.card(world, screens_world.MODEL, screens_world.SYMBOL)
    rows = frame(world, "select * from ml.out_of_fold(%s)", card.version["version_id"])
    said = card.metrics.set_index("measure")
    assert said.value["log_loss"] == pytest.approx(log_loss(rows.target, rows.prediction), rel=1e-9)
    assert said.value["auc"] == pytest.approx(roc_auc_score(rows.target, rows.prediction), rel=1e-9)
    assert said.value["brier"] == pytest.approx(
        brier_score_loss(rows.target, rows.prediction), rel=1e-9
    )
    assert said.low["log_loss"] < said.value["log_loss"] < said.high["log_loss"]
    for fold in card.folds.itertuples():
        part = rows[rows.fold == fold.fold]
        assert fold.row_count == len(part)
        assert fold.log_loss == pytest.approx(log_loss(part.target, part.prediction), rel=1e-9)
    bins = card.reliability
    assert bins.predictions.sum() == len(rows)
    weights = bins.predictions / len(rows)
    assert (weights * bins.mean_probability).sum() == pytest.approx(rows.prediction.mean())
    assert (weights * bins.observed).sum() == pytest.approx(rows.target.mean())
    assert (bins.observed_low <= bins.observed).all()
    assert (bins.observed <= bins.observed_high).all()
    assert bins.mean_probability.is_monotonic_increasing
    assert card.importance.share.sum() == pytest.approx(1)
    assert list(card.importance["rank"]) == list(range(1, len(card.importance) + 1))


def test_contributions_are_lightgbms(world: Conn) -> None:
    card = report.card(world, screens_world.MODEL, screens_world.SYMBOL, samples=20)
    row = world.execute(
        "select artifact from ml.model_versions where version_id = %s",
        (card.version["version_id"],),
    ).fetchone()
    assert row is not None
    booster = lightgbm.Booster(model_str=bytes(row[0]).decode())
    names = card.version["features"]
    for _, one in card.contributions.groupby("row"):
        one = one.set_index("feature").reindex(names)
        right: Any = booster.predict(one.value.astype(float).to_numpy()[None], pred_contrib=True)
        np.testing.assert_allclose(one.contribution.astype(float), right[0][:-1], atol=1e-6)


def test_every_block_of_the_page_runs(
    world: Conn, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "dashboards.md").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    assert {kind for kind, _ in blocks} == {"sql", "sh", "python"}
    given = pq.conninfo_to_dict(server.conninfo(world.info.dbname, "alphaplus_reader"))
    for name, value in given.items():
        words = {"dbname": "PGDATABASE"}
        monkeypatch.setenv(words.get(name, f"PG{name.upper()}"), str(value))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("ALPHAPLUS_PGPASS", raising=False)
    env = {
        **os.environ, "ALPHAPLUS_STATE": str(tmp_path / "state"), "MODEL": screens_world.MODEL,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    for kind, block in blocks:
        if kind == "sql":
            for statement in block.split(";\n"):
                if statement.strip():
                    assert world.execute(statement.encode()).fetchall(), statement
        elif kind == "python":
            exec(block, {"model": screens_world.MODEL})
        else:
            block = block.replace("docker/", f"{ROOT}/docker/")
            done = subprocess.run(
                ["bash", "-euc", block], cwd=tmp_path, env=env, capture_output=True, text=True,
                check=False, timeout=300,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "report.html").stat().st_size > 50000
    listed = re.findall(r"^\| ([A-Z][\w -]+?) +\|", text, re.MULTILINE)
    assert listed == [d.title for d in tiles.load().dashboards]


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_page_needs_no_network_and_holds_text_as_text(world: Conn) -> None:
    evil = "<script src=//evil.example/x.js></script> & <img src=http://evil.example>"
    world.execute(
        "update ml.models set description = %s where model = %s", (evil, screens_world.MODEL)
    )
    card = report.card(world, screens_world.MODEL, screens_world.SYMBOL)
    text = report.page(card)
    tags = Tags()
    tags.feed(text)
    assert not [t for t, _ in tags.seen if t in ("script", "link", "iframe", "object")]
    for _, attributes in tags.seen:
        assert str(attributes.get("src", "data:")).startswith("data:")
        assert "href" not in attributes
    assert "&lt;script" in text
    for heading in (
        "Data", "Measures out of fold", "Folds", "Calibration", "Importance", "SHAP summary",
        "Drift", "In service", "Gates", "Decisions", "Versions", "Made with",
    ):  # fmt: skip
        assert f"<h2>{heading}</h2>" in text
    figures = report.figures(card)
    assert set(figures) == {
        "metrics", "folds", "calibration", "importance", "shap", "drift", "live",
    }  # fmt: skip
    assert all(isinstance(figure, Figure) for figure in figures.values())
    assert len([t for t, a in tags.seen if t == "img"]) == len(figures)
    assert not re.search(r"\b(nan|NaT|None)\b", re.sub(r"base64,[^\"]*", "", text))


def test_there_is_nothing_to_report_before_there_was_anything(world: Conn, db: Conn) -> None:
    with pytest.raises(report.NothingToReportError, match=r"ml\.retrain"):
        report.card(world, screens_world.MODEL, as_of=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    with pytest.raises(report.NothingToReportError):
        report.card(db, "direction_15m")
    with pytest.raises(psycopg.Error) as caught:
        report.card(world, "what")
    assert caught.value.sqlstate == "AP961"
