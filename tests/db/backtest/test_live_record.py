"""A back-test over a time that was also traded live on paper does the same, trade by trade."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.db import serving
from tests.db.backtest.test_backtest import END, START, market, predictions, strategy

Conn = psycopg.Connection[Any]


@pytest.fixture
def world(db: Conn) -> Conn:
    serving.install(db)
    return db


def live(db: Conn, name: str, times: list[dt.datetime]) -> None:
    for at in times:
        db.execute("call backtest.step(%s)", (at,))


def rule(rng: Any) -> dict[str, Any]:
    low, high = sorted(rng.uniform(0.3, 0.7, 2))
    return {
        "enter_long": high, "exit_long": low, "enter_short": low * 0.9, "exit_short": high,
        "hold": f"{int(rng.integers(1, 90))} minutes" if rng.random() < 0.7 else None,
        "latency": f"{int(rng.integers(0, 60))} seconds",
        "max_wait": f"{int(rng.integers(1, 600))} seconds",
        "sizing": str(rng.choice(["fixed", "confidence", "volatility"])),
    }  # fmt: skip


@settings(
    max_examples=5, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(seed=st.integers(0, 10_000))
def test_live_equals_the_back_test(world: Conn, seed: int) -> None:
    """Random strategies, random moments of the clock, a tenth of the rows late: 0 differences."""
    rng = np.random.default_rng(seed)
    with world.transaction(force_rollback=True):
        for symbol in ("AAA", "BBB"):
            market(world, seed, symbol, 800)
            predictions(world, seed, symbol)
        strategy(world, symbols=("AAA", "BBB"), **rule(rng))
        world.execute("select backtest.follow('s', since => %s)", (START,))
        times = sorted(START + (END - START) * share for share in rng.random(25))
        live(world, "s", times)
        row = world.execute("select count(*) from backtest.live_trades").fetchone()
        assert row is not None and row[0] > 10
        assert world.execute("select * from backtest.live_differences('s')").fetchall() == []
        # Tested and lived trades are as many.
        trials = world.execute(
            "select t.trade_count, l.n from (select trades as trade_count from backtest.run('s', %s,"
            " %s, 'recorded', %s)) t, (select count(*) as n from backtest.live_trades) l",
            (START, times[-1], times[-1]),
        ).fetchone()
        assert trials is not None
        assert 0 <= trials[0] - trials[1] <= 2  # what is open in each of two symbols


def test_at_once_or_by_the_minute_is_the_same(world: Conn) -> None:
    market(world, 1, n=400)
    predictions(world, 1, n=120)
    strategy(world, "once")
    strategy(world, "often")
    for name in ("once", "often"):
        world.execute("select backtest.follow(%s, since => %s)", (name, START))
    for share in np.linspace(0, 1, 60):
        world.execute("select backtest._advance('often', %s)", (START + (END - START) * share,))
    world.execute("select backtest._advance('once', %s)", (END,))
    rows = [
        world.execute(
            "select symbol, decided_at, entered_at, exited_at, net from backtest.live_trades"
            " where strategy = %s order by 1, 2",
            (name,),
        ).fetchall()
        for name in ("once", "often")
    ]
    assert rows[0] == rows[1] and len(rows[0]) > 5


def test_a_difference_is_shown(world: Conn) -> None:
    """It can fail: a row that claims to have been known, a prediction that is gone."""
    market(world, 2, n=400)
    predictions(world, 2, n=120)
    strategy(world)
    world.execute("select backtest.follow('s', since => %s)", (START,))
    live(world, "s", [END])
    assert world.execute("select * from backtest.live_differences('s')").fetchall() == []
    first = world.execute("select min(entered_at) from backtest.live_trades").fetchone()
    assert first is not None
    world.execute("delete from market.trades where ts = %s", (first[0],))
    world.execute("delete from market.trades_history")
    shown = world.execute("select distinct what from backtest.live_differences('s')").fetchall()
    assert ("entered_at",) in shown


def test_bad_input_has_a_code_and_a_hint(world: Conn) -> None:
    strategy(world)
    world.execute("select backtest.follow('s')")
    for query, code in (
        ("select backtest.follow('what')", "AP965"),
        ("select backtest.follow(null)", "AP965"),
        ("select backtest.follow('s', 'walk-forward')", "AP980"),
        ("select backtest.follow('s', null)", "AP980"),
        ("select backtest.follow('s')", "AP981"),
        ("select backtest.follow('s', since => 'infinity')", "AP960"),
        ("select backtest.unfollow('what')", "AP982"),
        ("select * from backtest.live_differences(null)", "AP982"),
        ("call backtest.step('infinity')", "AP960"),
    ):
        with pytest.raises(psycopg.Error) as caught:
            world.execute(query.encode())
        assert caught.value.sqlstate == code and caught.value.diag.message_hint
    # Nothing to act on, and stopped.
    world.execute("call backtest.step()")
    assert world.execute("select * from backtest.live_differences('s')").fetchall() == []
    world.execute("select backtest.unfollow('s')")
    before = world.execute("select through from backtest.followed").fetchone()
    world.execute("call backtest.step()")
    assert world.execute("select through from backtest.followed").fetchone() == before
