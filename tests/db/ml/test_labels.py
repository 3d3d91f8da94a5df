"""Labels of users: every kind against its plain definition, and none knows what comes after it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.db import serving
from tests.db.market_data import at, fill, instrument

Conn = psycopg.Connection[Any]
MINUTE = dt.timedelta(minutes=1)
SYMBOLS = ("AAAUSDT", "BBBUSDT", "CCCUSDT", "DDDUSDT")
N = 600


def candles(conn: Conn, symbol: str, seed: int, n: int = N, minutes: int = 1) -> pd.DataFrame:
    """Random bars, written and returned; ``minutes``: their length."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, n)))
    opens = np.append(100.0, close[:-1])
    high = np.maximum(opens, close) * np.exp(rng.exponential(5e-4, n))
    low = np.minimum(opens, close) * np.exp(-rng.exponential(5e-4, n))
    volume = rng.lognormal(0, 1, n)
    width = dt.timedelta(minutes=minutes)
    instrument(conn, symbol)
    with (
        conn.cursor() as cursor,
        cursor.copy(
            "copy market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume,"
            " quote_volume) from stdin"
        ) as copy,
    ):
        for i in range(n):
            ts = at(i * minutes)
            copy.write_row(
                (symbol, width, ts, ts + width, opens[i], high[i], low[i], close[i], volume[i],
                 volume[i] * close[i])
            )  # fmt: skip
    index = pd.DatetimeIndex([at(i * minutes) for i in range(n)])
    return pd.DataFrame(
        {"open": opens, "high": high, "low": low, "close": close, "volume": volume}, index
    )


@pytest.fixture(scope="module")
def bars(db_module: Conn) -> Iterator[tuple[Conn, dict[str, pd.DataFrame]]]:
    conn = db_module
    conn.execute("set client_min_messages = warning")
    yield conn, {s: candles(conn, s, seed) for seed, s in enumerate(SYMBOLS)}


def made(conn: Conn, name: str, kind: str, horizon: str, **params: Any) -> str:
    row = conn.execute(
        "select ml.create_label(%s, %s, %s, %s)", (name, kind, horizon, Jsonb(params))
    ).fetchone()
    assert row is not None
    return str(row[0])


def values(
    conn: Conn, label: str, symbol: str = "AAAUSDT", grid: str = "1 minute", as_of: Any = None
) -> pd.DataFrame:
    rows = conn.execute(
        "select ts, label_end, target from ml.label_values(%s, %s, %s, %s, %s, %s)",
        (label, symbol, at(0), at(N), as_of or at(N), grid),
    ).fetchall()
    return pd.DataFrame(rows, columns=["ts", "end", "target"]).set_index("ts")


def code(conn: Conn, query: str, *args: Any) -> tuple[str | None, str]:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(query, args)
    assert caught.value.diag.message_hint
    return caught.value.sqlstate, str(caught.value)


def test_an_unknown_kind_or_parameter_is_an_error_with_the_list(db: Conn) -> None:
    create = "select ml.create_label('x', %s, '30 min', %s)"
    state, words = code(db, create, "tripel_barrier", Jsonb({}))
    assert state == "AP307" and "did you mean 'triple_barrier'" in words and "drawdown" in words
    state, words = code(db, create, "direction", Jsonb({"treshold_bps": 3}))
    assert state == "AP307" and "did you mean 'threshold_bps'" in words
    for kind, params in (
        ("direction", {"threshold_bps": "3"}), ("direction", {"threshold_bps": None, "x": 1}),
        ("direction", {"dead_zone_bps": -1}), ("volatility", {"quantile": 1.5}),
        ("triple_barrier", {}), ("triple_barrier", {"up_bps": 3, "up_atr": 1}),
        ("triple_barrier", {"up_bps": 3, "outcome": "side"}),
        ("triple_barrier", {"up_bps": 3, "outcome": "sideways"}),
        ("triple_barrier", {"up_atr": 3, "atr_bars": 2.5}), ("return", {"above": True}),
        ("realised_volatility", {"bar_minutes": 7}), ("rank", {"symbols": []}),
        ("rank", {"symbols": ["A", "A"]}), ("select", {}), ("text", {"label_set": 7}),
        ("direction", [1]),
    ):  # fmt: skip
        assert code(db, create, kind, Jsonb(params))[0] == "AP307", (kind, params)
    assert code(db, "select ml.create_label('x', 'direction', '90 seconds')")[0] == "AP307"
    assert code(db, "select ml.create_label('x', 'direction', '-1 hour')")[0] == "AP307"
    assert code(db, "select ml.create_label('x', 'direction')")[0] == "AP307"
    assert code(db, "select ml.create_label('Bad name', 'direction', '1 hour')")[0] == "AP226"
    assert code(db, "select ml.create_label(null, 'direction', '1 hour')")[0] == "AP226"
    assert code(db, "select ml.create_label('x')")[0] == "AP227"
    assert code(db, "select ml.drop_label('nobody')")[0] == "AP301"


