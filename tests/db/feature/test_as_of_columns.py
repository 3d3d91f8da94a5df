"""feature.as_of_columns gives what feature.as_of gives, whatever was late, tied or corrected."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.db import market_rows as rows
from tests.db.market_rows import BASE, MINUTE, Connection

SAME_DATABASE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
TIMES = st.lists(
    st.integers(-10, 700).map(lambda n: BASE + n * timedelta(seconds=1)), min_size=1, max_size=30
)


def instruments(conn: Connection) -> None:
    conn.execute(
        "insert into market.instruments (symbol, exchange, native_symbol, base, quote)"
        " select s, 'x', s, s, 'USDT' from unnest(array['AAA', 'BBB']) s on conflict do nothing"
    )


@settings(max_examples=30, deadline=None, suppress_health_check=SAME_DATABASE)
@given(done=rows.operations(), times=TIMES, age=st.sampled_from([1, 30, 86400]))
def test_columns_are_those_of_as_of(
    db_module: Connection, done: list[Any], times: list[Any], age: int
) -> None:
    rows.clear(db_module)
    instruments(db_module)
    for operation in done:
        rows.apply(db_module, operation)
    for symbol in ("AAA", "BBB"):
        values = (symbol, times, ["size", "price"], timedelta(seconds=age))
        found = db_module.execute(
            "select name, values from feature.as_of_columns('market.trades', %s, %s, %s, %s)",
            values,
        ).fetchall()
        plain = db_module.execute(
            "select (row ->> 'size')::float8, (row ->> 'price')::float8 from feature.as_of("
            "'market.trades', array_fill(%s::text, array[%s]), %s, %s, %s)",
            (symbol, len(times), *values[1:]),
        ).fetchall()
        assert [name for name, _ in found] == ["size", "price"]
        for (_, block), column in zip(found, zip(*plain, strict=True), strict=True):
            np.testing.assert_array_equal(
                np.frombuffer(block, "<f8"), np.array(column, dtype=float)
            )


@pytest.mark.parametrize(
    ("relation", "times", "columns", "code"),
    [
        ("market.trades", [BASE], ["side"], "AP741"),
        ("market.trades", [BASE], [], "AP743"),
        ("market.trades", [BASE], ["nonsense"], "AP207"),
        ("market.instruments", [BASE], ["symbol"], "AP207"),
        ("market.trades", [BASE, None], ["price"], "AP742"),
    ],
)
def test_what_cannot_be_is_refused(
    db_module: Connection, relation: str, times: list[Any], columns: list[str], code: str
) -> None:
    instruments(db_module)
    with pytest.raises(psycopg.Error) as raised:
        db_module.execute(
            "select feature.as_of_columns(%s, 'AAA', %s::timestamptz[], %s::text[])",
            (relation, times, columns),
        )
    assert raised.value.sqlstate == code and raised.value.diag.message_hint


def test_no_rows_and_no_times(db_module: Connection) -> None:
    rows.clear(db_module)
    instruments(db_module)
    query = "select values from feature.as_of_columns('market.trades', 'AAA', %s::timestamptz[], '{price}')"
    assert db_module.execute(query, ([],)).fetchone() == (b"",)
    block = db_module.execute(query, ([BASE, BASE + MINUTE],)).fetchone()
    assert block is not None and np.isnan(np.frombuffer(block[0], "<f8")).tolist() == [True, True]
