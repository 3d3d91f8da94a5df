"""Feature sets of users: refused where they would lie, and otherwise like any other set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from alphaplus import migrations as applier
from alphaplus.trainer import data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.conftest import Server
from tests.db import lifecycle
from tests.db.market_data import at, fill

Conn = psycopg.Connection[Any]
SYMBOL = "AAAUSDT"
MINUTES = 700
FLOW = """
with minutes as (
    select
        public.time_bucket('1 minute', t.ts) + interval '1 minute' as closed,
        sum(case t.side when 'buy' then t.size else -t.size end) as net,
        sum(t.size) as size,
        public.last(t.price, t.ts) as price
    from market.trades t
    group by 1
)
select
    closed - interval '1 microsecond' as ts,
    net / size as imbalance,
    sum(net) over w as net_15,
    ln(price / lag(price, 5) over (order by closed)) as r5,
    price > avg(price) over w as above_mean
from minutes
window w as (order by closed rows 14 preceding)
"""
NAMES = ["imbalance", "net_15", "r5", "above_mean"]
BOOKS = "from market.order_book_snapshots"


def create(conn: Conn, name: str, query: str | None, lookback: str = "1 hour", **more: Any) -> int:
    named = "".join(f", {key} => %s" for key in more)
    row = conn.execute(
        f"select feature.create_set(%s, %s, %s{named})", (name, query, lookback, *more.values())
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture(scope="module")
def market(db_module: Conn) -> Iterator[Conn]:
    conn = db_module
    conn.execute("set client_min_messages = warning")
    fill(conn, SYMBOL, MINUTES, seed=3, latency=0.2, gaps=((300, 310),))
    fill(conn, "BBBUSDT", 300, seed=4)
    # Rows that became known an hour late, and corrections half an hour late.
    conn.execute(
        "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
        " select %s, %s::timestamptz + g * interval '1 minute', 'late' || g,"
        "  %s::timestamptz + g * interval '1 minute' + interval '1 hour', 101, 50, 'buy'"
        " from generate_series(0, 20) g",
        (SYMBOL, at(320), at(320)),
    )
    conn.execute(
        "update market.trades set size = size * 2, known_at = ts + interval '30 minutes'"
        " where symbol = %s and ts between %s and %s",
        (SYMBOL, at(200), at(205)),
    )
    conn.execute("call market.refresh_aggregates()")
    create(conn, "flow", FLOW, description="Order flow of a quarter of an hour")
    yield conn


def live(conn: Conn, minute: float, name: str = "flow", symbol: str = SYMBOL) -> list[float]:
    row = conn.execute("select feature.vector(%s, %s, %s)", (name, symbol, at(minute))).fetchone()
    assert row is not None
    return [np.nan if x is None else x for x in row[0]]


def plain(conn: Conn, minute: int) -> list[float]:
    """The set at a minute, in Python, from the trades as they were known then."""
    rows = conn.execute(
        "select ts, price, size, side from market.trades where symbol = %(s)s and ts < %(t)s"
        " and ts >= %(t)s - interval '1 hour' and known_at <= %(t)s"
        " union all select ts, price, size, side from market.trades_history where symbol = %(s)s"
        " and ts < %(t)s and ts >= %(t)s - interval '1 hour' and known_at <= %(t)s"
        " and superseded_at > %(t)s order by 1",
        {"s": SYMBOL, "t": at(minute)},
    ).fetchall()
    by: dict[int, list[Any]] = {}
    for row in rows:
        by.setdefault(int((row[0] - at(0)).total_seconds() // 60), []).append(row)
    if minute - 1 not in by:
        return [np.nan] * 4
    minutes = sorted(by)
    net = [sum(r[2] if r[3] == "buy" else -r[2] for r in by[m]) for m in minutes]
    price = [by[m][-1][1] for m in minutes]
    return [
        net[-1] / sum(r[2] for r in by[minutes[-1]]),
        sum(net[-15:]),
        np.log(price[-1] / price[-6]) if len(price) > 5 else np.nan,
        float(price[-1] > np.mean(price[-15:])),
    ]


def test_a_set_is_its_select_on_what_was_known(market: Conn) -> None:
    minutes = [*range(100, MINUTES, 37), 205, 231, 241, 305, 311, 345, 379, 381]
    for minute in minutes:
        np.testing.assert_allclose(
            live(market, minute), plain(market, minute), rtol=1e-9, atol=1e-12
        )
    history = dict(
        market.execute(
            "select ts, (imbalance, net_15, r5, above_mean)::text from feature.flow_history(%s, %s, %s)",
            (SYMBOL, at(100), at(MINUTES)),
        ).fetchall()
    )
    assert len(history) > 550
    for minute in minutes:
        row = market.execute(
            "select (imbalance, net_15, r5, above_mean)::text from feature.flow(%s, %s)",
            (SYMBOL, at(minute)),
        ).fetchone()
        assert row is not None
        assert history.get(at(minute), "(,,,)") == row[0], "live is history to the last digit"


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    minute=st.integers(110, MINUTES - 40),
    change=st.sampled_from(["append", "alter", "delete", "correct", "backfill"]),
    back=st.integers(1, 50),
)
def test_nothing_that_comes_later_changes_a_vector(
    market: Conn, minute: int, change: str, back: int
) -> None:
    before = live(market, minute)
    with market.transaction(force_rollback=True):
        if change == "append":
            fill(market, SYMBOL, 20, seed=minute + 1000, start=minute)
        elif change == "alter":
            market.execute(
                "update market.trades set size = size * 9 where symbol = %s and ts >= %s",
                (SYMBOL, at(minute)),
            )
        elif change == "delete":
            market.execute(
                "delete from market.trades where symbol = %s and ts >= %s", (SYMBOL, at(minute))
            )
        elif change == "correct":
            market.execute(
                "update market.trades set size = size * 9 where symbol = %s and ts between %s and %s",
                (SYMBOL, at(minute - back), at(minute)),
            )
        else:
            market.execute(
                "insert into market.trades (symbol, ts, trade_id, price, size, side)"
                " values (%s, %s, 'b', 100, 77, 'buy')",
                (SYMBOL, at(minute - back)),
            )
        # A sum in the user's SQL may add the rows of a correction in another order.
        np.testing.assert_allclose(live(market, minute), before, rtol=1e-12)


REFUSED = [
    ("delete from market.trades", "AP204", "DELETE"),
    ("select ts, price as p from market.trades; select 1", "AP204", "2 statements"),
    ("select ts, version_id as p from ml.model_versions", "AP204", "ml.model_versions is not known"),
    ("select ts, price as p from market.trades_history", "AP204", "not known"),
    ("select ts, price as p, pg_sleep(1) as s from market.trades", "AP204", "pg_sleep"),
    ("select ts, length(current_setting('data_directory')) as p from market.trades", "AP204", "current_setting"),
    ("select ts, ml.champion('a', 'b') as p from market.trades", "AP204", "champion"),
    ("select ts, length(table_to_xml('ml.models', true, true, '')::text) as p from market.trades", "AP204", "table_to_xml"),
    (None, "AP204", "0 statements"),
    ("select price as p from market.trades", "AP204", "no column ts"),
    ("select ts from market.trades", "AP204", "a feature"),
    ("select ts, price, price from market.trades", "AP204", "name of its own"),
    ("select ts, side as p from market.trades", "AP204", "not a number"),
    ("select ts, nosuch as p from market.trades", "AP204", "nosuch"),
    ("select ts, price + $1 as p from market.trades", "AP204", "parameter"),
    ("select ts, lead(price) over (order by ts) as p from market.trades", "AP205", "LEAD"),
    (
        "select ts,\n avg(price) over (order by ts rows between 2 preceding and 2 following) as p"
        "\n from market.trades",
        "AP205",
        "line 2",
    ),
    ("select ts, price * extract(epoch from now()) as p from market.trades", "AP205", "when the query runs"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "code", "words"), REFUSED)
def test_what_is_refused_and_why(market: Conn, query: str | None, code: str, words: str) -> None:
    with pytest.raises(psycopg.Error) as refused:
        create(market, "bad", query)
    error = refused.value
    assert error.sqlstate == code, error
    assert words in f"{error.diag.message_primary} {error.diag.message_detail}"
    assert error.diag.message_hint
    assert market.execute("select 1 from feature.sets where name = 'bad'").fetchone() is None


@pytest.mark.parametrize(
    "query",
    [
        "select ts, price as p from market.trades -- to the end of the line",
        "SELECT TS, Price AS P FROM Market.Trades",
        "select ts, length(E'a\\' market.trades) as u; --') + price as p from market.trades",
        "select ts, price /* market.trades /* */ ) */ as p from market.trades",
    ],
)
def test_how_it_is_written_does_not_matter(market: Conn, query: str) -> None:
    create(market, "written", query)
    assert live(market, 120, "written")[0] > 0
    market.execute("select feature.drop_set('written')")


# What a SELECT would read that escaped the check. In each, the parser sees another text than the server
# (a no-break space is a blank to one and a letter to the other), or the row was written by hand.
ESCAPES = {
    "the future": '(select max(t.price) from market."trades" t)',
    "the future by its history": "(select count(*) from market.trades_history)",
    "the future by the function": "(select count(*) from market._trades_known('AAAUSDT', '-infinity', 'infinity', 'infinity'))",
    "another moment": "(select count(*) from feature._moment(null))",
    "another table": "(select count(*) from ml.predictions)",
    "the artifacts": "(select count(artifact) from ml.model_versions)",
    "a file": "length(pg_read_file('/etc/passwd'))",
    "a chunk": "(select count(*) from only CHUNK)",
    "vectors": "(select count(*) from feature.vectors)",
    "sets": "(select count(*) from feature.sets)",
    "settings": "(select count(*) from ops.settings)",
    "passwords": "(select count(*) from pg_catalog.pg_authid)",
    "statistics": "(select count(*) from pg_catalog.pg_statistic)",
    "by a name": "length(query_to_xml('select * from market.trades', true, false, '')::text)",
    "a function of ours": "(select 1 from feature.create_set('x', 'y', '1 hour'))",
    "features": "(select count(*) from feature.liquidation('AAAUSDT'))",
    "another role": "length(set_config('role', 'alphaplus_owner', false))",
    "a large object": "(select count(*) from pg_catalog.pg_largeobject)",
}


@pytest.mark.parametrize("what", ESCAPES)
def test_a_select_reaches_nothing_but_its_moment(market: Conn, what: str) -> None:
    """Past the check, whoever computes and whoever stores."""
    nbsp = "\u00a0"
    chunk = market.execute(
        "select min(c::text) from public.show_chunks('market.trades') c"
    ).fetchone()
    assert chunk is not None
    expression = ESCAPES[what].replace("CHUNK", chunk[0])
    hidden = (
        f'select q.ts, not{nbsp}$T$ + {expression} as p from (select ts, 0 as "not{nbsp}$t$"'
        f" from market.order_book_snapshots) q -- $T$ as p from (select ts, 0 as x {BOOKS} group by ts) q\n"
    )
    plain_ = f"select ts, {expression} as p {BOOKS}"
    market.execute("delete from feature.sets where name = 'past'")
    # (quoted, a table is rewritten like any other where the parser sees it)
    for number, query in enumerate((hidden, plain_)[: 1 if what == "the future" else 2], 1):
        market.execute(
            "insert into feature.sets (name, version, features, definition, kind, lookback, sha256)"
            " values ('past', %s, '{p}', %s, 'select', '1 hour', '')",
            (number, query),
        )
        for statement in (
            "select feature.vector('past', %s, %s) where %s is not null",
            "call feature.materialise('past', %s, %s, %s)",
            "select * from feature.audit_lookahead('past', %s, %s, %s)",
        ):
            with pytest.raises(psycopg.Error) as denied:
                market.execute(statement, (SYMBOL, at(120), at(123)))
            assert any(
                words in str(denied.value)
                for words in ("permission denied", "cannot set parameter", "out of range")
            ), denied.value
    market.execute("delete from feature.sets where name = 'past'")


def test_the_case_of_the_no_break_space(market: Conn) -> None:
    """Whether the check takes it or not, no vector of it is to be had (case S3)."""
    nbsp = "\u00a0"
    query = (
        f"select q.ts, not{nbsp}$T$ + (select max(t.price) from market.trades t where"
        " t.symbol = 'BBBUSDT' and t.ts > '2020-01-01') + (select count(*) from ml.predictions) as f"
        f' from (select ts, 0 as "not{nbsp}$t$" from market.candles union all select'
        f" '{at(119)}', 0) q -- $T$ as f from (select ts, 0 as x from market.trades group by ts) q\n"
    )
    with pytest.raises(psycopg.Error):
        create(market, "leak", query, "1 day", grid="1 day")
        market.execute("select feature.vector('leak', %s, %s)", (SYMBOL, at(120)))
    market.execute("select feature.drop_set(name) from feature.sets where name = 'leak'")


def test_the_rows_of_a_moment_are_nobody_s_to_ask_for(
    market: Conn, connect_as: Callable[[str, str], Conn]
) -> None:
    for role in ("reader", "app", "operator", "loader", "trainer"):
        conn = connect_as(f"alphaplus_{role}", market.info.dbname)
        for statement in (
            "select * from market._trades_now()",
            "select * from feature._moment(null)",
            "select * from feature._set_columns('select 1')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement)  # type: ignore[call-overload]
    with pytest.raises(psycopg.Error) as error:
        market.execute("select * from market._trades_now()")
    assert error.value.sqlstate == "AP721"
    conn = connect_as("alphaplus_reader", market.info.dbname)
    with pytest.raises(psycopg.Error) as error:
        conn.execute("select * from feature._set_rows(1, 'AAAUSDT', '{0}', 1, null)")
    assert error.value.sqlstate == "AP202"


def test_the_select_s_role_reads_no_table(market: Conn) -> None:
    """But PostgreSQL's and the extensions' own, which are everybody's."""
    rows = market.execute(
        "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname = any(%s)"
        " and has_any_column_privilege('alphaplus_select', c.oid, 'select, insert, update')"
        " union all select p.oid::regprocedure::text from pg_proc p join pg_namespace n"
        " on n.oid = p.pronamespace where n.nspname = any(%s)"
        " and has_function_privilege('alphaplus_select', p.oid, 'execute')"
        " and p.proowner <> 'alphaplus_select'::regrole and p.proname not like '\\_%%\\_now'"
        " and not (n.nspname = 'feature' and p.provolatile = 'i' and p.proname in ("
        "'safe_div', 'safe_ln', 'zscore', 'ewma', 'quantile', 'time_of_day', 'session_start', '_zone'))",
        (applied := [*applier.SCHEMAS, "procrastinate", "optuna"], applied),
    ).fetchall()
    assert rows == []


