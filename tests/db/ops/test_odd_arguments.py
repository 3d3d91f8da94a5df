"""Every public function, called with arguments nobody means: an answer, or a code and a hint; and
what runs long ends when it is told to."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

from tests.db import odd_calls

Conn = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def shared(db_module: Conn) -> Conn:
    odd_calls.fill(db_module)
    return db_module


def test_odd_arguments_get_an_answer_or_a_code(shared: Conn) -> None:
    """No raw error of the server or of Python, no crash, no hang."""
    found = odd_calls.call(shared, 1, calls=1200, timeout=1)
    assert not found.wrong, f"{len(found.wrong)} kinds\n{found.report()}"
    # Every function had its turn, and not all of them were refused.
    assert len(found.called) == len({row[0] for row in odd_calls.functions(shared)})
    assert found.answered > 300


SPAN = "'1999-01-01', '2026-01-01'"
LONG = (
    f"count(*) from feature.technical_1m_history('AAAUSDT', {SPAN})",
    f"count(*) from feature.liquidation_history('AAAUSDT', {SPAN})",
    f"count(*) from feature.microstructure_history('AAAUSDT', {SPAN})",
    f"count(*) from feature.order_book_history('AAAUSDT', {SPAN})",
    f"count(*) from feature.regime_5m_history('AAAUSDT', {SPAN})",
    f"count(*) from feature.patterns_history('AAAUSDT', {SPAN})",
    f"count(*) from feature.technical_history('AAAUSDT', {SPAN})",
    f"count(*) from feature.noise_mask('AAAUSDT', {SPAN})",
    f"count(*) from feature.matrix('liquidation', array['AAAUSDT'], {SPAN})",
    "count(*) from feature.audit_lookahead('technical_1m', 'AAAUSDT', '2024-01-01', '2024-04-01', 9999)",
    "count(*) from feature.audit_warmup('technical_1m', 'AAAUSDT', '2024-01-01', '2024-04-01', 9999)",
    f"count(*) from ml.evaluate(2, {SPAN})",
    "count(*) from generate_series(timestamptz '2024-06-01', '2026-01-01', '1 min') g cross join"
    " lateral ml.predict('liquidation_15m', 'AAAUSDT', g, on_error => 'null')",
    f"backtest.run('odd', {SPAN})",
    "sum(x) from unnest(drift.by(array(select random() from generate_series(1, 3000000)))) x",
    "ml.score_many(1, array(select array_fill(0.5::float8, array[28]) from"
    " generate_series(1, 100000)))",
)


@pytest.mark.parametrize("query", LONG)
def test_what_runs_long_ends_in_time(shared: Conn, query: str) -> None:
    """A quarter of a second after it began it is told to end; the rest is for a busy machine."""
    began = time.monotonic()
    try:
        with shared.transaction(force_rollback=True):
            shared.execute("set local statement_timeout = '250ms'")
            shared.execute(f"select {query}")  # type: ignore[arg-type]
    except psycopg.errors.QueryCanceled as error:
        message = str(error.diag.message_primary)
        assert message.endswith("canceling statement due to statement timeout")
        assert not odd_calls.RAW.search(message), message
    took = time.monotonic() - began
    print(f"{took - 0.25:.2f} s late: {query}")
    assert took < 30  # a hang


def test_an_error_between_two_rows_is_told_in_its_own_words(shared: Conn) -> None:
    """PL/Python drops the message of an error that is raised while it fetches rows."""
    shared.execute(
        "create function public.fails() returns table (at bigint, x integer) language plpython3u"
        " as $$\nfrom alphaplus.server import errors\ndef rows():\n    yield 0, 1\n"
        "    plpy.error('no third way', sqlstate='AP211', hint='Take the first.')\n"
        "return errors.rows(GD, rows(), 2)\n$$"
    )
    with pytest.raises(psycopg.Error) as caught:
        shared.execute("select ops._at(f.at), f.x from public.fails() f")
    told = caught.value.diag
    assert (told.sqlstate, told.message_primary, told.message_hint) == (
        "AP211", "no third way", "Take the first.",
    )  # fmt: skip
    # One that is raised before the first row begins with the message's own words, or with its code.
    for text, said in (("one: two", "one: two"), ("one", "AP211: one")):
        shared.execute(
            "create or replace function public.fails_at_once() returns integer language plpython3u as"
            f" $$\nfrom alphaplus.server import errors\nplpy.error('{text}', sqlstate='AP211')\n$$"
        )
        with pytest.raises(psycopg.Error) as caught:
            shared.execute("select public.fails_at_once()")
        assert caught.value.diag.message_primary == said
    shared.execute("drop function public.fails(); drop function public.fails_at_once()")


def test_odd_arguments_of_what_commits(db: Conn) -> None:
    """Procedures that commit cannot be undone: called in a database of their own."""
    odd_calls.fill(db)
    procedures = [row[0] for row in odd_calls.functions(db) if row[1] == "p"]
    only = f"^({'|'.join(procedures)})$".replace(".", r"[.]")
    found = odd_calls.call(db, 2, calls=3 * len(procedures), timeout=1, only=only, undo=False)
    assert not found.wrong, f"{len(found.wrong)} kinds\n{found.report()}"
    assert found.answered > len(procedures) / 2


def test_one_symbol_or_time_does_not_end_a_query_of_features(shared: Conn) -> None:
    asked = shared.execute(
        "select s, t::text, r.canonical, r.ts is null, cardinality(r.vector), r.reason"
        " from unnest(array['AAAUSDT', 'NOPE']) s"
        " cross join unnest(array[%s, timestamptz '2020-01-01', 'infinity']) t"
        " cross join lateral feature.try_vector('liquidation', s, t) r",
        (odd_calls.market.at(240),),
    ).fetchall()
    assert len(asked) == 6
    said = {(row[0], row[1][:4]): row[2:] for row in asked}
    width = shared.execute(
        "select cardinality(feature.vector('liquidation', 'AAAUSDT', %s))",
        (odd_calls.market.at(240),),
    ).fetchone()
    assert width is not None
    assert said["AAAUSDT", "2024"] == ("AAAUSDT", False, width[0], None)
    assert said["AAAUSDT", "2020"] == ("AAAUSDT", False, width[0], "no feature is known")
    assert said["AAAUSDT", "infi"][1:3] == (True, None)
    assert "a time is null, infinite" in said["AAAUSDT", "infi"][3]
    assert all(
        said["NOPE", t][:3] == ("NOPE", True, None) and "NOPE" in said["NOPE", t][3]
        for t in ("2024", "2020", "infi")
    )
