"""Gates on the text of sql/ and migrations/: no database needed."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from alphaplus import migrations
from pglast import ast as nodes
from pglast import parse_sql

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for path in migrations.sql_files(ROOT))
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]
REPEATABLE = (
    nodes.CommentStmt,
    nodes.SelectStmt,
    nodes.InsertStmt,
    nodes.UpdateStmt,
    nodes.DeleteStmt,
    nodes.DoStmt,
    nodes.CallStmt,
    nodes.GrantStmt,
    nodes.GrantRoleStmt,
    nodes.AlterOwnerStmt,
    nodes.AlterFunctionStmt,
    nodes.AlterDefaultPrivilegesStmt,
    nodes.VariableSetStmt,
)


@dataclass(frozen=True)
class Function:
    """A function or procedure as its file defines it."""

    path: str
    name: str
    language: str
    body: str
    standard_body: bool
    pinned: bool
    volatility: str | None
    is_procedure: bool
    before: str  # the lines before it, where a reason may stand


@cache
def text_of(path: Path) -> str:
    return path.read_text()


@cache
def statements(path: Path) -> list[Any]:
    return list(parse_sql(text_of(path)))


def options(statement: nodes.CreateFunctionStmt) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for option in statement.options or ():
        found.setdefault(option.defname, []).append(option.arg)
    return found


def functions() -> list[Function]:
    found = []
    for path in FILES:
        raw = text_of(path).encode()
        for statement in statements(path):
            node = statement.stmt
            if not isinstance(node, nodes.CreateFunctionStmt):
                continue
            given = options(node)
            start = statement.stmt_location
            # what stands before the statement's first word is part of it for the parser
            head = raw[start : start + statement.stmt_len].decode()
            before = re.split(r"(?i)\bcreate or replace\b", head, maxsplit=1)[0]
            body = given.get("as", [None])[0]
            found.append(
                Function(
                    path=path.relative_to(ROOT).as_posix(),
                    name=".".join(part.sval for part in node.funcname),
                    language=given["language"][0].sval if "language" in given else "sql",
                    body=body[0].sval if body else "",
                    standard_body=node.sql_body is not None,
                    pinned=any(option.name == "search_path" for option in given.get("set", [])),
                    volatility=given["volatility"][0].sval if "volatility" in given else None,
                    is_procedure=bool(node.is_procedure),
                    before=before,
                )
            )
    return found


FUNCTIONS = functions()


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_parses_and_is_repeatable(path: Path) -> None:
    for statement in statements(path):
        node = statement.stmt
        if isinstance(node, nodes.CreateFunctionStmt | nodes.ViewStmt | nodes.CreateTrigStmt):
            assert node.replace, f"{path}: CREATE without OR REPLACE"
        elif isinstance(node, nodes.DropStmt):
            assert node.missing_ok, f"{path}: DROP without IF EXISTS"
        elif isinstance(node, nodes.InsertStmt):
            assert node.onConflictClause is not None, f"{path}: INSERT without ON CONFLICT"
        else:
            assert isinstance(node, REPEATABLE), f"{path}: {type(node).__name__} is not repeatable"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_triggers_and_what_they_call_are_where_they_are_left_alone(path: Path) -> None:
    """Making one anew waits for whoever writes: triggers.sql is only executed when it changed."""
    for statement in statements(path):
        node = statement.stmt
        is_trigger = isinstance(node, nodes.CreateTrigStmt)
        called = (
            isinstance(node, nodes.CreateFunctionStmt)
            and node.returnType is not None
            and node.returnType.names[-1].sval == "trigger"
        )
        if path.name.split(".")[0] == "triggers":
            comment = isinstance(node, nodes.CommentStmt)
            assert is_trigger or called or comment, f"{path}: not of a trigger"
        else:
            assert not (is_trigger or called), f"{path}: belongs in its schema's triggers.sql"


# Those that continuous aggregates are made of, or that are compressed.
HYPERTABLES = re.findall(
    r"create_hypertable\('((?:market|feature)\.\w+)'",
    "".join(path.read_text() for path in sorted((ROOT / "migrations").glob("*.sql"))),
)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_transition_tables_of_hypertables_are_the_apache_editions(path: Path) -> None:
    """On Community they make COPY skip invalidations (INSERT) or refuse compression (DELETE)."""
    assert {"market.trades", "feature.vectors"} <= set(HYPERTABLES)
    for statement in statements(path):
        node = statement.stmt
        if isinstance(node, nodes.CreateTrigStmt) and node.transitionRels:
            table = f"{node.relation.schemaname}.{node.relation.relname}"
            assert table not in HYPERTABLES or path.name.endswith(".apache.sql"), (
                f"{path}: {node.trigname}: put it into <name>.apache.sql, and a trigger on rows into"
                " <name>.community.sql"
            )


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_trailing_space_and_a_comment_on_top(path: Path) -> None:
    text = text_of(path)
    assert text.startswith("-- "), f"{path}: the first line says what the file is"
    assert text.endswith("\n")
    assert not re.search(r"[ \t]+$", text, re.MULTILINE)


def test_search_path_is_pinned_or_there_is_a_reason() -> None:
    """Procedures that commit and SQL functions that must be inlined cannot pin it."""
    bad = [
        f"{f.path}: {f.name}"
        for f in FUNCTIONS
        if not f.pinned
        and not f.standard_body  # its names are bound when it is created
        and f.language != "internal"  # it names nothing
        and not re.search(r"(?i)search_path|inline|commit", f.before)
        and not (f.is_procedure and re.search(r"(?i)\bcommit;|\bcall \w+\.\w+", f.body))
        and not (
            f.language == "sql"
            and "$" not in f.name
            and f.volatility in ("stable", "immutable")
            and is_qualified(f)
        )
    ]
    assert not bad, "\n".join(bad)


def is_qualified(function: Function) -> bool:
    """Whether an inlinable SQL function names its tables and functions with their schema."""
    try:
        (statement,) = parse_sql(function.body)
    except Exception:
        return False
    return not unqualified(statement)


BUILTIN = re.compile(r"^[a-z_0-9]+$")


def unqualified(tree: Any) -> list[str]:
    """Relations named without a schema that are no CTE of the statement."""
    from pglast.visitors import Visitor

    found: list[str] = []
    ctes: set[str] = set()

    class Names(Visitor):
        def visit_CommonTableExpr(self, _ancestors: Any, node: Any) -> None:  # noqa: N802
            ctes.add(node.ctename)

        def visit_RangeVar(self, _ancestors: Any, node: Any) -> None:  # noqa: N802
            if node.schemaname is None:
                found.append(node.relname)

    Names()(tree)
    return [name for name in found if name not in ctes]


def test_every_public_function_has_a_comment() -> None:
    commented = set()
    for path in FILES:
        for statement in statements(path):
            node = statement.stmt
            if isinstance(node, nodes.CommentStmt):
                target = node.object
                names = getattr(target, "objname", None) or (
                    target if isinstance(target, tuple) else ()
                )
                commented.add(".".join(part.sval for part in names))
    bad = [
        f"{f.path}: {f.name}" for f in FUNCTIONS if "._" not in f.name and f.name not in commented
    ]
    assert not bad, "\n".join(bad)


def test_python_bodies_only_import_and_call() -> None:
    bad = []
    for f in FUNCTIONS:
        if f.language != "plpython3u":
            continue
        body = textwrap.dedent(f.body).strip()
        tree = ast.parse(f"def body():\n{textwrap.indent(body, '    ')}")
        lines = tree.body[0].body  # type: ignore[attr-defined]
        if isinstance(lines[0], ast.If) and ast.unparse(lines[0].test).endswith("not in SD"):
            # Imported once and kept in SD: for what is called in microseconds.
            lines = [lines[0].body[0], *lines[1:]]
        imports = [line for line in lines[:-1] if isinstance(line, ast.Import | ast.ImportFrom)]
        ours = [
            line
            for line in imports
            if isinstance(line, ast.ImportFrom)
            and (line.module or "").startswith("alphaplus.server")
        ]
        if len(lines) > 4 or len(imports) < len(lines) - 1 or not ours:
            bad.append(f"{f.path}: {f.name}")
        if f.volatility is None:
            bad.append(f"{f.path}: {f.name} names no volatility")
    assert not bad, "\n".join(bad)


def test_predicting_is_stable() -> None:
    bad = [
        f"{f.path}: {f.name} is {f.volatility}"
        for f in FUNCTIONS
        if re.match(r"ml\.predict(_|$)", f.name) and f.volatility != "stable"
    ]
    assert not bad, "\n".join(bad)


def test_no_clock_in_as_of_functions() -> None:
    """now() only as a fallback of an as_of argument, never in the body's own logic."""
    clock = re.compile(
        r"\b(now\s*\(|clock_timestamp\s*\(|current_timestamp|current_date|localtimestamp)", re.I
    )
    allowed = re.compile(
        r"coalesce\s*\(\s*[\w.$]+\s*,\s*(pg_catalog\.)?(clock_timestamp|now)\s*\(\s*\)\s*\)", re.I
    )
    bad = []
    for f in FUNCTIONS:
        schema = f.name.split(".")[0]
        if f.volatility not in ("stable", "immutable") or schema not in (
            "feature",
            "regime",
            "market",
        ):
            continue
        if clock.search(allowed.sub("", f.body)):
            bad.append(f"{f.path}: {f.name}")
    assert not bad, "\n".join(bad)


