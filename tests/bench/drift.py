"""Drift: a full check of a hundred features over a million rows, what keeping the histograms costs,
and a promotion seen by a hundred open sessions.

The peers of the check pull the rows out of the same database and ask SciPy feature by feature, and
Evidently (its own Python environment, named by BENCH_EVIDENTLY: the path of its interpreter; left
out where there is none). The check's counts are those of numpy on the same rows, and its statistics
SciPy's on these counts.
"""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from alphaplus.server.store.write import binary_rows
from alphaplus.server.types import SECOND
from numpy.typing import NDArray
from scipy import stats

from tests.bench import _common as common
from tests.bench import predict_live
from tests.bench._common import row
from tests.db import drift_world as world
from tests.db import serving

FEATURES = 100
ROWS = int(os.environ.get("BENCH_DRIFT_ROWS", "1000000"))
REFERENCE = 100_000
PIECE = 50_000
MINUTE = 60 * SECOND
EVIDENTLY = os.environ.get("BENCH_EVIDENTLY")
SESSIONS = 100
Floats = NDArray[np.float64]
Conn = psycopg.Connection[Any]

PULL = (
    "select array_send(v.values) from feature.vectors v where v.set_id = %s and v.symbol = 'AAA'"
    " order by v.ts"
)


def values(rows: int, seed: int, shift: float = 0.0) -> Floats:
    """Features of several shapes; the first tenth moved by ``shift``."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, FEATURES))
    x[:, : FEATURES // 10] += shift
    x[:, 40:60] = np.exp(x[:, 40:60])
    x[:, 60:70] = 5e4 + 10 * x[:, 60:70]
    x[:, 70:75] = np.rint(x[:, 70:75])
    x[rng.random(rows) < 0.01, 80:90] = np.nan
    return x


def load(db: Conn, set_id: int, x: Floats) -> None:
    """Stores them minute by minute from 2026 on, as rows and as blocks."""
    start = (world.START - dt.datetime(2000, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    for at in range(0, len(x), PIECE):
        part = x[at : at + PIECE]
        ts = start + (at + np.arange(len(part))) * MINUTE
        table = binary_rows(set_id, "AAA", ts, int(ts[0]), part)
        with db.cursor().copy(
            "copy feature.vectors (set_id, symbol, ts, computed_at, values) from stdin (format binary)"
        ) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
            copy.write(table.tobytes())
            copy.write(b"\xff\xff")
    db.execute(
        "insert into feature.watermarks (set_id, symbol, since, through) values (%s, 'AAA', %s, %s)",
        (set_id, world.START, world.START + len(x) * world.MINUTE),
    )
    db.execute("call feature.pack('toy', array['AAA'])")
    db.execute("analyze")


def training(x: Floats) -> bytes:
    """As ``ml._training_bytes`` gives a training set."""
    n = len(x)
    ts = np.arange(n, dtype="<i8") * MINUTE
    return b"".join(
        [
            np.array(x.shape, dtype="<i8").tobytes(), ts.tobytes(), ts.tobytes(),
            (x[:, 0] > 0).astype("<f8").tobytes(), np.ones(n, dtype="<i4").tobytes(),
            x.astype("<f8").tobytes(),
        ]
    )  # fmt: skip


ASK = (
    "select feature, ks, n, p_value from drift.check('toy', 'AAA', make_interval(mins => %s), %s)"
    " where kind = 'feature' order by feature"
)


def right(db: Conn, found: list[Any], x: Floats) -> None:
    """The answers are those of numpy's counts and SciPy's statistic on them."""
    edges = {
        name: np.array(some)
        for name, some in db.execute(
            "select feature, edges from drift.reference_features where kind = 'feature'"
        ).fetchall()
    }
    before = dict(
        db.execute(
            "select feature, counts from drift.reference_features where kind = 'feature'"
        ).fetchall()
    )
    for feature, ks, n, _ in found:
        column = x[:, int(feature[1:])]
        column = column[~np.isnan(column)]
        if n != len(column):
            raise RuntimeError(f"{feature}: {n} rows are not {len(column)}")
        if int(feature[1:]) % 10:
            continue
        counts = np.bincount(
            np.searchsorted(edges[feature], column), minlength=len(before[feature])
        )
        bins = np.arange(len(counts))
        told = stats.ks_2samp(np.repeat(bins, counts), np.repeat(bins, before[feature])).statistic
        if abs(ks - told) > 1e-9:
            raise RuntimeError(f"{feature}: KS {ks} is not SciPy's {told}")


def scipy_peer(own: str, set_id: int, reference: Floats) -> float:
    """Pull the rows out, and SciPy's KS test and Wasserstein distance per feature; seconds."""
    start = time.perf_counter()
    with (
        psycopg.connect(own, autocommit=True) as db,
        db.cursor().copy(
            "copy (select v.values from feature.vectors v where v.set_id = "
            f"{int(set_id)} and v.symbol = 'AAA' order by v.ts) to stdout (format binary)"
        ) as copy,
    ):
        raw = b"".join(copy)
    width = 2 + 4 + 20 + 12 * FEATURES
    body = np.frombuffer(raw, np.uint8, offset=19)[:-2].reshape(-1, width)
    x = np.empty((len(body), FEATURES))
    for at in range(0, len(body), PIECE):
        part = np.ascontiguousarray(body[at : at + PIECE, 26:])
        x[at : at + PIECE] = part.view([("size", ">i4"), ("value", ">f8")])["value"]
    del raw, body
    for i in range(FEATURES):
        column = x[:, i][~np.isnan(x[:, i])]
        before = reference[:, i][~np.isnan(reference[:, i])]
        stats.ks_2samp(column, before, method="asymp")
        stats.wasserstein_distance(column, before)
    return time.perf_counter() - start


