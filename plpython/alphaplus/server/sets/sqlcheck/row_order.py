"""Which of several rows of one time a user's SELECT means: the keys of the market's tables decide.

``order by ts`` leaves rows of one time in the order in which a plan happens to meet them. Wherever
a SELECT of a user's set (see :mod:`alphaplus.server.sets.user`) asks for one row after another of a
table, or of what passes its rows on, the table's key is added behind the time: in ``order by ts
desc limit 1``, behind whatever else the rows of one table are ordered by, in frames counted in
rows, in ``lag`` and its like, in ``array_agg(x order by ts)`` and ``last(x, ts)``; and the
outermost SELECT gives the key along, so that of the newest rows the one with the greatest key is
the vector. The text is changed only there; what it becomes is parsed again and must be what was
meant.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import sqlglot
from alphaplus.server.sets.sqlcheck import rowtimes, syntax
from sqlglot import exp
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
from sqlglot.optimizer.scope import Scope, traverse_scope
from sqlglot.tokenizer_core import TokenType

# Texts by length first, so that ids that are numbers are in their order.
KEYS = {
    "market.candles": ("{0}.timeframe",),
    "market.trades": ("length({0}.trade_id)", "{0}.trade_id"),
    "market.order_book_snapshots": ("{0}.sequence",),
    "market.liquidation_events": ("length({0}.event_id)", "{0}.event_id"),
    "market.funding_rates": (),
    "market.open_interest": (),
}
OUTPUT = "_alphaplus_{}"
CATALOGUE = syntax.Catalogue({name: syntax.Relation((), "ts") for name in KEYS})
_POSITIONAL = (exp.Lag, exp.FirstValue, exp.LastValue, exp.NthValue, exp.RowNumber, exp.Lead)


@dataclass
class _Changes:
    """Texts to put in at places of the query, and the same done to its tree."""

    tokens: list[sqlglot.tokenizer_core.Token]
    texts: list[tuple[int, int, str]] = field(default_factory=list)
    done: set[int] = field(default_factory=set)

    def after(self, position: int) -> int:
        """The end of what is ordered by, from the end of its column: behind DESC NULLS LAST."""
        place = next(i for i, token in enumerate(self.tokens) if token.end == position) + 1
        words = [token.text.upper() for token in self.tokens[place : place + 3]]
        if words and words[0] in ("ASC", "DESC"):
            place, words = place + 1, words[1:]
        if words and words[0] == "NULLS":
            place += 2
        return self.tokens[place - 1].end + 1


def keyed(query: str) -> tuple[str, int]:
    """The query with its ties decided, and how many columns :data:`OUTPUT` it gives along."""
    tree = syntax.parse(query)
    if isinstance(tree, syntax.Problem):
        return query, 0
    changes = _Changes(list(sqlglot.tokenize(query, read="postgres")))
    count = 0
    carried: dict[int, int] = {}  # by the select's id, how many keys it gives along
    scopes = traverse_scope(tree)
    through = {id(s.expression) for s in scopes if _passes_all_on(s)}
    # Another * would give the keys where they are not wanted.
    stars = any(
        isinstance(star.parent, (exp.Select, exp.Column)) and id(star.parent) not in through
        for star in tree.find_all(exp.Star)
    )
    for scope in scopes:
        select = scope.expression
        if not isinstance(select, exp.Select):
            continue
        keys = _keys(scope, carried)
        times = rowtimes.time_names(scope, CATALOGUE)
        _orders(scope, keys, times, changes)
        given = next(iter(rowtimes.row_times(scope, CATALOGUE)), None)
        mine = keys.get(given or "", ())
        if not mine or stars or not _plain(scope, select):
            continue
        if scope.parent is not None and not _is_table(scope):
            continue
        if id(select) in through and isinstance(scope.sources[given or ""], Scope):
            carried[id(select)] = len(mine)
            count = count if scope.parent is not None else len(mine)
            continue
        place = _select_end(select, changes.tokens)
        if place is None:
            continue
        named = [f"{key} as {OUTPUT.format(i)}" for i, key in enumerate(mine, 1)]
        changes.texts.append((place, place, f" {', '.join(named)},"))
        carried[id(select)] = len(mine)
        select.set("expressions", [*_parsed(f"select {', '.join(named)}").selects, *select.selects])
        if scope.parent is None:
            count = len(mine)
    text = query
    for start, end, new in sorted(set(changes.texts), reverse=True):
        text = text[:start] + new + text[end:]
    again = syntax.parse(text)
    if isinstance(again, syntax.Problem):
        return query, 0
    if again.sql("postgres", comments=False) != tree.sql("postgres", comments=False):
        return query, 0
    return text, count


def _of_table(source: exp.Table) -> tuple[str, ...]:
    """The key of a market's table; behind an alias of other symbols with the symbol."""
    if not source.db or source.db == "market":
        return KEYS.get(syntax.qualified_name(source), ())
    found = KEYS.get(f"market.{source.name}")
    return () if found is None else ("{0}.symbol", *found)


