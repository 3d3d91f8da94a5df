"""What dashboards read: equal to a plain computation on the rows, as of any time."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.db import serving

Conn = psycopg.Connection[Any]
START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
VIEWS = (
    "comprehensive_analysis", "volume_analysis", "model_health", "training", "drift",
    "drift_features", "inference", "promotions", "data_quality", "liquidations", "calibration",
    "feature_quality",
)  # fmt: skip


@pytest.fixture
def world(db: Conn) -> Conn:
    serving.install(db)
    return db


def rows_of(db: Conn, query: str, *arguments: Any) -> Any:
    cursor = db.execute(query, arguments)
    names = [column.name for column in cursor.description or ()]
    return pd.DataFrame(cursor.fetchall(), columns=names)


def fill(db: Conn, seed: int, count: int) -> Any:
    """Predictions of a class and of values, known at once or late, their outcomes later still."""
    rng = np.random.default_rng(seed)
    as_of = [START + dt.timedelta(seconds=float(s)) for s in rng.uniform(0, 4 * 86400, count)]
    created = [
        a + dt.timedelta(seconds=float(s))
        for a, s in zip(as_of, rng.exponential(20000, count), strict=False)
    ]
    known = [
        c + dt.timedelta(seconds=float(s)) if rng.random() < 0.8 else None
        for c, s in zip(created, rng.exponential(30000, count), strict=False)
    ]
    is_class = rng.random(count) < 0.7
    said = np.where(is_class, rng.random(count), rng.normal(size=count))
    came = np.where(is_class, rng.random(count) < said, said + rng.normal(size=count))
    frame: Any = pd.DataFrame(
        {
            "as_of": as_of, "created_at": created, "outcome_known_at": known,
            "model": np.where(is_class, "fixed", "fixed_value"),
            "symbol": np.where(rng.random(count) < 0.5, "AAA", "BBB"),
            "version_id": rng.integers(1, 3, count), "prediction": said,
            "probability": np.where(is_class, said, np.nan),
            "outcome": [float(c) if k is not None else np.nan for c, k in zip(came, known, strict=False)],
            "is_fallback": rng.random(count) < 0.1, "latency": rng.lognormal(1, 1, count),
        }
    )  # fmt: skip
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into ml.predictions (as_of, created_at, outcome_known_at, model, symbol,"
            " version_id, prediction, probability, outcome, is_fallback, horizon, details)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, '5 min', %s)",
            [
                (
                    r.as_of, r.created_at, None if pd.isna(r.outcome_known_at) else r.outcome_known_at,
                    r.model, r.symbol, r.version_id, r.prediction,
                    None if np.isnan(r.probability) else r.probability,
                    None if np.isnan(r.outcome) else r.outcome, r.is_fallback,
                    Jsonb({"latency_ms": r.latency}),
                )
                for r in frame.itertuples()
            ],
        )  # fmt: skip
    return frame


def inference_of(frame: Any, as_of: dt.datetime) -> Any:
    """The plain computation: rows known by then, and outcomes known by then."""
    known = frame[frame.created_at <= as_of].copy()
    known["ts"] = pd.to_datetime(known.as_of, utc=True).dt.floor("h")
    known.loc[~(pd.to_datetime(known.outcome_known_at, utc=True) <= as_of), "outcome"] = np.nan
    out = []
    for (ts, model), g in known.groupby(["ts", "model"]):
        o = g[g.outcome.notna()]
        p, y = o.prediction.to_numpy(), o.outcome.to_numpy()
        is_class = model == "fixed"
        n = len(o)
        out.append(
            {
                "ts": ts, "model": model, "predictions": len(g), "outcomes": n,
                "fallback_share": g.is_fallback.mean(), "latency_mean_ms": g.latency.mean(),
                "latency_max_ms": g.latency.max(),
                "accuracy": ((p >= 0.5) == (y >= 0.5)).mean() if is_class and n else np.nan,
                "log_loss": -np.log(np.where(y == 1, p, 1 - p)).mean() if is_class and n else np.nan,
                "brier": ((p - y) ** 2).mean() if is_class and n else np.nan,
                "rmse": np.sqrt(((p - y) ** 2).mean()) if not is_class and n else np.nan,
                "mae": np.abs(p - y).mean() if not is_class and n else np.nan,
            }
        )  # fmt: skip
    return pd.DataFrame(out)


@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**31), refreshed=st.floats(0, 8), asked=st.floats(0.2, 8))
def test_sums_equal_the_rows_as_of_any_time(
    world: Conn, seed: int, refreshed: float, asked: float
) -> None:
    """Kept, half kept or not kept, and whatever becomes known later: the answer is the rows'."""
    world.execute("truncate ml.predictions")
    world.execute("update analytics.kept set through = '-infinity'")
    frame = fill(world, seed, 300)
    world.execute("call analytics.refresh(%s)", (START + dt.timedelta(days=refreshed),))
    # Rows that arrive after their hour was summed.
    frame = pd.concat([frame, fill(world, seed + 1, 30)])
    as_of = START + dt.timedelta(days=asked)
    right = inference_of(frame, as_of)
    got = rows_of(
        world, "select * from analytics.inference(null, %s, %s, %s)",
        START, START + dt.timedelta(days=9), as_of,
    )  # fmt: skip
    assert len(got) == len(right)
    if len(right):
        merged = got.merge(right, on=["ts", "model"], suffixes=("", "_right"))
        assert len(merged) == len(right)
        for name in right.columns.drop(["ts", "model"]):
            np.testing.assert_allclose(
                merged[name].astype(float), merged[name + "_right"].astype(float),
                rtol=1e-9, err_msg=name,
            )  # fmt: skip
    known = frame[(frame.model == "fixed") & (frame.created_at <= as_of)]
    known = known[pd.to_datetime(known.outcome_known_at, utc=True) <= as_of]
    bins = rows_of(world, "select * from analytics.calibration('fixed', %s, 30)", as_of)
    assert bins.predictions.sum() == len(known)
    for b in bins.itertuples():
        cell = known[
            (known.version_id == b.version_id)
            & (np.minimum(9, np.floor(known.probability * 10)) == b.bin - 1)
        ]
        assert b.predictions == len(cell)
        assert b.mean_probability == pytest.approx(cell.probability.mean(), rel=1e-9)
        assert b.observed == pytest.approx(cell.outcome.mean(), rel=1e-9)
        assert b.observed_low <= b.observed <= b.observed_high


