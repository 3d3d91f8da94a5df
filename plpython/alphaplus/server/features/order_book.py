"""The 21 order-book features: what the book offers at ``t``, and how it got there.

The book at ``t`` is the last snapshot of the last five minutes that was known by then, with up to
20 levels a side. Notional is price x size, in quote currency; distances are from the mid in basis
points. A level whose price or size is no positive number is none. A value is NaN where it cannot be
known: no such book, a side is empty or has no best level, the book is crossed.
"""

from __future__ import annotations

import numpy as np
from alphaplus.server.features.family import Family, Feature
from alphaplus.server.market.reader import Inputs, Needs
from alphaplus.server.market.revisions import fill_quiet, segment_sums
from alphaplus.server.types import MINUTE, Floats, Times

LEVELS = 20
MAX_AGE = 5  # minutes
RESILIENCE = 15  # minutes
SWEEP = 0.8  # depth fell to less than this share of what it was
FLOW = 5 * MINUTE
DECAY_BPS = 10.0
NEAR_BPS = (10.0, 25.0, 50.0)
BARS = 60  # minutes over which the standard order is taken

# Channels that several features read.
_BOOK = ("book.bid_prices", "book.bid_sizes", "book.ask_prices", "book.ask_sizes")
_BIDS = ("book.bid_prices", "book.bid_sizes", "book.ask_prices")
_ASKS = ("book.bid_prices", "book.ask_prices", "book.ask_sizes")

FEATURES: tuple[Feature, ...] = (
    Feature(
        "spread", "(ask - bid) / mid", "bp", "definition", ("book.bid_prices", "book.ask_prices")
    ),
    Feature(
        "depth_weighted_spread",
        "(notional-weighted mean ask - notional-weighted mean bid) / mid, all levels",
        "bp",
        "definition",
        _BOOK,
    ),
    Feature(
        "microprice",
        "(ask x bid size + bid x ask size) / (bid size + ask size) / mid - 1, best level",
        "bp",
        "Stoikov (2018), Quantitative Finance 18(12), first-order term",
        _BOOK,
    ),
    Feature(
        "imbalance_1",
        "(bid - ask) / (bid + ask) size at the best level",
        "share, -1 to 1",
        "Cartea, Donnelly and Jaimungal (2018), Applied Mathematical Finance 25(1)",
        ("book.bid_sizes", "book.ask_sizes"),
    ),
    Feature(
        "imbalance_10",
        "(bid - ask) / (bid + ask) size over the first ten levels",
        "share, -1 to 1",
        "Cao, Hansch and Wang (2009), Journal of Futures Markets 29(1)",
        ("book.bid_sizes", "book.ask_sizes"),
    ),
    Feature(
        "depth_slope",
        "mean over sides of mean over levels i of (ln V_{i+1} / ln V_i - 1) / |p_{i+1} / p_i - 1|,"
        " V_i cumulative notional, the first step ln V_1 / |p_1 / mid - 1|",
        "1",
        "Naes and Skjeltorp (2006), Journal of Financial Markets 9(4)",
        _BOOK,
    ),
    Feature(
        "book_pressure",
        "(bid - ask) / (bid + ask) notional, levels weighted by exp(-distance / 10 bp)",
        "share, -1 to 1",
        "Cartea, Jaimungal and Penalva (2015), Algorithmic and High-Frequency Trading",
        _BOOK,
    ),
    *(
        Feature(
            f"{side}_liquidity_{near:.0f}bp",
            f"ln(1 + {side} notional within {near:.0f} bp of mid)",
            "log quote",
            "definition",
            _BIDS if side == "bid" else _ASKS,
        )
        for near in NEAR_BPS
        for side in ("bid", "ask")
    ),
    Feature(
        "wall_size",
        "ln(largest / median level notional), over both sides",
        "log",
        "definition",
        _BOOK,
    ),
    Feature(
        "wall_distance",
        "distance of the largest level from mid, negative where it is a bid",
        "bp",
        "definition",
        _BOOK,
    ),
    Feature(
        "order_clusters",
        "share of the book's notional in levels above three times the median level",
        "share",
        "definition",
        _BOOK,
    ),
    Feature(
        "resilience",
        "(D_t - D_m) / (D_p - D_m): D depth within 25 bp at the last book of each minute, m the"
        " minute of its low in 15, p that of its high before m; null where D_m > 0.8 D_p: no sweep",
        "share",
        "Large (2007), Journal of Financial Markets 10(1)",
        _BOOK,
    ),
    Feature(
        "order_flow_imbalance",
        "sum over the snapshots of 5 minutes of [b_n >= b_{n-1}] q_n - [b_n <= b_{n-1}] q_{n-1}"
        " - [a_n <= a_{n-1}] r_n + [a_n >= a_{n-1}] r_{n-1}, over the mean of (q + r) / 2;"
        " b, q best bid and its size, a, r best ask and its size; snapshots that are crossed or"
        " lack a side are passed over",
        "depths",
        "Cont, Kukanov and Stoikov (2014), Journal of Financial Econometrics 12(1)",
        ("quotes.ts", "quotes.bid", "quotes.bid_size", "quotes.ask", "quotes.ask_size"),
    ),
    Feature(
        "depth_entropy",
        "Shannon entropy of the levels' shares of the book's notional / ln(levels)",
        "share",
        "Shannon (1948), Bell System Technical Journal 27",
        _BOOK,
    ),
    Feature(
        "buy_impact",
        "(mean price of buying at once what is traded in a minute, mean quote volume of 60 - mid) /"
        " mid; null where the book holds less",
        "bp",
        "definition (walking the book)",
        ("bars.quote_volume", *_ASKS),
    ),
    Feature(
        "sell_impact",
        "(mid - mean price of selling at once what is traded in a minute, mean quote volume of 60)"
        " / mid; null where the book holds less",
        "bp",
        "definition (walking the book)",
        ("bars.quote_volume", *_BIDS),
    ),
)


