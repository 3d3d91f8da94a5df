"""A venue's own list of markets becomes contract rules, read by ccxt without a connection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alphaplus.loaders import markets
from alphaplus.loaders.instruments import Catalog

Conn = psycopg.Connection[Any]


def okx(
    instrument: str, kind: str, value: str, of: str, settle: str, family: str
) -> dict[str, str]:
    """A market as OKX's instruments page gives it (documentation, GET /api/v5/public/instruments)."""
    return {
        "instId": instrument, "instType": kind, "ctVal": value, "ctMult": "1", "ctValCcy": of,
        "ctType": "linear" if settle == "USDT" else "inverse", "settleCcy": settle, "baseCcy": "",
        "quoteCcy": "", "uly": family, "instFamily": family, "lotSz": "1", "minSz": "1",
        "tickSz": "0.1", "state": "live", "expTime": "", "listTime": "1611916828000", "lever": "50",
        "category": "1", "stk": "", "optType": "", "alias": "", "maxLmtSz": "1", "maxMktSz": "1",
    }  # fmt: skip


def test_okx_as_its_page_gives_it(db: Conn, tmp_path: Path) -> None:
    path = tmp_path / "instruments.json"
    path.write_text(
        json.dumps(
            {
                "code": "0",
                "data": [
                    okx("PEPE-USDT-SWAP", "SWAP", "10000000", "PEPE", "USDT", "PEPE-USDT"),
                    okx("XRP-USD-SWAP", "SWAP", "10", "USD", "XRP", "XRP-USD"),
                ],
            }
        )
    )
    found = markets.read("okx", path)
    assert markets.store(db, "okx", found, "test") == 2
    catalog = Catalog.read(db)
    pepe = catalog.instrument("okx", "PEPE-USDT-SWAP")
    assert (pepe.margin, pepe.contract_size, pepe.unit) == ("linear", 1e7, "contracts")
    xrp = catalog.instrument("okx", "XRP-USD-SWAP")
    assert (xrp.margin, xrp.contract_size, xrp.settlement) == ("inverse", 10.0, "XRP")
    # what was not in the list keeps its shipped rule
    assert catalog.instrument("okx", "BTC-USDT-SWAP").contract_size == 0.01


@pytest.mark.parametrize(
    ("exchange", "text", "words"),
    [
        ("nosuch", "[]", "knows no venue"),
        ("okx", "{", "no JSON"),
        ("okx", "[]", "holds no contracts"),
    ],
)
def test_what_is_no_list_of_markets(tmp_path: Path, exchange: str, text: str, words: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        markets.read(exchange, path)
