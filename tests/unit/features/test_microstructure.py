"""Microstructure estimators: against plain per-window definitions, and known parameters."""

import math
from itertools import pairwise, permutations
from typing import Any, NamedTuple

import numpy as np
import pytest
from alphaplus.server.features import microstructure as ms
from alphaplus.server.features.microstructure import Bars
from alphaplus.server.market import events
from alphaplus.server.market import revisions as w
from alphaplus.server.types import MINUTE, SECOND

N = ms.NAMES.index

WINDOW = 15 * MINUTE
Array = np.ndarray[Any, Any]


class Market(NamedTuple):
    """Trades, mids, the bars of the last 60 minutes at each minute's end, and those times."""

    ts: Array
    price: Array
    size: Array
    sign: Array
    book_ts: Array
    mid: Array
    bars: Bars
    grid: Array


def of_trades(ts: Array, price: Array, size: Array, sign: Array, late: Array | int = 0) -> Any:
    known = ts + late
    usable = -(-known // MINUTE) * MINUTE
    return events.Trades(ts, usable, np.full(len(ts), w.NEVER), price, size, sign)


def of_tops(ts: Array, mid: Array) -> Any:
    one = np.ones(len(ts))
    usable = -(-ts // MINUTE) * MINUTE
    never = np.full(len(ts), w.NEVER)
    return events.Tops(ts, usable, never, mid - 0.01, one, mid + 0.01, one, one != 1)


def features(grid: Array, trades: Any, tops: Any, bars: Bars) -> Array:
    """compute over windows cut from the minutes of trades and tops."""
    start = int(grid[0]) - 20 * MINUTE
    series = ms.minutes(trades, tops, start, int(grid[-1] - start) // MINUTE)
    windows = ms.of_minutes(series, grid)
    mids = series.windows(grid, ms.MINUTES + ms.MID_AGE, ("mid",))["mid"]
    return ms.compute(windows, mids, bars)


def of(market: Market, rows: slice = slice(None)) -> Array:
    bars = Bars(*(getattr(market.bars, key)[rows] for key in market.bars.__dataclass_fields__))
    trades = of_trades(market.ts, market.price, market.size, market.sign)
    return features(market.grid[rows], trades, of_tops(market.book_ts, market.mid), bars)


def stream(seed: int, minutes: int = 200, per_minute: float = 20.0) -> Market:
    rng = np.random.default_rng(seed)
    n = rng.poisson(per_minute * minutes)
    ts = np.sort(rng.integers(0, minutes * MINUTE, n))
    sign = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    sign[1:] = np.where(rng.random(n - 1) < 0.4, sign[:-1], sign[1:])
    mid = 100.0 * np.exp(np.cumsum(rng.normal(0, 1e-4, n) + 2e-5 * sign))
    price = np.round(mid * (1 + 2e-4 * sign), 2)
    size = rng.lognormal(0, 1, n)
    book = np.sort(rng.integers(0, minutes * MINUTE, n // 20))
    grid = np.arange(61, minutes + 1) * MINUTE
    edges = np.searchsorted(ts, np.arange(minutes + 1) * MINUTE)
    rows = []
    for a, b in pairwise(edges):
        p, s, q = price[a:b], size[a:b], sign[a:b] > 0
        value = p * s
        rows.append(
            (p.max(), p.min(), p[-1], s.sum(), value.sum(), s[q].sum(), value[q].sum())
            if b > a
            else (math.nan,) * 7
        )
    table = np.array(rows).T
    windows = np.lib.stride_tricks.sliding_window_view(table, 60, axis=1)[:, 1:]
    bars = Bars(*(np.ascontiguousarray(window) for window in windows))
    return Market(ts, price, size, sign, book, np.interp(book, ts, mid), bars, grid)


def naive(name: str, t: int, market: Market, bars: dict[str, Array]) -> float:
    keep = (market.ts >= t - WINDOW) & (market.ts < t)
    ts, price, size, sign = (x[keep] for x in market[:4])
    close, high, low = bars["close"], bars["high"], bars["low"]
    if name == "roll_spread":
        d = np.diff(price)
        a, b, m = d[1:], d[:-1], d.mean()
        cov = float(np.mean((a - m) * (b - m)))
        return 2e4 * math.sqrt(-cov) / float(price.mean()) if cov < 0 else math.nan
    if name == "trade_sign_autocorrelation":
        c = sign - sign.mean()
        return float((c[1:] * c[:-1]).sum() / (c * c).sum())
    if name == "trade_size_entropy":
        powers = [min(max(math.floor(math.log2(x)), -8), 31) for x in price * size]
        shares = [powers.count(k) / len(powers) for k in set(powers)]
        return -sum(p * math.log2(p) for p in shares)
    if name == "inter_trade_duration":
        return float(np.diff(ts).mean() / SECOND)
    if name == "hawkes_branching":
        counts, _ = np.histogram(ts, bins=90, range=(t - WINDOW, t))
        return max(0.0, 1 - math.sqrt(counts.mean() / counts.var(ddof=1)))
    if name == "tick_rule_agreement":
        side, known, agreed = 0.0, 0, 0
        for i in range(1, len(price)):
            side = float(np.sign(price[i] - price[i - 1])) or side
            if side:
                known += 1
                agreed += side == sign[i]
        return agreed / known if known >= 10 else math.nan
    if name in ("effective_spread", "realised_spread"):
        total = weight = 0.0
        for a, p, s, side in zip(ts, price, size, sign, strict=True):
            minute = a // MINUTE * MINUTE
            since = minute - 5 * MINUTE
            before = market.mid[(market.book_ts >= since) & (market.book_ts < a)]
            end = minute + 2 * MINUTE
            after = market.mid[(market.book_ts >= end - 5 * MINUTE) & (market.book_ts < end)]
            if len(before) == 0 or (name == "realised_spread" and (end > t or len(after) == 0)):
                continue
            mid = before[-1]
            then = after[-1] if name == "realised_spread" else mid
            total += 2e4 * side * (p - then) / mid * s
            weight += s
        return total / weight if weight else math.nan
    returns = np.diff(np.log(close))
    simple = 1e4 * (close[1:] / close[:-1] - 1)
    flow = (2 * bars["buy_quote_volume"] - bars["quote_volume"])[1:] / 1e6
    if name == "kyle_lambda":
        return float(np.polyfit(flow, simple, 1)[0])
    if name == "amihud_illiquidity":
        return float(np.mean(np.abs(simple) / (bars["quote_volume"][1:] / 1e6)))
    if name == "hasbrouck_lambda":
        x = np.sign(flow) * np.sqrt(np.abs(flow))
        return float(np.linalg.lstsq(x[:, None], 1e4 * returns, rcond=None)[0][0])
    if name == "vpin":
        # walk the volume bucket by bucket
        size_ = bars["volume"].sum() / 50
        imbalances, buy, filled = [], 0.0, 0.0
        for v, b in zip(bars["volume"], bars["buy_volume"], strict=True):
            left = v
            while left > 1e-15:
                take = min(left, size_ - filled)
                buy += b * take / v
                filled += take
                left -= take
                if filled >= size_ * (1 - 1e-12):
                    imbalances.append(abs(2 * buy - size_) / size_)
                    buy = filled = 0.0
        return float(np.mean(imbalances))
    if name == "permutation_entropy":
        counts = dict.fromkeys(permutations(range(3)), 0)
        for i in range(58):
            counts[tuple(np.argsort(close[i : i + 3], kind="stable"))] += 1
        p = np.array([c for c in counts.values() if c]) / 58
        return float(-(p * np.log(p)).sum() / math.log(6))
    if name == "variance_ratio":
        x = np.log(close)
        n, q, mu = 59, 5, (x[-1] - x[0]) / 59
        one = sum((x[i] - x[i - 1] - mu) ** 2 for i in range(1, 60)) / (n - 1)
        m = q * (n - q + 1) * (1 - q / n)
        return float(sum((x[i] - x[i - q] - q * mu) ** 2 for i in range(q, 60)) / m / one)
    if name == "corwin_schultz_spread":
        k, spreads = 3 - 2 * math.sqrt(2), []
        for i in range(59):
            beta = math.log(high[i] / low[i]) ** 2 + math.log(high[i + 1] / low[i + 1]) ** 2
            gamma = math.log(max(high[i : i + 2]) / min(low[i : i + 2])) ** 2
            alpha = (math.sqrt(2 * beta) - math.sqrt(beta)) / k - math.sqrt(gamma / k)
            spreads.append(max(0.0, 2 * (math.exp(alpha) - 1) / (1 + math.exp(alpha))))
        return 1e4 * float(np.mean(spreads))
    if name == "abdi_ranaldo_spread":
        c, eta = np.log(close), (np.log(high) + np.log(low)) / 2
        return 2e4 * math.sqrt(max(0.0, float(np.mean((c[:-1] - eta[:-1]) * (c[:-1] - eta[1:])))))
    raise AssertionError(name)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_every_feature_equals_its_plain_definition(seed: int) -> None:
    market = stream(seed, per_minute=(20.0, 3.0, 2.0, 60.0)[seed - 1])
    got = of(market)
    seen = set()
    for i in range(0, len(market.grid), 23):
        row = {key: getattr(market.bars, key)[i] for key in market.bars.__dataclass_fields__}
        for name in ms.NAMES:
            value = got[i, N(name)]
            if name in ms._FROM_BARS and np.isnan(row["close"]).any():
                assert math.isnan(value)
                continue
            want = naive(name, int(market.grid[i]), market, row)
            assert value == pytest.approx(want, rel=1e-8, abs=1e-10, nan_ok=True), name
            if math.isfinite(want):
                seen.add(name)
    assert seen == set(ms.NAMES) - (set(ms._FROM_BARS) if seed in (2, 3) else set())


def test_sixteen_documented_features() -> None:
    assert len(ms.FEATURES) == len(set(ms.NAMES)) == 16
    assert all(f.formula and f.unit and f.source for f in ms.FEATURES)


def test_one_time_at_once_gives_the_same_bits_as_history() -> None:
    market = stream(4, per_minute=5.0)
    history = of(market)
    for i in range(0, len(market.grid), 7):
        np.testing.assert_array_equal(of(market, slice(i, i + 1))[0], history[i])


def test_what_came_late_was_not_there_before() -> None:
    """As known at t is what the rows known by t alone would give; corrections replace."""
    market = stream(5, per_minute=8.0)
    rng = np.random.default_rng(5)
    late = np.where(
        rng.random(len(market.ts)) < 0.3, rng.integers(0, 600 * SECOND, len(market.ts)), 0
    )
    trades = of_trades(*market[:4], late)
    gone = rng.random(len(market.ts)) < 0.1
    expires = np.where(gone, trades.usable + rng.integers(0, 9, len(gone)) * MINUTE, w.NEVER)
    trades = events.Trades(
        trades.ts, trades.usable, expires, trades.price, trades.size, trades.sign
    )
    tops = of_tops(market.book_ts, market.mid)
    history = features(market.grid, trades, tops, market.bars)
    for i in range(0, len(market.grid), 9):
        t = market.grid[i]
        held = (trades.ts < t) & (trades.usable <= t) & (t < trades.expires)
        then = of_trades(*(x[held] for x in market[:4]))
        bars = Bars(
            *(getattr(market.bars, key)[i : i + 1] for key in market.bars.__dataclass_fields__)
        )
        np.testing.assert_array_equal(
            features(market.grid[i : i + 1], then, tops, bars)[0], history[i]
        )


def test_nothing_known_is_null_not_zero() -> None:
    none, empty = np.array([], dtype=np.int64), np.array([])
    nothing = Bars(*[np.full((1, 60), np.nan)] * 7)
    trades, tops = of_trades(none, empty, empty, empty), of_tops(none, empty)
    assert np.isnan(features(np.array([100 * MINUTE]), trades, tops, nothing)).all()
    one = of_trades(np.array([99 * MINUTE]), np.array([1.0]), np.array([1.0]), np.array([1.0]))
    assert np.isnan(features(np.array([100 * MINUTE]), one, tops, nothing)).all()


def test_roll_recovers_a_known_spread() -> None:
    rng = np.random.default_rng(11)
    n = 15_000
    ts = np.sort(rng.integers(0, WINDOW, n))
    sign = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    price = 100.0 + np.cumsum(rng.normal(0, 1e-3, n)) + 0.05 * sign  # spread 0.1 = 10 bp
    nothing = Bars(*[np.full((1, 60), np.nan)] * 7)
    trades = of_trades(ts, price, np.ones(n), sign)
    got = features(np.array([WINDOW]), trades, of_tops(ts[:0], price[:0]), nothing)
    assert got[0, N("roll_spread")] == pytest.approx(10.0, rel=0.05)


def test_kyle_and_hasbrouck_recover_a_known_impact() -> None:
    rng = np.random.default_rng(12)
    flow = rng.normal(0, 5e6, (400, 60))
    returns = 2e-4 * flow / 1e6 + rng.normal(0, 1e-5, (400, 60))  # 2 bp per million
    close = 100.0 * np.exp(np.cumsum(returns, axis=1))
    quote = np.full_like(flow, 3e7)
    bars = Bars(close, close, close, quote / close, quote, quote / 2, (quote + flow) / 2)
    none, empty = np.array([], dtype=np.int64), np.array([])
    grid = np.arange(100, 500) * MINUTE
    got = features(grid, of_trades(none, empty, empty, empty), of_tops(none, empty), bars)
    assert np.median(got[:, N("kyle_lambda")]) == pytest.approx(2.0, rel=0.02)


def test_independent_trades_have_no_branching_and_a_random_walk_a_ratio_of_one() -> None:
    rng = np.random.default_rng(13)
    ts = np.sort(rng.integers(0, 600 * MINUTE, 60_000))
    close = 100.0 * np.exp(np.cumsum(rng.normal(0, 1e-4, (600, 60)), axis=1))
    grid = np.arange(1, 601) * MINUTE
    flat = np.ones_like(close)
    trades = of_trades(ts, np.full(60_000, 100.0), np.ones(60_000), np.ones(60_000))
    bars = Bars(close, close, close, flat, flat, flat / 2, flat / 2)
    got = features(grid, trades, of_tops(ts[:0], np.array([])), bars)
    assert np.nanmean(got[15:, N("hawkes_branching")]) < 0.06
    assert np.nanmean(got[:, N("variance_ratio")]) == pytest.approx(1.0, abs=0.05)
    assert np.nanmax(got[:, N("vpin")]) == pytest.approx(0.0, abs=1e-12)


def test_what_needs_a_volume_that_is_not_known_is_null() -> None:
    rng = np.random.default_rng(8)
    shape = (1, ms.BARS)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, shape), axis=1))
    volume = rng.lognormal(0, 1, shape)
    volume[0, 30] = 0.0  # a quiet minute counts as none, it is not unknown
    names = ("volume", "quote_volume", "buy_volume", "buy_quote_volume")
    bars = {"high": close * 1.001, "low": close * 0.999, "close": close}
    bars |= {name: volume * (0.4 if "buy" in name else 1.0) for name in names}
    some = [ms._amihud, ms._kyle, ms._hasbrouck, ms._vpin]
    with np.errstate(divide="ignore", invalid="ignore"):
        assert all(np.isfinite(function(ms.Windows(Bars(**bars)))[0]) for function in some)
        unknown = {name: value.copy() for name, value in bars.items()}
        for name in names:
            unknown[name][0, 20] = np.nan
        assert [function(ms.Windows(Bars(**unknown)))[0] for function in some] == pytest.approx(
            [np.nan] * 4, nan_ok=True
        )


def test_a_bar_without_a_known_volume_is_not_a_quiet_minute() -> None:
    close = np.array([[1.0, 2.0, np.nan, 4.0]])
    volume = np.array([[5.0, np.nan, np.nan, 6.0]])
    bars = {"open": close.copy(), "close": close.copy(), "volume": volume.copy()}
    w.fill_quiet(bars)
    np.testing.assert_array_equal(bars["close"], [[1.0, 2.0, 2.0, 4.0]])
    np.testing.assert_array_equal(bars["volume"], [[5.0, np.nan, 0.0, 6.0]])


@pytest.mark.parametrize("gaps", [(), (1, 5), (1, 6)])
def test_bars_in_a_row_give_what_their_windows_give(gaps: tuple[int, ...]) -> None:
    """To the last bit, with short and long gaps, and bars that came late or were not known well."""
    rng = np.random.default_rng(3)
    size = 400
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, size)))
    values = {"high": close * 1.001, "low": close * 0.999, "close": close}
    values |= {
        name: rng.lognormal(0, 1, size)
        for name in ("volume", "quote_volume", "buy_volume", "buy_quote_volume")
    }
    values["buy_volume"][150] = np.nan
    there = np.ones(size, dtype=bool)
    for k, gap in enumerate(gaps):
        there[100 + 90 * k : 100 + 90 * k + gap] = False
    bucket = np.arange(size, dtype=np.int64)[there] * MINUTE
    usable = bucket + MINUTE + np.where(np.arange(len(bucket)) % 37 == 20, 2 * MINUTE, 0)
    channels = {name: value[there] for name, value in values.items()}
    versions = w.Versions(
        bucket, usable, np.full(len(bucket), w.NEVER), channels, dict.fromkeys(values, "last"),
        bucket, bucket, np.zeros(len(bucket), dtype=np.int64),
    )  # fmt: skip
    series = w.Series(versions, 0, size * MINUTE)
    grid = np.arange(ms.BARS + w.QUIET, size + 1, dtype=np.int64) * MINUTE
    got, want = ms._at_bars(series, grid), ms._of_bar_windows(series, grid)
    assert len(series.unsettled(grid, ms.BARS)) > 10
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])
        assert np.isfinite(want[name]).any()
        for row in (0, 57, 120, len(grid) - 1):
            alone = ms._at_bars(series, grid[row : row + 1])[name]
            np.testing.assert_array_equal(alone, want[name][row : row + 1])
