"""One store, one rule: after a late or corrected row, before any refresh, who reads many stored
vectors reads what would be computed now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.db.market_data import at, fill

Connection = psycopg.Connection[Any]
SYMBOL, SET, MODEL = "AAAUSDT", "liquidation", "direction_15m"
MINUTES = 400


@pytest.fixture(scope="module")
def stored(db_module: Connection) -> Iterator[Connection]:
    fill(db_module, SYMBOL, MINUTES, seed=5)
    db_module.execute("call market.refresh_aggregates()")
    db_module.execute(
        "call feature.materialise(%s, %s, %s, %s)", (SET, SYMBOL, at(60), at(MINUTES))
    )
    db_module.execute("call feature.pack(%s)", (SET,))
    found = db_module.execute("select count(*) from feature.valid_blocks").fetchone()
    assert found is not None and found[0] > 0
    yield db_module


def read(db: Connection) -> dict[str, Any]:
    """What each reader of many vectors gives."""
    late = at(MINUTES + 60)
    asked = {
        "training_matrix": (
            "select n, encode(sha256, 'hex') from ml.training_matrix(%s, %s, %s)",
            (MODEL, SYMBOL, late),
        ),
        "training_set": (
            "select ts, features::text, target from ml.training_set(%s, %s, %s)"
            " where ts >= %s and ts < %s",
            (MODEL, SYMBOL, late, at(150), at(260)),
        ),
        "vector": (
            "select feature.vector(%s, %s, %s + g * interval '1 minute')::text"
            " from generate_series(0, 60, 7) g",
            (SET, SYMBOL, at(190)),
        ),
        "several": (
            "select feature.vector(array[%s, 'patterns_1m'], %s, %s)::text",
            (SET, SYMBOL, at(205)),
        ),
        "history": (
            "select ts, to_jsonb(h)::text from feature.liquidation_history(%s, %s, %s) h",
            (SYMBOL, at(190), at(250)),
        ),
    }
    found: dict[str, Any] = {name: db.execute(*query).fetchall() for name, query in asked.items()}
    # Blocks may be cut elsewhere: their numbers one after the other.
    rows = db.execute(
        "select ts, vectors from feature.matrix(%s, %s, %s, %s)",
        (SET, [SYMBOL], at(100), at(MINUTES)),
    ).fetchall()
    found["matrix"] = tuple(b"".join(bytes(row[i]) for row in rows) for i in (0, 1))
    return found


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(minute=st.integers(200, 240), factor=st.floats(0.97, 1.03), corrected=st.booleans())
def test_readers_of_many_read_what_would_be_computed(
    stored: Connection, minute: int, factor: float, corrected: bool
) -> None:
    with stored.transaction(force_rollback=True):
        if corrected:
            stored.execute(
                "update market.trades set price = price * %s, known_at = %s"
                " where symbol = %s and ts >= %s and ts < %s",
                (factor, at(minute + 30), SYMBOL, at(minute), at(minute + 1)),
            )
        else:
            stored.execute(
                "insert into market.trades (symbol, ts, trade_id, price, size, side,"
                " known_at) select symbol, %s, 'late', price * %s, size, side, %s"
                " from market.trades where symbol = %s and ts < %s order by ts desc limit 1",
                (at(minute + 0.5), factor, at(minute + 30), SYMBOL, at(minute)),
            )
        marked = stored.execute("select count(*) from feature.pending").fetchone()
        assert marked is not None and marked[0] > 0
        kept = stored.execute(
            "select count(*) from feature.valid_vectors where ts < %s", (at(minute),)
        ).fetchone()
        assert kept is not None and kept[0] > 0, "not everything is void"
        before = read(stored)
        stored.execute("delete from feature.vectors")
        stored.execute("delete from feature.watermarks")
        computed = read(stored)
        for name in computed:
            assert before[name] == computed[name], name
