"""Calls of every public function with the arguments nobody means: a value of the right type that is
null, empty, nested, infinite, huge, negative or of the year 294276; beside values that fit.

Run by ``tests/db/ops/test_odd_arguments.py`` (bounded) and by ``make fuzz`` (as long as asked for).
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
from psycopg.types.json import Jsonb

from tests.db import market_data as market
from tests.db import serving

Conn = psycopg.Connection[Any]
SCHEMAS = (
    "analytics", "backtest", "drift", "feature", "market", "ml", "ops", "regime", "sentiment",
)  # fmt: skip

TIMES = (
    "null", "'infinity'", "'-infinity'", "'0001-01-01'", "'294276-12-31 23:59:59+00'",
    "'4713-01-01 BC'", "'2026-01-01 01:00+00'", "'1970-01-01'", "'1999-12-31 23:59:59.999999+00'",
)  # fmt: skip
TEXTS = (
    "null", "''", "'AAA'", "'fixed'", "'toy'", "'%s'", "'{1,2}'", "'😀'", "repeat('x', 100000)",
    "'a''b'", "'null'", "'.*'", "E'a\\nb'", "'pg_class'", "'-1'",
)  # fmt: skip
ODD = {
    "text": TEXTS,
    "timestamptz": TIMES,
    "int8": ("null", "0", "-1", "1", "2147483647", "'-2147483648'", "9223372036854775807"),
    "int4": ("null", "0", "-1", "1", "2147483647", "'-2147483648'"),
    "float8": ("null", "'NaN'", "1e308", "'infinity'", "'-infinity'", "0", "-1e-320", "-5"),
    "_float8": (
        "null", "'{}'", "'{null}'", "'{{1,2},{3,4}}'", "'{NaN,1e308,-infinity}'",
        "array_fill(1e308::float8, array[28])", "array_fill(null::float8, array[28])",
        "array_fill('infinity'::float8, array[28])", "array_fill(0.5::float8, array[2,28])",
        "'[5:6]={0.5,0.5}'", "'{0.5,-1,2}'",
    ),
    "interval": (
        "null", "'0'", "'-1 day'", "'1 minute'", "'15 minutes'", "'178000000 years'", "'1 month'",
        "'-178000000 years'", "'1 microsecond'",
    ),
    "bool": ("null", "true", "false"),
    "_int8": ("null", "'{}'", "'{null}'", "'{1,1}'", "'{{1},{2}}'", "'{-1}'", "'{9223372036854775807}'"),
    "_int4": ("null", "'{}'", "'{null}'", "'{-1}'", "'{28}'", "'{2147483647}'", "'{{1},{2}}'"),
    "bytea": ("null", "''", "'\\x00'", "array_send('{1,2}'::float8[])", "'\\xff00ff00ff00ff00ff'"),
    "_text": ("null", "'{}'", "'{null}'", "'{fixed}'", "'{{a},{b}}'", "array['', repeat('x', 10000)]"),
    "_timestamptz": (
        "null", "'{}'", "'{null}'", "'{infinity}'", "'{{2026-01-01,2026-01-02},{2026-01-01,2026-01-03}}'",
        "'{294276-12-31 23:59:59+00}'",
    ),
    "jsonb": ("null", "'{}'", "'null'", "'[]'", "'{\"a\": 1e308}'", "'\"x\"'", "'[[[]]]'", "'-1'"),
    "regclass": ("null", "'pg_class'", "'market.candles'", "0"),
}  # fmt: skip
SYMBOLS = ("'AAA'", "'AAAUSDT'", "'BBBUSDT'")
WHEN = (f"'{market.at(240)}'", f"'{market.at(120)}'", f"'{serving.at(30)}'")
MODELS = ("'fixed'", "'fixed_value'", "'liquidation_15m'", "'order_book_1m'")
SETS = ("'fixed'", "'liquidation'", "'order_book'", "'technical_1m'")
# Values that fit, by the argument's name (and type): what lets a call go on to where it may break.
FITTING: dict[tuple[str, str], tuple[str, ...]] = {
    ("symbol", "text"): SYMBOLS,
    ("symbols", "_text"): ("'{AAAUSDT}'", "'{AAAUSDT,BBBUSDT}'", "'{AAA}'"),
    ("as_of", "timestamptz"): WHEN, ("at", "timestamptz"): WHEN, ("ts", "timestamptz"): WHEN,
    ("from", "timestamptz"): (f"'{market.at(60)}'", f"'{market.at(0)}'", f"'{serving.at(0)}'"),
    ("to", "timestamptz"): (f"'{market.at(240)}'", f"'{market.at(290)}'", f"'{serving.at(200)}'"),
    ("times", "_timestamptz"): (f"array['{market.at(60)}']", f"array['{market.at(60)}', '{market.at(99)}']"),
    ("model", "text"): MODELS,
    ("feature_set", "text"): SETS,
    ("feature_sets", "_text"): ("'{liquidation}'", "'{liquidation,order_book}'"),
    ("version_id", "int8"): ("1", "2"), ("version", "int8"): ("1", "2"),
    ("version_ids", "_int8"): ("'{1}'", "'{1,2}'"),
    ("challenger", "int8"): ("1", "2"), ("a", "int8"): ("1",), ("b", "int8"): ("2",),
    ("features", "_float8"): ("array_fill(0.5::float8, array[28])", "array_fill(0.5::float8, array[25])"),
    ("vectors", "_float8"): ("array[array_fill(0.5::float8, array[28])]",),
    ("timeframe", "interval"): ("'1 minute'", "'1 hour'", "'15 minutes'", "'1 day'"),
    ("horizon", "interval"): ("'15 minutes'", "'1 minute'", "'4 hours'", "'1 hour'"),
    ("window", "interval"): ("'1 hour'", "'1 day'"),
    ("grid", "interval"): ("'1 minute'",),
    ("label", "text"): ("'direction_15m'", "'liquidation_15m'", "'fixed'"),
    ("on_error", "text"): ("'null'", "'error'"), ("choose", "text"): ("'then'", "'champion'"),
    ("regime", "text"): ("'bull'", "'bear'", "'sideways'", "null"),
    ("relation", "regclass"): ("'market.candles_1m'", "'market.trades'", "'market.funding_rates'"),
    ("table", "text"): ("'trades'", "'candles'"),
    ("ensemble", "text"): ("'liquidation_15m'", "null"),
    ("method", "text"): ("'blend'", "'vader'", "'auto'", "null"),
    ("query", "text"): ("'select v.symbol, v.ts from feature.vectors v limit 5'", "'select 1'",),
    ("cron", "text"): ("'0 3 * * *'", "'*/5 * * * *'", "'99 * * * *'", "'0 0 31 2 *'"),
    ("schedule", "text"): ("'tick'",), ("name", "text"): ("'technical_1m'", "'trades_1m'", "'ml.cache_bytes'"),
    ("kind", "text"): ("'liquidation'", "'halving'", "'listing'", "'fork'"),
    ("days", "int4"): ("7", "30"), ("hours", "float8"): ("24", "48"), ("bins", "int4"): ("10",),
    ("strategy", "text"): ("'odd'",), ("caller", "text"): ("'me'",),
    ("spec", "jsonb"): ("'{\"output\": {\"kind\": \"probability\"}}'",),
}  # fmt: skip
# Said by Python or by the code inside of a function, not by us to a caller.
RAW = re.compile(
    r"plpy\.|Traceback|^refused: |iterator|exceptions|^[A-Za-z_.]*(Error|Exception): ", re.MULTILINE
)


@dataclass
class Found:
    """What was called, and what ended in something a caller cannot understand."""

    calls: int = 0
    answered: int = 0
    called: set[str] = field(default_factory=set)
    slowest: tuple[float, str] = (0.0, "")
    wrong: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def report(self) -> str:
        return "\n".join(
            f"{name}: {state} {message!r}\n    {statement[:400]}"
            for (name, state, message), statement in sorted(self.wrong.items())
        )


def fill(db: Conn) -> None:
    """A little of everything: markets, vectors, two versions, predictions, texts, a strategy."""
    serving.install(db)
    x, y = serving.synthetic(300)
    serving.store(db, x)
    for symbol, seed in (("AAAUSDT", 1), ("BBBUSDT", 2)):
        market.fill(db, symbol, 300, seed=seed, per_minute=2.0)
    db.execute("call market.refresh_aggregates()")
    names = serving.one(
        db, "select features from feature.sets where name = 'liquidation' order by version desc limit 1"
    )  # fmt: skip
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(400, len(names)))
    serving.register(db, serving.train(x, y, 5), promote=True)
    serving.register(
        db, serving.train(vectors, (vectors.sum(axis=1) > 0).astype(float), 5), "liquidation_15m",
        features=names, promote=True, as_of=market.at(60).isoformat(),
        train_from=market.at(0).isoformat(), train_to=market.at(50).isoformat(),
    )  # fmt: skip
    span = (market.at(100), market.at(140))
    db.execute("call feature.materialise('liquidation', 'AAAUSDT', %s, %s)", span)
    for minute in (100, 110, 120):
        db.execute(
            "select ml.record_prediction('liquidation_15m', 'AAAUSDT', %s)", (market.at(minute),)
        )
    db.execute(
        "select backtest.create_strategy('odd', 'liquidation_15m', array['AAAUSDT'], %s)", (Jsonb({"enter_long": 0.5, "hold": "5 min"}),)
    )  # fmt: skip


def functions(db: Conn, schemas: tuple[str, ...] = SCHEMAS) -> list[Any]:
    """Name, kind, number of arguments without a default, and names and types of the arguments."""
    return db.execute(
        "select p.oid::regproc::text, p.prokind::text, p.pronargs - p.pronargdefaults,"
        " array(select coalesce(p.proargnames[a.i], '') from unnest(p.proargtypes)"
        "  with ordinality a (o, i) order by a.i),"
        " array(select t.typname::text from unnest(p.proargtypes) with ordinality a (o, i)"
        "  join pg_type t on t.oid = a.o order by a.i)"
        " from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
        " where n.nspname = any (%s) and p.prokind in ('f', 'p') and p.proname !~ '^_'"
        " and p.prorettype not in (select oid from pg_type where typname in ('trigger', 'event_trigger'))"
        " and has_function_privilege('alphaplus_operator', p.oid, 'execute')"
        " order by 1, 4", (list(schemas),),
    ).fetchall()  # fmt: skip


def statements(found: list[Any], seed: int) -> Iterator[tuple[str, str]]:
    """Name and text of calls without end, each function in its turn."""
    draw = random.Random(seed)
    while True:
        for name, kind, needed, names, types in found:
            fitting = draw.choice((0.0, 0.5, 0.8, 0.8))
            parts = []
            for number, (argument, type_) in enumerate(zip(names, types, strict=True)):
                if number >= needed and draw.random() < 0.4:
                    continue
                good = FITTING.get((argument, type_))
                known = good is not None and draw.random() < fitting
                values = good if known and good else ODD.get(type_, ("null",))
                parts.append(f'"{argument}" => {draw.choice(values)}::{type_}')
            verb = "call" if kind == "p" else "select * from"
            yield name, f"{verb} {name}({', '.join(parts)})"


def judge(error: psycopg.Error) -> tuple[str, str] | None:
    """What is wrong with an error, if something is: its state and its first words."""
    state, message = str(error.sqlstate), str(error.diag.message_primary)
    if state == "22023" and "time zone" in message:
        return None  # PostgreSQL's own words for a place that a caller made up
    if state == "57014" and message.endswith("canceling statement due to statement timeout"):
        if RAW.search(message):
            return state, message
        return None  # it ended when it was told to
    if state.startswith("AP") and error.diag.message_hint and not RAW.search(message):
        return None
    return state, re.sub(r"\d+", "0", message[:100])


def call(
    db: Conn,
    seed: int,
    *,
    calls: int | None = None,
    seconds: float | None = None,
    schemas: tuple[str, ...] = SCHEMAS,
    timeout: float = 2,
    only: str = "",
    undo: bool = True,
) -> Found:
    """Calls as the operator: what was not answered as it should be.

    Args:
        undo: each in a transaction that is rolled back; else nothing is undone, and procedures that
            commit are called too.
    """
    result, end = Found(), time.monotonic() + (seconds if seconds is not None else 1e9)
    known = [row for row in functions(db, schemas) if re.search(only, row[0])]
    for name, value in (
        ("role", "alphaplus_operator"),
        ("search_path", "pg_catalog"),
        ("statement_timeout", f"{timeout}s"),
    ):
        db.execute(f"set {name} = '{value}'")  # type: ignore[arg-type]
    for number, (name, statement) in enumerate(statements(known, seed)):
        if number == calls or time.monotonic() > end:
            break
        result.calls += 1
        result.called.add(name)
        began = time.monotonic()
        try:
            if undo:
                with db.transaction(force_rollback=True):
                    db.execute(statement)  # type: ignore[arg-type]
            else:
                db.execute(statement)  # type: ignore[arg-type]
            result.answered += 1
        except psycopg.Error as error:
            if db.broken:
                result.wrong[name, "lost", str(error)[:100]] = statement
                return result
            # In a transaction of ours nothing can be committed.
            if not (undo and error.sqlstate == "2D000") and (said := judge(error)):
                result.wrong.setdefault((name, *said), statement)
        took = time.monotonic() - began
        if took > 10 * timeout + 20:
            result.wrong.setdefault((name, "hang", "deaf to its time limit"), statement)
        if took > result.slowest[0]:
            result.slowest = (took, statement[:400])
    db.execute("reset all; reset role")
    return result
