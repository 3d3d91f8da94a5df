"""A seeded market simulator that also knows the truth.

Once a minute a hidden state moves: a regime (Markov chain), volatility, order-flow imbalance,
thinness of the book and leverage (autoregressive about the regime's levels). From it come trades,
whose net flow moves the price (Kyle's lambda) around a mid with a known half spread; order books,
whose depth and imbalance show the state; funding and open interest, which show leverage; and forced
liquidations, a Hawkes process whose base rate depends on the state and whose jumps excite more.

So everything that drives the hazard can be seen, with noise, in the data, and the best possible
score is known: ``hazard_<h>`` is the expected notional liquidated in the next h given the whole
state, by nested simulation from the state. With ``signal=False`` liquidations depend on nothing.

Arrays are per symbol; times are int64 microseconds since 2000-01-01 UTC.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import psycopg
from alphaplus.loaders import pgcopy
from alphaplus.loaders.pgcopy import Interval, Text

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MINUTE = 60_000_000
EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
DEFAULT_END = dt.datetime(2024, 6, 30, tzinfo=dt.UTC)
REGIMES = ("bull", "bear", "sideways", "high_volatility", "low_volatility", "crash")
# Mean minutes in a regime: two days, a day of high volatility, eight hours of a crash.
#                   bull  bear  side  high  low   crash
_DWELL = np.array([2880, 2880, 2880, 1440, 2880, 480])
_STAY = 1.0 - 1.0 / _DWELL
_NEXT = np.array(
    [
        [0, 1, 4, 3, 2, 1.6],
        [2.4, 0, 4, 3, 1, 2],
        [3.6, 2, 0, 2, 3, 1],
        [3, 1.6, 3, 0, 1, 2.2],
        [2.8, 1.6, 4, 1, 0, 0.6],
        [2.5, 1.5, 1, 5, 0, 0],
    ]
)
_LOG_VOL = np.array([0.0, 0.1, -0.1, 0.7, -0.6, 1.2])
# Drift over the mean dwell in units of the volatility over it: below 1.5 a trend is noise. Over all
# regimes prices go nowhere.
_TREND = np.array([2.8, -2.7, 0.0, 0.0, 0.0, -1.6])
_DRIFT = _TREND * 6e-4 * np.exp(_LOG_VOL) / np.sqrt(_DWELL)
_THIN = np.array([-0.1, 0.2, 0.0, 0.5, -0.3, 1.2])
HORIZONS = {"hazard_5m": 5, "hazard_15m": 15, "hazard_30m": 30, "hazard_60m": 60}


@dataclass(frozen=True)
class Config:
    """Parameters of one symbol's simulation.

    volatility: log return per root minute in the middle regime. trades: mean per minute. size: mean
    trade in quote currency. half_spread: of price. kyle: log return per quote currency of net
    taker flow. events: liquidations a minute in the middle state. branching: liquidations that one
    sets off, decaying with a half-life of ``decay`` minutes. drift_at: share of the span after
    which volatility is multiplied by drift_volatility and flow shifted by drift_flow.
    """

    price: float = 60_000.0
    volatility: float = 6e-4
    trades: float = 6.0
    size: float = 20_000.0
    half_spread: float = 5e-5
    kyle: float = 2e-9
    levels: int = 10
    depth: float = 400_000.0
    events: float = 0.03
    branching: float = 0.6
    decay: float = 5.0
    notional: float = 30_000.0
    signal: bool = True
    drift_at: float = 1.0
    drift_volatility: float = 1.0
    drift_flow: float = 0.0
    latency: float = 0.0


PRESETS = {"BTC": 60_000.0, "ETH": 3_000.0, "SOL": 150.0, "DOGE": 0.15, "HYPE": 30.0}


@dataclass(frozen=True)
class Market:
    """One simulated symbol: events by time, the minute state, and the truth."""

    config: Config
    start: int
    minutes: int
    trades: dict[str, npt.NDArray[Any]]
    books: dict[str, npt.NDArray[Any]]
    liquidations: dict[str, npt.NDArray[Any]]
    funding: dict[str, npt.NDArray[Any]]
    open_interest: dict[str, npt.NDArray[Any]]
    truth: dict[str, npt.NDArray[Any]]


@dataclass
class _State:
    """The hidden state of many paths (or of one): arrays of one shape."""

    regime: npt.NDArray[np.int64]
    log_vol: Floats
    flow: Floats
    thin: Floats
    leverage: Floats
    excitation: Floats


def _transitions() -> Floats:
    leave = _NEXT / _NEXT.sum(axis=1, keepdims=True) * (1 - _STAY)[:, None]
    return np.cumsum(leave + np.diag(_STAY), axis=1)


_CUMULATIVE = _transitions()


def _move(state: _State, rng: np.random.Generator) -> None:
    """One minute of the hidden state, in place."""
    shape = state.log_vol.shape
    u = rng.random(shape)
    state.regime = (u[..., None] > _CUMULATIVE[state.regime]).sum(axis=-1)
    normal = rng.standard_normal((4, *shape))
    state.log_vol += 0.03 * (_LOG_VOL[state.regime] - state.log_vol) + 0.04 * normal[0]
    state.flow += -0.04 * state.flow + 0.08 * normal[1]
    state.thin += 0.03 * (_THIN[state.regime] - state.thin) + 0.09 * normal[2]
    state.leverage += -0.002 * state.leverage + 0.03 * normal[3]


def _posterior(config: Config, path: dict[str, Floats], hidden: Floats, mids: Floats) -> Floats:
    """(minutes, 6) probabilities of the regimes by the forward filter that is given the hidden
    volatility and thinness, the returns, and all true parameters: nothing can recognise them
    better.
    """
    leave = _NEXT / _NEXT.sum(axis=1, keepdims=True) / _DWELL[:, None]
    onward = leave + np.diag(_STAY)
    volatility = hidden[:, None]
    before = np.concatenate([[0.0], hidden[:-1]])[:, None]
    thin = path["thin"][:, None]
    thin_before = np.concatenate([[0.0], path["thin"][:-1]])[:, None]
    scale = config.volatility * np.exp(path["log_vol"])[:, None]
    change = np.diff(np.log(mids))[:, None]
    log = -0.5 * ((volatility - 0.97 * before - 0.03 * _LOG_VOL) / 0.04) ** 2
    log -= 0.5 * ((thin - 0.97 * thin_before - 0.03 * _THIN) / 0.09) ** 2
    log -= 0.5 * ((change - _DRIFT) / scale) ** 2
    likelihood = np.exp(log - log.max(axis=1, keepdims=True))
    out = np.empty((len(hidden), len(REGIMES)))
    p = np.eye(len(REGIMES))[2]
    for minute in range(len(hidden)):
        p = (p @ onward) * likelihood[minute]
        p /= p.sum()
        out[minute] = p
    return out


def _base(config: Config, state: _State) -> Floats:
    """Liquidations a minute that the state brings about, without those set off by others."""
    if not config.signal:
        return np.full(state.log_vol.shape, config.events * 4.0)
    log = 1.3 * state.log_vol + 1.5 * state.thin + 0.8 * np.abs(state.flow) + 0.7 * state.leverage
    rate: Floats = config.events * np.exp(np.clip(log, -6.0, 4.5))
    return rate


def _excite(config: Config, state: _State, count: Floats) -> None:
    """Events of this minute raise the next minutes' rate; ``branching`` events in all for each."""
    keep = 0.5 ** (1.0 / config.decay)
    if config.signal:
        state.excitation = keep * (state.excitation + count * config.branching * (1 - keep) / keep)


