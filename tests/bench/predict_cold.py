"""The first prediction on a new connection, and what a model costs each backend."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import psycopg

from tests.bench import _common as common
from tests.bench.predict_key import prepare
from tests.db import serving as w


def pss(pid: int) -> float:
    """Proportional set size in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no Pss")


def run(conninfo: str) -> list[dict[str, Any]]:
    """400 trees x 25 columns: connect apart, then the first statement; PSS before and after."""
    rows = []
    with common.database(conninfo, "cold") as own, psycopg.connect(own, autocommit=True) as conn:
        name, _, booster, x = prepare(conn, 400, 25)
        expected = float(booster.predict(x[5:6])[0])  # type: ignore[index]
        first, added, warm = [], [], []
        visible = False
        for _ in range(15):
            with psycopg.connect(own, autocommit=True) as fresh:
                pid = w.one(fresh, "select pg_backend_pid()")
                visible = os.access(f"/proc/{pid}/smaps_rollup", os.R_OK)
                before = pss(pid) if visible else 0.0
                ask = "select prediction from ml.predict_stored(%s, 'XXX', %s)"
                start = time.perf_counter()
                found = w.one(fresh, ask, name, w.at(5))
                first.append((time.perf_counter() - start) * 1000)
                assert abs(found - expected) <= 1e-15
                start = time.perf_counter()
                w.one(fresh, ask, name, w.at(6))
                warm.append((time.perf_counter() - start) * 1000)
                if visible:
                    added.append(pss(pid) - before)
        rows.append(
            common.row(
                "first prediction on a new connection, 400 trees x 25, p50",
                statistics.median(first),
                "ms",
                peer="the second one",
                peer_value=statistics.median(warm),
                goal="value <= 80",
            )
        )
        if visible:
            text = len(booster.model_to_string()) / 2**20
            rows.append(
                common.row(
                    "memory a backend adds for it (PSS)",
                    statistics.median(added),
                    "MB",
                    peer="the model's text",
                    peer_value=text,
                )
            )
            many = [psycopg.connect(own, autocommit=True) for _ in range(16)]
            try:
                pids = [w.one(c, "select pg_backend_pid()") for c in many]
                before = sum(map(pss, pids))
                for c in many:
                    w.one(
                        c, "select prediction from ml.predict_stored(%s, 'XXX', %s)", name, w.at(5)
                    )
                rows.append(
                    common.row(
                        "the same, each of 16 backends at once (PSS)",
                        (sum(map(pss, pids)) - before) / len(pids),
                        "MB",
                    )
                )
            finally:
                for c in many:
                    c.close()
    return rows
