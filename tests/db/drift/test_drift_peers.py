"""What Evidently, SciPy and drift.check say of the same quiet data, and of the simulator's own features.

Evidently wants packages of its own: it runs in the environment whose interpreter BENCH_EVIDENTLY
names, and has no row in the table where there is none.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from alphaplus.server.drift import effective
from alphaplus.server.drift import statistics as st
from numpy.typing import NDArray
from scipy import stats

from tests.db.drift_world import ar

Floats = NDArray[np.float64]
pytestmark = pytest.mark.long
DAY, REFERENCE, FEATURES = 1440, 20 * 1440, 10
PHIS = (0.0, 0.5, 0.9, 0.97, 0.99)

EVIDENTLY = """
import json, sys
import numpy as np, pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
found = {}
for name in sys.argv[1:]:
    with np.load(name) as kept:
        now, before = (
            pd.DataFrame(kept[k], columns=[f"f{i}" for i in range(kept[k].shape[1])])
            for k in ("now", "before")
        )
    said = Report([DataDriftPreset()]).run(now, before).dict()
    whole = [m["value"]["share"] for m in said["metrics"] if "DriftedColumnsCount" in str(m)]
    found[name] = whole[0]
print(json.dumps(found))
"""


def evidently(pairs: dict[str, tuple[Floats, Floats]], folder: Path) -> dict[str, float]:
    """Share of columns that Evidently's preset calls drifted; nothing where it is not there."""
    interpreter = os.environ.get("BENCH_EVIDENTLY")
    if not interpreter:
        return {}
    files = {}
    for name, (now, before) in pairs.items():
        files[str(folder / f"{name}.npz")] = name
        np.savez(folder / f"{name}.npz", now=now, before=before)
    done = subprocess.run(
        [interpreter, "-W", "ignore", "-c", EVIDENTLY, *files],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {files[file]: share for file, share in found.items()}


def ours(now: Floats, before: Floats) -> float:
    """Share of columns that drift.check's rule calls drifted: at 1 % after Benjamini and Yekutieli,
    with an effect of at least 0.10."""
    p, effects = [], []
    for column, old in zip(now.T, before.T, strict=True):
        column, old = column[~np.isnan(column)], old[~np.isnan(old)]
        edges = st.edges_of(old, 50)
        bins = np.searchsorted(edges, old)
        ladder = effective.inflation([bins], len(edges) + 1)
        seen, kept = st.counts_in(column, edges), np.bincount(bins, minlength=len(edges) + 1)
        effects.append(float(st.ks(seen, kept)))
        worth = (np.array(effective.effective(len(v), ladder)) for v in (column, old))
        p.append(float(st.ks_p(np.array(effects[-1]), *worth)))
    return float(np.mean((st.by(np.array(p)) <= 0.01) & (np.array(effects) >= 0.1)))


def scipys(now: Floats, before: Floats) -> float:
    """Share of columns with SciPy's p-value at or below 1 %."""
    return float(
        np.mean(
            [
                stats.ks_2samp(a[~np.isnan(a)], b[~np.isnan(b)], method="asymp").pvalue <= 0.01
                for a, b in zip(now.T, before.T, strict=True)
            ]
        )
    )


def test_quiet_and_drifted_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(31)
    pairs = {}
    for phi in PHIS:
        x = np.column_stack([ar(rng, REFERENCE + DAY, phi) for _ in range(FEATURES)])
        pairs[f"phi {phi}"] = (x[REFERENCE:], x[:REFERENCE])
    now, before = pairs["phi 0.9"]
    pairs["shifted by 0.5 at phi 0.9"] = (now + 0.5, before)
    theirs = evidently(pairs, tmp_path)
    table = {
        name: (ours(*pair), scipys(*pair), theirs.get(name, np.nan)) for name, pair in pairs.items()
    }
    with capsys.disabled():
        print(f"\n{'columns called drifted':28s} drift.check  SciPy  Evidently")
        for name, row in table.items():
            print(f"{name:28s} {row[0]:11.3f} {row[1]:6.3f} {row[2]:10.3f}")
    assert all(table[f"phi {phi}"][0] <= 0.02 for phi in PHIS)
    # (adjusted for ten columns; the power of one test is test_drift_proof.py's)
    assert table["shifted by 0.5 at phi 0.9"][0] >= 0.5
    assert table["phi 0.97"][1] > 0.5


def test_features_of_the_simulator_without_drift(
    db: psycopg.Connection[Any],
    connect_as: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The simulated market's parameters never change: each day against the ten days before it."""
    from alphaplus.loaders import simulator

    loader = connect_as("alphaplus_loader", db.info.dbname)
    simulator.run(loader, ["BTC"], 14, 71)
    db.execute("call market.refresh_aggregates()")
    row = db.execute("select symbol, min(ts), max(ts) from market.trades group by 1").fetchone()
    assert row is not None
    symbol, first, last = row
    db.execute("call feature.materialise('liquidation', %s, %s, %s)", (symbol, first, last))
    rows = db.execute("select values from feature.vectors order by ts").fetchall()
    x = np.array([v for (v,) in rows], dtype=np.float64)
    x = x[DAY:]  # windows that were not full yet
    x = x[:, [len(np.unique(c[~np.isnan(c)])) > 50 for c in x.T]]
    pairs = {
        f"day {day}": (x[day * DAY : (day + 1) * DAY], x[(day - 10) * DAY : day * DAY])
        for day in range(10, len(x) // DAY)
    }
    assert len(pairs) >= 2 and x.shape[1] >= 10
    theirs = evidently(pairs, tmp_path)
    found = {name: (ours(*pair), scipys(*pair)) for name, pair in pairs.items()}
    with capsys.disabled():
        print(f"\n{x.shape[1]} features of the simulator called drifted; check, SciPy, Evidently")
        for name, (mine, scipy) in found.items():
            print(f"{name}: {mine:.3f} {scipy:.3f} {theirs.get(name, np.nan):.3f}")
    assert np.mean([mine for mine, _ in found.values()]) <= 0.02
