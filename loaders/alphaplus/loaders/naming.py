"""What the path of a file says: venue, symbol, kind, series, bar length.

Folders and names that tools and archives give are known by their form: Binance's archive
(futures/um/daily/klines/SOLUSDT/1m/…), freqtrade's (binance/ETH_BTC-5m), CryptoDataDownload's
(Binance_BTCUSDT_1h), OKX's, Bybit's, Kraken's, HistData's, stooq's. A name in which more than one
word could be the symbol says none.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from alphaplus.loaders.instruments import (
    COINS,
    FIAT,
    METALS,
    QUOTES,
    SPOT_VENUES,
    VENUES,
    vendor_venue,
)

MONTH = -1.0  # stands for a calendar month among bar lengths in seconds
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_WORDS = {
    "minute": 60.0, "hour": 3600.0, "hourly": 3600.0, "d": 86_400.0, "day": 86_400.0, "daily":
    86_400.0, "weekly": 604_800.0, "week": 604_800.0, "monthly": MONTH, "month": MONTH, "eod":
    86_400.0,
}  # fmt: skip
# Lengths that bars have: what lies at another distance is not taken for a bar length.
LENGTHS = (
    1.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 600.0, 900.0, 1200.0, 1800.0,
    3600.0, 7200.0, 10_800.0, 14_400.0, 21_600.0, 28_800.0, 43_200.0, 86_400.0, 259_200.0,
    604_800.0,
)  # fmt: skip
_KINDS = {
    "spot": "spot", "um": "derivative", "cm": "derivative", "usdm": "derivative", "coinm":
    "derivative", "umfutures": "derivative", "cmfutures": "derivative", "perp": "perpetual",
    "perps": "perpetual", "perpetual": "perpetual", "swap": "perpetual", "futures": "derivative",
    "future": "derivative", "linear": "derivative", "inverse": "derivative",
}  # fmt: skip
_SERIES = {
    "markpriceklines": "mark", "indexpriceklines": "index", "premiumindexklines": "premium",
    "mark": "mark", "mark_price": "mark", "markprice": "mark", "markpricekline": "mark",
    "indexprice": "index", "index_price": "index", "indexpricekline": "index",
    "premiumindex": "premium", "premium_index": "premium", "premium": "premium",
    "mark_price_kline": "mark", "index_price_kline": "index", "premium_index_price": "premium",
    "premium_index_kline": "premium", "premiumindexkline": "premium", "markpricecandles": "mark",
    "indexcandles": "index", "mark-price": "mark", "index-price": "index",
}  # fmt: skip
_DATASETS = {
    "trades": "trades", "trade": "trades", "aggtrades": "trades", "liquidations": "liquidations",
    "liquidationsnapshot": "liquidations", "liquidation": "liquidations", "funding": "funding",
    "fundingrate": "funding", "fundingrates": "funding", "funding_rate": "funding",
}  # fmt: skip
_PLAIN_WORDS = {
    "data", "trades", "candles", "klines", "ohlcv", "ohlc", "bars", "prices", "price", "quotes",
    "history", "export", "all", "test", "sample", "raw", "market", "book", "books", "ticker",
    "depth", "ticks", "ascii", "dat", "cleaned", "clean", "merged", "full",
}  # fmt: skip


@dataclass(frozen=True)
class Hints:
    """What a path says; None where it says nothing. why: the words that say the symbol."""

    exchange: str | None = None
    symbol: str | None = None
    kind: str | None = None
    series: str = "traded"
    timeframe: float | None = None
    why: str = ""
    words: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()
    tool: str = ""  # whose way of naming files it is, where that is plain


def timeframe(text: str) -> float | None:
    """Seconds of a bar length as people write it (1m, 5min, 1h, 1d, 1M, M15), MONTH of a month."""
    if text in ("1M", "1mo", "1MN", "MN1", "MN", "1mth", "1month"):
        return MONTH
    if match := re.fullmatch(r"([MHDW])(\d{1,2})", text):  # MetaTrader
        return int(match[2]) * _SECONDS[match[1].lower()]
    low = text.lower()
    if low in _WORDS:
        return _WORDS[low]
    match = re.fullmatch(
        r"(\d{1,4})(s|sec|secs|second|seconds|m|min|mins|minute|minutes|t|h|hr|hrs|hour|hours|d|day"
        r"|days|w|wk|week|weeks)",
        low,
    )
    if not match or (text.endswith("M") and match[2] == "m"):
        return None
    unit = "m" if match[2] == "t" else match[2][0]
    return int(match[1]) * _SECONDS[unit] or None


def _stem(name: str) -> str:
    """A file's name without the ends that say how it is written and packed."""
    ends = (
        "csv", "txt", "tsv", "gz", "zip", "bz2", "xz", "zst", "zstd", "parquet", "pq", "feather",
        "arrow", "json", "jsonl", "ndjson", "tar", "tgz", "dat", "log",
    )  # fmt: skip
    while "." in name and name.rsplit(".", 1)[1].lower() in ends:
        name = name.rsplit(".", 1)[0]
    return name


