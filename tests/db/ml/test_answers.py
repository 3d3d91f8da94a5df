"""Who answers for a time, how surely, and what an answer says of itself."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.conftest import Server
from tests.db import market_data as market
from tests.db import serving as w
from tests.db.serving import at, named, one

Conn = psycopg.Connection[Any]
X, Y = w.synthetic(900)


@pytest.fixture(scope="module")
def shared(db_module: Conn) -> Conn:
    w.install(db_module)
    w.store(db_module, X[:500])
    return db_module


@pytest.fixture
def world(shared: Conn) -> Iterator[Conn]:
    """A transaction of the test's own in one world."""
    with shared.transaction(force_rollback=True):
        yield shared


def ask(db: Conn, minute: float, *more: Any, **named_arguments: Any) -> Any:
    extra = "".join(f", {name} => %s" for name in named_arguments)
    return named(
        db,
        f"select * from ml.predict('fixed', 'AAA', %s{extra})",
        at(int(minute)),
        *named_arguments.values(),
    )


def version(db: Conn, until: int, trees: int = 5, **changes: Any) -> int:
    """A version trained on data up to a minute."""
    return w.register(
        db, w.train(X, Y, trees, seed=until + 1), as_of=at(until).isoformat(),
        train_to=at(until - 5).isoformat(), **changes,
    )  # fmt: skip


def test_nobody_from_the_future_answers_a_back_test(world: Conn) -> None:
    early, late = version(world, 100), version(world, 300)
    # Both are promoted long after the times asked for, as with history that was just loaded.
    world.execute("call ml.promote(%s, 'test', true)", (early,))
    world.execute("call ml.promote(%s, 'test', true)", (late,))
    for minute, expected in ((100, early), (299, early), (300, late), (490, late)):
        found = ask(world, minute)
        assert (found.version_id, found.chosen) == (expected, "trained by then"), minute
        assert found.trained_to == at(100 if expected == early else 300)
        assert not found.in_sample and not found.is_fallback and found.version_number in (1, 2)
    before = ask(world, 99)
    assert (before.version_id, before.chosen, before.is_fallback) == (None, "base rate", True)
    assert f"version {late}" in before.reason and "had ended by then" in before.reason
    asked = ask(world, 99, version=late)
    assert (asked.version_id, asked.chosen, asked.in_sample) == (late, "asked for", True)
    rows = world.execute(
        "select ts, version_id, in_sample from ml.predict_history('fixed', 'AAA', %s, %s,"
        " choose => 'then') order by ts", (at(0), at(500)),
    ).fetchall()  # fmt: skip
    assert [(row[0], row[1]) for row in rows] == [
        (at(i), early if i < 300 else late) for i in range(100, 500)
    ]
    assert not any(row[2] for row in rows)
    many = world.execute(
        "select ts, version_id, prediction from ml.predict_many('fixed', 'select v.symbol, v.ts"
        " from feature.vectors v', choose => 'then') order by ts"
    ).fetchall()
    assert [row[:2] for row in many] == [row[:2] for row in rows]
    stored = named(world, "select * from ml.predict_stored('fixed', 'AAA', %s)", at(200))
    assert (stored.version_id, stored.in_sample, stored.trained_to) == (late, True, at(300))
    now = world.execute(
        "select distinct version_id, in_sample from ml.predict_history('fixed', 'AAA', %s, %s)"
        " order by 2", (at(290), at(310)),
    ).fetchall()  # fmt: skip
    assert now == [(late, False), (late, True)]


def test_who_was_champion_then_answers(world: Conn) -> None:
    first, second = version(world, 0), version(world, 0)
    world.execute("call ml.promote(%s, 'test', true)", (first,))
    # As if it had served from minute 50 on, and the second one from minute 150 on.
    world.execute("set local session_replication_role = replica")
    world.execute("update ml.alias_history set at = %s", (at(50),))
    world.execute("set local session_replication_role = origin")
    world.execute("call ml.promote(%s, 'test', true)", (second,))
    world.execute("set local session_replication_role = replica")
    world.execute("update ml.alias_history set at = %s where version_id = %s", (at(150), second))
    world.execute("update ml.aliases set updated_at = %s", (at(150),))
    world.execute("set local session_replication_role = origin")
    assert [(ask(world, m).version_id, ask(world, m).chosen) for m in (60, 149, 150, 400)] == [
        (first, "champion then"), (first, "champion then"), (second, "champion"),
        (second, "champion"),
    ]  # fmt: skip
    world.execute("call ml.clear_alias('fixed', null, 'champion')")
    assert ask(world, 149).version_id == first
    assert ask(world, 490).version_id == second  # it was in service then


