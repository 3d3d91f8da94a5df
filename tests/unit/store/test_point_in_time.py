"""The newest row of each of many pairs, beside a plain look at all rows."""

from __future__ import annotations

import numpy as np
from alphaplus.server.store import point_in_time
from hypothesis import given
from hypothesis import strategies as st

Row = tuple[int, int, int]
ROWS = st.lists(st.tuples(st.integers(0, 30), st.integers(-5, 10), st.integers(-3, 20)))


@given(rows=ROWS, times=st.lists(st.integers(-5, 60)))
def test_the_newest_row_is_found_whenever_rows_became_known(
    rows: list[Row], times: list[int]
) -> None:
    ts = np.array([row[0] for row in rows], dtype=np.int64)
    known = ts + np.array([row[1] for row in rows], dtype=np.int64)
    ended = known + np.array([row[2] for row in rows], dtype=np.int64)
    asked = np.array(times, dtype=np.int64)

    def plain(t: int, ends: bool) -> int:
        here = (ts < t) & (known <= t) & (ended > t if ends else True)
        return int(ts[here].max(initial=point_in_time.NONE))

    assert point_in_time.newest_of(asked, ts, known).tolist() == [plain(t, False) for t in times]
    assert point_in_time.newest_while(asked, ts, known, ended).tolist() == [
        plain(t, True) for t in times
    ]