def test_the_cases_of_labels_that_were_taken(db: Conn) -> None:
    """cases/quant 01 and 02: rows written by hand are held to the same."""
    insert = (
        "insert into ml.labels (label, task, kind, horizon, params, description)"
        " values (%s, %s, %s, %s, %s, 'case')"
    )
    assert code(db, insert, "tb", "classification", "barrier", "30 min", Jsonb({}))[0] == "AP307"
    args = ("rv60", "regression", "volatility", "1 hour", Jsonb({}))
    assert code(db, insert, *args)[0] == "AP224"
    args = ("up20", "classification", "return", "30 min", Jsonb({"threshold_bps": 20}))
    assert code(db, insert, *args)[0] == "AP307"
    db.execute(insert, ("up20", "classification", "return", "30 min", Jsonb({"above": 20})))


def test_every_kind_is_listed_with_its_parameters(db: Conn) -> None:
    kinds = {row[0] for row in db.execute("select kind from ml.label_kinds").fetchall()}
    assert {"return", "direction", "triple_barrier", "realised_volatility", "volatility",
            "drawdown", "volume", "spread", "liquidation", "rank", "select"} <= kinds  # fmt: skip
    row = db.execute(
        "select standard, low, high, meaning from ml.label_kinds where parameter = 'atr_bars'"
    ).fetchone()
    assert row is not None and row[:3] == ("14", 1, 1000) and "average true range" in row[3]


def test_returns_and_directions_equal_pandas(bars: tuple[Conn, dict[str, pd.DataFrame]]) -> None:
    conn, frames = bars
    close = frames["AAAUSDT"]["close"]
    bps = 1e4 * np.log(close.shift(-29) / close.shift(1))
    found = values(conn, made(conn, "r30", "return", "30 min"))
    assert len(found) == N - 30  # none before the first bar, none whose end is not there
    np.testing.assert_allclose(found["target"], bps[found.index], rtol=1e-9)
    simple = values(conn, made(conn, "s30", "return", "30 min", of="simple"))
    want = 1e4 * (close.shift(-29) / close.shift(1) - 1)
    np.testing.assert_allclose(simple["target"], want[simple.index], rtol=1e-9)
    above = values(conn, made(conn, "up20", "return", "30 min", above=20))
    assert (above["target"] == (bps[above.index] > 20)).all()
    zone = values(conn, made(conn, "z30", "direction", "30 min", threshold_bps=5, dead_zone_bps=15))
    kept = bps[bps.abs() > 15].dropna()
    assert list(zone.index) == [t for t in found.index if t in set(kept.index)]
    assert (zone["target"] == (kept[zone.index] > 5)).all()
    assert conn.execute(
        "select label, task from ml.labels where label in ('r30', 'up20', 'z30') order by 1"
    ).fetchall() == [("r30", "regression"), ("up20", "classification"), ("z30", "classification")]