@pytest.mark.parametrize(
    ("name", "lookback", "grid"),
    [
        ("Bad", "1 hour", "1 minute"),
        ("vector", "1 hour", "1 minute"),
        ("liquidation", "1 hour", "1 minute"),
        ("fine", "0", "1 minute"),
        ("fine", "1000 days", "1 minute"),
        ("fine", "1 hour", "7 minutes"),
    ],
)
def test_wrong_names_and_spans(market: Conn, name: str, lookback: str, grid: str) -> None:
    with pytest.raises(psycopg.Error) as refused:
        create(market, name, f"select ts, bid_prices[1] as b {BOOKS}", lookback, grid=grid)
    assert refused.value.sqlstate == "AP203"


@pytest.mark.parametrize("formulas", ["[1]", '"x"', '{"nosuch": "x"}'])
def test_formulas_are_of_features(market: Conn, formulas: str) -> None:
    query = f"select ts, bid_prices[1] as b {BOOKS}"
    with pytest.raises(psycopg.Error) as refused:
        create(market, "fine", query, formulas=formulas)
    assert refused.value.sqlstate == "AP203"
    assert refused.value.diag.message_hint
    create(market, "fine", query, description=None, formulas='{"b": "best bid"}', unchecked=None)
    formula = "select formula from feature.definitions where feature_set = 'fine'"
    assert market.execute(formula).fetchall() == [("best bid",)]
    market.execute("select feature.drop_set('fine')")


