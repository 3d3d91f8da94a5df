"""What a version was trained on, as distributions: bins, counts, quantiles, and what rows in a row
are worth."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from alphaplus.server import codec
from alphaplus.server.drift import effective, histograms
from alphaplus.server.drift import statistics as st
from alphaplus.server.drift.histograms import Bins, Floats, Ints

LEVELS = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
SHAP_ROWS = 128
# Bins of an older version go on serving while none holds more than so many times its share.
COARSEST = 2.0


class Training(NamedTuple):
    """A training set as ``ml._training_bytes`` gives it."""

    ts: Ints
    target: Floats
    symbol: npt.NDArray[np.int32]
    features: Floats


def training(raw: bytes) -> Training:
    """Takes the bytes of ``ml._training_bytes`` apart."""
    n, k = (int(x) for x in np.frombuffer(raw, "<i8", 2))
    at = 16
    ts = np.frombuffer(raw, "<i8", n, at)
    at += 16 * n
    target = np.frombuffer(raw, "<f8", n, at)
    at += 8 * n
    symbol = np.frombuffer(raw, "<i4", n, at)
    at += 4 * n
    return Training(ts, target, symbol, np.frombuffer(raw, "<f8", n * k, at).reshape(n, k))


def describe(values: Floats, places: Ints, edges: Floats, stride: int) -> dict[str, Any]:
    """One column's reference: counts and centres in bins, quantiles, inflation.

    Args:
        values: the column of one symbol by time; NaN: not known.
        places: the bin of each, the last (stride - 1) for NaN.
    """
    bins = len(edges) + 1
    known = ~np.isnan(values)
    finite = values[np.isfinite(values)]
    counts = np.bincount(places[known], minlength=bins)[:bins]
    inside = np.isfinite(values)
    sums = np.bincount(places[inside], weights=values[inside], minlength=bins)[:bins]
    number = np.bincount(places[inside], minlength=bins)[:bins]
    ladder = effective.inflation([places[known]], bins)
    return {
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "nulls": int((~known).sum()),
        "centres": centres(sums, number, edges, finite).tolist(),
        "quantiles": np.quantile(finite, LEVELS).tolist() if len(finite) else [],
        "mean": float(finite.mean()) if len(finite) else None,
        "deviation": float(finite.std()) if len(finite) else None,
        "inflation": [x for step in ladder for x in step],
    }


def centres(
    sums: npt.NDArray[Any], number: npt.NDArray[Any], edges: Floats, finite: Floats
) -> Floats:
    """Mean value in each bin, ascending; of an empty bin the middle of its edges."""
    low = float(finite.min()) if len(finite) else 0.0
    high = float(finite.max()) if len(finite) else 0.0
    if len(edges):
        low, high = min(low, float(edges[0])), max(high, float(edges[-1]))
    ends = np.concatenate([[low], edges, [high]])
    found = (ends[:-1] + ends[1:]) / 2
    some = number > 0
    found[some] = sums[some] / number[some]
    result: Floats = np.maximum.accumulate(found)
    return result


def fits(bins: Bins, counts: Ints, most: int) -> bool:
    """Whether bins made for an older reference are fine enough for this one: no bin holds more than
    COARSEST times its share, but where one value alone makes it so."""
    for edges, column in zip(bins.edges, counts, strict=True):
        inner = int(np.searchsorted(edges, np.inf))
        if inner + 1 <= most // 2:
            # Few values, each with a bin of its own: new ones need new bins.
            return False
        seen = column[: inner + 1]
        if seen.sum() and seen.max() > COARSEST * seen.sum() / most:
            return False
    return True


def take(plpy: Any, cache: dict[str, Any], version_id: int, raw: bytes, most: int) -> int:
    """Writes a version's reference from its training set; rows counted."""
    plan = plpy.prepare("select * from drift._reference_spec($1)", ["int8"])
    spec = plpy.execute(plan, [version_id])[0]
    rows = training(raw)
    if not len(rows.ts):
        plpy.error(
            f"version {version_id}: the stretch has no rows to take a reference from",
            sqlstate="AP635",
            hint="Rows need features, and outcomes known by its end: see ml.training_set.",
        )
    names, symbols = list(spec["features"]), list(spec["symbols"])
    bins = _binning(plpy, cache, spec, version_id, rows.features, most)
    places = bins.places(rows.features) - np.arange(len(names)) * bins.stride
    shap = _shap(plpy, version_id, rows.features, names)
    used = []
    for number in np.unique(rows.symbol):
        symbol = symbols[number - 1]
        used.append(symbol)
        here = rows.symbol == number
        for i, name in enumerate(names):
            edges = bins.edges[i][: np.searchsorted(bins.edges[i], np.inf)]
            column = np.ascontiguousarray(rows.features[here, i])
            found = describe(column, places[here, i], edges, bins.stride)
            _write(plpy, version_id, symbol, "feature", name, i + 1, bins.number, found,
                   few(column, most), shap.get(name))  # fmt: skip
        _outcomes(plpy, version_id, symbol, spec["symbol"], "label", rows.target[here], most)
    held_out(plpy, version_id, spec["symbol"], used, most)
    done = plpy.prepare(
        "select drift._reference_taken($1, $2, $3, $4, $5, $6)",
        ["int8", "int4", "text[]", "int8", "int8", "int8"],
    )
    plpy.execute(
        done,
        [version_id, bins.number, used, len(rows.ts), int(rows.ts.min()), int(rows.ts.max())],
    )
    return len(rows.ts)


