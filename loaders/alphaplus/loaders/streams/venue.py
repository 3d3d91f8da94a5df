"""What an exchange is: where to connect, what to say, and what its messages mean.

An exchange is one file: a :class:`Venue` (addresses, subscriptions, pings, REST) and a
:class:`Parser` (messages into rows, and the numbers by which they follow one another).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar

import numpy as np
import orjson
from alphaplus.loaders.description import Description, Missing
from alphaplus.loaders.feeds import MIN_LEVELS, Book, Feed, Ints, Levels, _columns
from alphaplus.loaders.formats import Columns
from alphaplus.loaders.instruments import BadName, Catalog, Instrument
from alphaplus.loaders.streams.contiguity import Hole, Sequence
from alphaplus.loaders.streams.spool import Frame

CHANNELS = ("trades", "book", "liquidations", "funding", "open_interest", "candles")
TICK = b'{"alphaplus":"tick"'
CROSSED = 3  # updates in a row after which a crossed book is taken for a wrong one
UNREADABLE = (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError)


class BadSubscription(ValueError):
    """An exchange, a symbol or a channel that cannot be subscribed to."""


@dataclass(frozen=True)
class Wanted:
    """What is to be fetched by REST: a book's snapshot, missed trades, or recent ones."""

    what: str  # snapshot, trades, open_interest
    symbol: str
    first: int | None = None
    last: int | None = None
    since: int | None = None  # microseconds


