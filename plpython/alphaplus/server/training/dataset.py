"""Training sets: vectors as known at each time beside what happened after, and their folds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from alphaplus.server import errors
from alphaplus.server.database import EPOCH, Database, micros, moments
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.store import blocks
from alphaplus.server.training import labels, out_of_fold, row_filters
from alphaplus.server.training.labels.triple_barrier import TripleBarrier
from alphaplus.server.types import Floats, Times


def _label(plpy: Any, kind: str, horizon: int, params: str | None) -> labels.Label:
    """The label; refuses (AP307) an unknown kind or parameter."""
    try:
        return labels.of(kind, horizon, params)
    except labels.LabelError as error:
        plpy.error(
            str(error),
            sqlstate="AP307",
            hint="select * from ml.label_kinds",
        )
        raise


def _targets(
    label: labels.Label, db: Database, symbol: str, grid: Times, step: int, as_of: int
) -> labels.Targets:
    """The label at grid times; refuses (AP221) what the data cannot give."""
    try:
        return label.targets(db, symbol, grid, step, as_of)
    except labels.LabelError as error:
        db.plpy.error(
            str(error),
            sqlstate="AP221",
            hint="Load finer bars, or choose a horizon that is a multiple of the grid.",
        )
        raise


def _grid(db: Database, symbol: str, label: labels.Label, start: int, end: int, step: int) -> Times:
    """The grid times in [start, end), less those of a long span whose interval ended before the
    symbol's data begin, where the label is one of its own market data."""
    if end - start > 10_000 * step and label.kind not in ("select", "text"):
        query = "select market._first($1) as at"
        first = db.execute(query, ("text",), [symbol])[0]["at"]
        start = end if first is None else max(start, first - EPOCH - label.horizon)
    return blocks.grid(start, end, step)


def label_rows(
    plpy: Any,
    cache: dict[str, Any],
    kind: str,
    horizon: int,
    params: str | None,
    symbol: str,
    step: int,
    start: int,
    end: int,
    as_of: int,
) -> Iterator[tuple[int, int, float]]:
    """``(time, label end, target)`` for grid times in [start, end), of labels known by as_of."""
    begin, stop, known_by = moments(plpy, start, end, as_of)
    label = _label(plpy, kind, horizon, params)
    db = Database.of(plpy, cache)
    grid = _grid(db, symbol, label, begin, min(stop, known_by), step)
    target, ends = _targets(label, db, symbol, grid, step, known_by)
    known = np.isfinite(target)
    times, until = micros(*grid[known].tolist()), micros(*ends[known].tolist())
    return zip(times, until, target[known].tolist(), strict=True)


def label_kinds() -> list[dict[str, Any]]:
    """``ml._label_kinds``."""
    return labels.catalogue()


def declared(
    plpy: Any, cache: dict[str, Any], kind: str, horizon: int | None, params: str | None
) -> tuple[str, str, str]:
    """``ml._label_declared``: task, parameters as they are to be stored, and the kind in words.

    Raises (SQLSTATE): AP307 unknown kind or parameter, or a value out of its range; AP222 a SELECT
    that is not taken.
    """
    label = _label(plpy, kind, horizon or 0, params)
    try:
        stored = label.completed(Database.of(plpy, cache))
        # With what the database had to say the task may be another.
        task = type(label).made(label.horizon, stored).task_of
    except labels.LabelError as error:
        plpy.error(str(error), sqlstate="AP307", hint="select * from ml.label_kinds")
        raise
    return task, json.dumps(dict(stored)), label.what


def task_of(plpy: Any, kind: str, horizon: int, params: str | None) -> str:
    """``ml._label_task``: what kind of model predicts such a label (AP307)."""
    return _label(plpy, kind, horizon, params).task_of


def barriers(
    plpy: Any,
    cache: dict[str, Any],
    kind: str,
    horizon: int,
    params: str | None,
    symbol: str,
    step: int,
    start: int,
    end: int,
    as_of: int,
) -> list[tuple[int, int, str, float, float | None, float | None]]:
    """``(time, label end, hit, bps, upper, lower)`` of a label of kind triple_barrier."""
    begin, stop, known_by = moments(plpy, start, end, as_of)
    label = _label(plpy, kind, horizon, params)
    if not isinstance(label, TripleBarrier):
        plpy.error(
            f"a label of kind {kind} has no barriers",
            sqlstate="AP223",
            hint="select label from ml.labels where kind = 'triple_barrier'",
        )
    assert isinstance(label, TripleBarrier)
    grid = blocks.grid(begin, stop, step)
    if not len(grid):
        return []
    reader = MarketReader(Database.of(plpy, cache), symbol, known_by, int(grid[0]))
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            hits = label.hits(reader, grid, step, known_by)
    except labels.LabelError as error:
        plpy.error(
            str(error),
            sqlstate="AP221",
            hint="Load finer bars, or choose a horizon that is a multiple of the grid.",
        )
    words = {1.0: "up", -1.0: "down", 0.0: "time"}
    rows = []
    for i in np.flatnonzero(np.isfinite(hits.side)).tolist():
        upper, lower = (None if np.isnan(x[i]) else float(x[i]) for x in (hits.upper, hits.lower))
        side, bps = words[float(hits.side[i])], float(hits.bps[i])
        at, until = micros(int(grid[i]), int(hits.ends[i]))
        rows.append((at, until, side, bps, upper, lower))
    return rows


