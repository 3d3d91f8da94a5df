"""The peer of bench ``order_book``: the same 37 features with polars and numpy from Parquet files.

Written for speed, as one would who knows both: sums over moving windows in polars, the levels of
the books as numpy matrices, VPIN by the project's own function (a loop over numpy.interp took four
times as long). What became known late is not told apart here, as there is no second clock.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from alphaplus.server.features import microstructure, order_book

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

MINUTE = 60_000_000
W = 59  # returns of 60 bars
c = pl.col


def bars_of(trades: pl.DataFrame) -> pl.DataFrame:
    """One-minute bars, and ``ts``, their ends."""
    quote = c("price") * c("size")
    return (
        trades.group_by(c("ts") // MINUTE, maintain_order=True)
        .agg(
            c("price").max().alias("high"),
            c("price").min().alias("low"),
            c("price").last().alias("close"),
            c("size").sum().alias("volume"),
            quote.sum().alias("quote_volume"),
            c("size").filter(c("buy")).sum().alias("buy_volume"),
            quote.filter(c("buy")).sum().alias("buy_quote_volume"),
        )
        .with_columns((c("ts") + 1) * MINUTE)
    )


def _of_bars(bars: pl.DataFrame) -> pl.DataFrame:
    k = 3.0 - 2.0 * 2.0**0.5
    high, low = c("high").log(), c("low").log()
    single = (high - low) ** 2
    beta = single + single.shift(1)
    two = pl.max_horizontal(high, high.shift(1)) - pl.min_horizontal(low, low.shift(1))
    alpha = ((2 * beta).sqrt() - beta.sqrt()) / k - (two**2 / k).sqrt()
    spread = pl.max_horizontal(0.0, 2 * (alpha.exp() - 1) / (1 + alpha.exp()))
    middle, close = (high + low) / 2, c("close").log()
    product = (close.shift(1) - middle.shift(1)) * (close.shift(1) - middle)
    simple = 1e4 * (c("close") / c("close").shift(1) - 1)
    flow = (2 * c("buy_quote_volume") - c("quote_volume")) / 1e6
    root = flow.sign() * flow.abs().sqrt()
    returns = close - close.shift(1)
    a, b, d = c("close").shift(2), c("close").shift(1), c("close")
    code = 4 * (a <= b).cast(pl.Int8) + 2 * (b <= d).cast(pl.Int8) + (a <= d).cast(pl.Int8)
    q = 5
    long = close - close.shift(q)
    m = W - q + 1
    bars = bars.with_columns(
        spread.alias("pair"), product.alias("product"), simple.alias("simple"), flow.alias("flow"),
        root.alias("root"), returns.alias("returns"), code.alias("code"), long.alias("long"),
    )  # fmt: skip
    mean = (close - close.shift(W)) / W
    entropy = pl.lit(0.0)
    for value in (0, 2, 3, 4, 5, 7):
        p = (c("code") == value).cast(pl.Float64).rolling_sum(W - 1) / (W - 1)
        entropy = entropy - pl.when(p > 1e-9).then(p * p.log()).otherwise(0.0)
    variance_q = (
        (c("long") ** 2).rolling_sum(m)
        - 2 * q * mean * c("long").rolling_sum(m)
        + m * (q * mean) ** 2
    ) / (q * m * (1 - q / W))
    return bars.select(
        "ts",
        (1e4 * c("pair").rolling_mean(W)).alias("corwin_schultz_spread"),
        (2e4 * pl.max_horizontal(0.0, c("product").rolling_mean(W)).sqrt()).alias(
            "abdi_ranaldo_spread"
        ),
        (pl.rolling_cov("flow", "simple", window_size=W) / c("flow").rolling_var(W)).alias(
            "kyle_lambda"
        ),
        (c("simple").abs() / (c("quote_volume") / 1e6)).rolling_mean(W).alias("amihud_illiquidity"),
        (1e4 * (c("root") * c("returns")).rolling_sum(W) / (c("root") ** 2).rolling_sum(W)).alias(
            "hasbrouck_lambda"
        ),
        (entropy / np.log(6.0)).alias("permutation_entropy"),
        (variance_q / c("returns").rolling_var(W)).alias("variance_ratio"),
    )


def microstructure_features(trades: pl.DataFrame, books: pl.DataFrame) -> pl.DataFrame:
    """``ts`` and the sixteen."""
    bars = bars_of(trades)
    windows = [
        np.lib.stride_tricks.sliding_window_view(bars[name].to_numpy(), 60)
        for name in ("volume", "buy_volume")
    ]
    vpin = np.concatenate([np.full(59, np.nan), microstructure.vpin(windows[0], windows[1])])
    out = _of_bars(bars).with_columns(pl.Series("vpin", vpin))

    mids = books.select("ts", book_ts="ts", mid=(c("bid_prices_0") + c("ask_prices_0")) / 2)
    minute = c("ts") // MINUTE * MINUTE
    rows = trades.with_columns(minute=minute, end=minute + 2 * MINUTE).join_asof(
        mids, on="ts", strategy="backward", allow_exact_matches=False, check_sortedness=False
    )
    ends = (
        rows.select(ts=c("end").unique(maintain_order=True))
        .join_asof(
            mids, on="ts", strategy="backward", allow_exact_matches=False, check_sortedness=False
        )
        .select(end="ts", later=pl.when(c("book_ts") >= c("ts") - 5 * MINUTE).then(c("mid")))
    )
    rows = rows.join(ends, on="end", how="left", maintain_order="left")
    change = c("price").diff()
    sign = pl.when(c("buy")).then(1.0).otherwise(-1.0)
    signed = sign * c("size")
    known = c("book_ts") >= c("minute") - 5 * MINUTE
    ripe = known & c("later").is_not_null()
    rows = rows.with_columns(
        change=change, sign=sign, index=pl.int_range(pl.len()),
        power=(c("price") * c("size")).log(2).floor().clip(-8, 31).cast(pl.Int8),
        paid=pl.when(known).then(signed * (c("price") - c("mid")) / c("mid")),
        weight=pl.when(known).then(c("size")),
        kept=pl.when(ripe).then(signed * (c("price") - c("later")) / c("mid")),
        later_weight=pl.when(ripe).then(c("size")),
    ).with_columns(
        product=c("change") * c("change").shift(1),
        pair=c("sign") * c("sign").shift(1),
        moved=pl.when(c("change") != 0).then(c("index")).forward_fill(),
        side=pl.when(c("change") != 0).then(c("change").sign()).forward_fill(),
    ).with_columns(
        second_change=c("change").shift(-1), second_product=c("product").shift(-1),
        agrees=(c("side") == c("sign")),
    )  # fmt: skip
    every, far = f"{MINUTE}i", f"{15 * MINUTE}i"
    counted = c("moved") > c("index").first()
    sums = rows.group_by_dynamic("ts", every=every, period=far, closed="left").agg(
        n=pl.len(), price=c("price").mean(), first=c("price").first(), last=c("price").last(),
        products=c("product").sum() - c("product").first() - c("second_product").first(),
        first_change=c("second_change").first(), last_change=c("change").last(),
        signs=c("sign").sum(), pairs=c("pair").sum() - c("pair").first(),
        first_sign=c("sign").first(), last_sign=c("sign").last(),
        time=c("ts").last() - c("ts").first(),
        trade_size_entropy=c("power").unique_counts().entropy(base=2),
        ruled=counted.sum(), agreed=(counted & c("agrees")).sum(),
        paid=c("paid").sum(), weight=c("weight").sum(),
    ).with_columns(c("ts") + 15 * MINUTE)  # fmt: skip
    old = rows.group_by_dynamic("ts", every=every, period=f"{14 * MINUTE}i", closed="left").agg(
        kept=c("kept").sum(), later_weight=c("later_weight").sum()
    ).with_columns(c("ts") + 15 * MINUTE)  # fmt: skip
    total, count = c("last") - c("first"), c("n") - 2
    mean = total / (c("n") - 1)
    covariance = (
        c("products") - mean * (total - c("last_change")) - mean * (total - c("first_change"))
        + count * mean**2
    ) / count  # fmt: skip
    sign_mean = c("signs") / c("n")
    sign_covariance = (
        c("pairs") - sign_mean * (c("signs") - c("last_sign"))
        - sign_mean * (c("signs") - c("first_sign")) + (c("n") - 1) * sign_mean**2
    )  # fmt: skip
    bins = rows.group_by(c("ts") // 10_000_000, maintain_order=True).agg(n=pl.len())
    bins = (
        pl.DataFrame({"ts": np.arange(bins["ts"][0], bins["ts"][-1] + 1)})
        .join(bins, on="ts", how="left", maintain_order="left")
        .with_columns(c("n").fill_null(0).cast(pl.Float64), (c("ts") + 1) * 10_000_000)
        .select(
            "ts",
            hawkes_branching=pl.max_horizontal(
                0.0, 1 - (c("n").rolling_mean(90) / c("n").rolling_var(90)).sqrt()
            ),
        )
    )
    of_trades = sums.join(old, on="ts", how="left").select(
        "ts", "trade_size_entropy",
        roll_spread=2e4 * pl.when(covariance < 0).then(-covariance).sqrt() / c("price"),
        effective_spread=2e4 * c("paid") / c("weight"),
        realised_spread=2e4 * c("kept") / c("later_weight"),
        trade_sign_autocorrelation=sign_covariance / (c("n") * (1 - sign_mean**2)),
        inter_trade_duration=c("time") / 1e6 / (c("n") - 1),
        tick_rule_agreement=c("agreed") / c("ruled"),
    )  # fmt: skip
    return (
        out.join(of_trades, on="ts", how="inner", maintain_order="left")
        .join(bins, on="ts", how="left", maintain_order="left")
        .select("ts", *microstructure.NAMES)
    )


def order_book_features(trades: pl.DataFrame, books: pl.DataFrame) -> tuple[Times, Floats]:
    """Times and the 21."""
    bars = bars_of(trades)
    grid = bars["ts"].to_numpy()
    order = bars["quote_volume"].rolling_mean(60).to_numpy()
    ts = books["ts"].to_numpy()
    levels = sum(name.startswith("bid_prices") for name in books.columns)
    matrix = {
        channel: books.select([f"{channel}_{i}" for i in range(levels)]).to_numpy()
        for channel in order_book._SIDES
    }
    place = np.searchsorted(ts, grid) - 1
    usable = (place >= 0) & (ts[np.maximum(place, 0)] >= grid - 5 * MINUTE)
    bp, bs, ap, az = (matrix[channel][np.maximum(place, 0)] for channel in order_book._SIDES)
    mid = (bp[:, 0] + ap[:, 0]) / 2
    bn, an = bp * bs, ap * az
    bd, ad = (1e4 * np.abs(p / mid[:, None] - 1) for p in (bp, ap))

    def share(a: Floats, b: Floats) -> Floats:
        return (a - b) / (a + b)

    def slope(price: Floats, notional: Floats) -> Floats:
        logs = np.log(np.cumsum(notional, axis=1))
        first = logs[:, 0] / np.abs(price[:, 0] / mid - 1)
        steps = (logs[:, 1:] / logs[:, :-1] - 1) / np.abs(price[:, 1:] / price[:, :-1] - 1)
        out: Floats = (first + steps.sum(axis=1)) / levels
        return out

    def impact(price: Floats, notional: Floats) -> Floats:
        reached = np.cumsum(notional, axis=1)
        taken = np.clip(order[:, None] - (reached - notional), 0, notional)
        out: Floats = np.where(reached[:, -1] >= order, order / (taken / price).sum(axis=1), np.nan)
        return out

    both, distance = np.concatenate([bn, an], axis=1), np.concatenate([-bd, ad], axis=1)
    typical, total = np.median(both, axis=1), both.sum(axis=1)
    row, largest = np.arange(len(both)), both.argmax(axis=1)
    part = both / total[:, None]
    near = {}
    for width in (10, 25, 50):
        near[width] = [(n * (d <= width)).sum(axis=1) for n, d in ((bn, bd), (an, ad))]

    all_mid = (matrix["bid_prices"][:, 0] + matrix["ask_prices"][:, 0]) / 2
    last = np.flatnonzero(np.append(np.diff(ts // MINUTE) != 0, True))
    depth = np.full(int((grid[-1] - grid[0]) // MINUTE) + 16, np.nan)
    of_last = sum(
        np.where(np.abs(p[last] / all_mid[last, None] - 1) <= 25e-4, p[last] * s[last], 0).sum(axis=1)
        for p, s in ((matrix["bid_prices"], matrix["bid_sizes"]),
                     (matrix["ask_prices"], matrix["ask_sizes"]))
    )  # fmt: skip
    depth[(ts[last] - (grid[0] - 16 * MINUTE)) // MINUTE] = of_last
    windows = np.lib.stride_tricks.sliding_window_view(depth, 15)[1:]
    windows = windows[(grid - grid[0]) // MINUTE]
    seen = np.isfinite(windows)
    low = np.where(seen, windows, np.inf).argmin(axis=1)
    before = np.arange(15)[None, :] <= low[:, None]
    high = np.where(seen & before, windows, -np.inf).max(axis=1)
    newest = 14 - np.argmax(seen[:, ::-1], axis=1)
    bottom = windows[row, low]
    resilience = (windows[row, newest] - bottom) / (high - bottom)

    b, q = matrix["bid_prices"][:, 0], matrix["bid_sizes"][:, 0]
    a, r = matrix["ask_prices"][:, 0], matrix["ask_sizes"][:, 0]
    change = (
        np.where(b[1:] >= b[:-1], q[1:], 0) - np.where(b[1:] <= b[:-1], q[:-1], 0)
        - np.where(a[1:] <= a[:-1], r[1:], 0) + np.where(a[1:] >= a[:-1], r[:-1], 0)
    )  # fmt: skip
    from_, to = np.searchsorted(ts, grid - 5 * MINUTE), np.searchsorted(ts, grid)
    running = np.append(0, np.cumsum(change))
    tops = np.append(0, np.cumsum((q + r) / 2))
    flow = running[np.maximum(to - 1, from_)] - running[from_]
    values = {
        "spread": 1e4 * (ap[:, 0] - bp[:, 0]) / mid,
        "depth_weighted_spread": 1e4
        * ((ap * an).sum(axis=1) / an.sum(axis=1) - (bp * bn).sum(axis=1) / bn.sum(axis=1)) / mid,
        "microprice": 1e4
        * ((ap[:, 0] * bs[:, 0] + bp[:, 0] * az[:, 0]) / (bs[:, 0] + az[:, 0]) / mid - 1),
        "imbalance_1": share(bs[:, 0], az[:, 0]),
        "imbalance_10": share(bs[:, :10].sum(axis=1), az[:, :10].sum(axis=1)),
        "depth_slope": (slope(bp, bn) + slope(ap, an)) / 2,
        "book_pressure": share(
            (bn * np.exp(-bd / 10)).sum(axis=1), (an * np.exp(-ad / 10)).sum(axis=1)
        ),
        "wall_size": np.log(both[row, largest] / typical),
        "wall_distance": distance[row, largest],
        "order_clusters": np.where(both > 3 * typical[:, None], both, 0).sum(axis=1) / total,
        "resilience": np.where(bottom <= 0.8 * high, resilience, np.nan),
        "order_flow_imbalance": np.where(
            to - from_ >= 2, flow / ((tops[to] - tops[from_]) / (to - from_)), np.nan
        ),
        "depth_entropy": -(part * np.log(part)).sum(axis=1) / np.log(2 * levels),
        "buy_impact": 1e4 * (impact(ap, an) / mid - 1),
        "sell_impact": 1e4 * (1 - impact(bp, bn) / mid),
    }  # fmt: skip
    for width, sides in near.items():
        for name, notional in zip(("bid", "ask"), sides, strict=True):
            values[f"{name}_liquidity_{width}bp"] = np.log1p(notional)
    out = np.stack([values[name] for name in order_book.FAMILY.names], axis=1)
    flow_column = order_book.FAMILY.names.index("order_flow_imbalance")
    out[~usable] = np.where(np.arange(out.shape[1]) == flow_column, out[~usable], np.nan)
    return grid, out


def run(folder: Path) -> tuple[tuple[Times, Floats], tuple[Times, Floats]]:
    """From the files: times and values of both families."""
    trades = pl.read_parquet(folder / "trades.parquet")
    books = pl.read_parquet(folder / "books.parquet")
    with np.errstate(all="ignore"):
        one = microstructure_features(trades, books)
        two = order_book_features(trades, books)
    return (one["ts"].to_numpy(), one.drop("ts").to_numpy()), two