def test_a_lines_first_champion_is_taken_out_of_service(world: Conn) -> None:
    only = version(world, 0)
    world.execute("call ml.promote(%s, 'test', true)", (only,))
    with pytest.raises(psycopg.Error) as caught, world.transaction():
        world.execute("call ml.rollback('fixed', null)")
    assert caught.value.sqlstate == "AP408"
    hint = str(caught.value.diag.message_hint)
    assert "call ml.clear_alias('fixed', NULL, 'champion')" in hint
    world.execute(hint[hint.index("call ") :])  # type: ignore[arg-type]
    assert ask(world, 10).partition_used == "base rate"


SPEC = {
    "output": {"kind": "log_odds"},
    "inputs": {"kind": "row", "features": 28},
    "confidence": {"level": 0.9, "x": [0.2, 0.6], "lower": [0.5, 0.55], "upper": [0.52, 0.7]},
    "support": {"center": [0.0] * 28, "scale": [1.0] * 28, "threshold": 30.0},
}


def test_a_probability_lies_in_its_own_interval(world: Conn) -> None:
    id_ = version(world, 0, spec=SPEC)
    world.execute("call ml.promote(%s, 'test', true)", (id_,))
    rows = world.execute(
        "select p.probability, p.lower, p.upper, p.confidence from generate_series(0, 490, 7) i"
        " cross join lateral ml.predict('fixed', 'AAA', %s + i * interval '1 minute') p", (at(0),),
    ).fetchall()  # fmt: skip
    assert len(rows) > 60 and all(row[1] <= row[0] <= row[2] for row in rows)
    assert any(row[0] < 0.5 for row in rows)  # outside of what the table says
    assert all(math.isclose(row[3], 1 - (row[2] - row[1])) for row in rows)


def test_unknown_features_make_it_less_sure(world: Conn) -> None:
    stats = {"features": {name: {"null_share": float(i >= 20)} for i, name in enumerate(w.NAMES)}}
    id_ = version(world, 0, spec=SPEC, reference_stats=stats)
    world.execute("call ml.promote(%s, 'test', true)", (id_,))
    gone = X[7].copy()

    def without(count: int, first: int = 0) -> Any:
        gone[:] = X[7]
        gone[np.isnan(gone)] = 0.1
        gone[first : first + count] = np.nan
        world.execute(
            "update feature.vectors set values = %s where ts = %s", (gone.tolist(), at(7))
        )
        return ask(world, 7)

    whole, some, most = without(0), without(5), without(16)
    assert (whole.missing_share, some.missing_share) == (0, 0.25)
    assert math.isclose(some.confidence, 1 - (some.upper - some.lower))
    assert some.confidence <= 0.75 and some.lower <= some.probability <= some.upper
    assert not some.out_of_support and some.reason is None
    # What training rows never had is not missed.
    assert without(8, 20).missing_share == 0
    assert most.probability is None and most.out_of_support
    assert most.reason == "16 features are not known, 80 % of those usually known"
    world.execute("update ops.settings set value = '\"flag\"' where name = 'ml.missing_policy'")
    flagged = without(16)
    assert flagged.probability is not None and flagged.out_of_support
    assert flagged.confidence <= 0.2 and flagged.reason
    world.execute("update ops.settings set value = '\"fallback\"' where name = 'ml.missing_policy'")
    assert ask(world, 7).partition_used == "base rate"
    # Nothing known: nothing said, whatever the policy.
    world.execute("update ops.settings set value = '\"flag\"' where name = 'ml.missing_policy'")
    nothing = without(28)
    assert nothing.probability is None and nothing.reason == "no feature is known"
    empty = [None] * 28
    assert one(world, "select ml.predict_version(%s, %s::float8[])", id_, empty) is None
    assert one(world, "select ml.predict_vector('fixed', 'AAA', %s::float8[])", empty) is None
    assert one(world, "select ml.score_many(%s, array[%s::float8[]])", id_, empty) == [None]
    stored = named(world, "select * from ml.predict_stored('fixed', 'AAA', %s)", at(7))
    assert stored.prediction is None


