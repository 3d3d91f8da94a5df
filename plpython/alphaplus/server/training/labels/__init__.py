"""Labels: what is to be predicted, from what is known by an as-of time.

To add a kind: one module here with one class that follows :class:`.label.Label`, its name as
``kind``, its parameters as ``PARAMS``, and its line in :data:`KINDS`.
"""

from __future__ import annotations

import json
from typing import Any

from alphaplus.server.training import spelling
from alphaplus.server.training.labels.burst import Volatility
from alphaplus.server.training.labels.change import Return
from alphaplus.server.training.labels.direction import Direction
from alphaplus.server.training.labels.drawdown import Drawdown
from alphaplus.server.training.labels.imbalance import Imbalance
from alphaplus.server.training.labels.label import Label, Targets
from alphaplus.server.training.labels.liquidation import Liquidation
from alphaplus.server.training.labels.liquidation_volume import LiquidationVolume
from alphaplus.server.training.labels.mid import Mid
from alphaplus.server.training.labels.query import Select
from alphaplus.server.training.labels.rank import Rank
from alphaplus.server.training.labels.realised_volatility import RealisedVolatility
from alphaplus.server.training.labels.regime import Regime
from alphaplus.server.training.labels.schema import LabelError, Number
from alphaplus.server.training.labels.spread import Spread
from alphaplus.server.training.labels.text import TextLabel
from alphaplus.server.training.labels.triple_barrier import TripleBarrier
from alphaplus.server.training.labels.volume import Volume

__all__ = ["KINDS", "Label", "LabelError", "Targets", "catalogue", "of"]

# Every kind of label, by the name that ml.labels.kind has.
KINDS: dict[str, type[Label]] = {
    kind.kind: kind
    for kind in (
        Return, Direction, TripleBarrier, RealisedVolatility, Volatility, Drawdown, Volume, Spread,
        Imbalance, Mid, Liquidation, LiquidationVolume, Rank, Select, Regime, TextLabel,
    )
}  # fmt: skip


def of(kind: str, horizon: int, params: str | None) -> Label:
    """From a row of ml.labels, its parameters as JSON.

    Raises:
        LabelError: an unknown kind or parameter, or a value out of its range.
    """
    chosen = KINDS.get(kind)
    if chosen is None:
        meant = spelling.nearest(str(kind), sorted(KINDS))
        hint = f"; did you mean {meant!r}?" if meant else ""
        raise LabelError(
            f"unknown kind of label {kind!r}{hint}; there are: {', '.join(sorted(KINDS))}"
        )
    given: Any = json.loads(params or "{}")
    return chosen.made(horizon, given)


def catalogue() -> list[dict[str, Any]]:
    """A row for each parameter of each kind, one without a parameter where a kind has none."""
    rows: list[dict[str, Any]] = []
    for kind in KINDS.values():
        base = {"kind": kind.kind, "task": kind.task, "what": kind.what}
        for name, param in kind.PARAMS.items() or [(None, None)]:
            number = param if isinstance(param, Number) else None
            default = None if param is None or param.default is None else str(param.default)
            rows.append({
                **base, "parameter": name, "type": param and param.type,
                "standard": default, "low": number and number.low, "high": number and number.high,
                "choices": list(getattr(param, "among", ())) or None,
                "meaning": param and param.words,
            })  # fmt: skip
    return rows