def simulate(
    seed: int, minutes: int, config: Config | None = None, start: int = 0, *, hazards: bool = True
) -> Market:
    """Simulate one symbol for some minutes from ``start``; the same seed gives the same market."""
    config = config or Config()
    rng = np.random.default_rng([seed, 1])
    state = _State(
        np.array(2),
        np.array(0.0),
        np.array(0.0),
        np.array(0.0),
        np.array(0.0),
        np.array(0.0),
    )
    names = ("regime", "log_vol", "flow", "thin", "leverage", "excitation", "rate", "count")
    path = {name: np.zeros(minutes) for name in names}
    for m in range(minutes):
        _move(state, rng)
        rate = _base(config, state) + state.excitation
        count = rng.poisson(rate)
        for name in names[:6]:
            path[name][m] = getattr(state, name)
        path["rate"][m], path["count"][m] = rate, count
        _excite(config, state, np.asarray(count, dtype=np.float64))
    shift = np.arange(minutes) >= config.drift_at * minutes
    hidden = path["log_vol"]
    path["log_vol"] = path["log_vol"] + np.where(shift, np.log(config.drift_volatility), 0.0)
    path["flow"] = path["flow"] + np.where(shift, config.drift_flow, 0.0)

    rng = np.random.default_rng([seed, 2])
    trades, mids = _trades(rng, config, path, start, minutes)
    truth: dict[str, npt.NDArray[Any]] = {
        "ts": start + MINUTE * np.arange(minutes),
        "regime": path["regime"].astype(np.int64),
        "volatility": config.volatility * np.exp(path["log_vol"]),
        "intensity": path["rate"],
        "posterior": _posterior(config, path, hidden, mids),
    }
    if hazards:
        truth |= _hazards(np.random.default_rng([seed, 3]), config, path)
    return Market(
        config,
        start,
        minutes,
        trades,
        _books(rng, config, path, mids, start, minutes),
        _liquidations(rng, config, path, mids, start),
        _funding(rng, path, start, minutes),
        _open_interest(rng, config, path, mids, start, minutes),
        truth,
    )