def test_volatility_drawdown_and_volume_equal_pandas(
    bars: tuple[Conn, dict[str, pd.DataFrame]],
) -> None:
    conn, frames = bars
    frame = frames["AAAUSDT"]
    logs = np.log(frame["close"])
    rv = values(conn, made(conn, "rv", "realised_volatility", "30 min"))
    coarse = values(
        conn, made(conn, "rv5", "realised_volatility", "30 min", bar_minutes=5), grid="5 minutes"
    )
    square = (logs.diff() ** 2).to_numpy()
    five = (logs[4::5].diff() ** 2).to_numpy()
    for ts, target in rv["target"].items():
        i = frame.index.get_loc(ts)
        assert target == pytest.approx(1e4 * np.sqrt(square[i : i + 30].sum()), rel=1e-9)
    assert len(rv) == N - 30 and len(coarse) == (N - 30) // 5
    for ts, target in coarse["target"].items():
        i = frame.index.get_loc(ts) // 5
        assert target == pytest.approx(1e4 * np.sqrt(five[i : i + 6].sum()), rel=1e-9)
    fall = values(conn, made(conn, "dd", "drawdown", "30 min"))
    volume = values(conn, made(conn, "vol", "volume", "30 min"))
    base = values(conn, made(conn, "volb", "volume", "30 min", unit="base"))
    assert len(fall) == N - 30 == len(volume) - 1  # volume needs no bar before
    for ts in fall.index[::7]:
        i = frame.index.get_loc(ts)
        path = logs.to_numpy()[i - 1 : i + 30]
        worst = max(path[a] - path[b] for a in range(31) for b in range(a, 31))
        assert fall["target"][ts] == pytest.approx(1e4 * worst, rel=1e-9, abs=1e-9)
        part = frame.iloc[i : i + 30]
        assert volume["target"][ts] == pytest.approx((part["volume"] * part["close"]).sum())
        assert base["target"][ts] == pytest.approx(part["volume"].sum())


def test_ranks_equal_pandas_and_a_later_listing_changes_nothing(
    bars: tuple[Conn, dict[str, pd.DataFrame]],
) -> None:
    conn, frames = bars
    label = made(conn, "rk", "rank", "30 min")
    moves = pd.DataFrame({
        s: np.log(f["close"].shift(-29) / f["close"].shift(1)) for s, f in frames.items()
    })  # fmt: skip
    want = (moves.rank(axis=1) - 1) / (len(SYMBOLS) - 1)
    before = values(conn, label, "CCCUSDT")
    np.testing.assert_allclose(before["target"], want["CCCUSDT"][before.index], rtol=1e-12)
    candles(conn, "EEEUSDT", 77)
    assert values(conn, label, "CCCUSDT").equals(before)
    top = values(conn, made(conn, "top", "rank", "30 min", above=0.6, symbols=list(SYMBOLS)))
    assert (top["target"] == (want["AAAUSDT"][top.index] > 0.6)).all()
    state, _ = code(
        conn, "select ml.create_label('rk2', 'rank', '1 hour', '{\"symbols\": [\"AAAUSDT\"]}')"
    )
    assert state == "AP307"
    state, _ = code(
        conn, "select ml.create_label('rk2', 'rank', '1 hour', '{\"symbols\": [\"ZZZ\"]}')"
    )
    assert state == "AP101"


def first_hit(
    frame: pd.DataFrame, i: int, ahead: int, up: float, down: float
) -> tuple[str | None, int]:
    """What is hit first from bar i on, and in which bar; None where one bar reaches both."""
    for j in range(i, i + ahead):
        above, below = frame["high"].iloc[j] >= up, frame["low"].iloc[j] <= down
        if above and below:
            return None, j
        if above or below:
            return ("up" if above else "down"), j
    return "time", i + ahead - 1


def test_triple_barriers_equal_a_loop(bars: tuple[Conn, dict[str, pd.DataFrame]]) -> None:
    conn, frames = bars
    frame = frames["AAAUSDT"]
    fixed = made(conn, "tb", "triple_barrier", "40 min", up_bps=80, down_bps=60)
    atr = made(
        conn, "tba", "triple_barrier", "40 min", up_atr=3, down_atr=2.5, atr_bars=10,
        atr_bar_minutes=5, outcome="return",
    )  # fmt: skip
    five = frame.resample("5min").agg({"high": "max", "low": "min", "close": "last"})
    true = np.maximum(five["high"], five["close"].shift(1)) - np.minimum(
        five["low"], five["close"].shift(1)
    )
    mean = true.rolling(10).mean()
    for label, is_atr in ((fixed, False), (atr, True)):
        rows = conn.execute(
            "select * from ml.label_barriers(%s, 'AAAUSDT', %s, %s, %s)",
            (label, at(0), at(N), at(N)),
        ).fetchall()
        hits = {row[0]: row[1:] for row in rows}
        seen = set()
        for i in range(1, N - 40 + 1):
            ts, before = frame.index[i], frame["close"].iloc[i - 1]
            if is_atr:
                closed = five.index[five.index + pd.Timedelta("5min") <= ts]
                width = mean[closed[-1]] if len(closed) else np.nan
                if not np.isfinite(width):
                    assert ts not in hits
                    continue
                up, down = before + 3 * width, before - 2.5 * width
            else:
                up, down = before * 1.008, before * 0.994
            what, j = first_hit(frame, i, 40, up, down)
            if what is None:
                assert ts not in hits
                continue
            end, hit, bps, upper, lower = hits[ts]
            assert (hit, end) == (what, frame.index[j] + MINUTE)
            assert (upper, lower) == (pytest.approx(up), pytest.approx(down))
            assert bps == pytest.approx(1e4 * np.log(frame["close"].iloc[j] / before), abs=1e-9)
            seen.add(hit)
        assert seen == {"up", "down", "time"}
    target = values(conn, fixed)
    table = {r[0]: r[2] for r in conn.execute(
        "select * from ml.label_barriers(%s, 'AAAUSDT', %s, %s, %s)", (fixed, at(0), at(N), at(N))
    ).fetchall()}  # fmt: skip
    assert dict(target["target"]) == {ts: float(hit == "up") for ts, hit in table.items()}
    side = values(
        conn, made(conn, "tbs", "triple_barrier", "40 min", up_bps=80, down_bps=60, outcome="side")
    )
    assert dict(side["target"]) == {
        ts: float(hit == "up") for ts, hit in table.items() if hit != "time"
    }
    made(conn, "plain", "return", "30 min")
    query = "select * from ml.label_barriers('plain', 'AAAUSDT', %s, %s)"
    assert code(conn, query, at(0), at(9))[0] == "AP223"


