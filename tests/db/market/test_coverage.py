"""What is stored and what is missing, health of bars of any length, bars that roll up to longer ones."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest

from tests.db import market_data as market

Conn = psycopg.Connection[Any]
START = dt.datetime(2025, 3, 3, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def load(
    db: Conn, symbol: str, length: dt.timedelta, n: int, *, seed: int = 1,
    missing: frozenset[int] | set[int] = frozenset(), start: dt.datetime = START,
    latency: dt.timedelta = dt.timedelta(0),
) -> pd.DataFrame:  # fmt: skip
    """Bars of a random walk, some of them missing; as a frame by opening time."""
    market.instrument(db, symbol)
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, n)))
    open_ = np.roll(close, 1)
    open_[0] = 100
    frame = pd.DataFrame(
        {
            "open": open_, "high": np.maximum(open_, close) * 1.001,
            "low": np.minimum(open_, close) * 0.999, "close": close,
            "volume": rng.integers(1, 100, n).astype(float),
        },
        index=pd.DatetimeIndex([start + i * length for i in range(n)]),
    )  # fmt: skip
    frame = frame.drop(frame.index[sorted(missing)])
    with db.cursor().copy(
        "copy market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume) from stdin"
    ) as copy:
        for ts, row in zip(frame.index, frame.itertuples(index=False), strict=True):
            copy.write_row((symbol, length, ts, ts + length + latency, *row))
    return frame


def rolled(frame: pd.DataFrame, rule: str) -> pd.DataFrame:
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    return frame.resample(rule).agg(how).dropna()


def view(db: Conn, name: str, symbol: str) -> pd.DataFrame:
    rows = db.execute(
        f"select ts, open, high, low, close, volume, source from market.{name} where symbol = %s"  # type: ignore[arg-type]
        " order by ts",
        (symbol,),
    ).fetchall()
    return pd.DataFrame(
        rows, columns=["ts", "open", "high", "low", "close", "volume", "source"]
    ).set_index("ts")


def test_coverage_is_what_pandas_counts(db: Conn) -> None:
    missing = {3, 4, 5, 40, 77, 78}
    frame = load(db, "AAAUSDT", HOUR, 100, missing=missing)
    load(db, "AAAUSDT", dt.timedelta(days=1), 3)
    market.fill(db, "BBBUSDT", 30)
    row = db.execute(
        'select "from", "to", rows, gaps, last from market.coverage where symbol = \'AAAUSDT\''
        " and kind = 'candles' and timeframe = '1 hour'"
    ).fetchone()
    assert row == (
        START, START + 100 * HOUR, len(frame),
        int((frame.index.to_series().diff() > HOUR).sum()), START + 100 * HOUR,
    )  # fmt: skip
    kinds = db.execute("select symbol, kind, timeframe, rows, gaps from market.coverage").fetchall()
    assert ("AAAUSDT", "candles", dt.timedelta(days=1), 3, 0) in kinds
    for kind, table in (
        ("trades", "trades"), ("order_book", "order_book_snapshots"),
        ("liquidations", "liquidation_events"), ("funding", "funding_rates"),
        ("open_interest", "open_interest"),
    ):  # fmt: skip
        (count,) = db.execute(f"select count(*) from market.{table}").fetchone() or ()  # type: ignore[arg-type]
        assert ("BBBUSDT", kind, None, count, 0) in kinds, kind


def test_gaps(db: Conn) -> None:
    load(db, "AAAUSDT", HOUR, 100, missing={3, 4, 5, 40})
    rows = db.execute(
        "select bar, gap_from, gap_to, missing, how from market.gaps('AAAUSDT')"
    ).fetchall()
    assert rows == [
        (HOUR, START + 3 * HOUR, START + 6 * HOUR, 3, "no bars"),
        (HOUR, START + 40 * HOUR, START + 41 * HOUR, 1, "no bars"),
    ]
    db.execute(
        "insert into market.streams (stream, exchange, status, symbols, channels) values"
        " ('one', 'test', 'connected', array['AAAUSDT'], array['trades'])"
    )
    db.execute(
        "insert into market.gaps (stream, symbol, channel, how, from_id, to_id, from_ts, to_ts)"
        " values ('one', 'AAAUSDT', 'trades', 'sequence', 10, 14, %s, %s)",
        (START + 50 * HOUR, START + 51 * HOUR),
    )
    db.execute(
        "insert into market.sequence_gaps (symbol, ts, stream, expected, received)"
        " values ('AAAUSDT', %s, 'depth', 100, 103)",
        (START + 60 * HOUR,),
    )
    rows = db.execute(
        "select kind, missing, how from market.gaps('AAA/USDT', %s)", (START + 7 * HOUR,)
    ).fetchall()
    assert rows == [
        ("candles", 1, "no bars"),
        ("trades", 5, "sequence"),
        ("order_book", 3, "sequence"),
    ]
    only = db.execute(
        "select kind, missing from market.gaps('AAAUSDT', timeframe => '1 hour')"
    ).fetchall()
    assert only == [("candles", 3), ("candles", 1)]
    assert db.execute("select * from market.gaps('AAAUSDT', timeframe => '5 min')").fetchall() == []
    for arguments, code in (("'nope'", "AP101"), ("'AAAUSDT', timeframe => '0'", "AP245")):
        with pytest.raises(psycopg.Error) as caught:
            db.execute(f"select * from market.gaps({arguments})")  # type: ignore[arg-type]
        assert caught.value.sqlstate == code


def test_health_knows_bars_of_any_length(db: Conn) -> None:
    now = START + 100 * HOUR
    load(db, "AAAUSDT", HOUR, 100)  # the last one closes now
    load(db, "BBBUSDT", HOUR, 97)  # three hours ago
    load(db, "CCCUSDT", dt.timedelta(days=1), 4)  # of days
    load(db, "DDDUSDT", HOUR, 10)  # history
    market.instrument(db, "EEEUSDT")

    def of(symbol: str, at: dt.datetime) -> tuple[str, str]:
        row = db.execute(
            "select status, detail from ops.health_at(%s) where check_name = 'data' and subject = %s",
            (at, symbol),
        ).fetchone()
        assert row is not None
        return row

    assert of("AAAUSDT", now)[0] == "green" and "(bars of 01:00:00)" in of("AAAUSDT", now)[1]
    # An hour's bar is not late before the next one is.
    assert of("AAAUSDT", now + dt.timedelta(minutes=59))[0] == "green"
    status, detail = of("BBBUSDT", now)
    assert status == "red" and "no bars of 01:00:00 since" in detail
    assert of("CCCUSDT", now)[0] == "green" and "bars of 1 day" in of("CCCUSDT", now)[1]
    assert of("CCCUSDT", now + dt.timedelta(days=2))[0] == "red"
    assert of("DDDUSDT", now)[0] == "green" and "history up to" in of("DDDUSDT", now)[1]
    assert of("EEEUSDT", now) == ("green", "no data yet")


@pytest.mark.parametrize("name", ["candles_4h", "candles_1d"])
def test_hours_roll_up(db: Conn, name: str) -> None:
    frame = load(db, "AAAUSDT", HOUR, 24 * 20, missing={30, 31, 300})
    got = view(db, name, "AAAUSDT")
    assert set(got["source"]) == {"bars of 01:00:00"}
    expected = rolled(frame, {"candles_4h": "4h", "candles_1d": "1D"}[name])
    pd.testing.assert_frame_equal(
        got.drop(columns="source"), expected, check_freq=False, check_names=False,
        check_index_type=False, rtol=1e-12,
    )  # fmt: skip


def test_any_length_that_divides_rolls_up_and_the_fuller_one_counts(db: Conn) -> None:
    tens = load(db, "AAAUSDT", dt.timedelta(minutes=10), 6 * 24 * 3)
    assert set(view(db, "candles_1h", "AAAUSDT")["source"]) == {"bars of 00:10:00"}
    assert view(db, "candles_15m", "AAAUSDT").empty  # ten minutes do not divide fifteen
    few = load(db, "AAAUSDT", dt.timedelta(hours=4), 8, seed=2)  # the third day has none
    got = view(db, "candles_1d", "AAAUSDT")
    assert list(got["source"]) == ["bars of 04:00:00", "bars of 00:10:00", "bars of 00:10:00"]
    assert got["close"].iloc[0] == few["close"].iloc[5]
    assert got["close"].iloc[2] == tens["close"].iloc[-1]
    load(db, "AAAUSDT", dt.timedelta(days=1), 1, seed=3)
    assert view(db, "candles_1d", "AAAUSDT")["source"].iloc[0] == "loaded"


def test_six_minutes_of_trades_are_not_in_the_way_of_a_year_of_hours(db: Conn) -> None:
    start = market.START - dt.timedelta(days=30)
    frame = load(db, "AAAUSDT", HOUR, 24 * 60, start=start)
    market.fill(db, "AAAUSDT", 6)
    days = rolled(frame, "1D")
    got = view(db, "candles_1d", "AAAUSDT")
    assert set(got["source"]) == {"bars of 01:00:00"}
    np.testing.assert_allclose(got["close"], days["close"], rtol=1e-12)
    db.execute("call market.refresh_aggregates()")
    assert set(view(db, "candles_1d", "AAAUSDT")["source"]) == {"bars of 01:00:00"}


def test_features_of_days_do_not_fall_for_six_minutes_of_trades(db: Conn) -> None:
    load(db, "AAAUSDT", HOUR, 24 * 60, start=market.START - dt.timedelta(days=50))
    times = [market.START + dt.timedelta(hours=h) for h in (12, 24, 25, 48, 72)]

    def vectors() -> list[Any]:
        return [
            db.execute("select feature.vector('technical_1h', 'AAAUSDT', %s)", (at,)).fetchone()
            for at in times
        ]

    before = vectors()
    market.fill(db, "AAAUSDT", 6)
    assert vectors() == before
    db.execute("call market.refresh_aggregates()")
    assert vectors() == before


def test_minutes_come_before_longer_bars(db: Conn) -> None:
    load(db, "AAAUSDT", HOUR, 48)
    minutes = load(db, "AAAUSDT", dt.timedelta(minutes=1), 1440, seed=5)
    got = view(db, "candles_1d", "AAAUSDT")
    assert list(got["source"]) == ["minutes", "bars of 01:00:00"]
    assert got["close"].iloc[0] == minutes["close"].iloc[-1]