EVIDENTLY_SCRIPT = """
import sys, time
import numpy as np, pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
now, before = (pd.DataFrame(np.load(f), columns=[f"f{i}" for i in range(100)]) for f in sys.argv[1:3])
start = time.perf_counter()
result = Report([DataDriftPreset()]).run(now, before)
result.dict()
print(time.perf_counter() - start)
"""


def evidently_peer(x: Floats, reference: Floats) -> float | None:
    """Evidently's own drift preset on the rows already in memory; seconds."""
    if not EVIDENTLY:
        return None
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, table in (("now", x), ("before", reference)):
            files.append(str(Path(folder) / f"{name}.npy"))
            np.save(files[-1], table)
        done = subprocess.run(
            [EVIDENTLY, "-W", "ignore", "-c", EVIDENTLY_SCRIPT, *files],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    return float(done.stdout.split()[-1])


def checks(conninfo: str) -> list[dict[str, Any]]:
    """The check from rows and from histograms, beside SciPy and Evidently."""
    rows = []
    with common.database(conninfo, "drift") as own:
        with psycopg.connect(own, autocommit=True) as db:
            set_id = world.install(db, features=FEATURES)
            reference, x = values(REFERENCE, 1), values(ROWS, 2, 0.2)
            text = world.booster(reference[:5000], (reference[:5000, 0] > 0).astype(float))
            version = world.register(db, text, "AAA", world.START, world.START)
            db.execute("call ml.promote(%s, 'bench', true)", (version,))
            db.execute("select drift._take_reference(%s, %s, 50)", (version, training(reference)))
            load(db, set_id, x)
            end = world.START + ROWS * world.MINUTE
        with psycopg.connect(own, autocommit=True) as db:
            db.execute(ASK, (10, end)).fetchall()
            start = time.perf_counter()
            found = db.execute(ASK, (ROWS, end)).fetchall()
            raw = time.perf_counter() - start
            right(db, found, x)
            scipy = scipy_peer(own, set_id, reference)
            rows.append(
                row(
                    f"drift check, {FEATURES} features x {ROWS:,} stored rows", raw, "s",
                    peer="rows pulled out, SciPy feature by feature", peer_value=scipy,
                    goal="value <= 3",
                )
            )  # fmt: skip
            evidently = evidently_peer(x, reference)
            if evidently is not None:
                rows.append(
                    row(
                        "drift check beside Evidently", raw, "s",
                        peer="Evidently, rows in memory", peer_value=evidently,
                        goal="ratio <= 0.1",
                    )
                )  # fmt: skip
            db.execute(
                "update ops.settings set value = '\"10000 days\"' where name = 'drift.backfill'"
            )
            start = time.perf_counter()
            db.execute("call drift.refresh_histograms()")
            kept = time.perf_counter() - start
            if db.execute(ASK, (ROWS, end)).fetchall() != found:
                raise RuntimeError("from histograms the answer is another")
            p50, _ = common.percentiles(lambda: db.execute(ASK, (ROWS, end)).fetchall(), 30, 3)
            rows.append(
                row(
                    "the same from kept histograms, p50", p50, "ms", peer="from the rows",
                    peer_value=raw * 1e3, goal="value <= 50",
                )
            )  # fmt: skip
            rows.append(row("counting them, hour by hour, first time", kept, "s"))
    return rows


def keeping(conninfo: str) -> list[dict[str, Any]]:
    """What keeping the histograms adds to computing and storing features."""
    days = 10
    with (
        common.database(conninfo, "driftkeep") as own,
        psycopg.connect(own, autocommit=True) as db,
    ):
        predict_live.fill(db, days)
        db.execute("call market.refresh_aggregates()")
        db.execute("vacuum analyze")
        end = predict_live.END
        name = "liquidation"
        first, last = end - dt.timedelta(days=8), end - dt.timedelta(days=4)
        db.execute("call feature.materialise(%s, 'XXX', %s, %s)", (name, first, last))
        features, found_set = db.execute(
            "select features, set_id from feature.sets where name = %s", (name,)
        ).fetchone() or (None, None)
        matrix = np.array(
            [r[0] for r in db.execute("select v.values from feature.vectors v order by ts")],
            dtype=np.float64,
        )
        db.execute(
            "insert into ml.labels (label, task, kind, horizon, description)"
            " values ('toy', 'classification', 'toy', '5 min', 'toy')"
        )
        db.execute(
            "insert into ml.models (model, label, feature_set, feature_version)"
            " select 'toy', 'toy', s.name, s.version from feature.sets s where s.set_id = %s",
            (found_set,),
        )
        target = (np.nan_to_num(matrix[:, 0]) > 0).astype(float)
        target[0] = 1 - target[1]
        booster = serving.train(matrix, target, 10)
        version = serving.register(
            db, booster, "toy", symbol="XXX", features=features, promote=True
        )
        db.execute("select drift._take_reference(%s, %s, 50)", (version, training(matrix)))
        db.execute("call drift.refresh_histograms()")
        stored = counted = 0.0
        for i in range(4):  # a day at a time, as it comes
            day = last + dt.timedelta(days=i)
            start = time.perf_counter()
            db.execute(
                "call feature.materialise(%s, 'XXX', %s, %s)",
                (name, day, day + dt.timedelta(days=1)),
            )
            stored += time.perf_counter() - start
            start = time.perf_counter()
            db.execute("call drift.refresh_histograms()")
            counted += time.perf_counter() - start
        (n,) = db.execute(
            "select sum(n) from drift.histograms where width = '1 hour'"
        ).fetchone() or (0,)
        (there,) = db.execute("select count(*) from feature.vectors").fetchone() or (0,)
        if n != there:
            raise RuntimeError(f"{n} rows counted of {there}")
    return [
        row(
            "keeping histograms, of a feature refresh", counted, "s",
            peer="computing and storing the features", peer_value=stored, goal="ratio <= 0.1",
        )
    ]  # fmt: skip


def promotion(conninfo: str) -> list[dict[str, Any]]:
    """p99 of predictions of a hundred open sessions, before and while versions are promoted."""
    with common.database(conninfo, "driftpromote") as own:
        with psycopg.connect(own, autocommit=True) as db:
            serving.install(db)
            x, y = serving.synthetic(2000)
            db.execute(
                "insert into ml.models (model, label, feature_set, feature_version)"
                " values ('bench', 'fixed', 'fixed', 1)"
            )
            ids = [
                serving.register(db, serving.train(x[:1000], y[:1000], 60, seed=i), "bench")
                for i in range(6)
            ]
            db.execute("call ml.promote(%s, 'bench', true)", (ids[0],))
            serving.store(db, x[1000:1600])
        ask = "select version_id from ml.predict_stored('bench', 'AAA', %s)"
        sessions = [psycopg.connect(own, autocommit=True) for _ in range(SESSIONS)]
        for session in sessions:
            session.prepare_threshold = 0
            session.execute(ask, (serving.at(100),)).fetchone()
        taken: list[tuple[float, float]] = []
        errors: list[str] = []
        lock, over = threading.Lock(), threading.Event()

        def work(number: int) -> None:
            """A tenth of the sessions, one after the other: who reads is not to wait for the driver."""
            mine = sessions[number::10]
            i = 0
            while not over.is_set():
                session = mine[i % len(mine)]
                i += 1
                start = time.perf_counter()
                try:
                    session.execute(ask, (serving.at(i % 500),)).fetchone()
                except psycopg.Error as error:
                    errors.append(str(error))
                with lock:
                    taken.append((start, time.perf_counter() - start))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(10)]
        for thread in threads:
            thread.start()
        time.sleep(6)
        middle = time.perf_counter()
        with psycopg.connect(own, autocommit=True) as db:
            for version in ids[1:]:
                db.execute("call ml.promote(%s, 'bench', true)", (version,))
                time.sleep(1.2)
        over.set()
        for thread in threads:
            thread.join()
        seen = {s.execute(ask, (serving.at(100),)).fetchone() for s in sessions}
        (newest,) = sessions[0].execute(
            "select version_id from ml.aliases where model = 'bench' and alias = 'champion'"
        ).fetchone() or (None,)
        for session in sessions:
            session.close()
        if errors or len(seen) != 1 or newest != ids[-1]:
            raise RuntimeError(f"{errors[:1]}, or not all see the promoted version: {seen}")
        before, during = (
            float(np.percentile([d for t, d in taken if (t >= middle) == late and d], 99)) * 1e3
            for late in (False, True)
        )
    return [
        row(
            f"predictions in {SESSIONS} sessions while 5 versions are promoted, p99", during, "ms",
            peer="before", peer_value=before, goal="ratio <= 2",
        )
    ]  # fmt: skip


def run(conninfo: str) -> list[dict[str, Any]]:
    """See the module."""
    return [*checks(conninfo), *keeping(conninfo), *promotion(conninfo)]


if __name__ == "__main__":  # one part: python -m tests.bench.drift checks
    for found in globals()[sys.argv[1]](common.superuser()):
        print(found)
