"""Point-in-time joins of (symbol, time) rows with two tables of nine million rows each."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import numpy as np
import psycopg

from tests.bench import _common as common
from tests.db import serving as w

ROWS = 9_000_000
DAYS = 30
SYMBOLS = 10
KEYS = 128
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
STEP = DAYS * 86_400_000_000 // (ROWS // SYMBOLS)  # µs between two rows of a symbol

# Known up to three seconds after they happened, and not in order; a tenth a minute late.
FILL = """
set session_replication_role = replica;
insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)
select 'S' || s, t, n::text, t + make_interval(secs => case when n %% 10 = 0 then 60 else n %% 4 end),
    100 + (n %% 1000) / 10.0, 1, 'buy'
from generate_series(0, %(symbols)s - 1) s, generate_series(0, %(each)s - 1) n,
    lateral (select %(start)s::timestamptz + n * %(step)s::bigint * interval '1 microsecond' as t) x;
create table public.scores (
    symbol text collate "C", ts timestamptz, known_at timestamptz, score float8,
    primary key (symbol, ts)
);
select public.create_hypertable('public.scores', public.by_range('ts', interval '1 day'));
insert into public.scores
select 'S' || s, t + interval '100 ms', t + interval '100 ms' + make_interval(secs => n %% 3), n
from generate_series(0, %(symbols)s - 1) s, generate_series(0, %(each)s - 1) n,
    lateral (select %(start)s::timestamptz + n * %(step)s::bigint * interval '1 microsecond' as t) x;
