"""The sixteen microstructure features, from trades one by one, tops of the book and minute bars.

Windows end at the grid time ``t``: trades with ``t - 15 min <= ts < t`` that were known by t, books
up to five minutes before a trade, the 60 one-minute bars closed by t. The trades of a minute are
added up once (:func:`minutes`); a window joins its minutes, also where a price change or a pair of
signs crosses from one to the next, so that the result is that of the trades in one row.

Definitions and sources stand in :data:`FEATURES`. A value is NaN where it cannot be known: too few
trades in the window, no book before a trade, a covariance of the wrong sign, a minute without bar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from alphaplus.server.features import compute as computing
from alphaplus.server.features.family import Family, Feature, Keep
from alphaplus.server.market import events
from alphaplus.server.market import revisions as w
from alphaplus.server.market.reader import MarketReader, Needs
from alphaplus.server.types import MINUTE, SECOND, Floats, Mask, Times

MINUTES = 15  # of trades
BARS = 60
MID_AGE = 5  # minutes for which a mid holds
HAWKES_BIN = 10 * SECOND
VPIN_BUCKETS = 50
SIZE_POWERS = (-8, 31)  # of two, of a trade's value in quote currency
SIZE_BINS = SIZE_POWERS[1] - SIZE_POWERS[0] + 1
VARIANCE_RATIO_LAG = 5
PERMUTATION_ORDER = 3


FEATURES: tuple[Feature, ...] = (
    Feature(
        "roll_spread",
        "2 sqrt(-cov(dp_i, dp_{i-1})) / mean price, over the trades of 15 minutes; null where the"
        " covariance is not negative",
        "bp",
        "Roll (1984), Journal of Finance 39(4)",
        ("trades.ts", "trades.price"),
    ),
    Feature(
        "corwin_schultz_spread",
        "mean over pairs of consecutive one-minute bars, 60 bars, of max(0, 2(e^a - 1)/(1 + e^a)),"
        " a from the high-low ratios of one and of two bars",
        "bp",
        "Corwin and Schultz (2012), Journal of Finance 67(2)",
        ("bars.high", "bars.low"),
    ),
    Feature(
        "abdi_ranaldo_spread",
        "2 sqrt(max(0, mean((c_t - eta_t)(c_t - eta_{t+1})))), c log close, eta mid-range of log"
        " high and low, 60 one-minute bars",
        "bp",
        "Abdi and Ranaldo (2017), Review of Financial Studies 30(12)",
        ("bars.high", "bars.low", "bars.close"),
    ),
    Feature(
        "effective_spread",
        "size-weighted mean of 2 side (price - mid) / mid, mid of the last book before the trade"
        " (since the start of the fifth minute before), 15 minutes",
        "bp",
        "Lee and Ready (1991), Journal of Finance 46(2)",
        (
            "trades.ts",
            "trades.price",
            "trades.size",
            "trades.sign",
            "quotes.ts",
            "quotes.bid",
            "quotes.ask",
        ),
    ),
    Feature(
        "realised_spread",
        "size-weighted mean of 2 side (price - later mid) / mid, later: at the end of the minute"
        " after the trade's (60 to 120 s), so without the last minute's trades, 15 minutes",
        "bp",
        "Huang and Stoll (1996), Journal of Financial Economics 41(3)",
        (
            "trades.ts",
            "trades.price",
            "trades.size",
            "trades.sign",
            "quotes.ts",
            "quotes.bid",
            "quotes.ask",
        ),
    ),
    Feature(
        "kyle_lambda",
        "least-squares slope of one-minute returns on net taker volume in quote currency, 60 bars,"
        " per million",
        "bp per million",
        "Kyle (1985), Econometrica 53(6)",
        ("bars.close", "bars.quote_volume", "bars.buy_quote_volume"),
    ),
    Feature(
        "amihud_illiquidity",
        "mean of |return| / quote volume over one-minute bars with volume, 60 bars, per million;"
        " null where the volume of one is not known",
        "bp per million",
        "Amihud (2002), Journal of Financial Markets 5(1)",
        ("bars.close", "bars.quote_volume"),
    ),
    Feature(
        "hasbrouck_lambda",
        "least-squares slope, no intercept, of one-minute log returns on sign(x) sqrt(|x|), x net"
        " taker quote volume, 60 bars, per sqrt(million)",
        "bp per root million",
        "Hasbrouck (2009), Journal of Finance 64(3)",
        ("bars.close", "bars.quote_volume", "bars.buy_quote_volume"),
    ),
    Feature(
        "vpin",
        "mean over 50 equal-volume buckets of |buy - sell| / volume, true aggressors, 60 bars,"
        " volume spread evenly within a bar",
        "share",
        "Easley, Lopez de Prado and O'Hara (2012), Review of Financial Studies 25(5)",
        ("bars.volume", "bars.buy_volume"),
    ),
    Feature(
        "trade_sign_autocorrelation",
        "lag-one autocorrelation of aggressor signs, 15 minutes of trades",
        "correlation",
        "Hasbrouck (1991), Journal of Finance 46(1)",
        ("trades.ts", "trades.sign"),
    ),
    Feature(
        "trade_size_entropy",
        "Shannon entropy of the powers of two (floor of log2, from -8 to 31) of trade values in"
        " quote currency, 15 minutes",
        "bit",
        "Shannon (1948), Bell System Technical Journal 27",
        ("trades.ts", "trades.price", "trades.size"),
    ),
    Feature(
        "permutation_entropy",
        "entropy of the order patterns of three consecutive one-minute closes, divided by log 6,"
        " 60 bars: 1 is no structure",
        "share",
        "Bandt and Pompe (2002), Physical Review Letters 88(17)",
        ("bars.close",),
    ),
    Feature(
        "variance_ratio",
        "variance of overlapping five-minute log returns / (5 x that of one-minute ones), both"
        " about the mean with the small-sample corrections, 60 bars: 1 is a random walk",
        "ratio",
        "Lo and MacKinlay (1988), Review of Financial Studies 1(1)",
        ("bars.close",),
    ),
    Feature(
        "inter_trade_duration",
        "mean time between consecutive trades, 15 minutes",
        "s",
        "Engle and Russell (1998), Econometrica 66(5)",
        ("trades.ts",),
    ),
    Feature(
        "hawkes_branching",
        "max(0, 1 - sqrt(mean / variance)) of the number of trades in 10 s bins, 15 minutes",
        "share",
        "Hardiman and Bouchaud (2014), Physical Review E 90(6)",
        ("trades.ts",),
    ),
    Feature(
        "tick_rule_agreement",
        "share of trades, after the first price change, whose tick-rule side is the true aggressor,"
        " 15 minutes",
        "share",
        "Lee and Ready (1991); Ellis, Michaely and O'Hara (2000), JFQA 35(4)",
        ("trades.ts", "trades.price", "trades.sign"),
    ),
)
NAMES = tuple(feature.name for feature in FEATURES)


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


_CHANNELS = tuple(Bars.__dataclass_fields__)


class Windows:
    """Windows of 60 bars, whose features are sums of terms: one bar's, or one's and those before.

    They are rows of windows (n, 60); or, with ``first``, their first places, cut from bars in a row
    (m,): then a term is worked out once and not in every window that it is in.
    """

    def __init__(self, bars: Bars, first: Times | None = None) -> None:
        self.bars, self.first = bars, first

    @cached_property
    def log_close(self) -> Floats:
        """Natural logarithm of the closes."""
        return np.log(self.bars.close)

    def cut(self, terms: Floats) -> Floats:
        """The terms (..., m - d) of each window: (n, 60 - d)."""
        if self.first is None:
            return terms
        return w.sliding(terms, self.first, self._width(terms))

    def count(self, terms: Mask) -> Times:
        """How many terms of each window are true: (n,)."""
        if self.first is None:
            return np.asarray(terms.sum(axis=1))
        total = np.concatenate([[0], np.cumsum(terms)])
        return np.asarray(total[self.first + self._width(terms)] - total[self.first])

    def whole(self, values: Floats) -> Mask:
        """Whether all values (..., m - d) of each window are known: (n,)."""
        return np.asarray(self.count(np.isfinite(values)) == self._width(values))

    def _width(self, terms: npt.NDArray[Any]) -> int:
        return int(BARS - self.bars.close.shape[-1] + terms.shape[-1])


def compute(minutes: dict[str, Floats], mids: Floats, bars: Bars) -> Floats:
    """The features at each of n grid times.

    Args:
        minutes: what :func:`of_minutes` gives of the 15 minutes before each time.
        mids: (n, 20), the last mid of each of the 20 minutes before each time.
        bars: (n, 60) arrays, the bars closed by each time.

    Returns:
        (n, 16) in the order of :data:`FEATURES`.
    """
    return _columns(_of_trades(minutes, mids) | _of_bars(Windows(bars)))


def _columns(values: dict[str, Floats]) -> Floats:
    out = np.stack([values[name] for name in NAMES], axis=1)
    out[~np.isfinite(out)] = np.nan
    return out


def _of_trades(minutes: dict[str, Floats], mids: Floats) -> dict[str, Floats]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return _from_sequence(minutes) | _from_sums(minutes) | _spreads(minutes, mids)


def _of_bars(windows: Windows) -> dict[str, Floats]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return {name: function(windows) for name, function in _FROM_BARS.items()}


# --- from trades and tops of the book ----------------------------------------------------------


def minutes(trades: events.Trades, tops: events.Tops, start: int, size: int) -> w.Series:
    """Channels of each minute from its trades and the books before them.

    ``n``; ``value`` of prices summed; ``first_ts``, ``last_ts`` (seconds into the minute),
    ``first_price``, ``last_price``; ``first_change``, ``last_change``, ``products`` of consecutive
    price changes; ``signs``, ``sign_products``, ``first_sign``, ``last_sign``; ``lead``,
    ``lead_buys`` (trades before the minute's first price change), ``ruled``, ``agreed`` (after it),
    ``last_side``; ``bins`` (trades per ten seconds), ``sizes`` (trades per power of two of value);
    and of trades with a mid before them in the minute ``paid``, ``flow``, ``flow_over_mid``,
    ``weight``, of the others ``early_paid``, ``early_flow``, ``early_weight``; ``mid``, the last.
    """
    kind = np.concatenate([np.ones(len(trades.ts), bool), np.zeros(len(tops.ts), bool)])
    ts = np.concatenate([trades.ts, tops.ts])
    # A book of the very time of a trade does not come before it: trades first.
    order = np.argsort(ts, kind="stable")

    def both(of_trades: npt.NDArray[Any], of_tops: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([of_trades, of_tops])[order]

    ts, kind = ts[order], kind[order]
    states = events.states(
        ts,
        both(trades.usable, tops.usable),
        both(trades.expires, tops.expires),
        start,
        size,
    )
    nothing = np.full(len(tops.ts), np.nan)
    mids = both(np.full(len(trades.ts), np.nan), (tops.bid + tops.ask) / 2.0)[states.row]
    is_trade = kind[states.row]
    index = np.arange(len(states.row))
    begins = np.zeros(len(states.place), dtype=np.int64)
    starts = np.append(True, np.diff(states.state) != 0)[: len(index)]
    begins[states.state[starts]] = index[starts]
    before = np.maximum.accumulate(np.where(is_trade, -1, index))
    seen = before >= begins[states.state]
    mid = np.where(seen, mids[before], np.nan)[is_trade]

    book = events.Groups(states.state[~is_trade], len(states.place))
    channels = {"mid": book.spread(mids[~is_trade][book.last])}
    row, state = states.row[is_trade], states.state[is_trade]
    price, size_, sign = (
        both(values, nothing)[row] for values in (trades.price, trades.size, trades.sign)
    )
    channels |= _prices(price, sign, state, len(states.place))
    groups = events.Groups(state, len(states.place))
    offset = ts[row] - (start + states.place[state] * MINUTE)
    channels["first_ts"] = groups.spread(offset[groups.first] / SECOND)
    channels["last_ts"] = groups.spread(offset[groups.last] / SECOND)
    channels["bins"] = _counts(offset // HAWKES_BIN, state, MINUTE // HAWKES_BIN, groups)
    power = np.clip(np.floor(np.log2(price * size_)).astype(np.int64), *SIZE_POWERS)
    channels["sizes"] = _counts(power - SIZE_POWERS[0], state, SIZE_BINS, groups)
    known = np.isfinite(mid)
    signed = sign * size_
    channels["paid"] = groups.sum(np.where(known, signed * (price - mid) / mid, 0.0))
    channels["flow"] = groups.sum(np.where(known, signed, 0.0))
    channels["flow_over_mid"] = groups.sum(np.where(known, signed / mid, 0.0))
    channels["weight"] = groups.sum(np.where(known, size_, 0.0))
    channels["early_paid"] = groups.sum(np.where(known, 0.0, signed * price))
    channels["early_flow"] = groups.sum(np.where(known, 0.0, signed))
    channels["early_weight"] = groups.sum(np.where(known, 0.0, size_))
    return events.series(states, channels, start, size)


def _counts(kind: Times, state: Times, kinds: int, groups: events.Groups) -> Floats:
    """How many rows of each kind each group has: (groups, kinds); NaN for groups without rows."""
    counts = np.bincount(state * kinds + kind, minlength=groups.count * kinds)
    return groups.spread(counts.reshape(-1, kinds)[groups.some].astype(np.float64))


def _prices(price: Floats, sign: Floats, state: Times, count: int) -> dict[str, Floats]:
    groups = events.Groups(state, count)
    n = len(price)
    inside = np.zeros(n, dtype=bool)  # joined to the row before
    inside[1:] = state[1:] == state[:-1]
    change = np.zeros(n)
    change[1:] = np.where(inside[1:], price[1:] - price[:-1], 0.0)
    products = np.zeros(n)
    products[1:] = change[1:] * change[:-1]  # zero where either joins nothing
    sign_products = np.zeros(n)
    sign_products[1:] = np.where(inside[1:], sign[1:] * sign[:-1], 0.0)

    index = np.arange(n)
    moved = np.maximum.accumulate(np.where(change != 0, index, -1))
    first_of = np.repeat(groups.first, groups.size[groups.some])
    ruled = moved >= first_of  # a change within the group lies behind
    side = np.where(ruled, np.sign(change[moved]), 0.0) if n else np.zeros(0)
    lead = ~ruled
    two = groups.size[groups.some] >= 2
    last_change = np.where(two, change[groups.last], np.nan)
    second = np.minimum(groups.first + 1, max(n - 1, 0))
    return {
        "n": groups.spread(groups.size[groups.some].astype(np.float64)),
        "value": groups.sum(price),
        "first_price": groups.spread(price[groups.first]),
        "last_price": groups.spread(price[groups.last]),
        "first_change": groups.spread(np.where(two, change[second], np.nan)),
        "last_change": groups.spread(last_change),
        "products": groups.sum(products),
        "signs": groups.sum(sign),
        "sign_products": groups.sum(sign_products),
        "first_sign": groups.spread(sign[groups.first]),
        "last_sign": groups.spread(sign[groups.last]),
        "lead": groups.sum(lead.astype(np.float64)),
        "lead_buys": groups.sum((lead & (sign > 0)).astype(np.float64)),
        "ruled": groups.sum(ruled.astype(np.float64)),
        "agreed": groups.sum((ruled & (side == sign)).astype(np.float64)),
        "last_side": groups.spread(side[groups.last]),
    }


def _from_sequence(m: dict[str, Floats]) -> dict[str, Floats]:
    """What joins trades to the trades before them, across the ends of minutes."""
    some = m["n"] > 0
    row, place = np.arange(len(some)), np.arange(MINUTES)
    first = np.argmax(some, axis=1)
    last = MINUTES - 1 - np.argmax(some[:, ::-1], axis=1)
    newest = np.maximum.accumulate(np.where(some, place, -1), axis=1)
    before = np.full_like(newest, -1)  # the last minute before with a trade
    before[:, 1:] = newest[:, :-1]
    begun = before >= 0
    at = row[:, None], np.maximum(before, 0)

    def of_before(values: Floats) -> Floats:
        return np.where(begun, values[at], np.nan)

    joined = some & begun
    change = np.where(joined, m["first_price"] - of_before(m["last_price"]), np.nan)
    inner = np.where(np.isfinite(m["last_change"]), m["last_change"], change)
    products = _in_turn(m["products"], change * of_before(inner), change * m["first_change"])
    sign_products = _in_turn(
        m["sign_products"], np.where(joined, m["first_sign"] * of_before(m["last_sign"]), np.nan)
    )
    # the tick rule: a run without a change of price has the side of the last change before
    moves = np.zeros((len(some), 2 * MINUTES))
    moves[:, ::2] = np.where(joined, np.sign(change), 0.0)
    moves[:, 1::2] = np.where(some, m["last_side"], 0.0)
    moved = np.maximum.accumulate(np.where(moves != 0, np.arange(2 * MINUTES), 0), axis=1)
    side = moves[row[:, None], moved[:, ::2]]
    led = some & (side != 0)
    buys = np.where(side > 0, m["lead_buys"], m["lead"] - m["lead_buys"])
    ruled = _total(m["ruled"]) + np.where(led, m["lead"], 0.0).sum(axis=1)
    agreed = _total(m["agreed"]) + np.where(led, buys, 0.0).sum(axis=1)

    first_price, first_sign = m["first_price"][row, first], m["first_sign"][row, first]
    last_price, last_sign = m["last_price"][row, last], m["last_sign"][row, last]
    changes = np.stack([change, m["first_change"]], axis=2).reshape(len(some), -1)
    first_change = changes[row, np.argmax(np.isfinite(changes), axis=1)]
    last_change = inner[row, last]

    n = _total(m["n"])
    # sum (a_i - mean)(b_i - mean) over neighbours, a without the last, b without the first
    count = n - 2
    total = last_price - first_price
    mean = total / (n - 1)
    covariance = (
        products - mean * (total - last_change) - mean * (total - first_change) + count * mean**2
    ) / count
    price = _total(m["value"]) / n
    roll = 2e4 * np.sqrt(np.where(covariance < 0, -covariance, np.nan)) / price
    signs = _total(m["signs"])
    mean = signs / n
    sign_covariance = (
        sign_products - mean * (signs - last_sign) - mean * (signs - first_sign) + (n - 1) * mean**2
    )
    variance = n * (1.0 - mean**2)  # signs are +-1
    return {
        "roll_spread": np.where(count >= 10, roll, np.nan),
        "trade_sign_autocorrelation": np.where(
            (n >= 10) & (variance > 1e-12), sign_covariance / variance, np.nan
        ),
        "tick_rule_agreement": np.where(ruled >= 10, agreed / ruled, np.nan),
    }


def _in_turn(*parts: Floats) -> Floats:
    """Sum over a window's minutes, one after the other and in each part after part; what is not
    known counts nothing."""
    terms = np.zeros((len(parts[0]), 1 + parts[0].shape[1] * len(parts)))
    for k, part in enumerate(parts):
        terms[:, 1 + k :: len(parts)] = np.where(np.isfinite(part), part, 0.0)
    total: Floats = np.add.accumulate(terms, axis=1)[:, -1]
    return total


_SEQUENCE = (
    "products", "first_price", "last_price", "first_change", "last_change",
    "sign_products", "first_sign", "last_sign", "lead", "lead_buys", "ruled", "agreed", "last_side",
)  # fmt: skip
_OTHERS = (
    "n", "value", "signs", "first_ts", "last_ts", "bins",
    "paid", "flow", "flow_over_mid", "weight", "early_paid", "early_flow", "early_weight",
)  # fmt: skip


def _total(values: Floats) -> Floats:
    """Sum over a window's minutes, those without a trade counting nothing."""
    out: Floats = _or_zero(values).sum(axis=1)
    return out


def _or_zero(values: Floats) -> Floats:
    return np.where(values == values, values, 0.0)  # noqa: PLR0124 (NaN is not itself)


def _from_sums(m: dict[str, Floats]) -> dict[str, Floats]:
    n = _total(m["n"])
    some = m["n"] > 0
    row = np.arange(len(some))
    first = np.argmax(some, axis=1)
    last = MINUTES - 1 - np.argmax(some[:, ::-1], axis=1)
    time = 60.0 * (last - first) + m["last_ts"][row, last] - m["first_ts"][row, first]

    counts = _or_zero(m["bins"]).reshape(len(n), -1)
    mean, variance = counts.mean(axis=1), counts.var(axis=1, ddof=1)
    branching = np.maximum(0.0, 1.0 - np.sqrt(mean / variance))

    share = m["sizes"] / n[:, None]
    entropy = -np.where(share > 0, share * np.log2(np.where(share > 0, share, 1.0)), 0.0)
    return {
        "inter_trade_duration": np.where(n >= 2, time / (n - 1), np.nan),
        "hawkes_branching": np.where((n >= 10) & (variance > 0), branching, np.nan),
        "trade_size_entropy": np.where(n >= 10, entropy.sum(axis=1), np.nan),
    }


def _held(mids: Floats) -> Floats:
    """The last mid of each minute or of the few before it: (n, 20)."""
    place = np.broadcast_to(np.arange(mids.shape[1]), mids.shape)
    known = np.maximum.accumulate(np.where(np.isfinite(mids), place, -1), axis=1)
    held = np.take_along_axis(mids, np.maximum(known, 0), axis=1)
    return np.where((known >= 0) & (place - known < MID_AGE), held, np.nan)


def _spreads(m: dict[str, Floats], mids: Floats) -> dict[str, Floats]:
    held = _held(mids)
    before = held[:, MID_AGE - 1 : -1]  # at the start of each of the 15 minutes
    known = np.isfinite(before)

    def part(name: str) -> Floats:
        return _or_zero(m[name])

    def early(values: Floats) -> Floats:
        return np.where(known, values, 0.0)

    paid = part("paid") + early(part("early_paid") / before - part("early_flow"))
    weight = part("weight") + early(part("early_weight"))
    effective = 2e4 * paid.sum(axis=1) / weight.sum(axis=1)

    later = held[:, MID_AGE + 1 :]  # at the end of the minute after, of all but the last
    ripe = np.isfinite(later)
    flow = (part("flow") + early(part("early_flow")))[:, :-1]
    over = (part("flow_over_mid") + early(part("early_flow") / before))[:, :-1]
    kept = np.where(ripe, paid[:, :-1] + flow - later * over, 0.0)
    realised = 2e4 * kept.sum(axis=1) / np.where(ripe, weight[:, :-1], 0.0).sum(axis=1)
    return {"effective_spread": effective, "realised_spread": realised}


# --- from one-minute bars ----------------------------------------------------------------------


def _returns(close: Floats) -> Floats:
    return close[..., 1:] / close[..., :-1] - 1.0


def _corwin_schultz(b: Windows) -> Floats:
    high, low = b.bars.high, b.bars.low
    k = 3.0 - 2.0 * np.sqrt(2.0)
    single = np.log(high / low) ** 2
    beta = single[..., 1:] + single[..., :-1]
    two = np.log(
        np.maximum(high[..., 1:], high[..., :-1]) / np.minimum(low[..., 1:], low[..., :-1])
    )
    alpha = (np.sqrt(2.0 * beta) - np.sqrt(beta)) / k - np.sqrt(two**2 / k)
    spread = np.maximum(0.0, 2.0 * np.expm1(alpha) / (1.0 + np.exp(alpha)))
    return np.where(b.whole(high), 1e4 * b.cut(spread).mean(axis=1), np.nan)


def _abdi_ranaldo(b: Windows) -> Floats:
    close = b.log_close
    middle = (np.log(b.bars.high) + np.log(b.bars.low)) / 2.0
    product = (close[..., :-1] - middle[..., :-1]) * (close[..., :-1] - middle[..., 1:])
    spread = 2.0 * np.sqrt(np.maximum(0.0, b.cut(product).mean(axis=1)))
    return np.where(b.whole(b.bars.high), 1e4 * spread, np.nan)


def _net_quote(bars: Bars) -> Floats:
    return (2.0 * bars.buy_quote_volume - bars.quote_volume)[..., 1:] / 1e6


def _kyle(b: Windows) -> Floats:
    returns = b.cut(1e4 * _returns(b.bars.close))
    flow = b.cut(_net_quote(b.bars))
    flow_c = flow - flow.mean(axis=1, keepdims=True)
    returns_c = returns - returns.mean(axis=1, keepdims=True)
    slope = (flow_c * returns_c).sum(axis=1) / (flow_c**2).sum(axis=1)
    return np.where(b.whole(b.bars.close), slope, np.nan)


def _amihud(b: Windows) -> Floats:
    returns = 1e4 * np.abs(_returns(b.bars.close))
    volume = b.bars.quote_volume[..., 1:] / 1e6
    traded = volume > 0
    each = np.where(traded, returns / np.where(traded, volume, 1.0), 0.0)
    known = b.whole(b.bars.close) & b.whole(volume)
    return np.where(known, b.cut(each).sum(axis=1) / b.count(traded), np.nan)


def _hasbrouck(b: Windows) -> Floats:
    flow = _net_quote(b.bars)
    root = np.sign(flow) * np.sqrt(np.abs(flow))
    slope = 1e4 * b.cut(root * np.diff(b.log_close)).sum(axis=1) / b.cut(root**2).sum(axis=1)
    return np.where(b.whole(b.bars.close), slope, np.nan)


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
    out = np.full(len(volume), np.nan)
    total = volume.sum(axis=1)
    rows = np.flatnonzero(np.isfinite(total) & (total > 0) & np.isfinite(buy_volume).all(axis=1))
    if len(rows) == 0:
        return out
    reached = np.zeros((len(rows), volume.shape[1] + 1))
    bought = np.zeros_like(reached)
    np.cumsum(volume[rows], axis=1, out=reached[:, 1:])
    np.cumsum(buy_volume[rows], axis=1, out=bought[:, 1:])
    size = reached[:, -1] / buckets
    edges = np.arange(buckets + 1) * size[:, None]
    edges[:, -1] = reached[:, -1]
    if len(rows) < 4:
        at = np.stack([np.interp(*row) for row in zip(edges, reached, bought, strict=True)])
    else:
        at = _interpolated(edges, reached, bought)
    out[rows] = np.abs(2.0 * np.diff(at, axis=1) - size[:, None]).mean(axis=1) / size
    return out


def _interpolated(x: Floats, known: Floats, values: Floats) -> Floats:
    """numpy.interp row by row, to the last bit: for x between the first and the last known."""
    last = known.shape[1] - 1
    across = np.ascontiguousarray(x.T)
    count = np.zeros(across.shape, dtype=np.min_scalar_type(last))
    for of_place in np.ascontiguousarray(known.T)[1:]:
        count += of_place <= across
    low = count.T.astype(np.int64)  # the last place that is not above x
    base = (np.arange(len(x)) * known.shape[1])[:, None]
    place = base + np.minimum(low, last - 1)
    flat, flat_values = known.ravel(), values.ravel()
    here, start = flat_values.take(place), flat.take(place)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (flat_values.take(place + 1) - here) / (flat.take(place + 1) - start)
    between = slope * (x - start) + here
    return np.where(low == last, values[:, -1:], between)


def _vpin(b: Windows) -> Floats:
    return vpin(b.cut(b.bars.volume), b.cut(b.bars.buy_volume))


def _permutation_entropy(windows: Windows) -> Floats:
    close = windows.bars.close
    a, b, c = close[..., :-2], close[..., 1:-1], close[..., 2:]
    # ties count as in order of time, as in the paper
    code = 4 * (a <= b) + 2 * (b <= c) + (a <= c)
    counts = np.stack([windows.count(code == value) for value in range(8)], axis=1)
    share = counts / (BARS - PERMUTATION_ORDER + 1)
    entropy = -np.where(share > 0, share * np.log(np.where(share > 0, share, 1.0)), 0.0).sum(axis=1)
    return np.where(windows.whole(close), entropy / np.log(6.0), np.nan)


def _variance_ratio(b: Windows) -> Floats:
    q = VARIANCE_RATIO_LAG
    price = b.log_close
    one = b.cut(np.diff(price))
    n = one.shape[1]
    mean = one.mean(axis=1, keepdims=True)
    variance_1 = ((one - mean) ** 2).sum(axis=1) / (n - 1)
    long = b.cut(price[..., q:] - price[..., :-q])
    m = q * (n - q + 1) * (1.0 - q / n)
    variance_q = ((long - q * mean) ** 2).sum(axis=1) / m
    return np.where(b.whole(b.bars.close), variance_q / variance_1, np.nan)


_FROM_BARS: dict[str, Callable[[Windows], Floats]] = {
    "corwin_schultz_spread": _corwin_schultz,
    "abdi_ranaldo_spread": _abdi_ranaldo,
    "kyle_lambda": _kyle,
    "amihud_illiquidity": _amihud,
    "hasbrouck_lambda": _hasbrouck,
    "vpin": _vpin,
    "permutation_entropy": _permutation_entropy,
    "variance_ratio": _variance_ratio,
}


def _read_compute(reader: MarketReader, grid: Times, keep: Keep | None) -> Floats:
    """The features at ascending grid times, each as known at its time."""
    del keep
    out = np.full((len(grid), len(NAMES)), np.nan)
    done = 0

    def work(part: Times) -> int:
        nonlocal done
        first, last = int(part[0]), int(part[-1])
        start = first - (MINUTES + MID_AGE) * MINUTE
        here = reader if reader.keep else reader.at(part)
        trades = here.events.trades(first - MINUTES * MINUTE, last)
        tops = here.events.tops(start, last)
        series = minutes(trades, tops, start, (last - start) // MINUTE)
        begin = first - (BARS + w.QUIET) * MINUTE
        bars = here.bars(MINUTE, begin, last, flows=True)
        for at in range(0, len(part), computing.CHUNK):
            rows = part[at : at + computing.CHUNK]
            out[done : done + len(rows)] = _at(series, bars, rows)
            done += len(rows)
        return len(trades.ts) + len(tops.ts)

    events.in_parts(grid, work)
    return out


def _at(series: w.Series, bars: w.Series, grid: Times) -> Floats:
    mids = series.windows(grid, MINUTES + MID_AGE, ("mid",))["mid"]
    return _columns(_of_trades(of_minutes(series, grid), mids) | _at_bars(bars, grid))


def _at_bars(bars: w.Series, grid: Times) -> dict[str, Floats]:
    """The features made of bars at ascending grid times, each as known at its time."""
    reach = BARS + w.QUIET
    first = (grid - bars.start) // MINUTE - reach
    begin, end = int(first[0]), int(first[-1]) + reach
    if len(grid) > 1 and begin >= 0 and end <= len(bars.final["close"]):
        row = {name: bars.final[name][None, begin:end].copy() for name in _CHANNELS}
        w.fill_quiet(row)
        if np.isfinite(
            row["close"]
        ).all():  # so all gaps are short, and each window has them filled
            line = Bars(**{name: values[0] for name, values in row.items()})
            out = _of_bars(Windows(line, first - begin + w.QUIET))
            rows = bars.unsettled(grid, reach)
            for name, values in _of_bar_windows(bars, grid[rows]).items() if len(rows) else ():
                out[name][rows] = values
            return out
    return _of_bar_windows(bars, grid)


def _of_bar_windows(bars: w.Series, grid: Times) -> dict[str, Floats]:
    window = bars.windows(grid, BARS + w.QUIET, _CHANNELS)
    w.fill_quiet(window)
    return _of_bars(Windows(Bars(**{name: x[:, w.QUIET :] for name, x in window.items()})))


def of_minutes(series: w.Series, grid: Times) -> dict[str, Floats]:
    """The minutes of :func:`minutes` before each time, (n, 15, ...), but of sizes their sum."""
    windows = series.windows(grid, MINUTES, (*_SEQUENCE, *_OTHERS))
    return windows | {"sizes": series.totals(grid, MINUTES, "sizes")}


def _prefetch(reader: MarketReader, t: int) -> None:
    reader.events.prefetch(t - MINUTES * MINUTE, t - (MINUTES + MID_AGE) * MINUTE, t)


FAMILY = Family(
    name="microstructure",
    version=2,
    revision="2",
    description="Microstructure: spreads, price impact, flow toxicity, efficiency, trade arrivals.",
    features=FEATURES,
    needs=Needs(bars=BARS + w.QUIET, book=MINUTES + MID_AGE),
    read=_read_compute,
    prefetch=_prefetch,
)