class Parser(Feed):
    """Frames in, columns and holes out; the same frames always give the same."""

    known: ClassVar[dict[str, frozenset[str]]] = {}  # fields of each kind of message

    def __init__(
        self,
        venue: Venue,
        catalog: Catalog,
        symbols: Many[str],
        channels: Many[str],
        *,
        levels: int = 20,
        every: float = 1.0,
        state: dict[str, Any] | None = None,
    ) -> None:
        context = Description(PurePosixPath(venue.name), catalog)
        super().__init__(context, levels, every, state["feed"] if state else None)
        self.venue = venue
        self.symbols = tuple(symbols)
        self.channels = tuple(channels)
        self.sequences: dict[tuple[str, str], Sequence] = {}
        self.unknown: set[str] = set()
        self.refused: list[tuple[int, str, str]] = []
        self.wanted: list[Wanted] = []
        self.connection = 0
        self._open = False
        self.whole_books: set[str] = set()
        self.crossed: dict[str, int] = {}
        self.repaired_lines: set[int] = set()
        self.last_ts = 0
        self._clock = 0  # of the recording that is replayed; 0: none
        self.received: float | None = None  # of the frame at hand, in microseconds
        self.offsets: list[int] = []
        self._holding: set[tuple[str, str]] = set()
        self._handlers: dict[str, Callable[[Any, int], None]] = {
            channel: getattr(self, f"_in_turn_{channel}", self._plain) for channel in CHANNELS
        }
        self._funding: list[tuple[Any, ...]] = []
        self._interest: list[tuple[Any, ...]] = []
        self._next_funding: dict[str, tuple[int, float, int]] = {}
        if state:
            self.connection = state["connection"]
            self._open = state["open"]
            self.whole_books = set(state["whole"])
            self.sequences = {(c, s): Sequence.of(v) for c, s, v in state["sequences"]}
            self._next_funding = {k: (a, b, c) for k, (a, b, c) in state["funding"].items()}

    def saved(self) -> bytes | None:
        """What a later run needs to go on; None while messages are held."""
        if self._holding:
            return None
        return orjson.dumps(
            {
                "feed": self.state(),
                "connection": self.connection,
                "open": self._open,
                "whole": sorted(self.whole_books),
                "sequences": [[c, s, q.state()] for (c, s), q in self.sequences.items()],
                "funding": self._next_funding,
            },
            option=orjson.OPT_NON_STR_KEYS,
        )

    # --- frames --------------------------------------------------------------------------------

    def frame(self, frame: Frame) -> None:
        """One frame, whatever it holds."""
        self._line = frame.number
        raw, now, exact = frame.raw, frame.received, float(frame.received)
        if raw[:1].isdigit():  # with its receive time, as a replay sends it
            stamp, _, raw = raw.partition(b" ")
            try:
                exact = int(stamp) / 1e3
            except ValueError as error:
                self._refuse(frame.number, frame.raw, f"unparsable: {error}")
                return
            now = self._clock = int(exact)
        elif raw.startswith(TICK) and self._clock:
            return  # time is that of the recording
        if self._holding:
            for key in [k for k in self._holding if now >= self.sequences[k].deadline]:
                self._release(key, self.sequences[key].give_up(now), now)
        self.received = exact
        try:
            message = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            if not self.venue.chatter(raw):
                self._refuse(frame.number, frame.raw, f"unparsable: {error}")
            return
        self._guarded(frame.number, raw, message, now)

    def _guarded(self, number: int, raw: bytes, message: Any, now: int) -> None:
        try:
            if isinstance(message, dict) and "alphaplus" in message:
                self._control(message, now)
            else:
                self.route(message, now)
        except Missing as error:
            self._refuse(number, raw, str(error))
        except BadName as error:
            self._refuse(number, raw, f"unparsable: {error}")
        except UNREADABLE as error:
            self._refuse(number, raw, f"unparsable: {type(error).__name__} {error}")

    def route(self, message: Any, now: int) -> None:
        """What a message is; overridden by each exchange."""
        raise NotImplementedError

    def _refuse(self, number: int, raw: bytes, why: str) -> None:
        self._count("unreadable messages")
        self.refused.append((number, raw[:10_000].decode("utf-8", "replace"), why))

    def _unknown(self, what: str) -> None:
        if len(self.unknown) < 200 or what in self.unknown:
            self.unknown.add(what)
            self._count(f"unknown: {what}")

    def _fields(self, kind: str, data: dict[str, Any]) -> None:
        known = self.known.get(kind)
        if known is not None and not data.keys() <= known:
            for name in data.keys() - known:
                self._unknown(f"field {name[:40]} of {kind}")

    def _heard(self, channel: str, symbol: str, ts: int) -> None:
        """The newest time of a channel without numbers: where a hole would begin."""
        sequence = self.sequences.setdefault((channel, symbol), Sequence(consecutive=False))
        sequence.last_ts = max(sequence.last_ts, ts)

    def _seen(self, ts: int, now: int) -> None:
        """The exchange's time of a message, in microseconds."""
        self.last_ts = max(self.last_ts, ts)
        if len(self.offsets) < 1000:
            self.offsets.append(now - ts)

    # --- numbers -------------------------------------------------------------------------------

    def _follow(
        self,
        channel: str,
        symbol: str,
        first: int,
        last: int,
        before: int,
        ts: int,
        now: int,
        item: Any,
        *,
        consecutive: bool = True,
    ) -> None:
        key = (channel, symbol)
        sequence = self.sequences.get(key)
        if sequence is None:
            sequence = self.sequences[key] = Sequence(consecutive)
        repeated = sequence.repeated
        out = sequence.take(first, last, before, ts, now, item)
        if sequence.held:
            self._holding.add(key)
        if len(out) == 1 and out[0] is item:
            self._handlers[channel](item, now)
            return
        if sequence.repeated != repeated:
            self._count(f"repeated messages of {channel}")
        self._release(key, out, now)

    def _release(self, key: tuple[str, str], items: list[Any], now: int) -> None:
        channel, symbol = key
        sequence = self.sequences[key]
        for item in items:
            if item is None:
                self._count(f"gaps of {channel}")
                self._hole_begins(channel, symbol, sequence.holes[-1])
            else:
                self._handlers[channel](item, now)
        if not sequence.held:
            self._holding.discard(key)

    def _hole_begins(self, channel: str, symbol: str, hole: Hole) -> None:
        """Numbers are missing: ask for what they stand for."""
        if channel == "book":
            self.whole_books.discard(symbol)
            self.wanted.append(Wanted("snapshot", symbol))
        elif channel == "trades":
            self.wanted.append(Wanted("trades", symbol, hole.from_id, hole.to_id, hole.from_ts))

    def _plain(self, item: Any, now: int) -> None:
        """An item in its turn: a message of the form that the file loader reads."""
        problem = self.message(item, self.received)
        if problem:
            self._refuse(self._line, orjson.dumps(item), problem)

    # --- our own frames ------------------------------------------------------------------------

    def _control(self, message: dict[str, Any], now: int) -> None:
        what = message["alphaplus"]
        if what in ("lost", "end") or (what == "connected" and self._open):
            # What a lost connection owes will not come any more.
            for key in list(self._holding):
                while self.sequences[key].held:
                    self._release(key, self.sequences[key].give_up(now), now)
        if what == "connected":
            if self._open:  # killed before it could say that it was lost
                self._lost("outage", now)
            self._open = True
            self.connection += 1
            for channel in self.channels:
                for symbol in self.symbols:
                    self._connected(channel, symbol, now)
        elif what == "lost":
            self._open = False
            self._lost(str(message.get("how", "outage")), now)
        elif what == "evicted":
            for symbol in self.symbols:
                if message["lane"] in self.venue.unnumbered:
                    self._broken(message["lane"], symbol, "spool", now)
                    self.sequences[message["lane"], symbol].whole(now, now)
        elif what == "snapshot":
            self.snapshot(message["symbol"], message["data"], now)
        elif what == "trades":
            # They are known from now on, however long ago they happened.
            before, self.received = len(self._trades), None
            self.repaired(message["symbol"], message["data"], now)
            self._trades[before:] = [
                (*row[:2], float(now), *row[3:]) for row in self._trades[before:]
            ]
            self.repaired_lines.add(self._line)
            if message.get("complete"):
                self._no_more(message, now)
        elif what == "open_interest":
            self.open_interest(message["symbol"], message["data"], now)

    def _lost(self, how: str, now: int) -> None:
        for channel in self.channels:
            for symbol in self.symbols:
                if channel in self.venue.unnumbered:
                    self._broken(channel, symbol, how, now)

    def _connected(self, channel: str, symbol: str, now: int) -> None:
        sequence = self.sequences.get((channel, symbol))
        if channel in self.venue.unnumbered and sequence is not None:
            for hole in sequence.holes:
                if hole.ended is None and channel == "trades":
                    hole.wait = True
                    self.wanted.append(Wanted("trades", symbol, since=hole.from_ts))
            sequence.whole(now, now)
        if channel == "book" and self.venue.rest_books:
            self.wanted.append(Wanted("snapshot", symbol))

    def _no_more(self, message: dict[str, Any], now: int) -> None:
        """REST has given all there is since a time: holes of an unnumbered channel are filled."""
        sequence = self.sequences.get(("trades", message["symbol"]))
        if sequence is None:
            return
        for hole in sequence.holes:
            if not hole.missing and hole.repaired is None and message["since"] <= hole.from_ts:
                hole.repaired, hole.rows = now, len(message["data"])
                sequence._changed(hole)

    def _broken(self, channel: str, symbol: str, how: str, now: int) -> None:
        key = (channel, symbol)
        if key not in self.sequences:
            self.sequences[key] = Sequence(consecutive=False)
        self.sequences[key].broken(how, now, now)
        self._count(f"gaps of {channel}")

    def snapshot(self, symbol: str, data: dict[str, Any], now: int) -> None:
        """A book fetched by REST; overridden where a venue has such."""

    def repaired(self, symbol: str, items: list[dict[str, Any]], now: int) -> None:
        """Trades fetched by REST; overridden where a venue has such."""

    def open_interest(self, symbol: str, data: dict[str, Any], now: int) -> None:
        """Open interest fetched by REST; overridden where a venue has such."""

    # --- rows ----------------------------------------------------------------------------------

    def instrument(self, native: str) -> Instrument:
        """The instrument of a native symbol at this venue's market."""
        return self.context.instrument(self.venue.exchange, self.venue.kind, native)

    def add_trade(
        self, native: str, ts: float, id_: str, price: float, size: float, sign: float
    ) -> None:
        """A trade, its size as the venue counts; microseconds."""
        made = self.instrument(native)
        self._told.setdefault(made, "trade")
        self._trades.append(
            (made, ts, self.received, self._line, id_, price, self._sized(made, size, price), sign)
        )

    def add_liquidation(
        self, native: str, ts: float, id_: str, price: float, size: float, sign: float
    ) -> None:
        """A forced order; sign: of the order, -1 where a long was liquidated."""
        made = self.instrument(native)
        self._liquidations.append(
            (made, ts, self.received, self._line, id_, price, self._sized(made, size, price), sign)
        )

    def add_funding(self, native: str, ts: float, rate: float, interval: float | None) -> None:
        """A rate that was paid; interval in seconds."""
        self._funding.append(
            (self.instrument(native), ts, self.received, self._line, rate,
             np.nan if interval is None else interval)
        )  # fmt: skip

    def funding_due(self, native: str, due: float, rate: float) -> None:
        """The rate that will be paid at a time: written down once that time has passed."""
        known = self._next_funding.get(native)
        at = round(due)
        if known is not None and at > known[0]:
            self.add_funding(native, known[0], known[1], (at - known[0]) / 1e6)
        self._next_funding[native] = (at, rate, self._line)

    def add_interest(self, native: str, ts: float, amount: float, value: float) -> None:
        """Open interest in base units and quote currency, NaN where it is not said."""
        self._interest.append(
            (self.instrument(native), ts, self.received, self._line, amount, value)
        )

    def book(self, native: str) -> tuple[Instrument, Book]:
        """The book of a symbol."""
        made = self.instrument(native)
        return made, self.books.setdefault(made, Book())

    def book_update(
        self, native: str, ts: float, last: int, bids: Levels, asks: Levels, *, whole: bool = False
    ) -> Book:
        """Levels of a book, or all of it; a row of the state before it when one is due."""
        made, book = self.book(native)
        self._snapshot(made, book, ts, self.received)
        if whole:
            book.reset(bids, asks)
            self.whole_books.add(native)
        else:
            book.update(bids, asks)
        book.last_id = last
        return book

    def is_crossed(self, native: str, book: Book) -> bool:
        """Has its best bid reached its best ask for several updates?"""
        if book.bids and book.asks and book.bids.peekitem(-1)[0] >= book.asks.peekitem(0)[0]:
            self.crossed[native] = self.crossed.get(native, 0) + 1
            return self.crossed[native] >= CROSSED
        self.crossed[native] = 0
        return False

    def throw_away(self, native: str, how: str, now: int) -> None:
        """A book is wrong: a hole until the next snapshot."""
        _, book = self.book(native)
        book.reset([], [])
        book.gap = True
        book.last_id = -1
        self.crossed[native] = 0
        self.whole_books.discard(native)
        key = ("book", native)
        sequence = self.sequences.setdefault(key, Sequence(consecutive=False))
        sequence.broken(how, now, now)
        self._count(f"gaps of book ({how})")
        self.wanted.append(Wanted("snapshot", native))

    def holes(self) -> Iterator[tuple[str, str, Hole]]:
        """Holes that are new or changed since the last call: channel, native symbol, hole."""
        for (channel, symbol), sequence in self.sequences.items():
            if sequence.found:
                found, sequence.found = sequence.found, []
                for hole in found:
                    yield channel, symbol, hole
                sequence.settled()

    def columns(self) -> Iterator[tuple[str, Columns, Ints]]:
        """What was made since the last call: kind, rows, and the frame each came from."""
        yield from super().columns()
        if self._funding:
            rows, self._funding = self._funding, []
            values: dict[str, Any] = {
                "rate": np.array([row[4] for row in rows]),
                "interval": np.array([row[5] for row in rows]),
            }
            yield "funding", *_columns(rows, values)
        if self._interest:
            rows, self._interest = self._interest, []
            values = {
                "open_interest": np.array([row[4] for row in rows]),
                "value": np.array([row[5] for row in rows]),
            }
            yield "open_interest", *_columns(rows, values)
        self._gaps.clear()


