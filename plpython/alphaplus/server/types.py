"""The types and units that every module uses.

Times are int64 microseconds since 2000-01-01 UTC, as PostgreSQL itself counts them: its binary
timestamps need no conversion. At the boundary to SQL they are bigint microseconds since 1970, see
:mod:`alphaplus.server.database`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NEVER: int = np.iinfo(np.int64).max  # what PostgreSQL writes for infinity