def _last(inputs: Inputs) -> dict[str, Floats]:
    """The levels of the newest book of the last five minutes, NaN where it cannot be used."""
    book = inputs.book
    seen = np.isfinite(book["two_sided_count"][:, -MAX_AGE:])
    newest = book["bid_prices"].shape[1] - 1 - np.argmax(seen[:, ::-1], axis=1)
    row = np.arange(len(seen))
    out = {name: book[name][row, newest].copy() for name in _SIDES}
    for side in ("bid", "ask"):
        price, size = out[f"{side}_prices"], out[f"{side}_sizes"]
        bad = ~(np.isfinite(price) & np.isfinite(size) & (price > 0) & (size > 0))
        price[bad] = size[bad] = np.nan
    crossed = ~(out["bid_prices"][:, 0] < out["ask_prices"][:, 0])
    for levels in out.values():
        levels[~seen.any(axis=1) | crossed] = np.nan
    return out


_SIDES = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")


def compute(inputs: Inputs) -> Floats:
    """The features at each grid time: (n, 21) in the order of :data:`FEATURES`."""
    levels = _last(inputs)
    bid, ask = levels["bid_prices"][:, 0], levels["ask_prices"][:, 0]
    bid_size, ask_size = levels["bid_sizes"][:, 0], levels["ask_sizes"][:, 0]
    mid = (bid + ask) / 2.0
    known = np.isfinite(mid)
    notional, distance = {}, {}
    for side in ("bid", "ask"):
        price = levels[f"{side}_prices"]
        notional[side] = np.nan_to_num(price * levels[f"{side}_sizes"])
        distance[side] = np.nan_to_num(1e4 * np.abs(price / mid[:, None] - 1.0), nan=np.inf)

    def share(one: Floats, other: Floats) -> Floats:
        return np.where(known, (one - other) / (one + other), np.nan)

    out: dict[str, Floats] = {"spread": 1e4 * (ask - bid) / mid}
    mean = {
        side: np.nansum(levels[f"{side}_prices"] * notional[side], axis=1)
        / notional[side].sum(axis=1)
        for side in ("bid", "ask")
    }
    out["depth_weighted_spread"] = 1e4 * (mean["ask"] - mean["bid"]) / mid
    micro = (ask * bid_size + bid * ask_size) / (bid_size + ask_size)
    out["microprice"] = 1e4 * (micro / mid - 1.0)
    out["imbalance_1"] = share(bid_size, ask_size)
    ten = {side: np.nansum(levels[f"{side}_sizes"][:, :10], axis=1) for side in ("bid", "ask")}
    out["imbalance_10"] = share(ten["bid"], ten["ask"])
    slopes = [_slope(levels[f"{side}_prices"], notional[side], mid) for side in ("bid", "ask")]
    out["depth_slope"] = (slopes[0] + slopes[1]) / 2.0
    weighted = {
        side: (notional[side] * np.exp(-distance[side] / DECAY_BPS)).sum(axis=1)
        for side in ("bid", "ask")
    }
    out["book_pressure"] = share(weighted["bid"], weighted["ask"])
    for near in NEAR_BPS:
        for side in ("bid", "ask"):
            within = (notional[side] * (distance[side] <= near)).sum(axis=1)
            out[f"{side}_liquidity_{near:.0f}bp"] = np.where(known, np.log1p(within), np.nan)
    both = np.concatenate([notional["bid"], notional["ask"]], axis=1)
    typical = _median_of_positive(both)
    largest = both.argmax(axis=1)
    row = np.arange(len(both))
    signed = np.concatenate([-distance["bid"], distance["ask"]], axis=1)
    out["wall_size"] = np.where(known, np.log(both[row, largest] / typical), np.nan)
    out["wall_distance"] = np.where(known, signed[row, largest], np.nan)
    large = np.where(both > 3.0 * typical[:, None], both, 0.0).sum(axis=1)
    total = both.sum(axis=1)
    out["order_clusters"] = np.where(known, large / total, np.nan)
    out["resilience"] = np.where(known, _resilience(inputs.book["depth"]), np.nan)
    out["order_flow_imbalance"] = _order_flow(inputs.grid, inputs.quote_ts, inputs.quotes)
    for seen, (ts, quotes) in inputs.quotes_then.items():
        one = slice(seen, seen + 1)
        out["order_flow_imbalance"][one] = _order_flow(inputs.grid[one], ts, quotes)
    part = both / total[:, None]
    entropy = -np.where(part > 0, part * np.log(np.where(part > 0, part, 1.0)), 0.0).sum(axis=1)
    out["depth_entropy"] = np.where(known, entropy / np.log((both > 0).sum(axis=1)), np.nan)
    fill_quiet(inputs.bars)
    order = inputs.bars["quote_volume"][:, -BARS:].mean(axis=1)
    buy, sell = (
        _impact(levels[f"{side}_prices"], notional[side], order) for side in ("ask", "bid")
    )
    out["buy_impact"] = 1e4 * (buy / mid - 1.0)
    out["sell_impact"] = 1e4 * (1.0 - sell / mid)
    return np.stack([out[feature.name] for feature in FEATURES], axis=1)


