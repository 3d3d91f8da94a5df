"""Counts in bins: what the store of distributions holds, how it is kept and how windows are merged.

Times are whole microseconds since 2000-01-01 UTC, as in the store of vectors.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from alphaplus.server import codec
from alphaplus.server.database import EPOCH, Database
from alphaplus.server.store import blocks
from alphaplus.server.types import SECOND

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HOUR = 3600 * SECOND
WIDTHS = (HOUR, 24 * HOUR, 720 * HOUR)
_NAMES = {HOUR: "1 hour", 24 * HOUR: "1 day", 720 * HOUR: "30 days"}
HOURS_AT_ONCE = 240
CELLS = 1024  # of a grid over a name's edges
CROWD = 6  # edges in a cell, above which a binary search is quicker
NUMBERS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Bins:
    """A set of bins: ``edges`` (k, m) filled up with infinity; ``stride`` bins a name, the last for
    what is not known."""

    number: int
    names: list[str]
    edges: Floats
    kind: str = "features"
    set_id: int | None = None
    version_id: int | None = None
    step: int = 60 * SECOND  # of the set's grid

    @property
    def stride(self) -> int:
        """Bins of a name, that of what is not known among them."""
        return int(self.edges.shape[1]) + 2

    @cached_property
    def cells(self) -> Cells:
        """The grids by which many values find their bins."""
        return Cells.of(self.edges, self.stride)

    def places(self, values: Floats) -> npt.NDArray[np.int64]:
        """(n, k) the bin of each value of (n, k), counted through all names."""
        found = np.empty(values.shape, dtype=np.int64)
        step = max(1, NUMBERS_AT_ONCE // len(self.names))
        for at in range(0, len(values), step):
            found[at : at + step] = self.cells.places(values[at : at + step])
        return found

    def count(self, values: Floats) -> npt.NDArray[np.int64]:
        """(k, stride) counts of (n, k) values."""
        size = len(self.names) * self.stride
        counts = np.zeros(size, dtype=np.int64)
        # Few rows at once: what is counted then stays in the processor's cache.
        step = max(1, NUMBERS_AT_ONCE // len(self.names))
        for at in range(0, len(values), step):
            places = self.cells.places(values[at : at + step])
            counts += np.bincount(places.ravel(), minlength=size)
        return counts.reshape(-1, self.stride)


@dataclass(frozen=True)
class Cells:
    """A grid of cells of one width over each name's edges, so that a value finds its bin by one
    multiplication: the cell is a number that does not fall as the value rises, so that a value in
    a cell without an edge lies above the edges of lower cells and below those of higher ones. In a
    cell with edges it is compared with them. The last two cells of a name are for what lies above
    all edges and for what is not known.

    Equal to a binary search (tests/unit/drift/test_bins.py) and ten times as fast.
    """

    low: Floats  # (k,)
    scale: Floats  # (k,) cells a unit
    offset: npt.NDArray[np.int64]  # (k,) of each name's cells in the tables below
    bin: npt.NDArray[np.int64]  # through all names; of a cell with edges: -1 less the bin below
    first: npt.NDArray[np.int32]  # place in ``edges`` of a cell's first edge
    many: npt.NDArray[np.uint8]  # edges in the cell
    edges: Floats  # flat
    stride: int
    crowded: list[tuple[int, Floats]]  # names with too many edges in a cell, and their edges

    @classmethod
    def of(cls, edges: Floats, stride: int) -> Cells:
        """Of (k, m) edges that are filled up with infinity."""
        k, m = edges.shape
        inner = (edges < np.inf).sum(axis=1)
        some = np.maximum(inner - 1, 0)
        low, high = edges[:, 0], edges[np.arange(k), some]
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            scale = CELLS / (high - low)
        # One edge, or a span that is no number: all in one cell.
        plain = np.isfinite(low) & np.isfinite(scale) & (scale > 0)
        low, scale = np.where(plain, low, 0.0), np.where(plain, scale, 0.0)
        cell = _cell(edges, low[:, None], scale[:, None])
        cell[np.arange(m) >= inner[:, None]] = CELLS + 1  # of no use
        names = np.arange(k)[:, None]
        width = CELLS + 2
        number = np.bincount((names * width + cell).ravel(), minlength=k * width)
        number = number.reshape(k, width)
        number[:, CELLS + 1] = 0
        before = np.cumsum(number, axis=1) - number
        bins = before + names * stride
        crowded = np.flatnonzero(number.max(axis=1) > CROWD)
        number[crowded] = 0
        bins[:, CELLS + 1] = names[:, 0] * stride + stride - 1
        return cls(
            low,
            scale,
            np.arange(k) * width,
            np.where(number > 0, ~bins, bins).ravel(),
            (before + names * m).ravel().astype(np.int32),
            number.ravel().astype(np.uint8),
            edges.ravel(),
            stride,
            [(int(i), edges[i, : inner[i]]) for i in crowded],
        )

    def places(self, values: Floats) -> npt.NDArray[np.int64]:
        """(n, k) the bin of each value, counted through all names."""
        cells = _cell(values, self.low, self.scale)
        cells += self.offset
        found = self.bin.take(cells)
        beside = np.flatnonzero(found < 0)
        if len(beside):
            x = np.asarray(values).ravel()[beside]
            cells = cells.ravel()[beside]
            first, number = self.first.take(cells), self.many.take(cells)
            found.ravel()[beside] = ~found.ravel()[beside]
            above = np.zeros(len(beside), dtype=np.int64)
            left = np.arange(len(beside))
            step = 0
            # Edges of the cell one after the other; few values meet more than one.
            while len(left):
                left = left[x[left] > self.edges[first[left] + step]]
                above[left] += 1
                step += 1
                left = left[number[left] > step]
            found.ravel()[beside] += above
        for i, edges in self.crowded:
            column = np.ascontiguousarray(values[:, i])
            at = np.searchsorted(edges, column, side="left")
            at[np.isnan(column)] = self.stride - 1
            found[:, i] = at + i * self.stride
        return found


def _cell(values: Floats, low: Floats, scale: Floats) -> npt.NDArray[np.int64]:
    """The cell of each value, CELLS + 1 for what is not known."""
    with np.errstate(invalid="ignore", over="ignore"):
        found = np.subtract(values, low)
        found *= scale
    np.clip(found, 0, CELLS, out=found)
    # An infinite value times no cells a unit is not a number either: first cell.
    unknown = np.isnan(found)
    if unknown.any():
        found[unknown] = np.where(np.isnan(values[unknown]), CELLS + 1, 0)
    return found.astype(np.int64)


def load(plpy: Any, cache: dict[str, Any], number: int) -> Bins:
    """A set of bins, kept in this backend: it never changes."""
    kept = cache.setdefault("alphaplus.drift.bins", {})
    if number not in kept:
        plan = plpy.prepare(
            "select b.kind, b.set_id, b.version_id, b.names, array_send(b.edges) as edges,"
            " (extract(epoch from s.grid) * 1000000)::int8 as step"
            " from drift.binnings b left join feature.sets s on s.set_id = b.set_id"
            " where b.binning_id = $1",
            ["int4"],
        )
        row = plpy.execute(plan, [number])[0]
        kept[number] = Bins(
            number,
            list(row["names"]),
            matrix(row["edges"], len(row["names"])),
            row["kind"],
            row["set_id"],
            row["version_id"],
            row["step"] or 60 * SECOND,
        )
    found: Bins = kept[number]
    return found


def matrix(raw: bytes, rows: int) -> Floats:
    """(rows, m) of ``array_send`` of a two-dimensional float8[] without nulls."""
    element = np.dtype([("size", ">i4"), ("value", ">f8")])
    return (
        np.frombuffer(raw, dtype=element, offset=28)["value"].astype(np.float64).reshape(rows, -1)
    )


def padded(edges: list[Floats]) -> Floats:
    """Inner edges of several names as one array, filled up with infinity."""
    found = np.full((len(edges), max(1, *(len(e) for e in edges))), np.inf)
    for i, some in enumerate(edges):
        found[i, : len(some)] = some
    return found


def moment(micros: int) -> str:
    """A time as an SQL literal's text."""
    return (dt.datetime(2000, 1, 1) + dt.timedelta(microseconds=int(micros))).isoformat() + "Z"


