"""The 25 liquidation features, as one function of windows.

All look back from the grid time ``t`` over one-minute buckets closed by ``t`` and known by ``t``.
Up to five minutes without a trade count as quiet (volume 0, last close); a longer stretch is a
hole. Notional is in quote currency. A value is NaN where it cannot be known: its window is not
full, no book within five minutes, no funding or open interest within a day, no liquidation feed
yet. No liquidations is 0 from the feed's first one on, while anything is known of the market's last
hour. Where open interest did not come anew within the hour, its change is not known.
"""

from __future__ import annotations

import numpy as np
from alphaplus.server.features.family import Family, Feature
from alphaplus.server.features.microstructure import vpin
from alphaplus.server.market.reader import Inputs, Needs
from alphaplus.server.market.revisions import fill_quiet
from alphaplus.server.types import Floats, Mask

BARS = 240
BOOK_MAX_AGE = 5
LIQUIDATIONS = 60
LEVELS = 20
NEAR_BPS = 25.0
DECAY_BPS = 10.0
HALF_LIFE = 5.0

# Channels that several features read.
_BOOK = ("book.bid_prices", "book.bid_sizes", "book.ask_prices", "book.ask_sizes")
_BIDS = ("book.bid_prices", "book.bid_sizes", "book.ask_prices")
_ASKS = ("book.bid_prices", "book.ask_prices", "book.ask_sizes")

FEATURES = (
    Feature(
        "order_flow_toxicity",
        "VPIN: mean of |buy - sell| / volume over 50 equal-volume buckets of the last 240 minutes,"
        " true aggressors",
        "share",
        "Easley, Lopez de Prado and O'Hara (2012), Review of Financial Studies 25(5)",
        ("bars.volume", "bars.buy_volume"),
    ),
    Feature(
        "bid_ask_imbalance",
        "(bid - ask) / (bid + ask) notional over all levels of the last book",
        "share, -1 to 1",
        "Cao, Hansch and Wang (2009), Journal of Futures Markets 29(1)",
        _BOOK,
    ),
    Feature(
        "volume_ratio",
        "volume of 5 minutes / mean volume of 5 minutes over 240",
        "ratio",
        "Karpoff (1987), JFQA 22(1)",
        ("bars.volume",),
    ),
    Feature(
        "depth_pressure",
        "(bid - ask) / (bid + ask) notional, levels weighted by exp(-distance to mid / 10 bp)",
        "share, -1 to 1",
        "Cartea, Donnelly and Jaimungal (2018), Applied Mathematical Finance 25(1)",
        _BOOK,
    ),
    Feature(
        "liquidity_score",
        "d / (d + v): d notional within 25 bp of mid on both sides, v mean quote volume of a minute"
        " over 60",
        "share, 0 to 1",
        "after Kyle's depth (1985), Econometrica 53(6)",
        ("bars.quote_volume", *_BOOK),
    ),
    Feature(
        "bid_liquidity",
        "ln(1 + bid notional within 25 bp of mid)",
        "log quote",
        "definition",
        _BIDS,
    ),
    Feature(
        "ask_liquidity",
        "ln(1 + ask notional within 25 bp of mid)",
        "log quote",
        "definition",
        _ASKS,
    ),
    Feature(
        "bid_wall",
        "ln(largest / median level notional), bids of the last book",
        "log",
        "definition",
        ("book.bid_prices", "book.bid_sizes"),
    ),
    Feature(
        "ask_wall",
        "ln(largest / median level notional), asks of the last book",
        "log",
        "definition",
        ("book.ask_prices", "book.ask_sizes"),
    ),
    Feature(
        "order_clusters",
        "share of the book's notional in levels above three times the median level",
        "share",
        "definition",
        _BOOK,
    ),
    Feature(
        "buy_volume_ratio",
        "taker buy volume of 15 minutes / its mean over 240",
        "ratio",
        "Blume, MacKinlay and Terker (1989), Journal of Finance 44(4)",
        ("bars.buy_volume",),
    ),
    Feature(
        "sell_volume_ratio",
        "taker sell volume of 15 minutes / its mean over 240",
        "ratio",
        "Blume, MacKinlay and Terker (1989), Journal of Finance 44(4)",
        ("bars.volume", "bars.buy_volume"),
    ),
    Feature(
        "volume_breakout",
        "(x - mean) / standard deviation of x = ln(1 + volume) of 5 minutes, over 48 of them",
        "standard deviations",
        "definition",
        ("bars.volume",),
    ),
    Feature(
        "spread_bps",
        "(ask - bid) / mid of the last book",
        "bp",
        "definition",
        ("book.bid_prices", "book.ask_prices"),
    ),
    Feature(
        "volatility",
        "sqrt(mean squared one-minute log return over 30 minutes)",
        "bp per root minute",
        "Andersen and Bollerslev (1998), International Economic Review 39(4)",
        ("bars.close",),
    ),
    Feature(
        "momentum",
        "15-minute log return / (volatility x sqrt 15)",
        "standard deviations",
        "Moskowitz, Ooi and Pedersen (2012), Journal of Financial Economics 104(2)",
        ("bars.close",),
    ),
    Feature(
        "long_liquidations",
        "ln(1 + liquidated long notional of 15 minutes); 0 where there was none, while a trade,"
        " book or liquidation of the last hour is known",
        "log quote",
        "definition",
        ("liquidations.long_notional",),
    ),
    Feature(
        "short_liquidations",
        "ln(1 + liquidated short notional of 15 minutes); 0 as for long_liquidations",
        "log quote",
        "definition",
        ("liquidations.short_notional",),
    ),
    Feature(
        "liquidation_intensity",
        "sum over 60 minutes of liquidated notional x 2^(-age / 5 min) / mean quote volume of a"
        " minute over 60",
        "ratio",
        "exponential Hawkes kernel: Hawkes (1971), Biometrika 58(1)",
        ("bars.quote_volume", "liquidations.long_notional", "liquidations.short_notional"),
    ),
    Feature(
        "funding_rate", "last funding known, for eight hours", "bp", "definition", ("funding",)
    ),
    Feature(
        "open_interest_change",
        "ln(open interest / that of an hour ago); null where none came since",
        "log ratio",
        "definition",
        ("open_interest",),
    ),
    Feature(
        "toxicity_x_volatility",
        "order_flow_toxicity x volatility",
        "bp per root minute",
        "interaction",
        ("bars.close", "bars.volume", "bars.buy_volume"),
    ),
    Feature(
        "imbalance_x_momentum",
        "bid_ask_imbalance x momentum",
        "standard deviations",
        "interaction",
        ("bars.close", *_BOOK),
    ),
    Feature(
        "volatility_x_illiquidity",
        "volatility x (1 - liquidity_score)",
        "bp per root minute",
        "interaction",
        ("bars.close", "bars.quote_volume", *_BOOK),
    ),
    Feature(
        "funding_x_momentum",
        "funding_rate x momentum",
        "bp",
        "interaction",
        ("bars.close", "funding"),
    ),
)