def test_void_vectors_are_served_by_nobody(world: Conn) -> None:
    id_ = version(world, 0)
    world.execute("call ml.promote(%s, 'test', true)", (id_,))
    world.execute(
        "insert into feature.pending (set_id, symbol, ts_from, ts_to, reason)"
        " select set_id, 'AAA', %s, %s, 'test' from feature.sets where name = 'fixed'",
        (at(10), at(12)),
    )
    keys = "'select v.symbol, v.ts from feature.vectors v'"
    for query in (
        "select ts from generate_series(%s, %s, interval '1 minute') ts"
        " cross join lateral ml.predict_stored('fixed', 'AAA', ts)",
        f"select ts from ml.predict_many('fixed', {keys}) where ts between %s and %s order by ts",
        "select ts from ml.predict_history('fixed', 'AAA', %s, %s + interval '1 minute') order by ts",
    ):
        rows = world.execute(query, (at(8), at(14))).fetchall()
        assert [row[0] for row in rows] == [at(i) for i in (8, 9, 13, 14)], query
    reasons = world.execute(
        f"select reason from ml.predict_many('fixed', {keys}, on_error => 'null')"
        " where ts between %s and %s order by ts", (at(9), at(13)),
    ).fetchall()  # fmt: skip
    assert reasons == [(None,), *[("no valid vector is stored",)] * 3, (None,)]


def test_one_bad_symbol_or_time_does_not_end_a_query(world: Conn) -> None:
    id_ = version(world, 0, symbol="AAA")
    world.execute("call ml.promote(%s, 'test', true)", (id_,))
    rows = world.execute(
        "select s, t::text, p.prediction, p.reason, p.is_fallback from unnest(array['AAA', 'BBB', 'NOPE']) s"
        " cross join unnest(array[%s, timestamptz '2020-01-01', 'infinity']) t"
        " cross join lateral ml.predict('fixed', s, t, on_error => 'null') p", (at(5),),
    ).fetchall()  # fmt: skip
    assert len(rows) == 9
    ages = {"infinity": 2, "2020-01-01 00:00:00+00": 1}
    said = {(row[0], ages.get(row[1], 0)): row[2:] for row in rows}
    assert said["AAA", 0][0] is not None and said["AAA", 0][1] is None
    assert said["BBB", 0][1].startswith("no promoted version")
    assert said["AAA", 1][1].startswith("no data for AAA at 2020") and said["AAA", 1][2]
    assert "begin at" in said["AAA", 1][1]  # since when there are data
    assert "NOPE" in said["NOPE", 0][1] and said["NOPE", 2][0] is None
    again = world.execute("select * from ml.try_predict('fixed', 'NOPE', %s)", (at(5),)).fetchall()
    assert (
        again
        == world.execute(
            "select * from ml.predict('fixed', 'NOPE', %s, on_error => 'null')", (at(5),)
        ).fetchall()
    )
    history = world.execute(
        "select i.symbol, count(h.prediction), min(h.reason) from market.instruments i cross join"
        " lateral ml.predict_history('fixed', i.symbol, %s, %s, on_error => 'null') h"
        " group by 1 order by 1", (at(0), at(9)),
    ).fetchall()  # fmt: skip
    assert history == [
        ("AAA", 9, None), ("BBB", 0, "no version of model fixed may answer for BBB"),
    ]  # fmt: skip
    for call in (
        "predict_liquidation('AAA', '15 min', '2020-01-01'",
        "forecast_order_book('AAA', '1 min', '2020-01-01'",
    ):
        row = named(world, f"select * from ml.{call}, on_error => 'null')")
        assert "no data" in row.reason


def test_messages_are_plain_and_names_do_not_collide(world: Conn) -> None:
    id_ = version(world, 0)
    world.execute("call ml.promote(%s, 'test', true)", (id_,))

    def refused(query: str) -> psycopg.Error:
        with pytest.raises(psycopg.Error) as caught, world.transaction():
            world.execute(query)  # type: ignore[arg-type]
        return caught.value

    text = "{" + ",".join(["0.5"] * 28) + "}"
    found = refused(f"select ml.predict('fixed', '{text}')")
    assert found.sqlstate == "AP513" and "predict_features" in str(found.diag.message_hint)
    assert one(world, f"select ml.predict_features('fixed', '{text}')") == one(
        world, "select ml.predict('fixed', %s::float8[])", [0.5] * 28
    )
    assert refused("select * from ml.predict('fixed', 'AAA', on_error => 'x')").sqlstate == "AP512"
    other = "select * from ml.predict('fixed', 'AAA', '2026-01-01 00:05+00', 99)"
    assert refused(other).sqlstate == "AP511"


