"""Reading a training set into numpy, and training on it, beside what one would do instead."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import psycopg
from alphaplus.trainer import data
from alphaplus.trainer.models.gbm import LightGBM

from tests.bench import _common as common
from tests.db import serving as w

ROWS = 1_000_000
READ = 200_000  # rows for the comparison with readers that make an object of every value
COLUMNS = 100
ROUNDS = 100
START = dt.datetime(2023, 1, 1, tzinfo=dt.UTC)


def fill(conn: psycopg.Connection[Any], rows: int) -> None:
    """Bars of a random walk with their direction five minutes later, and random vectors."""
    conn.execute("set client_min_messages = warning")
    conn.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('XXX', 'bench', 'XXX', 'X', 'USDT')"
    )
    rng = np.random.default_rng(1)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-4, rows + 10)))
    start = START
    with conn.cursor().copy(
        "copy market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
        " from stdin"
    ) as copy:
        for i, price in enumerate(close.tolist()):
            ts = start + pd.Timedelta(minutes=i - 1)
            copy.write_row(
                ("XXX", "1 minute", ts, ts + pd.Timedelta(minutes=1), price, price, price, price, 1)
            )
    # What is not stored, the first and the last bars, is computed by the set's own SELECT.
    features = ", ".join(f"close + {i} as x{i}" for i in range(COLUMNS))
    set_id = w.one(
        conn,
        "select feature.create_set('wide', %s, '10 minutes')",
        f"select ts, {features} from market.candles",
    )
    from alphaplus.server.store.write import binary_rows

    epoch = int((start.timestamp() - 946_684_800) * 1e6)
    with conn.cursor().copy(
        "copy feature.vectors (set_id, symbol, ts, computed_at, values) from stdin"
        " with (format binary)"
    ) as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        for begin in range(0, rows, 20_000):
            ts = epoch + (begin + np.arange(min(20_000, rows - begin))) * 60_000_000
            x = rng.normal(size=(len(ts), COLUMNS))
            copy.write(binary_rows(set_id, "XXX", ts, epoch, x).tobytes())
        copy.write(b"\xff\xff")
    conn.execute(
        "insert into feature.watermarks (set_id, symbol, through) values (%s, 'XXX', %s)",
        (set_id, start + pd.Timedelta(minutes=rows)),
    )
    conn.execute(
        "insert into ml.models (model, label, feature_set, feature_version)"
        " values ('wide', 'direction_5m', 'wide', 1)"
    )
    conn.execute("vacuum analyze")


def claim(conn: psycopg.Connection[Any], rows: int) -> tuple[int, str]:
    """A job of the trainer's over so many rows, and its lease."""
    until = START + pd.Timedelta(minutes=rows + 5)
    job = w.one(conn, "call ml.retrain('wide', 'XXX', as_of => %s, options => '{}')", until)
    lease = w.one(conn, "select lease from ml._claim_job(%s, 'bench')", job)
    return int(job), str(lease)


def run(conninfo: str) -> list[dict[str, Any]]:
    """GB/s of the reader; seconds of reading and fitting beside fitting alone."""
    rows = []
    with (
        common.database(conninfo, "training") as own,
        psycopg.connect(own, autocommit=True) as conn,
    ):
        fill(conn, ROWS)
        conn.execute("update ops.settings set value = '\"1 hour\"' where name like '%lease%'")
        job, lease = claim(conn, READ)

        def connect() -> psycopg.Connection[Any]:
            return psycopg.connect(own, autocommit=True)

        matrix = data.read_matrix(connect, job, lease, COLUMNS)
        gigabytes = matrix.x.nbytes / 1e9
        ours = common.best(lambda: data.read_matrix(connect, job, lease, COLUMNS), 3)
        query = (
            "select features from ml.training_set('wide', 'XXX', %s)",
            (START + pd.Timedelta(minutes=READ + 5),),
        )
        started = time.perf_counter()
        fetched = np.array([row[0] for row in conn.execute(*query).fetchall()])
        theirs = time.perf_counter() - started
        assert np.array_equal(fetched, matrix.x)
        del fetched
        columns = ", ".join(f"t.features[{i + 1}] as x{i}" for i in range(COLUMNS))
        started = time.perf_counter()
        import sqlalchemy

        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(own)
        )
        frame = pd.read_sql(
            f"select {columns} from ml.training_set('wide', 'XXX', '{query[1][0]}') t", engine
        )
        in_pandas = time.perf_counter() - started
        assert np.array_equal(frame.to_numpy(), matrix.x)
        del frame
        for peer, seconds in (("psycopg fetchall", theirs), ("pandas.read_sql", in_pandas)):
            rows.append(
                common.row(
                    f"training set into numpy, {READ:,} x {COLUMNS}",
                    gigabytes / ours,
                    "GB/s",
                    peer=peer,
                    peer_value=gigabytes / seconds,
                    goal="ratio >= 10",
                )
            )
        with conn.transaction():
            conn.execute("select ml._fail_job(%s, %s, 'error', 'bench')", (job, lease))
        job, lease = claim(conn, ROWS)
        started = time.perf_counter()
        matrix = data.read_matrix(connect, job, lease, COLUMNS)
        unpacked = time.perf_counter() - started
        conn.execute("call feature.pack('wide')")  # as the clock does once a day
        started = time.perf_counter()
        packed = data.read_matrix(connect, job, lease, COLUMNS)
        read = time.perf_counter() - started
        assert packed.sha256 == matrix.sha256
        del packed
        rows.append(
            common.row(
                f"training set of {len(matrix):,} x {COLUMNS} read from packed vectors",
                read,
                "s",
                peer="from vectors that are not packed",
                peer_value=unpacked,
            )
        )
        model = LightGBM("classification", {"rounds": ROUNDS}, threads=2)
        started = time.perf_counter()
        model.fit(matrix.x, matrix.y, rounds=ROUNDS)
        fit = time.perf_counter() - started
        options = model._parameters() | {"min_data_in_leaf": 20}
        started = time.perf_counter()
        alone = lightgbm.train(options, lightgbm.Dataset(matrix.x, matrix.y), ROUNDS)
        bare = time.perf_counter() - started
        some = matrix.x[:1000]
        assert np.array_equal(alone.predict(some, raw_score=True), model.raw(some))
        rows.append(
            common.row(
                f"LightGBM on {len(matrix):,} x {COLUMNS}, {ROUNDS} rounds, reading packed included"
                f" ({read:.1f} s)",
                read + fit,
                "s",
                peer="lightgbm on an array in memory",
                peer_value=bare,
                goal="ratio <= 1.15",
            )
        )
    return rows