LEAKS = {
    "lead": "lead(bid_prices[1], 3) over (order by ts)",
    "centred": "avg(bid_prices[1]) over (order by ts rows between 5 preceding and 5 following)",
    "z_score": "(bid_prices[1] - avg(bid_prices[1]) over ()) / stddev(bid_prices[1]) over ()",
}


@pytest.mark.parametrize("kind", list(LEAKS))
def test_a_leak_is_caught_by_the_linter_and_by_the_audit(market: Conn, kind: str) -> None:
    query = f"select ts, {LEAKS[kind]} as leak, bid_prices[1] as honest {BOOKS}"
    if kind != "z_score":  # it reads no later row: the audit tells what it would be, could it
        with pytest.raises(psycopg.Error) as refused:
            create(market, f"leak_{kind}", query, "20 hours")
        assert refused.value.sqlstate == "AP205"
    create(market, f"leak_{kind}", query, "20 hours", unchecked=True)
    found = market.execute(
        "select feature, count(*) from feature.audit_lookahead(%s, %s, %s, %s) group by 1",
        (f"leak_{kind}", SYMBOL, at(120), at(MINUTES)),
    ).fetchall()
    assert [row[0] for row in found] == ["leak"]
    assert found[0][1] > 10


@pytest.mark.parametrize(
    "name", ["flow", "liquidation", "order_book", "microstructure", "technical_1m", "patterns_1m"]
)
def test_the_shipped_sets_are_clean(market: Conn, name: str) -> None:
    for begin in (190, 460):  # where rows became known late, were corrected, and after that
        assert market.execute(
            "select * from feature.audit_lookahead(%s, %s, %s, %s, 12)",
            (name, SYMBOL, at(begin), at(begin + 150)),
        ).fetchall() == []  # fmt: skip
    warm = market.execute(
        "select feature, needed, declared, enough from feature.audit_warmup(%s, %s, %s, %s, 2)",
        (name, SYMBOL, at(600), at(MINUTES)),
    ).fetchall()
    assert {row[3] for row in warm} == {True}
    known = [row for row in warm if row[1] is not None]
    assert known
    assert all(needed <= declared for _, needed, declared, _ in known)


