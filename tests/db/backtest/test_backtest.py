"""Back-tests equal a plain event loop; nothing known later changes a decision."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from purgedcv import deflated_sharpe_ratio

from tests.db import serving

Conn = psycopg.Connection[Any]
START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
END = START + dt.timedelta(days=2)
FEW = settings(
    max_examples=2, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.fixture
def world(db: Conn) -> Conn:
    serving.install(db)
    return db


def seconds(values: Any) -> list[dt.datetime]:
    return [START + dt.timedelta(microseconds=round(v * 1e6)) for v in values]


def market(db: Conn, seed: int, symbol: str = "AAA", n: int = 1500) -> Any:
    """Trades at random times, a tenth of them known late; minute bars come of them; funding."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.uniform(0, 2 * 86400, n))
    known = at + np.where(rng.random(n) < 0.1, rng.exponential(120, n), rng.exponential(0.2, n))
    price = 100 * np.exp(np.cumsum(rng.normal(0, 0.0005, n)))
    frame: Any = pd.DataFrame(
        {"ts": seconds(at), "known": seconds(known), "price": price, "size": rng.lognormal(0, 1, n)}
    )
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
            " values (%s, %s, %s, %s, %s, %s, 'buy')",
            [
                (symbol, r.ts, f"{i:06d}", max(r.known, r.ts), r.price, r.size)
                for i, r in enumerate(frame.itertuples())
            ],
        )
        cursor.executemany(
            "insert into market.funding_rates (symbol, ts, known_at, rate) values (%s, %s, %s, %s)",
            [
                (symbol, START + dt.timedelta(hours=h), START + dt.timedelta(hours=h), rate)
                for h, rate in zip(range(0, 48, 4), rng.normal(0, 0.001, 12), strict=True)
            ],
        )
    return frame


def predictions(db: Conn, seed: int, symbol: str = "AAA", n: int = 250) -> Any:
    rng = np.random.default_rng(seed + 1000)
    as_of = np.sort(rng.uniform(0, 2 * 86400, n))
    known = as_of + rng.exponential(5, n)
    value = rng.random(n)
    with db.cursor() as cursor:
        cursor.executemany(
            "insert into ml.predictions (as_of, created_at, model, symbol, horizon, prediction,"
            " probability) values (%s, %s, 'fixed', %s, '5 min', %s, %s)",
            [
                (a, k, symbol, v, v)
                for a, k, v in zip(seconds(as_of), seconds(known), value.tolist(), strict=True)
            ],
        )
    frame: Any = pd.DataFrame({"known": seconds(known), "value": value})
    return frame[frame.known < END].sort_values("known", ignore_index=True)


def strategy(
    db: Conn, name: str = "s", symbols: tuple[str, ...] = ("AAA",), **changes: Any
) -> None:
    base = {
        "enter_long": 0.8, "exit_long": 0.5, "enter_short": 0.2, "exit_short": 0.5,
        "hold": "40 minutes", "latency": "2 seconds", "max_wait": "10 minutes",
    }  # fmt: skip
    db.execute(
        "select backtest.create_strategy(%s, 'fixed', %s, %s)",
        (name, list(symbols), json.dumps({**base, **changes})),
    )


def run(db: Conn, name: str = "s", as_of: dt.datetime | None = None) -> int:
    row = db.execute(
        "select trial_id from backtest.run(%s, %s, %s, as_of => %s)", (name, START, END, as_of)
    ).fetchone()
    assert row is not None
    return int(row[0])


def trades_of(db: Conn, trial: int, columns: str) -> list[tuple[Any, ...]]:
    query = f"select {columns} from backtest.trades where trial_id = %s order by trade"
    return db.execute(query.encode(), (trial,)).fetchall()


