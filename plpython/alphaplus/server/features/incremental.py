"""Incremental TA-Lib: keeps each indicator's state and feeds it one new bar.

At the live edge the same stretch of bars is asked for again and again, a bar longer each time. A
function of TA-Lib can be held open (``talib.stream``) and given one more bar; its result is then
bit-identical to a run over all bars. :class:`Run` keeps the functions of one stretch open, and the
bars that they were given. It starts over if any earlier bar changed, so results equal a full run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from alphaplus.server.types import Floats

Channels = dict[str, Floats]
# compute(channels, before, ta): the last bar's row, (1, outputs), of bars that ``before`` others
# precede, which only the functions of ``ta`` have seen.
Compute = Callable[[Channels, int, Any], Floats]

LIMIT = 256  # runs a backend keeps, a tenth of a megabyte each; a set has one a length of bars
TAIL = 32  # bars, the last among them, that a calculation may look at by itself
FEW = 2 * TAIL  # with fewer bars no state is kept
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


BACKEND = Memory()


def keeper(symbol: str) -> Callable[[Hashable], Run]:
    """Where this backend keeps a symbol's runs of single times, by calculation."""
    return lambda which: BACKEND.run(symbol, which)


class Run:
    """The inputs and the outputs of one calculation at the newest bar that it was asked for."""

    def __init__(self) -> None:
        self.inputs: Floats | None = None  # (channels, bars)
        self.outputs: Floats = np.empty((0, 0))
        self.open: _Open | None = None

    def last(self, channels: Channels, compute: Compute, talib: Any) -> Floats:
        """The last bar's row, (1, outputs)."""
        bars = np.stack(list(channels.values()))
        count, before = bars.shape[1], 0 if self.inputs is None else self.inputs.shape[1]
        both = min(count, before)
        same = self.inputs is not None and bool((bars[:, :both] == self.inputs[:, :both]).all())
        if same and count == before:
            return self.outputs
        said = None
        if same and count > before:
            said = self._continued(channels, before, count, compute)
        if said is None:
            said = compute(channels, 0, talib)
            if same and count < before:
                return said  # of an earlier time: what is kept is of a later one
            self.open = None
        self.inputs, self.outputs = bars, said
        return said

    def _continued(
        self, channels: Channels, before: int, count: int, compute: Compute
    ) -> Floats | None:
        """None if there are too few bars or any input is NaN."""
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