def test_the_warm_up_audit_finds_what_is_needed(market: Conn) -> None:
    queries = {
        "short": "avg(bid_prices[1]) over (order by ts rows 9 preceding)",
        # Remembers all that it was given.
        "endless": "sum(bid_prices[1]) over (order by ts)",
    }
    for name, expression in queries.items():
        create(market, name, f"select ts, {expression} as x {BOOKS}", "2 hours")
    ask = "select needed, enough from feature.audit_warmup(%s, %s, %s, %s)"
    span = (SYMBOL, at(500), at(MINUTES))
    needed, enough = market.execute(ask, ("short", *span)).fetchone() or (None, None)
    assert needed is not None
    assert 10 <= needed.total_seconds() / 60 <= 15
    assert enough
    assert (market.execute(ask, ("endless", *span)).fetchone() or [0, 0])[1] is False
    # Needs more than it is given, so it is never known.
    starved = "select ts, lag(bid_prices[1], 90) over (order by ts) as x " + BOOKS
    create(market, "starved", starved, "1 hour")
    assert market.execute(ask, ("starved", *span)).fetchone() == (None, False)


def test_lineage_names_the_raw_columns(market: Conn) -> None:
    def lineage(name: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for feature, column in market.execute("select * from feature.lineage(%s)", (name,)):
            found.setdefault(feature, set()).add(column)
        return found

    own = lineage("flow")
    assert own["imbalance"] == {"market.trades.side", "market.trades.size"}
    assert own["r5"] == {"market.trades.price", "market.trades.ts"}
    shipped = lineage("liquidation")
    assert len(shipped) == 25
    assert shipped["funding_rate"] == {
        "market.funding_rates.rate", "market.funding_rates.funding_interval",
    }  # fmt: skip
    assert shipped["spread_bps"] == {
        "market.order_book_snapshots.bid_prices", "market.order_book_snapshots.ask_prices",
    }  # fmt: skip
    assert "market.trades.side" in shipped["order_flow_toxicity"]
    assert "market.order_book_snapshots.bid_prices" not in shipped["order_flow_toxicity"]
    assert lineage("order_book")["imbalance_1"] == {
        "market.order_book_snapshots.bid_sizes", "market.order_book_snapshots.ask_sizes",
    }  # fmt: skip
    micro = lineage("microstructure")
    assert micro["inter_trade_duration"] == {"market.trades.ts"}
    assert "market.trades.side" in micro["trade_sign_autocorrelation"]
    technical = lineage("technical_1m")
    assert technical["rsi_14"] == {"market.candles.close", "market.trades.price"}
    assert len(technical) == 153


def test_lineage_names_columns_that_there_are(market: Conn) -> None:
    missing = market.execute(
        "select distinct s.name, l.column_name from feature.sets s,"
        " lateral feature.lineage(s.name, s.version) l where s.kind <> 'select' and not exists (select"
        " from information_schema.columns c where c.table_schema || '.' || c.table_name || '.' ||"
        " c.column_name = l.column_name)"
    ).fetchall()
    assert missing == []


def test_a_new_definition_is_a_new_version(market: Conn) -> None:
    first = create(market, "lean", f"select ts, bid_sizes[1] as bid {BOOKS}")
    assert create(market, "lean", f"select ts, bid_sizes[1] as bid {BOOKS};") == first
    second = create(market, "lean", f"select ts, bid_sizes[1] as bid, ask_sizes[1] as ask {BOOKS}")
    assert second != first
    rows = market.execute(
        "select version, features from feature.sets where name = 'lean' order by 1"
    ).fetchall()
    assert rows == [(1, ["bid"]), (2, ["bid", "ask"])]
    assert len(live(market, 120, "lean")) == 2
    assert market.execute("select ask from feature.lean(%s, %s)", (SYMBOL, at(120))).fetchone()
    assert market.execute("select feature.drop_set('lean', 2)").fetchone() == (1,)
    assert len(live(market, 120, "lean")) == 1
    assert market.execute("select bid from feature.lean(%s, %s)", (SYMBOL, at(120))).fetchone()
    market.execute("select feature.drop_set('lean')")
    with pytest.raises(psycopg.Error) as gone:
        live(market, 120, "lean")
    assert gone.value.sqlstate == "AP202"
    with pytest.raises(psycopg.Error) as house:
        market.execute("select feature.drop_set('liquidation')")
    assert house.value.sqlstate == "AP206"


def test_a_model_is_trained_and_served_on_it(market: Conn, server: Server) -> None:
    market.execute(
        "insert into ml.models (model, label, feature_set, feature_version, params, expires_after)"
        " values ('flow_5m', 'direction_5m', 'flow', 1, '{\"rounds\": 10}', '9999 days')"
    )
    market.execute("call feature.materialise('flow', %s, %s, %s)", (SYMBOL, at(60), at(MINUTES)))
    stored = market.execute(
        "select v.ts, v.values from feature.vectors v join feature.sets s on s.set_id = v.set_id"
        " where s.name = 'flow' and v.ts = %s",
        (at(400),),
    ).fetchone()
    assert stored is not None
    market.execute("delete from feature.vectors where ts = %s", (at(400),))
    np.testing.assert_array_equal(live(market, 400), stored[1])
    row = market.execute(
        "call ml.retrain('flow_5m', %s, as_of => %s, options => %s)",
        (SYMBOL, at(MINUTES), Jsonb({"min_rows": 200, "folds": 2})),
    ).fetchone()
    assert row is not None
    lifecycle.train_all(server.conninfo(market.info.dbname, "alphaplus_trainer"))
    job = lifecycle.job(market, row[0])
    assert job.status == "succeeded", job.error
    again = market.execute(
        "select v.training_sha256, t.sha256 from ml.model_versions v,"
        " ml.training_matrix(v.model, v.symbol, v.as_of) t where v.version_id = %s",
        (job.version_id,),
    ).fetchone()
    assert again is not None
    assert again[0] == again[1], "the set that it was trained on can be made again"
    market.execute("call ml.promote(%s, 'test', true)", (job.version_id,))
    answer = market.execute(
        "select version_id, is_fallback from ml.predict('flow_5m', %s, %s, %s)",
        (SYMBOL, at(650), job.version_id),
    ).fetchone()
    assert answer == (job.version_id, False)
    names = market.execute(
        "select feature from ml.explain('flow_5m', %s, %s, %s)",
        (SYMBOL, at(650), job.version_id),
    ).fetchall()
    assert {name for (name,) in names} == {*NAMES, "base"}
    with pytest.raises(psycopg.Error) as used:
        market.execute("select feature.drop_set('flow')")
    assert used.value.sqlstate == "AP206"


def test_a_large_set_is_read_in_slices_and_is_the_same(market: Conn, server: Server) -> None:
    row = market.execute(
        "call ml.retrain('flow_5m', null, as_of => %s, options => '{}')", (at(MINUTES),)
    ).fetchone()
    assert row is not None
    claimed = market.execute("select lease from ml._claim_job(%s, 'test')", (row[0],)).fetchone()
    assert claimed is not None
    lease = str(claimed[0])
    opened = []

    def connect() -> Conn:
        opened.append(1)
        return psycopg.connect(
            server.conninfo(market.info.dbname, "alphaplus_trainer"), autocommit=True
        )

    whole = data.read_matrix(connect, row[0], lease, 4)
    assert len(opened) == 1
    cut = data.read_matrix(connect, row[0], lease, 4, slice_bytes=4000, readers=3)
    assert len(opened) == 4
    assert len(whole) > 800
    assert set(whole.symbol) == {1, 2}
    assert cut.sha256 == whole.sha256
    for name in ("ts", "label_end", "x", "y", "symbol"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name))
    plain = market.execute(
        "select n, ts, label_end, target, columns, sha256, symbols"
        " from ml.training_matrix('flow_5m', null, %s)",
        (at(MINUTES),),
    ).fetchone()
    assert plain is not None
    n, ts, label_end, target, columns, digest, symbols = plain
    assert (n, digest) == (len(whole), whole.sha256)
    np.testing.assert_array_equal(np.frombuffer(ts, ">i8"), whole.ts)
    np.testing.assert_array_equal(np.frombuffer(label_end, ">i8"), whole.label_end)
    np.testing.assert_array_equal(np.frombuffer(target, ">f8"), whole.y)
    np.testing.assert_array_equal(np.frombuffer(symbols, ">i4"), whole.symbol)
    np.testing.assert_array_equal(
        np.column_stack([np.frombuffer(column, ">f8") for column in columns]), whole.x
    )
    rows = market.execute(
        "select symbol, features, target from ml.training_set('flow_5m', null, %s)"
        " order by ts, symbol",
        (at(MINUTES),),
    ).fetchall()
    np.testing.assert_array_equal(np.array([row[1] for row in rows], dtype=float), whole.x)
    np.testing.assert_array_equal([row[2] for row in rows], whole.y)
    names = sorted({row[0] for row in rows})
    assert [names.index(row[0]) + 1 for row in rows] == whole.symbol.tolist()
    market.execute("select ml.cancel_job(%s)", (row[0],))