def read_path(path: PurePosixPath) -> Hints:
    """What the last folders and the name of a file say."""
    folders = [part for part in path.parts[-8:-1] if part != "/"]
    low = [part.lower() for part in folders]
    kind = next((_KINDS[part] for part in reversed(low) if part in _KINDS), None)
    series = next((_SERIES[part] for part in reversed(low) if part in _SERIES), "traded")
    exchange = next((v for part in reversed(low) if (v := _venue(part))), None)
    found = _read_stem(_stem(path.name), exchange)
    length = found.timeframe
    if length is None:
        length = next((t for part in reversed(folders[-3:]) if (t := timeframe(part))), None)
    symbol = found.symbol
    why = found.why
    if symbol is None and folders and re.fullmatch(r"[A-Z0-9]{5,20}(_PERP|_\d{6})?", folders[-1]):
        # …/SOLUSDT/2024-04-01.csv
        inner = _read_stem(folders[-1], exchange)
        if inner.symbol and _pair(folders[-1]):
            symbol, why = inner.symbol, f"folder {folders[-1]}"
    return Hints(
        found.exchange or exchange,
        symbol,
        found.kind or kind,
        found.series if found.series != "traded" else series,
        length,
        why,
        found.words,
        frozenset(low),
        found.tool or ("freqtrade" if _FREQTRADE.match(path.name) else ""),
    )


# ETH_BTC-5m.feather, XRP_USDT_USDT-1h-futures.feather
_FREQTRADE = re.compile(
    r"[A-Z0-9]+(_[A-Z0-9]+){1,2}-(\d+[a-zA-Z]+(-(futures|mark|index|funding_rate))?|trades)\."
)


def _venue(word: str) -> str | None:
    word = word.lower()
    if word in VENUES:
        return word
    name, _ = vendor_venue(word) if re.fullmatch(r"[a-z][a-z0-9-]+", word) else ("", None)
    return name if name in VENUES and name != word else None


def _pair(word: str) -> bool:
    """Is it a pair without a separator: a base and a quote that are plain?"""
    if not re.fullmatch(r"[A-Za-z0-9]+", word) or word.isdigit():
        return False
    upper = word.upper()
    for quote in QUOTES:
        base = upper.removesuffix(quote)
        if base != upper and base:
            known = base in COINS or base in FIAT or base in METALS
            if known or (word == upper and len(base) >= (1 if quote in ("USDT", "USDC") else 3)):
                return True
    return bool(re.fullmatch(r"[XZ][A-Z]{3}[XZ][A-Z]{3}", word))


