"""What people said of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from alphaplus.server.market.reader import MarketReader
from alphaplus.server.training.labels.label import Label, Targets
from alphaplus.server.training.labels.schema import LabelError, Param, Text
from alphaplus.server.types import Times


class TextLabel(Label):
    """The label of a text in sentiment.labelled_texts; it has no time and no symbol."""

    kind = "text"
    task = "text"
    what = "The label of a text (sentiment.labelled_texts); sentiment.create_model makes it."
    minutes = False
    PARAMS: ClassVar[Mapping[str, Param]] = {
        "label_set": Text(None, "the set of labelled texts"),
        "language": Text(None, "the language of the texts"),
    }

    def known(self, reader: MarketReader, grid: Times, step: int, as_of: int) -> Targets:
        """See :meth:`.Label.known`."""
        raise LabelError("the label of a text has no value at a time of a symbol")