def loop(
    db: Conn, p: Any, symbol: str, rule: dict[str, Any], rows: Any = None, half: float = 1e-4
) -> Any:
    """The plain way: step through predictions, look through all rows for each fill.

    rows: ts, known, price, and half of the spread that is paid beside ``half``; None: the trades.
    """
    if rows is None:
        cursor = db.execute(
            "select ts, known_at, price, 0 from market.trades where symbol = %s order by ts",
            (symbol,),
        )
        rows = pd.DataFrame(cursor.fetchall(), columns=["ts", "known", "price", "paid"])
    cursor = db.execute("select ts, rate from market.funding_rates where symbol = %s", (symbol,))
    funding = cursor.fetchall()
    latency, wait, hold = rule["latency"], rule["max_wait"], rule["hold"]
    inside = rows[rows.known <= END]

    def fill(after: dt.datetime) -> Any:
        later = inside[inside.ts > after]
        return None if later.empty else later.loc[later.known.idxmin()]

    out = []
    free = START - dt.timedelta(days=1)
    i = 0
    while i < len(p):
        decision, value = p.known[i], p.value[i]
        side = 1 if value >= rule["enter_long"] else -1 if value <= rule["enter_short"] else 0
        entry = fill(decision + latency) if side and decision > free else None
        if entry is None or entry.ts > decision + latency + wait:
            i += 1
            continue
        over = max(entry.ts + hold, entry.known)
        leave, reason = (END, "end") if entry.ts + hold >= END else (over, "held")
        for j in range(i + 1, len(p)):
            says = p.value[j] < rule["exit_long"] if side > 0 else p.value[j] > rule["exit_short"]
            if p.known[j] > entry.known and says:
                if p.known[j] <= entry.ts + hold:
                    leave, reason = p.known[j], "prediction"
                break
        exit_ = fill(leave + latency) if leave < END else None
        if exit_ is None:
            leave, reason, exit_ = END, "end", inside[inside.ts <= END].iloc[-1]
        quantity = rule["capital"] / entry.price
        gross = side * quantity * (exit_.price - entry.price)
        fees = 5e-4 * quantity * (entry.price + exit_.price)
        spread = quantity * (half * (entry.price + exit_.price) + entry.paid + exit_.paid)
        paid = sum(
            side * quantity * rate * rows[rows.known <= ts].price.iloc[-1]
            for ts, rate in funding
            if entry.ts < ts <= exit_.ts
        )
        out.append((symbol, side, decision, entry.ts, exit_.ts, reason, gross, fees, spread, paid))
        free = exit_.known
        if reason == "end":
            break
        i += 1
    names = [
        "symbol",
        "side",
        "decided",
        "entered",
        "exited",
        "reason",
        "gross",
        "fees",
        "spread",
        "funding",
    ]
    return pd.DataFrame(out, columns=names)


RULE = {
    "enter_long": 0.8, "exit_long": 0.5, "enter_short": 0.2, "exit_short": 0.5, "capital": 1e5,
    "hold": dt.timedelta(minutes=40), "latency": dt.timedelta(seconds=2),
    "max_wait": dt.timedelta(minutes=10),
}  # fmt: skip