def test_it_outlives_the_next_deploy_and_roles_keep_theirs(
    market: Conn, server: Server, connect_as: Any
) -> None:
    applier.migrate(server.conninfo(market.info.dbname))
    for role in ("alphaplus_reader", "alphaplus_app"):
        with connect_as(role, market.info.dbname) as conn:
            ask = ("select imbalance from feature.flow(%s, %s)", (SYMBOL, at(120)))
            assert conn.execute(*ask).fetchone() is not None
            assert conn.execute("select count(*) from feature.lineage('flow')").fetchone()
            conn.execute(
                "select * from feature.audit_lookahead('flow', %s, %s, %s, 2)",
                (SYMBOL, at(460), at(500)),
            )
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                create(conn, "mine", f"select ts, bid_sizes[1] as b {BOOKS}")
    with connect_as("alphaplus_operator", market.info.dbname) as conn:
        create(conn, "mine", f"select ts, bid_sizes[1] as b {BOOKS}")
        assert conn.execute("select b from feature.mine(%s, %s)", (SYMBOL, at(120))).fetchone()
        conn.execute("select feature.drop_set('mine')")


def test_the_documentation_s_examples_run(market: Conn) -> None:
    text = (lifecycle.ROOT / "docs" / "features.md").read_text()
    blocks = [part.split("```")[0] for part in text.split("```sql\n")[1:]]
    assert len(blocks) == 9
    for block in blocks:
        market.execute(block)
    row = market.execute(
        "select imbalance, mean_spread from feature.book_lean('AAAUSDT', %s)", (at(300),)
    ).fetchone()
    assert row is not None
    assert row[0] is not None and row[1] > 0
    mood = market.execute("select mood from feature.mood('AAAUSDT', %s)", (at(300),)).fetchone()
    assert mood == (pytest.approx(0.3),)
    names = market.execute("select features from feature.sets where name = 'everything'").fetchone()
    assert names is not None and len(names[0]) == 153 + 21 + 3
    row = market.execute(
        "select mine, theirs, majors from feature.beside_others('AAAUSDT', %s)", (at(300),)
    ).fetchone()
    assert row is not None and all(value is not None for value in row)
    for name in ("everything", "beside_others", "mood"):
        market.execute("select feature.drop_set(%s)", (name,))
    market.execute("select feature.drop_set('book_lean')")