def base_rate(
    plpy: Any,
    cache: dict[str, Any],
    task: str,
    kind: str,
    horizon: int,
    params: str | None,
    symbol: str,
    step: int,
    as_of: int,
    window: int,
) -> float | None:
    """What a label was, on average, over the intervals that ended in the last ``window``.

    Neighbouring grid times share most of their future, so one interval is taken per horizon. Of
    classes it is (events + 1/2) / (intervals + 1), Jeffreys' estimate of a chance: a quiet week
    does not make an event impossible. None where no outcome is known by as_of, or where the kind
    of label is not computed here.
    """
    if kind not in labels.KINDS:
        return None
    label = _label(plpy, kind, horizon, params)
    (known_by,) = moments(plpy, as_of)
    stride = -(-label.horizon // step) * step
    last = (known_by - label.horizon) // step * step
    count = max(1, window // stride)
    grid = last - stride * np.arange(count, dtype=np.int64)[::-1]
    target = _targets(label, Database.of(plpy, cache), symbol, grid, step, known_by).values
    known = target[np.isfinite(target)]
    if len(known) == 0:
        return None
    if task == "classification":
        return float((known.sum() + 0.5) / (len(known) + 1))
    return float(known.mean())


def assemble(
    db: Database, spec: Any, symbol: str, start: int, end: int, as_of: int
) -> tuple[Times, Times, Floats, Floats, Times | None]:
    """Times, label ends, targets and features (n, k) of one symbol's training set, and where it is
    filtered, how many times were left out, as :func:`.row_filters.keep` counts them.

    ``spec`` is a row with kind, horizon, params, step, set_id, definition, set_kind, k, noise.
    Rows whose label is not known by as_of, or of which no feature is known, are left out, and where
    the model asks for it those that :mod:`alphaplus.server.training.row_filters` drops.
    """
    label = _label(db.plpy, spec["kind"], spec["horizon"], spec["params"])
    width = spec["step"]
    grid = _grid(db, symbol, label, start, min(end, as_of - label.horizon + width), width)
    target, ends = _targets(label, db, symbol, grid, width, as_of)
    known = np.isfinite(target)
    grid, ends, target = grid[known], ends[known], target[known]
    reader = MarketReader(db, symbol)
    features = blocks.vectors(reader, spec, grid)
    seen = np.isfinite(features).any(axis=1)
    if not seen.all():
        grid, ends, target, features = grid[seen], ends[seen], target[seen], features[seen]
    dropped = None
    if spec["noise"] not in (None, "false", "null"):
        kept, dropped = row_filters.keep(reader, grid, width, spec["noise"])
        grid, ends, target, features = grid[kept], ends[kept], target[kept], features[kept]
    return grid, ends, target, features, dropped


def targets(
    plpy: Any, cache: dict[str, Any], model: str, symbols: list[str], start: int, end: int,
    as_of: int,
) -> bytes:  # fmt: skip
    """What became of the grid times of a training set, without its features."""
    db = Database.of(plpy, cache)
    spec = _spec(db, model)
    label = _label(plpy, spec["kind"], spec["horizon"], spec["params"])
    begin, stop, known_by = moments(plpy, start, end, as_of)
    width = spec["step"]
    found = []
    for symbol in symbols:
        latest = known_by - label.horizon + width
        grid = _grid(db, symbol, label, begin, min(stop, latest), width)
        target, ends = _targets(label, db, symbol, grid, width, known_by)
        known = np.isfinite(target)
        found.append((grid[known] + EPOCH, ends[known] + EPOCH, target[known]))
    return out_of_fold.label_block(found)


def _spec(db: Database, model: str) -> Any:
    return db.execute("select s.* from ml._training_spec($1) s", ("text",), [model])[0]


def _all(
    db: Database,
    model: str,
    symbols: list[str],
    start: int,
    end: int,
    as_of: int,
    states: list[int] | None = None,
) -> Iterator[tuple[str, Times, Times, Floats, Floats, Times | None]]:
    ends = moments(db.plpy, start, end, as_of) if symbols else ()
    spec = _spec(db, model)
    return (
        (symbol, *_of_regime(db, symbol, assemble(db, spec, symbol, *ends), states, ends[2]))
        for symbol in symbols
    )


def _of_regime(
    db: Database,
    symbol: str,
    found: tuple[Times, Times, Floats, Floats, Times | None],
    states: list[int] | None,
    as_of: int,
) -> tuple[Times, Times, Floats, Floats, Times | None]:
    """The rows whose regime, by the hourly verdict that was known by as_of, is one of some states
    (from 0; None: all): a row whose verdict was not known is not trained on."""
    if states is None:
        return found
    from alphaplus.server.regime import truth

    grid, ends, target, features, dropped = found
    chosen = np.isin(
        truth.verdicts(db.plpy, symbol, truth.HOUR, grid + truth.EPOCH, as_of + truth.EPOCH), states
    )
    return grid[chosen], ends[chosen], target[chosen], features[chosen], dropped


def training_rows(
    plpy: Any,
    cache: dict[str, Any],
    model: str,
    symbols: list[str],
    start: int,
    end: int,
    as_of: int,
    states: list[int] | None = None,
) -> Iterator[tuple[str, int, int, list[float], float]]:
    """``(symbol, time, label end, features, target)`` by symbol and time."""
    db = Database.of(plpy, cache)
    found = _all(db, model, symbols, start, end, as_of, states)
    return errors.rows(cache, _rows(found), 5, time=1)


def _rows(found: Iterable[Any]) -> Iterator[tuple[str, int, int, list[float], float]]:
    for symbol, grid, ends, target, features, _ in found:
        columns = micros(*grid.tolist()), micros(*ends.tolist())
        for row in zip(*columns, features.tolist(), target.tolist(), strict=True):
            yield symbol, *row


class Table(NamedTuple):
    """A training set by time, then symbol.

    Attributes:
        ts, label_end: (n,) int64, microseconds since 1970.
        target: (n,) float64.
        symbols: (n,) int32, from 1, the number of each row's symbol.
        features: (n, k) float64.
        dropped: (6,) int64, rows that noise filtering left out, by reason and in all; none where
            the model does not ask for it.
    """

    ts: Times
    label_end: Times
    target: Floats
    symbols: npt.NDArray[np.int32]
    features: Floats
    dropped: Times

    def sha256(self) -> bytes:
        """Of ts, label_end, target and the features row by row, little-endian."""
        digest = hashlib.sha256()
        for array in (self.ts, self.label_end, self.target, self.features):
            digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
        return digest.digest()


def training_table(
    db: Database,
    model: str,
    symbols: list[str],
    start: int,
    end: int,
    as_of: int,
    states: list[int] | None = None,
) -> Table:
    """The training set of some symbols (none: no rows)."""
    found = list(_all(db, model, symbols, start, end, as_of, states))
    parts = [part[1:5] for part in found]
    counts = [part[5] for part in found if part[5] is not None]
    dropped = np.sum(counts, axis=0) if counts else np.zeros(0, dtype=np.int64)
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
        k = _spec(db, model)["k"]
        grid, ends = np.zeros((2, 0), dtype=np.int64)
        target, features = np.zeros(0), np.zeros((0, k))
    return Table(grid + EPOCH, ends + EPOCH, target, numbers, features, dropped)


def training_matrix(plpy: Any, cache: dict[str, Any], *which: Any) -> dict[str, Any]:
    """:func:`training_table` by columns of big-endian numbers, with its SHA-256."""
    table = training_table(Database.of(plpy, cache), *which)
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
    (int64), then its arrays one after the other, the features row by row, last what was dropped."""
    table = training_table(Database.of(plpy, cache), *which)
    shape = np.array(table.features.shape, dtype=np.int64)
    return b"".join(a.astype(a.dtype.newbyteorder("<"), copy=False).data for a in (shape, *table))


MOST_FOLDS = 1000  # of one training set


def folds(
    plpy: Any, times: bytes, ends: bytes, count: int, min_train: float = 0.4
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
    if count > MOST_FOLDS:
        what = f"a training set in {count} folds"
        plpy.error(
            f"{what} is more than one call gives",
            sqlstate="AP726",
            hint=f"Ask for {MOST_FOLDS} folds or fewer; five are usual.",
        )
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
