"""A world for the tests of serving: the real example data of LightGBM as stored vectors."""

from __future__ import annotations

import datetime as dt
from typing import Any

import lightgbm
import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from tests.db.toy_labels import unchecked

Conn = psycopg.Connection[Any]
Array = NDArray[np.float64]
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
WIDTH = 28
NAMES = [f"x{i}" for i in range(WIDTH)]


def at(minutes: int) -> dt.datetime:
    return START + dt.timedelta(minutes=minutes)


def train(x: Array, y: Array, trees: int = 60, seed: int = 1, **params: Any) -> lightgbm.Booster:
    return lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_threads": 1, "seed": seed, **params},
        lightgbm.Dataset(x, y),
        trees,
    )


def synthetic(rows: int = 500, seed: int = 1) -> tuple[Array, Array]:
    """Rows like the example data's, for machines without it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, WIDTH))
    x[rng.random(x.shape) < 0.05] = np.nan
    y = (rng.random(rows) < 1 / (1 + np.exp(-np.nan_to_num(x[:, 0] + x[:, 1] * x[:, 2])))).astype(
        float
    )
    return x, y


def install(db: Conn) -> None:
    """Two symbols with bars, a feature set of 28 columns, a class and a value to predict."""
    db.execute("set client_min_messages = warning")
    for symbol in ("AAA", "BBB"):
        db.execute(
            "insert into market.instruments (symbol, exchange, native_symbol, base, quote, aliases)"
            " values (%s, 'test', %s, %s, 'USDT', array[%s])",
            (symbol, symbol, symbol, f"{symbol}/USDT"),
        )
        db.execute(
            "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
            " select %s, interval '1 minute', t, t + interval '1 minute', 1, 1, 1, 1, 1"
            " from generate_series(%s::timestamptz, %s, interval '1 minute') t",
            (symbol, at(-1), at(600)),
        )
    db.execute(
        "insert into feature.sets (name, features, definition, kind, lookback, sha256)"
        " values ('fixed', %s, 'fixed', 'builtin', '0', sha256('fixed'))",
        (NAMES,),
    )
    with unchecked(db):
        db.execute(
            "insert into ml.labels (label, task, kind, horizon, description) values"
            " ('fixed', 'classification', 'fixed', '5 min', 'fixed'),"
            " ('fixed_value', 'regression', 'fixed', '5 min', 'fixed')"
        )
    db.execute(
        "insert into ml.models (model, label, feature_set, feature_version)"
        " values ('fixed', 'fixed', 'fixed', 1), ('fixed_value', 'fixed_value', 'fixed', 1)"
    )


def store(db: Conn, x: Array, symbol: str = "AAA", feature_set: str = "fixed") -> None:
    """Rows as the stored vectors of a symbol, one a minute from START."""
    found = db.execute("select set_id from feature.sets where name = %s", (feature_set,)).fetchone()
    assert found is not None
    db.execute("delete from feature.vectors where symbol = %s and set_id = %s", (symbol, found[0]))
    with (
        db.cursor() as cursor,
        cursor.copy("copy feature.vectors (set_id, symbol, ts, values) from stdin") as copy,
    ):
        for i, values in enumerate(x):
            copy.write_row((found[0], symbol, at(i), values.tolist()))


def register(
    db: Conn,
    artifact: bytes | lightgbm.Booster,
    model: str = "fixed",
    symbol: str | None = None,
    regime: str | None = None,
    features: list[str] | None = None,
    promote: bool = False,
    **changes: Any,
) -> int:
    """Register a version, and promote it where asked; its id."""
    content = artifact if isinstance(artifact, bytes) else artifact.model_to_string().encode()
    version = {
        "algorithm": "lightgbm",
        "format": "lightgbm",
        "features": features or NAMES,
        "spec": {
            "output": {"kind": "log_odds"},
            "inputs": {"kind": "row", "features": len(features or NAMES)},
        },
        "metrics": {},
        "train_from": at(-10).isoformat(),
        "train_to": at(0).isoformat(),
        "as_of": at(0).isoformat(),
        "row_count": 1,
        "training_sha256": "00",
        "library_versions": {},
        "code_version": "test",
        **changes,
    }
    row = db.execute(
        "select ml.register_version(%s, %s, %s, sha256(%s), %s, %s)",
        (model, symbol, content, content, Jsonb(version), regime),
    ).fetchone()
    assert row is not None
    if promote:
        db.execute("call ml.promote(%s, 'test', true)", (row[0],))
    return int(row[0])


def one(db: Conn, query: str, *params: Any) -> Any:
    """The first column of the only row."""
    row = db.execute(query, params or None).fetchone()
    assert row is not None
    return row[0]


def named(db: Conn, query: str, *params: Any) -> Any:
    """The only row, as a named tuple."""
    with db.cursor(row_factory=psycopg.rows.namedtuple_row) as cursor:
        row = cursor.execute(query, params).fetchone()
        assert row is not None
        return row


def sigmoid(raw: Array) -> Array:
    return 1 / (1 + np.exp(-raw))