def test_a_version_that_fails_at_scoring_leaves_it_to_the_next(world: Conn) -> None:
    pooled = version(world, 0)
    world.execute("call ml.promote(%s, 'test', true)", (pooled,))
    own = version(world, 0, symbol="AAA")
    world.execute("call ml.promote(%s, 'test', true)", (own,))
    # What the trial at registration would have refused.
    world.execute("set local session_replication_role = replica")
    world.execute(
        "update ml.model_versions set spec = spec || '{\"calibration\":"
        " {\"method\": \"isotonic\", \"x\": [], \"y\": []}}' where version_id = %s", (own,),
    )  # fmt: skip
    world.execute("set local session_replication_role = origin")
    found = ask(world, 5)
    assert (found.version_id, found.is_fallback) == (pooled, True)
    assert found.reason.startswith(f"version {own}: it failed")


def test_a_version_that_is_gone_is_not_answered_from_the_cache(db: Conn, server: Server) -> None:
    w.install(db)
    w.store(db, X[:20])
    vector = np.nan_to_num(X[0]).tolist()
    asks = (
        "select ml.predict_version(%s, %s)", "select (ml.score_version(%s, %s)).raw",
        "select ml.score_many(%s, array[%s])", "select count(*) from ml.explain_version(%s, %s)",
    )  # fmt: skip

    def gone(conn: Conn, id_: int) -> None:
        for query in asks:
            with pytest.raises(psycopg.Error) as caught:
                one(conn, query, id_, vector)
            assert caught.value.sqlstate == "AP501", query

    with psycopg.connect(server.conninfo(db.info.dbname), autocommit=True) as other:
        other.execute("begin")
        undone = version(other, 0)
        for query in asks:
            one(other, query, undone, vector)
        other.execute("rollback")
        gone(other, undone)
        id_ = version(db, 0)
        assert id_ > undone
        for query in asks:
            one(other, query, id_, vector)
        db.execute("delete from ml.model_versions where version_id = %s", (id_,))
        gone(other, id_)
        assert version(db, 0) > id_
        # Within one statement too.
        with pytest.raises(psycopg.Error) as caught:
            other.execute(
                "do $$ declare v bigint; begin"
                " begin insert into ml.model_versions (model, version, algorithm, task, format, artifact,"
                " sha256, feature_set, feature_version, feature_sha256, features, label, horizon,"
                " train_from, train_to, as_of, row_count, training_sha256, library_versions,"
                " code_version, expires_after) select model, version + 1, algorithm, task, format,"
                " artifact, sha256, feature_set, feature_version, feature_sha256, features, label,"
                " horizon, train_from, train_to, as_of, row_count, training_sha256, library_versions,"
                " code_version, expires_after from ml.model_versions limit 1 returning version_id"
                " into v; perform ml.predict_version(v, array_fill(0.5::float8, array[28]));"
                " raise sqlstate 'U0001'; exception when sqlstate 'U0001' then null; end;"
                " perform ml.predict_version(v, array_fill(0.5::float8, array[28])); end $$"
            )
        assert caught.value.sqlstate == "AP501"


class Market:
    """Trades, books and a liquidation model, as far as serving needs them."""

    def __init__(self, db: Conn) -> None:
        self.db = db
        market.fill(db, "AAAUSDT", 300, per_minute=3.0)
        db.execute("call market.refresh_aggregates()")


def staleness(db: Conn, symbol: str, minute: float) -> Any:
    return one(
        db, "select ml._data_until(%s, interval '1 minute', %s, interval '61 minutes')", symbol,
        market.at(minute),
    )  # fmt: skip


