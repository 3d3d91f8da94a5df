"""Several sets as one: their vectors side by side, each as known at its own last grid time.

A joined set is a row of feature.sets like any other, so a model, its training set, a prediction, an
explanation, a shadow and a record of it need to know of nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from alphaplus.server.database import Database
from alphaplus.server.features import compute
from alphaplus.server.features.family import Family, Feature, Keep
from alphaplus.server.market.reader import MarketReader, Needs
from alphaplus.server.types import Floats, Times

PREFIX = "joined:"


def family(db: Database, definition: str, find: Callable[[Database, str], Family]) -> Family:
    """The set behind ``joined:<set_id>``; ``find``: the family of a member's definition."""
    set_id = int(definition.removeprefix(PREFIX))
    chosen = db.execute("select s.* from feature._set_declared($1) s", ("int4",), [set_id])[0]
    query = "select m.definition from feature._set_joined($1) m order by m.place"
    found = [find(db, row["definition"]) for row in db.execute(query, ("int4",), [set_id])]

    def read(reader: MarketReader, grid: Times, runs: Keep | None) -> Floats:
        parts = []
        for member in found:
            times, place = np.unique(grid // member.grid * member.grid, return_inverse=True)
            own = MarketReader(reader.db, reader.symbol, floor=reader.floor)
            parts.append(compute.matrix(own, member, times, runs)[place])
        return np.concatenate(parts, axis=1)

    return Family(
        name=chosen["name"],
        version=chosen["version"],
        revision="1",
        description="",
        features=tuple(Feature(name, "", "", "") for name in chosen["features"]),
        needs=Needs(bars=max(1, chosen["lookback"] // chosen["grid"])),
        grid=chosen["grid"],
        read=read,
    )
