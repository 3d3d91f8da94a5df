"""Recorded streams: a message that cannot be read is refused, whatever is wrong with it."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import pytest
from alphaplus.loaders.description import Description
from alphaplus.loaders.feeds import Feed
from hypothesis import given
from hypothesis import strategies as st

from tests.loader_rules import shipped

TRADE = {"e": "trade", "T": 1700000005500, "s": "BTCUSDT", "t": 4, "p": "1", "q": "1", "m": True}
DEPTH = {"e": "depthUpdate", "E": 1, "T": 1700000004500, "s": "BTCUSDT", "U": 6, "u": 7, "pu": 5,
         "b": [["100", "1"]], "a": [["101", "2"]]}  # fmt: skip
ORDER = {"s": "BTCUSDT", "S": "SELL", "q": "1", "p": "10", "ap": "0", "T": 1700000005500}
FORCE = {"e": "forceOrder", "o": ORDER}
BOOK = {"lastUpdateId": 5, "bids": [["100", "1"]], "asks": [["101", "2"]], "s": "BTCUSDT"}
GOOD: list[dict[str, Any]] = [TRADE, DEPTH, FORCE, BOOK]


def feed() -> Feed:
    return Feed(Description(PurePosixPath("x.jsonl"), shipped()), 20, 1.0)


def line(message: Any) -> bytes:
    return b"1700000005500000000 " + json.dumps({"stream": "x", "data": message}).encode()


@pytest.mark.parametrize("message", GOOD)
def test_what_is_right_is_taken(message: dict[str, Any]) -> None:
    assert feed().take(line(message), 1) == ""


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({**TRADE, "s": None}, "no symbol"),
        ({**TRADE, "s": ""}, "no symbol"),
        ({**TRADE, "t": None}, "no id"),
        ({**TRADE, "m": "false"}, "side"),
        ({**TRADE, "T": 1e300}, "time"),
        ({**DEPTH, "b": [["100", "NaN"]]}, "level"),
        ({**DEPTH, "b": [["-5", "1"]]}, "level"),
        ({**DEPTH, "a": [["1e400", "1"]]}, "level"),
        ({**DEPTH, "a": [["1"]]}, "unparsable"),
        ({**DEPTH, "u": 10**20}, "update id"),
        ({**FORCE, "o": None}, "unparsable"),
        ({**FORCE, "o": {**ORDER, "S": "HOLD"}}, "side"),
        ({**BOOK, "lastUpdateId": None}, "unparsable"),
        (None, "unparsable"),
    ],
)
def test_what_is_wrong_is_refused_with_words(message: Any, words: str) -> None:
    assert words in feed().take(line(message), 1)


@pytest.mark.parametrize(
    "raw", [b"[[[", b'"x"', b"99999999999999999999 {}", b"17x {}", b"{" * 5000, b"\xff{}"]
)
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    assert feed().take(raw, 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)


@given(st.sampled_from(GOOD), st.data())
def test_nothing_in_a_message_stops_a_load(message: dict[str, Any], data: st.DataObject) -> None:
    changed = dict(message)
    for key in data.draw(st.lists(st.sampled_from(sorted(changed)), min_size=1, max_size=3)):
        changed[key] = data.draw(JSON)
    taker = feed()
    taker.take(line(changed), 1)
    list(taker.columns())
    taker.gaps()
    json.dumps(taker.state())
