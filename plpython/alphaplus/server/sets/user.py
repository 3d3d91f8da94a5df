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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from alphaplus.server.features import families
from alphaplus.server.market import revisions as w
from alphaplus.server.sets.sqlcheck import ahead, reading, row_order, syntax

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

TABLES = (
    "candles", "trades", "order_book_snapshots", "liquidation_events", "funding_rates",
    "open_interest",
)  # fmt: skip
PREFIX = "select:"
# What stands in a query for a table: its rows at the moment that MOMENT holds (sql/market/now.sql).
NOW = "market._{table}_now()"
MOMENT = "alphaplus.moment"  # in GD while a set's SELECT runs, where no SQL can reach it
SETS = "alphaplus.sets"  # sets that values() was asked for, for run(), which may read no table
WIDE = 100  # features by which ties are decided one by one
AT_ONCE = 2000  # grid times in one call
KEPT = 200  # sets, and their plans, that a backend keeps
PLANS = "alphaplus.select plans"
_NUMBERS = (16, 20, 21, 23, 700, 701, 1700)  # bool, int8, int2, int4, float4, float8, numeric
_PLAIN = re.compile("[A-Za-z_][A-Za-z0-9_]{0,62}")  # as the domain feature.plain_name
# Read what a set has no business with, or outside its tables, without being volatile.
_FORBIDDEN = ("current_setting", "pg_", "has_", "inet_", "txid_", "lo_", "row_security")
# … and these read whatever relation they are given the name of.
_READS_BY_NAME = ("_to_xml", "to_xmlschema", "ts_stat", "ts_rewrite", "nextval", "currval")


@dataclass(frozen=True)
class UserSet:
    """A row of feature.sets of kind select."""

    set_id: int
    name: str
    version: int
    features: tuple[str, ...]
    query: str
    grid: int
    lookback: int


def rewritten(query: str, known: str) -> str:
    """The query with each market table replaced by ``known`` (a format of ``{table}``).

    The text is changed only where the tables stand.
    """
    from sqlglot import exp

    tree = syntax.parse(query)
    assert not isinstance(tree, syntax.Problem)
    places: list[tuple[int, int, str]] = []
    for table in tree.find_all(exp.Table):
        schema = table.args.get("db")
        if schema is None or schema.name != "market" or table.name not in TABLES:
            continue
        text = known.format(table=table.name)
        if not table.alias:
            text += f" as {table.name}"
        places.append((schema.meta["start"], table.this.meta["end"] + 1, text))
    for start, end, text in sorted(set(places), reverse=True):
        query = query[:start] + text + query[end:]
    return query


def _statement(query: str, features: tuple[str, ...], quote: Any) -> str:
    """The vector at one time ($1: seconds since 1970; $2: seconds of the grid), or no row.

    Of several newest rows of one time the one with the greatest key of its table is meant
    (:mod:`.sqlcheck.row_order`), else the one with the greatest values from left to right.
    """
    query, keys = row_order.keyed(query)
    newest = [f"u.{row_order.OUTPUT.format(i)} desc" for i in range(1, keys + 1)]
    # A statement has at most 1664 columns: of a wide set the array decides, if need be.
    newest += [f"u.{quote(name)} desc nulls last" for name in features[:WIDE]]
    newest += ["v desc"] if len(features) > WIDE else []
    names = ", ".join(f"u.{quote(name)}::float8" for name in features)
    return (
        f"select array[{names}] as v from ({rewritten(query, NOW)}\n) as u"
        " where u.ts >= to_timestamp($1) - make_interval(secs => $2) and u.ts < to_timestamp($1)"
        f" order by u.ts desc, {', '.join(newest)} limit 1"
    )


