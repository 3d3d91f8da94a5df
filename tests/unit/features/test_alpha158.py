"""The daily factors against pandas, on real candles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from alphaplus.server.features import alpha158, series

from tests.unit.features.test_technical import hours


def test_every_factor_is_its_definition(shared_data: Path) -> None:
    channels = {name: values[:2000] for name, values in hours(shared_data).channels.items()}
    o, h, lo, c, v = (pd.Series(channels[name]) for name in series.CHANNELS)
    expected = {
        "kmid": (c - o) / o,
        "klen": (h - lo) / o,
        "ksft": (2 * c - h - lo) / o,
        **{f"roc_{n}": c.shift(n) / c for n in (5, 20, 60)},
        **{f"ma_{n}": c.rolling(n).mean() / c for n in (5, 20, 60)},
        "std_20": c.rolling(20).std() / c,
        "max_20": h.rolling(20).max() / c,
        "min_20": lo.rolling(20).min() / c,
        "corr_20": c.rolling(20).corr(pd.Series(np.log(v + 1))),
        "vma_20": v.rolling(20).mean() / (v + 1e-12),
    }
    values = alpha158.compute(series.Bars(**channels))
    for column, (name, _, _, needs, _) in zip(values.T, alpha158.FACTORS, strict=True):
        assert int(np.isnan(column).sum()) == needs - 1, name
        np.testing.assert_allclose(column, expected[name], rtol=1e-8, atol=1e-10, err_msg=name)