def _trades(
    rng: np.random.Generator, config: Config, path: dict[str, Floats], start: int, minutes: int
) -> tuple[dict[str, npt.NDArray[Any]], Floats]:
    """Trades, and the mid at each minute's start (minutes + 1)."""
    busy = np.exp(0.5 * path["log_vol"] + 0.3 * np.abs(path["flow"]))
    count = np.maximum(rng.poisson(config.trades * busy), 1)
    minute = np.repeat(np.arange(minutes), count)
    n = len(minute)
    ts = np.sort(start + MINUTE * minute + rng.integers(0, MINUTE, n))
    minute = (ts - start) // MINUTE
    sign = np.where(rng.random(n) < 0.5 + 0.4 * np.tanh(path["flow"][minute]), 1.0, -1.0)
    value = config.size * rng.lognormal(-0.5, 1.0, n)
    sigma = config.volatility * np.exp(path["log_vol"][minute]) / np.sqrt(count[minute])
    regime = path["regime"][minute].astype(np.int64)
    step = (
        sigma * rng.standard_normal(n) + config.kyle * sign * value + _DRIFT[regime] / count[minute]
    )
    mid = config.price * np.exp(np.cumsum(step))
    price = mid * (1 + config.half_spread * sign)
    digits = max(2, 6 - int(np.floor(np.log10(config.price))))
    price = np.round(price, digits)
    ends = np.searchsorted(ts, start + MINUTE * np.arange(minutes + 1))
    mids = np.append(config.price, mid)[ends]
    return (
        {
            "ts": ts,
            "price": price,
            "size": np.maximum(np.round(value / price, 6), 1e-6),
            "sign": sign,
        },
        mids,
    )


def _books(
    rng: np.random.Generator,
    config: Config,
    path: dict[str, Floats],
    mids: Floats,
    start: int,
    minutes: int,
) -> dict[str, npt.NDArray[Any]]:
    """One book a minute, a second before its end: thin and lopsided as the state says."""
    k = config.levels
    mid = mids[1:][:, None]
    step = config.half_spread * np.exp(0.3 * path["log_vol"])[:, None]
    distance = step * (1.0 + 4.0 * np.arange(k)[None, :])
    level = config.depth * np.exp(-path["thin"])[:, None] / k
    lean = 0.6 * np.tanh(path["flow"])[:, None]
    noise = rng.lognormal(0.0, 0.25, (2, minutes, k))
    wall = rng.random((2, minutes, k)) < 0.03
    noise = np.where(wall, noise * 6.0, noise)
    bids, asks = mid * (1 - distance), mid * (1 + distance)
    return {
        "ts": start + MINUTE * (1 + np.arange(minutes)) - 1_000_000,
        "bid_prices": bids,
        "bid_sizes": level * (1 + lean) * noise[0] / bids,
        "ask_prices": asks,
        "ask_sizes": level * (1 - lean) * noise[1] / asks,
    }


def _liquidations(
    rng: np.random.Generator, config: Config, path: dict[str, Floats], mids: Floats, start: int
) -> dict[str, npt.NDArray[Any]]:
    minute = np.repeat(np.arange(len(path["count"])), path["count"].astype(np.int64))
    n = len(minute)
    ts = np.sort(start + MINUTE * minute + rng.integers(0, MINUTE, n))
    change = np.log(mids[minute + 1] / mids[minute])
    falling = rng.random(n) < 1.0 / (1.0 + np.exp(3.0 * change / config.volatility))
    price = mids[minute]
    size = np.maximum(np.round(_notional(rng, config, n) / price, 6), 1e-6)
    return {
        "ts": ts,
        "price": price,
        "size": size,
        "notional": price * size,
        "sign": np.where(falling, -1.0, 1.0),
    }


def _notional(rng: np.random.Generator, config: Config, n: Any) -> Floats:
    return np.asarray(config.notional * rng.lognormal(-0.32, 0.8, n))