def counted(
    plpy: Any, cache: dict[str, Any], bins: Bins, symbol: str, start: int, stop: int
) -> Iterator[Any]:
    """(ts, values (n, k)) pieces of what is there to count in [start, stop): stored vectors, or the
    predictions that the clock recorded and their outcomes."""
    if stop <= start:
        return
    if bins.kind == "features":
        spec = {"set_id": bins.set_id, "k": len(bins.names), "step": bins.step}
        yield from blocks.stored(Database.of(plpy, cache), spec, symbol, start, stop - 1)
        return
    column = "prediction" if bins.kind == "score" else "target"
    plan = plpy.prepare(
        "select array_send(array_agg((extract(epoch from p.ts) * 1000000)::int8)) as ts,"
        f" array_send(array_agg(p.{column})) as found from ml.shadow_predictions p"
        f" where p.version_id = $1 and p.symbol = $2 and p.ts >= $3 and p.ts < $4"
        f" and p.{column} is not null",
        ["int8", "text", "timestamptz", "timestamptz"],
    )
    row = plpy.execute(plan, [bins.version_id, symbol, moment(start), moment(stop)])[0]
    if row["ts"] is not None:
        ts = codec.elements(row["ts"], ">i8").astype(np.int64) - EPOCH
        yield ts, codec.elements(row["found"], ">f8").astype(np.float64)[:, None]


