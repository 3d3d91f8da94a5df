"""Regimes: six states, the same at the same time whoever asks, and nothing from the future."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

Conn = psycopg.Connection[Any]
HOUR = dt.timedelta(hours=1)
START = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
STATES = [
    "bull_trending", "bear_trending", "sideways", "high_volatility", "low_volatility", "crash",
]  # fmt: skip


def instrument(conn: Conn, symbol: str) -> None:
    conn.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values (%s, 'test', %s, %s, 'USDT')",
        (symbol, symbol, symbol.removesuffix("USDT")),
    )


def path(seed: int, n: int) -> np.ndarray:
    """(n, 5) open, high, low, close, volume of bars that trend, fall, and lie still in turn."""
    rng = np.random.default_rng(seed)
    drift = np.repeat(rng.choice([-0.004, 0.0, 0.004], n // 40 + 1), 40)[:n]
    scale = np.repeat(rng.choice([0.002, 0.006, 0.02], n // 40 + 1), 40)[:n]
    close = 100 * np.exp(np.cumsum(drift + scale * rng.standard_normal(n)))
    open_ = np.append(100.0, close[:-1])
    span = scale * np.abs(rng.standard_normal(n))
    high, low = np.maximum(open_, close) * (1 + span), np.minimum(open_, close) * (1 - span)
    return np.stack([open_, high, low, close, rng.lognormal(3, 1, n)], axis=1)


def insert(
    conn: Conn, symbol: str, bars: np.ndarray, at: list[int], known: list[dt.datetime]
) -> None:
    with (
        conn.cursor() as cursor,
        cursor.copy(
            "copy market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
            " from stdin"
        ) as copy,
    ):
        for i, when in zip(at, known, strict=True):
            copy.write_row((symbol, "1 hour", START + i * HOUR, when, *map(float, bars[i])))


def loaded(conn: Conn, symbol: str, seed: int, n: int) -> np.ndarray:
    bars = path(seed, n)
    instrument(conn, symbol)
    insert(conn, symbol, bars, list(range(n)), [START + (i + 1) * HOUR for i in range(n)])
    return bars


def classify(conn: Conn, symbol: str, as_of: dt.datetime) -> Any:
    try:
        return conn.execute(
            "select regime, confidence, probabilities, since, version, bar"
            " from regime.classify(%s, %s)",
            (symbol, as_of),
        ).fetchone()
    except psycopg.Error as error:
        assert error.sqlstate in ("AP602", "AP603"), error
        return error.sqlstate


def test_an_answer_is_whole(db_module: Conn) -> None:
    loaded(db_module, "WHOLEUSDT", 1, 900)
    row = db_module.execute(
        "select c.*, (select array_agg(s.state order by s.position) from regime.states s) as states"
        " from regime.classify('WHOLE' || 'USDT', %s) c",
        (START + 850 * HOUR,),
    ).fetchone()
    assert row is not None
    regime, confidence, probabilities, since, version, bar, in_sample, states = row
    assert states == STATES and set(probabilities) == set(STATES) and regime in STATES
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-12)
    assert confidence == probabilities[regime] and min(probabilities.values()) > 0
    assert since <= bar == START + 850 * HOUR and not in_sample
    assert version.startswith("rules/default/")


def test_stored_is_computed_is_history(db_module: Conn) -> None:
    """History, a single question from the store, and one that is computed: the same to the bit."""
    loaded(db_module, "SAMEUSDT", 2, 1600)
    rng = np.random.default_rng(5)
    times = [START + int(i) * HOUR + dt.timedelta(minutes=17) for i in rng.integers(30, 1600, 25)]
    computed = [classify(db_module, "SAMEUSDT", t) for t in times]
    db_module.execute("call regime.refresh(array['SAMEUSDT'])")
    assert [classify(db_module, "SAMEUSDT", t) for t in times] == computed
    for t, answer in zip(times, computed, strict=True):
        row = db_module.execute(
            "select regime, confidence, probabilities, since, version, ts from regime.history"
            " where symbol = 'SAMEUSDT' and known_at <= %s order by ts desc limit 1",
            (t,),
        ).fetchone()
        assert row == answer


def test_a_new_bar_goes_on_from_the_store(db_module: Conn) -> None:
    bars = path(3, 1000)
    instrument(db_module, "NEXTUSDT")
    known = [START + (i + 1) * HOUR for i in range(1000)]
    insert(db_module, "NEXTUSDT", bars, list(range(980)), known[:980])
    db_module.execute("call regime.refresh(array['NEXTUSDT'])")
    insert(db_module, "NEXTUSDT", bars, list(range(980, 1000)), known[980:])
    times = [START + h * HOUR for h in (981, 990, 1000, 1002)]
    carried = [classify(db_module, "NEXTUSDT", t) for t in times]
    db_module.execute("delete from regime.blocks where symbol = 'NEXTUSDT'")
    assert [classify(db_module, "NEXTUSDT", t) for t in times] == carried
    db_module.execute("call regime.refresh(array['NEXTUSDT'])")
    assert [classify(db_module, "NEXTUSDT", t) for t in times] == carried


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10**6), start=st.integers(60, 110))
def test_what_comes_later_changes_nothing(db_module: Conn, seed: int, start: int) -> None:
    """Bars arrive in any order and late, and are corrected; an answer as of a time stays."""
    rng = np.random.default_rng(seed)
    symbol = f"L{seed}X{start}USDT"
    if db_module.execute(
        "select true from market.instruments where symbol = %s", (symbol,)
    ).fetchone():
        return
    instrument(db_module, symbol)
    n = 140
    bars = path(seed, n)
    delay = np.where(rng.random(n) < 0.15, rng.integers(1, 60, n), 0)
    known = [START + (i + 1 + int(delay[i])) * HOUR for i in range(n)]
    answers = {}
    last = START
    for hour in (start, start + 10, 130):
        as_of = START + hour * HOUR
        new = [i for i in range(n) if last < known[i] <= as_of]
        insert(db_module, symbol, bars, new, [known[i] for i in new])
        last = as_of
        answers[as_of] = classify(db_module, symbol, as_of)
        if rng.random() < 0.5:
            db_module.execute("call regime.refresh(array[%s])", (symbol,))
            assert classify(db_module, symbol, as_of) == answers[as_of]
    rest = [i for i in range(n) if known[i] > last]
    insert(db_module, symbol, bars, rest, [known[i] for i in rest])
    db_module.execute(
        "update market.candles set close = high, known_at = %s"
        " where symbol = %s and ts in (select ts from market.candles where symbol = %s"
        " order by random() limit 3)",
        (START + 150 * HOUR, symbol, symbol),
    )
    for as_of, answer in answers.items():
        assert classify(db_module, symbol, as_of) == answer
    db_module.execute("call regime.refresh(array[%s])", (symbol,))
    for as_of, answer in answers.items():
        assert classify(db_module, symbol, as_of) == answer
    assert db_module.execute(
        "select count(*) from regime.pending where symbol = %s", (symbol,)
    ).fetchone() == (0,)


def test_late_rows_are_computed_again(db_module: Conn) -> None:
    """A bar loaded late that says it was known in time changes stored regimes at once."""
    bars = path(11, 400)
    instrument(db_module, "LATEUSDT")
    known = [START + (i + 1) * HOUR for i in range(400)]
    missing = list(range(200, 230))
    others = [i for i in range(400) if i not in missing]
    insert(db_module, "LATEUSDT", bars, others, [known[i] for i in others])
    db_module.execute("call regime.refresh(array['LATEUSDT'])")
    before = classify(db_module, "LATEUSDT", START + 240 * HOUR)
    insert(db_module, "LATEUSDT", bars, missing, [known[i] for i in missing])
    computed = classify(db_module, "LATEUSDT", START + 240 * HOUR)
    assert computed != before
    db_module.execute("call regime.refresh(array['LATEUSDT'])")
    assert classify(db_module, "LATEUSDT", START + 240 * HOUR) == computed
    loaded(db_module, "INTIMEUSDT", 11, 400)
    assert classify(db_module, "INTIMEUSDT", START + 240 * HOUR) == computed


def test_verdicts_are_not_revised_by_later_bars(db_module: Conn) -> None:
    """What was known by as_of is what all of history says later, and no more."""
    loaded(db_module, "HINDUSDT", 21, 700)
    db_module.execute("call regime.refresh(array['HINDUSDT'])")
    later = dict(
        db_module.execute(
            "select ts, (verdict, verdict_known_at)::text from regime.history"
            " where symbol = 'HINDUSDT' and verdict is not null"
        ).fetchall()
    )
    assert len(later) > 600
    for hour in (200, 350, 500):
        as_of = START + hour * HOUR
        then = db_module.execute(
            "select ts, (verdict, known_at)::text, known_at from regime.verdicts('HINDUSDT', %s, %s, %s)",
            (START, START + 700 * HOUR, as_of),
        ).fetchall()
        assert len(then) > hour - 120
        assert all(known <= as_of for _, _, known in then)
        assert {ts: v for ts, v, _ in then} == {
            ts: v for ts, v in later.items() if ts in {t for t, _, _ in then}
        }
        known_by_then = db_module.execute(
            "select count(*) from regime.history where symbol = 'HINDUSDT'"
            " and verdict_known_at <= %s and ts <= %s",
            (as_of, as_of),
        ).fetchone()
        assert known_by_then == (len(then),)


def test_replay_under_changed_thresholds(db_module: Conn) -> None:
    loaded(db_module, "REPLUSDT", 31, 600)
    db_module.execute("call regime.refresh(array['REPLUSDT'])")
    span = (START + 100 * HOUR, START + 500 * HOUR)
    same = db_module.execute(
        "select ts, regime, confidence, since, verdict from regime.replay('REPLUSDT', %s, %s)", span
    ).fetchall()
    kept = db_module.execute(
        "select ts, regime, confidence, since, verdict from regime.history"
        " where symbol = 'REPLUSDT' and ts >= %s and ts < %s order by ts",
        span,
    ).fetchall()
    assert same == kept and len(same) == 400
    tried = db_module.execute(
        "select count(*) filter (where regime in ('bull_trending', 'bear_trending')) from"
        """ regime.replay('REPLUSDT', %s, %s, '{"bull_trend": 0.9, "bear_trend": 0.9}')""",
        span,
    ).fetchone()
    assert tried == (0,)
    version = db_module.execute(
        "select regime.set_threshold('bull_trend', 0.9, 'strict'),"
        " regime.use('rules', 'REPLUSDT', rule_set => 'strict')"
    ).fetchone()
    assert version is not None and version[0] == version[1] != kept[0]
    assert classify(db_module, "REPLUSDT", span[1])[4] == version[0]
    db_module.execute("call regime.refresh(array['REPLUSDT'])")
    versions = db_module.execute(
        "select distinct version from regime.history where symbol = 'REPLUSDT'"
    ).fetchall()
    assert versions == [(version[0],)]


def test_episodes_have_a_minimum_dwell(db_module: Conn) -> None:
    loaded(db_module, "EPISUSDT", 41, 900)
    db_module.execute("call regime.refresh(array['EPISUSDT'])")
    labels = db_module.execute(
        "select ts, regime, known_at from regime.history where symbol = 'EPISUSDT' order by ts"
    ).fetchall()
    runs: list[list[Any]] = []
    for ts, regime, known in labels:
        if runs and runs[-1][1] == regime:
            runs[-1][2].append(known)
        else:
            runs.append([ts, regime, [known]])
    expected: list[tuple[Any, ...]] = []
    for ts, regime, known in runs:
        if len(known) >= 6 and (not expected or expected[-1][0] != regime):
            expected.append((regime, ts, known[5]))
    found = db_module.execute(
        'select regime, start, confirmed_at, "end", is_open, duration from regime.episodes'
        " where symbol = 'EPISUSDT' order by start"
    ).fetchall()
    assert [row[:3] for row in found] == expected and len(found) > 4
    for row, following in pairwise(found):
        assert row[3] == following[1] and row[5] == row[3] - row[1] and not row[4]
    assert found[-1][3] is None and found[-1][4]


def test_names_and_mappings(db_module: Conn) -> None:
    def resolve(name: str | None) -> Any:
        row = db_module.execute("select regime.resolve(%s)", (name,)).fetchone()
        assert row is not None
        return row[0]

    assert resolve("trending") == ["bull_trending", "bear_trending"]
    assert resolve("Bull trending") == ["bull_trending"]
    assert resolve("consolidation") == ["low_volatility"]
    assert resolve("sideways") == ["sideways"] and resolve("crash") == ["crash"]
    assert db_module.execute("select regime.names_of('crash')").fetchone() == (
        ["crash", "volatile"],
    )
    # each naming covers all six states, none twice
    for (states,) in db_module.execute(
        "select array_agg(s.state order by s.state) from regime.mappings m"
        " cross join lateral unnest(m.states) s (state) group by m.naming"
    ):
        assert states == sorted(STATES)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("select * from regime.classify('NOSUCH')", "AP101"),
        ("select * from regime.classify(null)", "AP101"),
        ("select * from regime.classify('BADUSDT')", "AP602"),
        ("select * from regime.classify('BADUSDT', '2024-03-01 05:00+00')", "AP603"),
        ("select * from regime.classify('BADUSDT', 'infinity')", "AP608"),
        ("select * from regime.classify('BADUSDT', '-infinity')", "AP608"),
        ("select * from regime.classify('BADUSDT', '0001-01-01')", "AP608"),
        ("select * from regime.classify('BADUSDT', timeframe => '2 hours')", "AP600"),
        ("select * from regime.classify('BADUSDT', timeframe => null)", "AP600"),
        ("select regime.resolve('boom')", "AP601"),
        ("select regime.resolve(null)", "AP601"),
        ("select regime.set_threshold('no_such', 1)", "AP604"),
        ("select regime.set_threshold('bull_trend', 'NaN')", "AP604"),
        ("select regime.set_threshold('bull_trend', 7)", "AP604"),
        ("select regime.set_threshold(null, 7)", "AP604"),
        ("select regime.set_threshold('bull_trend', 0.1, 'No name')", "AP605"),
        ("select regime.use('magic')", "AP606"),
        ("select regime.use('learned', model => 'nothing')", "AP606"),
        ("select regime.use('rules', rule_set => 'nothing')", "AP605"),
        ("select * from regime.replay('BADUSDT', '2024-03-01', '2024-03-02', '[]')", "AP604"),
        (
            """select * from regime.replay('BADUSDT', '2024-03-01', '2024-03-02', '{"x": 1}')""",
            "AP604",
        ),
        ("select * from regime.replay('BADUSDT', null, '2024-03-02')", "AP608"),
        ("call regime.refresh(array['NOSUCH'])", "AP101"),
        ("call regime.refresh(timeframe => '7 minutes')", "AP600"),
    ],
)
def test_a_clear_no(db_module: Conn, query: str, code: str) -> None:
    if not db_module.execute(
        "select true from market.instruments where symbol = 'BADUSDT'"
    ).fetchone():
        loaded(db_module, "BADUSDT", 51, 100)
    with pytest.raises(psycopg.Error) as caught:
        db_module.execute(query)
    assert caught.value.sqlstate == code
    assert caught.value.diag.message_hint


def test_a_rule_is_its_formula() -> None:
    """The membership of high volatility at its threshold is a half; the order of rules holds."""
    from alphaplus.server.regime import observe, rules
    from alphaplus.server.regime.states import HIGH

    thresholds = {
        "softness": 0.1, "high_volatility_percentile": 0.71, "low_volatility_percentile": 0.28,
        "slow_trend_share": 1.0, "bull_trend": 0.06, "bear_trend": 0.06, "crash_drawdown": 3.4,
        "crash_fall": 0.46, "crash_volume": 0.3,
    }  # fmt: skip
    x = np.zeros((3, observe.COUNT))
    x[:, observe.VOLATILITY_SLOW] = norm.ppf(0.71), 3.0, -3.0
    p = rules.memberships(x, thresholds)
    assert p.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-12)
    assert p[0, HIGH] == pytest.approx(0.5, abs=1e-3)
    assert p.argmax(axis=1).tolist()[1:] == [HIGH, 4]
