"""How a symbol does among others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from alphaplus.server.database import Database
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.training.labels.label import ABOVE, Label, Targets, change, outcome
from alphaplus.server.training.labels.schema import LabelError, Number, Param, Texts
from alphaplus.server.types import Times


class Rank(Label):
    """The place of the symbol's return over the interval among those of others, 0 to 1.

    0: the lowest, 1: the highest, equal ones in the middle of their places. The others are named
    when the label is created, so that a listing later on does not change it.
    """

    kind = "rank"
    what = "Place of the symbol's return among those of other symbols: 0 lowest, 1 highest."
    PARAMS: ClassVar[Mapping[str, Param]] = {
        "symbols": Texts(None, "the symbols it is ranked among; left out, all there are now"),
        "least": Number(
            3, 2, 2000, "symbols whose return must be known, this one counted", whole=True
        ),
        "above": ABOVE,
    }

    def completed(self, db: Database) -> Mapping[str, Any]:
        """See :meth:`.Label.completed`."""
        params = dict(super().completed(db))
        if "symbols" in params:
            query = "select market.resolve(s.name) as symbol from unnest($1) as s (name)"
            rows = db.execute(query, ("text[]",), [params["symbols"]])
        else:
            rows = db.execute("select i.symbol from market.instruments i order by i.symbol")
        found = sorted({row["symbol"] for row in rows})
        if len(found) < params["least"]:
            raise LabelError(
                f"a rank needs at least {params['least']:g} symbols to be known, and there are"
                f" {len(found)}"
            )
        return {**params, "symbols": found}

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Targets:
        """See :meth:`.Label.known`."""
        mine = change(outcome(reader, self, grid, step, as_of, 1))
        below, equal, known = (np.zeros(len(grid)) for _ in range(3))
        for symbol in self.params["symbols"] or ():
            if symbol == reader.symbol:
                continue
            other = MarketReader(reader.db, symbol, as_of, int(grid[0]))
            theirs = change(outcome(other, self, grid, step, as_of, 1))
            known += np.isfinite(theirs)
            below += theirs < mine
            equal += theirs == mine
        there = np.isfinite(mine) & (known + 1 >= self.params["least"])
        out = np.full(len(grid), np.nan)
        out[there] = (below[there] + equal[there] / 2) / known[there]
        return self.whole(out, grid)