@FEW
@given(seed=st.integers(0, 10_000))
def test_equal_to_a_plain_loop(world: Conn, seed: int) -> None:
    with world.transaction(force_rollback=True):
        right = []
        for symbol in ("AAA", "BBB"):
            market(world, seed, symbol)
            p = predictions(world, seed, symbol)
            right.append(loop(world, p, symbol, RULE))
        strategy(world, symbols=("AAA", "BBB"))
        trial = run(world)
        got = trades_of(
            world, trial,
            "symbol, side, decided_at, entered_at, exited_at, exit_reason, gross, fees, spread,"
            " funding, impact, net",
        )  # fmt: skip
        expected: Any = pd.concat(right).sort_values(["decided", "symbol"])
        assert len(got) == len(expected) > 10
        for a, b in zip(got, expected.itertuples(index=False), strict=True):
            assert a[:6] == tuple(b)[:6]
            assert a[6:10] == pytest.approx(tuple(b)[6:], rel=1e-9, abs=1e-9)
            assert a[11] == pytest.approx(a[6] - a[7] - a[8] - a[9] - a[10], rel=1e-9, abs=1e-9)
            assert a[10] >= 0
        # All that was earned is in the curve.
        row = world.execute(
            "select equity from backtest.equity where trial_id = %s order by ts desc limit 1",
            (trial,),
        ).fetchone()
        assert row is not None
        assert row[0] - 1e5 == pytest.approx(sum(a[11] for a in got), rel=1e-9, abs=1e-6)
        returns = world.execute(
            "select returns from backtest.trials where trial_id = %s", (trial,)
        ).fetchone()
        sharpe = world.execute(
            "select value, low, high from backtest.metrics where trial_id = %s and metric = 'sharpe'",
            (trial,),
        ).fetchone()
        assert returns is not None and sharpe is not None
        r: Any = pd.Series(returns[0])
        assert sharpe[0] == pytest.approx(r.mean() / r.std() * np.sqrt(365.25 * 24), rel=1e-9)
        assert sharpe[1] < sharpe[0] < sharpe[2]


@FEW
@given(seed=st.integers(0, 10_000), share=st.floats(0.1, 0.9))
def test_nothing_known_later_changes_a_decision(world: Conn, seed: int, share: float) -> None:
    """Random strategies; rows and predictions known after a time leave all before as it was."""
    rng = np.random.default_rng(seed)
    cut = START + (END - START) * share
    columns = "symbol, side, decided_at, entered_at, entry_price, exited_at, quantity, impact"
    with world.transaction(force_rollback=True):
        market(world, seed)
        predictions(world, seed)
        low, high = sorted(rng.uniform(0.2, 0.8, 2))
        strategy(
            world, enter_long=high, exit_long=low, enter_short=low * 0.9, exit_short=high,
            hold=f"{int(rng.integers(1, 120))} minutes",
            sizing=str(rng.choice(["fixed", "confidence", "volatility"])),
        )  # fmt: skip
        before = trades_of(world, run(world), columns)
        world.execute(
            "update market.trades set price = price * 3, known_at = greatest(known_at, %s) where known_at > %s",
            (cut, cut),
        )
        world.execute(
            "update ml.predictions set prediction = 1 - prediction where created_at > %s", (cut,)
        )
        after = trades_of(world, run(world), columns)
        # What was decided, filled and closed before.
        done = [t for t in before if t[5] < cut - dt.timedelta(minutes=30)]
        assert after[: len(done)] == done


def test_as_of_reads_only_what_was_known(world: Conn) -> None:
    market(world, 1)
    predictions(world, 1)
    strategy(world)
    cut = START + dt.timedelta(days=1)
    first = trades_of(world, run(world, as_of=cut), "decided_at, entered_at, exited_at, net")
    world.execute("delete from ml.predictions where created_at > %s", (cut,))
    world.execute("delete from market.trades where known_at > %s", (cut,))
    # A row that was deleted was still met by who traded then.
    world.execute("delete from market.trades_history")
    assert trades_of(world, run(world), "decided_at, entered_at, exited_at, net") == first
    assert first