def test_what_was_known_then_says_how_old_the_data_are(db: Conn) -> None:
    Market(db)
    times = (90, 150, 210, 290)
    before = [staleness(db, "AAAUSDT", m) for m in times]
    assert all(market.at(m) - found < dt.timedelta(minutes=5) for m, found in zip(times, before, strict=True))  # fmt: skip
    # A correction: the rows are known anew from now on, and were known then.
    db.execute(
        "update market.trades set price = price * 1.01 where ts between %s and %s",
        (market.at(60), market.at(240)),
    )
    assert [staleness(db, "AAAUSDT", m) for m in times] == before
    db.execute(
        "delete from market.trades where ts between %s and %s", (market.at(60), market.at(99))
    )
    assert [staleness(db, "AAAUSDT", m) for m in times] == before
    # A symbol that has books only.
    market.instrument(db, "BOOKUSDT")
    db.execute(
        "insert into market.order_book_snapshots (symbol, ts, sequence, known_at, bid_prices,"
        " bid_sizes, ask_prices, ask_sizes) select 'BOOKUSDT', ts, sequence, known_at, bid_prices,"
        " bid_sizes, ask_prices, ask_sizes from market.order_book_snapshots where symbol = 'AAAUSDT'"
    )
    assert staleness(db, "BOOKUSDT", 150) == market.at(149.5)
    row = named(db, "select * from ml.forecast_order_book('BOOKUSDT', '1 min', %s)", market.at(150))
    assert row.staleness_s == 30 and row.spread_bps is not None


def test_dropped_rows_are_still_known_by_what_was_made_of_them(db: Conn) -> None:
    market.fill(db, "AAAUSDT", 3000, per_minute=1.0)
    db.execute("call market.refresh_aggregates()")
    before = staleness(db, "AAAUSDT", 700)
    db.execute("call market.drop_rows('trades', %s)", (market.at(2880),))
    assert one(db, "select count(*) from market.trades where ts < %s", market.at(1440)) == 0
    assert staleness(db, "AAAUSDT", 700) == before


def test_after_a_late_row_each_reader_answers_as_if_computed_now(db: Conn) -> None:
    """Before any refresh: what the vectors would be now, or nothing."""
    market.fill(db, "AAAUSDT", 240, per_minute=3.0)
    db.execute("call market.refresh_aggregates()")
    names = one(
        db,
        "select features from feature.sets where name = 'liquidation' order by version desc limit 1",
    )
    rng = np.random.default_rng(1)
    x = rng.normal(size=(800, len(names)))
    booster = w.train(x, (x.sum(axis=1) > 0).astype(float), 60)
    w.register(
        db, booster, "liquidation_15m", features=names, promote=True,
        as_of=market.at(60).isoformat(), train_to=market.at(50).isoformat(),
    )  # fmt: skip
    span = (market.at(100), market.at(200))
    db.execute("call feature.materialise('liquidation', 'AAAUSDT', %s, %s)", span)
    for seed in range(3):
        minute = float(rng.uniform(90, 180))
        db.execute(
            "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
            " values ('AAAUSDT', %s, %s, %s, %s, 50, 'buy')",
            (market.at(minute), f"late-{seed}", market.at(minute), float(rng.uniform(90, 110))),
        )
        db.execute(
            "insert into market.liquidation_events (symbol, ts, event_id, known_at, side, price,"
            " size, notional) values ('AAAUSDT', %s, %s, %s, 'sell', 100, 9, 900)",
            (market.at(minute + 3), f"late-{seed}", market.at(minute + 3)),
        )
        db.execute("update market.trades set size = size * 2 where ts between %s and %s",
                   (market.at(minute - 20), market.at(minute - 19)))  # fmt: skip
        truth = {}
        with db.transaction(force_rollback=True):
            db.execute("delete from feature.pending")
            db.execute("delete from feature.vectors")
            for m in range(100, 200, 3):
                truth[market.at(m)] = one(
                    db, "select ml.predict_features('liquidation_15m', feature.vector('liquidation',"
                    " 'AAAUSDT', %s))", market.at(m),
                )  # fmt: skip
        live = dict(db.execute(
            "select t, p.prediction from unnest(%s::timestamptz[]) t cross join lateral"
            " ml.predict('liquidation_15m', 'AAAUSDT', t) p", (list(truth),),
        ).fetchall())  # fmt: skip
        assert live == truth
        valid = 0
        for query in (
            "select t, p.prediction from unnest(%s::timestamptz[]) t cross join lateral"
            " ml.predict_stored('liquidation_15m', 'AAAUSDT', t) p",
            "select ts, prediction from ml.predict_history('liquidation_15m', 'AAAUSDT',"
            " (%s::timestamptz[])[1], 'infinity')",
            "select ts, prediction from ml.predict_many('liquidation_15m', 'select v.symbol, v.ts"
            " from feature.vectors v') where ts = any (%s)",
        ):
            for ts, prediction in db.execute(query, (list(truth),)):
                if ts in truth:
                    assert prediction == truth[ts], (query, ts)
                    valid += 1
        some = market.at(100 + 3 * int(rng.integers(30)))
        explained = db.execute(
            "select sum(contribution) from ml.explain('liquidation_15m', 'AAAUSDT', %s)", (some,)
        ).fetchone()
        assert explained is not None
        assert 1 / (1 + math.exp(-explained[0])) == pytest.approx(truth[some], rel=1e-9)
    assert valid < 3 * 34  # some were void


