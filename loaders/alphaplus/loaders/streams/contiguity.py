"""Whether messages follow one another: holes are found, waited for, and filled.

A message carries the numbers ``first`` to ``last`` and follows ``before``. One that does not follow
is held for a while, as the missing one may only be late; when it does not come, a hole is declared
and the stream goes on after it. What comes later fills the hole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

HELD_MESSAGES = 64
HELD_MICROS = 1_000_000


@dataclass
class Hole:
    """A hole of one stream. ids are inclusive; ts are microseconds of the exchange's clock."""

    from_id: int | None
    to_id: int | None
    from_ts: int
    to_ts: int | None
    how: str = "sequence"
    missing: list[tuple[int, int]] = field(default_factory=list)
    rows: int = 0
    ended: int | None = None  # microseconds of our clock at which the stream was whole again
    repaired: int | None = None
    wait: bool = False  # REST is asked for all that has been since

    def state(self) -> list[Any]:
        """As :meth:`of` takes it."""
        out = [self.from_id, self.to_id, self.from_ts, self.to_ts, self.how, self.missing]
        return [*out, self.rows, self.ended, self.repaired, self.wait]

    @classmethod
    def of(cls, state: list[Any]) -> Hole:
        """From :meth:`state`."""
        hole = cls(*state)
        hole.missing = [(a, b) for a, b in hole.missing]
        return hole

    def fill(self, first: int, last: int, now: int) -> bool:
        """Numbers have come: were any of them missing?"""
        left: list[tuple[int, int]] = []
        hit = False
        for a, b in self.missing:
            if last < a or first > b:
                left.append((a, b))
                continue
            hit = True
            if a < first:
                left.append((a, first - 1))
            if b > last:
                left.append((last + 1, b))
        self.missing = left
        if hit and not left:
            self.repaired = now
        return hit


@dataclass
class Held:
    """A message that waits for the one before it."""

    first: int
    last: int
    before: int
    ts: int
    at: int
    item: Any


@dataclass
class Sequence:
    """The numbers of one stream of messages.

    consecutive: each number is there once, so that a hole is known number by number and can be
    filled; otherwise (update ids) only the messages follow one another.
    """

    consecutive: bool = True
    last: int | None = None
    last_ts: int = 0
    held: list[Held] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    found: list[Hole] = field(default_factory=list)  # new or changed since taken
    repeated: int = 0
    floor: int | None = None  # the least number that has been there

    def state(self) -> list[Any]:
        """As :meth:`of` takes it; held messages are given back by reading them again."""
        holes = [h.state() for h in self.holes]
        return [self.consecutive, self.last, self.last_ts, holes, self.floor]

    @classmethod
    def of(cls, state: list[Any]) -> Sequence:
        """From :meth:`state`."""
        return cls(
            state[0], state[1], state[2], holes=[Hole.of(h) for h in state[3]], floor=state[4]
        )

    @property
    def deadline(self) -> int:
        """When the oldest held message has waited long enough; microseconds of our clock."""
        return min((h.at for h in self.held), default=1 << 62) + HELD_MICROS

    def take(self, first: int, last: int, before: int, ts: int, now: int, item: Any) -> list[Any]:
        """A message; returns those that are in turn now (a ``None`` among them: a hole begins)."""
        if self.last is None or before == self.last or first <= self.last + 1 <= last:
            out = [item]
            self.floor = first if self.floor is None else self.floor
            self.last, self.last_ts = last, max(ts, self.last_ts)
            return out + self._in_turn() if self.held else out
        if last <= self.last:
            for hole in self.holes:
                if hole.missing and hole.fill(first, last, now):
                    hole.rows += 1
                    self._changed(hole)
                    return [item]
            if self.consecutive and self.floor is not None and last < self.floor:
                self.floor = first  # from before the first one
                return [item]
            self.repeated += 1
            return []
        if any(h.first == first and h.last == last for h in self.held):
            self.repeated += 1
            return []
        self.held.append(Held(first, last, before, ts, now, item))
        if len(self.held) > HELD_MESSAGES:
            return self.give_up(now)
        return []

    def give_up(self, now: int) -> list[Any]:
        """What is waited for will not come: a hole, and what was held after it."""
        if not self.held:
            return []
        self.held.sort(key=lambda h: (h.first, h.last))
        head = self.held.pop(0)
        assert self.last is not None
        low, high = self.last + 1, head.first - 1
        if not self.consecutive:
            low, high = self.last, max(head.before, self.last)
        hole = Hole(low, high, self.last_ts, max(head.ts, self.last_ts))
        hole.missing = [(low, high)] if self.consecutive else []
        hole.ended = now if self.consecutive else None
        self.holes.append(hole)
        self._changed(hole)
        self.last, self.last_ts = head.last, max(head.ts, self.last_ts)
        return [None, head.item, *self._in_turn()]

    def whole(self, ts: int, now: int) -> None:
        """The stream is whole again (a book's snapshot has come)."""
        for hole in self.holes:
            if hole.ended is None:
                hole.ended, hole.to_ts = now, max(ts, hole.from_ts)
                self._changed(hole)
        if not self.consecutive:
            self.holes = [h for h in self.holes if h.wait and h.repaired is None]

    def broken(self, how: str, now: int, ts: int | None = None) -> None:
        """It contradicts itself, could not be read or was down: not whole from here."""
        if any(h.ended is None for h in self.holes):
            return
        hole = Hole(None, None, self.last_ts or ts or now, None, how)
        self.holes.append(hole)
        self._changed(hole)

    def settled(self) -> None:
        """Forget holes that are filled."""
        self.holes = [
            h for h in self.holes if h.missing or h.ended is None or (h.wait and h.repaired is None)
        ]

    def _in_turn(self) -> list[Any]:
        out: list[Any] = []
        again = True
        while again and self.held:
            again = False
            for h in sorted(self.held, key=lambda h: (h.first, h.last)):
                assert self.last is not None
                if h.last <= self.last:
                    self.held.remove(h)
                    self.repeated += 1
                    again = True
                    break
                if h.before == self.last or h.first <= self.last + 1 <= h.last:
                    self.held.remove(h)
                    self.last, self.last_ts = h.last, max(h.ts, self.last_ts)
                    out.append(h.item)
                    again = True
                    break
        return out

    def _changed(self, hole: Hole) -> None:
        if not any(h is hole for h in self.found):
            self.found.append(hole)