def test_a_missing_bar_is_unknown_or_quiet(db: Conn) -> None:
    frame = candles(db, "AAAUSDT", 8, 120)
    gone = frame.index[60]
    db.execute("delete from market.candles where ts = %s", (gone,))
    db.execute("delete from market.candles_history where ts = %s", (gone,))
    query = "select ts, hit, label_end from ml.label_barriers(%s, 'AAAUSDT', %s, %s, %s)"
    span = (at(30), at(61), at(120))
    barriers = {"up_bps": 30, "down_bps": 30}
    strict = made(db, "strict", "triple_barrier", "40 min", **barriers)
    quiet = made(db, "quiet", "triple_barrier", "40 min", **barriers, missing_bars="quiet")
    known = {ts: (hit, end) for ts, hit, end in db.execute(query, (strict, *span)).fetchall()}
    loose = {ts: (hit, end) for ts, hit, end in db.execute(query, (quiet, *span)).fetchall()}
    assert known and len(loose) > len(known) and known.items() <= loose.items()
    for ts, (hit, end) in loose.items():
        i = int(frame.index.get_loc(ts))
        part = frame.drop(gone)
        before = frame["close"].iloc[i - 1]
        j = int(part.index.searchsorted(ts))
        ahead = int(part.index.searchsorted(ts + 40 * MINUTE)) - j
        what, k = first_hit(part, j, ahead, before * 1.003, before * 0.997)
        assert hit == what and (hit == "time" or end == part.index[k] + MINUTE)
        assert (ts in known) == (end <= gone)


def test_a_label_is_the_same_whichever_other_times_are_asked_for(db: Conn) -> None:
    """A hole at the end of the stretch that is asked for is no end of the data."""
    fill(db, "HOLUSDT", 300, seed=3, per_minute=8, gaps=((100, 130),))
    db.execute("call market.refresh_aggregates()")
    db.execute(
        """update ml.labels set params = params || '{"lookback_days": 0.02}'
        where params ? 'lookback_days'"""
    )
    query = "select ts, label_end, target from ml.label_values(%s, 'HOLUSDT', %s, %s, %s)"
    for label in ("liquidation_15m", "direction_15m", "volatility_15m"):
        whole = db.execute(query, (label, at(20), at(300), at(300))).fetchall()
        assert len(whole) > 100, label
        for cut in (85, 95, 105, 115, 125, 135):
            parts = [
                row
                for span in ((at(20), at(cut)), (at(cut), at(300)))
                for row in db.execute(query, (label, *span, at(300))).fetchall()
            ]
            assert parts == whole, (label, cut)
    # Before the hole has ended, it is the end of the data.
    early = db.execute(query, ("direction_15m", at(20), at(120), at(120))).fetchall()
    assert early and max(end for _, end, _ in early) <= at(101)