def test_base_rates_are_kept_and_late_rows_take_them_away(db: Conn) -> None:
    db.execute(
        "update ml.labels set params = params || '{\"lookback_days\": 0.1}' where kind = 'liquidation'"
    )
    market.fill(db, "AAAUSDT", 400, per_minute=1.0)
    db.execute("call market.refresh_aggregates()")
    db.execute(
        "insert into feature.watermarks (set_id, symbol, since, through)"
        " select set_id, 'AAAUSDT', %s, %s from feature.sets where name = 'liquidation'"
        " order by version desc limit 1", (market.at(0), market.at(400)),
    )  # fmt: skip
    query = "select ml._base_rate('liquidation_15m', 'AAAUSDT', '1 minute', %s)"
    computed = [one(db, query, market.at(m)) for m in (330, 345, 359)]
    assert computed[0] == computed[1] == computed[2] is not None  # of the last half hour
    db.execute(
        "call ml.keep_base_rates('liquidation_15m', 'AAAUSDT', %s, %s)",
        (market.at(270), market.at(360)),
    )
    kept = "select as_of, base_rate from ml.base_rates order by as_of"
    rows = db.execute(kept).fetchall()
    assert [row[0] for row in rows] == [market.at(m) for m in (270, 300, 330, 360)]
    assert dict(rows)[market.at(330)] == computed[0]
    assert one(db, query, market.at(345)) == computed[0]
    # It is read, not computed.
    db.execute("update ml.base_rates set base_rate = 0.5")
    assert one(db, query, market.at(345)) == 0.5
    # Rows of a history load, known at a time gone by.
    db.execute(
        "insert into market.liquidation_events (symbol, ts, event_id, known_at, side, price, size,"
        " notional) values ('AAAUSDT', %s, 'late', %s, 'sell', 1, 1, 1e9)",
        (market.at(310), market.at(310)),
    )
    assert [row[0] for row in db.execute(kept)] == [market.at(270), market.at(300)]


# Several at once where they have nothing to do with each other.
SETTINGS = (
    "intervalstyle = 'iso_8601'",
    "intervalstyle = 'sql_standard'; set datestyle = 'German, DMY'; set bytea_output = 'escape'",
    "timezone = 'Pacific/Chatham'; set datestyle = 'SQL, MDY'; set extra_float_digits = -10",
    "timezone = 'America/New_York'; set extra_float_digits = 0; set xmlbinary = 'hex'",
    "enable_hashagg = off; set enable_nestloop = off; set enable_indexscan = off",
    "enable_sort = off; set enable_seqscan = off; set enable_hashjoin = off; set enable_memoize = off",
    "work_mem = '64kB'; set plan_cache_mode = 'force_generic_plan'; set from_collapse_limit = 1",
    "plan_cache_mode = 'force_custom_plan'; set jit = on; set jit_above_cost = 0; set geqo_threshold = 2",
    "default_transaction_isolation = 'serializable'; set array_nulls = off; set backslash_quote = on",
    "debug_parallel_query = 'on'; set parallel_setup_cost = 0; set parallel_tuple_cost = 0",
    "constraint_exclusion = on; set standard_conforming_strings = off; set transform_null_equals = on",
    "client_encoding = 'LATIN1'; set lc_messages = 'C'; set lc_numeric = 'C'",
)


