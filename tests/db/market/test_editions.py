"""What each edition of TimescaleDB does beside the aggregates: triggers, compression, late rows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.db import market_rows as rows
from tests.db.market.test_aggregates import assert_plain, assert_stretches, bar, native_only, trade
from tests.db.market_rows import BASE, MINUTE, Connection

HYPERTABLES = """
select format('%I.%I', h.hypertable_schema, h.hypertable_name)
from timescaledb_information.hypertables h
where h.hypertable_schema in ('market', 'feature') order by 1
"""


@pytest.fixture
def market(db_module: Connection) -> Connection:
    rows.clear(db_module)
    return db_module


def test_community_has_no_transition_table_on_a_hypertable(market: Connection) -> None:
    """An INSERT one makes COPY skip invalidations, a DELETE one refuses compression."""
    native_only(market)
    found = market.execute(
        f"select t.tgrelid::regclass, t.tgname from pg_trigger t where t.tgrelid::regclass::text in"
        f" ({HYPERTABLES}) and (t.tgoldtable is not null or t.tgnewtable is not null)"
    ).fetchall()
    assert found == []


def test_each_market_table_notes_deleted_and_late_rows(market: Connection) -> None:
    """By whichever triggers: history, features and regimes, on every hypertable they are on."""
    for table in rows.KINDS.values():
        names = market.execute(
            "select array_agg(tgname::text) from pg_trigger where tgrelid = %s::regclass",
            (f"market.{table.table}",),
        ).fetchone()
        assert names is not None
        assert {"keep_deleted", "end_superseded", "mark_pending_insert", "mark_pending_update"} <= {
            *names[0]
        }


def compress(conn: Connection, relation: str) -> int:
    """Compress every chunk of a hypertable; how many there are."""
    chunks = conn.execute("select c::text from public.show_chunks(%s) c", (relation,)).fetchall()
    for (chunk,) in chunks:
        conn.execute(
            "select public.compress_chunk(%s::regclass, if_not_compressed => true)", (chunk,)
        )
    return len(chunks)


def copy_trade(conn: Connection, row: rows.Row) -> None:
    with (
        conn.cursor() as cursor,
        cursor.copy(f"copy market.trades ({', '.join(row)}) from stdin") as copy,
    ):
        copy.write_row(tuple(row.values()))


def test_late_corrected_and_deleted_rows_reach_compressed_chunks(market: Connection) -> None:
    native_only(market)
    for minute in range(10):
        rows.insert(market, "trades", trade(minute, str(minute)))
        bar(market, minute)
    market.execute("call market.refresh_aggregates()")
    assert compress(market, "market.trades") and compress(market, "market.candles")
    compressed = market.execute(
        "select bool_and(is_compressed) from timescaledb_information.chunks"
        " where hypertable_schema = 'market' and hypertable_name in ('trades', 'candles')"
    ).fetchone()
    assert compressed == (True,)
    copy_trade(market, trade(1, "late"))
    assert_plain(market)
    market.execute("update market.trades set size = 7 where trade_id = '2'")
    market.execute("delete from market.trades where trade_id = '3'")
    bar(market, 12)
    market.execute("delete from market.candles where ts = %s", (BASE + MINUTE,))
    assert_plain(market)
    assert_stretches(market)
    # What was corrected and deleted is kept, and a deleted row that comes again ends what it replaces.
    kept = market.execute(
        "select trade_id, superseded_at > known_at from market.trades_history order by trade_id"
    ).fetchall()
    assert kept == [("2", True), ("3", True)]
    copy_trade(market, trade(3, "3", known_at=BASE + timedelta(hours=1)))
    ended = market.execute(
        "select superseded_at from market.trades_history where trade_id = '3'"
    ).fetchone()
    assert ended == (BASE + timedelta(hours=1),)
    market.execute("call market.refresh_aggregates()")
    assert_plain(market)
    assert_stretches(market)


def test_policies_compress_what_is_old(market: Connection) -> None:
    native_only(market)
    policies = market.execute(
        "select format('%I.%I', hypertable_schema, hypertable_name), config ->> 'compress_after'"
        " from timescaledb_information.jobs where config ? 'compress_after' order by 1"
    ).fetchall()
    assert policies == [(table, "30 days") for (table,) in market.execute(HYPERTABLES).fetchall()]
    rows.insert(market, "trades", trade())
    market.execute(
        "select public.decompress_chunk(c, if_compressed => true) from public.show_chunks('market.trades') c"
    )
    job = market.execute(
        "select job_id from timescaledb_information.jobs"
        " where config ? 'compress_after' and hypertable_name = 'trades'"
    ).fetchone()
    market.execute("call public.run_job(%s)", job)
    done: Any = market.execute(
        "select bool_and(is_compressed) from timescaledb_information.chunks"
        " where hypertable_name = 'trades' and range_end < now() - interval '30 days'"
    ).fetchone()
    assert done == (True,)
    assert_plain(market)