def test_a_bar_that_reaches_both_barriers_is_decided_by_its_minutes(db: Conn) -> None:
    frame = candles(db, "AAAUSDT", 3)
    hours = frame.resample("60min").agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    )
    for ts, r in hours.iterrows():
        db.execute(
            "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
            " volume) values ('AAAUSDT', '1 hour', %s, %s, %s, %s, %s, %s, %s)",
            (ts, ts + pd.Timedelta("1h"), r.open, r.high, r.low, r.close, r.volume),
        )
    label = made(db, "tbh", "triple_barrier", "3 hours", up_bps=20, down_bps=20)
    rows = db.execute(
        "select * from ml.label_barriers(%s, 'AAAUSDT', %s, %s, %s, '1 hour')",
        (label, at(0), at(N), at(N)),
    ).fetchall()
    inside = 0
    for ts, end, hit, *_ in rows:
        i = int(frame.index.get_loc(ts))
        before = frame["close"].iloc[i - 1]
        what, j = first_hit(frame, i, 180, before * 1.002, before * 0.998)
        assert hit == what
        assert frame.index[j] + MINUTE <= end
        inside += end.minute != 0  # by the minute: one hour reached both
    assert len(rows) >= 5 and inside


def test_a_horizon_off_the_grid_is_exact_or_refused(db: Conn) -> None:
    """cases/quant 04: on an hourly grid the label of 30 minutes was that of 60."""
    frame = candles(db, "AAAUSDT", 5)
    candles(db, "BBBUSDT", 6, 40, 60)  # hours only
    for horizon in (30, 90, 45):
        label = made(db, f"r{horizon}", "return", f"{horizon} min")
        found = values(db, label, grid="1 hour")
        assert len(found) >= 7
        for ts, row in found.iterrows():
            i = int(frame.index.get_loc(ts))
            close = frame["close"]
            want = 1e4 * np.log(close.iloc[i + horizon - 1] / close.iloc[i - 1])
            assert row["target"] == pytest.approx(want, rel=1e-9)
            assert row["end"] - ts == dt.timedelta(minutes=horizon)
    query = "select * from ml.label_values('r30', 'BBBUSDT', %s, %s, %s, '1 hour')"
    assert code(db, query, at(0), at(2000), at(2400))[0] == "AP221"
    query = "select * from ml.label_values('r30', 'AAAUSDT', %s, %s, %s, '7 minutes')"
    assert code(db, query, at(0), at(200), at(240))[0] == "AP203"


KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("return", {}), ("direction", {"dead_zone_bps": 2}), ("drawdown", {}), ("volume", {}),
    ("realised_volatility", {}), ("triple_barrier", {"up_bps": 12, "down_bps": 12}),
    ("triple_barrier", {"up_atr": 2, "down_atr": 2, "outcome": "return"}),
    ("rank", {"symbols": ["AAAUSDT", "BBBUSDT", "CCCUSDT"]}), ("spread", {}), ("mid", {}),
    ("liquidation_volume", {}), ("volatility", {"lookback_days": 0.05}),
    ("liquidation", {"lookback_days": 0.05}),
    ("select", {"query": "select max(t.price) / min(t.price) - 1 as target from market.trades t"}),
)  # fmt: skip