_WHOLE: tuple[tuple[str, str], ...] = (
    # OKX: BTC-USDT-SWAP, BTC-USDT-240628; Deribit: BTC-PERPETUAL, BTC-28JUN24, BTC_USDC-PERPETUAL
    (r"[A-Z0-9]+-[A-Z]{3,5}-SWAP", "okx"),
    (r"[A-Z0-9]+-(?:USDT|USDC|USD)-\d{6}(?:-\d+-[CP])?", "okx"),
    (r"[A-Z0-9]+(?:_[A-Z]{4})?-PERPETUAL", "deribit"),
    (r"[A-Z0-9]+(?:_[A-Z]{4})?-\d{1,2}[A-Z]{3}\d{2}(?:-[\dd.]+-[CP])?", ""),
    # Binance: BTCUSD_PERP, BTCUSDT_240628; Kraken Futures: PI_XBTUSD
    (r"[A-Z0-9]+USDC?_PERP", "binance"),
    (r"[A-Z0-9]+(?:USDT|USDC|USD)_\d{6}", "binance"),
    (r"P[IF]_[A-Z0-9]+", "krakenfutures"),
    (r"F[IF]_[A-Z0-9]+_\d{6}", "krakenfutures"),
)


def _read_stem(stem: str, folder_venue: str | None) -> Hints:
    for shape, maker in _WHOLE:
        match = re.search(rf"(?:^|(?<=[_-]))({shape})(?=$|[-_.]|20\d\d)", stem)
        if match:
            rest = _words(stem[match.end() :])
            before = stem[: match.start() - 1] if match.start() else ""
            return Hints(
                next((v for w in _words(before) if (v := _venue(w))), None)
                or folder_venue
                or maker
                or None,
                match[1],
                "perpetual" if re.search("PERP|SWAP|^P[IF]_", match[1]) else None,
                _series(rest),
                _length(rest),
                "its form",
                frozenset(w.lower() for w in rest),
            )
    # TradingView: "BINANCE_BTCUSDT.P, 60", minutes where no letter says otherwise
    if match := re.fullmatch(r"([A-Z]+)_([A-Z0-9.]+?)(\.P)?, ?(\d*)([SHDWM]?)", stem):
        maker, name, contract, count, unit = match.groups()
        length = timeframe(f"{count or 1}{unit or 'm'}" if unit != "H" else f"{count or 1}h")
        pair = _pair(name) and _venue(maker) is not None
        kind = "perpetual" if contract else "spot" if pair else None
        return Hints(
            _venue(maker) or folder_venue, name, kind, timeframe=length,
            why="TradingView's way of writing names", tool="tradingview",
        )  # fmt: skip
    # Bybit: BTCUSDT2024-04-01
    if match := re.fullmatch(r"([A-Z0-9]+?)(20\d\d-\d\d-\d\d)", stem):
        return Hints(symbol=match[1], why="before the date", exchange=folder_venue)
    # stooq: aapl.us
    if match := re.fullmatch(r"([a-z0-9-]+)\.(us|uk|de|jp|hk|pl|hu)", stem):
        return Hints(symbol=stem.upper(), kind="stock", why="stooq's way of writing names")
    # ftx and others: btc-perp
    if match := re.match(r"([A-Za-z0-9]{2,10})[-_]perp(?=$|[-_])", stem, re.IGNORECASE):
        rest = _words(stem[match.end() :])
        return Hints(
            folder_venue, f"{match[1].upper()}-PERP", "perpetual", _series(rest), _length(rest),
            "its form", frozenset(w.lower() for w in rest),
        )  # fmt: skip
    words = _words(stem)
    lower = frozenset(word.lower() for word in words)
    length = _length(words)
    series = _series(words)
    kind = next((_KINDS[word.lower()] for word in words if word.lower() in _KINDS), None)
    symbol, used, why = _symbol(stem, words)
    rest = [word for i, word in enumerate(words) if i not in used]
    venue: str | None = next((v for word in rest if (v := _venue(word))), None)
    separated = symbol is not None and len(used) > 1
    if separated and len(used) == 3:
        kind = kind or "perpetual"
    elif kind is None and symbol is not None:
        if separated and length and (venue or folder_venue or "") not in ("okx", "gate"):
            # freqtrade's ETH_BTC-5m is spot: its futures are ETH_BTC_BTC-5m-futures
            freqtrade = re.match(r"[A-Z0-9]+_[A-Z0-9]+-\d+[a-zA-Z]+$", stem)
            kind = "spot" if freqtrade else None
        elif venue and words and _venue(words[0]) == venue and length and len(words) >= 3:
            # CryptoDataDownload's Binance_BTCUSDT_1h is spot
            kind = (
                "spot"
                if re.match(r"[A-Za-z]+_[A-Z0-9]+_(?:1h|d|1d|minute|1min|day|hour)(?=$|_)", stem)
                else None
            )
    if kind is None and (venue or folder_venue) in SPOT_VENUES:
        kind = "spot"
    if symbol is None and not used:
        left = [
            word
            for word in rest
            if not timeframe(word)
            and not _venue(word)
            and word.lower() not in _KINDS
            and word.lower() not in _SERIES
            and word.lower() not in _PLAIN_WORDS
            and word.lower() not in _DATASETS
            and not word.isdigit()
        ]
        names = [w for w in left if re.fullmatch(r"[\^A-Z0-9][A-Z0-9.&=]{0,14}", w)]
        if len(names) == 1:
            symbol, why = names[0], "the one word in capitals"
        elif (
            not left
            and len(rest) >= 1
            and rest[0].isdigit()
            and len(rest[0]) == 6
            and words[0] == rest[0]
        ):
            symbol, why = rest[0], "a number that is no date"  # Korean and Chinese shares
            if _is_date(symbol):
                symbol, why = None, ""
    return Hints(venue or folder_venue, symbol, kind, series, length, why, lower)


