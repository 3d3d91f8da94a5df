"""Fills at order books and bars, and predictions of the folds, against the plain loop."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest

from tests.db import serving
from tests.db.backtest.test_backtest import (
    END,
    RULE,
    START,
    loop,
    predictions,
    run,
    seconds,
    strategy,
    trades_of,
)

Conn = psycopg.Connection[Any]
COLUMNS = (
    "symbol, side, decided_at, entered_at, exited_at, exit_reason, gross, fees, spread, funding, net,"
    " impact"
)


@pytest.fixture
def world(db: Conn) -> Conn:
    serving.install(db)
    db.execute("delete from market.candles")
    return db


def funding(db: Conn, rng: Any) -> None:
    for hour in range(0, 48, 4):
        at = START + dt.timedelta(hours=hour)
        db.execute(
            "insert into market.funding_rates (symbol, ts, known_at, rate) values ('AAA', %s, %s, %s)",
            (at, at, float(rng.normal(0, 0.001))),
        )


def books(db: Conn, seed: int, n: int = 1200) -> Any:
    """Books at random times, a tenth known late, with a spread that changes."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.uniform(0, 2 * 86400, n))
    known = at + np.where(rng.random(n) < 0.1, rng.exponential(120, n), rng.exponential(0.2, n))
    mid = 100 * np.exp(np.cumsum(rng.normal(0, 0.0005, n)))
    half = mid * rng.uniform(0.5e-4, 5e-4, n)
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into market.order_book_snapshots (symbol, ts, sequence, known_at, bid_prices,"
            " bid_sizes, ask_prices, ask_sizes) values ('AAA', %s, %s, %s, %s, %s, %s, %s)",
            [
                (t, i, k, [m - h, m - 2 * h], [1.0, 2.0], [m + h, m + 2 * h], [1.0, 2.0])
                for i, (t, k, m, h) in enumerate(
                    zip(seconds(at), seconds(known), mid.tolist(), half.tolist(), strict=True)
                )
            ],
        )
    funding(db, rng)
    return pd.DataFrame({"ts": seconds(at), "known": seconds(known), "price": mid, "paid": half})


def bars(db: Conn, seed: int) -> Any:
    """Bars of a minute, some known late; an order fills at the open of one that begins after it."""
    rng = np.random.default_rng(seed)
    n = 2 * 1440
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.0005, n)))
    open_ = close * np.exp(rng.normal(0, 0.0002, n))
    known = [60.0 * (i + 1 + (30 if rng.random() < 0.02 else 0)) for i in range(n)]
    times = [START + dt.timedelta(minutes=i) for i in range(n)]
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
            " values ('AAA', '1 min', %s, %s, %s, %s, %s, %s, 10)",
            [
                (t, START + dt.timedelta(seconds=k), o, max(o, c), min(o, c), c)
                for t, k, o, c in zip(times, known, open_.tolist(), close.tolist(), strict=True)
            ],
        )
    funding(db, rng)
    return pd.DataFrame(
        {"ts": times, "known": seconds(np.array(known)), "price": open_, "paid": 0.0}
    )


def same(db: Conn, trial: int, right: Any) -> None:
    got = trades_of(db, trial, COLUMNS)
    assert len(got) == len(right) > 10
    for a, b in zip(got, right.itertuples(index=False), strict=True):
        assert a[:6] == tuple(b)[:6]
        assert a[6:10] == pytest.approx(tuple(b)[6:], rel=1e-9, abs=1e-9)
        assert a[10] == pytest.approx(a[6] - a[7] - a[8] - a[9] - a[11], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", [1, 2])
def test_fills_at_order_books(world: Conn, seed: int) -> None:
    """A buyer pays the ask and a seller gets the bid: the book's own spread and no other."""
    rows = books(world, seed)
    p = predictions(world, seed)
    strategy(world, fill="book")
    same(world, run(world), loop(world, p, "AAA", RULE, rows, half=0.0))


@pytest.mark.parametrize("seed", [1, 2])
def test_fills_at_bars(world: Conn, seed: int) -> None:
    rows = bars(world, seed)
    p = predictions(world, seed)
    strategy(world, fill="bar")
    same(world, run(world), loop(world, p, "AAA", RULE, rows))


def out_of_fold(db: Conn, version: int, times: list[dt.datetime], values: Any) -> None:
    micros = [round(t.timestamp() * 1e6) for t in times]
    n = len(times)
    db.execute("set session_replication_role = replica")  # what a trainer hands in is append-only
    db.execute("delete from ml.version_predictions where version_id = %s", (version,))
    db.execute(
        "insert into ml.version_predictions (version_id, symbols, ts, symbol, fold, raw, prediction,"
        " target, base_rate) values (%s, array['AAA'], %s, %s, %s, %s, %s, %s, %s)",
        (version, micros, [1] * n, [1] * n, [0.0] * n, values, [0.0] * n, [0.5] * n),
    )
    db.execute("update ml.alias_history set at = %s", (START - dt.timedelta(days=1),))
    db.execute("set session_replication_role = origin")


def test_predictions_of_the_folds(world: Conn) -> None:
    """walk-forward: of each row by a model that had not seen it; auto: before the first recorded."""
    rows = bars(world, 3)
    rng = np.random.default_rng(3)
    version = serving.register(world, serving.train(*serving.synthetic()), promote=True)
    times = [START + dt.timedelta(minutes=5 * i) for i in range(12 * 48)]
    values = rng.random(len(times)).tolist()
    out_of_fold(world, version, times, values)
    strategy(world, fill="bar")
    p: Any = pd.DataFrame({"known": times, "value": values})
    p = p[p.known < END]

    def ran(source: str) -> int:
        row = world.execute(
            "select trial_id from backtest.run('s', %s, %s, %s)", (START, END, source)
        ).fetchone()
        assert row is not None
        return int(row[0])

    same(world, ran("walk-forward"), loop(world, p, "AAA", RULE, rows))
    recorded = predictions(world, 3)
    recorded = recorded[recorded.known >= START + dt.timedelta(days=1)]
    world.execute(
        "delete from ml.predictions where created_at < %s", (START + dt.timedelta(days=1),)
    )
    first = recorded.known.min()
    both = pd.concat([p[p.known < first], recorded]).sort_values("known", ignore_index=True)
    same(world, ran("auto"), loop(world, both, "AAA", RULE, rows))
    same(world, ran("recorded"), loop(world, recorded.reset_index(drop=True), "AAA", RULE, rows))
