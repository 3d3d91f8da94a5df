"""The 25 liquidation features beside plain Python over the raw rows, written from their sources."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.db.feature.test_features import live
from tests.db.market_data import at, fill

Conn = psycopg.Connection[Any]
SYMBOL = "AAAUSDT"
MINUTES = 700
SECOND = dt.timedelta(seconds=1)


@pytest.fixture(scope="module")
def market(db_module: Conn) -> Iterator[Conn]:
    """Twelve hours of trades, some of them late, with quiet minutes and a gap."""
    fill(db_module, SYMBOL, MINUTES, seed=21, latency=3.0, per_minute=3.0, gaps=((300, 312),))
    db_module.execute("call market.refresh_aggregates()")
    yield db_module


def bars(conn: Conn, t: int) -> dict[int, tuple[float, float, float, float]]:
    """minute -> (close, volume, quote volume, buy volume), of the 240 minutes before t.

    A minute without a trade has the last close and no volume, unless more than five in a row lack.
    """
    rows = conn.execute(
        "select ts, price, size, side::text from market.trades where symbol = %s and ts >= %s"
        " and ts < %s and known_at <= %s order by ts, trade_id",
        (SYMBOL, at(t - 240), at(t), at(t)),
    ).fetchall()
    found: dict[int, list[float]] = {}
    for ts, price, size, side in rows:
        bar = found.setdefault(int((ts - at(0)) // (60 * SECOND)), [0.0, 0.0, 0.0, 0.0])
        bar[0] = price
        bar[1] += size
        bar[2] += price * size
        bar[3] += size if side == "buy" else 0.0
    out = {m: (b[0], b[1], b[2], b[3]) for m, b in found.items()}
    absent = [m for m in range(t - 240, t) if m not in found]
    while absent:
        run = [absent.pop(0)]
        while absent and absent[0] == run[-1] + 1:
            run.append(absent.pop(0))
        if len(run) <= 5:
            before = found.get(run[0] - 1, [math.nan])[0]
            out.update(dict.fromkeys(run, (before, 0.0, 0.0, 0.0)))
    return out


def vpin(volumes: list[float], buys: list[float]) -> float:
    """Fill fifty buckets of equal volume, bar by bar."""
    size = sum(volumes) / 50
    imbalance: list[float] = []
    filled = bought = 0.0
    for volume, buy in zip(volumes, buys, strict=True):
        left = volume
        while left > 0:
            take = min(left, size - filled)
            bought += buy / volume * take
            filled += take
            left -= take
            if filled >= size * (1 - 1e-12):
                imbalance.append(abs(2 * bought - filled))
                filled = bought = 0.0
            if take <= size * 1e-13:
                break
    return sum(imbalance) / (50 * size)


def median(values: list[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def book_features(conn: Conn, t: int, minute_volume: float) -> dict[str, float]:
    row = conn.execute(
        "select bid_prices, bid_sizes, ask_prices, ask_sizes from market.order_book_snapshots"
        " where symbol = %s and ts >= %s and ts < %s and known_at <= %s order by ts desc limit 1",
        (SYMBOL, at(t - 5), at(t), at(t)),
    ).fetchone()
    names = (
        "bid_ask_imbalance", "depth_pressure", "liquidity_score", "bid_liquidity", "ask_liquidity",
        "bid_wall", "ask_wall", "order_clusters", "spread_bps",
    )  # fmt: skip
    if row is None:
        return dict.fromkeys(names, math.nan)
    mid = (row[0][0] + row[2][0]) / 2
    sides = {
        "bid": [(p, p * q) for p, q in zip(row[0], row[1], strict=True)],
        "ask": [(p, p * q) for p, q in zip(row[2], row[3], strict=True)],
    }
    total = {s: sum(n for _, n in levels) for s, levels in sides.items()}
    near = {
        s: sum(n for p, n in levels if 1e4 * abs(p / mid - 1) <= 25) for s, levels in sides.items()
    }
    pressed = {
        s: sum(n * math.exp(-1e4 * abs(p / mid - 1) / 10) for p, n in levels)
        for s, levels in sides.items()
    }
    every = [n for levels in sides.values() for _, n in levels]
    depth = near["bid"] + near["ask"]
    return {
        "bid_ask_imbalance": (total["bid"] - total["ask"]) / (total["bid"] + total["ask"]),
        "depth_pressure": (pressed["bid"] - pressed["ask"]) / (pressed["bid"] + pressed["ask"]),
        "liquidity_score": depth / (depth + minute_volume),
        "bid_liquidity": math.log(1 + near["bid"]),
        "ask_liquidity": math.log(1 + near["ask"]),
        "bid_wall": math.log(
            max(n for _, n in sides["bid"]) / median([n for _, n in sides["bid"]])
        ),
        "ask_wall": math.log(
            max(n for _, n in sides["ask"]) / median([n for _, n in sides["ask"]])
        ),
        "order_clusters": sum(n for n in every if n > 3 * median(every)) / sum(every),
        "spread_bps": 1e4 * (row[2][0] - row[0][0]) / mid,
    }


def liquidations(conn: Conn, t: int, minute_volume: float) -> dict[str, float]:
    rows = conn.execute(
        "select ts, side::text, notional from market.liquidation_events where symbol = %s"
        " and ts >= %s and ts < %s and known_at <= %s",
        (SYMBOL, at(t - 60), at(t), at(t)),
    ).fetchall()
    recent = {"sell": 0.0, "buy": 0.0}
    decayed = 0.0
    for ts, side, notional in rows:
        age = t - 1 - int((ts - at(0)) // (60 * SECOND))  # whole minutes
        decayed += notional * 0.5 ** (age / 5)
        if age < 15:
            recent[side] += notional
    return {
        "long_liquidations": math.log(1 + recent["sell"]),
        "short_liquidations": math.log(1 + recent["buy"]),
        "liquidation_intensity": decayed / minute_volume,
    }


def last(conn: Conn, table: str, column: str, t: int, before: float, hours: int) -> float:
    """The newest value stamped before ``before`` and known by t, not older than so many hours."""
    row = conn.execute(
        f"select {column} from market.{table} where symbol = %s and ts < %s and ts >= %s"
        " and known_at <= %s order by ts desc limit 1",
        (SYMBOL, at(before), at(before - 60 * hours), at(t)),
    ).fetchone()
    return math.nan if row is None else float(row[0])


def plain(conn: Conn, t: int) -> dict[str, float]:
    """All 25 at minute t."""
    known = bars(conn, t)
    whole = all(m in known for m in range(t - 240, t))
    nothing = (math.nan,) * 4
    close, volume, quote, buy = (
        [known.get(m, nothing)[k] for m in range(t - 240, t)] for k in range(4)
    )
    out: dict[str, float] = dict.fromkeys(
        ("order_flow_toxicity", "volume_ratio", "volume_breakout", "buy_volume_ratio",
         "sell_volume_ratio"), math.nan,
    )  # fmt: skip
    if whole:
        fives = [sum(volume[i : i + 5]) for i in range(0, 240, 5)]
        logs = [math.log(1 + x) for x in fives]
        mean = sum(logs) / 48
        out["order_flow_toxicity"] = vpin(volume, buy)
        out["volume_ratio"] = fives[-1] / (sum(fives) / 48)
        out["volume_breakout"] = (logs[-1] - mean) / math.sqrt(
            sum((x - mean) ** 2 for x in logs) / 48
        )
        sell = [v - b for v, b in zip(volume, buy, strict=True)]
        out["buy_volume_ratio"] = sum(buy[-15:]) / (sum(buy) / 16)
        out["sell_volume_ratio"] = sum(sell[-15:]) / (sum(sell) / 16)
    returns = [math.log(b / a) for a, b in zip(close[-31:], close[-30:], strict=False)]
    out["volatility"] = 1e4 * math.sqrt(sum(r * r for r in returns) / 30)
    out["momentum"] = 1e4 * sum(returns[-15:]) / (out["volatility"] * math.sqrt(15))
    minute_volume = sum(quote[-60:]) / 60
    out |= book_features(conn, t, minute_volume)
    out |= liquidations(conn, t, minute_volume)
    out["funding_rate"] = 1e4 * 2 * last(conn, "funding_rates", "rate", t, t, 24)  # of four hours
    now = last(conn, "open_interest", "open_interest", t, t, 24)
    # an hour ago: what was stamped up to and at that minute
    then = last(conn, "open_interest", "open_interest", t, t - 60 + 1e-6, 24)
    out["open_interest_change"] = math.log(now / then)
    out["toxicity_x_volatility"] = out["order_flow_toxicity"] * out["volatility"]
    out["imbalance_x_momentum"] = out["bid_ask_imbalance"] * out["momentum"]
    out["volatility_x_illiquidity"] = out["volatility"] * (1 - out["liquidity_score"])
    out["funding_x_momentum"] = out["funding_rate"] * out["momentum"]
    return out


def test_each_feature_is_its_definition(market: Conn) -> None:
    row = market.execute(
        "select features from feature.sets where name = 'liquidation' and version = 3"
    ).fetchone()
    assert row is not None
    names = row[0]
    seen: dict[str, int] = dict.fromkeys(names, 0)
    for t in (120, 245, 271, 299, 305, 318, 400, 553, 561, 588, 612, 640, 671, 690, MINUTES):
        want, got = plain(market, t), dict(zip(names, live(market, t), strict=True))
        assert want.keys() == got.keys()
        for name in names:
            assert got[name] == pytest.approx(want[name], rel=1e-9, abs=1e-9, nan_ok=True), (
                t,
                name,
            )
            seen[name] += math.isfinite(want[name])
    assert min(seen.values()) >= 5, seen