def plain(value: Any) -> Any:
    """A value whose text does not depend on the time zone it came in; floats to the last bit."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def test_no_session_setting_changes_an_answer(db: Conn, server: Server) -> None:
    """Every public function that reads, under every setting that changes how values are written
    or read, or how queries are planned: the same answer to the last bit."""
    Market(db)
    names = one(
        db,
        "select features from feature.sets where name = 'liquidation' order by version desc limit 1",
    )
    rng = np.random.default_rng(1)
    x = rng.normal(size=(600, len(names)))
    for model, target, more in (
        ("liquidation_15m", (x[:, 0] > 0).astype(float), {}),
        ("liquidation_volume_15m", np.exp(x[:, 0]), {"objective": "regression"}),
    ):
        w.register(
            db, w.train(x, target, 5, **more), model, features=names, promote=True,
            as_of=market.at(100).isoformat(), train_to=market.at(90).isoformat(),
            spec={"output": {"kind": "identity"}} if more else {"output": {"kind": "log_odds"}},
        )  # fmt: skip
    when = f"timestamptz '{market.at(207.5)}'"
    span = f"timestamptz '{market.at(200)}', timestamptz '{market.at(206)}'"
    vector = f"feature.vector('liquidation', 'AAA/USDT', {when})"
    queries = [
        f"select * from feature.technical('AAAUSDT', {when})",
        f"select * from feature.technical('AAAUSDT', {when}, '1 hour')",
        f"select * from feature.technical_history('AAAUSDT', {span}, '1 minute')",
        f"select * from feature.patterns('AAAUSDT', {when})",
        f"select * from feature.patterns_history('AAAUSDT', {span}, '1 minute') order by 2, 3",
        f"select * from feature.liquidation('AAAUSDT', {when})",
        f"select * from feature.liquidation_history('AAAUSDT', {span})",
        f"select * from feature.order_book('AAAUSDT', {when})",
        f"select * from feature.microstructure('AAAUSDT', {when})",
        f"select feature.vector(array['liquidation', 'order_book'], 'AAAUSDT', {when})",
        f"select {vector}",
        f"select feature.vector('technical_1m', 'AAAUSDT', {when})",
        f"select * from ml.predict('liquidation_15m', 'AAA/USDT', {when})",
        f"select * from ml.predict('liquidation_15m', 'AAA/USDT', timestamptz '{market.at(50)}')",
        f"select * from ml.predict_liquidation('AAAUSDT', interval '15 minutes', {when})",
        f"select * from ml.forecast_order_book('AAAUSDT', interval '1 minute', {when})",
        f"select * from ml.explain('liquidation_15m', 'AAAUSDT', {when})",
        f"select ml.predict_vector('liquidation_15m', 'AAAUSDT', {vector})",
        f"select * from ml.enhance_pattern('AAAUSDT', null, {when})",
        f"select * from ml.label_values('direction_15m', 'AAAUSDT', {span})",
        f"select * from ml.label_values('liquidation_volume_15m', 'AAAUSDT', {span})",
        f"select symbol, ts, label_end, features, target from ml.training_set('liquidation_volume_15m',"
        f" 'AAAUSDT', timestamptz '{market.at(290)}', {span})",
        f"select n, ts, vectors from feature.matrix('liquidation', array['AAAUSDT'], {span})",
        f"select * from ml.predict('liquidation_15m', 'NOPE', {when}, on_error => 'null')",
        "select * from ml.predict('liquidation_15m', 'AAAUSDT', '2020-01-01 00:00+00', on_error => 'null')",
        f"select symbol, bucket, volume, quote_volume from market.trades_1m where bucket < {when} order by 2",
    ]

    def answers(setting: str | None) -> list[Any]:
        with psycopg.connect(server.conninfo(db.info.dbname), autocommit=True) as fresh:
            if setting:
                fresh.execute(f"set {setting}")  # type: ignore[arg-type]
            found: list[Any] = []
            for query in queries:
                with fresh.cursor(binary=True) as cursor:
                    found.append(cursor.execute(query).fetchall())  # type: ignore[arg-type]
            return found

    expected = answers(None)
    assert all(len(rows) for i, rows in enumerate(expected) if i not in (3, 4, 18))
    wrong = []
    for setting in SETTINGS:
        for query, found, right in zip(queries, answers(setting), expected, strict=True):
            if repr(plain(found)) != repr(plain(right)):
                wrong.append((setting, query))
    assert not wrong, "\n".join(map(str, wrong))