"""


def expected(times: np.ndarray[Any, Any], shift: int, late: Any, each: int) -> Any:
    """Row number of the newest row known at each time (µs from START); -1: none."""
    n = np.minimum((times - 1 - shift) // STEP, each - 1)
    found = np.full(len(times), -1)
    for back in range(0, 90_000_000 // STEP + 2):
        row = n - back
        known = row * STEP + shift + late(np.maximum(row, 0)) * 1_000_000
        take = (found < 0) & (row >= 0) & (known <= times)
        found[take] = row[take]
    return found


def keys(rng: np.random.Generator, count: int) -> tuple[list[str], Any, list[dt.datetime]]:
    names = [f"S{i}" for i in rng.integers(0, SYMBOLS, count)]
    times = np.sort(rng.integers(3600 * 10**6, DAYS * 86_400 * 10**6, count))
    return names, times, [START + dt.timedelta(microseconds=int(t)) for t in times]


def frame(shift: int, late: Any, each: int) -> Any:
    """A table as pandas.merge_asof wants it: at each time of becoming known, the newest row so far."""
    import pandas as pd

    number = np.arange(each, dtype=np.int64)
    known = number * STEP + shift + late(number) * 1_000_000
    order = np.lexsort((number, known))
    one = pd.DataFrame(
        {"known": known[order], "number": np.maximum.accumulate(number[order])}
    ).drop_duplicates("known", keep="last")
    parts = [one.assign(symbol=np.int8(i)) for i in range(SYMBOLS)]
    return pd.concat(parts).sort_values("known", kind="stable", ignore_index=True)


def in_pandas(tables: list[Any], names: list[str], times: Any) -> list[Any]:
    """The row numbers found by pandas.merge_asof in tables that are in memory already; -1: none."""
    import pandas as pd

    left = pd.DataFrame({"known": times, "symbol": np.array([int(n[1:]) for n in names], np.int8)})
    return [
        pd.merge_asof(left, table, on="known", by="symbol")["number"].fillna(-1).to_numpy()
        for table in tables
    ]


def run(conninfo: str) -> list[dict[str, Any]]:
    """Milliseconds for 128 rows against both tables; µs a row for many, and that it is linear."""
    rows = []
    each = ROWS // SYMBOLS
    with common.database(conninfo, "pit") as own, psycopg.connect(own, autocommit=True) as conn:
        conn.execute("set client_min_messages = warning")
        for i in range(SYMBOLS):
            conn.execute(
                "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
                " values (%(s)s, 'bench', %(s)s, %(s)s, 'USDT')",
                {"s": f"S{i}"},
            )
        psycopg.ClientCursor(conn).execute(
            FILL, {"symbols": SYMBOLS, "each": each, "step": STEP, "start": START}
        )
        conn.execute("set session_replication_role = origin")
        conn.execute("vacuum analyze market.trades, public.scores")
        joins = (
            ("market.trades", "price", 0, lambda n: np.where(n % 10 == 0, 60, n % 4)),
            ("public.scores", "score", 100_000, lambda n: n % 3),
        )

        def ask(names: list[str], moments: list[dt.datetime], table: str, column: str) -> Any:
            return conn.execute(
                "select (row ->> %s)::float8 from feature.as_of(%s, %s, %s, array[%s], '1 hour')",
                (column, table, names, moments, column),
            ).fetchall()

        frames = [frame(shift, late, each) for _, _, shift, late in joins]
        rng = np.random.default_rng(1)
        names, times, moments = keys(rng, KEYS)
        for table, column, shift, late in joins:
            number = expected(times, shift, late, each)
            want = 100 + (number % 1000) / 10.0 if column == "price" else number
            got = [row[0] for row in ask(names, moments, table, column)]
            assert np.allclose(got, want), table
            (there,) = in_pandas([frames[table == "public.scores"]], names, times)
            assert np.array_equal(there, number), table

        def both() -> None:
            for table, column, _, _ in joins:
                ask(names, moments, table, column)

        p50, _ = common.percentiles(both, 40)
        peer, _ = common.percentiles(lambda: in_pandas(frames, names, times), 3, warm=1)
        rows.append(
            common.row(
                f"as-of join of {KEYS} rows with two tables of {ROWS / 1e6:.0f}M rows, p50",
                p50,
                "ms",
                peer="pandas.merge_asof, both tables in memory, sorted",
                peer_value=peer,
                goal="value <= 20",
            )
        )
        per = []
        for count in (100_000, 1_000_000):
            many, _, at = keys(rng, count)
            started = time.perf_counter()
            found = conn.execute(
                "select count(row) from feature.as_of('market.trades', %s, %s, array['price'],"
                " '1 hour')",
                (many, at),
            ).fetchone()
            per.append(1e6 * (time.perf_counter() - started) / count)
            assert found == (count,)
        rows.append(
            common.row(
                "as-of join of a million rows with one of them, per row",
                per[1],
                "µs",
                peer="of a hundred thousand",
                peer_value=per[0],
                goal="ratio <= 1.2",
            )
        )
        names, times, at = keys(rng, 1_000_000)
        started = time.perf_counter()
        found = conn.execute(
            "select array_agg((row ->> 'price')::float8) from feature.as_of('market.trades', %s, %s,"
            " array['price'], '1 hour')",
            (names, at),
        ).fetchone()
        took = time.perf_counter() - started
        started = time.perf_counter()
        (there,) = in_pandas(frames[:1], names, times)
        peer_took = time.perf_counter() - started
        assert found is not None
        assert np.allclose(np.array(found[0]), 100 + (there % 1000) / 10.0)
        rows.append(
            common.row(
                "as-of join of a million rows with one of them, values read",
                took,
                "s",
                peer="pandas.merge_asof, the table in memory, sorted",
                peer_value=peer_took,
            )
        )
        block = (
            "select values from feature.as_of_columns('market.trades', %s, %s, '{price}', '1 hour')"
        )
        order = np.array(names).argsort(kind="stable")
        asked = [
            (
                symbol,
                [at[i] for i in order if names[i] == symbol],
                order[np.array(names)[order] == symbol],
            )
            for symbol in sorted(set(names))
        ]
        got_all = np.empty(len(names))
        started = time.perf_counter()
        with conn.cursor(binary=True) as cursor:
            for symbol, its, where in asked:
                answer = cursor.execute(block, (symbol, its)).fetchone()
                assert answer is not None
                got_all[where] = np.frombuffer(answer[0], "<f8")
        took = time.perf_counter() - started
        assert np.allclose(got_all, 100 + (there % 1000) / 10.0)
        rows.append(
            common.row(
                "as-of join of a million rows with one of them, by feature.as_of_columns",
                took,
                "s",
                peer="pandas.merge_asof, the table in memory, sorted",
                peer_value=peer_took,
                goal="ratio <= 5",
            )
        )
        assert w.one(conn, "select count(*) from public.scores") == ROWS
    return rows
