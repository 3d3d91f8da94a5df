"""Similar states: the index against exact search, everything against pandas, nothing from later."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.db.regime.test_regime import path

Conn = psycopg.Connection[Any]
HOUR = dt.timedelta(hours=1)
START = dt.datetime(2025, 1, 20, tzinfo=dt.UTC)


def instrument(db: Conn, symbol: str) -> None:
    db.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " values (%s, 'binance', %s, %s, 'USDT')",
        (symbol, symbol, symbol.removesuffix("USDT")),
    )


def load(db: Conn, symbol: str, bars: Any) -> None:
    """Bars (ts, known, o, h, l, c, v) of an hour."""
    with (
        db.cursor() as cursor,
        cursor.copy(
            "copy market.candles (symbol, timeframe, ts, known_at, open, high, low, close, volume)"
            " from stdin"
        ) as copy,
    ):
        for bar in bars.itertuples():
            copy.write_row((symbol, "1 hour", bar.ts, bar.known, bar.o, bar.h, bar.l, bar.c, bar.v))


def made_bars(seed: int, n: int) -> Any:
    frame: Any = pd.DataFrame(path(seed, max(n, 2))[:n], columns=["o", "h", "l", "c", "v"])
    frame["ts"] = [START + i * HOUR for i in range(n)]
    frame["known"] = frame.ts + HOUR
    return frame


@pytest.fixture(scope="module")
def real(db_module: Conn, shared_data: Any) -> tuple[Conn, Any]:
    """Half a year of hours of two perpetual futures."""
    db = db_module
    db.execute(
        "update ops.settings set value = '[\"1 hour\"]' where name = 'analytics.state_timeframes'"
    )
    frame = pd.read_parquet(shared_data / "perps_hourly" / "candles.parquet")
    frame = frame[(frame.venue == "binance") & (frame.timestamp < "2025-09-01")]
    kept = {}
    for coin in ("BTC", "ETH"):
        bars = (
            frame[frame.coin == coin].sort_values("timestamp").rename(columns={"timestamp": "ts"})
        )
        bars["known"] = bars.ts + HOUR
        instrument(db, f"{coin}USDT")
        load(db, f"{coin}USDT", bars)
        kept[f"{coin}USDT"] = bars
    db.execute("call analytics.refresh_states()")
    db.execute("analyze analytics.states")
    return db, kept


def states_of(db: Conn, symbol: str) -> Any:
    rows = db.execute(
        "select ts, known_at, price, regime, raw, state::real[] from analytics.states"
        " where symbol = %s order by ts",
        (symbol,),
    ).fetchall()
    return pd.DataFrame(rows, columns=["ts", "known_at", "price", "regime", "raw", "state"])


def test_states_equal_a_plain_computation(real: tuple[Conn, Any]) -> None:
    """Less the mean of the regime over the months before, over its deviation there."""
    db, bars = real
    got = states_of(db, "BTCUSDT")
    closes = bars["BTCUSDT"].set_index(bars["BTCUSDT"].ts + HOUR).c
    np.testing.assert_allclose(got.price, closes.reindex(got.ts), rtol=1e-12)
    # One vector is that of the feature set, regime the most probable.
    names = db.execute("select analytics.state_features()").fetchone()
    assert names is not None
    for place in (500, 2000, 3500):
        row = got.iloc[place]
        columns = ", ".join(f'"{n}"' for n in names[0])
        vector = db.execute(
            f"select array[{columns}], array[p_bull_trending, p_bear_trending, p_sideways,"
            " p_high_volatility, p_low_volatility, p_crash] from feature.regime_1h('BTCUSDT', %s)".encode(),
            (row.ts,),
        ).fetchone()
        assert vector is not None
        assert row.raw == pytest.approx(vector[0], rel=1e-12)
        assert row.regime == int(np.argmax(vector[1])) + 1
    raw = np.array(got.raw.tolist(), dtype=float)
    month = got.ts.dt.tz_convert("UTC").dt.strftime("%Y-%m")
    checked = 0
    for name in sorted(set(month)):
        before = month < name
        for regime in range(1, 7):
            rows = raw[before & (got.regime == regime)]
            if len(rows) < 100:
                rows = raw[before]
            at = np.flatnonzero((month == name) & (got.regime == regime))
            if before.sum() < 240:
                assert got.state.iloc[at].isna().all()
                continue
            z = np.clip((raw[at] - rows.mean(axis=0)) / rows.std(axis=0), -4, 4)
            kept = np.array(got.state.iloc[at].tolist(), dtype=float)
            if len(at):
                np.testing.assert_allclose(kept, z, atol=2e-6)
            checked += len(at)
    assert checked > 3000


def plain(got: Any, at: dt.datetime, k: int, horizon: dt.timedelta) -> Any:
    """All moments that may be looked at by distance, taken where they overlap none before."""
    frame = got[got.state.notna() & got.price.notna()].reset_index(drop=True)
    present = np.array(frame.state[frame.ts == at].item())
    known = got.set_index("ts").known_at
    past = frame[frame.ts <= at - horizon - 72 * HOUR]
    ended = known.reindex(past.ts + horizon)
    past = past[(ended <= pd.Timestamp(at)).to_numpy()]
    distance = np.sqrt(((np.array(past.state.tolist()) - present) ** 2).sum(axis=1))
    picked: list[int] = []
    for i in np.argsort(distance, kind="stable"):
        if all(abs(past.ts.iloc[i] - past.ts.iloc[j]) >= horizon for j in picked):
            picked.append(int(i))
        if len(picked) == k:
            break
    return past.ts.iloc[picked].tolist(), distance[picked], frame.ts[frame.ts <= at]


def test_equal_to_exact_search_and_to_pandas(real: tuple[Conn, Any]) -> None:
    db, bars = real
    got = states_of(db, "BTCUSDT")
    close = bars["BTCUSDT"].set_index(bars["BTCUSDT"].ts + HOUR).c
    rng = np.random.default_rng(1)
    horizon = 12 * HOUR
    found = wanted = 0
    for at in sorted(rng.choice(got.ts[3000:], 12, replace=False)):
        at = pd.Timestamp(at).to_pydatetime()
        right, distance, _ = plain(got, at, 20, horizon)
        query = (
            "select ts, distance, followed_return, followed_volatility, followed_low, followed_high,"
            " ended_at from analytics.similar_states('BTCUSDT', %s, 20, '12 hours', exact => %s)"
            " order by place"
        )
        exact = db.execute(query, (at, True)).fetchall()
        assert [r[0] for r in exact] == right
        assert [r[1] for r in exact] == pytest.approx(distance, abs=1e-5)
        for r in exact:
            steps = np.log(close[r[0] : r[0] + horizon])
            assert r[6] == r[0] + horizon <= at - 72 * HOUR
            assert r[2] == pytest.approx(steps.iloc[-1] - steps.iloc[0], abs=1e-12)
            assert r[3] == pytest.approx(np.sqrt((steps.diff() ** 2).sum()), rel=1e-9)
            assert r[4] == pytest.approx(steps.min() - steps.iloc[0], abs=1e-12)
            assert r[5] == pytest.approx(steps.max() - steps.iloc[0], abs=1e-12)
        # By the index alone.
        with db.transaction():
            db.execute("set local enable_sort = off")
            db.execute("set local enable_bitmapscan = off")
            near = db.execute(query, (at, False)).fetchall()
        found += len({r[0] for r in near} & {r[0] for r in exact})
        wanted += len(exact)
        followed = np.array([r[2] for r in db.execute(query, (at, False)).fetchall()])
        row = db.execute(
            "select moments, return_p05, return_p50, return_p95, ups, probability_up, base_moments,"
            " base_probability_up, up_low, up_high"
            " from analytics.similar_outcomes('BTCUSDT', %s, 20, '12 hours')",
            (at,),
        ).fetchone()
        assert row is not None and row[0] == 20
        assert row[1:4] == pytest.approx(np.quantile(followed, [0.05, 0.5, 0.95]), abs=1e-12)
        assert row[4] == (followed > 0).sum()
        last = at - horizon - 72 * HOUR
        grid = [
            t for t in got.ts[got.state.notna()] if t <= last and (last - t) % horizon == 0 * HOUR
        ]
        base = np.log(
            close.reindex([t + horizon for t in grid]).to_numpy() / close.reindex(grid).to_numpy()
        )
        p = ((base > 0).sum() + 0.5) / (len(base) + 1)
        assert row[6] == len(base)
        assert row[7] == pytest.approx(p, abs=1e-12)
        assert row[5] == pytest.approx((row[4] + 20 * p) / 40, abs=1e-12)
        share = row[4] / 20
        centre, half = (
            (share + 1.9207 / 20) / (1 + 3.8415 / 20),
            1.959964 * np.sqrt(share * (1 - share) / 20 + 3.8415 / 1600) / (1 + 3.8415 / 20),
        )
        assert row[8:10] == pytest.approx((centre - half, centre + half), abs=1e-4)
    assert found / wanted >= 0.95


def test_the_index_is_read(real: tuple[Conn, Any]) -> None:
    """Recall is that of the index only if it is what answers."""
    db, _ = real
    with db.transaction():
        db.execute("set local enable_sort = off")
        db.execute("set local enable_bitmapscan = off")
        plan = db.execute(
            "explain select ts from analytics.states s where symbol = 'BTCUSDT'"
            " and timeframe = '1 hour' and ts < '2025-08-01' and exists (select from analytics.states o"
            " where o.symbol = s.symbol and o.timeframe = s.timeframe and o.ts = s.ts + interval '12 hours'"
            " and o.known_at < '2025-08-01') order by state operator(public.<->)"
            " (select state from analytics.states where ts = '2025-08-08' limit 1) limit 300"
        ).fetchall()
    assert any("states_state_idx" in line for (line,) in plan)


def test_other_symbols_and_skill(real: tuple[Conn, Any]) -> None:
    db, _ = real
    rows = db.execute(
        "select symbol, ts from analytics.similar_states('BTCUSDT', '2025-08-20 00:00+00', 30,"
        " symbols => array['BTCUSDT', 'ETHUSDT'])"
    ).fetchall()
    assert {r[0] for r in rows} == {"BTCUSDT", "ETHUSDT"}
    times = sorted(r[1] for r in rows)
    assert all(b - a >= 24 * HOUR for a, b in pairwise(times))
    row = db.execute(
        "select forecasts, gain, gain_low, gain_high, reason from analytics.similar_skill('BTCUSDT',"
        " horizon => '12 hours')"
    ).fetchone()
    assert row is not None
    assert row[0] > 150 and row[2] < row[1] < row[3] and row[4] is None


@settings(
    max_examples=1, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(seed=st.integers(0, 10_000))
def test_nothing_known_later_changes_an_answer(db: Conn, seed: int) -> None:
    """Bars that are corrected or come later, all of history computed anew: then stays as it was."""
    rng = np.random.default_rng(seed)
    symbol = f"S{seed}USDT"
    db.execute(
        "update ops.settings set value = '[\"1 hour\"]' where name = 'analytics.state_timeframes'"
    )
    instrument(db, symbol)
    bars = made_bars(seed, 1800)
    as_of = START + 1500 * HOUR + dt.timedelta(minutes=20)
    load(db, symbol, bars[:1500])
    query = (
        "select symbol, ts, distance, followed_return, followed_volatility from"
        " analytics.similar_states(%s, %s, 10, '6 hours') order by place"
    )
    db.execute("call analytics.refresh_states(array[%s])", (symbol,))
    before = db.execute(query, (symbol, as_of)).fetchall()
    assert len(before) == 10
    load(db, symbol, bars[1500:])
    wrong = rng.choice(1500, 30, replace=False)
    for i in wrong:
        db.execute(
            "update market.candles set close = close * 1.5, high = high * 1.5, known_at = %s"
            " where symbol = %s and ts = %s",
            (as_of + HOUR, symbol, bars.ts[int(i)]),
        )
    db.execute("call analytics.refresh_states(array[%s], true)", (symbol,))
    assert db.execute(query, (symbol, as_of)).fetchall() == before


def test_what_is_loaded_for_earlier_is_seen(db: Conn) -> None:
    db.execute(
        "update ops.settings set value = '[\"1 hour\"]' where name = 'analytics.state_timeframes'"
    )
    instrument(db, "AUSDT")
    bars = made_bars(1, 1500)
    load(db, "AUSDT", bars[700:])
    db.execute("call analytics.refresh_states()")
    load(db, "AUSDT", bars[:700])
    db.execute("call analytics.refresh_states()")
    once = states_of(db, "AUSDT")
    db.execute("delete from analytics.states")
    db.execute("delete from analytics.state_scales")
    db.execute("call analytics.refresh_states()")
    whole = states_of(db, "AUSDT")
    assert len(whole) > 1400
    pd.testing.assert_frame_equal(once, whole)
    # Nothing is done twice, and what is gone goes.
    row = db.execute("select analytics._refresh_states('AUSDT', '1 hour', true, now())").fetchone()
    assert row == (0,)
    db.execute("delete from market.candles")
    db.execute("call analytics.refresh_states()")
    assert states_of(db, "AUSDT").empty


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("select * from analytics.similar_states('what')", "AP101"),
        ("select * from analytics.similar_states(null)", "AP101"),
        ("select * from analytics.similar_states('AUSDT', 'infinity')", "AP960"),
        ("select * from analytics.similar_states('AUSDT', k => 0)", "AP978"),
        ("select * from analytics.similar_states('AUSDT', k => null)", "AP978"),
        ("select * from analytics.similar_outcomes('AUSDT', k => 501)", "AP978"),
        ("select * from analytics.similar_outcomes('AUSDT', horizon => '-1 hour')", "AP975"),
        ("select * from analytics.similar_skill('AUSDT', horizon => '1 minute')", "AP975"),
        ("select * from analytics.similar_states('AUSDT', symbols => array['what'])", "AP101"),
        ("select * from analytics.similar_states('AUSDT', symbols => array[null])", "AP101"),
        ("call analytics.refresh_states(array['what'])", "AP101"),
    ],
)
def test_bad_input_has_a_code_and_a_hint(db: Conn, query: str, code: str) -> None:
    instrument(db, "AUSDT")
    with pytest.raises(psycopg.Error) as caught:
        db.execute(query.encode())
    assert caught.value.sqlstate == code
    assert caught.value.diag.message_hint


def test_nothing_one_bar_and_a_wrong_setting(db: Conn) -> None:
    instrument(db, "AUSDT")
    for rows in (0, 1):
        if rows:
            load(db, "AUSDT", made_bars(1, rows))
        db.execute("call analytics.refresh_states()")
        assert db.execute("select * from analytics.similar_states('AUSDT')").fetchall() == []
        row = db.execute(
            "select moments, probability_up, reason from analytics.similar_outcomes('AUSDT')"
        ).fetchone()
        assert row is not None and row[0] == 0 and row[1] is None and row[2]
        row = db.execute(
            "select forecasts, reason from analytics.similar_skill('AUSDT')"
        ).fetchone()
        assert row is not None and row[0] == 0 and row[1]
    for wrong in ('["1 week"]', '"1 hour"', "[null]"):
        db.execute(
            "update ops.settings set value = %s where name = 'analytics.state_timeframes'", (wrong,)
        )
        with pytest.raises(psycopg.Error) as caught:
            db.execute("call analytics.refresh_states()")
        assert caught.value.sqlstate == "AP976" and caught.value.diag.message_hint


def test_they_answer_where_an_ensemble_sleeps(real: tuple[Conn, Any]) -> None:
    """The fallback member: what followed similar moments, said so, recorded and replayed."""
    db, _ = real
    at = dt.datetime(2025, 8, 20, 6, 20, tzinfo=dt.UTC)
    for name, settings_ in (("bare", "{}"), ("fallen", '{"fallback": "similar_states"}')):
        db.execute(
            "select ml.create_ensemble(%s, 'direction_24h', array['direction_24h'], 'voting', %s)",
            (name, settings_),
        )
    query = (
        "select probability, lower, upper, method, is_fallback, reason from"
        " ml.predict_ensemble('BTCUSDT', as_of => %s, ensemble => %s)"
    )
    bare = db.execute(query, (at, "bare")).fetchone()
    assert bare is not None and bare[0] is None
    said = db.execute(query, (at, "fallen")).fetchone()
    right = db.execute(
        "select probability_up, up_low, up_high, ups from"
        " analytics.similar_outcomes('BTCUSDT', %s, 20, '24 hours')",
        (at,),
    ).fetchone()
    assert said is not None and right is not None
    assert said[0] == right[0] and said[1] <= said[0] <= said[2]
    assert said[3:5] == ("similar_states", True) and f"{right[3]} rose" in said[5]
    # Before there is enough to look through it sleeps too, and says why.
    early = db.execute(query, (dt.datetime(2025, 3, 20, tzinfo=dt.UTC), "fallen")).fetchone()
    assert early is not None and early[0] is None and early[5]
    recorded = db.execute("select ml.record_prediction('fallen', 'BTCUSDT', %s)", (at,)).fetchone()
    assert recorded is not None
    row = db.execute(
        "select p.prediction, p.is_fallback, r from ml.predictions p, ml.replay(%s) r"
        " where p.prediction_id = %s",
        (recorded[0], recorded[0]),
    ).fetchone()
    assert row is not None and row[0] == said[0] and row[1]
    assert str(said[0]) in str(row[2])
    for wrong in ('{"fallback": "dice"}', '{"fallback": null}'):
        with pytest.raises(psycopg.Error) as caught:
            db.execute(
                "select ml.create_ensemble('x', 'direction_24h', array['direction_24h'], 'voting', %s)",
                (wrong,),
            )
        assert caught.value.sqlstate == "AP521"
