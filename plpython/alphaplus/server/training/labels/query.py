"""A user's own SELECT as a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from alphaplus.server.database import Database, micros
from alphaplus.server.market.reader import MarketReader
from alphaplus.server.training.labels.label import Label, Targets
from alphaplus.server.training.labels.schema import Choice, LabelError, Number, Param, Text
from alphaplus.server.types import DAY, Times

AT_ONCE = 2000  # grid times in one call


class Select(Label):
    """One number, ``target``, of the rows that happen in [t - lookback, t + h).

    The SELECT runs with the rights of alphaplus_select, at each time on the rows that were known by
    as_of and had happened by t + h, and on nothing else: so its interval ends where it says.
    """

    kind = "select"
    what = "A SELECT of one row with a column target, over the rows of the interval."
    PARAMS: ClassVar[Mapping[str, Param]] = {
        "query": Text(None, "the SELECT"),
        "lookback_days": Number(0.0, 0.0, 400.0, "days before t whose rows it reads too"),
        "task": Choice("regression", ("classification", "regression"), "what it predicts"),
    }

    def consistent(self) -> None:
        """See :meth:`.Label.consistent`."""
        if self.params["query"] is None:
            raise LabelError("a label of kind select needs a query: create_label(…, query => …)")

    @property
    def task_of(self) -> str:
        """See :meth:`.Label.task_of`."""
        return str(self.params["task"])

    def completed(self, db: Database) -> Mapping[str, Any]:
        """See :meth:`.Label.completed`. The task is that of the column's type."""
        from alphaplus.server.sets import label_query

        task = label_query.check(db, self.params["query"])
        return {**super().completed(db), "task": task}

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Targets:
        """See :meth:`.Label.known`."""
        db = reader.db
        out = np.full(len(grid), np.nan)
        done = np.flatnonzero(grid + self.horizon <= as_of)
        back = round(self.params["lookback_days"] * DAY)
        call = "select at, target from ml._label_select($1, $2, $3, $4, $5)"
        kinds = ("text", "int8[]", "int8", "int8", "int8")
        db.label_asked = self.params["query"], self.params["task"]
        try:
            for begin in range(0, len(done), AT_ONCE):
                part = done[begin : begin + AT_ONCE]
                times = micros(*grid[part].tolist())
                where = dict(zip(times, part.tolist(), strict=True))
                values = [reader.symbol, times, back, self.horizon, micros(as_of)[0]]
                for row in db.execute(call, kinds, values):
                    if row["target"] is not None:
                        out[where[row["at"]]] = row["target"]
        finally:
            db.label_asked = None
        out[~np.isfinite(out)] = np.nan
        return self.whole(out, grid)
