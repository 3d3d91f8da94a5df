"""Feature sets of users: one SELECT, evaluated at each grid time on what was known then.

The SELECT is written over the market's tables as if they ended now. For a grid time ``t`` each of
them is replaced by its rows of the symbol in [t - lookback, t) as they were known at t, and the
result's newest row, which must lie within the last grid step, is the vector at t. History is the
same statement over many times. So a set cannot see what came later, and live equals history,
however it is written; the linter (:mod:`alphaplus.server.sets.sqlcheck`) refuses what would mean
something else when run over the whole table.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from alphaplus.server import database
from alphaplus.server.database import Database, Moment
from alphaplus.server.features.user_set import UserSet
from alphaplus.server.sets import reads, stretch
from alphaplus.server.sets.reads import Reads
from alphaplus.server.sets.sqlcheck import ahead, reading, row_order, syntax
from alphaplus.server.sets.sqlcheck.reach import reach_of
from alphaplus.server.types import SECOND

WIDE = 100  # features by which ties are decided one by one
DATA_ERRORS = ("21", "22")  # of the data of one time: cardinality, division by zero, …
MOST_FAILURES = 200  # that are told of one call
BOOLEAN = 16
NUMBERS = (16, 20, 21, 23, 700, 701, 1700)  # bool, int8, int2, int4, float4, float8, numeric
_PLAIN = re.compile("[A-Za-z_][A-Za-z0-9_]{0,62}")  # as the domain feature.plain_name
# Read what a set has no business with, or outside its tables, without being volatile.
_FORBIDDEN = ("current_setting", "pg_", "has_", "inet_", "txid_", "lo_", "row_security")
# … and these read whatever relation they are given the name of.
_READS_BY_NAME = ("_to_xml", "to_xmlschema", "ts_stat", "ts_rewrite", "nextval", "currval")


def _statement(chosen: UserSet, quote: Any) -> str:
    """The vector at one time ($1: seconds since 1970; $2: seconds of the grid), or no row.

    Of several newest rows of one time the one with the greatest key of its table is meant
    (:mod:`.sqlcheck.row_order`), else the one with the greatest values from left to right.
    """
    query, keys = row_order.keyed(chosen.query)
    read = Reads.stored(chosen.symbols, chosen.sources)
    newest = [f"u.{row_order.OUTPUT.format(i)} desc" for i in range(1, keys + 1)]
    # A statement has at most 1664 columns: of a wide set the array decides, if need be.
    newest += [f"u.{quote(name)} desc nulls last" for name in chosen.features[:WIDE]]
    newest += ["v desc"] if len(chosen.features) > WIDE else []
    names = ", ".join(f"u.{quote(name)}::float8" for name in chosen.features)
    source = f"({read.rewritten(query)}\n) as u"
    where = "u.ts >= to_timestamp($1 - $2) and u.ts < to_timestamp($1)"
    order = f"u.ts desc, {', '.join(newest)}"
    return f"select array[{names}] as v from {source} where {where} order by {order} limit 1"


def run(
    plpy: Any,
    cache: dict[str, Any],
    set_id: int,
    symbol: str,
    times: list[int],
    back: int,
    stop: int | None,
) -> list[tuple[int, list[float | None]]]:
    """``feature._set_rows``: the times at which the set has a row, with its vector.

    One statement a time, each over the rows of that moment alone, or, where the set's text allows
    it, one over a stretch (:mod:`.stretch`), with the same result. Later rows (``stop``) are those
    that happen after the time: one that only became known late is nothing that a SELECT could look
    ahead to.
    """
    db = Database.of(plpy, cache)
    # What user_set.values() was asked for: this runs as a role that may read no table.
    chosen = db.sets_asked.get(set_id)
    if chosen is None:
        plpy.error(
            f"feature set {set_id} is not asked for",
            sqlstate="AP202",
            hint="Ask by feature.vector: feature._set_rows is its helper.",
        )
    assert chosen is not None
    statement = db.statements.get(set_id)
    if statement is None:
        found = stretch.reach(chosen)
        many = None if found is None else stretch.statement(chosen, plpy.quote_ident, WIDE)
        statement = _statement(chosen, plpy.quote_ident), many, found
        database.keep(db.statements, set_id, statement)
    alone, many, found = statement
    others = Reads.stored(chosen.symbols, chosen.sources).others(symbol)
    failed: list[tuple[int, str, int, str, str]] = []

    def one_by_one(some: list[int]) -> Iterator[tuple[int, list[float | None]]]:
        try:
            for at in some:
                db.moment = Moment(symbol, at - back, at, at, stop, None, others)
                values = [at / SECOND, chosen.grid / SECOND]
                try:
                    rows = db.execute(alone, ("float8", "float8"), values)
                except plpy.SPIError as error:
                    # A division by zero, a logarithm of nothing: of this time alone.
                    if error.sqlstate[:2] not in DATA_ERRORS:
                        raise
                    failed.append((set_id, symbol, at, error.sqlstate, _words(error)))
                    continue
                if len(rows):
                    yield at, rows[0]["v"]
        finally:
            db.moment = None

    if found is None or many is None or stop is not None:
        out = list(one_by_one(times))
    else:
        out = list(stretch.run(db, chosen, many, found, symbol, times, back, one_by_one))
    if failed and len(db.set_failures) < MOST_FAILURES:
        db.set_failures += failed[:MOST_FAILURES]
    return out


def moment(plpy: Any, cache: dict[str, Any], alias: str | None) -> dict[str, Any]:
    """``feature._moment``: what a user's SELECT is being run for.

    Args:
        alias: of other symbols than its own; None: its own.

    Raises (SQLSTATE): AP721 no set is being computed.
    """
    now = Database.of(plpy, cache).moment
    if now is None:
        plpy.error(
            "no feature set is being computed",
            sqlstate="AP721",
            hint="Read the market's tables; feature.as_of and feature.vector read as of a time.",
        )
    assert now is not None
    symbols = [now.symbol] if alias is None else list(now.others.get(alias, ()))
    return {**now._asdict(), "symbols": symbols}


def columns(plpy: Any, cache: dict[str, Any], query: str) -> list[tuple[str, int]]:
    """``feature._set_columns``: names and types of the columns of a rewritten query, as the server
    says."""
    db = Database.of(plpy, cache)
    db.moment = Moment("", 0, 0, 0, None, 0)
    try:
        result = plpy.execute(f"select * from ({query}\n) as u limit 0")
    finally:
        db.moment = None
    return list(zip(result.colnames(), result.coltypes(), strict=True))


def catalogue(db: Database, aliases: Collection[str] = ()) -> syntax.Catalogue:
    """What a set's SELECT may read and call, from the database's own catalogue.

    Args:
        aliases: of other symbols, whose tables stand behind them.
    """
    relations: dict[str, syntax.Relation] = {}
    tables = "select t.* from feature._set_tables($1) t"
    for row in db.execute(tables, ("text[]",), [[*reads.TABLES, *reads.BARS]]):
        columns = tuple(row["columns"])
        width = "timeframe" if "timeframe" in columns else None
        if row["relation"] in reads.BARS:
            columns = tuple(column for column in columns if column != "source")
        for schema in ("market", *aliases):
            relations[f"{schema}.{row['relation']}"] = syntax.Relation(columns, "ts", width)
    for row in db.execute("select s.* from feature._sources_known() s"):
        relations[f"source.{row['source']}"] = syntax.Relation(tuple(row["columns"]), "ts")
    calls = db.execute("select c.* from feature._set_calls() c")
    names = {row["name"] for row in calls}
    refused = {row["name"] for row in calls if row["refused"]}
    refused |= {
        name
        for name in names
        if name.startswith(_FORBIDDEN) or any(part in name for part in _READS_BY_NAME)
    }
    return syntax.Catalogue(relations, refused, names)


def check(
    db: Database, query: str, aliases: Collection[str], *, look_ahead: bool
) -> tuple[str, ...]:
    """The set's features, if its SELECT is one read-only query that does not look ahead.

    Raises (SQLSTATE): AP204 not one read-only SELECT over the market's tables with a column ts and
    numbers; AP205 it looks ahead. The detail says where and why.
    """
    plpy, known = db.plpy, catalogue(db, aliases)
    _refuse(plpy, reading.read_only(query, known), "AP204", "the query is not taken")
    tree = syntax.parse(query)
    from sqlglot import exp

    assert not isinstance(tree, syntax.Problem)
    for node in tree.find_all(exp.Parameter, exp.Placeholder):
        problem = syntax.problem_at(node, "a parameter has no value here", "Write the value.")
        _refuse(plpy, [problem], "AP204", "the query is not taken")
    if not look_ahead:
        _refuse(plpy, ahead.look_ahead(query, known), "AP205", "the query looks ahead")
    names = syntax.outputs(query)
    if "ts" not in names:
        plpy.error(
            "the query has no column ts",
            sqlstate="AP204",
            hint="Give the time of each row as ts: its newest row is the vector.",
        )
    features = tuple(name for name in names if name not in ("ts", "symbol"))
    bad = [name for name in names if not _PLAIN.fullmatch(name) or names.count(name) > 1]
    if not features or bad:
        plpy.error(
            "each column of the query needs a plain name of its own, and one must be a feature",
            sqlstate="AP204",
            detail=f"Its columns: {', '.join(name or '(without a name)' for name in names)}.",
            hint="Letters, digits and underscores: select ts, ln(close) as log_close …",
        )
    return features


def _refuse(plpy: Any, problems: list[syntax.Problem], code: str, words: str) -> None:
    if problems:
        plpy.error(
            f"{words}: {problems[0]}",
            sqlstate=code,
            detail="; ".join(str(problem) for problem in problems),
            hint=problems[0].hint,
        )


def column_types(plpy: Any, query: str) -> tuple[dict[str, int], str]:
    """Types of the query's columns, and why the server does not run it, if so."""
    try:
        with plpy.subtransaction():
            plan = plpy.prepare("select name, type from feature._set_columns($1)", ["text"])
            return {row["name"]: row["type"] for row in plpy.execute(plan, [query])}, ""
    except plpy.SPIError as error:
        return {}, _words(error)


