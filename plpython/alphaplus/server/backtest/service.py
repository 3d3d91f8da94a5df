"""Back-tests for PL/Python: reads what was known, trades it by each rule, sums it up."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from alphaplus.server.backtest import judge
from alphaplus.server.backtest.simulate import (
    Bars,
    Curve,
    Floats,
    Rows,
    Rule,
    Symbol,
    Trades,
    curve,
    trade,
)
from alphaplus.server.codec import sent_floats, sent_integers
from alphaplus.server.database import Database

YEAR = 365.25 * 86_400_000_000
REASONS = ("prediction", "held", "end")


def _read(db: Database, spec: dict[str, Any], name: str) -> Symbol:
    start, end, as_of = spec["from"], spec["to"], spec["as_of"]
    times = ["int8", "int8", "int8"]
    p = db.execute(
        "select * from backtest._predictions_packed($1, $2, $3, $4, $5, $6)",
        ["text", "text", "text", *times],
        [spec["model"], name, spec["source"], start, end, as_of],
    )[0]
    r = db.execute(
        "select * from backtest._rows_packed($1, $2, $3, $4, $5)",
        ["text", "text", *times],
        [name, spec["fill"], start, end, as_of],
    )[0]
    b = db.execute(
        "select * from backtest._bars_packed($1, $2, $3, $4)",
        ["text", *times],
        [name, start, end, as_of],
    )[0]
    f = db.execute(
        "select * from backtest._funding_packed($1, $2, $3, $4)",
        ["text", *times],
        [name, start, end, as_of],
    )[0]
    usable = sent_integers(b["usable"])
    funding = sent_integers(f["ts"]), sent_floats(f["rate"])
    if not spec["funding"]:
        funding = np.zeros(0, np.int64), np.zeros(0)
    return Symbol(
        sent_integers(p["known"]), sent_floats(p["value"]),
        Rows(
            sent_integers(r["ts"]), sent_integers(r["known"]), sent_floats(r["buy"]),
            sent_floats(r["sell"]),
        ),
        Bars(
            usable, sent_floats(b["close"]), sent_floats(b["volume"]), int(b["width"] or 60_000_000)
        ),
        *funding,
    )  # fmt: skip


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def rule_of(settings: dict[str, Any]) -> Rule:
    """A rule from a strategy's row."""
    spread = settings["half_spread_bps"] / 1e4 if settings["fill"] != "book" else 0.0
    return Rule(
        enter_long=_number(settings["enter_long"]),
        exit_long=_number(settings["exit_long"]),
        enter_short=_number(settings["enter_short"]),
        exit_short=_number(settings["exit_short"]),
        hold=int(settings["hold_us"] or 0),
        sizing=settings["sizing"],
        size=float(settings["size"]),
        target_volatility=float(settings["target_volatility"]),
        capital=float(settings["capital"]),
        latency=int(settings["latency_us"]),
        max_wait=int(settings["max_wait_us"]),
        fee=settings["fee_bps"] / 1e4,
        half_spread=spread,
        impact=float(settings["impact"]),
    )


def run(plpy: Any, cache: dict[str, Any], spec_text: str) -> Iterator[dict[str, Any]]:
    """One row for each rule: columns of trades, equity and metrics."""
    spec = json.loads(spec_text)
    db = Database.of(plpy, cache)
    names = spec["symbols"]
    symbols = [_read(db, spec, name) for name in names]
    return iter([_one(spec, names, symbols, rule_of(s)) for s in spec["rules"]])


def _one(
    spec: dict[str, Any], names: list[str], symbols: list[Symbol], rule: Rule
) -> dict[str, Any]:
    start, end, bar = spec["from"], spec["to"], spec["bar"]
    trades = [trade(s, rule, end) for s in symbols]
    line = curve(symbols, trades, rule, start, end, bar)
    returns = np.diff(np.concatenate([[rule.capital], line.equity])) / rule.capital
    columns = _columns(names, symbols, trades)
    peak = np.maximum.accumulate(np.maximum(line.equity, rule.capital))
    with np.errstate(divide="ignore", invalid="ignore"):
        drawdown = (peak - line.equity) / peak
    metrics = _metrics(symbols, trades, rule, line, returns, drawdown, spec)
    return {
        **columns,
        "predictions": sum(len(s.known) for s in symbols),
        "given_up": sum(t.given_up for t in trades),
        "returns": returns.tolist(), "first_bar": int(line.ts[0] - bar),
        "bar_end": line.ts.tolist(), "equity": line.equity.tolist(),
        "drawdown": drawdown.tolist(), "position": line.position.tolist(),
        "turnover": line.turnover.tolist(),
        "metric": [m[0] for m in metrics],
        "value": [_null(m[1]) for m in metrics],
        "low": [_null(m[2]) for m in metrics],
        "high": [_null(m[3]) for m in metrics],
    }  # fmt: skip


