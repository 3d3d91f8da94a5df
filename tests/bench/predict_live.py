"""ml.predict_liquidation with its features computed live, at one and at ten million rows.

The history is as dense in both, so ten million rows are ten times the days; the last thirty days
are the same rows, and so must the answers be.
"""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import numpy as np
import psycopg

from tests.bench import _common as common
from tests.db import serving as w

END = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
MILLION_DAYS = 30
TRADES_A_MINUTE = 20
ASKS = 400

# Every value is a hash of its minute, so that the same minute has the same rows in any history.
FILL = """
create function pg_temp.u(n bigint, salt bigint) returns double precision language sql immutable as
$$ select (hashint8extended(n, salt) & 1048575) / 1048576.0 $$;
insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)
select 'XXX', t, n::text, t, 100 + sin(n / 50000.0) + pg_temp.u(n, 1) / 10,
    0.01 + pg_temp.u(n, 2), case when pg_temp.u(n, 3) < 0.5 then 'buy' else 'sell' end::market.side
from generate_series(%(first)s::bigint * %(rate)s, %(last)s::bigint * %(rate)s - 1) n,
    lateral (select to_timestamp(n * 60.0 / %(rate)s + 0.5) as t) x;
insert into market.order_book_snapshots
    (symbol, ts, known_at, bid_prices, bid_sizes, ask_prices, ask_sizes)
select 'XXX', to_timestamp(m * 60 + 30), to_timestamp(m * 60 + 30),
    array(select 100 - i / 100.0 from generate_series(1, 10) i),
    array(select 1 + pg_temp.u(m * 10 + i, 4) from generate_series(1, 10) i),
    array(select 100 + i / 100.0 from generate_series(1, 10) i),
    array(select 1 + pg_temp.u(m * 10 + i, 5) from generate_series(1, 10) i)
from generate_series(%(first)s::bigint, %(last)s::bigint - 1) m;
insert into market.liquidation_events
    (symbol, ts, event_id, known_at, side, price, size, notional)
select 'XXX', to_timestamp(m * 60 + 10), m::text, to_timestamp(m * 60 + 10), 'sell', 100, 1, 100
from generate_series(%(first)s::bigint, %(last)s::bigint - 1) m where pg_temp.u(m, 6) < 0.1;
insert into market.funding_rates (symbol, ts, known_at, rate, funding_interval)
select 'XXX', to_timestamp(m * 60), to_timestamp(m * 60), pg_temp.u(m, 7) / 1e4, '8 hours'
from generate_series(%(first)s::bigint, %(last)s::bigint - 1) m where m %% 480 = 0;
insert into market.open_interest (symbol, ts, known_at, open_interest)
select 'XXX', to_timestamp(m * 60), to_timestamp(m * 60), 1000 + pg_temp.u(m, 8)
from generate_series(%(first)s::bigint, %(last)s::bigint - 1) m where m %% 5 = 0;
drop function pg_temp.u;
"""


def fill(conn: psycopg.Connection[Any], days: int) -> int:
    """So many days of history up to END, thirty days at a time; rows of market data."""
    conn.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('XXX', 'bench', 'XXX', 'X', 'USDT')"
    )
    end = int(END.timestamp()) // 60
    for day in range(days, 0, -MILLION_DAYS):
        values = {"first": end - day * 1440, "last": end - (day - MILLION_DAYS) * 1440}
        cursor = psycopg.ClientCursor(conn)
        cursor.execute(FILL, {**values, "rate": TRADES_A_MINUTE})
        conn.execute("call market.refresh_aggregates()")
    conn.execute("vacuum analyze")
    return sum(
        w.one(conn, f"select count(*) from market.{table}")
        for table in (
            "trades", "order_book_snapshots", "liquidation_events", "funding_rates", "open_interest"
        )
    )  # fmt: skip


def measure(conninfo: str, days: int) -> tuple[int, float, float, list[Any]]:
    """(rows, p50 in ms, p99 in ms, the answers) over one history."""
    with common.database(conninfo, f"live{days}") as own:
        with psycopg.connect(own, autocommit=True) as conn:
            rows = fill(conn, days)
            names = w.one(
                conn,
                "select s.features from ml.models m join feature.sets s on s.name = m.feature_set"
                " and s.version = m.feature_version where m.model = 'liquidation_15m'",
            )
            rng = np.random.default_rng(1)
            x = rng.normal(size=(5000, len(names)))
            for model, objective in (
                ("liquidation_15m", "binary"),
                ("liquidation_volume_15m", "regression"),
            ):
                booster = w.train(
                    x, (x[:, 0] + x[:, 3] > 0).astype(float), 200, objective=objective
                )
                spec = {"output": {"kind": "identity" if "volume" in model else "log_odds"}}
                # Before the first time asked for: nobody from the future answers.
                trained = (END - dt.timedelta(days=3)).isoformat()
                w.register(
                    conn, booster, model, "XXX", features=names, promote=True,
                    as_of=trained, train_to=trained, spec=spec,
                )  # fmt: skip
        with psycopg.connect(own, autocommit=True) as conn:
            conn.prepare_threshold = 0
            ask = "select * from ml.predict_liquidation('XXX', '15 min', %s)"
            times = [END - dt.timedelta(minutes=17 * i % 2880) for i in range(1, 101)]
            assert w.one(conn, "select count(*) from feature.vectors") == 0
            answers = [conn.execute(ask, (t,)).fetchone() for t in times]
            assert all(a is not None and a[3] is not None and a[6] is not None for a in answers)
            turn = itertools.cycle(times)
            p50, p99 = common.percentiles(
                lambda: conn.execute(ask, (next(turn),)).fetchone(), ASKS, warm=20
            )
            return rows, p50, p99, answers


def run(conninfo: str) -> list[dict[str, Any]]:
    """p50 and p99 at both sizes; the answers must be the same."""
    small_rows, small_p50, _, expected = measure(conninfo, MILLION_DAYS)
    rows, p50, p99, found = measure(conninfo, 10 * MILLION_DAYS)
    assert found == expected, "the same last thirty days give other answers"
    what = f"ml.predict_liquidation, live features, {rows / 1e6:.1f}M rows"
    return [
        common.row(f"{what}, p50", p50, "ms", goal="value <= 3"),
        common.row(f"{what}, p99", p99, "ms", goal="value <= 10"),
        common.row(
            f"{what}, p50 beside fewer rows",
            p50,
            "ms",
            peer=f"{small_rows / 1e6:.1f}M rows",
            peer_value=small_p50,
            goal="ratio <= 1.2",
        ),
    ]