@pytest.fixture(scope="module")
def traded(db_module: Conn) -> Iterator[Conn]:
    """Some hours of three symbols by their trades, books and liquidations."""
    conn = db_module
    for seed, symbol in enumerate(("TAAUSDT", "TBBUSDT", "TCCUSDT")):
        fill(conn, symbol, 300, seed=seed + 1)
    conn.execute("call market.refresh_aggregates()")
    yield conn


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(which=st.integers(0, len(KINDS) - 1), minute=st.integers(100, 200), after=st.integers(0, 30))
def test_nothing_after_label_end_changes_a_label(
    traded: Conn, which: int, minute: int, after: int
) -> None:
    """Rows that happen from label_end on are other, and some become known after as_of: the label is
    the same. Those of the last minute before it are other: so is the label, where it must be."""
    kind, params = KINDS[which]
    params = dict(params)
    if kind == "rank":
        params["symbols"] = ["TAAUSDT", "TBBUSDT", "TCCUSDT"]
    label = made(traded, f"p{which}", kind, "20 min", **params)
    query = (
        "select ts, label_end, target from ml.label_values(%s, 'TAAUSDT', %s, %s, %s) order by 1"
    )
    args = (label, at(minute), at(minute + 1), at(260))
    before = traded.execute(query, args).fetchone()
    if before is None:
        return
    end = before[1]
    assert before[0] < end <= at(minute + 20)
    with traded.transaction(force_rollback=True):
        cut = end + after * MINUTE
        traded.execute(
            "update market.trades set price = price * 3, size = 9, known_at = ts + interval '1 second'"
            " where ts >= %s",
            (cut,),
        )
        traded.execute(
            "update market.liquidation_events set notional = 1e6, known_at = ts + interval '1 second'"
            " where ts >= %s",
            (cut,),
        )
        traded.execute(
            "update market.order_book_snapshots set bid_prices[1] = bid_prices[1] * 0.9,"
            " ask_sizes[1] = 77, known_at = ts + interval '1 second' where ts >= %s",
            (cut,),
        )
        traded.execute(
            "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
            " select s, %s::timestamptz, 'x' || s, %s, 1e5, 1e5, 'buy'"
            " from unnest(array['TAAUSDT', 'TBBUSDT']) s",
            (at(minute + 3), at(261)),
        )
        assert traded.execute(query, args).fetchone() == before
    with traded.transaction(force_rollback=True):
        # In the last minute before the end, where it reads.
        last = end - MINUTE
        traded.execute(
            "update market.trades set price = price * 1.5, size = size * 2,"
            " known_at = ts + interval '1 second' where ts >= %s and ts < %s and symbol = 'TAAUSDT'", (last, end),
        )  # fmt: skip
        traded.execute(
            "update market.order_book_snapshots set bid_prices[1] = bid_prices[1] * 0.9,"
            " known_at = ts + interval '1 second' where ts >= %s and ts < %s", (last, end),
        )  # fmt: skip
        traded.execute(
            "insert into market.liquidation_events (symbol, ts, event_id, known_at, side, price,"
            " size, notional) values ('TAAUSDT', %s, 'y', %s, 'sell', 1, 1, 1e7)", (last, end),
        )  # fmt: skip
        changed = traded.execute(query, args).fetchone()
        if kind not in ("direction", "rank", "volatility", "triple_barrier", "drawdown"):
            assert changed != before  # an outcome that may stay: a class, a rank, a fall before


def test_a_select_is_a_label_under_the_same_guard(
    bars: tuple[Conn, dict[str, pd.DataFrame]],
) -> None:
    conn, frames = bars
    frame = frames["AAAUSDT"]
    range_ = (
        "select ln(max(c.high) / min(c.low)) as target from market.candles c,"
        " market.label_interval i where c.ts >= i.ts and c.timeframe = '1 minute'"
    )
    jump = (
        "select max(c.high) > 1.002 * max(c.close) filter (where c.ts < i.ts) as target"
        " from market.candles c, market.label_interval i"
    )
    create = "select ml.create_label(%s, horizon => '30 min', query => %s, params => %s)"
    conn.execute(create, ("rng", range_, Jsonb({})))
    conn.execute(create, ("jump", jump, Jsonb({"lookback_days": 1 / 1440})))
    assert dict(conn.execute(
        "select label, task from ml.labels where label in ('rng', 'jump')"
    ).fetchall()) == {"rng": "regression", "jump": "classification"}  # fmt: skip
    query = "select ts, target from ml.label_values(%s, 'AAAUSDT', %s, %s, %s)"
    for ts, target in conn.execute(query, ("rng", at(100), at(110), at(N))).fetchall():
        part = frame[ts : ts + 29 * MINUTE]
        assert target == pytest.approx(np.log(part["high"].max() / part["low"].min()))
    rows = conn.execute(query, ("jump", at(100), at(110), at(N))).fetchall()
    assert len(rows) == 10
    for ts, target in rows:
        part = frame[ts - MINUTE : ts + 29 * MINUTE]
        assert target == float(part["high"].max() > 1.002 * part["close"].iloc[0])
    # an hour that began in the interval and closes after it is not seen
    count = "select count(*) filter (where c.timeframe = '1 hour') as target from market.candles c"
    conn.execute(
        "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
        " volume) values ('AAAUSDT', '1 hour', %s, %s, 1, 1, 1, 1, 1)",
        (at(120), at(180)),
    )
    conn.execute(create, ("hours", count, Jsonb({})))
    found = conn.execute(query, ("hours", at(115), at(125), at(N))).fetchall()
    assert {t for _, t in found} == {0.0}
    for bad in (
        "select 1 as target from market.instruments", "select 1 as target from pg_class",
        "select 1 as other from market.candles", "delete from market.candles",
        "select now() as target", "select pg_sleep(1) as target from market.candles",
        "select 'x' as target from market.candles", "select close as target, ts from market.candles",
        "select target from market.nothing", "select 1 as target; select 2", "",
        "select ml.drop_label('jump') as target", "select 1 as target from market._candles_now()",
    ):  # fmt: skip
        assert code(conn, create, "bad", bad, Jsonb({}))[0] in ("AP222", "AP307"), bad
    conn.execute(create, ("many", "select close as target from market.candles", Jsonb({})))
    assert code(conn, query, "many", at(100), at(102), at(N))[0] == "AP229"
    assert code(conn, "select * from ml._label_select('AAAUSDT', '{0}', 0, 1, 1)")[0] == "AP721"


