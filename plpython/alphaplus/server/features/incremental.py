"""Runs of TA-Lib carried on from bar to bar.

At the live edge the same stretch of bars is asked for again and again, a bar longer each time. A
function of TA-Lib can be held open (``talib.stream``) and given one more bar; what it then says is
bit-identical to a run over all bars. :class:`Run` keeps the functions of one stretch open, beside
the very bars that they have seen: it goes on from there only where those are still the first of the
bars asked for, and begins anew wherever one of them is another, missing or too many. So a run never
says what the bars alone do not say.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Channels = dict[str, Floats]
# compute(channels, before, ta): the last bar's row, (1, outputs), of bars that ``before`` others
# precede, which only the functions of ``ta`` have seen.
Compute = Callable[[Channels, int, Any], Floats]

LIMIT = 256  # runs a backend keeps, a tenth of a megabyte each; a set has one a length of bars
TAIL = 32  # bars, the last among them, that a calculation may look at by itself
FEW = 2 * TAIL  # of fewer bars nothing is carried on
MOST = 4  # bars that are given one by one; for more of them a run over all is as fast


class Memory:
    """A backend's runs, least recently used out first."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._runs: OrderedDict[Hashable, Run] = OrderedDict()

    def run(self, *key: Hashable) -> Run:
        """The run of a key; a new one where there is none."""
        run = self._runs.pop(key, None) or Run()
        self._runs[key] = run
        if len(self._runs) > self.limit:
            self._runs.popitem(last=False)
        return run


class Run:
    """What one calculation said of the newest bars that it was asked for, to be carried on."""

    def __init__(self) -> None:
        self.seen: Floats | None = None  # (channels, bars)
        self.said: Floats = np.empty((0, 0))
        self.open: _Open | None = None

    def last(self, channels: Channels, compute: Compute, talib: Any) -> Floats:
        """The last bar's row, (1, outputs)."""
        bars = np.stack(list(channels.values()))
        count, before = bars.shape[1], 0 if self.seen is None else self.seen.shape[1]
        both = min(count, before)
        same = self.seen is not None and bool((bars[:, :both] == self.seen[:, :both]).all())
        if same and count == before:
            return self.said
        said = None
        if same and count > before:
            said = self._carried_on(channels, before, count, compute)
        if said is None:
            said = compute(channels, 0, talib)
            if same and count < before:
                return said  # of an earlier time: what is kept is of a later one
            self.open = None
        self.seen, self.said = bars, said
        return said

    def _carried_on(
        self, channels: Channels, before: int, count: int, compute: Compute
    ) -> Floats | None:
        """None where TA-Lib holds nothing open: too few bars, or numbers that are none."""
        if count < FEW:
            return None
        said = None
        try:
            if self.open is None or count - before > MOST:
                self.open = _Open()
                return compute(channels, 0, self.open)
            for stop in range(before + 1, count + 1):
                tail = {name: x[stop - TAIL : stop] for name, x in channels.items()}
                self.open.at = 0
                said = compute(tail, stop - TAIL, self.open)
        except Exception:  # what TA-Lib raises
            return None
        return said


class _Open:
    """Stands in for TA-Lib: its functions held open, the k-th call of a run going on where that of
    the run before stood. They give as many values as they are given bars, up to the last."""

    def __init__(self) -> None:
        self.at = 0
        self.calls: list[_Call] = []

    def __getattr__(self, function: str) -> Callable[..., Any]:
        from talib import stream

        def called(*arguments: Any) -> Any:
            at = self.at
            self.at = at + 1
            if at < len(self.calls):
                return self.calls[at].step(arguments)
            inputs = sum(isinstance(argument, np.ndarray) for argument in arguments)
            handle, filled = getattr(stream, function).open_and_fill(*arguments)
            self.calls.append(_Call(handle, filled, inputs))
            return filled

        setattr(self, function, called)
        return called


class _Call:
    """One call of one function: its handle, and its newest values."""

    __slots__ = ("end", "inputs", "single", "update", "values")

    def __init__(self, handle: Any, filled: Any, inputs: int) -> None:
        self.inputs, self.update = inputs, handle.update
        self.single = not isinstance(filled, tuple)
        outputs = (filled,) if self.single else filled
        # Room for some bars more: where it ends, the newest values move to its beginning.
        self.values = [np.resize(x[-TAIL:], 2 * TAIL) for x in outputs]
        self.end = TAIL

    def step(self, arguments: tuple[Any, ...]) -> Any:
        """The values of the last bars, given the same arguments a bar later."""
        found = self.update(*[values[-1] for values in arguments[: self.inputs]])
        end = self.end
        if end == 2 * TAIL:
            for values in self.values:
                values[:TAIL] = values[-TAIL:]
            end = TAIL
        self.end = stop = end + 1
        start = stop - len(arguments[0])
        if self.single:
            values = self.values[0]
            values[end] = found
            return values[start:stop]
        for values, value in zip(self.values, found, strict=True):
            values[end] = value
        return tuple([values[start:stop] for values in self.values])
