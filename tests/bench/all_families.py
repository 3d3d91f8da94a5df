"""Every feature family at the newest bar: one symbol live, and a thousand symbols at a bar's close.

Live: ``feature.vector`` of the five families in one call, nothing stored, over a market of about
ten million rows, minute after minute; the same numbers as of each family alone. A thousand
symbols: the vectors of one grid time computed and stored by two sessions; those of some symbols are
computed again and compared.
"""

from __future__ import annotations

import datetime as dt
import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import psycopg

from tests.bench import _common as common
from tests.bench import predict_live
from tests.bench._common import row
from tests.db import serving as w

FAMILIES = ("technical_1m", "patterns_1m", "order_book", "microstructure", "liquidation")
DAYS = int(os.environ.get("BENCH_LIVE_DAYS", "300"))
SYMBOLS = int(os.environ.get("BENCH_SYMBOLS", "1000"))
END = predict_live.END
MINUTE = dt.timedelta(minutes=1)

CANDLES = """
insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume,
    quote_volume, trade_count, taker_buy_volume)
select t.symbol, '1 min', t.bucket, t.bucket + interval '1 min', t.open, t.high, t.low, t.close,
    t.volume, t.quote_volume, t.trade_count, t.buy_volume
from market.trades_1m t
order by t.bucket
"""

# Per symbol: a day of one-minute candles, four hours of trades and books, some liquidations.
MANY = """
insert into market.instruments (symbol, exchange, native_symbol, base, quote)
select 'S' || s, 'bench', 'S' || s, 'S' || s, 'USDT' from generate_series(1, %(n)s) s;
insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume,
    quote_volume, trade_count, taker_buy_volume)
select 'S' || s, '1 min', t, t + interval '1 min', p, p + 0.02 + a, p - 0.03 - b, p + a - b, 10 + a,
    1000 + a, 4, 5 + b
from generate_series(1, %(n)s) s, generate_series(1, 1440) m,
    lateral (
        select %(end)s - m * interval '1 min' as t, 100 + s / 100.0 + sin(m / 60.0 + s) as p,
            (hashint8extended(m, s) & 1023) / 50000.0 as a,
            (hashint8extended(m, s + 5000) & 1023) / 50000.0 as b
    ) x;
insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)
select 'S' || s, t, m::text, t, 100 + s / 100.0 + sin(m / 240.0 + s) + h / 50000.0, 1 + h / 1000.0,
    case when h %% 2 = 0 then 'buy' else 'sell' end::market.side
from generate_series(1, %(n)s) s, generate_series(1, 960) m,
    lateral (select %(end)s - m * interval '15 s' as t, hashint8extended(m, s) & 1023 as h) x;
insert into market.order_book_snapshots
    (symbol, ts, known_at, bid_prices, bid_sizes, ask_prices, ask_sizes)
select 'S' || s, t, t, array(select p - i / 100.0 from generate_series(1, 10) i),
    array(select 1 + (hashint8extended(m, s * 10 + i) & 255) / 8.0 from generate_series(1, 10) i),
    array(select p + i / 100.0 from generate_series(1, 10) i),
    array(select 1 + (hashint8extended(m, s * 20 + i) & 255) / 8.0 from generate_series(1, 10) i)
from generate_series(1, %(n)s) s, generate_series(1, 240) m,
    lateral (
        select %(end)s - m * interval '1 min' + interval '30 s' as t,
            100 + s / 100.0 + sin(m / 60.0 + s) as p
    ) x;
insert into market.liquidation_events
    (symbol, ts, event_id, known_at, side, price, size, notional)
select 'S' || s, t, m::text, t, 'sell', 100, 1, 100
from generate_series(1, %(n)s) s, generate_series(1, 20) m,
    lateral (select %(end)s - m * interval '11 min' as t) x;
insert into market.funding_rates (symbol, ts, known_at, rate, funding_interval)
select 'S' || s, %(end)s - interval '2 hours', %(end)s - interval '2 hours', 1e-4, '8 hours'
from generate_series(1, %(n)s) s;
insert into market.open_interest (symbol, ts, known_at, open_interest)
select 'S' || s, t, t, 1000 + m from generate_series(1, %(n)s) s, generate_series(1, 24) m,
    lateral (select %(end)s - m * interval '5 min' as t) x;
"""


def _next(conn: psycopg.Connection[Any], ask: str, name: str, times: Iterator[dt.datetime]) -> Any:
    return conn.execute(ask, (name, next(times))).fetchall()