def _words(error: Any) -> str:
    """The message of an error without the name of its class."""
    words = str(error).removeprefix("spiexceptions.")
    return words.partition(": ")[2] or words


def types(plpy: Any, query: str, features: tuple[str, ...]) -> dict[str, int]:
    """Types of a rewritten query's columns; refuses (AP204) what does not run or is no number."""
    kinds, failed = column_types(plpy, query)
    if failed:
        plpy.error(
            f"the query does not run: {failed}",
            sqlstate="AP204",
            hint="Run the SELECT on its own first; name functions of extensions with their schema"
            " (public.time_bucket), and columns by their table's alias.",
        )
    wrong = [name for name in features if kinds.get(name) not in NUMBERS]
    if wrong:
        plpy.error(
            f"not a number: {', '.join(wrong)}",
            sqlstate="AP204",
            hint="A feature is a number or a boolean; cast it, or leave it out.",
        )
    if kinds.get("ts") != 1184:
        plpy.error(
            "ts is not of type timestamptz",
            sqlstate="AP204",
            hint="Give the table's own ts, or the end of its bucket: public.time_bucket(width, ts)"
            " + width - interval '1 microsecond'.",
        )
    return kinds


def create(
    plpy: Any,
    cache: dict[str, Any],
    name: str,
    query: str | None,
    lookback: int,
    grid: int,
    description: str,
    formulas: str | None,
    look_ahead: bool,
    symbols: str | None,
) -> int:
    """``feature.create_set``: the set's id, new or that of the same definition."""
    db = Database.of(plpy, cache)
    query = (query or "").strip().rstrip(";").rstrip()
    try:
        others = reads.canonical(db, symbols)
    except reads.ReadsError as error:
        plpy.error(
            str(error),
            sqlstate="AP243",
            hint='Give {"btc": "BTCUSDT", "majors": ["BTCUSDT", "ETHUSDT"], "spot": {"BTC-PERP":'
            ' "BTCUSDT"}}, and read btc.candles, majors.trades, spot.candles_1h.',
        )
        raise
    features = check(db, query, others, look_ahead=look_ahead)
    unused = sorted(set(others) - reads.named_aliases(query))
    if unused:
        plpy.error(
            f"the query does not read {unused[0]}",
            sqlstate="AP244",
            hint=f"Read {unused[0]}.candles, or leave it out of symbols.",
        )
    sources = reads.named_sources(query)
    listed = {
        row["source"]: row["columns"]
        for row in db.execute(
            "select s.source, feature._source_columns(s) as columns from feature.sources s"
        )
        if row["source"] in sources
    }
    kinds = types(plpy, Reads(others, listed).rewritten(query), features)
    _far_enough(plpy, query, lookback)
    given = _described(plpy, formulas, features)
    booleans = {name for name in features if kinds[name] == 16}
    if booleans:
        # float8 has no cast from boolean
        inside = ", ".join(
            f"u.{plpy.quote_ident(f)}::int" + f" as {plpy.quote_ident(f)}" if f in booleans
            else f"u.{plpy.quote_ident(f)}"
            for f in features
        )  # fmt: skip
        query = f"select u.ts, {inside} from ({query}\n) as u"
    lengths = lookback / SECOND, grid / SECOND
    text = json.dumps([query, features, lengths[1], lengths[0], *([others] if others else [])])
    expressions = _expressions(query)
    own = [
        words if isinstance(words, Mapping) else {"formula": words} if words else {}
        for words in (given.get(feature) for feature in features)
    ]
    formulas_ = [
        str(words.get("formula") or expressions.get(feature) or feature)
        for words, feature in zip(own, features, strict=True)
    ]
    values = [
        name, list(features), query, grid, lookback, hashlib.sha256(text.encode()).digest(),
        description,
        formulas_,
        [str(o.get("unit") or "not said") for o in own],
        [str(o.get("source") or "the set's query") for o in own],
        json.dumps(others), sources,
    ]  # fmt: skip
    kinds_ = (
        "text", "text[]", "text", "int8", "int8", "bytea", "text", *["text[]"] * 3, "jsonb",
        "text[]",
    )  # fmt: skip
    places = ", ".join(f"${i}" for i in range(1, len(values) + 1))
    call = f"select feature._add_set({places}) as set_id"
    return int(db.execute(call, kinds_, values)[0]["set_id"])


