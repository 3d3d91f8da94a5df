"""Analytics: every view over a million recorded predictions, and similar states by the index.

The peer of a view over predictions is the same question asked of the rows; both answers are equal.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import numpy as np
import psycopg

from tests.bench import _common

PREDICTIONS = 1_000_000
DAYS = 60
SYMBOLS = 5
STATES = 20_000
FIRST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
VIEWS = (
    "comprehensive_analysis", "volume_analysis", "model_health", "training", "drift",
    "drift_features", "inference", "promotions", "data_quality", "liquidations", "calibration",
    "feature_quality",
)  # fmt: skip


def _fill(conn: psycopg.Connection[Any]) -> None:
    conn.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " select format('A%%sUSDT', n), 'bench', format('A%%sUSDT', n), format('A%%s', n), 'USDT'"
        " from generate_series(1, %s) n",
        (SYMBOLS,),
    )
    conn.execute("select setseed(0.5)")
    conn.execute(
        "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume,"
        " taker_buy_volume) select format('A%%sUSDT', n), interval '1 minute', t,"
        " t + interval '1 minute', 100, 101, 99, 100 + random(), 1, random()"
        " from generate_series(1, %s) n, generate_series(now() - interval '2 days',"
        " now() - interval '2 minutes', interval '1 minute') t",
        (SYMBOLS,),
    )
    conn.execute("call market.refresh_aggregates()")
    # Without the triggers, which mark hours row by row; the marks are set in one go.
    conn.execute("set session_replication_role = replica")
    conn.execute(
        "insert into ml.predictions (as_of, created_at, model, symbol, horizon, prediction, probability,"
        " outcome, outcome_at, outcome_known_at, is_fallback, details)"
        " select t, t + interval '1 second', (array['liquidation_15m', 'direction_15m',"
        " 'volatility_15m'])[1 + i %% 3], format('A%%sUSDT', 1 + i %% %s), interval '15 minutes', p, p,"
        " (random() < p)::integer, t + interval '15 minutes', t + interval '16 minutes', i %% 50 = 0,"
        " jsonb_build_object('latency_ms', 1 + 5 * random())"
        " from (select i, now() - interval '1 minute' - %s * interval '1 day' * i / %s as t, random() as p"
        " from generate_series(1, %s) i) x",
        (SYMBOLS, DAYS, PREDICTIONS, PREDICTIONS),
    )
    conn.execute("set session_replication_role = origin")
    conn.execute(
        "insert into analytics.known_marks (ts) select distinct public.time_bucket('1 hour', k.at)"
        " from ml.predictions p, lateral (values (p.created_at), (p.outcome_known_at)) k (at)"
    )
    conn.execute("analyze ml.predictions")
    conn.execute("call analytics.refresh()")
    conn.execute("call analytics.refresh_snapshots()")
    conn.execute("vacuum analyze analytics.prediction_sums")
    conn.execute("vacuum analyze analytics.prediction_cells")


def _rows(conn: psycopg.Connection[Any], query: str) -> list[tuple[Any, ...]]:
    return conn.execute(query.encode()).fetchall()


KEPT = (
    "select ts, model, predictions, outcomes, log_loss, brier from analytics.inference"
    " order by ts, model"
)
PLAIN = (
    "select public.time_bucket('1 hour', as_of), model, count(*), count(known), avg(case when known >="
    " 0.5 then -ln(greatest(probability, 1e-15)) when known < 0.5 then -ln(greatest(1 - probability,"
    " 1e-15)) end), avg((prediction - known) ^ 2) from (select p.*, case when outcome_known_at <= now()"
    " then outcome end as known from ml.predictions p where as_of >= public.time_bucket('1 hour', now()"
    " - interval '7 days') and created_at <= now()) x group by 1, 2 order by 1, 2"
)


def _same(conn: psycopg.Connection[Any]) -> None:
    # As of one moment, or the last outcome is known to one and not yet to the other.
    with conn.transaction():
        kept, plain = _rows(conn, KEPT), _rows(conn, PLAIN)
    known = [r for r in plain if r[3]]
    by_key = {r[:2]: r for r in kept}
    if len(kept) != len(plain) or len(known) < 400:
        raise RuntimeError("the kept sums have other hours than the rows")
    for row in known:
        if not np.allclose(by_key[row[:2]][2:], row[2:], rtol=1e-9):
            raise RuntimeError(f"what is kept is not what the rows say: {by_key[row[:2]]}, {row}")


def _similar(conn: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """States of a random vector each, and their nearest by the index and by looking at all."""
    rng = np.random.default_rng(1)
    walk = np.clip(rng.normal(size=(STATES, 12)), -4, 4)
    with (
        conn.cursor() as cursor,
        cursor.copy(
            "copy analytics.states (symbol, timeframe, ts, known_at, price, regime, raw, state) from stdin"
        ) as copy,
    ):
        for i, z in enumerate(walk):
            ts = FIRST + dt.timedelta(hours=i)
            text = "[" + ",".join(f"{v:.6f}" for v in z) + "]"
            copy.write_row(("A1USDT", "1 hour", ts, ts, 100 + i % 7, 1, "{}", text))
    conn.execute(
        "insert into analytics.state_scales select 'A1USDT', '1 hour', '2020-01-01 00:00+00', 1,"
        " '{}', '{}', '{}'"
    )
    conn.execute("analyze analytics.states")
    last = FIRST + dt.timedelta(hours=STATES - 1)
    query = "select ts from analytics.similar_states('A1USDT', '{}', 20, '1 hour', exact => {})"
    asked = [last - dt.timedelta(hours=int(h)) for h in rng.integers(0, 500, 40)]
    found = wanted = 0
    spent = {"true": 0.0, "false": 0.0}
    for at in asked:
        answers = {}
        for exact in spent:
            start = time.perf_counter()
            answers[exact] = {r[0] for r in _rows(conn, query.format(at, exact))}
            spent[exact] += time.perf_counter() - start
        found += len(answers["true"] & answers["false"])
        wanted += len(answers["true"])
    recall = found / wanted
    if recall < 0.95:
        raise RuntimeError(f"the index finds {recall:.3f} of the nearest")
    index, exact = (1000 * spent[k] / len(asked) for k in ("false", "true"))
    return [
        _common.row("similar states, recall of the index", recall, "share", goal="value >= 0.95"),
        _common.row(
            f"20 similar of {STATES:,} states", index, "ms", peer="exact search", peer_value=exact
        ),
    ]


def run(conninfo: str) -> list[dict[str, Any]]:
    """See the module."""
    rows = []
    with (
        _common.database(conninfo, "analytics") as own,
        psycopg.connect(own, autocommit=True) as conn,
    ):
        conn.execute("update ops.schedules set enabled = false")
        _fill(conn)
        _same(conn)
        plain, _ = _common.percentiles(lambda: conn.execute(PLAIN.encode()).fetchall(), 5, 1)
        for view in VIEWS:
            query = f"select * from analytics.{view}".encode()
            median, high = _common.percentiles(lambda q=query: conn.execute(q).fetchall(), 20, 3)
            peer = {"peer": "from the rows", "peer_value": plain} if view == "inference" else {}
            rows.append(
                _common.row(f"analytics.{view}, p99", high, "ms", goal="value <= 50", **peer)
            )
            rows.append(_common.row(f"analytics.{view}, median", median, "ms", goal="value <= 200"))
        rows += _similar(conn)
    return rows
