"""Imports run one way: no circle anywhere, no room into another, the server's layers in order."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    "server": "plpython",
    "loaders": "loaders",
    "client": "loaders",
    "cli": "loaders",
    "trainer": "trainer",
}
# What several rooms may import, and which themselves import nothing else of ours.
SHARED = ("alphaplus.pgbinary", "alphaplus.texts")
# The server's layers: a module imports its own layer and those before it.
LAYERS = (
    ("types", "interrupts", "disk", "errors"),
    ("codec", "database"),
    ("market", "regime"),
    ("features",),
    ("sets", "store"),
    ("training", "drift", "sentiment", "backtest", "analytics"),
    ("serving",),
)


def modules() -> dict[str, Path]:
    """Name to path of every module of ours."""
    found = {}
    for folder in ("plpython", "loaders", "trainer", "migrations"):
        base = ROOT / folder
        for path in base.rglob("*.py"):
            parts = path.relative_to(base).with_suffix("").parts
            if parts[0] == "alphaplus":
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def test_there_are_modules_in_every_room() -> None:
    rooms = {name.split(".")[1] for name in MODULES if "." in name}
    assert {"server", "loaders", "trainer"} <= rooms
    assert len(MODULES) > 60


@cache
def imports(name: str) -> frozenset[str]:
    """The modules of ours that a module imports, inside its functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            module = node.module or ""
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                found.add(inner if inner in MODULES else module)
    return frozenset(found & set(MODULES) - {name})


def test_no_circle() -> None:
    state: dict[str, int] = {}
    circles: list[str] = []

    def visit(name: str, path: list[str]) -> None:
        state[name] = 1
        for other in sorted(imports(name)):
            if state.get(other) == 1:
                circles.append(" -> ".join([*path[path.index(other) :], other]))
            elif other not in state:
                visit(other, [*path, other])
        state[name] = 2

    for name in MODULES:
        if name not in state:
            visit(name, [name])
    assert circles == []


def test_no_room_imports_another() -> None:
    bad = []
    for name in MODULES:
        for other in imports(name):
            here, there = (n.split(".")[1] if "." in n else n for n in (name, other))
            # The command line drives these rooms; nothing else crosses.
            driven = ("loaders", "client", "migrations", "screens", "report")
            crosses = here != there and not (here == "cli" and there in driven)
            if crosses and not other.startswith(SHARED):
                bad.append(f"{name} imports {other}")
    assert sorted(bad) == []


def test_what_is_shared_imports_nothing_of_ours() -> None:
    assert [name for name in SHARED if name in MODULES and imports(name)] == []


def layer(name: str) -> int | None:
    parts = name.split(".")
    if parts[:2] != ["alphaplus", "server"] or len(parts) < 3:
        return None
    found = [i for i, names in enumerate(LAYERS) if parts[2] in names]
    assert found, f"{parts[2]} has no layer here: which may it import?"
    return found[0]


def test_the_server_is_in_layers() -> None:
    bad: list[str] = []
    for name in MODULES:
        mine = layer(name)
        if mine is None:
            continue
        for other in imports(name):
            its = layer(other)
            package, its_package = name.split(".")[2], other.split(".")[2:3]
            if its is None:
                continue
            beside = its == mine and [package] != its_package and mine > 0
            if its > mine or beside:
                bad.append(f"{name} imports {other}")
    assert sorted(bad) == []
