"""Microstructure estimators: against plain per-window definitions, and known parameters."""

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
from alphaplus.server import microstructure as ms
from alphaplus.server.microstructure import MINUTE, SECOND, Bars, Mids, Trades

N = ms.NAMES.index


def stream(seed: int, minutes: int = 200, per_minute: float = 20.0) -> tuple[Trades, Mids, Bars]:
    """A random market: trades, mids, and the bars of its last 60 minutes at each minute's end."""
    rng = np.random.default_rng(seed)
    n = rng.poisson(per_minute * minutes)
    ts = np.sort(rng.integers(0, minutes * MINUTE, n))
    sign = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    sign[1:] = np.where(rng.random(n - 1) < 0.4, sign[:-1], sign[1:])
    mid = 100.0 * np.exp(np.cumsum(rng.normal(0, 1e-4, n) + 2e-5 * sign))
    trades = Trades(ts, np.round(mid * (1 + 2e-4 * sign), 3), rng.lognormal(0, 1, n), sign)
    book = np.sort(rng.integers(0, minutes * MINUTE, n // 2))
    mids = Mids(book, np.interp(book, ts, mid))
    grid = np.arange(61, minutes + 1) * MINUTE
    edges = np.searchsorted(ts, np.arange(minutes + 1) * MINUTE)
    rows = []
    for a, b in pairwise(edges):
        p, s, q = trades.price[a:b], trades.size[a:b], sign[a:b] > 0
        value = p * s
        rows.append(
            (p.max(), p.min(), p[-1], s.sum(), value.sum(), s[q].sum(), value[q].sum())
            if b > a
            else (math.nan,) * 7
        )
    table = np.array(rows).T
    windows = np.lib.stride_tricks.sliding_window_view(table, 60, axis=1)[:, 1:]
    return trades, mids, Bars(*(np.ascontiguousarray(w) for w in windows)), grid  # type: ignore[return-value]


def window(trades: Trades, t: int) -> tuple[np.ndarray, ...]:
    keep = (trades.ts >= t - ms.TRADE_WINDOW) & (trades.ts < t)
    return trades.ts[keep], trades.price[keep], trades.size[keep], trades.sign[keep]


def naive(name: str, t: int, trades: Trades, mids: Mids, bars: dict[str, np.ndarray]) -> float:
    ts, price, size, sign = window(trades, t)
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
        e = np.log2(size)
        bins = np.clip(np.floor(e - np.median(e)) + 8, 0, 15)
        _, counts = np.unique(bins, return_counts=True)
        p = counts / counts.sum()
        return float(-(p * np.log(p)).sum() / math.log(16))
    if name == "inter_trade_duration":
        return float(np.diff(ts).mean() / SECOND)
    if name == "hawkes_branching":
        counts, _ = np.histogram(ts, bins=90, range=(t - ms.TRADE_WINDOW, t))
        return max(0.0, 1 - math.sqrt(counts.mean() / counts.var(ddof=1)))
    if name == "tick_rule_agreement":
        side, known, agreed = 0.0, 0, 0
        for i in range(1, len(price)):
            side = float(np.sign(price[i] - price[i - 1])) or side
            if side:
                known += 1
                agreed += side == sign[i]
        return agreed / known
    if name in ("effective_spread", "realised_spread"):
        total = weight = 0.0
        for a, p, s, side in zip(ts, price, size, sign, strict=True):
            before = mids.mid[mids.ts < a]
            if len(before) == 0 or (name == "realised_spread" and a >= t - 60 * SECOND):
                continue
            mid = before[-1]
            then = mids.mid[mids.ts < a + 60 * SECOND][-1] if name == "realised_spread" else mid
            total += 2e4 * side * (p - then) / mid * s
            weight += s
        return total / weight
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


@pytest.mark.parametrize("name", ms.NAMES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_feature_equals_its_plain_definition(name: str, seed: int) -> None:
    trades, mids, bars, grid = stream(seed)  # type: ignore[misc]
    got = ms.compute(grid, trades, mids, bars)[:, N(name)]
    seen = 0
    for i in range(0, len(grid), 23):
        row = {key: getattr(bars, key)[i] for key in bars.__dataclass_fields__}
        want = naive(name, int(grid[i]), trades, mids, row)
        if math.isnan(want):
            assert math.isnan(got[i])
        else:
            seen += 1
            assert got[i] == pytest.approx(want, rel=1e-9, abs=1e-12)
    assert seen > 0


def test_sixteen_documented_features() -> None:
    assert len(ms.FEATURES) == len(set(ms.NAMES)) == 16
    assert all(f.formula and f.unit and f.source for f in ms.FEATURES)


def test_one_time_at_once_gives_the_same_bits_as_history() -> None:
    trades, mids, bars, grid = stream(4)  # type: ignore[misc]
    history = ms.compute(grid, trades, mids, bars)
    for i in range(0, len(grid), 7):
        t = grid[i]
        keep = (trades.ts >= t - ms.TRADE_WINDOW) & (trades.ts < t)
        near = Trades(trades.ts[keep], trades.price[keep], trades.size[keep], trades.sign[keep])
        shown = mids.ts < t
        one = ms.compute(
            grid[i : i + 1],
            near,
            Mids(mids.ts[shown], mids.mid[shown]),
            Bars(*(getattr(bars, key)[i : i + 1] for key in bars.__dataclass_fields__)),
        )
        np.testing.assert_array_equal(one[0], history[i])


def test_nothing_known_is_null_not_zero() -> None:
    empty = np.array([], dtype=np.int64)
    nothing = np.full((1, 60), np.nan)
    got = ms.compute(
        np.array([100 * MINUTE]),
        Trades(empty, empty.astype(float), empty.astype(float), empty.astype(float)),
        Mids(empty, empty.astype(float)),
        Bars(*[nothing] * 7),
    )
    assert np.isnan(got).all()


def test_roll_recovers_a_known_spread() -> None:
    rng = np.random.default_rng(11)
    n = 15_000
    ts = np.sort(rng.integers(0, ms.TRADE_WINDOW, n))
    sign = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    price = 100.0 + np.cumsum(rng.normal(0, 1e-3, n)) + 0.05 * sign  # spread 0.1 = 10 bp
    nothing = Bars(*[np.full((1, 60), np.nan)] * 7)
    got = ms.compute(
        np.array([ms.TRADE_WINDOW]),
        Trades(ts, price, np.ones(n), sign),
        Mids(ts[:0], price[:0]),
        nothing,
    )
    assert got[0, N("roll_spread")] == pytest.approx(10.0, rel=0.05)


def test_kyle_and_hasbrouck_recover_a_known_impact() -> None:
    rng = np.random.default_rng(12)
    flow = rng.normal(0, 5e6, (400, 60))
    returns = 2e-4 * flow / 1e6 + rng.normal(0, 1e-5, (400, 60))  # 2 bp per million
    close = 100.0 * np.exp(np.cumsum(returns, axis=1))
    quote = np.full_like(flow, 3e7)
    bars = Bars(close, close, close, quote / close, quote, quote / 2, (quote + flow) / 2)
    got = ms.compute(
        np.arange(400),
        Trades(*(np.array([], dtype=d) for d in (np.int64, float, float, float))),
        Mids(np.array([], dtype=np.int64), np.array([])),
        bars,
    )
    assert np.median(got[:, N("kyle_lambda")]) == pytest.approx(2.0, rel=0.02)


def test_independent_trades_have_no_branching_and_a_random_walk_a_ratio_of_one() -> None:
    rng = np.random.default_rng(13)
    ts = np.sort(rng.integers(0, 600 * MINUTE, 60_000))
    close = 100.0 * np.exp(np.cumsum(rng.normal(0, 1e-4, (600, 60)), axis=1))
    grid = np.arange(1, 601) * MINUTE
    flat = np.ones_like(close)
    got = ms.compute(
        grid,
        Trades(ts, np.full(60_000, 100.0), np.ones(60_000), np.ones(60_000)),
        Mids(ts[:0], np.array([])),
        Bars(close, close, close, flat, flat, flat / 2, flat / 2),
    )
    assert np.nanmean(got[15:, N("hawkes_branching")]) < 0.06
    assert np.nanmean(got[:, N("variance_ratio")]) == pytest.approx(1.0, abs=0.05)
    assert np.nanmax(got[:, N("vpin")]) == pytest.approx(0.0, abs=1e-12)