def _null(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _columns(names: list[str], symbols: list[Symbol], trades: list[Trades]) -> dict[str, Any]:
    """The trades of all instruments by time of decision."""
    parts: dict[str, list[Any]] = {}
    for name, s, t in zip(names, symbols, trades, strict=True):
        mid = s.rows.mid
        into, out = mid[t.entry_row], mid[t.exit_row]
        gross = t.side * t.quantity * (out - into)
        fees, spread = t.fees_in + t.fees_out, t.spread_in + t.spread_out
        impact = t.impact_in + t.impact_out
        for key, column in (
            ("symbol", np.array([name] * len(t.side), object)), ("side", t.side.astype(np.int64)),
            ("prediction", t.prediction), ("decided", t.decided),
            ("entered", s.rows.ts[t.entry_row]), ("entry_price", into),
            ("exit_decided", t.exit_decided), ("exited", s.rows.ts[t.exit_row]),
            ("exit_price", out),
            ("reason", np.array([REASONS[k] for k in t.reason], object)),
            ("quantity", t.quantity), ("gross", gross), ("fees", fees), ("spread", spread),
            ("impact", impact), ("funding", t.funding),
            ("net", gross - fees - spread - impact - t.funding),
        ):  # fmt: skip
            parts.setdefault(key, []).append(column)
    whole = {key: np.concatenate(columns) for key, columns in parts.items()}
    order = np.lexsort((whole["symbol"].astype(str), whole["decided"]))
    return {key: column[order].tolist() for key, column in whole.items()}


def _metrics(
    symbols: list[Symbol], trades: list[Trades], rule: Rule, line: Curve, returns: Floats,
    drawdown: Floats, spec: dict[str, Any],
) -> list[tuple[str, float, float, float]]:  # fmt: skip
    nan = math.nan
    bars = YEAR / spec["bar"]
    net = np.concatenate([_net(s, t) for s, t in zip(symbols, trades, strict=True)])
    won = float((net > 0).mean()) if len(net) else nan
    half = 1.959963984540054 * math.sqrt(won * (1 - won) / len(net)) if len(net) else nan
    ratio = judge.sharpe(returns)
    low, high = judge.sharpe_interval(returns, spec["seed"])
    scale = math.sqrt(bars)
    days = max((spec["to"] - spec["from"]) / 86_400_000_000, 1e-9)
    held = np.concatenate(
        [
            s.rows.ts[t.exit_row] - s.rows.ts[t.entry_row]
            for s, t in zip(symbols, trades, strict=True)
        ]
    )
    profit = float(line.equity[-1] - rule.capital)
    hold = _hold(symbols, rule, line)
    random, better = _random(symbols, trades, rule, spec["seed"], float(net.sum()))
    return [
        ("net_profit", profit, nan, nan),
        ("net_return", profit / rule.capital, nan, nan),
        (
            "gross_profit",
            float(sum(_gross(s, t).sum() for s, t in zip(symbols, trades, strict=True))),
            nan,
            nan,
        ),
        ("fees", float(sum((t.fees_in + t.fees_out).sum() for t in trades)), nan, nan),
        ("spread", float(sum((t.spread_in + t.spread_out).sum() for t in trades)), nan, nan),
        ("impact", float(sum((t.impact_in + t.impact_out).sum() for t in trades)), nan, nan),
        ("funding", float(sum(t.funding.sum() for t in trades)), nan, nan),
        ("sharpe", ratio * scale, low * scale, high * scale),
        ("volatility", float(returns.std(ddof=1)) * scale if len(returns) > 1 else nan, nan, nan),
        ("max_drawdown", float(drawdown.max()), nan, nan),
        ("turnover_per_day", float(line.turnover.sum()) / days, nan, nan),
        ("exposure", float((line.position > 0).mean()), nan, nan),
        ("mean_position", float(line.position.mean()), nan, nan),
        ("trades", float(len(net)), nan, nan),
        (
            "hit_rate",
            won,
            max(0.0, won - half) if len(net) else nan,
            min(1.0, won + half) if len(net) else nan,
        ),
        ("mean_trade", float(net.mean()) if len(net) else nan, nan, nan),
        ("mean_hours_held", float(held.mean()) / 3.6e9 if len(held) else nan, nan, nan),
        ("buy_and_hold_return", hold[0], nan, nan),
        ("buy_and_hold_sharpe", hold[1] * scale, nan, nan),
        ("random_entry_return", random[0], random[1], random[2]),
        ("random_entry_p", better, nan, nan),
    ]


def _gross(s: Symbol, t: Trades) -> Floats:
    mid = s.rows.mid
    gross: Floats = t.side * t.quantity * (mid[t.exit_row] - mid[t.entry_row])
    return gross


def _costs(t: Trades) -> Floats:
    return (
        t.fees_in + t.fees_out + t.spread_in + t.spread_out + t.impact_in + t.impact_out + t.funding
    )


def _net(s: Symbol, t: Trades) -> Floats:
    return _gross(s, t) - _costs(t)


def _hold(symbols: list[Symbol], rule: Rule, line: Curve) -> tuple[float, float]:
    """Return and Sharpe ratio by bar of holding all instruments alike, bought and sold once."""
    have = [s for s in symbols if len(s.rows.ts)]
    if not have:
        return math.nan, math.nan
    value = np.zeros(len(line.ts))
    for s in have:
        mid = s.rows.mid
        place = np.maximum(np.searchsorted(s.rows.ts, line.ts, side="right") - 1, 0)
        path = mid[place] / mid[0] - 1
        cost = rule.fee + rule.half_spread + (s.rows.buy[0] - mid[0]) / mid[0]
        out = rule.fee + rule.half_spread + (mid[-1] - s.rows.sell[-1]) / mid[-1]
        path = path - cost
        path[-1] -= out * mid[-1] / mid[0]
        value += path / len(have)
    returns = np.diff(np.concatenate([[0.0], value]))
    return float(value[-1]), judge.sharpe(returns)


def _random(
    symbols: list[Symbol], trades: list[Trades], rule: Rule, seed: int, net: float
) -> tuple[tuple[float, float, float], float]:
    """As many trades of the same sizes, sides and lengths at random times, with the same costs.

    Their mean return with the middle 95 %, and the share of them that did as well or better.
    """
    count = sum(len(t.side) for t in trades)
    if count == 0:
        return (math.nan, math.nan, math.nan), math.nan
    draws = int(np.clip(500_000 // count, 20, 200))
    rng = np.random.default_rng(seed)
    total = np.zeros(draws)
    for s, t in zip(symbols, trades, strict=True):
        if len(t.side) == 0:
            continue
        fills = s.fills(rule.latency)
        fills = fills[fills < len(s.rows.ts)]
        mid, ts = s.rows.mid, s.rows.ts
        length = ts[t.exit_row] - ts[t.entry_row]
        value = t.side * t.quantity * mid[t.entry_row]
        for k in range(draws):
            into = fills[rng.integers(0, len(fills), len(t.side))]
            mixed = rng.permutation(len(t.side))
            out = np.searchsorted(ts, ts[into] + length[mixed], side="left").clip(0, len(ts) - 1)
            total[k] += float((value[mixed] * (mid[out] / mid[into] - 1)).sum())
        total -= float(_costs(t).sum())
    low, high = np.quantile(total, [0.025, 0.975]) / rule.capital
    p = (1 + int((total >= net).sum())) / (1 + draws)
    return (float(total.mean()) / rule.capital, float(low), float(high)), p


def judge_all(columns: list[bytes], tried: int, seed: int, draws: int) -> Iterator[dict[str, Any]]:
    """The verdict on trials' returns, an array_send of each; tried: how many were tried in all."""
    matrix = np.stack([sent_floats(c) for c in columns], axis=1)
    best, statistic, p = judge.reality_check(matrix, seed, draws)
    found: dict[str, Any] = {"place": best + 1, "statistic": _null(statistic), "p_value": _null(p)}
    ratios = np.array([judge.sharpe(matrix[:, k]) for k in range(matrix.shape[1])])
    ratios = ratios[np.isfinite(ratios)]
    variance = float(ratios.var(ddof=1)) if len(ratios) > 1 else 0.0
    found["deflated"] = (
        _null(judge.deflated_sharpe(matrix[:, best], variance, max(tried, 1)))
        if best >= 0
        else None
    )
    found["overfitting"] = _null(judge.overfitting(matrix))
    return iter([found])


def deflate(returns: bytes | None, variance: float | None, trials: int | None) -> float | None:
    """The deflated Sharpe ratio of an array_send; null where it cannot be told."""
    values = sent_floats(returns)
    if variance is None or not 0 <= variance < math.inf or trials is None or trials < 1:
        return None
    if not np.isfinite(values).all():
        return None
    return _null(judge.deflated_sharpe(values, variance, trials))