def compute(inputs: Inputs) -> Floats:
    """The features at each grid time: (n, 25) in the order of :data:`FEATURES`."""
    bars, book = inputs.bars, inputs.book
    seen = _seen(inputs)
    fill_quiet(bars)
    out: dict[str, Floats] = {}
    volume, quote = bars["volume"], bars["quote_volume"]
    buy = bars["buy_volume"]
    sell = volume - buy

    out["order_flow_toxicity"] = vpin(volume, buy)
    five = volume.reshape(len(volume), BARS // 5, 5).sum(axis=2)
    out["volume_ratio"] = five[:, -1] / five.mean(axis=1)
    fifteen = len(volume), BARS // 15, 15
    for name, side in (("buy_volume_ratio", buy), ("sell_volume_ratio", sell)):
        parts = side.reshape(fifteen).sum(axis=2)
        out[name] = parts[:, -1] / parts.mean(axis=1)
    logs = np.log1p(five)
    out["volume_breakout"] = (logs[:, -1] - logs.mean(axis=1)) / logs.std(axis=1)

    returns = np.diff(np.log(bars["close"][:, -31:]), axis=1)
    volatility = 1e4 * np.sqrt((returns**2).mean(axis=1))
    out["volatility"] = volatility
    out["momentum"] = 1e4 * returns[:, -15:].sum(axis=1) / (volatility * np.sqrt(15.0))

    minute = quote[:, -60:].mean(axis=1)
    out.update(_book(book, minute))

    longs, shorts = inputs.liquidations["long_notional"], inputs.liquidations["short_notional"]
    quiet = np.where(inputs.liquidations_covered & seen, 0.0, np.nan)[:, None]
    longs = np.where(np.isfinite(longs), longs, quiet)
    shorts = np.where(np.isfinite(shorts), shorts, quiet)
    out["long_liquidations"] = np.log1p(longs[:, -15:].sum(axis=1))
    out["short_liquidations"] = np.log1p(shorts[:, -15:].sum(axis=1))
    age = np.arange(LIQUIDATIONS - 1, -1, -1)
    decayed = ((longs + shorts) * 2.0 ** (-age / HALF_LIFE)[None, :]).sum(axis=1)
    out["liquidation_intensity"] = decayed / minute

    out["funding_rate"] = 1e4 * inputs.funding
    now, before = inputs.open_interest[:, 0], inputs.open_interest[:, 1]
    out["open_interest_change"] = np.log(now / before)

    out["toxicity_x_volatility"] = out["order_flow_toxicity"] * volatility
    out["imbalance_x_momentum"] = out["bid_ask_imbalance"] * out["momentum"]
    out["volatility_x_illiquidity"] = volatility * (1.0 - out["liquidity_score"])
    out["funding_x_momentum"] = out["funding_rate"] * out["momentum"]
    return np.stack([out[feature.name] for feature in FEATURES], axis=1)


def _seen(inputs: Inputs) -> Mask:
    """Is anything known of the market in the last hour? If not, its feeds may be down."""
    minutes = (
        inputs.bars["volume"][:, -LIQUIDATIONS:],
        inputs.book["two_sided_count"][:, -LIQUIDATIONS:],
        inputs.liquidations["event_count"],
    )
    seen = np.zeros(len(minutes[0]), dtype=bool)
    for part in minutes:
        seen |= np.isfinite(part).any(axis=1)
    return seen


def last_book(book: dict[str, Floats]) -> dict[str, Floats]:
    """The levels of the newest book in each window: (n, levels) per channel; NaN where none."""
    seen = np.isfinite(book["two_sided_count"])
    newest = seen.shape[1] - 1 - np.argmax(seen[:, ::-1], axis=1)
    row = np.arange(len(seen))
    none = ~seen.any(axis=1)
    out = {}
    for name in ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes"):
        levels = book[name][row, newest].copy()
        levels[none] = np.nan
        out[name] = levels
    return out


def _book(book: dict[str, Floats], minute: Floats) -> dict[str, Floats]:
    levels = last_book(book)
    best_bid, best_ask = levels["bid_prices"][:, 0], levels["ask_prices"][:, 0]
    mid = (best_bid + best_ask) / 2.0
    notional, distance = {}, {}
    for side in ("bid", "ask"):
        price = levels[f"{side}_prices"]
        here = price * levels[f"{side}_sizes"]
        notional[side] = np.where(np.isfinite(here) & (here > 0), here, 0.0)
        distance[side] = np.nan_to_num(1e4 * np.abs(price / mid[:, None] - 1.0), nan=np.inf)
    known = np.isfinite(mid)

    def share(bid: Floats, ask: Floats) -> Floats:
        return np.where(known, (bid - ask) / (bid + ask), np.nan)

    out = {
        "bid_ask_imbalance": share(notional["bid"].sum(axis=1), notional["ask"].sum(axis=1)),
        "spread_bps": 1e4 * (best_ask - best_bid) / mid,
    }
    weighted = {
        side: (notional[side] * np.exp(-distance[side] / DECAY_BPS)).sum(axis=1)
        for side in ("bid", "ask")
    }
    out["depth_pressure"] = share(weighted["bid"], weighted["ask"])
    near = {
        side: (notional[side] * (distance[side] <= NEAR_BPS)).sum(axis=1) for side in ("bid", "ask")
    }
    depth = near["bid"] + near["ask"]
    out["liquidity_score"] = np.where(known, depth / (depth + minute), np.nan)
    out["bid_liquidity"] = np.where(known, np.log1p(near["bid"]), np.nan)
    out["ask_liquidity"] = np.where(known, np.log1p(near["ask"]), np.nan)
    for side in ("bid", "ask"):
        sizes = np.where(notional[side] > 0, notional[side], np.nan)
        out[f"{side}_wall"] = np.where(known, np.log(_nan_max(sizes) / _nan_median(sizes)), np.nan)
    both = np.concatenate([notional["bid"], notional["ask"]], axis=1)
    typical = _nan_median(np.where(both > 0, both, np.nan))
    large = np.where(both > 3.0 * typical[:, None], both, 0.0).sum(axis=1)
    out["order_clusters"] = np.where(known, large / both.sum(axis=1), np.nan)
    return out


def _nan_max(values: Floats) -> Floats:
    best = np.where(np.isfinite(values), values, -np.inf).max(axis=1)
    return np.where(np.isfinite(best), best, np.nan)


def _nan_median(values: Floats) -> Floats:
    """Median of the finite values of each row; NaN where there are none."""
    ordered = np.sort(values, axis=1)  # NaN last
    count = np.isfinite(values).sum(axis=1)
    row = np.arange(len(values))
    low = ordered[row, np.maximum((count - 1) // 2, 0)]
    high = ordered[row, np.minimum(count // 2, values.shape[1] - 1)]
    return np.where(count > 0, (low + high) / 2.0, np.nan)


FAMILY = Family(
    name="liquidation",
    version=3,
    revision="3",
    description="Order flow, book, volume, liquidations, funding: for forced-liquidation models.",
    features=FEATURES,
    needs=Needs(
        bars=BARS,
        book=BOOK_MAX_AGE,
        levels=LEVELS,
        liquidations=LIQUIDATIONS,
        funding=24 * 60,
        open_interest=24 * 60,
        open_interest_before=60,
    ),
    compute=compute,
)