class Venue:
    """An exchange's market: one connection's worth of it."""

    name: ClassVar[str] = ""
    exchange: ClassVar[str] = ""
    kind: ClassVar[str | None] = None
    address: ClassVar[str] = ""
    ccxt: ClassVar[str] = ""
    channels: ClassVar[tuple[str, ...]] = ("trades", "book")
    unnumbered: ClassVar[frozenset[str]] = frozenset()
    rest_books: ClassVar[bool] = False
    silence: ClassVar[float] = 30.0
    ping: ClassVar[tuple[float, bytes] | None] = None
    parser: ClassVar[type[Parser]] = Parser

    def check(self, symbols: Iterable[str], channels: Iterable[str]) -> None:
        """Raises BadSubscription for what is not there."""
        symbols = list(symbols)
        if not symbols:
            raise BadSubscription("no symbols")
        if len(set(symbols)) != len(symbols):
            raise BadSubscription("a symbol is named twice")
        for symbol in symbols:
            if not symbol or len(symbol) > 64 or not symbol.isascii() or not symbol.isprintable():
                raise BadSubscription(f"{symbol!a} is no symbol")
        for channel in channels:
            if channel not in self.channels:
                known = ", ".join(self.channels)
                raise BadSubscription(f"{self.name} has no channel {channel!r}; it has {known}")

    def url(self, symbols: Many[str], channels: Many[str], base: str | None = None) -> str:
        """Where to connect."""
        return base or self.address

    def hello(self, symbols: Many[str], channels: Many[str]) -> list[bytes]:
        """What to send once connected."""
        return []

    def book_again(self, symbol: str) -> list[bytes]:
        """What to send for a new snapshot of a book that is not whole, where the socket gives one:
        its subscription ended and begun again."""
        return []

    def answer(self, raw: bytes) -> bytes | None:
        """What to answer to a message at once (a ping of the protocol's own)."""
        return None

    def chatter(self, raw: bytes) -> bool:
        """Is it a message without content that is no JSON, as a pong?"""
        return raw in (b"pong", b"ping")

    def failure(self, raw: bytes) -> str:
        """Why the exchange refuses the subscription, where this message says so, or ''."""
        return ""

    def lane(self, raw: bytes) -> str:
        """Which channel a message is of, without parsing it; decides what a full spool drops."""
        return "control"

    def snapshot(self, client: Any, symbol: str) -> Any:
        """A book by REST (ccxt client)."""
        raise NotImplementedError("a book by REST is not built for this exchange")

    def trades(self, client: Any, wanted: Wanted) -> tuple[list[Any], bool]:
        """Missed trades by REST, and whether that is all of them."""
        raise NotImplementedError("trades by REST is not built for this exchange")

    def interest(self, client: Any, symbol: str) -> Any:
        """Open interest by REST."""
        raise NotImplementedError("open interest by REST is not built for this exchange")

    def client(self, base: str | None = None) -> Any:
        """A REST client, at the exchange or at ``base``."""
        import ccxt

        made = getattr(ccxt, self.ccxt)({"enableRateLimit": base is None, "timeout": 10_000})
        if base is not None:
            made.urls["api"] = _at(made.urls["api"], base)
        return made


def _at(urls: Any, base: str) -> Any:
    """ccxt's addresses with another scheme and host."""
    if isinstance(urls, dict):
        return {key: _at(value, base) for key, value in urls.items()}
    path = str(urls).split("://", 1)[-1]
    return base.rstrip("/") + ("/" + path.split("/", 1)[1] if "/" in path else "")


__all__ = ["CHANNELS", "MIN_LEVELS", "BadSubscription", "Parser", "Venue", "Wanted"]