def few(values: Floats, most: int) -> bool:
    """Whether a column has so few values that each has a bin of its own."""
    return len(np.unique(values[np.isfinite(values)][:20000])) <= min(most, 12)


def _binning(
    plpy: Any, cache: dict[str, Any], spec: Any, version_id: int, features: Floats, most: int
) -> Bins:
    plan = plpy.prepare(
        "select b.binning_id from drift.binnings b where b.kind = 'features' and b.set_id = $1"
        " and b.symbol is not distinct from $2 order by b.binning_id desc limit 1",
        ["int4", "text"],
    )
    for row in plpy.execute(plan, [spec["set_id"], spec["symbol"]]):
        bins = histograms.load(plpy, cache, row["binning_id"])
        if fits(bins, bins.count(features)[:, :-1], most):
            return bins
    edges = [st.edges_of(known(features[:, i]), most) for i in range(features.shape[1])]
    return histograms.load(
        plpy, cache, make(plpy, "features", spec["set_id"], None, spec["symbol"],
                          list(spec["features"]), edges)
    )  # fmt: skip


def known(column: Floats) -> Floats:
    """The values of a column that are not NaN."""
    found: Floats = column[~np.isnan(column)]
    return found


def make(
    plpy: Any,
    kind: str,
    set_id: int | None,
    version_id: int | None,
    symbol: str | None,
    names: list[str],
    edges: list[Floats],
) -> int:
    """Writes a set of bins; its number."""
    plan = plpy.prepare(
        "insert into drift.binnings (kind, set_id, version_id, symbol, names, edges)"
        " values ($1, $2, $3, $4, $5, $6) returning binning_id",
        ["text", "int4", "int8", "text", "text[]", "float8[]"],
    )
    table = histograms.padded(edges).tolist()
    found = plpy.execute(plan, [kind, set_id, version_id, symbol, names, table])
    return int(found[0]["binning_id"])


