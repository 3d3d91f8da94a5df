"""The short way to bars finds what the long one does, wherever the bars come from."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.db.feature.test_technical import DAY, MINUTE, SETS, START, UTC, candles, put, vector

Connection = psycopg.Connection[Any]
SYMBOLS = ("PLAIN", "FIXED", "GONE", "BOTH", "TRADED", "SLOW", "HOLES", "TRADES")
ALL = (*SETS, "patterns_1m", "order_book", "microstructure", "liquidation")


@pytest.fixture(scope="module")
def mixed(db_module: Connection) -> Iterator[Connection]:
    """Symbols whose bars come from several sources, late, corrected, deleted, with holes."""
    db = db_module
    start, hour = START, 60 * MINUTE
    for symbol in (*SYMBOLS, "LATER"):
        db.execute(
            "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
            " values (%s, 'test', %s, %s, 'USD')",
            (symbol, symbol, symbol),
        )
        if symbol in ("TRADES", "LATER"):  # and no bars
            continue
        count = 2 * 1440
        bars = candles(len(symbol), count)
        with db.cursor().copy(
            "copy market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume,"
            " quote_volume, taker_buy_volume) from stdin"
        ) as rows:
            for i, (o, h, lo, c, v) in enumerate(bars.tolist()):
                if symbol in ("TRADED", "HOLES") and (400 <= i < 410 or i == 2000):
                    continue
                ts = start + i * MINUTE
                late = 90 if symbol == "SLOW" and i % 500 == 499 else 0
                known = ts + (1 + late) * MINUTE
                flows = (
                    v * (o + c) / 2 if i % 3 else None,
                    v * (i % 7) / 7 if i % 1000 > 9 else None,
                )
                high, low = max(o, h, c), min(o, lo, c)
                rows.write_row((symbol, MINUTE, ts, known, o, high, low, c, v, *flows))
    # Loaded at five minutes and an hour too: only some of them.
    put(db, "BOTH", 5 * MINUTE, candles(21, 100), start + 12 * hour)
    put(db, "BOTH", hour, candles(22, 48), start)
    db.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " select 'TRADED', t, m::text, t, 90 + mod(m, 7), 1, 'buy'"
        " from generate_series(395, 2100) m, lateral (select %s + m * interval '1 minute' as t) x",
        (start,),
    )
    db.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " select 'TRADES', t, m::text, t + case mod(m, 900) when 7 then 200 else 1 end"
        " * interval '1 second', 90 + mod(m, 11), 1 + mod(m, 3), case mod(m, 2) when 0 then 'buy'"
        " else 'sell' end::market.side from generate_series(1, 9000) m,"
        " lateral (select %s + m * interval '13 s' as t) x",
        (START,),
    )
    # Sums that round, and some late by minutes: in one more version of a minute, or of a longer bar.
    db.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " select 'LATER', t, m::text, t + case mod(m, 41) when 7 then 70 when 9 then 400 else 1 end"
        " * interval '1 second', 90 + mod(m * 7919, 1009) / 997.0, 1 + mod(m * 104729, 1013) / 991.0,"
        " case when mod(m, 3) = 0 then 'buy' else 'sell' end::market.side"
        " from generate_series(1, 9000) m, lateral (select %s + m * interval '17 s' as t) x"
        " where m not between 3000 and 3040",
        (START,),
    )
    db.execute("call market.refresh_aggregates()")
    # Superseded, one before and one after the refresh; what is known of these begins now.
    where = "where symbol = %s and timeframe = '1 min' and ts = %s"
    db.execute(
        f"update market.candles set volume = volume + 9 {where}", ("FIXED", start + 1000 * MINUTE)
    )
    db.execute(f"delete from market.candles {where}", ("GONE", start + 1500 * MINUTE))
    db.execute("delete from market.trades where symbol = 'TRADES' and trade_id = '3333'")
    yield db


def stretch(
    db: Connection, name: str, symbol: str, span: tuple[dt.datetime, dt.datetime]
) -> dict[dt.datetime, np.ndarray[Any, Any]]:
    """Vectors of a stretch of history, computed."""
    rows = db.execute(
        "select h.ts, h.vector from feature._history(%s, null, %s, %s, %s) h", (name, symbol, *span)
    )
    return {ts: np.array(values) for ts, values in rows}


@pytest.mark.parametrize("symbol", [*SYMBOLS, "LATER"])
def test_the_short_way_to_bars_finds_what_the_long_one_does(mixed: Connection, symbol: str) -> None:
    """And takes the short way for bars of which nothing is open, so that this compares two ways."""
    swap = (
        "do language plpython3u $$\n"
        "from alphaplus.server.market.bars import BarQueries as b\n"
        "plain = GD.setdefault('plain', b.plain)\n"
        "def counted(self, *a, **k):\n"
        "    found = plain(self, *a, **k)\n"
        "    GD['short'] += found is not None and (self.symbol != 'LATER' or a[0] > 60_000_000)\n"
        "    return found\n"
        "b.plain = {}\n$$"
    )
    offsets = [61, 405, 411, 720, 1001, 1201, 1501, 2002, 2590, 2884]
    times = [START + m * MINUTE for m in offsets] + [dt.datetime.now(UTC) + DAY]
    mixed.execute("do language plpython3u $$ GD['short'] = 0 $$")
    try:
        for name in ALL:
            mixed.execute(swap.format("counted"))
            short = [vector(mixed, name, symbol, t) for t in times]
            span = (START + 300 * MINUTE, START + 2500 * MINUTE)
            stretches = [stretch(mixed, name, symbol, span)]
            mixed.execute(swap.format("lambda *a, **k: None"))
            stretches.append(stretch(mixed, name, symbol, span))
            assert stretches[0].keys() == stretches[1].keys()
            for t, values in stretches[0].items():
                np.testing.assert_array_equal(values, stretches[1][t], f"{name} {t}")
            for t, values in zip(times, short, strict=True):
                np.testing.assert_array_equal(values, vector(mixed, name, symbol, t), f"{name} {t}")
        if symbol in ("PLAIN", "HOLES", "TRADES", "LATER"):
            mixed.execute(
                "do language plpython3u $$\nif not GD['short']: plpy.error('never short')\n$$"
            )
    finally:
        mixed.execute(swap.format("plain"))


@pytest.mark.parametrize("symbol", ["PLAIN", "FIXED", "BOTH", "TRADED", "TRADES", "LATER"])
def test_several_sets_at_once_are_the_sets_one_by_one(mixed: Connection, symbol: str) -> None:
    """Whatever their order, also where the vector of one is stored."""

    def grid(name: str) -> dt.datetime:
        return t - minutes % 60 * MINUTE if name == "technical_1h" else t

    for minutes in (61, 1440, 2500, 2884):
        t = START + minutes * MINUTE
        for names in (ALL, ALL[::-1], ("liquidation", "liquidation")):
            one_by_one = np.concatenate([vector(mixed, name, symbol, grid(name)) for name in names])
            found = mixed.execute(
                "select feature.vector(%s::text[], lower(%s), %s)", (list(names), symbol, t)
            ).fetchone()
            assert found is not None
            np.testing.assert_array_equal(np.array(found[0]), one_by_one)
    mixed.execute("call feature.materialise_at('technical_1m', %s, array[%s])", (t, symbol))
    found = mixed.execute(
        "select feature.vector(%s::text[], %s, %s)", (list(names[:1] + ALL), symbol, t)
    ).fetchone()
    assert found is not None
    np.testing.assert_array_equal(
        np.array(found[0]),
        np.concatenate([vector(mixed, n, symbol, grid(n)) for n in names[:1] + ALL]),
    )


def test_several_sets_of_which_one_is_unknown(mixed: Connection) -> None:
    """Or none at all."""
    with pytest.raises(psycopg.Error) as error:
        mixed.execute("select feature.vector(array['liquidation', 'none'], 'PLAIN', %s)", (START,))
    assert error.value.sqlstate == "AP202"
    assert mixed.execute("select feature.vector('{}'::text[], 'PLAIN')").fetchone() == ([],)