def _far_enough(plpy: Any, query: str, lookback: int) -> None:
    """Refuses (AP203) a lookback that cuts off what the windows of the text ask for."""
    found = reach_of(query)
    needed = 0 if found is None else found.needs() or found.span
    if needed > lookback:
        text = stretch.in_words(needed)
        plpy.error(
            f"the query reaches back {text}, and its lookback is {stretch.in_words(lookback)}",
            sqlstate="AP203",
            hint=f"Give lookback => '{text}', more where bars may be missing.",
        )


def _described(plpy: Any, formulas: str | None, features: tuple[str, ...]) -> Mapping[str, Any]:
    """What the user says of the features; refuses (AP203) what is no object or of no feature."""
    given = json.loads(formulas or "{}")
    strange = sorted(set(given) - set(features)) if isinstance(given, dict) else [formulas]
    if strange:
        plpy.error(
            f"formulas of {strange[0]}, which is no feature of the set",
            sqlstate="AP203",
            detail=f"Its features: {', '.join(features)}.",
            hint='Give an object: {"feature": {"formula": …, "unit": …, "source": …}}.',
        )
    found: Mapping[str, Any] = given
    return found


def _expressions(query: str) -> dict[str, str]:
    from sqlglot import exp

    tree = syntax.parse(query)
    if not isinstance(tree, exp.Query):
        return {}
    return {p.alias_or_name: p.unalias().sql(dialect="postgres") for p in tree.selects}
