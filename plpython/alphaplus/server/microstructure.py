"""The sixteen microstructure features: pure numpy over events.

Inputs are the events that had happened and were known by the times asked about; nothing here reads
a clock or a database. Times are int64 microseconds since 2000-01-01 UTC, ascending. All windows end
at the grid time ``t`` and hold events with ``t - window <= ts < t``.

Definitions and sources stand in :data:`FEATURES`. A value is NaN where it cannot be known: no
trade in the window, no book before a trade, a covariance of the wrong sign.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from alphaplus.server.families import Family, Feature, Inputs, Needs
from alphaplus.server.windows import fill_quiet
from alphaplus.server.windows import segment_sums as _sums

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

SECOND = 1_000_000
MINUTE = 60 * SECOND
TRADE_WINDOW = 15 * MINUTE
BAR_WINDOW = 60  # one-minute bars
REALISED_AFTER = 60 * SECOND
MID_MAX_AGE = 5 * MINUTE  # an older book tells nothing of a trade
HAWKES_BIN = 10 * SECOND
VPIN_BUCKETS = 50
SIZE_BINS = 16
VARIANCE_RATIO_LAG = 5
PERMUTATION_ORDER = 3


FEATURES: tuple[Feature, ...] = (
    Feature(
        "roll_spread",
        "2 sqrt(-cov(dp_i, dp_{i-1})) / mean price, over the trades of 15 minutes; null where the"
        " covariance is not negative",
        "bp",
        "Roll (1984), Journal of Finance 39(4)",
    ),
    Feature(
        "corwin_schultz_spread",
        "mean over pairs of consecutive one-minute bars, 60 bars, of max(0, 2(e^a - 1)/(1 + e^a)),"
        " a from the high-low ratios of one and of two bars",
        "bp",
        "Corwin and Schultz (2012), Journal of Finance 67(2)",
    ),
    Feature(
        "abdi_ranaldo_spread",
        "2 sqrt(max(0, mean((c_t - eta_t)(c_t - eta_{t+1})))), c log close, eta mid-range of log"
        " high and low, 60 one-minute bars",
        "bp",
        "Abdi and Ranaldo (2017), Review of Financial Studies 30(12)",
    ),
    Feature(
        "effective_spread",
        "size-weighted mean of 2 side (price - mid) / mid, mid of the last book before the trade,"
        " not older than 5 minutes; 15 minutes",
        "bp",
        "Lee and Ready (1991), Journal of Finance 46(2)",
    ),
    Feature(
        "realised_spread",
        "size-weighted mean of 2 side (price - mid 60 s later) / mid, only trades whose 60 s have"
        " passed, 15 minutes",
        "bp",
        "Huang and Stoll (1996), Journal of Financial Economics 41(3)",
    ),
    Feature(
        "kyle_lambda",
        "least-squares slope of one-minute returns on net taker volume in quote currency, 60 bars,"
        " per million",
        "bp per million",
        "Kyle (1985), Econometrica 53(6)",
    ),
    Feature(
        "amihud_illiquidity",
        "mean of |return| / quote volume over one-minute bars with volume, 60 bars, per million",
        "bp per million",
        "Amihud (2002), Journal of Financial Markets 5(1)",
    ),
    Feature(
        "hasbrouck_lambda",
        "least-squares slope, no intercept, of one-minute log returns on sign(x) sqrt(|x|), x net"
        " taker quote volume, 60 bars, per sqrt(million)",
        "bp per root million",
        "Hasbrouck (2009), Journal of Finance 64(3)",
    ),
    Feature(
        "vpin",
        "mean over 50 equal-volume buckets of |buy - sell| / volume, true aggressors, 60 bars,"
        " volume spread evenly within a bar",
        "share",
        "Easley, Lopez de Prado and O'Hara (2012), Review of Financial Studies 25(5)",
    ),
    Feature(
        "trade_sign_autocorrelation",
        "lag-one autocorrelation of aggressor signs, 15 minutes of trades",
        "correlation",
        "Hasbrouck (1991), Journal of Finance 46(1)",
    ),
    Feature(
        "trade_size_entropy",
        "Shannon entropy of trade sizes in 16 base-2 bins around the median, divided by log 16,"
        " 15 minutes",
        "share",
        "Shannon (1948), Bell System Technical Journal 27",
    ),
    Feature(
        "permutation_entropy",
        "entropy of the order patterns of three consecutive one-minute closes, divided by log 6,"
        " 60 bars: 1 is no structure",
        "share",
        "Bandt and Pompe (2002), Physical Review Letters 88(17)",
    ),
    Feature(
        "variance_ratio",
        "variance of overlapping five-minute log returns / (5 x that of one-minute ones), both"
        " about the mean with the small-sample corrections, 60 bars: 1 is a random walk",
        "ratio",
        "Lo and MacKinlay (1988), Review of Financial Studies 1(1)",
    ),
    Feature(
        "inter_trade_duration",
        "mean time between consecutive trades, 15 minutes",
        "s",
        "Engle and Russell (1998), Econometrica 66(5)",
    ),
    Feature(
        "hawkes_branching",
        "max(0, 1 - sqrt(mean / variance)) of the number of trades in 10 s bins, 15 minutes",
        "share",
        "Hardiman and Bouchaud (2014), Physical Review E 90(6)",
    ),
    Feature(
        "tick_rule_agreement",
        "share of trades, after the first price change, whose tick-rule side is the true aggressor,"
        " 15 minutes",
        "share",
        "Lee and Ready (1991); Ellis, Michaely and O'Hara (2000), JFQA 35(4)",
    ),
)
NAMES = tuple(feature.name for feature in FEATURES)


@dataclass(frozen=True)
class Trades:
    """Trades by time: ts (n,), price, size (base units), sign (+1 buyer was the aggressor)."""

    ts: Times
    price: Floats
    size: Floats
    sign: Floats


@dataclass(frozen=True)
class Mids:
    """Mid prices of the book by time: ts (n,), mid."""

    ts: Times
    mid: Floats


@dataclass(frozen=True)
class Bars:
    """One-minute bars per grid time, oldest first: each (n, 60); NaN where a minute had none."""

    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    quote_volume: Floats
    buy_volume: Floats
    buy_quote_volume: Floats


def compute(grid: Times, trades: Trades, mids: Mids, bars: Bars) -> Floats:
    """The features at each time of ``grid``.

    Args:
        grid: (n,) microseconds, ascending.
        trades: at least those of the windows of all grid times.
        mids: the same, and the last one before the first trade.
        bars: (n, 60) arrays, the bars closed by each grid time.

    Returns:
        (n, 16) in the order of :data:`FEATURES`.
    """
    out = np.full((len(grid), len(NAMES)), np.nan)
    if len(grid) == 0:
        return out
    column = {name: i for i, name in enumerate(NAMES)}

    def put(name: str, values: Floats) -> None:
        out[:, column[name]] = values

    with np.errstate(divide="ignore", invalid="ignore"):
        for name, function in _FROM_TRADES.items():
            put(name, function(grid, trades))
        effective, realised = _spreads(grid, trades, mids)
        put("effective_spread", effective)
        put("realised_spread", realised)
        for name, bar_function in _FROM_BARS.items():
            put(name, bar_function(bars))
    out[~np.isfinite(out)] = np.nan
    return out


# --- from trades -------------------------------------------------------------------------------


def _bounds(grid: Times, ts: Times, window: int = TRADE_WINDOW) -> tuple[Times, Times]:
    return np.searchsorted(ts, grid - window), np.searchsorted(ts, grid)


def _roll(grid: Times, trades: Trades) -> Floats:
    low, high = _bounds(grid, trades.ts)
    n = high - low
    change = np.diff(trades.price)
    # change[i] joins trades i and i+1: inside the window low .. high-2; their products one fewer.
    low_c, high_c = low, np.maximum(low, high - 1)
    low_p, high_p = low, np.maximum(low, high - 2)
    products = change[1:] * change[:-1]
    count = np.maximum(n - 2, 0)
    mean = _sums(change, low_c, high_c) / np.maximum(n - 1, 1)
    last = np.clip(high - 2, 0, max(len(change) - 1, 0))
    first = np.clip(low, 0, max(len(change) - 1, 0))
    if len(change) == 0:
        return np.full(len(grid), np.nan)
    total = _sums(change, low_c, high_c)
    # sum (a_i - m)(b_i - m) over neighbours, a without the last change, b without the first
    covariance = (
        _sums(products, low_p, high_p)
        - mean * (total - change[last])
        - mean * (total - change[first])
        + count * mean**2
    ) / count
    price = _sums(trades.price, low, high) / n
    spread = 2e4 * np.sqrt(np.where(covariance < 0, -covariance, np.nan)) / price
    return np.where(count >= 10, spread, np.nan)


def _sign_autocorrelation(grid: Times, trades: Trades) -> Floats:
    low, high = _bounds(grid, trades.ts)
    n = high - low
    if len(trades.ts) < 2:
        return np.full(len(grid), np.nan)
    mean = _sums(trades.sign, low, high) / n
    inside = np.maximum(low, high - 1)
    neighbours = _sums(trades.sign[1:] * trades.sign[:-1], low, inside)
    last = np.clip(high - 1, 0, len(trades.ts) - 1)
    first = np.clip(low, 0, len(trades.ts) - 1)
    total = _sums(trades.sign, low, high)
    covariance = (
        neighbours
        - mean * (total - trades.sign[last])
        - mean * (total - trades.sign[first])
        + (n - 1) * mean**2
    )
    variance = n * (1.0 - mean**2)  # signs are +-1
    return np.where((n >= 10) & (variance > 1e-12), covariance / variance, np.nan)


def _size_entropy(grid: Times, trades: Trades) -> Floats:
    low, high = _bounds(grid, trades.ts)
    out = np.full(len(grid), np.nan)
    exponent = np.log2(trades.size)
    for i, (a, b) in enumerate(zip(low, high, strict=True)):
        if b - a < 10:
            continue
        window = exponent[a:b]
        bins = np.floor(window - np.median(window)).astype(np.int64) + SIZE_BINS // 2
        counts = np.bincount(np.clip(bins, 0, SIZE_BINS - 1), minlength=SIZE_BINS)
        share = counts[counts > 0] / (b - a)
        out[i] = -np.sum(share * np.log(share)) / np.log(SIZE_BINS)
    return out


def _duration(grid: Times, trades: Trades) -> Floats:
    low, high = _bounds(grid, trades.ts)
    n = high - low
    if len(trades.ts) == 0:
        return np.full(len(grid), np.nan)
    last = trades.ts[np.clip(high - 1, 0, len(trades.ts) - 1)]
    first = trades.ts[np.clip(low, 0, len(trades.ts) - 1)]
    return np.where(n >= 2, (last - first) / SECOND / (n - 1), np.nan)


def _hawkes(grid: Times, trades: Trades) -> Floats:
    bins = TRADE_WINDOW // HAWKES_BIN
    edges = grid[:, None] - TRADE_WINDOW + HAWKES_BIN * np.arange(bins + 1)[None, :]
    counts = np.diff(np.searchsorted(trades.ts, edges), axis=1).astype(np.float64)
    mean = counts.mean(axis=1)
    variance = counts.var(axis=1, ddof=1)
    branching = np.maximum(0.0, 1.0 - np.sqrt(mean / variance))
    return np.where((counts.sum(axis=1) >= 10) & (variance > 0), branching, np.nan)


def _tick_rule(grid: Times, trades: Trades) -> Floats:
    low, high = _bounds(grid, trades.ts)
    if len(trades.ts) < 2:
        return np.full(len(grid), np.nan)
    change = np.append(0.0, np.sign(np.diff(trades.price)))
    index = np.arange(len(change))
    moved = np.maximum.accumulate(np.where(change != 0, index, -1))
    side = np.where(moved >= 0, change[np.maximum(moved, 0)], 0.0)
    # only where the last price change joins two trades of the window
    known = np.zeros(len(grid))
    agreed = np.zeros(len(grid))
    agrees = (side == trades.sign).astype(np.float64)
    next_move = np.append(
        np.minimum.accumulate(np.where(change != 0, index, len(change))[::-1])[::-1], len(change)
    )
    start = np.minimum(next_move[np.minimum(low + 1, len(change))], high)
    known = np.maximum(high - start, 0).astype(np.float64)
    agreed = _sums(agrees, start, np.maximum(start, high))
    return np.where(known >= 10, agreed / known, np.nan)


_FROM_TRADES: dict[str, Callable[[Times, Trades], Floats]] = {
    "roll_spread": _roll,
    "trade_sign_autocorrelation": _sign_autocorrelation,
    "trade_size_entropy": _size_entropy,
    "inter_trade_duration": _duration,
    "hawkes_branching": _hawkes,
    "tick_rule_agreement": _tick_rule,
}


def _mid_at(ts: Times, mids: Mids) -> Floats:
    """The last mid strictly before each time; NaN before the first, or when it is too old."""
    if len(mids.ts) == 0:
        return np.full(len(ts), np.nan)
    position = np.searchsorted(mids.ts, ts) - 1
    last = np.maximum(position, 0)
    fresh = (position >= 0) & (mids.ts[last] >= ts - MID_MAX_AGE)
    return np.where(fresh, mids.mid[last], np.nan)


def _spreads(grid: Times, trades: Trades, mids: Mids) -> tuple[Floats, Floats]:
    low, high = _bounds(grid, trades.ts)
    if len(trades.ts) == 0:
        nothing = np.full(len(grid), np.nan)
        return nothing, nothing
    mid = _mid_at(trades.ts, mids)
    later = _mid_at(trades.ts + REALISED_AFTER, mids)
    # Trades before the first book are left out by weight zero.
    weight = np.where(np.isfinite(mid), trades.size, 0.0)
    effective = np.where(
        np.isfinite(mid), 2e4 * trades.sign * (trades.price - mid) / mid * trades.size, 0.0
    )
    weight_later = np.where(np.isfinite(mid) & np.isfinite(later), trades.size, 0.0)
    settled = np.where(
        weight_later > 0, 2e4 * trades.sign * (trades.price - later) / mid * trades.size, 0.0
    )
    ripe = np.maximum(low, np.searchsorted(trades.ts, grid - REALISED_AFTER))
    return (
        _sums(effective, low, high) / _sums(weight, low, high),
        _sums(settled, low, ripe) / _sums(weight_later, low, ripe),
    )


# --- from one-minute bars ----------------------------------------------------------------------


def _full(bars: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(bars).all(axis=1))


def _returns(bars: Bars) -> Floats:
    return np.diff(np.log(bars.close), axis=1)


def _corwin_schultz(bars: Bars) -> Floats:
    k = 3.0 - 2.0 * np.sqrt(2.0)
    single = np.log(bars.high / bars.low) ** 2
    beta = single[:, 1:] + single[:, :-1]
    two = np.log(
        np.maximum(bars.high[:, 1:], bars.high[:, :-1])
        / np.minimum(bars.low[:, 1:], bars.low[:, :-1])
    )
    alpha = (np.sqrt(2.0 * beta) - np.sqrt(beta)) / k - np.sqrt(two**2 / k)
    spread = np.maximum(0.0, 2.0 * np.expm1(alpha) / (1.0 + np.exp(alpha)))
    return np.where(_full(bars.high), 1e4 * spread.mean(axis=1), np.nan)


def _abdi_ranaldo(bars: Bars) -> Floats:
    close = np.log(bars.close)
    middle = (np.log(bars.high) + np.log(bars.low)) / 2.0
    product = (close[:, :-1] - middle[:, :-1]) * (close[:, :-1] - middle[:, 1:])
    spread = 2.0 * np.sqrt(np.maximum(0.0, product.mean(axis=1)))
    return np.where(_full(bars.high), 1e4 * spread, np.nan)


def _net_quote(bars: Bars) -> Floats:
    return (2.0 * bars.buy_quote_volume - bars.quote_volume)[:, 1:] / 1e6


def _kyle(bars: Bars) -> Floats:
    returns = 1e4 * (bars.close[:, 1:] / bars.close[:, :-1] - 1.0)
    flow = _net_quote(bars)
    flow_c = flow - flow.mean(axis=1, keepdims=True)
    returns_c = returns - returns.mean(axis=1, keepdims=True)
    slope = (flow_c * returns_c).sum(axis=1) / (flow_c**2).sum(axis=1)
    return np.where(_full(bars.close), slope, np.nan)


def _amihud(bars: Bars) -> Floats:
    returns = 1e4 * np.abs(bars.close[:, 1:] / bars.close[:, :-1] - 1.0)
    volume = bars.quote_volume[:, 1:] / 1e6
    traded = volume > 0
    each = np.where(traded, returns / np.where(traded, volume, 1.0), 0.0)
    return np.where(_full(bars.close), each.sum(axis=1) / traded.sum(axis=1), np.nan)


def _hasbrouck(bars: Bars) -> Floats:
    flow = _net_quote(bars)
    root = np.sign(flow) * np.sqrt(np.abs(flow))
    slope = 1e4 * (root * _returns(bars)).sum(axis=1) / (root**2).sum(axis=1)
    return np.where(_full(bars.close), slope, np.nan)


def vpin(volume: Floats, buy_volume: Floats, buckets: int = VPIN_BUCKETS) -> Floats:
    """VPIN of each row: mean |buy - sell| / volume over equal-volume buckets.

    Args:
        volume: (n, w) traded volume per bar, oldest first; NaN counts as a bar that is not known.
        buy_volume: (n, w) of it, bought by the aggressor.
        buckets: number of equal-volume buckets; a bar's volume is spread evenly over its time.

    Returns:
        (n,) in [0, 1]; NaN where a bar is not known or nothing was traded.

    Source: Easley, Lopez de Prado and O'Hara (2012), Review of Financial Studies 25(5).
    """
    n = len(volume)
    out = np.full(n, np.nan)
    total = volume.sum(axis=1)
    for i in np.flatnonzero(np.isfinite(total) & (total > 0) & np.isfinite(buy_volume).all(axis=1)):
        reached = np.append(0.0, np.cumsum(volume[i]))
        bought = np.append(0.0, np.cumsum(buy_volume[i]))
        edges = np.linspace(0.0, reached[-1], buckets + 1)
        buy = np.diff(np.interp(edges, reached, bought))
        size = reached[-1] / buckets
        out[i] = np.mean(np.abs(2.0 * buy - size)) / size
    return out


def _vpin(bars: Bars) -> Floats:
    return vpin(bars.volume, bars.buy_volume)


def _permutation_entropy(bars: Bars) -> Floats:
    a, b, c = bars.close[:, :-2], bars.close[:, 1:-1], bars.close[:, 2:]
    # ties count as in order of time, as in the paper
    code = 4 * (a <= b) + 2 * (b <= c) + (a <= c)
    n, m = code.shape
    counts = np.zeros((n, 8))
    for value in range(8):
        counts[:, value] = (code == value).sum(axis=1)
    share = counts / m
    entropy = -np.where(share > 0, share * np.log(np.where(share > 0, share, 1.0)), 0.0).sum(axis=1)
    return np.where(_full(bars.close), entropy / np.log(6.0), np.nan)


def _variance_ratio(bars: Bars) -> Floats:
    q = VARIANCE_RATIO_LAG
    price = np.log(bars.close)
    one = np.diff(price, axis=1)
    n = one.shape[1]
    mean = one.mean(axis=1, keepdims=True)
    variance_1 = ((one - mean) ** 2).sum(axis=1) / (n - 1)
    long = price[:, q:] - price[:, :-q]
    m = q * (n - q + 1) * (1.0 - q / n)
    variance_q = ((long - q * mean) ** 2).sum(axis=1) / m
    return np.where(_full(bars.close), variance_q / variance_1, np.nan)


_FROM_BARS: dict[str, Callable[[Bars], Floats]] = {
    "corwin_schultz_spread": _corwin_schultz,
    "abdi_ranaldo_spread": _abdi_ranaldo,
    "kyle_lambda": _kyle,
    "amihud_illiquidity": _amihud,
    "hasbrouck_lambda": _hasbrouck,
    "vpin": _vpin,
    "permutation_entropy": _permutation_entropy,
    "variance_ratio": _variance_ratio,
}


def _compute(inputs: Inputs) -> Floats:
    bars = inputs.bars
    fill_quiet(bars)
    mid = (inputs.quotes["bid"] + inputs.quotes["ask"]) / 2.0
    two_sided = np.isfinite(mid)
    return compute(
        inputs.grid,
        Trades(
            inputs.trade_ts, inputs.trades["price"], inputs.trades["size"], inputs.trades["sign"]
        ),
        Mids(inputs.quote_ts[two_sided], mid[two_sided]),
        Bars(
            *(
                bars[name]
                for name in (
                    "high", "low", "close", "volume", "quote_volume", "buy_volume",
                    "buy_quote_volume",
                )
            )
        ),
    )  # fmt: skip


FAMILY = Family(
    name="microstructure",
    version=1,
    revision="1",
    description="Spreads, price impact, toxicity and efficiency from single trades and bars.",
    features=FEATURES,
    needs=Needs(bars=BAR_WINDOW, trades=15, quotes=20),
    compute=_compute,
)
