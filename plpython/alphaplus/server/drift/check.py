"""A window of a version's features against its reference."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from alphaplus.server.drift import effective, histograms
from alphaplus.server.drift import statistics as st
from alphaplus.server.drift.histograms import Floats

COARSE = 10  # bins of the population stability index


@dataclass(frozen=True)
class Reference:
    """References of one kind, in the order of their binning, as arrays over features."""

    names: list[str]
    kind: str
    binning: int
    counts: Floats  # (k, stride): bins, then what is not known
    bins: Floats  # (k,) how many bins there are
    centres: Floats  # (k, bins), filled up with the last
    deviation: Floats
    is_category: list[bool]
    ladders: list[list[list[float]]]
    shares: Floats  # of SHAP; NaN: none


def references(plpy: Any, cache: dict[str, Any], version_id: int, symbol: str) -> list[Reference]:
    """A version's references of a symbol, kept in this backend: they never change."""
    kept = cache.setdefault("alphaplus.drift.references", {})
    key = (version_id, symbol)
    if key not in kept:
        found = _read(plpy, cache, version_id, symbol)
        if not found:
            return []
        if len(kept) > 200:
            kept.clear()
        kept[key] = found
    result: list[Reference] = kept[key]
    return result


def _read(plpy: Any, cache: dict[str, Any], version_id: int, symbol: str) -> list[Reference]:
    plan = plpy.prepare(
        "select r.kind, r.feature, r.binning_id, r.counts, r.nulls, r.centres, r.deviation,"
        " r.is_category, r.inflation, r.shap_share from drift.reference_features r"
        " where r.version_id = $1 and r.symbol = $2 order by r.kind, r.ordinal",
        ["int8", "text"],
    )
    rows = list(plpy.execute(plan, [version_id, symbol]))
    found = []
    for kind in ("feature", "label", "score"):
        some = [row for row in rows if row["kind"] == kind]
        if not some:
            continue
        stride = histograms.load(plpy, cache, some[0]["binning_id"]).stride
        counts = np.zeros((len(some), stride))
        centres = np.zeros((len(some), stride - 1))
        for i, row in enumerate(some):
            counts[i, : len(row["counts"])] = row["counts"]
            counts[i, -1] = row["nulls"]
            centres[i] = row["centres"][-1]
            centres[i, : len(row["centres"])] = row["centres"]
        found.append(
            Reference(
                [row["feature"] for row in some],
                kind,
                some[0]["binning_id"],
                counts,
                np.array([len(row["counts"]) for row in some], dtype=np.float64),
                centres,
                np.array([row["deviation"] or 0.0 for row in some]),
                [row["is_category"] for row in some],
                [
                    [list(pair) for pair in zip(*[iter(row["inflation"])] * 2, strict=True)]
                    for row in some
                ],
                np.array(
                    [np.nan if row["shap_share"] is None else row["shap_share"] for row in some]
                ),
            )
        )
    return found