def _parsed(text: str) -> exp.Select:
    found = normalize_identifiers(sqlglot.parse_one(text, read="postgres"), dialect="postgres")
    assert isinstance(found, exp.Select)
    return found


def _keys(scope: Scope, carried: Mapping[int, int]) -> dict[str, tuple[str, ...]]:
    """For each source the expressions that tell its rows of one time apart."""
    keys: dict[str, tuple[str, ...]] = {}
    for alias, source in scope.sources.items():
        name = exp.to_identifier(alias, quoted=True).sql("postgres")
        if isinstance(source, exp.Table):
            keys[alias] = tuple(key.format(name) for key in _of_table(source))
        else:
            count = carried.get(id(source.expression), 0)
            keys[alias] = tuple(f"{name}.{OUTPUT.format(i + 1)}" for i in range(count))
    return keys


def _plain(scope: Scope, select: exp.Select) -> bool:
    """Is each of its rows one of its first source's?"""
    if any(select.args.get(word) for word in ("group", "distinct", "having", "limit", "offset")):
        return False
    for projection in select.selects:
        for node in projection.find_all(exp.AggFunc):
            if node.find_ancestor(exp.Select) is select and node.find_ancestor(exp.Window) is None:
                return False
    order = select.args.get("order")
    return not (order and any(isinstance(o.this, exp.Literal) for o in order.expressions))


def _passes_all_on(scope: Scope) -> bool:
    """Is it ``select * from`` one source, and nothing that counts its columns?"""
    select = scope.expression
    return (
        isinstance(select, exp.Select)
        and [type(projection) for projection in select.selects] == [exp.Star]
        and len(scope.selected_sources) == 1
        and _plain(scope, select)
        and (scope.parent is None or _is_table(scope))
    )


def _is_table(scope: Scope) -> bool:
    """Is it a CTE or a subquery in FROM, whose columns have names of their own?"""
    holder = scope.expression.parent
    if not isinstance(holder, (exp.CTE, exp.Subquery)):
        return False
    alias = holder.args.get("alias")
    named = alias is not None and bool(alias.args.get("columns"))
    return not named and (scope.is_cte or scope.is_derived_table)


def _select_end(select: exp.Select, tokens: list[sqlglot.tokenizer_core.Token]) -> int | None:
    """Where the word SELECT ends to which the first source belongs."""
    source = select.args.get("from_") or select.args.get("from")
    if source is None:
        return None
    starts = [
        node.meta["start"]
        for node in source.this.walk(
            prune=lambda n: isinstance(n, exp.Query) and n is not source.this
        )
        if "start" in node.meta and node.find_ancestor(exp.Select) is select
    ]
    if not starts:
        return None
    place = min(starts)
    open_: list[int | None] = [None]
    for i, token in enumerate(tokens):
        if token.start >= place:
            break
        if token.token_type == TokenType.L_PAREN:
            open_.append(None)
        elif token.token_type == TokenType.R_PAREN:
            open_.pop()
        elif token.token_type == TokenType.SELECT:
            follows = tokens[i + 1] if i + 1 < len(tokens) else token
            open_[-1] = (follows if follows.token_type == TokenType.ALL else token).end + 1
    return next((end for end in reversed(open_) if end is not None), None)


