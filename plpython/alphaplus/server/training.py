"""Training sets: vectors as known at each time beside what happened after, and their folds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from alphaplus.server import arrays, families, labels, noise
from alphaplus.server import windows as w

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
READ_BYTES = 96 << 20  # of stored vectors, at once


def label_rows(
    plpy: Any,
    cache: dict[str, Any],
    kind: str,
    horizon: float,
    params: str | None,
    symbol: str,
    step: float,
    start: float,
    end: float,
    as_of: float,
) -> Iterator[tuple[float, float]]:
    """``(seconds, target)`` for grid times in [start, end) whose label is known by as_of."""
    label = labels.Label.of(kind, horizon, params)
    width = round(step * w.SECOND)
    grid = _grid(start, end, width)
    target = labels.values(plpy, cache, label, symbol, grid, width, round(as_of * w.SECOND))
    known = np.isfinite(target)
    yield from zip((grid[known] / w.SECOND).tolist(), target[known].tolist(), strict=True)


def base_rate(
    plpy: Any,
    cache: dict[str, Any],
    task: str,
    kind: str,
    horizon: float,
    params: str | None,
    symbol: str,
    step: float,
    as_of: float,
    window: float,
) -> float | None:
    """What a label was, on average, over the intervals that ended in the last ``window`` seconds.

    Neighbouring grid times share most of their future, so one interval is taken per horizon. Of
    classes it is (events + 1/2) / (intervals + 1), Jeffreys' estimate of a chance: a quiet week
    does not make an event impossible. None where no outcome is known by as_of.
    """
    label = labels.Label.of(kind, horizon, params)
    width = round(step * w.SECOND)
    stride = -(-label.horizon // width) * width
    last = (round(as_of * w.SECOND) - label.horizon) // width * width
    count = max(1, round(window * w.SECOND) // stride)
    grid = last - stride * np.arange(count, dtype=np.int64)[::-1]
    target = labels.values(plpy, cache, label, symbol, grid, width, round(as_of * w.SECOND))
    known = target[np.isfinite(target)]
    if len(known) == 0:
        return None
    if task == "classification":
        return float((known.sum() + 0.5) / (len(known) + 1))
    return float(known.mean())


def _grid(start: float, end: float, width: int) -> Times:
    first = -(-round(start * w.SECOND) // width) * width
    return np.arange(first, round(end * w.SECOND), width, dtype=np.int64)


def assemble(
    plpy: Any, cache: dict[str, Any], spec: Any, symbol: str, start: float, end: float, as_of: float
) -> tuple[Times, Times, Floats, Floats]:
    """Times, label ends, targets and features (n, k) of one symbol's training set.

    ``spec`` is a row with kind, horizon, params, step, set_id, definition, set_kind, k, noise.
    Rows whose label is not known by as_of, or of which no feature is known, are left out, and where
    the model asks for it those that :mod:`alphaplus.server.noise` drops.
    """
    label = labels.Label.of(spec["kind"], spec["horizon"], spec["params"])
    width = round(spec["step"] * w.SECOND)
    stop = min(end, as_of - spec["horizon"] + spec["step"])
    grid = _grid(start, stop, width)
    target = labels.values(plpy, cache, label, symbol, grid, width, round(as_of * w.SECOND))
    known = np.isfinite(target)
    grid, target = grid[known], target[known]
    features = vectors(plpy, cache, spec, symbol, grid)
    seen = np.isfinite(features).any(axis=1)
    if not seen.all():
        grid, target, features = grid[seen], target[seen], features[seen]
    if spec["noise"] not in (None, "false", "null"):
        kept = noise.keep(plpy, cache, symbol, grid, width, spec["noise"])
        grid, target, features = grid[kept], target[kept], features[kept]
    return grid, grid + label.horizon, target, features


# In no order: sorting the few that need it here takes a tenth of the time.
_STORED = (
    "select {symbol} array_send(array_agg(v.ts)) as ts,"
    " string_agg(array_send(v.values), ''::bytea) as vectors"
    " from feature.vectors v where v.set_id = $1 and v.symbol = {which}"
    " and v.ts between to_timestamp($3) and to_timestamp($4) and not exists"
    " (select from feature.pending p where p.set_id = v.set_id and p.symbol = v.symbol"
    " and v.ts between p.ts_from and p.ts_to)"
)


def vectors(
    plpy: Any, cache: dict[str, Any], spec: Any, symbol: str, grid: Times, stored_row: Any = None
) -> Floats:
    """The set's vectors at the grid times: those stored, and the rest computed.

    ``stored_row``: what was read of the store already (ts, vectors), or None.
    """
    k = spec["k"]
    most = max(1, READ_BYTES // (12 * k + 28))
    out: Floats = np.empty((len(grid), k))
    if stored_row is not None or len(grid) <= most:
        _fill(plpy, cache, spec, symbol, grid, stored_row, out)
        return out
    for at in range(0, len(grid), most):
        part = slice(at, at + most)
        _fill(plpy, cache, spec, symbol, grid[part], None, out[part])
    return out


def _fill(
    plpy: Any, cache: dict[str, Any], spec: Any, symbol: str, grid: Times, row: Any, out: Floats
) -> None:
    if len(grid) == 0:
        return
    found = np.zeros(len(grid), dtype=bool)
    if row is None:
        plan = plpy.prepare(
            _STORED.format(symbol="", which="$2"), ["int4", "text", "float8", "float8"]
        )
        row = plpy.execute(plan, [spec["set_id"], symbol, *_ends(grid)])[0]
    stored = np.zeros(0, dtype=np.int64)
    if row["ts"] is not None:
        stored = arrays.elements(row["ts"], ">i8").astype(np.int64)
        values = arrays.rows(row["vectors"], spec["k"])
        if (np.diff(stored) < 0).any():
            order = np.argsort(stored)
            stored, values = stored[order], values[order]
        position = np.searchsorted(stored, grid)
        position = np.minimum(position, len(stored) - 1)
        found = stored[position] == grid
        if found.all() and position[-1] - position[0] == len(grid) - 1:
            out[:] = values[position[0] : position[-1] + 1]
        else:
            out[found] = values[position[found]]
            out[~found] = np.nan
    else:
        out[:] = np.nan
    # Stored rows are only those of which something was known; what lies between two of them and is
    # not there has nothing known.
    missing = ~found
    if len(stored) and not _pending(plpy, spec["set_id"], symbol):
        missing &= (grid < stored[0]) | (grid > stored[-1])
    if missing.any():
        family = families.find(plpy, cache, spec["definition"])
        out[missing] = families.matrix(plpy, cache, family, symbol, grid[missing])


def _ends(grid: Times) -> list[float]:
    return [int(t) / w.SECOND + families._EPOCH for t in (grid[0], grid[-1])]


def _pending(plpy: Any, set_id: int, symbol: str) -> bool:
    plan = plpy.prepare(
        "select exists (select from feature.pending where set_id = $1 and symbol = $2) as some",
        ["int4", "text"],
    )
    return bool(plpy.execute(plan, [set_id, symbol])[0]["some"])


def _spec(plpy: Any, model: str) -> Any:
    plan = plpy.prepare("select * from ml._training_spec($1)", ["text"])
    return plpy.execute(plan, [model])[0]


def _all(
    plpy: Any,
    cache: dict[str, Any],
    model: str,
    symbols: list[str],
    ends: tuple[float, float, float],
) -> Iterator[tuple[str, Times, Times, Floats, Floats]]:
    spec = _spec(plpy, model)
    for symbol in symbols:
        yield symbol, *assemble(plpy, cache, spec, symbol, *ends)


def training_rows(
    plpy: Any,
    cache: dict[str, Any],
    model: str,
    symbols: list[str],
    start: float,
    end: float,
    as_of: float,
) -> Iterator[tuple[str, float, float, list[float], float]]:
    """``(symbol, seconds, label end, features, target)`` by symbol and time."""
    for symbol, grid, ends, target, features in _all(
        plpy, cache, model, symbols, (start, end, as_of)
    ):
        columns = (grid / w.SECOND).tolist(), (ends / w.SECOND).tolist()
        for row in zip(*columns, features.tolist(), target.tolist(), strict=True):
            yield symbol, *row


class Table(NamedTuple):
    """A training set by time, then symbol.

    Attributes:
        ts, label_end: (n,) int64, microseconds since 1970.
        target: (n,) float64.
        symbols: (n,) int32, from 1, the number of each row's symbol.
        features: (n, k) float64.
    """

    ts: Times
    label_end: Times
    target: Floats
    symbols: npt.NDArray[np.int32]
    features: Floats

    def sha256(self) -> bytes:
        """Of ts, label_end, target and the features row by row, little-endian."""
        digest = hashlib.sha256()
        for array in (self.ts, self.label_end, self.target, self.features):
            digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
        return digest.digest()


def training_table(
    plpy: Any,
    cache: dict[str, Any],
    model: str,
    symbols: list[str],
    start: float,
    end: float,
    as_of: float,
) -> Table:
    """The training set of some symbols (none: no rows)."""
    parts = [part[1:] for part in _all(plpy, cache, model, symbols, (start, end, as_of))]
    lengths = [len(part[0]) for part in parts]
    numbers = np.repeat(np.arange(1, len(parts) + 1, dtype=np.int32), lengths)
    if len(parts) == 1:
        grid, ends, target, features = parts[0]
    elif parts:
        order = np.argsort(np.concatenate([part[0] for part in parts]), kind="stable")
        grid, ends, target, features = (
            np.concatenate(some)[order] for some in zip(*parts, strict=True)
        )
        numbers = numbers[order]
    else:
        k = _spec(plpy, model)["k"]
        grid, ends = np.zeros((2, 0), dtype=np.int64)
        target, features = np.zeros(0), np.zeros((0, k))
    # PostgreSQL's users count from 1970
    epoch = families._EPOCH * w.SECOND
    return Table(grid + epoch, ends + epoch, target, numbers, features)


def training_matrix(plpy: Any, cache: dict[str, Any], *which: Any) -> dict[str, Any]:
    """:func:`training_table` by columns of big-endian numbers, with its SHA-256."""
    table = training_table(plpy, cache, *which)
    return {
        "n": len(table.ts),
        "ts": table.ts.astype(">i8").tobytes(),
        "label_end": table.label_end.astype(">i8").tobytes(),
        "target": table.target.astype(">f8").tobytes(),
        "columns": [column.astype(">f8").tobytes() for column in table.features.T],
        "sha256": table.sha256(),
        "symbols": table.symbols.astype(">i4").tobytes(),
    }


def training_block(plpy: Any, cache: dict[str, Any], *which: Any) -> bytes:
    """:func:`training_table` as it lies in memory, little-endian: the numbers of rows and features
    (int64), then its arrays one after the other, the features row by row."""
    table = training_table(plpy, cache, *which)
    shape = np.array(table.features.shape, dtype=np.int64)
    return b"".join(a.astype(a.dtype.newbyteorder("<"), copy=False).data for a in (shape, *table))


def folds(
    times: bytes, ends: bytes, count: int, min_train: float = 0.4
) -> list[tuple[int, int, int, int, int]]:
    """Walk-forward folds over rows ordered by time, purged and embargoed by the labels.

    The last ``1 - min_train`` of the span is cut into ``count`` test stretches. A fold trains on
    the rows whose label interval [t, end] had ended before its first test time, so no training
    interval meets the span from the first test time to the last test label's end; training lies
    wholly before the test, so nothing after it needs an embargo.

    Returns:
        ``(fold, train_from, train_to, test_from, test_to)``: microseconds since 1970; a row belongs
        to training when train_from <= t and its label end <= train_to, to the test when
        test_from <= t < test_to.

    Source: Lopez de Prado (2018), Advances in Financial Machine Learning, ch. 7.
    """
    t = np.frombuffer(times, dtype=">i8").astype(np.int64)
    end = np.frombuffer(ends, dtype=">i8").astype(np.int64)
    if len(t) == 0:
        return []
    cuts = np.linspace(int(len(t) * min_train), len(t), count + 1).astype(int)
    out: list[tuple[int, int, int, int, int]] = []
    for fold in range(count):
        low, high = cuts[fold], cuts[fold + 1]
        if high <= low:
            continue
        test_from = int(t[low])
        test_to = int(t[high]) if high < len(t) else int(t[-1]) + 1
        # ends before the first test time, not at it
        if not (end < test_from).any() or test_to <= test_from:
            continue
        out.append((len(out) + 1, int(t[0]), test_from - 1, test_from, test_to))
    return out


def columns(
    plpy: Any, cache: dict[str, Any], text: str, symbols: list[str], span: tuple[float, float]
) -> Iterator[tuple[str, int, bytes, list[bytes]]]:
    """``(symbol, rows, times, columns)`` of a feature set at the grid times of span at which
    anything is known, each as known then; big-endian, times in microseconds since 2000.

    ``text`` is JSON with set_id, definition, set_kind, k, step.
    """
    spec = json.loads(text)
    width = round(spec["step"] * w.SECOND)
    grid_all = _grid(span[0], span[1], width)
    nothing = {"ts": None, "vectors": None}
    cache.setdefault("alphaplus.plans", {})
    local = dict(cache)
    # Many symbols are read at once: a query over years of chunks is mostly planning.
    batch = max(1, min(200, READ_BYTES // (len(grid_all) * (12 * spec["k"] + 28) + 1)))
    for begin in range(0, len(symbols) if len(grid_all) else 0, batch):
        some = symbols[begin : begin + batch]
        plan = plpy.prepare(
            _STORED.format(symbol="v.symbol,", which="any ($2)") + " group by v.symbol",
            ["int4", "text[]", "float8", "float8"],
        )
        read = plpy.execute(plan, [spec["set_id"], some, *_ends(grid_all)])
        stored = {row["symbol"]: row for row in read}
        del read
        bare = [symbol for symbol in some if symbol not in stored]
        families.prefetch(plpy, local, spec["definition"], bare, grid_all)
        for symbol in some:
            row = stored.pop(symbol, nothing)
            values = vectors(plpy, local, spec, symbol, grid_all, row)
            seen = np.isfinite(values).any(axis=1)
            grid, values = grid_all[seen], values[seen]
            turned = values.T.astype(">f8")
            yield symbol, len(grid), grid.astype(">i8").tobytes(), [x.tobytes() for x in turned]
