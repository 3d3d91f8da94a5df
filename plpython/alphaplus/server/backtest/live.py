"""A strategy as it comes about: event by event, with nothing but what is known so far.

The same rules as :mod:`simulate`, which looks at a whole stretch at once; here nothing of what
comes later is there to be looked at. A back-test over the same time must do the same trades.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from alphaplus.server.backtest import service
from alphaplus.server.backtest.simulate import Bars, Ints, Rows, Rule, Symbol, priced
from alphaplus.server.codec import sent_floats, sent_integers
from alphaplus.server.database import Database

REASONS = ("prediction", "held")


@dataclass(frozen=True)
class Fill:
    """A row that an order met."""

    ts: int
    known: int
    buy: float
    sell: float


@dataclass(frozen=True)
class Closed:
    """A trade that is over: what was decided, and the rows it met."""

    side: float
    prediction: float
    decided: int
    entry: Fill
    exit_decided: int
    exit: Fill
    reason: int


class Position:
    """Where a strategy stands in one instrument."""

    def __init__(self, state: dict[str, Any] | None) -> None:
        state = state or {}
        self.free: int = state.get("free", -(2**62))
        self.queue: list[tuple[int, float]] = [(k, v) for k, v in state.get("queue", [])]
        entry = state.get("entry")
        self.entry: Fill | None = Fill(*entry) if entry else None
        self.decided: int = state.get("decided", 0)
        self.prediction: float = state.get("prediction", 0.0)
        self.side: float = state.get("side", 0.0)

    def state(self) -> dict[str, Any]:
        """For the next time."""
        entry = self.entry
        return {
            "free": self.free, "queue": self.queue, "decided": self.decided, "side": self.side,
            "prediction": self.prediction,
            "entry": [entry.ts, entry.known, entry.buy, entry.sell] if entry else None,
        }  # fmt: skip

    def oldest(self, rule: Rule, now: int) -> int:
        """No order that is still to be filled can fill at a row of this time or before."""
        times = [now, *(known for known, _ in self.queue[:1])]
        if self.entry is not None:
            times.append(self.entry.ts)
        return min(times) - 1

    def advance(self, rule: Rule, rows: Rows, now: int) -> list[Closed]:
        """Act on all that is known before ``now``: the queue, and rows after :meth:`oldest`."""
        closed: list[Closed] = []
        while True:
            if self.entry is None and not self._enter(rule, rows):
                return closed
            trade = self._leave(rule, rows, now)
            if trade is None:
                return closed
            closed.append(trade)

    def _enter(self, rule: Rule, rows: Rows) -> bool:
        while self.queue:
            known, value = self.queue[0]
            side = 1.0 if value >= rule.enter_long else -1.0 if value <= rule.enter_short else 0.0
            if known <= self.free or not side:
                self.queue.pop(0)
                continue
            fill = _first(rows, known + rule.latency)
            if fill is None:
                return False
            self.queue.pop(0)
            if fill.ts <= known + rule.latency + rule.max_wait:
                self.entry, self.decided = fill, known
                self.side, self.prediction = side, value
                return True
        return False

    def _leave(self, rule: Rule, rows: Rows, now: int) -> Closed | None:
        entry = self.entry
        assert entry is not None
        over = entry.ts + rule.hold if rule.hold else None
        # What says nothing while the position is open is of no use later: the exit comes after it.
        while self.queue:
            known, value = self.queue[0]
            inside = over is None or known <= over
            if known > entry.known and (self._says_so(rule, value) or not inside):
                break
            self.queue.pop(0)
        if self.queue and (over is None or self.queue[0][0] <= over):
            decided, reason = self.queue[0][0], 0
        elif over is not None and over < now:
            decided, reason = max(over, entry.known), 1
        else:
            return None
        if decided >= now:
            return None
        fill = _first(rows, decided + rule.latency)
        if fill is None:
            return None
        self.entry, self.free = None, fill.known
        return Closed(self.side, self.prediction, self.decided, entry, decided, fill, reason)

    def _says_so(self, rule: Rule, value: float) -> bool:
        return value < rule.exit_long if self.side > 0 else value > rule.exit_short


def _first(rows: Rows, time: int) -> Fill | None:
    """Of the rows that happened after a time the one that became known first."""
    start = int(np.searchsorted(rows.ts, time, side="right"))
    if start >= len(rows.ts):
        return None
    place = start + int(np.argmin(rows.known[start:]))
    return _fill(rows, place)


def _fill(rows: Rows, place: int) -> Fill:
    return Fill(
        int(rows.ts[place]), int(rows.known[place]), float(rows.buy[place]), float(rows.sell[place])
    )


def _rows(db: Database, symbol: str, fill: str, start: int, stop: int, as_of: int) -> Rows:
    row = db.execute(
        "select * from backtest._rows_packed($1, $2, $3, $4, $5)",
        ["text", "text", "int8", "int8", "int8"],
        [symbol, fill, start, stop, as_of],
    )[0]
    return Rows(
        sent_integers(row["ts"]), sent_integers(row["known"]), sent_floats(row["buy"]),
        sent_floats(row["sell"]),
    )  # fmt: skip


def step(plpy: Any, cache: dict[str, Any], text: str) -> Iterator[dict[str, Any]]:
    """One instrument of a strategy from ``through`` to ``now``: its state, and what was closed."""
    spec = json.loads(text)
    db = Database.of(plpy, cache)
    rule = service.rule_of(spec["rule"])
    symbol, now = spec["symbol"], spec["now"]
    position = Position(spec["state"])
    said = db.execute(
        "select * from backtest._predictions_packed($1, $2, $3, $4, $5, $6)",
        ["text", "text", "text", "int8", "int8", "int8"],
        [spec["model"], symbol, spec["source"], spec["through"], now, now],
    )[0]
    known, value = sent_integers(said["known"]), sent_floats(said["value"])
    position.queue += list(zip(known.tolist(), value.tolist(), strict=True))
    rows = _rows(db, symbol, spec["fill"], position.oldest(rule, now), now, now)
    closed = position.advance(rule, rows, now)
    trades = [_trade(db, spec, rule, trade) for trade in closed]
    names = (
        "decided", "side", "prediction", "entered", "entry_price", "exit_decided", "exited",
        "exit_price", "reason", "quantity", "gross", "fees", "spread", "impact", "funding", "net",
    )  # fmt: skip
    yield {
        "state": json.dumps(position.state()),
        **{name: [trade[name] for trade in trades] for name in names},
    }


def _trade(db: Database, spec: dict[str, Any], rule: Rule, t: Closed) -> dict[str, Any]:
    """A closed trade with what it cost, by what was known when it was closed."""
    symbol, known = spec["symbol"], t.exit.known
    times = ["int8", "int8", "int8"]
    rows = _rows(db, symbol, spec["fill"], min(t.entry.ts, spec["since"]), t.exit.ts, known)
    b = db.execute(
        "select * from backtest._bars_packed($1, $2, $3, $4)",
        ["text", *times],
        [symbol, spec["since"], known, known],
    )[0]
    f = db.execute(
        "select * from backtest._funding_packed($1, $2, $3, $4)",
        ["text", *times],
        [symbol, t.entry.ts, t.exit.ts, known],
    )[0]
    funding = sent_integers(f["ts"]), sent_floats(f["rate"])
    if not spec["funding"]:
        funding = np.zeros(0, np.int64), np.zeros(0)
    width = int(b["width"] or 60_000_000)
    bars = Bars(
        sent_integers(b["usable"]), sent_floats(b["close"]), sent_floats(b["volume"]), width
    )
    said: Ints = np.array([t.decided], np.int64)
    one = Symbol(said, np.array([t.prediction]), rows, bars, *funding)
    place = [_place(rows, t.entry), _place(rows, t.exit)]
    columns = [(t.side, 0, place[0], t.exit_decided, place[1], t.reason)]
    cost = priced(one, rule, columns, 0)
    into, out = float(rows.mid[place[0]]), float(rows.mid[place[1]])
    quantity = float(cost.quantity[0])
    gross = t.side * quantity * (out - into)
    fees = float(cost.fees_in[0] + cost.fees_out[0])
    spread = float(cost.spread_in[0] + cost.spread_out[0])
    impact = float(cost.impact_in[0] + cost.impact_out[0])
    paid = float(cost.funding[0])
    return {
        "decided": t.decided, "side": int(t.side), "prediction": t.prediction,
        "entered": t.entry.ts, "entry_price": into, "exit_decided": t.exit_decided,
        "exited": t.exit.ts, "exit_price": out, "reason": REASONS[t.reason],
        "quantity": quantity, "gross": gross, "fees": fees, "spread": spread, "impact": impact,
        "funding": paid, "net": gross - fees - spread - impact - paid,
    }  # fmt: skip


def _place(rows: Rows, fill: Fill) -> int:
    """Where a row stands among others."""
    same = (rows.ts == fill.ts) & (rows.known == fill.known)
    same &= (rows.buy == fill.buy) & (rows.sell == fill.sell)
    return int(np.flatnonzero(same)[0])
