"""Every function and view of analytics and back-tests, asked badly, of nothing, and late."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.db import serving
from tests.db.analytics.test_analytics import VIEWS, fill

Conn = psycopg.Connection[Any]
START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
FUNCTIONS = (
    "select n.nspname || '.' || p.proname, p.prokind::text,"
    " coalesce(p.proargnames[1:p.pronargs], '{}'),"
    " array(select format_type(t.oid, null) from unnest(p.proargtypes::oid[]) with ordinality"
    " u (oid, i) join pg_type t on t.oid = u.oid order by u.i)"
    " from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
    " where n.nspname in ('analytics', 'backtest') and p.proname !~ '^_'"
    " and p.prorettype <> 'trigger'::regtype and p.prokind in ('f', 'p') order by 1"
)


def functions(db: Conn) -> list[tuple[str, str, list[str], list[str]]]:
    found = db.execute(FUNCTIONS).fetchall()
    assert len(found) >= 29
    return found


def asked(db: Conn, name: str, kind: str, given: dict[str, str]) -> str | int | None:
    """The SQLSTATE of a call, else how many rows it answered with; an error of ours has a hint."""
    arguments = ", ".join(f'"{key}" => {value}' for key, value in given.items())
    call = f"call {name}({arguments})" if kind == "p" else f"select * from {name}({arguments})"
    try:
        answered = db.execute(call.encode())
    except psycopg.Error as error:
        assert error.sqlstate is not None and error.sqlstate.startswith("AP"), f"{call}: {error}"
        assert error.diag.message_hint, f"{call}: no hint"
        return error.sqlstate
    return answered.rowcount if kind == "f" else None


def installed(db: Conn, bars: int) -> None:
    """An instrument with so many bars and nothing else."""
    db.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('AAA', 'test', 'AAA', 'AAA', 'USDT')"
    )
    db.execute(
        "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
        " select 'AAA', '1 hour', t, t + interval '1 hour', 1, 1, 1, 1, 1"
        " from generate_series(%s, %s::timestamptz + (%s - 1) * interval '1 hour', interval '1 hour') t",
        (START, START, bars),
    )


@pytest.mark.parametrize("bars", [None, 0, 1, 30])
def test_every_function_of_nothing_and_with_nulls(db: Conn, bars: int | None) -> None:
    """No rows, one row, some: with nothing given, nulls, unknown names: an answer, or why not."""
    if bars is not None:
        installed(db, bars)
    for name, kind, names, types in functions(db):
        given = dict(zip(names, types, strict=True))
        nulls = {key: f"null::{value}" for key, value in given.items()}
        asked(db, name, kind, nulls)
        for key, type_ in given.items():
            if type_ == "text" and key in ("symbol", "model", "strategy", "family", "feature_set"):
                if name in ("analytics.register_tile", "backtest.create_strategy"):
                    continue
                code = asked(db, name, kind, {**nulls, key: "'what'"})
                # Refused, or nothing is known of it: never somebody else's rows.
                assert code == 0 or isinstance(code, str), f"{name}({key} => 'what') answers"
            elif type_ == "timestamp with time zone" and key == "as_of":
                some = {**nulls, "symbol": "'AAA'"} if "symbol" in given else nulls
                for wrong in ("infinity", "-infinity"):
                    code = asked(db, name, kind, {**some, key: f"'{wrong}'"})
                    assert code == 0 or isinstance(code, str), f"{name}(as_of => {wrong}) answers"
            elif type_ in ("integer", "bigint", "double precision"):
                for wrong in ("-1", "0", "2147483647"):
                    asked(db, name, kind, {**nulls, key: f"({wrong})::{type_}"})
        if bars is not None and "symbol" in given:
            at = {"as_of": f"'{START + HOUR}'"} if "as_of" in given else {}
            if name != "analytics.event_study":
                code = asked(db, name, kind, {"symbol": "'AAA'", **at})
                assert not isinstance(code, str), (name, code)
    for view in VIEWS:
        db.execute(f"select * from analytics.{view}".encode()).fetchall()


def bars_of(db: Conn, rng: Any, start: int, stop: int, late: bool) -> None:
    """Bars of minutes with both sides, those of a tenth late; liquidations and trades among them."""
    with db.cursor() as cursor:
        price = 100 * np.exp(np.cumsum(rng.normal(0, 0.001, stop - start)))
        cursor.executemany(
            "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
            " volume, taker_buy_volume) values ('AAA', '1 min', %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    START + dt.timedelta(minutes=i),
                    START + dt.timedelta(minutes=i + 1 + (200 if late and rng.random() < 0.1 else 0)),
                    p, p * 1.001, p * 0.999, p * 1.0005, v, v * rng.random(),
                )
                for i, p, v in zip(range(start, stop), price.tolist(), rng.lognormal(0, 1, stop - start).tolist(), strict=True)
            ],
        )  # fmt: skip
        cursor.executemany(
            "insert into market.liquidation_events (symbol, ts, event_id, known_at, side, price,"
            " size, notional) values ('AAA', %s, %s, %s, %s, %s, 1, %s)",
            [
                (
                    START + dt.timedelta(minutes=i), f"l{i}", START + dt.timedelta(minutes=i, seconds=5),
                    "buy" if rng.random() < 0.5 else "sell", p, p,
                )
                for i, p in zip(range(start, stop, 7), price[::7].tolist(), strict=True)
            ],
        )  # fmt: skip


def checks_of(db: Conn, version: int, times: list[dt.datetime]) -> None:
    for at in times:
        db.execute(
            "with c as (insert into drift.checks (version_id, model, ts_from, ts_to, row_count,"
            " features, drifted, score, severity, at) values (%s, 'fixed', %s, %s, 10, 1, 1, 1, 'low', %s)"
            " returning check_id) insert into drift.details (check_id, feature, kind, n, drifted)"
            " select check_id, 'x0', 'feature', 10, true from c",
            (version, at - HOUR, at, at),
        )


def same(after: list[Any], before: list[Any], call: str) -> None:
    """Equal but for the order in which numbers were added up."""
    assert len(after) == len(before), call
    for a, b in zip(after, before, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x == (pytest.approx(y, rel=1e-12) if isinstance(y, float) else y), (call, a, b)


@settings(
    max_examples=2, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(seed=st.integers(0, 10_000))
def test_what_comes_later_changes_no_answer_of_then(db: Conn, seed: int) -> None:
    """Every function that has as_of: rows, corrections and outcomes known later leave it as it was."""
    rng = np.random.default_rng(seed)
    with db.transaction(force_rollback=True):
        serving.install(db)
        db.execute("delete from market.candles")
        version = serving.register(db, serving.train(*serving.synthetic()), promote=True)
        db.execute("set local session_replication_role = replica")  # it is append-only
        db.execute("update ml.alias_history set at = %s", (START - HOUR,))
        db.execute("set local session_replication_role = origin")
        bars_of(db, rng, 0, 900, late=True)
        fill(db, seed, 200)
        as_of = START + dt.timedelta(hours=13, minutes=int(rng.integers(0, 60)))
        checks_of(db, version, [as_of - 3 * HOUR, as_of - HOUR])
        calls = []
        for name, kind, names, _ in functions(db):
            if "as_of" not in names or kind == "p" or name.startswith("backtest."):
                continue
            if name == "analytics.event_study":
                continue  # tests/db/test_live_rules.py
            symbol = (
                "symbol => 'AAA', "
                if "symbol" in names and name != "analytics.feature_quality"
                else ""
            )
            calls.append(f"select * from {name}({symbol}as_of => '{as_of}')")
        assert len(calls) >= 13
        before = {call: db.execute(call.encode()).fetchall() for call in calls}
        filled = [call for call in calls if before[call]]
        assert len(filled) >= 9, set(calls) - set(filled)
        # Later: more of everything, and corrections of what there was.
        bars_of(db, rng, 900, 1000, late=False)
        later = as_of + HOUR
        db.execute(
            "update market.candles set close = close * 2, high = high * 2, known_at = %s"
            " where ts < %s and extract(minute from ts) in (1, 17, 40)",
            (later, as_of - HOUR),
        )
        db.execute(
            "update market.liquidation_events set notional = notional * 3, known_at = %s"
            " where extract(minute from ts) < 20 and ts < %s",
            (later, as_of - HOUR),
        )
        db.execute(
            "insert into ml.predictions (as_of, created_at, model, symbol, horizon, prediction,"
            " probability, version_id, details) select as_of, %s, model, symbol, horizon, prediction,"
            " probability, version_id, details from ml.predictions",
            (later,),
        )
        db.execute(
            "update ml.predictions set outcome = 1, outcome_known_at = %s where outcome is null",
            (later,),
        )
        checks_of(db, version, [later])
        db.execute("call analytics.refresh(%s)", (later,))
        for call in calls:
            same(db.execute(call.encode()).fetchall(), before[call], call)


def test_an_outcome_that_is_corrected_was_what_was_shown(db: Conn) -> None:
    """As of then the outcome that was known then; from the correction on the right one."""
    serving.install(db)
    as_of = START
    db.execute(
        "insert into ml.predictions (as_of, created_at, model, symbol, horizon, prediction, probability,"
        " outcome, outcome_known_at, details) values (%s, %s, 'fixed', 'AAA', '5 min', 0.9, 0.9, 0, %s, %s)",
        (as_of, as_of, as_of + HOUR, Jsonb({})),
    )
    query = "select outcomes, log_loss from analytics.inference('fixed', as_of => %s)"
    wrong, right = -np.log(0.1), -np.log(0.9)
    db.execute("call analytics.refresh(%s)", (as_of + 2 * HOUR,))
    assert db.execute(query, (as_of + 2 * HOUR,)).fetchone() == pytest.approx((1, wrong))
    db.execute("update ml.predictions set outcome = 1, outcome_known_at = %s", (as_of + 5 * HOUR,))
    for _ in range(2):
        assert db.execute(query, (as_of + HOUR / 2,)).fetchone() == (0, None)
        assert db.execute(query, (as_of + 2 * HOUR,)).fetchone() == pytest.approx((1, wrong))
        assert db.execute(query, (as_of + 6 * HOUR,)).fetchone() == pytest.approx((1, right))
        db.execute("call analytics.refresh(%s)", (as_of + 7 * HOUR,))