def live(conninfo: str) -> list[dict[str, Any]]:
    """One symbol, all families, at the newest bars."""
    with common.database(conninfo, "alllive") as own:
        with psycopg.connect(own, autocommit=True) as conn:
            rows = predict_live.fill(conn, DAYS)
            conn.execute(CANDLES)
            conn.execute("call market.refresh_aggregates()")
            conn.execute("vacuum analyze")
            rows += w.one(conn, "select count(*) from market.candles")
        with psycopg.connect(own, autocommit=True) as conn:
            conn.prepare_threshold = 0
            ask = "select feature.vector(%s::text[], 'XXX', %s)"
            alone = "select feature.vector(%s, 'XXX', %s)"
            assert w.one(conn, "select count(*) from feature.vectors") == 0
            times = [END - i * MINUTE for i in range(50)]
            for t in times[::10]:
                both = [w.one(conn, alone, name, t) for name in FAMILIES]
                np.testing.assert_array_equal(
                    np.array(w.one(conn, ask, list(FAMILIES), t)), np.concatenate(both)
                )
            found = w.one(conn, ask, list(FAMILIES), END)
            width = len(found)
            known = np.mean(np.isfinite(found))
            assert known > 0.9, known
            # The newest bar, minute after minute, as a session sees it that follows the market.
            minutes = iter([END - i * MINUTE for i in range(360, 0, -1)])
            p50, p99 = common.percentiles(
                lambda: conn.execute(ask, (list(FAMILIES), next(minutes))).fetchall(), 300, warm=60
            )
            what = f"{width} features of {len(FAMILIES)} families computed live, {rows / 1e6:.1f}M rows"
            out = [
                row(f"{what}, p50", p50, "ms", goal="value <= 5"),
                row(f"{what}, p99", p99, "ms"),
            ]
            for name in FAMILIES:
                minutes = iter([END - i * MINUTE for i in range(120, 0, -1)])
                with psycopg.connect(own, autocommit=True) as follower:
                    follower.prepare_threshold = 0
                    p50, _ = common.percentiles(partial(_next, follower, alone, name, minutes), 100)
                out.append(row(f"{name}: of that, alone, p50", p50, "ms"))
            # Back in time nothing can be carried on: as in a session that never asked before.
            minutes = iter([END - i * MINUTE for i in range(1, 361)])
            p50, _ = common.percentiles(
                lambda: conn.execute(ask, (list(FAMILIES), next(minutes))).fetchall(), 300, warm=60
            )
            out.append(row(f"{what}, by a session that did not ask before, p50", p50, "ms"))
            for name in FAMILIES:
                conn.execute("call feature.materialise_at(%s, %s, array['XXX'])", (name, END))
            assert w.one(conn, "select count(*) from feature.vectors") == len(FAMILIES)
            stored = w.one(conn, ask, list(FAMILIES), END)
            np.testing.assert_array_equal(np.array(stored), np.array(found))
            p50, _ = common.percentiles(
                lambda: conn.execute(ask, (list(FAMILIES), END)).fetchall(), 300
            )
            out.append(
                row(f"{width} features of the newest bar, stored at its close, p50", p50, "ms")
            )
            return out


def thousand(conninfo: str) -> list[dict[str, Any]]:
    """All symbols, all families, one bar's close, two sessions."""
    with common.database(conninfo, "allclose") as own:
        with psycopg.connect(own, autocommit=True) as conn:
            psycopg.ClientCursor(conn).execute(MANY, {"n": SYMBOLS, "end": END})
            conn.execute("call market.refresh_aggregates()")
            conn.execute("vacuum analyze")
        symbols = [f"S{s}" for s in range(1, SYMBOLS + 1)]
        ready = threading.Barrier(3)
        taken: dict[str, float] = {}

        def work(part: list[str]) -> None:
            with psycopg.connect(own, autocommit=True) as conn:
                conn.execute("select 1")
                ready.wait()
                for name in FAMILIES:
                    begin = time.perf_counter()
                    conn.execute("call feature.materialise_at(%s, %s, %s)", (name, END, part))
                    seconds = time.perf_counter() - begin
                    taken[name] = max(taken.get(name, 0.0), seconds)

        threads = [threading.Thread(target=work, args=(symbols[i::2],)) for i in range(2)]
        for thread in threads:
            thread.start()
        ready.wait()
        begin = time.perf_counter()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - begin

        with psycopg.connect(own, autocommit=True) as conn:
            stored = w.one(conn, "select count(*) from feature.vectors")
            assert stored == SYMBOLS * len(FAMILIES), stored
            for symbol in symbols[:: max(1, SYMBOLS // 20)]:
                for name in FAMILIES:
                    pair = conn.execute(
                        "select v.values, feature._compute(%s, %s,"
                        " ops._micros(v.ts))"
                        " from feature.vectors v join feature.sets s using (set_id)"
                        " where s.name = %s and v.symbol = %s",
                        (name, symbol, name, symbol),
                    ).fetchone()
                    assert pair is not None
                    np.testing.assert_array_equal(np.array(pair[0]), np.array(pair[1]))
    what = f"{len(FAMILIES)} families of {SYMBOLS:,} symbols at one bar's close, two sessions"
    return [
        row(f"{what}, stored", seconds, "s", goal="value <= 20"),
        row("of that, per symbol", 1000 * seconds / SYMBOLS, "ms"),
        *(row(f"{name}: of that", taken[name], "s") for name in FAMILIES),
    ]


def run(conninfo: str) -> list[dict[str, Any]]:
    """Measure; the rows of bench.json."""
    return live(conninfo) + thousand(conninfo)
