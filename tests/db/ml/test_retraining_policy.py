"""When to train again: by the outcome stream's detector, or by a clock that trains as often?

Seven streams, four simulated and three real; on each a logistic regression, always trained on the
last rows, is scored on every outcome before it may learn from it (prequential loss: Brier's score).
The detector's policy trains where drift.detect alarms; the clock beside it trains the same number of
times, at even distances. What is shipped (``ml.retraining_policies``) has to be what won.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import psycopg
import pytest
from alphaplus.server.drift import betting
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

Floats = NDArray[np.float64]
pytestmark = pytest.mark.long

ROWS = 12_000
WINDOW = 1000  # rows that a version is trained on
HELD_OUT = 250  # the last of them: the baseline of its detector
RUN_LENGTH = 2000  # of the detector: an alarm more costs one training


def simulated(kind: str, seed: int) -> tuple[Floats, Floats]:
    """Features and outcomes whose dependence on them changes: abruptly, gradually, to and fro, not."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS, 5))
    at = np.arange(ROWS)
    first, second = rng.standard_normal(5), rng.standard_normal(5)
    share = {
        "abrupt": (at // 3000 % 2).astype(float),
        "gradual": at / ROWS,
        "recurring": (np.sin(2 * np.pi * at / 4000) > 0).astype(float),
        "none": np.zeros(ROWS),
    }[kind]
    logit = (x * ((1 - share)[:, None] * first + share[:, None] * second)).sum(axis=1)
    return x, (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(float)


def bars(close: Floats, high: Floats, low: Floats, ahead: int) -> tuple[Floats, Floats]:
    """Will the next ``ahead`` bars move more than was usual over the last 500?"""
    r = np.diff(np.log(close), prepend=np.log(close[0]))
    span = np.log(high / low)
    total = np.concatenate([[0], np.cumsum(np.abs(r))])
    moved = total[ahead:] - total[:-ahead]  # of bars i … i + ahead - 1
    columns = [np.log(span + 1e-5)]
    for length in (4, 24, 96):
        mean = np.convolve(span, np.ones(length) / length)[: len(span)]
        columns.append(np.log(mean + 1e-5))
    columns.append(np.sign(r))
    x = np.column_stack(columns)
    usual = np.array([np.median(moved[max(0, i - 500) : max(1, i - ahead)]) for i in range(len(r))])
    y = np.full(len(r), np.nan)
    y[: len(r) - ahead] = moved[1 : len(r) - ahead + 1] > usual[: len(r) - ahead]
    # Outcomes that do not overlap.
    keep = np.arange(600, len(r) - ahead, ahead)
    return x[keep][-ROWS:], y[keep][-ROWS:]


def real(shared_data: Any) -> dict[str, tuple[Floats, Floats]]:
    import pandas as pd

    hourly = pd.read_parquet(shared_data / "perps_hourly" / "candles.parquet")
    found = {}
    for coin in ("BTC", "ETH"):
        c = hourly[(hourly.venue == "binance") & (hourly.coin == coin)].sort_values("timestamp")
        found[f"{coin} hourly"] = bars(*(c[k].to_numpy(float) for k in "chl"), 1)
    c = pd.read_csv(shared_data / "candles_1m" / "btc-perp-20211231-20220201_1m.csv.gz")
    found["BTC 1 min"] = bars(*(c[k].to_numpy(float) for k in ("close", "high", "low")), 3)
    return found


def fit(x: Floats, y: Floats) -> Any:
    """A version and its baseline: Brier's score on the last rows of its window, and what chance
    does to a mean of that many."""
    scale = StandardScaler().fit(x)
    model = LogisticRegression().fit(scale.transform(x[:-HELD_OUT]), y[:-HELD_OUT])
    loss = (model.predict_proba(scale.transform(x[-HELD_OUT:]))[:, 1] - y[-HELD_OUT:]) ** 2
    model.fit(scale.transform(x), y)
    return scale, model, float(loss.mean() + 2 * loss.std() / np.sqrt(HELD_OUT))


def by_detector(x: Floats, y: Floats) -> tuple[float, int]:
    """(mean loss, trainings) where the detector asks for them."""
    losses, trainings, start = [], 0, WINDOW
    scale, model, baseline = fit(x[:WINDOW], y[:WINDOW])
    while start < len(y):
        loss = (model.predict_proba(scale.transform(x[start:]))[:, 1] - y[start:]) ** 2
        *_, alarms = betting.detect([], loss.tolist(), baseline, RUN_LENGTH)
        stop = alarms[0] + 1 if alarms else len(loss)
        losses.append(loss[:stop])
        start += stop
        if start < len(y):
            trainings += 1
            scale, model, baseline = fit(x[start - WINDOW : start], y[start - WINDOW : start])
    return float(np.concatenate(losses).mean()), trainings


def by_clock(x: Floats, y: Floats, trainings: int) -> float:
    """Mean loss with that many trainings at even distances."""
    times = np.linspace(WINDOW, len(y), trainings + 2).round().astype(int)
    losses = []
    for start, stop in itertools.pairwise(times):
        scale, model, _ = fit(x[start - WINDOW : start], y[start - WINDOW : start])
        part = slice(start, stop)
        losses.append((model.predict_proba(scale.transform(x[part]))[:, 1] - y[part]) ** 2)
    return float(np.concatenate(losses).mean())


def test_the_policy_that_is_shipped_is_the_one_that_won(
    db: psycopg.Connection[Any], shared_data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    streams = {k: simulated(k, i) for i, k in enumerate(("abrupt", "gradual", "recurring", "none"))}
    streams |= real(shared_data)
    table, wins = [], 0
    for name, (x, y) in streams.items():
        assert np.isfinite(x).all() and set(np.unique(y)) == {0, 1}
        drift, trainings = by_detector(x, y)
        clock, never = by_clock(x, y, trainings), by_clock(x, y, 0)
        won = trainings > 0 and drift < clock
        wins += won
        table.append((name, len(y), trainings, drift, clock, never, won))
    with capsys.disabled():
        print(f"\n{'stream':12s} rows trainings detector clock never")
        for name, rows, trainings, drift, clock, never, won in table:
            print(
                f"{name:12s} {rows} {trainings:3d} {drift:.4f} {clock:.4f} {never:.4f}"
                f" {'detector' if won else 'clock' if trainings else 'no training'}"
            )
        print(f"the detector wins on {wins} of {len(table)}")
    by_name = {row[0]: row for row in table}
    # Where the dependence changes it is found, and what is trained then is better than what was.
    for name in ("abrupt", "recurring"):
        assert by_name[name][2] >= 2 and by_name[name][3] < by_name[name][5] - 0.01
    assert by_name["none"][2] <= 2
    shipped = db.execute("select policy from ml.retraining_policies where model is null").fetchone()
    assert shipped == ("drift" if wins >= 5 else "clock",)