def _is_date(text: str) -> bool:
    return bool(re.fullmatch(r"(19|20)\d{2}(0[1-9]|1[0-2])", text))


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[-_ ()\[\],!]+", text) if word]


def _length(words: list[str]) -> float | None:
    found = {t for word in words if (t := timeframe(word))}
    return found.pop() if len(found) == 1 else None


def _series(words: list[str]) -> str:
    return next((_SERIES[word.lower()] for word in words if word.lower() in _SERIES), "traded")


def _symbol(stem: str, words: list[str]) -> tuple[str | None, set[int], str]:
    """The symbol, the words it is made of, and why; none where several words could be it."""
    separated = []
    for i, (first, second) in enumerate(itertools.pairwise(words)):
        if (
            re.fullmatch(r"[A-Z0-9]{1,15}", first)
            and second in QUOTES
            and first != second
            and not timeframe(first)
            and not _pair(first)
            and (_venue(first) is None or len(words) == 2)
            and first not in ("D", "DAT", "ASCII")
            # CoinAPI: KRAKEN_SPOT_BTC_USD, BINANCEFTS_PERP_BTC_USDT
            and first.lower() not in _KINDS
            and first not in ("FTS", "OPT", "IDX", "CON")
        ):
            separated.append(i)
    if separated:
        # ETH_BTC_BTC is a pair and what it settles in, not two pairs
        i = separated[0]
        used = {i, i + 1}
        if i + 2 < len(words) and words[i + 2] in (words[i + 1], words[i]):
            used.add(i + 2)
            separated = [j for j in separated if j not in (i + 1,)]
        if len([j for j in separated if j not in used or j == i]) > 1:
            return None, set(), ""
        start = 0
        for word in words[:i]:
            start = stem.index(word, start) + len(word)
        start = stem.index(words[i], start)
        end = start
        for j in sorted(used):
            end = stem.index(words[j], end) + len(words[j])
        return stem[start:end], used, "a pair with its quote"
    pairs = [i for i, word in enumerate(words) if _pair(word) and _venue(word) is None]
    names = {words[i].upper() for i in pairs}
    if len(names) == 1:
        return names.pop(), set(pairs), "a pair"
    if names:
        return None, set(pairs), ""
    # Shares of a class: BRK-A
    if match := re.match(r"([A-Z]{1,5}-[A-Z])(?=$|-\d|_)", stem):
        return match[1], {0, 1}, "a class of shares"
    return None, set(), ""
