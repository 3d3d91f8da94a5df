"""The 21 order-book features beside plain loops written from their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from alphaplus.server.features import order_book as ob
from alphaplus.server.market.reader import Inputs
from alphaplus.server.types import MINUTE
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = [feature.name for feature in ob.FEATURES]
Book = tuple[list[float], list[float], list[float], list[float]]
Quote = tuple[int, float, float, float, float]


def market(rng: np.random.Generator, minutes: int, levels: int) -> tuple[list[Book | None], Any]:
    """The last book of each minute (None: none), and best quotes every few seconds."""
    books: list[Book | None] = []
    for _ in range(minutes):
        if rng.random() < 0.15:
            books.append(None)
            continue
        mid = 100 * math.exp(rng.normal(0, 1e-3))
        sizes = rng.lognormal(2, 1.2, (2, levels)) * rng.choice([0.2, 1, 1], 1)
        steps = np.cumsum(rng.random((2, levels)) * 4e-4 + 1e-5, axis=1)
        bids, asks = mid * (1 - steps[0]), mid * (1 + steps[1])
        books.append((bids.tolist(), sizes[0].tolist(), asks.tolist(), sizes[1].tolist()))
    quotes: list[Quote] = []
    ts = 0
    while ts < minutes * MINUTE:
        ts += int(rng.integers(1, 20) * 1_000_000)
        tick = round(100 + rng.integers(-3, 4) * 0.01, 2)
        q, r = rng.lognormal(2, 1, 2)
        quotes.append((ts, tick, float(q), tick + 0.01 * float(rng.integers(1, 3)), float(r)))
    return books, quotes


def inputs(books: list[Book | None], quotes: list[Quote], quote_volume: float) -> Inputs:
    """One grid time after the last minute."""
    width = len(books)
    sides = {name: np.full((1, width, ob.LEVELS), np.nan) for name in ob._SIDES}
    count = np.full((1, width), np.nan)
    for i, book in enumerate(books):
        if book is not None:
            count[0, i] = 1
            for name, values in zip(ob._SIDES, book, strict=True):
                sides[name][0, i, : len(values)] = values[: ob.LEVELS]
    columns = np.array([quote[1:] for quote in quotes]).reshape(-1, 4).T
    bars = {
        name: np.full((1, 60), quote_volume if name == "quote_volume" else 100.0)
        for name in ("open", "high", "low", "close", "volume", "quote_volume")
    }
    return Inputs(
        grid=np.array([width * MINUTE]),
        bars=bars,
        book={"two_sided_count": count, **sides, **ob.depth(sides)},
        quote_ts=np.array([quote[0] for quote in quotes], dtype=np.int64),
        quotes=dict(zip(("bid", "bid_size", "ask", "ask_size"), columns, strict=True)),
    )


def walk(prices: list[float], sizes: list[float], order: float) -> float:
    """Mean price of trading ``order`` of quote currency against the levels."""
    left, bought = order, 0.0
    for price, size in zip(prices, sizes, strict=True):
        take = min(left, price * size)
        bought += take / price
        left -= take
        if left <= 1e-9:
            return order / bought
    return math.nan


def reference(
    books: list[Book | None], quotes: list[Quote], quote_volume: float
) -> dict[str, float]:
    now = len(books) * MINUTE
    flow, depths = 0.0, []
    inside = [q for q in quotes if now - 5 * MINUTE <= q[0] < now]
    for number, (_, b, q, a, r) in enumerate(inside):
        depths.append((q + r) / 2)
        if number:
            _, b0, q0, a0, r0 = inside[number - 1]
            flow += (q if b >= b0 else 0) - (q0 if b <= b0 else 0)
            flow += (r0 if a >= a0 else 0) - (r if a <= a0 else 0)
    out = dict.fromkeys(NAMES, math.nan)
    if len(inside) >= 2:
        out["order_flow_imbalance"] = flow / (sum(depths) / len(depths))
    fresh = [book for book in books[-5:] if book is not None]
    if not fresh:
        return out
    bids, bid_sizes, asks, ask_sizes = fresh[-1]
    mid = (bids[0] + asks[0]) / 2
    sides = {
        "bid": [(p, s, p * s, 1e4 * (1 - p / mid)) for p, s in zip(bids, bid_sizes, strict=True)],
        "ask": [(p, s, p * s, 1e4 * (p / mid - 1)) for p, s in zip(asks, ask_sizes, strict=True)],
    }
    notional = {side: sum(x[2] for x in rows) for side, rows in sides.items()}
    out["spread"] = 1e4 * (asks[0] - bids[0]) / mid
    vwap = {s: sum(x[0] * x[2] for x in rows) / notional[s] for s, rows in sides.items()}
    out["depth_weighted_spread"] = 1e4 * (vwap["ask"] - vwap["bid"]) / mid
    q, r = bid_sizes[0], ask_sizes[0]
    out["microprice"] = 1e4 * ((asks[0] * q + bids[0] * r) / (q + r) / mid - 1)
    out["imbalance_1"] = (q - r) / (q + r)
    tens = sum(bid_sizes[:10]), sum(ask_sizes[:10])
    out["imbalance_10"] = (tens[0] - tens[1]) / (tens[0] + tens[1])
    slope = 0.0
    for rows in sides.values():
        total, parts, before = 0.0, 0.0, (mid, math.nan)
        for number, (price, _, value, _) in enumerate(rows):
            total += value
            log = math.log(total)
            gain = log if number == 0 else log / before[1] - 1
            parts += gain / abs(price / before[0] - 1)
            before = (price, log)
        slope += parts / len(rows) / 2
    out["depth_slope"] = slope
    pressure = {s: sum(x[2] * math.exp(-x[3] / 10) for x in rows) for s, rows in sides.items()}
    out["book_pressure"] = (pressure["bid"] - pressure["ask"]) / sum(pressure.values())
    for near in (10, 25, 50):
        for side, rows in sides.items():
            out[f"{side}_liquidity_{near}bp"] = math.log1p(sum(x[2] for x in rows if x[3] <= near))
    everything = sorted(x[2] for rows in sides.values() for x in rows)
    median = float(np.median(everything))
    out["wall_size"] = math.log(everything[-1] / median)
    signed = [(x[2], -x[3]) for x in sides["bid"]] + [(x[2], x[3]) for x in sides["ask"]]
    out["wall_distance"] = max(signed)[1]
    out["order_clusters"] = sum(v for v in everything if v > 3 * median) / sum(everything)
    shares = [v / sum(everything) for v in everything]
    out["depth_entropy"] = -sum(p * math.log(p) for p in shares) / math.log(len(shares))
    out["buy_impact"] = 1e4 * (walk(asks, ask_sizes, quote_volume) / mid - 1)
    out["sell_impact"] = 1e4 * (1 - walk(bids, bid_sizes, quote_volume) / mid)
    depth = []
    for book in books[-15:]:
        if book is not None:
            b, bs, a, as_ = book
            m = (b[0] + a[0]) / 2
            levels = [*zip(b, bs, strict=True), *zip(a, as_, strict=True)]
            depth.append(sum(p * s for p, s in levels if abs(p / m - 1) <= 25e-4))
    low = depth.index(min(depth))
    high = max(depth[: low + 1])
    if depth[low] <= 0.8 * high:
        out["resilience"] = (depth[-1] - depth[low]) / (high - depth[low])
    return out


@given(st.integers(0, 10_000), st.integers(1, 20), st.sampled_from([1.0, 5e3, 1e6]))
@settings(max_examples=150, deadline=None)
def test_each_feature_is_its_definition(seed: int, levels: int, order: float) -> None:
    books, quotes = market(np.random.default_rng(seed), 15, levels)
    found = dict(zip(NAMES, ob.compute(inputs(books, quotes, order))[0], strict=True))
    for name, expected in reference(books, quotes, order).items():
        if levels == 1 and name == "depth_entropy" and math.isnan(expected):
            continue
        assert found[name] == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True), name


def test_there_are_twenty_one() -> None:
    assert len(NAMES) == len(set(NAMES)) == 21


@pytest.mark.parametrize(
    "book",
    [
        ([100.0], [1.0], [99.0], [1.0]),
        ([], [], [101.0], [2.0]),
        ([100.0], [1.0], [], []),
        (None),
    ],
    ids=["crossed", "no bids", "no asks", "no book"],
)
def test_a_book_that_cannot_be_used_is_null_and_never_zero(book: Any) -> None:
    books: list[Any] = [None] * 14 + [book]
    with np.errstate(all="ignore"):
        found = ob.compute(inputs(books, [], 1e3))[0]
    assert np.isnan(found).all()


def test_an_old_book_is_not_today_s() -> None:
    good = ([100.0], [1.0], [100.1], [1.0])
    with np.errstate(all="ignore"):
        assert np.isnan(ob.compute(inputs([good] + [None] * 14, [], 1e3))[0]).all()
        four = ob.compute(inputs([good] * 11 + [None] * 4, [], 10.0))[0]
        five = ob.compute(inputs([good] * 10 + [None] * 5, [], 10.0))[0]
    assert np.isfinite(four[0])
    assert np.isnan(five[0])


@pytest.mark.parametrize(
    "bad",
    [
        (100.0, 5.0, 99.0, 5.0),  # crossed
        (100.0, 5.0, 100.0, 5.0),  # locked
        (100.0, math.nan, 100.1, 5.0),
        (100.0, 0.0, 100.1, 5.0),
        (100.0, 5.0, 100.1, -5.0),
        (math.nan, math.nan, 100.1, 5.0),
        (100.0, 5.0, math.inf, 5.0),
    ],
)
def test_flow_passes_over_snapshots_that_are_none(bad: tuple[float, ...]) -> None:
    books, quotes = market(np.random.default_rng(4), 15, 8)
    books[-1] = books[-1] or ([100.0], [1.0], [100.1], [1.0])
    place = NAMES.index("order_flow_imbalance")
    want = ob.compute(inputs(books, quotes, 5e3))[0, place]
    assert math.isfinite(want)
    half = len(quotes) * 5 // 6
    worse = [*quotes[:half], (quotes[half][0] - 1, *bad), *quotes[half:]]
    assert ob.compute(inputs(books, worse, 5e3))[0, place] == want


@pytest.mark.parametrize("size", [math.nan, 0.0, -3.0, math.inf])
def test_a_level_without_a_size_is_none_in_every_feature(size: float) -> None:
    books, quotes = market(np.random.default_rng(5), 15, 8)
    books = [book or ([100.0], [1.0], [100.1], [1.0]) for book in books]

    def changed(sizes: float | None) -> list[Book | None]:
        """The fourth level's bids without a size, or without the level."""
        out: list[Book | None] = []
        for book in books:
            assert book is not None
            prices, amounts = book[0][:], book[1][:]
            if len(prices) > 3:
                prices[3], amounts[3] = (
                    (math.nan, math.nan) if sizes is None else (prices[3], sizes)
                )
            out.append((prices, amounts, book[2], book[3]))
        return out

    with np.errstate(divide="ignore", invalid="ignore"):
        np.testing.assert_allclose(
            ob.compute(inputs(changed(size), quotes, 5e3)),
            ob.compute(inputs(changed(None), quotes, 5e3)),
        )