def test_every_trial_is_counted_and_the_best_is_judged(world: Conn) -> None:
    market(world, 2)
    predictions(world, 2)
    strategy(world)
    variants = [{"enter_long": x} for x in (0.6, 0.7, 0.8, 0.9)]
    rows = world.execute(
        "select trial_id, trials_in_family from backtest.run_variants('s', %s, %s, %s)",
        (json.dumps(variants), START, END),
    ).fetchall()
    assert len(rows) == 4 and {r[1] for r in rows} == {4}
    # The same again counts once.
    world.execute("select * from backtest.run('s', %s, %s)", (START, END))
    verdict = world.execute(
        "select trials, trial_id, p_value, is_real, deflated_sharpe, overfitting"
        " from backtest.verdict('fixed')"
    ).fetchone()
    assert verdict is not None
    assert verdict[0] == 4 and 0 < verdict[2] <= 1
    assert verdict[3] == (verdict[2] < 0.05)
    with pytest.raises(psycopg.Error, match="append"):
        world.execute("delete from backtest.trials")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("select * from backtest.run('what', '2026-01-01', '2026-01-02')", "AP965"),
        ("select * from backtest.run(null, '2026-01-01', '2026-01-02')", "AP965"),
        ("select * from backtest.run('s', '2026-01-02', '2026-01-01')", "AP968"),
        ("select * from backtest.run('s', null, 'infinity')", "AP968"),
        ("select * from backtest.run('s', '1000-01-01', '9999-01-02')", "AP969"),
        ("select * from backtest.run('s', '2026-01-01', '2026-01-02', 'dreams')", "AP970"),
        ("select * from backtest.run_variants('s', '{}', '2026-01-01', '2026-01-02')", "AP971"),
        ("select * from backtest.run_variants('s', '[{\"x\": 1}]', '2026-01-01', '2026-01-02')", "AP966"),
        ("select * from backtest.run_variants('s', '[{\"size\": -1}]', '2026-01-01', '2026-01-02')", "AP966"),
        ("select * from backtest.run_variants('s', '[{\"hold\": \"soon\"}]', '2026-01-01', '2026-01-02')", "AP966"),
        ("select backtest.create_strategy('t', 'what', array['AAA'], '{}')", "AP966"),
        ("select backtest.create_strategy('t', 'fixed', array['what'], '{\"enter_long\": 1, \"hold\": \"1 h\"}')", "AP101"),
        ("select backtest.create_strategy('t', 'fixed', array['AAA'], '{}')", "AP966"),
        ("select backtest.create_strategy('t', 'fixed', array['AAA'], '{\"enter_long\": \"NaN\", \"hold\": \"1 h\"}')", "AP966"),
        ("select backtest.create_strategy('s', 'fixed', array['AAA'], '{\"enter_long\": 1, \"hold\": \"1 h\"}')", "AP967"),
        ("select * from backtest.verdict('fixed')", "AP972"),
        ("select * from backtest.verdict('fixed', alpha => 2)", "AP973"),
    ],
)  # fmt: skip
def test_bad_input_has_a_code_and_a_hint(world: Conn, query: str, code: str) -> None:
    strategy(world)
    with pytest.raises(psycopg.Error) as caught:
        world.execute(query.encode())
    assert caught.value.sqlstate == code
    assert caught.value.diag.message_hint


def test_nothing_to_trade(world: Conn) -> None:
    """No rows, no predictions, one row: a trial without trades, not an error."""
    strategy(world)
    row = world.execute(
        "select trades, net_return, sharpe from backtest.run('s', %s, %s)", (START, END)
    ).fetchone()
    assert row == (0, 0.0, None)
    predictions(world, 3, n=20)
    row = world.execute(
        "select trades, net_return from backtest.run('s', %s, %s)", (START, END)
    ).fetchone()
    assert row == (0, 0.0)


def test_deflated_sharpe_of_an_array(db: Conn) -> None:
    returns = np.random.default_rng(1).normal(0.001, 0.01, 300)
    query = "select backtest.deflated_sharpe(%s, %s, %s)"
    row = db.execute(query, (returns.tolist(), 0.002, 25)).fetchone()
    assert row is not None
    assert row[0] == pytest.approx(deflated_sharpe_ratio(returns, 25, 0.002), abs=1e-12)
    for wrong in (([], 0.1, 5), ([0.1] * 50, 0.1, 5), (None, 0.1, 5), (returns.tolist(), -1, 5)):
        assert db.execute(query, wrong).fetchone() == (None,)
