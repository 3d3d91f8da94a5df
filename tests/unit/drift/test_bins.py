"""Bins found by cells are those of a binary search, whatever the edges and the values."""

from __future__ import annotations

import numpy as np
import pytest
from alphaplus.server.drift import statistics as st
from alphaplus.server.drift.histograms import Bins, Floats, padded
from hypothesis import given
from hypothesis import strategies as some

NUMBERS = some.floats(allow_nan=False, width=64)


def searched(bins: Bins, values: Floats) -> Floats:
    """By a binary search of each column."""
    found = np.empty(values.shape, dtype=np.int64)
    for i, edges in enumerate(bins.edges):
        at = np.searchsorted(edges[edges < np.inf], values[:, i], side="left")
        found[:, i] = np.where(np.isnan(values[:, i]), bins.stride - 1, at) + i * bins.stride
    return found


def bins_of(edges: list[Floats]) -> Bins:
    return Bins(1, [str(i) for i in range(len(edges))], padded(edges))


@given(
    some.lists(some.lists(NUMBERS, max_size=40, unique=True), min_size=1, max_size=4),
    some.lists(NUMBERS | some.just(float("nan")), max_size=60),
)
def test_any_edges_and_values(edges: list[list[float]], values: list[float]) -> None:
    inner = [np.array(sorted(x for x in part if np.isfinite(x))) for part in edges]
    bins = bins_of(inner)
    near = np.concatenate([*inner, *(np.nextafter(e, np.inf) for e in inner), np.array(values)])
    table = np.tile(near[:, None], (1, len(inner)))
    assert (bins.places(table) == searched(bins, table)).all()
    counts = np.bincount(searched(bins, table).ravel(), minlength=len(inner) * bins.stride)
    assert (bins.count(table).ravel() == counts).all()


@pytest.mark.parametrize(
    "shape", ["normal", "skewed", "very skewed", "far away", "few", "constant"]
)
def test_shapes(shape: str) -> None:
    rng = np.random.default_rng(3)
    z = rng.standard_normal((40_000, 3))
    x = {
        "normal": z, "skewed": np.exp(2 * z), "very skewed": np.exp(6 * z), "far away": 1e9 + z,
        "few": np.rint(z), "constant": np.full_like(z, 7.0),
    }[shape]  # fmt: skip
    bins = bins_of([st.edges_of(column, 50) for column in x[:20_000].T])
    x[::100] = np.nan
    x[1::1000], x[2::1000] = np.inf, -np.inf
    assert (bins.places(x) == searched(bins, x)).all()
    big_endian = x.astype(">f8")
    assert (bins.count(big_endian) == bins.count(x)).all()
