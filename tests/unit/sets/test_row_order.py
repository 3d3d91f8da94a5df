"""Where the tables' keys go in a user's SELECT, and that nothing else of it is changed."""

from __future__ import annotations

import pytest
from alphaplus.server.sets.sqlcheck import row_order, syntax

from tests.unit.sets.test_sqlcheck import CLEAN, LEAKS

ID = 'length("t".trade_id){0}, "t".trade_id{0}'
NAMED = 'length("t".trade_id) as _alphaplus_1, "t".trade_id as _alphaplus_2,'
FROM = " from market.trades t"


@pytest.mark.parametrize(
    ("query", "want", "count"),
    [
        ("select ts, price as p" + FROM, f"select {NAMED} ts, price as p{FROM}", 2),
        (
            "select t.ts, (select b.bids from market.order_book_snapshots b where b.ts <= t.ts"
            f" order by b.ts DESC nulls last -- newest\n limit 1) as b{FROM}",
            f"select {NAMED} t.ts, (select b.bids from market.order_book_snapshots b where b.ts <="
            f' t.ts order by b.ts DESC nulls last, "b".sequence desc -- newest\n limit 1) as b{FROM}',
            2,
        ),
        (
            f"select ts, sum(x) over w as s, lag(x) over w as l{FROM}"
            " window w as (order by ts rows 9 preceding)",
            f"select {NAMED} ts, sum(x) over w as s, lag(x) over w as l{FROM}"
            f" window w as (order by ts, {ID.format('')} rows 9 preceding)",
            2,
        ),
        (
            f"select max(ts) as ts, public.last(x, t.ts) as l{FROM} group by y",
            f"select max(ts) as ts, public.last(x, row(t.ts, {ID.format('')})) as l{FROM} group by y",
            0,
        ),
        # Rows of one time are one to a RANGE frame, and a * of two sources says nothing of columns.
        (
            f"select ts, x from (select ts, sum(y) over (order by ts) as x{FROM}) q union all select 1, 2",
            f"select ts, x from (select {NAMED} ts, sum(y) over (order by ts) as x{FROM}) q"
            " union all select 1, 2",
            0,
        ),
        (f"select *{FROM} join market.open_interest o on true", None, 0),
    ],
)
def test_the_key_is_added_behind_the_time(query: str, want: str | None, count: int) -> None:
    assert row_order.keyed(query) == (want or query, count)


@pytest.mark.parametrize(
    "query",
    [text.replace("candles_1m", "candles") for text in [*CLEAN, *(leak[0] for leak in LEAKS)]],
)
def test_what_it_becomes_is_the_same_but_for_keys(query: str) -> None:
    """Without the keys the text is what it was; a query that is none is left alone."""
    text, count = row_order.keyed(query)
    assert text == query or not isinstance(syntax.parse(text), syntax.Problem)
    rest = iter(text)
    assert all(letter in rest for letter in query), "letters were only put in"
    assert count == (text.count(row_order.OUTPUT.format(1)) > 0) * count
