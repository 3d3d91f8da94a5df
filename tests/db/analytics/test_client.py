"""alphaplus.client: what it gives is what the database's own functions give, row by row."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import alphaplus.client as ap
import numpy as np
import pandas as pd
import psycopg
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from alphaplus.client import columns
from psycopg import conninfo as pqconn
from psycopg.types.json import Jsonb
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import cross_val_score

from tests.conftest import Server
from tests.db import lifecycle
from tests.db import market_data as market

Conn = psycopg.Connection[Any]
MODEL, MINUTES = "event_5m", 700
END = market.at(MINUTES)


@dataclass
class World:
    db: Conn
    client: ap.Client
    version: int
    env: dict[str, str]


@pytest.fixture(scope="module")
def world(db_module: Conn, server: Server) -> Iterator[World]:
    """Two symbols of some hours, a model, one version, and predictions of it."""
    db = db_module
    for symbol, seed in (("AAAUSDT", 1), ("BBBUSDT", 2)):
        market.fill(db, symbol, MINUTES, seed=seed)
    db.execute("call market.refresh_aggregates()")
    db.execute(
        "insert into ml.labels (label, task, kind, horizon, params, description)"
        " values (%s, 'classification', 'liquidation', '5 min', %s, 'test')",
        (MODEL, Jsonb({"quantile": 0.6, "lookback_days": 0.1})),
    )
    db.execute(
        "insert into ml.models (model, label, feature_set, feature_version)"
        " values (%s, %s, 'liquidation', 3)",
        (MODEL, MODEL),
    )
    db.execute(
        "call ml.retrain(%s, 'AAAUSDT', as_of => %s, options => %s)",
        (MODEL, END, Jsonb({"params": {"rounds": 5}, "folds": 2, "min_rows": 100, "baselines": False})),
    )  # fmt: skip
    lifecycle.train_all(server.conninfo(db.info.dbname, "alphaplus_trainer"))
    row = db.execute("select version_id from ml.model_versions").fetchone()
    assert row is not None, db.execute("select error from ml.training_jobs").fetchall()
    db.execute("call ml.promote(%s, 'test', true)", (row[0],))
    for minute in range(400, 520, 10):
        for symbol in ("AAAUSDT", "BBBUSDT"):  # nobody serves the second: its base rate answers
            db.execute(
                "select ml.record_prediction(%s, %s, %s)", (MODEL, symbol, market.at(minute))
            )
    db.execute("call ml.join_outcomes(%s)", (market.at(480),))
    conninfo = server.conninfo(db.info.dbname, "alphaplus_reader")
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD",
             "dbname": "PGDATABASE", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "DATABASE", "ALPHA"))}
    env |= {names[k]: str(v) for k, v in pqconn.conninfo_to_dict(conninfo).items() if k in names}
    with ap.connect(conninfo) as client:
        yield World(db, client, row[0], env)


def by_rows(world: World, symbol: str | None, *span: Any) -> pd.DataFrame:
    """ml.training_set by psycopg, a Python object a value."""
    (names,) = (
        world.db.execute("select features from feature.sets where name = 'liquidation'").fetchone()
        or ()
    )
    found = world.db.execute(
        "select t.symbol, ts, label_end, features, target from ml.training_set(%s, %s, %s, %s, %s) t"
        " order by ts, 1", (MODEL, symbol, END, *(span or (None, None))),
    ).fetchall()  # fmt: skip
    return pd.DataFrame(
        [[a, b, c, *(np.nan if v is None else v for v in x), y] for a, b, c, x, y in found],
        columns=["symbol", "ts", "label_end", *names, "target"],
    )


def same(got: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert list(got.columns) == list(expected.columns)
    pd.testing.assert_frame_equal(
        got.assign(symbol=got["symbol"].astype(object)), expected, check_dtype=False
    )


@pytest.mark.parametrize("symbol", ["AAAUSDT", "BBB/USDT", None])
def test_training_set(world: World, symbol: str | None) -> None:
    got = world.client.training_set(MODEL, symbol, END)
    assert len(got) > 300
    same(got, by_rows(world, symbol))
    assert got.attrs["as_of"] == str(END)


def test_training_set_in_slices_is_the_same(world: World) -> None:
    parts = list(world.client.training_slices(MODEL, None, END, slice_bytes=20_000))
    assert len(parts) > 5
    same(pd.concat(parts, ignore_index=True), by_rows(world, None))
    assert all(list(p["symbol"].cat.categories) == ["AAAUSDT", "BBBUSDT"] for p in parts)
    span = (market.at(200), market.at(260))
    same(world.client.training_set(MODEL, "AAAUSDT", END, *span), by_rows(world, "AAAUSDT", *span))
    nothing = world.client.training_set(MODEL, "AAAUSDT", END, market.at(9000), market.at(9001))
    assert (
        len(nothing) == 0 and "target" in nothing and nothing["ts"].dtype == "datetime64[us, UTC]"
    )


def test_slices_are_of_one_snapshot(world: World, connect_as: Callable[[str, str], Conn]) -> None:
    """What commits between two slices is in none of them."""
    slices = world.client.training_slices(MODEL, "AAAUSDT", END, slice_bytes=20_000)
    first = next(slices)
    other = connect_as("alphaplus_operator", world.db.info.dbname)
    before = by_rows(world, "AAAUSDT")
    other.execute(
        "delete from market.trades where symbol = 'AAAUSDT' and ts >= %s", (market.at(500),)
    )
    try:
        rest = list(slices)
        same(pd.concat([first, *rest], ignore_index=True), before)
        assert not by_rows(world, "AAAUSDT").equals(before)
    finally:
        market.fill(world.db, "CCCUSDT", 1)  # nothing of AAAUSDT: its rows come back below
        world.db.execute(
            "insert into market.trades select (jsonb_populate_record(null::market.trades,"
            " to_jsonb(h))).* from market.trades_history h where h.symbol = 'AAAUSDT'"
        )


def test_folds(world: World) -> None:
    folds = world.client.folds(MODEL, "AAAUSDT", END, 3)
    expected = world.db.execute(
        "select * from ml.folds(%s, 'AAAUSDT', %s, 3) order by fold", (MODEL, END)
    ).fetchall()
    assert [tuple(row) for row in folds.itertuples(index=False)] == expected
    rows = world.client.training_set(MODEL, "AAAUSDT", END)
    cut = list(ap.split(rows, folds))
    assert len(cut) == len(expected) >= 2
    for train, test in cut:
        assert len(train) and len(test)
        assert rows["label_end"].iloc[train].max() < rows["ts"].iloc[test].min()
    number = ap.fold_of(rows, folds)
    assert [(number == i + 1).sum() for i in range(len(cut))] == [len(test) for _, test in cut]
    x = rows.drop(columns=["symbol", "ts", "label_end", "target"])
    assert len(cross_val_score(DummyClassifier(), x, rows["target"], cv=cut)) == len(cut)


def test_vectors(world: World) -> None:
    got = world.client.vectors("liquidation", None, market.at(100), market.at(130))
    assert set(got["symbol"]) >= {"AAAUSDT", "BBBUSDT"}
    for symbol, ts in (("AAAUSDT", market.at(100)), ("BBBUSDT", market.at(129))):
        row = got[(got["symbol"] == symbol) & (got["ts"] == ts)].drop(columns=["symbol", "ts"])
        expected = world.db.execute(
            "select feature.vector('liquidation', %s, %s)", (symbol, ts)
        ).fetchone()
        assert expected is not None
        np.testing.assert_array_equal(
            row.to_numpy()[0], np.array([np.nan if v is None else v for v in expected[0]], float)
        )
    one = world.client.vectors("liquidation", "AAAUSDT", market.at(100), market.at(130))
    assert len(one) == 30 and list(one.columns)[2:] == list(got.columns)[2:]
    empty = world.client.vectors("liquidation", "AAAUSDT", market.at(90000), market.at(90001))
    assert len(empty) == 0


def test_out_of_fold_and_metrics(world: World) -> None:
    got = world.client.out_of_fold(world.version)
    expected = world.db.execute(
        "select * from ml.out_of_fold(%s) order by ts, symbol", (world.version,)
    ).fetchall()
    assert [tuple(row) for row in got.itertuples(index=False)] == expected
    (loss,) = (
        world.db.execute(
            "select (metrics ->> 'log_loss')::float8 from ml.model_versions"
        ).fetchone()
        or ()
    )
    p = got["prediction"].clip(1e-6, 1 - 1e-6)
    own = -np.mean(np.where(got["target"] > 0, np.log(p), np.log1p(-p)))
    assert own == pytest.approx(loss, rel=1e-9)


def test_predictions(world: World) -> None:
    got = world.client.predictions(MODEL)
    expected = world.db.execute(
        "select as_of, symbol, version_id, prediction, is_fallback, outcome, outcome_at, regime"
        " from ml.predictions order by as_of, symbol, prediction_id"
    ).fetchall()
    assert len(got) == len(expected) == 24
    for row, line in zip(got.itertuples(), expected, strict=True):
        assert (row.as_of, row.symbol) == line[:2]
        assert (None if row.version_id is pd.NA else row.version_id) == line[2]
        assert row.prediction == line[3] and row.is_fallback == line[4]
        assert (None if np.isnan(row.outcome) else row.outcome) == line[5]
        assert (None if pd.isna(row.outcome_at) else row.outcome_at) == line[6]
        assert (None if pd.isna(row.regime) else row.regime) == line[7]
    assert got["outcome"].isna().any() and got["outcome"].notna().any()
    some = world.client.predictions(MODEL, "AAA/USDT", market.at(410), market.at(430))
    assert list(some["as_of"]) == [market.at(410), market.at(420)]
    assert world.client.predictions("none").empty


def test_texts_of_any_length_and_nulls(world: World) -> None:
    words = ["a", None, "ü" * 40, "x" * 500, "", "a"]
    world.db.execute("create temporary table words (i int, word text, at timestamptz, n bigint)")
    for i, word in enumerate(words):
        world.db.execute(
            "insert into words values (%s, %s, %s, %s)",
            (i, word, [None, market.at(1), "infinity"][i % 3], [None, 2**60][i % 2]),
        )
    got = columns.frame(
        world.db,
        (
            columns.Column("word", "word", "text"),
            columns.Column("at", "at", "time"),
            columns.Column("n", "n", "integer"),
            columns.Column("big", "i > %(big)s", "flag"),
        ),
        "from words order by i",
        {"big": 3},
    )
    assert [None if pd.isna(w) else w for w in got["word"]] == [w or None for w in words]
    assert list(got["at"].isna()) == [True, False, True] * 2 and got["at"][1] == market.at(1)
    assert [None if v is pd.NA else v for v in got["n"]] == [None, 2**60] * 3
    assert list(got["big"]) == [False] * 4 + [True] * 2


@pytest.mark.parametrize("ending", ["parquet", "feather", "csv"])
def test_dataset(world: World, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"set.{ending}"
    done = subprocess.run(
        [sys.executable, "-m", "alphaplus.cli.main", "dataset", MODEL, "--symbol", "AAA/USDT",
         "--out", str(out), "--as-of", END.isoformat(), "--folds", "2"],
        env=world.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    readers = {
        "parquet": pq.read_table, "feather": pyarrow.feather.read_table,
        "csv": pyarrow.csv.read_csv,
    }  # fmt: skip
    table = readers[ending](out)
    expected = by_rows(world, "AAAUSDT")
    got = table.to_pandas()
    assert f"{len(expected):,} rows" in done.stdout
    assert set(got["fold"]) == {0, 1, 2}
    same(got.drop(columns="fold").assign(symbol=got["symbol"].astype(str)), expected)
    if ending != "csv":
        about = json.loads(table.schema.metadata[b"alphaplus"])
        assert about["model"] == MODEL and len(about["folds"]) == 2
        assert dt.datetime.fromisoformat(about["as_of"]) == END
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none", "--out", "x.parquet"], "unknown model"),
        ([MODEL, "--out", "x.xlsx"], "the ending says the format"),
        ([MODEL, "--symbol", "NONE", "--out", "x.parquet"], "AP101"),
        ([MODEL, "--out", "no/such/folder/x.parquet"], "No such file"),
        ([MODEL, "--as-of", "yesterday evening", "--out", "x.parquet"], "invalid input syntax"),
    ],
)  # fmt: skip
def test_dataset_says_what_is_wrong(
    world: World, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alphaplus.cli.main", "dataset", *arguments],
        env=world.env, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert words in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_page_names_every_call() -> None:
    page = (lifecycle.ROOT / "docs" / "client.md").read_text()
    calls = {name for name in vars(ap.Client) if not name.startswith("_")} - {"model", "now"}
    assert {name for name in calls if f"`{name}(" not in page} == set()