def test_a_set_with_vectors_is_kept_and_a_dropped_one_takes_none(market: Conn) -> None:
    query = "select ts, price as last from market.trades"
    set_id = market.execute(
        "select feature.create_set('held', %s, '10 minutes')", (query,)
    ).fetchone()
    assert set_id is not None
    market.execute("call feature.materialise('held', %s, %s, %s)", (SYMBOL, at(100), at(110)))
    assert market.execute(
        "select count(*) from feature.vectors where set_id = %s", set_id
    ).fetchone() != (0,)
    with pytest.raises(psycopg.Error) as kept:
        market.execute("delete from feature.sets where set_id = %s", set_id)
    assert kept.value.sqlstate == "AP206"
    market.execute("select feature.drop_set('held')")
    assert market.execute(
        "select count(*) from feature.vectors where set_id = %s", set_id
    ).fetchone() == (0,)
    with pytest.raises(psycopg.Error) as gone:
        market.execute(
            "select feature._store(%s, 'liquidation', %s, s, s + 600000000) from ops._micros(%s) s",
            (set_id[0], SYMBOL, at(100)),
        )
    assert gone.value.sqlstate == "AP202"


TIED = {
    "newest": ("select ts, price as p, length(trade_id) as n from market.trades", (103, 2)),
    "first_in_time": ("select ts, lag(price) over (order by ts) as p from market.trades", (102,)),
    "of_three": (
        "select t.ts, sum(price) over (order by t.ts rows 2 preceding) as p from market.trades t",
        (101 + 102 + 103,),
    ),
    "last": (
        "select max(t.ts) as ts, public.last(t.price, t.ts) as p, public.first(t.price, t.ts) as q,"
        " (array_agg(t.price order by t.ts desc))[2] as r from market.trades t"
        " where t.trade_id <> 'old' group by public.time_bucket('1 minute', t.ts)",
        (103, 100, 102),
    ),
    "limited": (
        "select t.ts, (select u.price from market.trades u where u.ts <= t.ts"
        " order by u.ts desc limit 1) as p from market.trades t",
        (103,),
    ),
    "of_one_size": (
        "select t.ts, (select u.price from market.trades u where u.ts <= t.ts"
        " order by u.size desc limit 1) as p, (select price from market.trades u"
        " where u.ts <= t.ts order by size limit 1) as q from market.trades t",
        (103, 99),
    ),
    "passed_on": (
        "with r as (select ts, price as p from market.trades), s as (select * from r where p > 0)"
        " select s.ts, s.p, lag(s.p) over (order by s.ts) as q, s.p > 5 as b from s",
        (103, 102, 1),
    ),
    "united": (
        "select ts, -price as p from market.trades union all select ts, -price from market.trades",
        (-99,),
    ),
}