def _median_of_positive(values: Floats) -> Floats:
    ordered = np.sort(np.where(values > 0, values, np.nan), axis=1)  # NaN last
    count = (values > 0).sum(axis=1)
    row = np.arange(len(values))
    low = ordered[row, np.maximum((count - 1) // 2, 0)]
    high = ordered[row, np.minimum(count // 2, values.shape[1] - 1)]
    return np.where(count > 0, (low + high) / 2.0, np.nan)


def _slope(price: Floats, notional: Floats, mid: Floats) -> Floats:
    there = notional > 0
    logs = np.log(np.cumsum(notional, axis=1))
    first = logs[:, 0] / np.abs(price[:, 0] / mid - 1.0)
    steps = (logs[:, 1:] / logs[:, :-1] - 1.0) / np.abs(price[:, 1:] / price[:, :-1] - 1.0)
    steps = np.where(there[:, 1:] & there[:, :-1], steps, 0.0)
    return np.asarray((first + steps.sum(axis=1)) / there.sum(axis=1))


def depth(book: dict[str, Floats]) -> dict[str, Floats]:
    """``depth``: notional within 25 bp of the mid of books with levels (..., levels): (...)."""
    bid, ask = book["bid_prices"][..., 0], book["ask_prices"][..., 0]
    mid: Floats = np.where(bid < ask, (bid + ask) / 2.0, np.nan)
    near: Floats = np.zeros(mid.shape)
    for side in ("bid", "ask"):
        price = book[f"{side}_prices"]
        size = book[f"{side}_sizes"]
        level = np.isfinite(price) & np.isfinite(size) & (price > 0) & (size > 0)
        level &= np.abs(price / mid[..., None] - 1.0) <= 25e-4
        near += np.where(level, price * size, 0.0).sum(axis=-1)
    return {"depth": np.where(np.isfinite(mid), near, np.nan)}


def _resilience(depth: Floats) -> Floats:
    seen = np.isfinite(depth)
    row = np.arange(len(depth))
    low = np.where(seen, depth, np.inf).argmin(axis=1)
    before = np.arange(depth.shape[-1])[None, :] <= low[:, None]
    high = np.where(seen & before, depth, -np.inf).max(axis=1)
    bottom = depth[row, low]
    last = depth.shape[-1] - 1 - np.argmax(seen[:, ::-1], axis=1)
    back = (depth[row, last] - bottom) / (high - bottom)
    return np.where(seen.any(axis=1) & (bottom <= SWEEP * high), back, np.nan)


def _order_flow(grid: Times, ts: Times, quotes: dict[str, Floats]) -> Floats:
    good = quotes["bid"] < quotes["ask"]
    for values in quotes.values():
        good &= np.isfinite(values) & (values > 0)
    ts = ts[good]
    b, q, a, r = (quotes[name][good] for name in ("bid", "bid_size", "ask", "ask_size"))
    if len(ts) < 2:
        return np.full(len(grid), np.nan)
    change = (
        np.where(b[1:] >= b[:-1], q[1:], 0.0)
        - np.where(b[1:] <= b[:-1], q[:-1], 0.0)
        - np.where(a[1:] <= a[:-1], r[1:], 0.0)
        + np.where(a[1:] >= a[:-1], r[:-1], 0.0)
    )
    low, high = np.searchsorted(ts, grid - FLOW), np.searchsorted(ts, grid)
    # change[i] joins snapshots i and i + 1: both inside the window
    flow = segment_sums(change, low, np.maximum(low, high - 1))
    depth = segment_sums((q + r) / 2.0, low, high) / (high - low)
    return np.where(high - low >= 2, flow / depth, np.nan)


def _impact(price: Floats, notional: Floats, order: Floats) -> Floats:
    """Mean price of taking ``order`` from the best level on; NaN where the book holds less."""
    reached = np.cumsum(notional, axis=1)
    taken = np.clip(order[:, None] - (reached - notional), 0.0, notional)
    size = np.where(taken > 0, taken / price, 0.0).sum(axis=1)
    return np.where((reached[:, -1] >= order) & (order > 0), order / size, np.nan)


FAMILY = Family(
    name="order_book",
    version=2,
    revision="2",
    description="Spread, shape, imbalance, walls, resilience and flow of the order book.",
    features=FEATURES,
    needs=Needs(bars=BARS, book=RESILIENCE, levels=LEVELS, quotes=5),
    compute=compute,
    of_book=depth,
    levels_of=MAX_AGE,
)