def test_latency_quantiles(world: Conn) -> None:
    frame = fill(world, 5, 2000)
    frame["ts"] = pd.to_datetime(frame.as_of, utc=True).dt.floor("h")
    got = rows_of(
        world, "select * from analytics.inference('fixed', %s, %s, %s)",
        START, START + dt.timedelta(days=9), START + dt.timedelta(days=30),
    )  # fmt: skip
    for row in got.itertuples():
        latency = frame[(frame.ts == row.ts) & (frame.model == "fixed")].latency
        for q, said in ((0.5, row.latency_p50_ms), (0.95, row.latency_p95_ms)):
            right = np.quantile(latency, q, method="inverted_cdf")
            assert right / 1.05 <= said <= right * 1.05


def test_views_of_an_empty_database(db: Conn) -> None:
    for view in VIEWS:
        assert db.execute(f"select count(*) from analytics.{view}".encode()).fetchone() == (0,)
    db.execute("call analytics.refresh()")


def test_one_bar_and_nothing_else(world: Conn) -> None:
    world.execute("delete from market.candles where ts > %s", (serving.at(-1),))
    world.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('NIX', 'test', 'NIX', 'NIX', 'USDT')"
    )
    for view in VIEWS:
        world.execute(f"select * from analytics.{view}".encode()).fetchall()
    row = world.execute(
        "select price, ts, notes from analytics.comprehensive_analysis('AAA')"
    ).fetchone()
    assert row is not None and row[0] == 1 and row[1] == serving.at(0)
    row = world.execute(
        "select price, notes from analytics.comprehensive_analysis('NIX')"
    ).fetchone()
    assert row is not None and row[0] is None and "nothing of NIX is known" in row[1][0]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("select * from analytics.volume_analysis('what')", "AP101"),
        ("select * from analytics.comprehensive_analysis('what')", "AP101"),
        ("select * from analytics.comprehensive_analysis(null)", "AP101"),
        ("select * from analytics.liquidations('what')", "AP101"),
        ("select * from analytics.volume_analysis('AAA', 'infinity')", "AP960"),
        ("select * from analytics.model_health('-infinity')", "AP960"),
        ("select * from analytics.inference('what')", "AP961"),
        ("select * from analytics.calibration('what')", "AP961"),
        ("select * from analytics.volume_analysis('AAA', null, '-1 day')", "AP962"),
        ("select * from analytics.volume_profile('AAA', null, null)", "AP962"),
        ("select * from analytics.volume_profile('AAA', bins => 0)", "AP963"),
        ("select * from analytics.feature_quality('what')", "AP202"),
    ],
)
def test_bad_input_has_a_code_and_a_hint(world: Conn, query: str, code: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        world.execute(query.encode())
    assert caught.value.sqlstate == code
    assert caught.value.diag.message_hint


def test_volume_equals_pandas_and_late_bars_change_nothing(world: Conn) -> None:
    rng = np.random.default_rng(3)
    n = 300
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    open_ = np.concatenate([[100], close[:-1]])
    frame: Any = pd.DataFrame(
        {
            "ts": [START + dt.timedelta(minutes=i) for i in range(n)], "open": open_, "close": close,
            "high": np.maximum(open_, close) * 1.001, "low": np.minimum(open_, close) * 0.999,
            "volume": rng.lognormal(0, 1, n),
        }
    )  # fmt: skip
    frame["buy"] = frame.volume * rng.random(n)
    frame["known"] = frame.ts + dt.timedelta(minutes=1)
    late = rng.random(n) < 0.1
    frame.loc[late, "known"] += dt.timedelta(hours=5)
    with world.cursor() as cursor:
        cursor.executemany(
            "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
            " volume, taker_buy_volume) values ('AAA', '1 min', %s, %s, %s, %s, %s, %s, %s, %s)",
            list(
                frame[["ts", "known", "open", "high", "low", "close", "volume", "buy"]].itertuples(
                    index=False, name=None
                )
            ),
        )
    as_of = START + dt.timedelta(minutes=250, seconds=30)
    got = rows_of(world, "select * from analytics.volume_analysis('AAA', %s, '2 hours')", as_of)
    seen = frame[frame.known <= as_of]
    last = seen.ts.max()
    seen = seen[seen.ts > last - dt.timedelta(hours=2)]
    v = got.iloc[0]
    assert v.bars == len(seen)
    assert v.volume == pytest.approx(seen.volume.sum(), rel=1e-12)
    assert v.buy_share == pytest.approx(seen.buy.sum() / seen.volume.sum(), rel=1e-12)
    before = seen.iloc[:-1].volume
    assert v.volume_zscore == pytest.approx(
        (seen.volume.iloc[-1] - before.mean()) / before.std(), rel=1e-9
    )
    assert v.price_change == pytest.approx(seen.close.iloc[-1] / seen.open.iloc[0] - 1, rel=1e-12)
    assert v.price_flow_correlation == pytest.approx(
        np.corrcoef(np.log(seen.close / seen.open), 2 * seen.buy - seen.volume)[0, 1], rel=1e-9
    )
    profile = rows_of(
        world, "select * from analytics.volume_profile('AAA', %s, '2 hours', 20)", as_of
    )
    edges = np.linspace(seen.low.min(), seen.high.max(), 21)
    right = np.zeros(20)
    for bar in seen.itertuples():
        inside = np.clip(np.minimum(edges[1:], bar.high) - np.maximum(edges[:-1], bar.low), 0, None)
        right += bar.volume * inside / (bar.high - bar.low)
    np.testing.assert_allclose(profile.volume, right, rtol=1e-9, atol=1e-9)
    assert profile.price[profile.is_control].item() == pytest.approx(
        (edges[right.argmax()] + edges[right.argmax() + 1]) / 2
    )
    assert profile.share[profile.in_value_area].sum() >= 0.7


def test_every_column_is_described(db: Conn) -> None:
    missing = db.execute(
        "select c.relname, a.attname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped"
        " where n.nspname in ('analytics', 'backtest') and c.relkind in ('r', 'v')"
        " and col_description(c.oid, a.attnum) is null"
    ).fetchall()
    assert missing == []
