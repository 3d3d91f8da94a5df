"""Prediction by key from a stored vector, beside the plain SELECT of it and beside a service."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from typing import Any

import lightgbm
import numpy as np
import psycopg

from tests.bench import _common as common
from tests.db import serving as w

ROWS = 10_000
SECONDS = 3
ROUNDS = 3
KEY = "timestamptz '2026-01-01 00:00+00' + :i * interval '1 minute'"


def prepare(
    conn: psycopg.Connection[Any], trees: int, columns: int, stored: int = ROWS
) -> tuple[str, int, lightgbm.Booster, Any]:
    """A promoted model and its stored vectors: (model name, set_id, booster, vectors)."""
    name = f"bench_{trees}x{columns}"
    rng = np.random.default_rng(trees)
    x = rng.normal(size=(max(20_000, stored), columns))
    y = (rng.random(len(x)) < 1 / (1 + np.exp(-x[:, 0] - x[:, 1] * x[:, 2]))).astype(float)
    booster = w.train(x[:20_000], y[:20_000], trees)
    names = [f"f{i}" for i in range(columns)]
    set_id = w.one(
        conn,
        "insert into feature.sets (name, features, definition, kind, lookback, sha256)"
        " values (%s, %s, 'bench', 'builtin', '0', sha256('bench')) returning set_id",
        name,
        names,
    )
    conn.execute(
        "insert into ml.models (model, label, feature_set, feature_version)"
        " values (%s, 'direction_15m', %s, 1)",
        (name, name),
    )
    conn.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('XXX', 'bench', 'XXX', 'X', 'Y') on conflict do nothing"
    )
    w.register(conn, booster, name, features=names, promote=True)
    w.store(conn, x[:stored], "XXX", name)
    conn.execute("analyze")
    return name, int(set_id), booster, x[:stored]


@contextmanager
def service(conninfo: str, set_id: int, booster: lightgbm.Booster) -> Any:
    """The service, running with a worker a core; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(booster.model_to_string())
        file.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench._service", str(port)],
            env={
                **os.environ, "BENCH_CONNINFO": conninfo, "BENCH_SET": str(set_id),
                "BENCH_MODEL": file.name, "OMP_NUM_THREADS": "1",
            },
            cwd=common.ROOT,
        )  # fmt: skip
        try:
            for _ in range(300):
                try:
                    ask(port, 0)
                    break
                except OSError:
                    time.sleep(0.1)
            yield port
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def apart(conn: psycopg.Connection[Any]) -> Any:
    """Backends that load a model meanwhile keep the library's own copy of it."""
    conn.execute("select ops.set_setting('ml.share_models', 'false')")
    try:
        yield
    finally:
        conn.execute("select ops.set_setting('ml.share_models', 'true')")


def ask(port: int, key: int) -> float:
    """The service's prediction for a key."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/predict/XXX/{key}") as reply:
        return float(json.load(reply)["prediction"])


def drive(port: int, clients: int) -> float:
    """Requests per second of that many clients."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench._clients", str(port), str(clients), str(SECONDS), str(ROWS)],
        capture_output=True,
        text=True,
        check=True,
        cwd=common.ROOT,
    )  # fmt: skip
    return float(done.stdout)


def run(conninfo: str) -> list[dict[str, Any]]:
    """25 trees x 10 columns and 400 x 25, one client, 32, and the four connections that a pooler
    would make of those; with 32 also what it is to keep a copy of the model in each backend."""
    rows = []
    with common.database(conninfo, "key") as own, psycopg.connect(own, autocommit=True) as conn:
        for trees, columns in ((25, 10), (400, 25)):
            name, set_id, booster, x = prepare(conn, trees, columns)
            plain = (
                f"\\set i random(0, {ROWS - 1})\n"
                f"select values from feature.vectors where set_id = {set_id} and symbol = 'XXX'"
                f" and ts = {KEY};\n"
            )
            predict = (
                f"\\set i random(0, {ROWS - 1})\n"
                f"select prediction from ml.predict_stored('{name}', 'XXX', {KEY});\n"
            )
            with service(own, set_id, booster) as port:
                for key in range(0, ROWS, ROWS // 50):
                    here = w.one(
                        conn, "select prediction from ml.predict_stored(%s, 'XXX', %s)",
                        name, w.at(key),
                    )  # fmt: skip
                    there = ask(port, key)
                    own_answer = float(np.asarray(booster.predict(x[key : key + 1]))[0])
                    assert abs(here - own_answer) <= 1e-15 and there == own_answer
                for clients in (1, 4, 32):
                    # Turn by turn, so that what else the machine does hits all three.
                    limit, found, served, copies = 0.0, 0.0, 0.0, 0.0
                    for _ in range(ROUNDS):
                        limit = max(limit, common.pgbench(own, plain, clients, SECONDS))
                        found = max(found, common.pgbench(own, predict, clients, SECONDS))
                        served = max(served, 0 if clients == 4 else drive(port, clients))
                        if clients == 32:
                            with apart(conn):
                                copies = max(copies, common.pgbench(own, predict, 32, SECONDS))
                    what = f"{trees} trees x {columns}, {clients} client{'s' * (clients > 1)}"
                    rows.append(
                        common.row(
                            f"predict by key, {what}",
                            found,
                            "transactions/s",
                            peer="plain SELECT of the row",
                            peer_value=limit,
                            goal="ratio >= 0.8" if clients == 1 else None,
                        )
                    )
                    if clients == 4:
                        continue
                    if clients == 32:
                        rows.append(
                            common.row(
                                f"predict by key, {what}, the model's pages shared",
                                found,
                                "transactions/s",
                                peer="LightGBM, a copy in each backend",
                                peer_value=copies,
                            )
                        )
                    rows.append(
                        common.row(
                            f"predict by key, {what}, service",
                            found,
                            "transactions/s",
                            peer="FastAPI + uvicorn + psycopg pool",
                            peer_value=served,
                            goal="ratio >= 3",
                        )
                    )
    return rows
