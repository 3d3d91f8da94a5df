"""The regime in hindsight: a statistical jump model, and when each bar's verdict could be known.

Of all paths of states the one with the least total cost: each bar costs what its state fits badly,
each change costs ``penalty`` (Bemporad, Breschi, Piga, Boyd 2018, Fitting jump models; Nystrup,
Kolm, Lindstroem 2020). Which path is best for the past depends on what comes after; but as soon as
the best paths to *all* present states agree on a bar's state, no later bar can change it. That is
when the verdict is known: it is never revised by later bars. After ``limit`` bars without
agreement the best path's state is taken.
"""

from __future__ import annotations

import numpy as np
from alphaplus.server.regime.states import COUNT, Floats, Times

OPEN = -1  # no verdict yet


def run(costs: Floats, penalty: float, count: Times, limit: int) -> tuple[Times, Times]:
    """Verdicts (bars, lanes) of costs (bars, lanes, K), OPEN where there is none yet, and the index
    of the bar at whose close each was known.

    ``count``: bars of each lane; what comes after does not count. A bar without costs (NaN) costs
    nothing.
    """
    length, lanes = costs.shape[:2]
    cost = np.where(np.isfinite(costs), costs, 0.0)
    back = np.empty((length, lanes, COUNT), dtype=np.int8)
    agreed = np.full((length, lanes), -1, dtype=np.int64)
    value = np.zeros((lanes, COUNT))
    own = np.arange(COUNT)
    row = np.arange(lanes)[:, None, None]
    # common[i, j]: the latest bar at which the best paths to i and to j were in one state.
    common = np.full((lanes, COUNT, COUNT), -1, dtype=np.int64)
    best_at = np.empty((length, lanes), dtype=np.int8)
    for i in range(length):
        if i == 0:
            back[0] = own
            value = cost[0].copy()
        else:
            cheapest = value.argmin(axis=1)
            least = np.take_along_axis(value, cheapest[:, None], axis=1)
            jump = value > least + penalty
            origin = np.where(jump, cheapest[:, None], own[None, :])
            back[i] = origin
            value = np.minimum(value, least + penalty) + cost[i]
            value -= value.min(axis=1, keepdims=True)
            a, b = origin[:, :, None], origin[:, None, :]
            common = np.where(a == b, i - 1, common[row, a, b])
        best_at[i] = value.argmin(axis=1)
        agreed[i] = common.min(axis=(1, 2))
    return _decide(back, best_at, agreed, count, limit)


def _decide(
    back: np.typing.NDArray[np.int8],
    best_at: np.typing.NDArray[np.int8],
    agreed: Times,
    count: Times,
    limit: int,
) -> tuple[Times, Times]:
    length, lanes = best_at.shape
    states = np.full((length, lanes), OPEN, dtype=np.int64)
    known = np.full((length, lanes), OPEN, dtype=np.int64)
    lane = np.arange(lanes)
    last = count - 1
    # When each bar was first agreed on: the first i with agreed[i] >= bar. agreed never falls.
    for n in lane:
        if count[n] == 0:
            continue
        stop = int(count[n])
        line = np.maximum.accumulate(agreed[:stop, n])
        when = np.searchsorted(line, np.arange(stop))
        late = np.arange(stop) + limit
        known[:stop, n] = np.minimum(when, late)
        known[:stop, n][known[:stop, n] >= stop] = OPEN
    # The path back from each lane's end is the right one for all bars agreed on.
    state = np.zeros(lanes, dtype=np.int64)
    for i in range(length - 1, -1, -1):
        begins = i == last
        inside = i <= last
        if i + 1 < length:
            onward = inside & ~begins
            state = np.where(onward, back[i + 1, lane, state], state)
        state = np.where(begins, best_at[i], state)
        states[i] = np.where(inside & (known[i] != OPEN), state, OPEN)
    forced = np.argwhere((known != OPEN) & (known == np.arange(length)[:, None] + limit))
    for i, n in forced:
        # Not agreed on in time: the best path as it was at the limit.
        at, s = i + limit, int(best_at[i + limit, n])
        while at > i:
            s = int(back[at, n, s])
            at -= 1
        states[i, n] = s
    return states, known