def test_definer_functions_pin_their_search_path() -> None:
    bad = []
    for path in FILES:
        for statement in statements(path):
            node = statement.stmt
            if isinstance(node, nodes.CreateFunctionStmt):
                given = options(node)
                definer = any(arg.boolval for arg in given.get("security", []))
                if definer and not any(o.name == "search_path" for o in given.get("set", [])):
                    bad.append(f"{path}: {'.'.join(p.sval for p in node.funcname)}")
    assert not bad, "\n".join(bad)


MIGRATIONS = [
    path
    for path in sorted((ROOT / "migrations").iterdir())
    if path.suffix in {".sql", ".py"} and ".rollback" not in path.name
]


@pytest.mark.parametrize("path", MIGRATIONS, ids=[path.name for path in MIGRATIONS])
def test_migrations_have_names_and_a_way_back(path: Path) -> None:
    assert re.fullmatch(r"\d{4}_[a-z0-9_]+", path.stem)
    if path.suffix == ".sql":
        assert path.with_suffix(".rollback.sql").exists()
        assert statements(path)
        assert parse_sql(path.with_suffix(".rollback.sql").read_text())
    else:
        tree = ast.parse(path.read_text())
        steps = [
            n
            for n in ast.walk(tree)
            if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "step"
        ]
        assert steps
        assert all(len(step.args) == 2 for step in steps), "each step needs its way back"