def test_a_label_that_versions_predict_stays_what_it_was(db: Conn) -> None:
    serving.install(db)
    first = made(db, "mine", "return", "5 min")
    assert first == made(db, "mine", "return", "5 min") == "mine"
    assert made(db, "mine", "direction", "5 min") == "mine"  # nobody used it
    db.execute(
        "insert into ml.models (model, label, feature_set, feature_version)"
        " values ('m', 'mine', 'fixed', 1)"
    )
    second = made(db, "mine", "direction", "10 min")
    assert second == "mine@2" == made(db, "mine", "direction", "10 min")
    assert made(db, "mine", "direction", "15 min") == "mine@2"  # nobody used the second
    version = serving.register(db, serving.train(*serving.synthetic()), model="m")
    update = "update ml.labels set horizon = '7 min' where label = 'mine'"
    assert code(db, update)[0] == "AP225"
    assert (
        code(db, "update ml.labels set params = '{\"threshold_bps\": 1}' where label = 'mine'")[0]
        == "AP225"
    )
    db.execute("update ml.labels set description = 'in other words' where label = 'mine'")
    assert code(db, "select ml.drop_label('mine')")[0] == "AP228"
    assert db.execute(
        "select label, horizon from ml.model_versions where version_id = %s", (version,)
    ).fetchone() == ("mine", dt.timedelta(minutes=5))
    db.execute("select ml.drop_label('mine@2')")
    assert made(db, "mine", "direction", "5 min") == "mine"


def test_roles_may_declare_and_read_labels(
    bars: tuple[Conn, dict[str, pd.DataFrame]], connect_as: Any
) -> None:
    conn, _ = bars
    name = conn.info.dbname
    operator, reader = connect_as("alphaplus_operator", name), connect_as("alphaplus_reader", name)
    operator.execute(
        "select ml.create_label('op', horizon => '30 min',"
        " query => 'select max(high) as target from market.candles')"
    )
    assert reader.execute("select count(*) > 20 from ml.label_kinds").fetchone() == (True,)
    for label in ("op", made(conn, "r30", "return", "30 min")):
        rows = reader.execute(
            "select count(*) from ml.label_values(%s, 'AAAUSDT', %s, %s, %s)",
            (label, at(10), at(20), at(N)),
        ).fetchone()
        assert rows == (10,)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("select ml.create_label('no', 'return', '30 min')")
    operator.execute("select ml.drop_label('op')")


def test_the_page_s_blocks_on_labels_run(db: Conn) -> None:
    fill(db, "BTCUSDT", 420, seed=2, per_minute=12)
    db.execute("call market.refresh_aggregates()")
    page = (Path(__file__).resolve().parents[3] / "docs" / "models.md").read_text()
    part = page.split("## Labels")[1].split("## Deep models")[0]
    blocks = [block.split("```")[0] for block in part.split("```sql\n")[1:]]
    assert len(blocks) == 2
    for block in blocks:
        db.execute(block)
    for name in ("barriers", "range_1h", "up_20", "vol_1h"):
        rows = db.execute(
            "select count(*) from ml.label_values(%s, 'BTCUSDT', %s, %s, %s, '5 minutes')",
            (name, at(240), at(280), at(420)),
        ).fetchone()
        assert rows is not None and rows[0] >= 4, name
    spec = db.execute("select kind from ml._training_spec('barriers_technical')").fetchone()
    assert spec == ("triple_barrier",)
    rows = db.execute(
        "select count(*), min(label_end - ts), max(label_end - ts) from ml.training_set("
        "'barriers_technical', 'BTCUSDT', %s, %s, %s)",
        (at(420), at(240), at(280)),
    ).fetchone()
    assert rows is not None and rows[0] > 20 and rows[1] < rows[2] <= dt.timedelta(hours=2)