def _outcomes(
    plpy: Any,
    version_id: int,
    symbol: str,
    line: str | None,
    kind: str,
    values: Floats,
    most: int,
) -> Floats:
    """The reference of scores or labels: bins of the version's own, one set for all its symbols;
    their inner edges."""
    if not len(values):
        return np.empty(0)
    plan = plpy.prepare(
        "select b.binning_id, array_send(b.edges) as edges from drift.binnings b"
        " where b.kind = $1 and b.version_id = $2",
        ["text", "int8"],
    )
    found = plpy.execute(plan, [kind, version_id])
    if len(found):
        number, table = found[0]["binning_id"], histograms.matrix(found[0]["edges"], 1)
    else:
        table = histograms.padded([st.edges_of(known(values), min(most, 20))])
        number = make(plpy, kind, None, version_id, line, [kind], [table[0]])
    edges: Floats = table[0][: np.searchsorted(table[0], np.inf)]
    bins = Bins(number, [kind], table)
    found_here = describe(values, bins.places(values[:, None])[:, 0], edges, bins.stride)
    _write(plpy, version_id, symbol, kind, kind, 1, number, found_here, few(values, 20), None)
    return edges


def held_out(plpy: Any, version_id: int, line: str | None, symbols: list[str], most: int) -> None:
    """The reference of scores: predictions on held-out rows, where they are stored, and what those
    of about one size were wrong by."""
    plan = plpy.prepare("select * from drift._held_out_packed($1)", ["int8"])
    keep = plpy.prepare(
        "update drift.reference_features r set squares = $3"
        " where r.version_id = $1 and r.symbol = $2 and r.kind = 'score'",
        ["int8", "text", "float8[]"],
    )
    for row in plpy.execute(plan, [version_id]):
        if row["symbol"] not in symbols:
            continue
        p, y = (codec.elements(row[name], ">f8").astype(np.float64) for name in ("p", "y"))
        edges = _outcomes(plpy, version_id, row["symbol"], line, "score", p, most)
        plpy.execute(keep, [version_id, row["symbol"], squares(p, y, edges)])


def squares(p: Floats, y: Floats, edges: Floats) -> list[float]:
    """Mean squared error of the predictions in each bin; of all where a bin has none."""
    error = (p - y) ** 2
    places = np.searchsorted(edges, p, side="left")
    count = np.bincount(places, minlength=len(edges) + 1)
    total = np.bincount(places, weights=error, minlength=len(edges) + 1)
    found: list[float] = np.where(count > 0, total / np.maximum(count, 1), error.mean()).tolist()
    return found


def _shap(plpy: Any, version_id: int, features: Floats, names: list[str]) -> dict[str, float]:
    """Each feature's share of the mean absolute SHAP values on rows spread over the set; empty for
    a version that takes sequences or has no explanation."""
    some = features[np.linspace(0, len(features) - 1, min(SHAP_ROWS, len(features))).astype(int)]
    plan = plpy.prepare("select * from drift._shap($1, $2)", ["int8", "float8[]"])
    total = dict.fromkeys(names, 0.0)
    for row in plpy.execute(plan, [version_id, some.tolist()]):
        if row["feature"] in total:
            total[row["feature"]] = float(row["weight"] or 0.0)
    whole = sum(total.values())
    return {name: value / whole for name, value in total.items()} if whole > 0 else {}


def _write(
    plpy: Any,
    version_id: int,
    symbol: str,
    kind: str,
    name: str,
    ordinal: int,
    number: int,
    found: dict[str, Any],
    is_category: bool,
    share: float | None,
) -> None:
    plan = plpy.prepare(
        "insert into drift.reference_features (version_id, symbol, kind, feature, ordinal,"
        " binning_id, edges, counts, nulls, centres, quantiles, mean, deviation, is_category,"
        " inflation, shap_share) values"
        " ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        [
            "int8", "text", "text", "text", "int4", "int4", "float8[]", "int8[]", "int8",
            "float8[]", "float8[]", "float8", "float8", "bool", "float8[]", "float8",
        ],
    )  # fmt: skip
    plpy.execute(
        plan,
        [
            version_id, symbol, kind, name, ordinal, number, found["edges"], found["counts"],
            found["nulls"], found["centres"], found["quantiles"], found["mean"],
            found["deviation"], is_category, found["inflation"], share,
        ],
    )  # fmt: skip
