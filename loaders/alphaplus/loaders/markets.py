"""A venue's own list of markets as contract rules: parsed by ccxt, without a connection."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import psycopg
from alphaplus.loaders.instruments import Catalog, vendor_venue

_CCXT = {"kucoin": "kucoinfutures", "huobi": "htx"}


def read(exchange: str, file: Path) -> list[dict[str, Any]]:
    """The contracts in a venue's answer, as ccxt reads them.

    Raises:
        ValueError: no such venue, or no list of its markets.
    """
    import ccxt

    name = exchange.lower()
    maker = getattr(ccxt, _CCXT.get(name, name), None)
    if maker is None or _CCXT.get(name, name) not in ccxt.exchanges:
        raise ValueError(f"ccxt knows no venue {exchange!r}")
    try:
        answer = json.loads(file.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no JSON: {error}") from None
    client = maker()
    found = []
    for raw in _list(answer):
        market = _parsed(client, raw)
        if market and market.get("contract") and market.get("contractSize"):
            found.append(market)
    if not found:
        raise ValueError(f"{file} holds no contracts that ccxt can read for {exchange}")
    return found


def _list(answer: Any) -> list[dict[str, Any]]:
    """The list of markets in an answer, wherever the venue puts it."""
    if isinstance(answer, list):
        return [item for item in answer if isinstance(item, dict)]
    if isinstance(answer, dict):
        for name in ("data", "result", "symbols", "list", "instruments"):
            if name in answer and (inner := _list(answer[name])):
                return inner
    return []


def _parsed(client: Any, raw: dict[str, Any]) -> dict[str, Any] | None:
    methods = [getattr(client, n, None) for n in ("parse_market", "parse_contract_market")]
    for method in methods:
        if method is None:
            continue
        for more in ((), ("usdt",)):
            try:
                market = method(raw, *more)
            except Exception:  # ccxt raises what it likes on what it does not know
                continue
            if isinstance(market, dict) and market.get("base") and market.get("id"):
                return market
    return None


def store(
    conn: psycopg.Connection[Any], exchange: str, markets: list[dict[str, Any]], source: str
) -> int:
    """Write them down as the user's rules; returns how many.

    What the venue's sizes count stays as the rule that was there says: contracts where none is.
    """
    venue, _ = vendor_venue(exchange)
    catalog = Catalog.read(conn)
    count = 0
    for market in markets:
        kind = {"swap": "perpetual", "future": "future", "option": "option"}.get(market["type"])
        if kind is None:
            continue
        margin = "inverse" if market.get("inverse") else "linear"
        if market.get("quanto") or market.get("settle") not in (market["base"], market["quote"]):
            margin = "quanto"
        rule = catalog.rule(venue, market["id"], kind)
        unit = rule.unit if rule is not None else "contracts"
        conn.execute(
            "insert into market.contract_rules (exchange, pattern, kind, margin, contract_size,"
            " size_unit, settlement, source, source_date, shipped)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, false)"
            " on conflict (exchange, pattern) do update set kind = excluded.kind,"
            " margin = excluded.margin, contract_size = excluded.contract_size,"
            " settlement = excluded.settlement, source = excluded.source,"
            " source_date = excluded.source_date, shipped = false",
            (
                venue, market["id"], kind, margin, market["contractSize"], unit,
                market.get("settle"), source, dt.datetime.now(dt.UTC).date(),
            ),
        )  # fmt: skip
        count += 1
    return count