@pytest.mark.parametrize("kind", list(TIED))
def test_rows_of_one_time_have_their_order(market: Conn, kind: str) -> None:
    """Trades of one microsecond, written in several orders: the greatest id is the newest."""
    query, want = TIED[kind]
    ids = {"8": 99.0, "9": 100.0, "10": 101.0, "11": 102.0, "12": 103.0}
    with market.transaction(force_rollback=True):
        create(market, "tied", query)
        market.execute(
            "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
            " values ('TIEUSDT', 'test', 'TIEUSDT', 'TIE', 'USDT')"
        )
        found = set()
        for seed in range(4):
            rows = list(ids.items()) if kind != "last" else [*ids.items()][1:]
            for place in np.random.default_rng(seed).permutation(len(rows)):
                market.execute(
                    "insert into market.trades (symbol, ts, trade_id, known_at, price, size, side)"
                    " values ('TIEUSDT', %(t)s, %(id)s, %(t)s, %(p)s, 1, 'buy')",
                    {"t": at(100.5), "id": rows[place][0], "p": rows[place][1]},
                )
            if seed == 2:
                market.execute("set local enable_indexscan = off")
                market.execute("set local enable_bitmapscan = off")
            answer = live(market, 101, "tied", "TIEUSDT")
            past = market.execute(
                "select vector from feature._history('tied', null, 'TIEUSDT', %s, %s)",
                (at(101), at(102)),
            ).fetchall()
            assert [answer] == [row[0] for row in past]
            found.add(tuple(answer))
            market.execute("set local session_replication_role = replica")
            market.execute("delete from market.trades where symbol = 'TIEUSDT'")
            market.execute("set local session_replication_role = origin")
        assert found == {want}


def test_a_set_of_very_many_features_has_a_vector(market: Conn) -> None:
    features = ", ".join(f"price + {i} as x{i}" for i in range(1500))
    create(market, "wide", f"select ts, {features} from market.trades", "10 minutes")
    found = live(market, 120, "wide")
    assert len(found) == 1500
    assert found[-1] == pytest.approx(found[0] + 1499)
    market.execute("select feature.drop_set('wide')")


def test_a_day_of_a_select_is_utc_s_whoever_asks(market: Conn) -> None:
    query = (
        "select ts, extract(hour from ts) as h, extract(epoch from ts::date::timestamptz) as d,"
        " (ts < '2024-06-01 03:00')::int as e, extract(epoch from date_trunc('day', ts)) as f"
        " from market.trades"
    )
    create(market, "days", query)
    found = set()
    for zone in ("UTC", "Europe/Berlin", "Pacific/Apia"):
        with market.transaction(force_rollback=True):
            market.execute("select set_config('TimeZone', %s, true)", (zone,))
            found.add(tuple(live(market, 240, "days")))
    day = at(0).timestamp()
    assert found == {(3.0, day, 0.0, day)}
    market.execute("select feature.drop_set('days')")
