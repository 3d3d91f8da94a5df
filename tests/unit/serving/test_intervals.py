"""Coverage of intervals, against counting by hand."""

from __future__ import annotations

import json

import numpy as np
from alphaplus.server.serving import intervals
from alphaplus.trainer import calibrate


def test_a_sound_table_covers_and_one_beside_its_probabilities_does_not() -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(0.05, 0.6, 6000)
    y = (rng.random(6000) < p).astype(float)
    table = calibrate.confidence(y, p, np.arange(6000) // 10)
    spec = json.dumps({"confidence": table})
    covered = intervals.coverage(spec, p.tolist(), y.tolist())
    assert covered is not None and covered >= 0.8
    # Case F06: each probability outside of its own interval.
    above = {
        **table,
        "lower": [x * 0.2 for x in table["x"]],
        "upper": [x * 0.4 for x in table["x"]],
    }
    found = intervals.coverage(json.dumps({"confidence": above}), p.tolist(), y.tolist())
    assert found is not None and found < 0.05
    # True probabilities, intervals of another symbol's frequencies.
    half = y * (rng.random(6000) < 0.4)
    found = intervals.coverage(spec, p.tolist(), half.tolist())
    assert found is not None and found < 0.5


def test_values() -> None:
    spec = json.dumps({"interval": {"kind": "additive", "lower": -1.0, "upper": 2.0}})
    assert intervals.coverage(spec, [0, 0, 0, 0], [-1, 0, 2, 2.1]) == 0.75
    spec = json.dumps({"interval": {"kind": "multiplicative", "lower": 0.5, "upper": 2.0}})
    assert intervals.coverage(spec, [2, -2], [4, -4]) == 1.0
    assert intervals.coverage("{}", [1], [1]) is None
    assert intervals.coverage(spec, [], []) is None