def values(
    plpy: Any,
    cache: dict[str, Any],
    chosen: UserSet,
    symbol: str,
    grid: Times,
    *,
    lookback: int | None = None,
    until: int | None = None,
) -> Floats:
    """The set at ascending grid times: (n, k), NaN where not knowable.

    The SELECT runs in ``feature._set_rows``, with the rights of alphaplus_select, whoever calls.

    Args:
        lookback: another lookback than the set's, in microseconds.
        until: beside what was known then, look at the rows that happened from each grid time up
            to that time (for the audit).
    """
    plans = cache.setdefault("alphaplus.plans", {})
    plan = plans.get(PREFIX)
    if plan is None:
        plan = plans[PREFIX] = plpy.prepare(
            "select seconds_at, vector from feature._set_rows($1, $2, $3, $4, $5)",
            ["int4", "text", "float8[]", "float8", "float8"],
        )
    _keep(cache.setdefault(SETS, {}), chosen.set_id, chosen)
    out = np.full((len(grid), len(chosen.features)), np.nan)
    back = (chosen.lookback if lookback is None else lookback) / w.SECOND
    stop = None if until is None else until / w.SECOND + w.EPOCH
    for begin in range(0, len(grid), AT_ONCE):
        seconds = (grid[begin : begin + AT_ONCE] / w.SECOND + w.EPOCH).tolist()
        where = {second: begin + i for i, second in enumerate(seconds)}
        for row in plpy.execute(plan, [chosen.set_id, symbol, seconds, back, stop]):
            out[where[row["seconds_at"]]] = [np.nan if x is None else x for x in row["vector"]]
    out[~np.isfinite(out)] = np.nan
    return out


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    """Put into a dictionary that keeps so many entries, the newest."""
    kept.pop(key, None)
    kept[key] = value
    while len(kept) > KEPT:
        del kept[next(iter(kept))]


def run(
    plpy: Any,
    cache: dict[str, Any],
    set_id: int,
    symbol: str,
    seconds: list[float],
    back: float,
    stop: float | None,
) -> list[tuple[float, list[float | None]]]:
    """``feature._set_rows``: the times at which the set has a row, with its vector.

    One statement a time, each over the rows of that moment alone: in one statement over many times
    a query could reach for another time's rows. Later rows (``stop``) are those that happen after
    the time: one that only became known late is nothing that a SELECT could look ahead to.
    """
    plans = cache.setdefault(PLANS, {})
    chosen = cache.get(SETS, {}).get(set_id)
    if chosen is None:
        plpy.error(
            f"feature set {set_id} is not asked for",
            sqlstate="AP202",
            hint="Ask by feature.vector: feature._set_rows is its helper.",
        )
    if set_id not in plans:
        text = _statement(chosen.query, chosen.features, plpy.quote_ident)
        _keep(plans, set_id, plpy.prepare(text, ["float8", "float8"]))
    plan, step = plans[set_id], chosen.grid / w.SECOND
    until = None if stop is None else round(stop * w.SECOND)
    out = []
    try:
        for second in seconds:
            at = round(second * w.SECOND)
            cache[MOMENT] = (symbol, at - round(back * w.SECOND), at, until)
            found = plpy.execute(plan, [second, step])
            if len(found):
                out.append((second, found[0]["v"]))
    finally:
        cache.pop(MOMENT, None)
    return out


def moment(plpy: Any, cache: dict[str, Any]) -> tuple[str, int, int, int | None]:
    """``feature._moment``: symbol, start, as_of and, of an audit, until; microseconds since 1970.

    Raises (SQLSTATE): AP721 no set is being computed.
    """
    now: tuple[str, int, int, int | None] | None = cache.get(MOMENT)
    if now is None:
        plpy.error(
            "no feature set is being computed",
            sqlstate="AP721",
            hint="Read the market's tables; feature.as_of and feature.vector read as of a time.",
        )
    assert now is not None
    return now


def columns(plpy: Any, cache: dict[str, Any], query: str) -> list[tuple[str, int]]:
    """``feature._set_columns``: names and types of the query's columns, as the server says."""
    cache[MOMENT] = ("", 0, 0, None)
    try:
        result = plpy.execute(f"select * from ({rewritten(query, NOW)}\n) as u limit 0")
    finally:
        cache.pop(MOMENT, None)
    return list(zip(result.colnames(), result.coltypes(), strict=True))


