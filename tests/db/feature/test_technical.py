"""Indicators and patterns in the database: live is history, nothing from later, bad data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

UTC = dt.UTC
START = dt.datetime(2026, 3, 27, 0, 0, tzinfo=UTC)  # a change to summer time lies within
MINUTES = 3 * 1440
GAPS = [(700, 703), (1500, 1560), (2900, 2901)]
LATE = {2000: 7, 2001: 6, 2500: 300}  # minutes late
HOURS = 200
SETS = ("technical_1m", "technical_1h", "patterns_1m")
MINUTE = dt.timedelta(minutes=1)
DAY = dt.timedelta(days=1)

Connection = psycopg.Connection[Any]


def candles(seed: int, count: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.001, count)))
    open_ = np.concatenate([[100.0], close[:-1]]) * np.exp(rng.normal(0, 0.0001, count))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, 0.0005, count)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, 0.0005, count)))
    volume = rng.gamma(2.0, 5.0, count) * (rng.random(count) > 0.05)
    return np.round(np.stack([open_, high, low, close, volume], axis=1), 6)


def put(
    db: Connection,
    symbol: str,
    length: dt.timedelta,
    bars: np.ndarray[Any, Any],
    start: dt.datetime,
) -> None:
    minutes = length == MINUTE
    copy = (
        "copy market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
        " from stdin"
    )
    with db.cursor().copy(copy) as rows:
        for i, (o, h, lo, c, v) in enumerate(bars.tolist()):
            if minutes and any(a <= i < b for a, b in GAPS):
                continue
            ts = start + i * length
            late = LATE.get(i, 0) if minutes else 0
            row = (symbol, length, ts, ts + length + late * MINUTE)
            rows.write_row((*row, o, max(o, h, c), min(o, lo, c), c, v))


@pytest.fixture(scope="module")
def market(db_module: Connection) -> Iterator[Connection]:
    db = db_module
    for symbol in ("AAA", "HRS", "ONE", "DAYS"):
        db.execute(
            "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
            " values (%s, 'test', %s, %s, 'USD')",
            (symbol, symbol, symbol),
        )
    put(db, "AAA", MINUTE, candles(1, MINUTES), START)
    put(db, "HRS", 60 * MINUTE, candles(2, HOURS), START)
    put(db, "ONE", MINUTE, candles(3, 1), START)
    put(db, "DAYS", DAY, candles(4, 100), START)
    db.execute("call market.refresh_aggregates()")
    yield db


def vector(db: Connection, name: str, symbol: str, t: dt.datetime) -> np.ndarray[Any, Any]:
    """Computed, whatever is stored."""
    row = db.execute(
        "select feature._compute(%s, %s, ops._micros(%s))",
        (name, symbol, t),
    ).fetchone()
    assert row is not None
    return np.array(row[0], dtype=np.float64)


def names(db: Connection, name: str) -> list[str]:
    row = db.execute("select features from feature.sets where name = %s", (name,)).fetchone()
    assert row is not None
    return list(row[0])


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("technical_1m", "AAA"), ("patterns_1m", "AAA"), ("technical_1h", "HRS"),
     ("technical_1h", "AAA")],
)  # fmt: skip
def test_live_stored_and_history_agree(market: Connection, name: str, symbol: str) -> None:
    end = START + (HOURS * 60 if symbol == "HRS" else MINUTES + 10) * MINUTE
    market.execute("call feature.materialise(%s, %s, %s, %s)", (name, symbol, START, end))
    stored = dict(
        market.execute(
            "select v.ts, v.values from feature.vectors v join feature.sets s using (set_id)"
            " where s.name = %s and v.symbol = %s",
            (name, symbol),
        ).fetchall()
    )
    step = 60 if name == "technical_1h" else 1
    rng = np.random.default_rng(5)
    # Across the gaps, the late bars, the ends of blocks, and at random.
    odd = [1, 2, 699, 702, 705, 1499, 1503, 1506, 1559, 1562, 1920, 2002, 2003, 2007, 2008, 2502,
           2799, 2801, 2880, 2881, 4319, 4322]  # fmt: skip
    last = int((end - START) / MINUTE)
    for at in {*odd, *rng.integers(0, last, 25).tolist()}:
        t = START + at // step * step * MINUTE
        live = vector(market, name, symbol, t)
        if t in stored:
            np.testing.assert_array_equal(live, np.array(stored[t]), err_msg=str(t))
        else:
            assert np.isnan(live).all(), t
    functions = market.execute(
        f"select * from feature.{name}_history(%s, %s, %s)",  # type: ignore[arg-type]
        (symbol, end - 120 * MINUTE, end),
    ).fetchall()
    assert functions
    for row in functions:
        by_function = np.array([np.nan if x is None else x for x in row[2:]], dtype=np.float64)
        np.testing.assert_array_equal(by_function, np.array(stored[row[1]]))


def test_the_named_functions_agree_with_each_other(market: Connection) -> None:
    for symbol, timeframe, end in (
        ("AAA", "1 minute", START + 2010 * MINUTE),
        ("AAA", "5 minutes", START + 2510 * MINUTE),
        ("AAA", "1 hour", START + 4300 * MINUTE),
        ("HRS", "1 hour", START + 199 * 60 * MINUTE),
        ("HRS", "4 hours", START + 199 * 60 * MINUTE),
        ("HRS", "1 day", START + 199 * 60 * MINUTE),
    ):
        for function in ("technical", "patterns"):
            history = market.execute(
                f"select * from feature.{function}_history(%s, %s, %s, %s::interval)",  # type: ignore[arg-type]
                (symbol, START, end, timeframe),
            ).fetchall()
            assert history
            last = history[-1][1]
            live = market.execute(
                f"select * from feature.{function}(%s, %s, %s::interval)",  # type: ignore[arg-type]
                (symbol, last + dt.timedelta(seconds=30), timeframe),
            ).fetchall()
            assert live == [row for row in history if row[1] == last]


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(at=st.integers(60, MINUTES - 60), seed=st.integers(0, 1000))
def test_rows_known_later_change_nothing(market: Connection, at: int, seed: int) -> None:
    t = START + at * MINUTE
    rng = np.random.default_rng(seed)
    asked = [("technical_1m", "AAA", t), ("patterns_1m", "AAA", t), ("technical_1h", "HRS", t)]
    asked = [
        (name, symbol, t.replace(minute=0) if name.endswith("1h") else t)
        for name, symbol, t in asked
    ]
    before = [vector(market, *ask) for ask in asked]
    try:
        with market.transaction():
            # Altered now, dropped now, and new bars that had closed but were not known.
            market.execute(
                "update market.candles set close = close * 1.01, high = high * 1.02,"
                " volume = volume + 1 where ts > %s - interval '9 hours' and ts < %s",
                (t, t + dt.timedelta(hours=3)),
            )
            market.execute(
                "delete from market.candles where ts > %s - interval '30 hours'"
                " and extract(epoch from ts)::bigint / 60 %% 7 = %s",
                (t, int(rng.integers(7))),
            )
            market.execute(
                "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low,"
                " close, volume) select 'AAA', '1 minute', s, greatest(%s, s) + interval '2 minutes',"
                " 50, 60, 40, 55, 1e6 from generate_series(%s::timestamptz, %s, '1 minute') s"
                " on conflict do nothing",
                (t, START + 1500 * MINUTE, START + 1560 * MINUTE),
            )
            after = [vector(market, *ask) for ask in asked]
            raise psycopg.Rollback
    except psycopg.Rollback:
        pass
    for one, other, ask in zip(before, after, asked, strict=True):
        # Sums over a bar's minutes may be taken in another order: the last bit.
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13, err_msg=str(ask))


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    symbol=st.sampled_from(["AAA", "HRS", "DAYS"]),
    place=st.floats(0.05, 0.95),
    change=st.sampled_from(["append", "alter", "delete", "correct"]),
)
def test_what_follows_changes_nothing_at_any_timeframe(
    market: Connection, symbol: str, place: float, change: str
) -> None:
    """The named functions at every timeframe, and the factors; rows after, and made known after."""
    span = {"AAA": MINUTES * MINUTE, "HRS": HOURS * 60 * MINUTE, "DAYS": 100 * DAY}[symbol]
    t = START + dt.timedelta(seconds=round(place * span.total_seconds()))
    frames = {
        "AAA": ("1 minute", "5 minutes", "15 minutes", "1 hour"),
        "HRS": ("1 hour", "4 hours", "1 day"),
        "DAYS": ("1 day",),
    }

    def answers() -> list[Any]:
        rows = [
            market.execute(
                f"select * from feature.{function}(%s, %s, %s::interval)",  # type: ignore[arg-type]
                (symbol, t, timeframe),
            ).fetchall()
            for function in ("technical", "patterns")
            for timeframe in frames[symbol]
        ]
        return [*rows, vector(market, "factors_1d", symbol, t)]

    before = answers()
    after = "symbol = %s and ts + timeframe > %s"
    with market.transaction(force_rollback=True):
        if change == "delete":
            market.execute(f"delete from market.candles where {after}", (symbol, t))
        elif change == "alter":
            market.execute(
                f"update market.candles set close = low, volume = volume * 9 where {after}",
                (symbol, t),
            )
        elif change == "correct":
            market.execute(
                "update market.candles set close = low, volume = volume * 9"
                " where symbol = %s and ts + timeframe <= %s and ts > %s::timestamptz - %s::interval",
                (symbol, t, t, span / 10),
            )
        else:
            market.execute(
                "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
                " volume) select symbol, timeframe, ts + %(d)s, known_at + %(d)s, 1, 9, 1, 5, 1e9"
                " from market.candles where symbol = %(s)s and ts > %(t)s on conflict do nothing",
                {"s": symbol, "t": t, "d": span},
            )
        for one, other in zip(before[:-1], answers()[:-1], strict=True):
            assert [row[:2] for row in one] == [row[:2] for row in other]
            for mine, its in zip(one, other, strict=True):
                words = [x if isinstance(x, str) else None for x in mine[2:]]
                assert words == [x if isinstance(x, str) else None for x in its[2:]]
                numbers = [
                    [np.nan if x is None or isinstance(x, str) else x for x in row[2:]]
                    for row in (mine, its)
                ]
                np.testing.assert_allclose(*numbers, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(answers()[-1], before[-1], rtol=1e-11, atol=1e-13)


def test_a_higher_timeframe_gives_its_last_closed_bar(market: Connection) -> None:
    columns = names(market, "technical_1m")
    t = START + 3000 * MINUTE  # 02:00
    base = vector(market, "technical_1m", "AAA", t)
    for name, minutes in (("5m", 5), ("15m", 15), ("1h", 60)):
        mine = [i for i, column in enumerate(columns) if column.endswith(f"_{name}")]
        assert len(mine) >= 15
        assert np.isfinite(base[mine]).any()
        for at in (1, minutes - 1):
            inside = vector(market, "technical_1m", "AAA", t + at * MINUTE)
            np.testing.assert_array_equal(inside[mine], base[mine])
        next_bar = vector(market, "technical_1m", "AAA", t + minutes * MINUTE)
        assert (next_bar[mine] != base[mine]).any()
        # And it is the higher timeframe's own value.
        row = market.execute(
            "select rsi_14, cci_20 from feature.technical('AAA', %s, %s)",
            (t, minutes * MINUTE),
        ).fetchone()
        assert row is not None
        assert row[1] == pytest.approx(base[columns.index(f"cci_20_{name}")], rel=1e-9)


def test_a_late_bar_counts_from_when_it_was_known(market: Connection) -> None:
    def close_like(minute: int) -> tuple[Any, ...]:
        row = market.execute(
            "select mom_10, roc_1 from feature.technical('AAA', %s)", (START + minute * MINUTE,)
        ).fetchone()
        assert row is not None
        return row

    bars = candles(1, MINUTES)[:, 3]
    # Bar 2000 closed at 2001 and came at 2008; until then bar 1999 is followed by the next known.
    assert close_like(2001)[1] == pytest.approx(100 * (bars[1999] / bars[1998] - 1), rel=1e-9)
    assert close_like(2003)[1] == pytest.approx(100 * (bars[2002] / bars[1999] - 1), rel=1e-9)
    assert close_like(2008)[1] == pytest.approx(100 * (bars[2007] / bars[2006] - 1), rel=1e-9)
    assert close_like(2010)[0] == pytest.approx(bars[2009] - bars[1999], rel=1e-9)


def test_a_session_that_asks_minute_by_minute_says_what_a_new_one_says(
    market: Connection, connect_as: Callable[[str, str], Connection]
) -> None:
    market.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values ('KEPT', 'test', 'KEPT', 'KEPT', 'USD')"
    )
    put(market, "KEPT", MINUTE, candles(7, 1500), START)
    ask = "select feature.vector(array['technical_1m', 'patterns_1m', 'technical_1h'], 'KEPT', %s)"
    bar = "where symbol = 'KEPT' and timeframe = '1 minute' and ts = %(ts)s"
    change = {
        # As it might have been from the first: a bar that was missing.
        4: "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close,"
        " volume) values ('KEPT', '1 minute', %(ts)s, %(ts)s + interval '1 minute', 99, 99, 99, 99,"
        " 1)",
        7: f"update market.candles set volume = volume + 1 {bar}",
        10: f"delete from market.candles {bar}",
    }
    for step in range(13):
        if step in change:
            ts = START + (700 if step == 4 else 1000 + step) * MINUTE
            market.execute(change[step], {"ts": ts})  # type: ignore[arg-type]
        market.execute("call market.refresh_aggregates()")
        new = connect_as("postgres", market.info.dbname)
        t = START + (1390 + step) * MINUTE
        kept, fresh = (np.array(c.execute(ask, (t,)).fetchone()) for c in (market, new))
        np.testing.assert_array_equal(kept, fresh, err_msg=str(step))
        new.close()


def test_little_data_and_wrong_questions(market: Connection) -> None:
    one = market.execute("select * from feature.technical('ONE', %s)", (START + MINUTE,)).fetchone()
    assert one is not None
    assert one[0] == "ONE" and sum(x is not None for x in one[2:]) == 1  # bop alone
    none = market.execute("select * from feature.technical('ONE', %s)", (START,)).fetchone()
    assert none is not None and all(x is None for x in none[2:])
    assert np.isnan(vector(market, "technical_1m", "ONE", START)).all()
    assert market.execute("select * from feature.patterns('ONE', %s)", (START,)).fetchall() == []
    for question, state in (
        ("select * from feature.technical('nothing')", "AP101"),
        ("select * from feature.technical('AAA', timeframe => '2 minutes')", "AP210"),
        ("select * from feature.patterns('AAA', timeframe => null)", "AP210"),
        ("select * from ml.enhance_pattern('AAA', horizon => '11 minutes')", "AP507"),
        ("select * from ml.enhance_pattern('AAA', 'cdlnosuch')", "AP213"),
        ("select * from ml.enhance_pattern('AAA', model => 'nosuch')", "AP507"),
        ("select * from ml.enhance_pattern('AAA', model => 'volatility_15m')", "AP507"),
        (
            "select * from ml.enhance_pattern('AAA', model => 'direction_15m', horizon => '1 hour')",
            "AP507",
        ),
    ):
        with pytest.raises(psycopg.Error) as error:
            market.execute(question)  # type: ignore[arg-type]
        assert error.value.sqlstate == state


def test_patterns_as_rows_are_the_features(market: Connection) -> None:
    columns = names(market, "patterns_1m")
    seen = market.execute(
        "select ts, pattern, direction, strength from feature.patterns_history('AAA', %s, %s)",
        (START + 1000 * MINUTE, START + 1100 * MINUTE),
    ).fetchall()
    assert len({row[1] for row in seen}) > 5
    for ts in {row[0] for row in seen}:
        values = vector(market, "patterns_1m", "AAA", ts)
        expected = {columns[i]: abs(values[i]) for i in np.flatnonzero(np.nan_to_num(values))}
        assert {row[1]: row[3] for row in seen if row[0] == ts} == expected


def test_a_pattern_beside_the_models_probability(market: Connection) -> None:
    ts, pattern = market.execute(
        "select ts, pattern from feature.patterns_history('AAA', %s, %s)"
        " where direction = 'bearish' limit 1",
        (START + 4000 * MINUTE, START + 4100 * MINUTE),
    ).fetchall()[0]
    row = market.execute(
        "select pattern, direction, probability_up, pattern_confidence, agrees, is_fallback"
        " from ml.enhance_pattern('AAA', %s, %s)",
        (pattern.removeprefix("cdl"), ts),
    ).fetchone()
    assert row is not None
    assert row[:2] == (pattern, "bearish") and row[5]  # no model yet: the base rate
    chosen = "select distinct model, horizon from ml.enhance_pattern('AAA', %s, %s, model => %s)"
    hour = dt.timedelta(hours=1)
    assert market.execute(chosen, (pattern, ts, "direction_60m")).fetchall() == [
        ("direction_60m", hour)
    ]
    assert market.execute(chosen, (pattern, ts, None)).fetchall() == [("direction_15m", hour / 4)]
    with market.transaction(force_rollback=True):
        market.execute(
            "insert into ml.models (model, label, feature_set, feature_version, algorithm)"
            " select 'another', label, feature_set, feature_version, algorithm from ml.models"
            " where model = 'direction_15m'"
        )
        assert market.execute(chosen, (pattern, ts, "another")).fetchall() == [
            ("another", hour / 4)
        ]
        with pytest.raises(psycopg.Error, match="2 direction models") as error:
            market.execute(chosen, (pattern, ts, None))
        assert error.value.sqlstate == "AP510" and error.value.diag.message_hint
    assert row[3] == pytest.approx(1 - row[2]) and row[4] == (row[2] < 0.5)


def test_the_operator_may_store_vectors(market: Connection) -> None:
    market.execute("set role alphaplus_operator")
    try:
        market.execute(
            "call feature.materialise('patterns_1m', 'AAA', %s, %s)", (START, START + 90 * MINUTE)
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            market.execute("copy pg_temp.x from '/etc/hostname'")
    finally:
        market.execute("reset role")


def test_bars_of_other_lengths_than_a_minute_leave_no_dirty_buckets(market: Connection) -> None:
    market.execute(
        "insert into market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
        " values ('DAYS', '1 day', %s, %s, 1, 1, 1, 1, 1)",
        (START - 9 * DAY, START - 8 * DAY),
    )
    native = market.execute("select bool_or(native) from market.aggregates").fetchone()
    if native == (False,):
        dirty = market.execute(
            "select count(*) from market.dirty_buckets where symbol = 'DAYS'"
        ).fetchone()
        assert dirty == (0,)


def test_a_set_of_many_symbols_as_numbers(market: Connection) -> None:
    def matrix() -> dict[str, tuple[list[int], np.ndarray[Any, Any]]]:
        with market.cursor(binary=True) as cursor:
            return {
                symbol: (
                    np.frombuffer(ts, "<i8").tolist(),
                    np.frombuffer(vectors, "<f8").reshape(n, -1),
                )
                for symbol, n, ts, vectors in cursor.execute(
                    "select symbol, n, ts, vectors from feature.matrix('factors_1d',"
                    " array['DAYS', 'AAA'], %s, %s)",
                    (START, START + 101 * DAY),
                )
            }

    computed = matrix()
    assert list(computed) == ["AAA", "DAYS"]
    times, values = computed["DAYS"]
    assert len(times) == 100
    epoch = dt.datetime(2000, 1, 1, tzinfo=UTC)
    assert times[0] == (START + DAY - epoch) // dt.timedelta(microseconds=1)
    assert len(computed["AAA"][0]) == 3  # its days are made from its minutes
    for row in (0, 30, 99):
        live = vector(market, "factors_1d", "DAYS", START + (row + 1) * DAY)
        np.testing.assert_array_equal(live, values[row])
    market.execute(
        "call feature.materialise('factors_1d', 'DAYS', %s, %s)", (START, START + 101 * DAY)
    )
    stored = matrix()
    for symbol, (stamps, numbers) in computed.items():
        assert stored[symbol][0] == stamps
        np.testing.assert_array_equal(stored[symbol][1], numbers)
