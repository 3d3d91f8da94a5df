"""Times as they come from SQL: seconds since 2000-01-01 UTC."""

from __future__ import annotations

import math
from typing import Any

from alphaplus.server.market.revisions import SECOND


def moments(plpy: Any, *seconds: float | None) -> tuple[int, ...]:
    """The same in whole microseconds; refuses (AP211) null and infinite times.

    Call it before the first row of a set is yielded: an error inside a generator loses its words.
    """
    found = [x for x in seconds if x is not None and math.isfinite(x)]
    if len(found) < len(seconds):
        plpy.error(
            "a time is null or infinite",
            sqlstate="AP211",
            hint="Give a time that has a date, such as '2024-06-01 00:00+00'.",
        )
    return tuple(round(x * SECOND) for x in found)
