"""From which columns of the market's tables each feature of a set comes.

Of a user's set the syntax tree tells (sqlglot). A family declares of each feature the channels that
can change it (:attr:`alphaplus.server.features.family.Feature.inputs`); :data:`COLUMNS` says which
columns a channel is made of. A test changes one channel after the other and compares.
"""

from __future__ import annotations

from typing import Any

from alphaplus.server.database import Database
from alphaplus.server.features import registry
from alphaplus.server.features.family import Family
from alphaplus.server.sets import reads, user
from alphaplus.server.sets.sqlcheck.columns import lineage as lineage_of

_BOOK = "order_book_snapshots"
# Channel of an input to the columns that it is made of: table.column of market, or with its schema.
COLUMNS: dict[str, tuple[str, ...]] = {
    "bars.open": ("candles.open", "trades.price"),
    "bars.high": ("candles.high", "trades.price"),
    "bars.low": ("candles.low", "trades.price"),
    "bars.close": ("candles.close", "trades.price"),
    "bars.volume": ("candles.volume", "trades.size"),
    # Where the source has no quote volume: volume x the mean of high, low and close.
    "bars.quote_volume": (
        "candles.quote_volume", "candles.volume", "candles.high", "candles.low", "candles.close",
        "trades.price", "trades.size",
    ),
    "bars.buy_volume": ("candles.taker_buy_volume", "trades.size", "trades.side"),
    # Candles have none: taker volume x the mean price, quote volume / volume, else the close.
    "bars.buy_quote_volume": (
        "candles.taker_buy_volume", "candles.quote_volume", "candles.volume", "candles.close",
        "trades.price", "trades.size", "trades.side",
    ),
    "bars.trade_count": ("candles.trade_count", "trades.trade_id"),
    "book.two_sided_count": (f"{_BOOK}.bid_prices", f"{_BOOK}.ask_prices"),
    "book.relative_spread_sum": (f"{_BOOK}.bid_prices", f"{_BOOK}.ask_prices"),
    "book.imbalance_sum": (f"{_BOOK}.bid_sizes", f"{_BOOK}.ask_sizes"),
    "book.mid_sum": (f"{_BOOK}.bid_prices", f"{_BOOK}.ask_prices"),
    "book.bid_prices": (f"{_BOOK}.bid_prices",),
    "book.bid_sizes": (f"{_BOOK}.bid_sizes",),
    "book.ask_prices": (f"{_BOOK}.ask_prices",),
    "book.ask_sizes": (f"{_BOOK}.ask_sizes",),
    "liquidations.long_notional": ("liquidation_events.notional", "liquidation_events.side"),
    "liquidations.short_notional": ("liquidation_events.notional", "liquidation_events.side"),
    "liquidations.event_count": ("liquidation_events.event_id",),
    "funding": ("funding_rates.rate", "funding_rates.funding_interval"),
    "open_interest": ("open_interest.open_interest", "open_interest.value"),
    "trades.ts": ("trades.ts",),
    "trades.price": ("trades.price",),
    "trades.size": ("trades.size",),
    "trades.sign": ("trades.side",),
    "quotes.ts": (f"{_BOOK}.ts",),
    "quotes.bid": (f"{_BOOK}.bid_prices",),
    "quotes.bid_size": (f"{_BOOK}.bid_sizes",),
    "quotes.ask": (f"{_BOOK}.ask_prices",),
    "quotes.ask_size": (f"{_BOOK}.ask_sizes",),
    "texts.ts": ("sentiment.scores.ts",),
    "texts.score": ("sentiment.scores.score",),
    "texts.copy": ("sentiment.scores.is_copy",),
    "texts.novelty": ("sentiment.scores.novelty",),
    "texts.source": ("sentiment.scores.source",),
}  # fmt: skip


def rows(
    plpy: Any, cache: dict[str, Any], definition: str, query: str | None
) -> list[tuple[str, list[str]]]:
    """``(feature, columns)`` of a user's SELECT, else of the family of that name."""
    db = Database.of(plpy, cache)
    if query is not None:
        return list(of_query(db, query).items())
    return list(of_family(registry.find(db, definition)).items())


def of_query(db: Database, query: str) -> dict[str, list[str]]:
    """Feature to ``schema.table.column`` of a user's SELECT."""
    aliases = reads.named_aliases(query) - {"market", "source"}
    found = lineage_of(query, user.catalogue(db, sorted(aliases)))
    return {name: found[name] for name in found if name not in ("ts", "symbol")}


def of_family(family: Family) -> dict[str, list[str]]:
    """Feature to ``schema.table.column`` of a family."""
    return {
        feature.name: sorted(
            {
                column if column.count(".") == 2 else f"market.{column}"
                for channel in feature.inputs
                for column in COLUMNS[channel]
            }
        )
        for feature in family.features
    }
