"""A world for tests of drift: a feature set of stored vectors of known distributions, versions of a
model on it, and labels that follow from the vectors.

The training set and the labels of the test's own database are read from a table, so that what is
right is known; everything else is the real thing.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import lightgbm
import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.types.json import Jsonb
from scipy.signal import lfilter

from tests.db.toy_labels import unchecked

Conn = psycopg.Connection[Any]
START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

FUNCTIONS = """
create table public.toy_rows (symbol text, ts timestamptz, target float8, primary key (symbol, ts));
alter table public.toy_rows owner to alphaplus_owner;
drop function ml._training_bytes;
create function ml._training_bytes(
    model text, symbol text, as_of timestamptz, "from" timestamptz, "to" timestamptz, regime text
) returns bytea language plpython3u stable as $$
    import numpy as np
    plan = plpy.prepare(
        "select (extract(epoch from r.ts) * 1000000)::bigint as ts, r.target, v.values,"
        " dense_rank() over (order by r.symbol) as symbol"
        " from public.toy_rows r join ml.models m on m.model = $1"
        " join feature.sets s on s.name = m.feature_set and s.version = m.feature_version"
        " join feature.vectors v on v.set_id = s.set_id and v.symbol = r.symbol and v.ts = r.ts"
        " where (r.symbol = $2 or $2 is null) and r.ts + interval '5 min' <= $3"
        " and ($4 is null or r.ts >= $4) and ($5 is null or r.ts < $5) order by r.ts, r.symbol",
        ["text", "text", "timestamptz", "timestamptz", "timestamptz"],
    )
    rows = plpy.execute(plan, [model, symbol, as_of, args[3], args[4]])
    k = len(rows[0]["values"]) if len(rows) else 1
    ts = np.array([r["ts"] for r in rows], dtype="<i8")
    return b"".join([
        np.array([len(rows), k], dtype="<i8").tobytes(), ts.tobytes(),
        (ts + 300000000).tobytes(), np.array([r["target"] for r in rows], dtype="<f8").tobytes(),
        np.array([r["symbol"] for r in rows], dtype="<i4").tobytes(),
        np.array([r["values"] for r in rows], dtype="<f8").tobytes(),
    ])
$$;
alter function ml._training_bytes owner to alphaplus_owner;
create or replace function ml.label_values(
    label text, symbol text, "from" timestamptz, "to" timestamptz, as_of timestamptz default null,
    grid interval default interval '1 minute'
) returns table (ts timestamptz, label_end timestamptz, target float8) language sql stable as $$
    select r.ts, r.ts + interval '5 min', r.target from public.toy_rows r
    where r.symbol = $2 and r.ts >= $3 and r.ts < $4
        and r.ts + interval '5 min' <= coalesce($5, now())
$$;
"""


def ar(rng: np.random.Generator, rows: int, phi: float) -> NDArray[np.float64]:
    """A stationary AR(1) series of mean 0 and variance 1."""
    noise = rng.standard_normal(rows) * np.sqrt(1 - phi**2)
    found: NDArray[np.float64] = lfilter([1], [1, -phi], noise, zi=[phi * rng.standard_normal()])[0]
    return found


def install(db: Conn, features: int = 4, model: str = "toy", task: str = "classification") -> int:
    """The set, label and model; the set's number."""
    db.execute("set client_min_messages = warning")
    db.execute(FUNCTIONS)
    names = [f"f{i}" for i in range(features)]
    row = db.execute(
        "insert into feature.sets (name, features, definition, kind, lookback, sha256)"
        " values ('toy', %s, 'toy', 'builtin', '0', sha256('toy')) returning set_id",
        (names,),
    ).fetchone()
    with unchecked(db):
        db.execute(
            "insert into ml.labels (label, task, kind, horizon, description)"
            " values ('toy', %s, 'toy', '5 min', 'toy')",
            (task,),
        )
    db.execute(
        "insert into ml.models (model, label, feature_set, feature_version) values (%s, 'toy', 'toy', 1)",
        (model,),
    )
    for symbol in ("AAA", "BBB"):
        db.execute(
            "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
            " values (%s, 'toy', %s, %s, 'USDT') on conflict do nothing",
            (symbol, symbol, symbol),
        )
    assert row is not None
    return int(row[0])


def store(
    db: Conn,
    set_id: int,
    symbol: str,
    start: datetime,
    values: NDArray[np.float64],
    target: NDArray[np.float64] | None = None,
) -> datetime:
    """Stores vectors minute by minute, and what came of each; the time after the last."""
    with db.cursor().copy("copy feature.vectors (set_id, symbol, ts, values) from stdin") as copy:
        for i, row in enumerate(values):
            copy.write_row((set_id, symbol, start + i * MINUTE, row.tolist()))
    if target is not None:
        with db.cursor().copy("copy public.toy_rows from stdin") as copy:
            for i, y in enumerate(target):
                copy.write_row((symbol, start + i * MINUTE, float(y)))
    stop = start + len(values) * MINUTE
    db.execute(
        "insert into feature.watermarks (set_id, symbol, since, through) values (%s, %s, %s, %s)"
        " on conflict (set_id, symbol) do update set"
        " through = greatest(watermarks.through, excluded.through),"
        " since = least(watermarks.since, excluded.since)",
        (set_id, symbol, start, stop),
    )
    return stop


def booster(x: NDArray[np.float64], y: NDArray[np.float64], seed: int = 1) -> str:
    """LightGBM's text model of a quick fit."""
    fitted = lightgbm.train(
        {"objective": "binary", "num_leaves": 8, "verbose": -1, "num_threads": 1, "seed": seed},
        lightgbm.Dataset(x, y),
        40,
    )
    return str(fitted.model_to_string())


def register(
    db: Conn,
    text: str,
    symbol: str | None,
    train_from: datetime,
    train_to: datetime,
    model: str = "toy",
    **metrics: Any,
) -> int:
    """Registers a version."""
    artifact = text.encode()
    found = db.execute("select features from feature.sets where name = 'toy'").fetchone()
    assert found is not None
    version = {
        "algorithm": "lightgbm", "format": "lightgbm", "features": found[0],
        "spec": {"inputs": {}}, "metrics": {"auc": 0.7, "auc_low": 0.6, "ece": 0.01, "log_loss": 0.5,
        "baseline": {"log_loss": 0.7}, **metrics},
        "train_from": train_from.isoformat(), "train_to": train_to.isoformat(),
        "as_of": (train_to + 4 * MINUTE).isoformat(), "row_count": 1,
        "training_sha256": "00", "library_versions": {}, "code_version": "test",
    }  # fmt: skip
    row = db.execute(
        "select ml.register_version(%s, %s, %s, %s, %s)",
        (model, symbol, artifact, hashlib.sha256(artifact).digest(), Jsonb(version)),
    ).fetchone()
    assert row is not None
    return int(row[0])