def _funding(
    rng: np.random.Generator, path: dict[str, Floats], start: int, minutes: int
) -> dict[str, npt.NDArray[Any]]:
    """Hourly, and a clear sign of leverage."""
    at = np.arange(0, minutes, 60)
    rate = 1e-5 + 4e-5 * path["leverage"][at] + 2e-6 * rng.standard_normal(len(at))
    return {"ts": start + MINUTE * at, "rate": rate}


def _open_interest(
    rng: np.random.Generator,
    config: Config,
    path: dict[str, Floats],
    mids: Floats,
    start: int,
    minutes: int,
) -> dict[str, npt.NDArray[Any]]:
    at = np.arange(0, minutes, 5)
    contracts = (
        3e9
        / config.price
        * np.exp(0.3 * path["leverage"][at])
        * np.exp(2e-3 * rng.standard_normal(len(at)))
    )
    return {"ts": start + MINUTE * at, "open_interest": contracts, "value": contracts * mids[at]}


def _hazards(
    rng: np.random.Generator,
    config: Config,
    path: dict[str, Floats],
    every: int = 10,
    paths: int = 64,
) -> dict[str, Floats]:
    """Expected notional in the next h minutes given the state, for every tenth minute.

    From each such minute ``paths`` futures are simulated. What is averaged is the expected count
    given the path's rates, not drawn events, so that few paths do.
    """
    minutes = len(path["rate"])
    out = {name: np.full(minutes, np.nan) for name in HORIZONS}
    at = np.arange(0, minutes, every)
    if not config.signal:
        for name, horizon in HORIZONS.items():
            out[name][at] = horizon * config.events * 4.0 * config.notional
        return out

    def start(name: str) -> Floats:
        # The state at the start of minute m is what minute m - 1 left.
        return np.repeat(path[name][np.maximum(at - 1, 0)][:, None], paths, axis=1)

    state = _State(
        start("regime").astype(np.int64),
        start("log_vol"),
        start("flow"),
        start("thin"),
        start("leverage"),
        start("excitation"),
    )
    count = np.repeat(path["count"][np.maximum(at - 1, 0)][:, None], paths, axis=1)
    _excite(config, state, count)
    total = np.zeros((len(at), paths))
    for minute in range(1, max(HORIZONS.values()) + 1):
        _move(state, rng)
        rate = _base(config, state) + state.excitation
        total += rate
        _excite(config, state, rng.poisson(rate).astype(np.float64))
        for name, horizon in HORIZONS.items():
            if minute == horizon:
                out[name][at] = total.mean(axis=1) * config.notional
    return out


def micros(moment: dt.datetime) -> int:
    """Microseconds since 2000-01-01 UTC."""
    return round((moment - EPOCH) / dt.timedelta(microseconds=1))


def write(conn: psycopg.Connection[Any], base: str, seed: int, market: Market) -> str:
    """Write a simulated symbol into market.*, replacing what was simulated of it before.

    Returns its name, ``<base>USDT@sim``.
    """
    native = f"{base}USDT"
    symbol = f"{native}@sim"
    conn.execute(
        "insert into market.instruments"
        " (symbol, exchange, native_symbol, base, quote, kind, aliases, priority, is_simulated)"
        " values (%s, 'sim', %s, %s, 'USDT', 'perpetual', %s, 1000, true) on conflict do nothing",
        (symbol, native, base, [native, f"{base}/USDT", f"{base}/USDT:USDT"]),
    )
    first, last = market.start, market.start + MINUTE * market.minutes
    span = [EPOCH + dt.timedelta(microseconds=t) for t in (first, last)]
    conn.execute("call market.forget_simulation(%s)", (symbol,))
    late = round(market.config.latency * 1e6)

    def text_ids(n: int) -> npt.NDArray[np.bytes_]:
        return np.char.zfill(np.arange(n).astype("S10"), 10).astype("S10")

    def events(
        values: dict[str, npt.NDArray[Any]], names: tuple[str, ...], key: str
    ) -> list[tuple[dict[str, Any], int]]:
        ids = text_ids(len(values["ts"]))
        batches = []
        for side, sign in (("buy", 1.0), ("sell", -1.0)):
            keep = values["sign"] == sign
            columns: dict[str, Any] = {name: values[name][keep] for name in names}
            columns |= {
                "symbol": Text(symbol),
                "known_at": values["ts"][keep] + late,
                key: Text(ids[keep]),
                "side": Text(side),
            }
            batches.append((columns, int(keep.sum())))
        return batches

    def plain(values: dict[str, npt.NDArray[Any]]) -> list[tuple[dict[str, Any], int]]:
        columns: dict[str, Any] = dict(values)
        columns |= {"symbol": Text(symbol), "known_at": values["ts"] + late}
        return [(columns, len(values["ts"]))]

    base_names = ("symbol", "ts", "known_at")
    pgcopy.copy(
        conn,
        "market.trades",
        (*base_names, "trade_id", "price", "size", "side"),
        events(market.trades, ("ts", "price", "size"), "trade_id"),
    )
    pgcopy.copy(
        conn,
        "market.order_book_snapshots",
        (*base_names, "bid_prices", "bid_sizes", "ask_prices", "ask_sizes"),
        plain(market.books),
    )
    pgcopy.copy(
        conn,
        "market.liquidation_events",
        (*base_names, "event_id", "price", "size", "notional", "side"),
        events(market.liquidations, ("ts", "price", "size", "notional"), "event_id"),
    )
    ((funding, count),) = plain(market.funding)
    funding["funding_interval"] = Interval(60 * MINUTE)
    names = (*base_names, "rate", "funding_interval")
    pgcopy.copy(conn, "market.funding_rates", names, [(funding, count)])
    pgcopy.copy(
        conn,
        "market.open_interest",
        (*base_names, "open_interest", "value"),
        plain(market.open_interest),
    )
    _write_truth(conn, symbol, market)
    conn.execute(
        "insert into market.simulation_runs (symbol, seed, config, first_ts, last_ts)"
        " values (%s, %s, %s, %s, %s)",
        (symbol, seed, json.dumps(asdict(market.config)), *span),
    )
    return symbol