def _timed(
    column: exp.Expr | None,
    scope: Scope,
    keys: Mapping[str, tuple[str, ...]],
    times: Mapping[str, Collection[str]],
) -> tuple[str, ...]:
    """The keys of the source whose time a column is; none where it is no such time."""
    if not isinstance(column, exp.Column) or "end" not in column.this.meta:
        return ()
    named = [
        alias
        for alias in scope.selected_sources
        if column.table in ("", alias) and column.name in times.get(alias, ())
    ]
    return keys.get(named[0], ()) if len(named) == 1 else ()


def _listed(
    column: exp.Expr | None, scope: Scope, keys: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """What tells the rows of one table apart, where they are ordered by something else."""
    if not isinstance(column, exp.Column) or "end" not in column.this.meta:
        return ()
    (alias, (_, source)), *others = scope.selected_sources.items() or [("", (None, None))]
    table = _name_of(source)
    if others or table not in KEYS or column.name == "ts":
        return ()
    return (f"{exp.to_identifier(alias, quoted=True).sql('postgres')}.ts", *keys[alias])


def _name_of(source: object) -> str:
    return syntax.qualified_name(source) if isinstance(source, exp.Table) else ""


def _orders(
    scope: Scope,
    keys: Mapping[str, tuple[str, ...]],
    times: Mapping[str, Collection[str]],
    changes: _Changes,
) -> None:
    select = scope.expression
    assert isinstance(select, exp.Select)
    distinct = select.args.get("distinct")
    folded = bool(select.args.get("group")) or (distinct and not distinct.args.get("on"))
    for order in list(select.find_all(exp.Order)):
        if order.find_ancestor(exp.Select) is not select or id(order) in changes.done:
            continue
        ordered = order.expressions[-1]
        holder = order.parent
        mine = _timed(ordered.this, scope, keys, times)
        if not mine and holder is select:
            mine = _listed(ordered.this, scope, keys)
        if not mine or isinstance(holder, exp.WithinGroup):
            continue
        in_aggregate = isinstance(holder, exp.AggFunc)
        if folded and not in_aggregate:
            continue
        if isinstance(holder, exp.Window) and not _counts_rows(holder, select):
            continue
        words = "".join(f", {key}{' desc' if ordered.args.get('desc') else ''}" for key in mine)
        place = changes.after(ordered.this.this.meta["end"])
        changes.texts.append((place, place, words))
        changes.done.add(id(order))
        order.set(
            "expressions",
            [
                *order.expressions,
                *_parsed(f"select 1 order by {words[2:]}").args["order"].expressions,
            ],
        )
    for call in list(select.find_all(exp.First, exp.Last, exp.Anonymous)):
        if call.find_ancestor(exp.Select) is not select or id(call) in changes.done:
            continue
        if isinstance(call, exp.Anonymous):
            if call.name.lower() not in ("first", "last") or len(call.expressions) != 2:
                continue
            column = call.expressions[1]
        else:
            column = call.args.get("expression")
        mine = _timed(column, scope, keys, times)
        if not mine:
            continue
        start = (column.args.get("table") or column.this).meta["start"]
        changes.texts.append((start, start, "row("))
        end = column.this.meta["end"] + 1
        changes.texts.append((end, end, f", {', '.join(mine)})"))
        changes.done.add(id(call))
        row = _parsed(f"select row({column.sql('postgres')}, {', '.join(mine)})").selects[0]
        column.replace(row)


def _counts_rows(window: exp.Window, select: exp.Select) -> bool:
    """Does it matter to a window in which order rows of one time come, and may it?"""
    users = [window]
    if window.arg_key == "windows":
        users = [
            other
            for other in select.find_all(exp.Window)
            if other.arg_key != "windows" and other.alias == window.name
        ]
    for user in users:
        spec = user.args.get("spec") or window.args.get("spec")
        function = user.this
        while isinstance(function, (exp.IgnoreNulls, exp.RespectNulls, exp.Filter)):
            function = function.this
        kind = str(spec.args.get("kind") or "").lower() if spec is not None else ""
        if kind != "rows" and not (not kind and isinstance(function, _POSITIONAL)):
            return False
    return bool(users)