def refresh(
    plpy: Any, cache: dict[str, Any], number: int, symbol: str, start: int, stop: int
) -> int:
    """Counts the hours of [start, stop) anew (both whole hours) and merges their days and 30 days;
    how many hours."""
    bins = load(plpy, cache, number)
    k, done = len(bins.names), 0
    size = k * bins.stride
    _delete(plpy, number, symbol, HOUR, start, stop)
    for begin in range(start, stop, HOURS_AT_ONCE * HOUR):
        end = min(stop, begin + HOURS_AT_ONCE * HOUR)
        hours = (end - begin) // HOUR
        counts = np.zeros(hours * size, dtype=np.int64)
        rows = np.zeros(hours, dtype=np.int64)
        for ts, values in counted(plpy, cache, bins, symbol, begin, end):
            hour = (ts - begin) // HOUR
            places = bins.places(values) + (hour * size)[:, None]
            counts += np.bincount(places.ravel(), minlength=len(counts))
            rows += np.bincount(hour, minlength=hours)
        table = counts.reshape(hours, size)
        full = np.flatnonzero(rows)
        _write(
            plpy,
            number,
            symbol,
            HOUR,
            [begin + int(i) * HOUR for i in full],
            rows[full],
            table[full],
        )
        done += len(full)
    for width, narrow in ((WIDTHS[1], WIDTHS[0]), (WIDTHS[2], WIDTHS[1])):
        _merge_up(plpy, number, symbol, start, stop, width, narrow, size)
    return done


def _merge_up(
    plpy: Any, number: int, symbol: str, start: int, stop: int, width: int, narrow: int, size: int
) -> None:
    first, last = start // width * width, -(-stop // width) * width
    found: dict[int, tuple[int, Any]] = {}
    for ts, n, counts in _read(plpy, number, symbol, [(narrow, first, last)], size):
        at = ts // width * width
        before = found.get(at, (0, 0))
        found[at] = (before[0] + n, before[1] + counts.astype(np.int64))
    _delete(plpy, number, symbol, width, first, last)
    keys = sorted(found)
    _write(
        plpy, number, symbol, width, keys, np.array([found[t][0] for t in keys], dtype=np.int64),
        np.array([found[t][1] for t in keys]).reshape(len(keys), size),
    )  # fmt: skip


def _delete(plpy: Any, number: int, symbol: str, width: int, start: int, stop: int) -> None:
    plan = plpy.prepare(
        "delete from drift.histograms h where h.binning_id = $1 and h.symbol = $2"
        " and h.width = $3 and h.ts >= $4 and h.ts < $5",
        ["int4", "text", "interval", "timestamptz", "timestamptz"],
    )
    plpy.execute(plan, [number, symbol, _NAMES[width], moment(start), moment(stop)])


def _write(
    plpy: Any, number: int, symbol: str, width: int, starts: list[int], rows: Ints, counts: Ints
) -> None:
    if not starts:
        return
    plan = plpy.prepare(
        "insert into drift.histograms (binning_id, symbol, width, ts, n, counts)"
        " select $1, $2, $3, u.ts, u.n, u.c from unnest($4, $5, $6) as u (ts, n, c)",
        ["int4", "text", "interval", "timestamptz[]", "int4[]", "bytea[]"],
    )
    for at in range(0, len(starts), 500):
        part = slice(at, at + 500)
        plpy.execute(
            plan,
            [
                number, symbol, _NAMES[width], [moment(t) for t in starts[part]],
                rows[part].tolist(), [c.astype("<i4").tobytes() for c in counts[part]],
            ],
        )  # fmt: skip


