"""What a feature family is: declared once, computed for history and the live edge by the same code.

To add one: write a module of this package with a :class:`Family` as ``FAMILY`` (or several as
``FAMILIES``): its features with formula, unit and source, what it reads, and a function of what was
read. ``feature.vector``, ``feature.materialise``, the training sets and the reference page take it
from there (:mod:`.registry` finds it). A function of :class:`Inputs` is given windows as they were
known at each grid time and must treat each row on its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from alphaplus.server.features.incremental import Run
from alphaplus.server.market import revisions as w
from alphaplus.server.market.reader import Inputs, MarketReader, Needs, OfBook, Request
from alphaplus.server.types import MINUTE, Floats, Times

# Reads bars of a width that open in [start, end): a MarketReader's ``bars``.
BarReader = Callable[[int, int, int], w.Series]
# The run of a calculation that is kept from call to call, see incremental: keep(which).
Keep = Callable[[Hashable], Run]


class Feature(NamedTuple):
    """One feature: its name, formula, unit and source (paper or definition).

    ``inputs``: the channels that can change it, as :data:`alphaplus.server.sets.lineage.COLUMNS`
    names them ("bars.close", "trades.price"); a test changes each and looks.
    """

    name: str
    formula: str
    unit: str
    source: str
    inputs: tuple[str, ...] = ()


def bar_inputs(letters: str) -> tuple[str, ...]:
    """Channels of bars by their first letters: "hlc" is high, low and close."""
    names = {name[0]: f"bars.{name}" for name in ("open", "high", "low", "close", "volume")}
    return tuple(names[letter] for letter in letters)


@dataclass(frozen=True)
class Family:
    """A set of features computed together.

    ``revision`` is raised whenever the code gives other values; it is part of the set's hash, so
    that models of an older code are not served vectors of a newer one.
    """

    name: str
    version: int
    revision: str
    description: str
    features: tuple[Feature, ...]
    needs: Needs
    # Of windows that count bars: how far before t one can lie where bars are missing, in buckets of
    # the grid (0: no further than needs says).
    reach: int = 0
    # How it is computed is one of two: this from windows …
    compute: Callable[[Inputs], Floats] | None = None
    grid: int = MINUTE
    # … whose numbers of each book's levels are worked out once a book, and for how many buckets the
    # levels themselves are then needed (None: all);
    of_book: OfBook | None = None
    levels_of: int | None = None
    # … or this, which reads by itself at ascending times: indicators that remember, single events,
    # a user's query. Of a single time it is told where runs of indicators are kept, if they are.
    read: Callable[[MarketReader, Times, Keep | None], Floats] | None = None
    # Whether ``read`` asks for bars of its grid and longer ones only.
    only_bars: bool = False
    # Reads what ``read`` will ask for at one time.
    prefetch: Callable[[MarketReader, int], None] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names in order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def request(self) -> Request:
        """What it wants read for its windows."""
        return Request(self.needs, self.grid, self.name, self.of_book, self.levels_of)

    @property
    def sha256(self) -> bytes:
        """Hash of the definition: features, needs, grid and code revision."""
        # Needs that came later count only where there are any: older sets keep their hashes.
        needs = {k: v for k, v in vars(self.needs).items() if v or k != "quotes"}
        features = [feature[:4] for feature in self.features]
        text = json.dumps([self.name, self.version, self.revision, features, needs, self.grid])
        return hashlib.sha256(text.encode()).digest()