def test_migrations_are_a_chain() -> None:
    known: set[str] = set()
    for number, path in enumerate(MIGRATIONS):
        text = path.read_text()
        match = re.search(r"-- depends: ([\w ]+)", text) or re.search(
            r'__depends__ = \{"(\w+)"\}', text
        )
        if number == 0:
            assert match is None
        else:
            assert match, f"{path.name} names none that it depends on"
            assert set(match[1].split()) <= known, f"{path.name} depends on a later one"
        known.add(path.stem)
    assert len({path.stem[:4] for path in MIGRATIONS}) == len(MIGRATIONS), "a number is used twice"


def test_released_migrations_are_as_released() -> None:
    migrations.check_frozen(ROOT)


def test_no_pickle_and_no_joblib() -> None:
    """No artifact or file of ours is ever unpickled."""
    bad = []
    for folder in ("plpython", "migrations", "loaders", "trainer"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                    names = ["pickle"] if getattr(node.value, "value", True) else []
                if any(
                    n.split(".")[0] in {"pickle", "joblib", "dill", "cloudpickle", "shelve"}
                    for n in names
                ):
                    bad.append(str(path))
    assert not bad, "\n".join(bad)


def test_psql_scripts_say_how_they_are_used() -> None:
    for path in sorted((ROOT / "sql" / "psql").glob("*.sql")):
        text = path.read_text()
        assert "sage:" in "\n".join(text.splitlines()[:3]), path
        assert r"\set ON_ERROR_STOP on" in text, path


def test_server_modules_import_no_plpy_and_nothing_heavy() -> None:
    """Modules of the server get plpy as an argument; numpy and the like are imported when needed."""
    heavy = {"plpy", "lightgbm", "onnxruntime", "torch", "pandas", "sklearn", "scipy"}
    bad = []
    for path in (ROOT / "plpython").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if found := heavy & {name.split(".")[0] for name in names}:
                bad.append(f"{path.name}: {', '.join(found)}")
    assert not bad, "\n".join(bad)


ERRORS = [
    (path.relative_to(ROOT).as_posix(), text.count("\n", 0, found.start()) + 1, found[1])
    for path in [*FILES, *sorted((ROOT / "sql" / "psql").glob("*.sql"))]
    for text in [text_of(path)]
    for found in re.finditer(
        r"raise exception\b(.+?);(?:\s*\n|\s+end\b)", text, re.DOTALL | re.IGNORECASE
    )
]
CALLS = [
    (path.relative_to(ROOT).as_posix(), call.lineno, {word.arg for word in call.keywords})
    for path in sorted((ROOT / "plpython").rglob("*.py"))
    for call in ast.walk(ast.parse(path.read_text()))
    if isinstance(call, ast.Call) and ast.unparse(call.func) == "plpy.error"
]


def test_every_error_has_its_code_and_says_what_to_do() -> None:
    assert len(ERRORS) > 60
    assert len(CALLS) > 10
    bare = [
        f"{path}:{line}"
        for path, line, text in ERRORS
        if "errcode" not in text or "hint" not in text
    ]
    bare += [f"{path}:{line}" for path, line, words in CALLS if not {"sqlstate", "hint"} <= words]
    assert bare == []