def _read(
    plpy: Any, number: int, symbol: str, pieces: list[tuple[int, int, int]], size: int
) -> Iterator[tuple[int, int, npt.NDArray[np.int32]]]:
    """(ts, n, counts) of the buckets of (width, from, to) pieces, by time."""
    plan = plpy.prepare(
        "select (extract(epoch from h.ts) * 1000000)::int8 as ts, h.n, h.counts"
        " from drift.histograms h where h.binning_id = $1 and h.symbol = $2 and h.width = $3"
        " and h.ts >= $4 and h.ts < $5",
        ["int4", "text", "interval", "timestamptz", "timestamptz"],
    )
    for width, start, stop in pieces:
        if start >= stop:
            continue
        rows = plpy.execute(plan, [number, symbol, _NAMES[width], moment(start), moment(stop)])
        for row in rows:
            counts = np.frombuffer(row["counts"], "<i4")
            yield row["ts"] - EPOCH, row["n"], counts[:size]


def cover(start: int, stop: int) -> list[tuple[int, int, int]]:
    """[start, stop) in (width, from, to) pieces of whole buckets, as wide as they come."""
    found = []
    inside = [(start, stop)]
    for width in reversed(WIDTHS):
        rest = []
        for first, last in inside:
            low, high = -(-first // width) * width, last // width * width
            if low < high:
                found.append((width, low, high))
                rest += [(first, low), (high, last)]
            else:
                rest.append((first, last))
        inside = [(a, b) for a, b in rest if a < b]
    return found


def window(
    plpy: Any, cache: dict[str, Any], number: int, symbol: str, start: int, stop: int
) -> tuple[int, Ints]:
    """(rows, counts (k, stride)) of a symbol in [start, stop): stored hours merged, and what is not
    stored (parts of hours, hours not counted yet or changed since) counted from the vectors."""
    bins = load(plpy, cache, number)
    k = len(bins.names)
    total = np.zeros(k * bins.stride, dtype=np.int64)
    rows = 0
    low, high = _kept(plpy, number, symbol)
    first, last = max(-(-start // HOUR) * HOUR, low), min(stop // HOUR * HOUR, high)
    gaps = [(start, stop)] if first >= last else [(start, first), (last, stop)]
    if first < last:
        pieces = [(first, last)]
        for a, b in _stale(plpy, bins.set_id, symbol, first, last):
            pieces = [
                (x, y) for p, q in pieces for x, y in ((p, min(q, a)), (max(p, b), q)) if x < y
            ]
            gaps.append((a, b))
        for a, b in pieces:
            for _, n, counts in _read(plpy, number, symbol, cover(a, b), len(total)):
                total += counts
                rows += n
    for a, b in gaps:
        for ts, values in counted(plpy, cache, bins, symbol, a, b):
            total += bins.count(values).ravel()
            rows += len(ts)
    return rows, total.reshape(k, bins.stride)


def _kept(plpy: Any, number: int, symbol: str) -> tuple[int, int]:
    plan = plpy.prepare(
        "select (extract(epoch from c.since) * 1000000)::int8 as since,"
        " (extract(epoch from c.through) * 1000000)::int8 as through"
        " from drift.coverage c where c.binning_id = $1 and c.symbol = $2",
        ["int4", "text"],
    )
    found = plpy.execute(plan, [number, symbol])
    if not len(found):
        return 0, -1
    return (
        found[0]["since"] - EPOCH,
        found[0]["through"] - EPOCH,
    )


def _stale(
    plpy: Any, set_id: int | None, symbol: str, start: int, stop: int
) -> list[tuple[int, int]]:
    """Stretches of whole hours in [start, stop) whose vectors changed after they were counted."""
    if set_id is None:
        return []
    plan = plpy.prepare(
        "select (extract(epoch from m.ts_from) * 1000000)::int8 as a,"
        " (extract(epoch from m.ts_to) * 1000000)::int8 as b"
        " from drift.histogram_marks m where m.set_id = $1 and m.symbol = $2"
        " and m.ts_from < $4 and m.ts_to >= $3 order by 1",
        ["int4", "text", "timestamptz", "timestamptz"],
    )
    found: list[tuple[int, int]] = []
    for row in plpy.execute(plan, [set_id, symbol, moment(start), moment(stop)]):
        a = max(start, (row["a"] - EPOCH) // HOUR * HOUR)
        b = min(stop, (row["b"] - EPOCH) // HOUR * HOUR + HOUR)
        if found and a <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], b))
        else:
            found.append((a, b))
    return found