def load(plpy: Any, set_id: int) -> UserSet:
    """The set of an id."""
    row = plpy.execute(
        plpy.prepare(
            "select name, version, features, definition, date_part('epoch', grid) as grid,"
            " date_part('epoch', lookback) as lookback from feature.sets where set_id = $1",
            ["int4"],
        ),
        [set_id],
    )[0]
    return UserSet(
        set_id, row["name"], row["version"], tuple(row["features"]), row["definition"],
        round(row["grid"] * w.SECOND), round(row["lookback"] * w.SECOND),
    )  # fmt: skip


def family(plpy: Any, definition: str) -> families.Family:
    """The set behind ``select:<set_id>`` as a family."""
    chosen = load(plpy, int(definition.removeprefix(PREFIX)))

    def rows(plpy: Any, cache: dict[str, Any], symbol: str, grid: Times) -> Floats:
        return values(plpy, cache, chosen, symbol, grid)

    return families.Family(
        name=chosen.name,
        version=chosen.version,
        revision="1",
        description="",
        features=tuple(families.Feature(name, "", "", "") for name in chosen.features),
        needs=families.Needs(bars=max(1, chosen.lookback // chosen.grid)),
        grid=chosen.grid,
        rows=rows,
    )


def catalogue(plpy: Any) -> syntax.Catalogue:
    """What a set's SELECT may read and call, from the database's own catalogue."""
    relations: dict[str, syntax.Relation] = {}
    rows = plpy.execute(
        "select c.relname, array_agg(a.attname::text order by a.attnum) as columns"
        " from pg_catalog.pg_class c"
        " join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0"
        " and not a.attisdropped where c.relnamespace = 'market'::regnamespace"
        " and c.relkind in ('r', 'p') group by c.relname"
    )
    for row in rows:
        if row["relname"] in TABLES:
            columns = tuple(row["columns"])
            width = "timeframe" if "timeframe" in columns else None
            relations[f"market.{row['relname']}"] = syntax.Relation(columns, "ts", width)
    # Every function that writes, or is not the server's or an extension's own.
    refused = {
        row["proname"]
        for row in plpy.execute(
            "select distinct p.proname from pg_catalog.pg_proc p where p.provolatile = 'v'"
            " or p.pronamespace <> 'pg_catalog'::regnamespace and not exists (select"
            " from pg_catalog.pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid"
            " and d.deptype = 'e')"
        )
    }
    names = {
        row["proname"] for row in plpy.execute("select distinct proname from pg_catalog.pg_proc")
    }
    refused |= {
        name
        for name in names
        if name.startswith(_FORBIDDEN) or any(part in name for part in _READS_BY_NAME)
    }
    return syntax.Catalogue(relations, refused, names)


def check(plpy: Any, query: str, *, look_ahead: bool) -> tuple[str, ...]:
    """The set's features, if its SELECT is one read-only query that does not look ahead.

    Raises (SQLSTATE): AP204 not one read-only SELECT over the market's tables with a column ts and
    numbers; AP205 it looks ahead. The detail says where and why.
    """
    known = catalogue(plpy)
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


def types(plpy: Any, query: str, features: tuple[str, ...]) -> dict[str, int]:
    """The columns' types; refuses (AP204) what the server does not run or is no number."""
    failed, kinds = "", {}
    try:
        with plpy.subtransaction():
            plan = plpy.prepare("select name, type from feature._set_columns($1)", ["text"])
            kinds = {row["name"]: row["type"] for row in plpy.execute(plan, [query])}
    except plpy.SPIError as error:
        failed = str(error).removeprefix("spiexceptions.").partition(": ")[2] or str(error)
    if failed:
        plpy.error(
            f"the query does not run: {failed}",
            sqlstate="AP204",
            hint="Run the SELECT on its own first; name functions of extensions with their schema"
            " (public.time_bucket), and columns by their table's alias.",
        )
    wrong = [name for name in features if kinds.get(name) not in _NUMBERS]
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
    name: str,
    query: str | None,
    lookback: float,
    grid: float,
    description: str,
    formulas: str | None,
    look_ahead: bool,
) -> int:
    """``feature.create_set``: the set's id, new or that of the same definition."""
    query = (query or "").strip().rstrip(";").rstrip()
    features = check(plpy, query, look_ahead=look_ahead)
    kinds = types(plpy, query, features)
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
    digest = hashlib.sha256(json.dumps([query, features, grid, lookback]).encode()).digest()
    same = plpy.execute(
        plpy.prepare(
            "select set_id, sha256 from feature.sets where name = $1 order by version desc limit 1",
            ["text"],
        ),
        [name],
    )
    if len(same) and bytes(same[0]["sha256"]) == digest:
        return int(same[0]["set_id"])
    row = plpy.execute(
        plpy.prepare(
            "insert into feature.sets (name, version, features, definition, kind, grid, lookback,"
            " sha256, description) select $1, coalesce(max(s.version), 0) + 1, $2, $3, 'select',"
            " make_interval(secs => $4), make_interval(secs => $5), $6, $7"
            " from feature.sets s where s.name = $1 returning set_id, version",
            ["text", "text[]", "text", "float8", "float8", "bytea", "text"],
        ),
        [name, list(features), query, grid, lookback, digest, description],
    )[0]
    expressions = _expressions(query)
    for position, feature in enumerate(features, 1):
        own = given.get(feature)
        own = own if isinstance(own, Mapping) else {"formula": own} if own else {}
        plpy.execute(
            plpy.prepare(
                "insert into feature.definitions (feature_set, feature_version, feature, position,"
                " formula, unit, source) values ($1, $2, $3, $4, $5, $6, $7)",
                ["text", "int4", "text", "int4", "text", "text", "text"],
            ),
            [
                name, row["version"], feature, position,
                str(own.get("formula") or expressions.get(feature) or feature),
                str(own.get("unit") or "not said"), str(own.get("source") or "the set's query"),
            ],
        )  # fmt: skip
    functions(plpy, int(row["set_id"]))
    return int(row["set_id"])


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


def functions(plpy: Any, set_id: int) -> None:
    """``feature.<set>`` and ``feature.<set>_history`` for the newest version of a set."""
    from alphaplus.server.store import vectors

    chosen = load(plpy, set_id)
    plpy.execute(
        "drop function if exists"
        f" feature.{plpy.quote_ident(chosen.name)}(text, timestamptz),"
        f" feature.{plpy.quote_ident(chosen.name + '_history')}(text, timestamptz, timestamptz)"
    )
    rows = plpy.execute(
        plpy.prepare(
            "select d.feature, d.formula, d.unit, d.source, s.description"
            " from feature.definitions d join feature.sets s on s.name = d.feature_set"
            " and s.version = d.feature_version"
            " where s.set_id = $1 order by d.position",
            ["int4"],
        ),
        [set_id],
    )
    shown = families.Family(
        name=chosen.name,
        version=chosen.version,
        revision="1",
        description=(rows[0]["description"] or f"The feature set {chosen.name}").rstrip(".") + ".",
        features=tuple(
            families.Feature(r["feature"], r["formula"], r["unit"], r["source"]) for r in rows
        ),
        needs=families.Needs(),
        grid=chosen.grid,
    )
    vectors._create_functions(plpy, shown)
    for suffix, arguments in (("", ""), ("_history", ", timestamptz")):
        signature = (
            f"feature.{plpy.quote_ident(chosen.name + suffix)}(text, timestamptz{arguments})"
        )
        plpy.execute(f"revoke all on function {signature} from public")
        plpy.execute(
            f"grant execute on function {signature}"
            " to alphaplus_reader, alphaplus_app, alphaplus_operator"
        )


def sync(plpy: Any) -> None:
    """Make the functions of all users' sets again, those of their newest versions."""
    for row in plpy.execute(
        "select distinct on (name) set_id from feature.sets where kind = 'select'"
        " order by name, version desc"
    ):
        functions(plpy, row["set_id"])