def coarse(counts: Floats, reference: Floats) -> tuple[Floats, Floats]:
    """(k, COARSE) both counts in bins of about equal share of the reference, for the population
    stability index, whose noise grows with the number of bins."""
    total = np.cumsum(reference, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        # By the middle of each bin's share, so that none is split.
        middle = (total - reference / 2) / total[:, -1:]
    place = np.clip(np.nan_to_num(middle) * COARSE, 0, COARSE - 1).astype(np.int64)
    place += np.arange(len(counts))[:, None] * COARSE
    size = len(counts) * COARSE
    return tuple(  # type: ignore[return-value]
        np.bincount(place.ravel(), weights=c.ravel(), minlength=size).reshape(-1, COARSE)
        for c in (counts, reference)
    )


def compare(reference: Reference, counts: Floats, rows: int) -> dict[str, Any]:
    """All statistics of a window, as arrays over features."""
    seen, before = counts[:, :-1], reference.counts[:, :-1]
    n, m = seen.sum(axis=1), before.sum(axis=1)
    total = before.sum(axis=1) + reference.counts[:, -1]
    worth = np.array(
        [effective.effective(x, ladder) for x, ladder in zip(n, reference.ladders, strict=True)]
    )
    worth_before = np.array(
        [effective.effective(x, ladder) for x, ladder in zip(m, reference.ladders, strict=True)]
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        nulls = counts[:, -1] / rows if rows else np.full(len(n), np.nan)
        nulls_before = reference.counts[:, -1] / total
        wasserstein = st.wasserstein(seen, before, reference.centres) / reference.deviation
    ks = st.ks(seen, before)
    coarse_seen, coarse_before = coarse(seen, before)
    psi = st.psi(
        st.shares(coarse_seen) * worth[:, None], st.shares(coarse_before) * worth_before[:, None]
    )
    p_ks = st.ks_p(ks, worth, worth_before)
    chi2 = np.full(len(n), np.nan)
    for i, is_category in enumerate(reference.is_category):
        if is_category and n[i] and m[i]:
            chi2[i], p_ks[i], _ = st.chi2(seen[i], before[i], worth[i], worth_before[i])
    # What is not known, as a feature of its own: present or not.
    present = np.stack([counts[:, :-1].sum(axis=1), counts[:, -1]], axis=1)
    present_before = np.stack([m, reference.counts[:, -1]], axis=1)
    p_nulls = np.ones(len(n))
    for i in range(len(n)):
        if rows and (counts[i, -1] or reference.counts[i, -1]):
            every = effective.effective(rows, reference.ladders[i])
            whole = effective.effective(float(total[i]), reference.ladders[i])
            p_nulls[i] = st.chi2(present[i], present_before[i], every, whole)[1]
    gap = np.abs(nulls - nulls_before)
    empty = (n == 0) | (m == 0)
    for values in (ks, psi, wasserstein, p_ks):
        values[empty] = np.nan
    # Both questions are asked of each feature: twice the smaller p-value.
    p = np.minimum(1, 2 * np.fmin(p_ks, p_nulls)) if (p_nulls < 1).any() else p_ks
    p = np.where((p_nulls >= 1) & ~np.isnan(p_ks), p_ks, p)
    p[np.full(len(n), not rows)] = np.nan
    return {
        "ks": ks,
        "psi": np.maximum(psi, 0),
        "js": np.where(empty, np.nan, st.js(seen, before)),
        "wasserstein": np.where(np.isfinite(wasserstein), wasserstein, np.nan),
        "chi2": chi2,
        "nulls": nulls,
        "nulls_before": nulls_before,
        "n": n,
        "worth": worth,
        "p": p,
        "effect": np.fmax(np.nan_to_num(ks), np.nan_to_num(gap)),
    }


def check(
    plpy: Any,
    cache: dict[str, Any],
    version_id: int,
    symbols: list[str],
    start: int,
    stop: int,
    options: dict[str, Any],
) -> Iterator[tuple[Any, ...]]:
    """Rows of ``drift.check``; several symbols are one window, against all their references.

    ``options``: alpha, method (by, e-bh), thresholds [[feature or null, statistic, severity rank,
    threshold], …], most specific first.
    """
    parts: dict[str, tuple[Reference, Floats, int]] = {}
    for symbol in symbols:
        for reference in references(plpy, cache, version_id, symbol):
            rows, counts = histograms.window(plpy, cache, reference.binning, symbol, start, stop)
            if reference.kind not in parts:
                parts[reference.kind] = (reference, counts.astype(np.float64), rows)
                continue
            first, sum_counts, sum_rows = parts[reference.kind]
            both = Reference(**{**first.__dict__, "counts": first.counts + reference.counts})
            parts[reference.kind] = (both, sum_counts + counts, sum_rows + rows)
    compared = [
        (reference, compare(reference, counts, rows), rows)
        for reference, counts, rows in parts.values()
    ]
    p = np.concatenate([found["p"] for _, found, _ in compared]) if compared else np.empty(0)
    adjusted = st.by(p) if options["method"] == "by" else st.e_bh(st.e_of(p))
    out: list[tuple[str, str, dict[str, Any], int, int, float, int, float]] = []
    at = 0
    for reference, found, rows in compared:
        for i, name in enumerate(reference.names):
            significant = bool(adjusted[at + i] <= options["alpha"])
            rank = severity(options["thresholds"], name, found, i) if significant else 0
            share = reference.shares[i]
            weight = 1.0 / len(reference.names) if np.isnan(share) else float(share)
            blame = (
                float(found["effect"][i]) * weight if rank and reference.kind == "feature" else 0.0
            )
            out.append((name, reference.kind, found, i, rows, float(adjusted[at + i]), rank, blame))
        at += len(reference.names)
    whole = sum(row[-1] for row in out)
    out.sort(key=lambda row: (-(row[-2] > 0), -row[-1], -row[-2], -float(row[2]["effect"][row[3]])))
    for name, kind, found, i, rows, adjusted_p, rank, blame in out:
        yield (
            name, kind,
            *(number(found[key][i]) for key in ("ks", "psi", "js", "wasserstein", "chi2")),
            number(found["nulls"][i]), number(found["nulls_before"][i]),
            int(found["n"][i]), int(rows), number(found["worth"][i]), number(found["p"][i]),
            number(adjusted_p), rank > 0, SEVERITIES[rank], number(found["effect"][i]),
            blame / whole if whole else (0.0 if kind == "feature" else None),
        )  # fmt: skip


SEVERITIES = (None, "low", "medium", "high", "critical")


def number(x: Any) -> float | None:
    """A number, None for NaN."""
    return None if x is None or math.isnan(x) else float(x)


def severity(thresholds: list[list[Any]], name: str, found: dict[str, Any], i: int) -> int:
    """The highest severity rank that an effect reaches; 0: none. For each statistic and rank the
    most specific threshold holds."""
    values = {
        "ks": found["ks"][i],
        "psi": found["psi"][i],
        "js": found["js"][i],
        "wasserstein": found["wasserstein"][i],
        "nulls": abs(found["nulls"][i] - found["nulls_before"][i]),
    }
    best = 0
    done = set()
    for feature, statistic, rank, threshold in thresholds:
        if feature not in (None, name) or (statistic, rank) in done:
            continue
        done.add((statistic, rank))
        if values[statistic] >= threshold:
            best = max(best, int(rank))
    return best
