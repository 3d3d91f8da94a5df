"""Windows count bars: a share in regular hours and a quiet pair have their indicators."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from alphaplus.loaders.load import Loader, Options

Conn = psycopg.Connection[Any]
MINUTE = dt.timedelta(minutes=1)
FILES = {
    "AAPLRTH@local": ("AAPLRTH-1m-2014.csv", "AAPLRTH"),
    "BTCUSDC.SPOT@kraken": ("BTCUSDC-1m-kraken-20230111-15.csv", "BTCUSDC"),
}
CHECKED = ("ema_50", "macd", "macd_signal", "rsi_14", "sma_200", "roc_60", "atr_14")


@pytest.fixture(scope="module")
def market(db_module: Conn, shared_data: Path) -> Iterator[Conn]:
    folder = shared_data.parent / "cases" / "data" / "sparse"
    for symbol, (name, native) in FILES.items():
        kind = {"AAPLRTH": "stock", "BTCUSDC": "spot"}[native]
        Loader(db_module, Options(symbol=native, instrument_kind=kind)).load(folder / name)
        found = db_module.execute(
            "select count(*) from market.candles where symbol = %s", (symbol,)
        ).fetchone()
        assert found is not None and found[0] > 1000, symbol
    db_module.execute("call market.refresh_aggregates()")
    yield db_module


def bars(conn: Conn, symbol: str) -> pd.DataFrame:
    rows = conn.execute(
        "select ts, open, high, low, close, volume from market.candles where symbol = %s order by ts",
        (symbol,),
    ).fetchall()
    names = ["ts", "open", "high", "low", "close", "volume"]
    return pd.DataFrame(rows, columns=names).set_index("ts")


def by_pandas(frame: pd.DataFrame) -> pd.DataFrame:
    """The indicators over all bars there are, one after the other, by pandas."""
    close = frame["close"]

    def ema(x: pd.Series[float], span: int) -> pd.Series[float]:
        return x.ewm(span=span, adjust=False).mean()

    def wilder(x: pd.Series[float]) -> pd.Series[float]:
        return x.ewm(alpha=1 / 14, adjust=False).mean()

    change = close.diff().fillna(0)
    up, down = wilder(change.clip(lower=0)), wilder(-change.clip(upper=0))
    macd = ema(close, 12) - ema(close, 26)
    before = close.shift()
    span = pd.concat(
        [frame.high - frame.low, (frame.high - before).abs(), (frame.low - before).abs()], axis=1
    )
    return pd.DataFrame(
        {
            "ema_50": ema(close, 50),
            "macd": macd,
            "macd_signal": ema(macd, 9),
            "rsi_14": 100 * up / (up + down),
            "sma_200": close.rolling(200).mean(),
            "roc_60": 100 * (close / close.shift(60) - 1),
            "atr_14": wilder(span.max(axis=1)),
        }
    )


@pytest.mark.parametrize(
    ("symbol", "day", "known"),
    [
        ("AAPLRTH@local", dt.datetime(2014, 6, 9, 13, 31, tzinfo=dt.UTC), 390),
        ("BTCUSDC.SPOT@kraken", dt.datetime(2023, 1, 14, tzinfo=dt.UTC), 1440),
    ],
)
def test_live_is_history_is_pandas(market: Conn, symbol: str, day: dt.datetime, known: int) -> None:
    columns = ", ".join(CHECKED)
    history = market.execute(
        f"select ts, {columns} from feature.technical_history(%s, %s, %s)",  # type: ignore[arg-type]
        (symbol, day, day + known * MINUTE),
    ).fetchall()
    frame = bars(market, symbol)
    expected = by_pandas(frame)
    got = {ts: values for ts, *values in history}
    assert len(got) == known and not any(x is None for values in got.values() for x in values)
    rng = np.random.default_rng(3)
    for at in rng.integers(0, known, 40).tolist():
        t = day + at * MINUTE
        row = expected[frame.index + MINUTE <= t].iloc[-1]
        np.testing.assert_allclose(
            got[t], row[list(CHECKED)].to_numpy(), rtol=1e-8, atol=1e-7, err_msg=f"{t}"
        )
    for at in rng.integers(0, known, 12).tolist():
        t = day + at * MINUTE
        live = market.execute(
            f"select {columns} from feature.technical(%s, %s)",  # type: ignore[arg-type]
            (symbol, t),
        ).fetchone()
        assert live is not None and list(live) == got[t]


def test_a_set_and_its_stored_vectors(market: Conn) -> None:
    day = dt.datetime(2014, 6, 9, 13, 31, tzinfo=dt.UTC)
    span = (day, day + 390 * MINUTE)
    market.execute("call feature.materialise('technical_1m', 'AAPLRTH@local', %s, %s)", span)
    names = market.execute(
        "select features from feature.sets where name = 'technical_1m'"
    ).fetchone()
    assert names is not None
    place = names[0].index("ema_50")
    stored = dict(
        market.execute(
            "select v.ts, v.values[%s] from feature.vectors v join feature.sets s using (set_id)"
            " where s.name = 'technical_1m' and v.symbol = 'AAPLRTH@local'",
            (place + 1,),
        ).fetchall()
    )
    assert len(stored) == 390 and np.isfinite(list(stored.values())).all()
    frame = bars(market, "AAPLRTH@local")
    ema = frame["close"].ewm(span=50, adjust=False).mean()
    for ts, value in stored.items():
        newest = frame.index.searchsorted(ts - MINUTE, "right") - 1
        assert value == pytest.approx(ema.iloc[newest] / frame["close"].iloc[newest] - 1, rel=1e-6)


def test_a_late_bar_far_back_voids_what_it_changes(market: Conn) -> None:
    """A bar of two sessions before counts in the third: its correction voids the stored vectors."""
    pending = (
        "select count(*) from feature.pending p join feature.sets s using (set_id)"
        " where s.name = 'technical_1m' and p.symbol = 'AAPLRTH@local'"
        " and '2014-06-09 19:00+00' between p.ts_from and p.ts_to"
    )
    market.execute("delete from feature.pending")
    market.execute(
        "insert into feature.watermarks (set_id, symbol, through)"
        " select set_id, 'AAPLRTH@local', '2014-06-10' from feature.sets"
        " where name = 'technical_1m' on conflict do nothing"
    )
    market.execute(
        "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
        " values ('AAPLRTH@local', '1 minute', '2014-06-05 13:29+00', '2014-06-05 13:30+00',"
        " 646, 647, 645, 646, 10)"
    )
    assert market.execute(pending).fetchone() == (1,)
    market.execute("delete from market.candles where ts = '2014-06-05 13:29+00'")


def test_after_the_close_and_after_a_quiet_half_hour_there_is_no_answer(market: Conn) -> None:
    close = dt.datetime(2014, 6, 9, 20, 0, tzinfo=dt.UTC)
    for minutes, there in ((0, True), (29, True), (30, False), (600, False)):
        row = market.execute(
            "select ema_50 from feature.technical('AAPLRTH@local', %s)", (close + minutes * MINUTE,)
        ).fetchone()
        assert row is not None and (row[0] is not None) is there, minutes