def _write_truth(conn: psycopg.Connection[Any], symbol: str, market: Market) -> None:
    truth = market.truth
    n = market.minutes
    hazard = np.isfinite(truth["hazard_5m"]) if "hazard_5m" in truth else np.zeros(n, dtype=bool)
    batches = []
    for code, regime in enumerate(REGIMES):
        for known in (True, False):
            keep = (truth["regime"] == code) & (hazard == known)
            if not keep.any():
                continue
            columns: dict[str, Any] = {
                name: truth[name][keep] for name in ("ts", "volatility", "intensity", "posterior")
            }
            columns |= {"symbol": Text(symbol), "regime": Text(regime)}
            if known:
                columns |= {name: truth[name][keep] for name in HORIZONS}
            batches.append((columns, int(keep.sum())))
    names = ("symbol", "ts", "regime", "volatility", "intensity", "posterior", *HORIZONS)
    pgcopy.copy(conn, "market.simulation_truth", names, batches)


def run(
    conn: psycopg.Connection[Any],
    bases: list[str],
    days: float,
    seed: int,
    end: dt.datetime = DEFAULT_END,
    config: Config | None = None,
) -> list[str]:
    """Simulate symbols up to ``end`` and write them; returns their names."""
    minutes = round(days * 1440)
    start = micros(end) - MINUTE * minutes
    symbols = []
    for i, base in enumerate(bases):
        price = PRESETS.get(base, 100.0)
        own = replace(config or Config(), price=price)
        with conn.transaction():
            symbols.append(write(conn, base, seed + i, simulate(seed + i, minutes, own, start)))
    return symbols


def daily_panel(
    stocks: int = 800, first: str = "2007-01-01", last: str = "2020-12-31", seed: int = 1
) -> pd.DataFrame:
    """Daily bars of many stocks: columns symbol, ts, open, high, low, close, volume.

    A market factor, a sector factor and own noise; business days only. About 2.7 million rows with
    the defaults.
    """
    rng = np.random.default_rng(seed)
    days = pd.bdate_range(first, last, tz="UTC")
    n = len(days)
    common = 0.008 * rng.standard_normal(n)
    sector = 0.006 * rng.standard_normal((12, n))
    own = 0.015 * rng.standard_normal((stocks, n)) + 2e-4
    beta = rng.uniform(0.5, 1.5, (stocks, 1))
    close = 50.0 * np.exp(np.cumsum(beta * common + sector[np.arange(stocks) % 12] + own, axis=1))
    open_ = close * np.exp(0.006 * rng.standard_normal((stocks, n)))
    high = np.maximum(open_, close) * np.exp(np.abs(0.006 * rng.standard_normal((stocks, n))))
    low = np.minimum(open_, close) * np.exp(-np.abs(0.006 * rng.standard_normal((stocks, n))))
    volume = np.round(np.exp(rng.normal(13, 0.5, (stocks, n))))
    return pd.DataFrame(
        {
            "symbol": np.repeat([f"S{i:04d}" for i in range(stocks)], n),
            "ts": np.tile(days.to_numpy(), stocks),
            "open": open_.ravel(),
            "high": high.ravel(),
            "low": low.ravel(),
            "close": close.ravel(),
            "volume": volume.ravel(),
        }
    )
