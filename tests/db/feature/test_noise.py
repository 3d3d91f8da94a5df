"""Noise filtering of training sets: what is dropped, why, and that it is counted."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import numpy as np
import psycopg
import pytest
from alphaplus.trainer.job import run_next

from tests.conftest import Server

START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
END = START + dt.timedelta(minutes=2000)
MINUTE = dt.timedelta(minutes=1)


@pytest.fixture(scope="module")
def market(db_module: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    db = db_module
    db.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('AAA', 'test', 'AAA', 'A', 'USD')"
    )
    db.execute(
        "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
        " select 'AAA', '1 minute', %s::timestamptz + i * interval '1 minute',"
        " %s::timestamptz + (i + 1) * interval '1 minute', p,"
        " p * case i when 1000 then 1.3 when 1200 then 1.2 else 1.0004 end, p * 0.9996,"
        " p * case i when 1200 then 1.2 else 1 end, case i when 1100 then 0 else 10 + i %% 7 end"
        " from (select i, 100 + sin(i / 50.0) + (i * 7919 %% 100) / 3000.0 as p"
        " from generate_series(0, 1999) i) x where i <> 1500",
        (START, START),
    )
    db.execute("call market.refresh_aggregates()")
    return db


def test_the_mask_names_what_it_drops_and_the_counts_agree(
    market: psycopg.Connection[Any],
) -> None:
    rows = market.execute(
        "select ts, reasons from feature.noise_mask('AAA', %s, %s)",
        (START + 100 * MINUTE, END),
    ).fetchall()
    found = {round((ts - START) / MINUTE): set(reasons) for ts, reasons in rows}
    assert "bad_tick" in found[1001] and found[1101] == {"volume"}
    assert "hampel" in found[1201] and "hampel" in found[1202]  # there and back
    assert found[1501] == {"gap"}
    assert len(found) < 20
    counts = dict(
        market.execute(
            "select reason, dropped from feature.noise_counts('AAA', %s, %s)",
            (START + 100 * MINUTE, END),
        ).fetchall()
    )
    assert list(counts) == ["hampel", "bad_tick", "volume", "spread", "gap", "any"]
    for reason, count in counts.items():
        dropped = [reasons for reasons in found.values() if reason in (*reasons, "any")]
        assert count == len(dropped)
    assert counts["spread"] == 0, "what dropped nothing is counted too"
    with pytest.raises(psycopg.Error) as error:
        market.execute("select * from feature.noise_mask('AAA', now(), now(), '{\"x\": 1}')")
    assert error.value.sqlstate == "AP220"


@pytest.mark.parametrize(("low", "high"), [(1490.5, 1510.0), (1500.9, 1501.1), (1500.2, 1500.8)])
def test_shares_are_of_the_grid_times_in_the_span(
    market: psycopg.Connection[Any], low: float, high: float
) -> None:
    share = market.execute(
        "select dropped, share from feature.noise_counts('AAA', %s, %s) where reason = 'gap'",
        (START + low * MINUTE, START + high * MINUTE),
    ).fetchone()
    times = int(np.ceil(high) - np.ceil(low))
    assert share == ((1, 1 / times) if times else (0, None))


def test_a_model_s_wrong_filter_is_refused_with_words(market: psycopg.Connection[Any]) -> None:
    with market.transaction(force_rollback=True):
        market.execute(
            'update ml.models set training = training || \'{"noise": {"windw": 5}}\''
            " where model = 'direction_15m'"
        )
        with pytest.raises(psycopg.Error) as error, market.transaction():
            market.execute(
                "select n from ml.training_matrix('direction_15m', 'AAA', %s)", (END,)
            ).fetchall()
        assert error.value.sqlstate == "AP220"
        assert "windw" in str(error.value)


def test_a_model_may_ask_for_a_filtered_training_set(market: psycopg.Connection[Any]) -> None:
    def times() -> set[Any]:
        return {
            row[0]
            for row in market.execute(
                "select ts from ml.training_set('direction_15m', 'AAA', %s, %s)",
                (END, START + 100 * MINUTE),
            )
        }

    whole = times()
    market.execute(
        "update ml.models set training = training || '{\"noise\": {}}' where model = 'direction_15m'"
    )
    dropped = {
        row[0]
        for row in market.execute(
            "select ts from feature.noise_mask('AAA', %s, %s)", (START + 100 * MINUTE, END)
        )
    }
    filtered = times()
    assert dropped & whole
    assert filtered == whole - dropped


def test_what_was_dropped_is_with_the_job_and_the_version(
    market: psycopg.Connection[Any], server: Server
) -> None:
    market.execute(
        "update ml.models set training = training || %s where model = 'direction_15m'",
        ('{"noise": {"hampel_sigmas": 6}, "baselines": false, "folds": 2}',),
    )
    market.execute("call ml.retrain('direction_15m', 'AAA')")
    (job_id,) = market.execute("select max(job_id) from ml.training_jobs").fetchone() or (0,)
    as_trainer = server.conninfo(market.info.dbname, "alphaplus_trainer")
    version = run_next(as_trainer, threads=1, shutdown=threading.Event())
    (details,) = market.execute(
        "select details from ml.training_jobs where job_id = %s", (job_id,)
    ).fetchone() or ({},)
    found = market.execute(
        "select metrics -> 'noise', row_count, as_of from ml.model_versions where version_id = %s",
        (version,),
    ).fetchone()
    assert found is not None
    noise, count, as_of = found
    assert details["noise"] == noise["dropped"]
    assert noise["rows"] == count + noise["dropped"]["any"]
    market.execute(
        "update ml.models set training = training - 'noise' where model = 'direction_15m'"
    )
    whole = {
        row[0]
        for row in market.execute(
            "select ts from ml.training_set('direction_15m', 'AAA', %s)", (as_of,)
        )
    }
    masked = [
        (ts, reasons)
        for ts, reasons in market.execute(
            "select ts, reasons from feature.noise_mask('AAA', %s, %s, '{\"hampel_sigmas\": 6}')",
            (START, END),
        )
        if ts in whole
    ]
    assert len(whole) == noise["rows"]
    assert noise["dropped"] == {
        "any": len(masked),
        **{
            reason: sum(reason in reasons for _, reasons in masked)
            for reason in ("hampel", "bad_tick", "volume", "spread", "gap")
        },
    }
    assert noise["dropped"]["any"] > 2
