"""PL/Python drops the message of an error that is raised while it fetches rows one by one ("error
fetching next item from iterator"). So no body returns a generator as it is: a list, or
``alphaplus.server.errors.rows`` of it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "plpython" / "alphaplus" / "server"
RETURNED = re.compile(r"^\s*return (?:SD\[\"\w+\"\]|(?:\w+\.)?(\w+))\(", re.MULTILINE)
BODY = re.compile(r"\$python\$(.*?)\$python\$", re.DOTALL)
IMPORTED = re.compile(r"from (alphaplus\.server[\w.]*) import (\w+)")


def generators(path: Path) -> set[str]:
    """Functions of a module that yield, and those that return what such a one gives."""
    tree = ast.parse(path.read_text())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}

    def yields(node: ast.AST) -> bool:
        inner = [
            child
            for child in ast.iter_child_nodes(node)
            if not isinstance(child, ast.FunctionDef | ast.Lambda)
        ]
        return any(isinstance(c, ast.Yield | ast.YieldFrom) or yields(c) for c in inner)

    found = {name for name, node in functions.items() if yields(node)}
    for name, node in functions.items():
        for part in ast.walk(node):
            if isinstance(part, ast.Return) and (
                isinstance(part.value, ast.GeneratorExp)
                or (
                    isinstance(part.value, ast.Call)
                    and isinstance(part.value.func, ast.Name)
                    and part.value.func.id in found
                )
            ):
                found.add(name)
    return found


def returned() -> list[tuple[str, Path, str]]:
    """SQL file, module and function of what each PL/Python body returns."""
    found = []
    for file in sorted((ROOT / "sql").rglob("*.sql")):
        for body in BODY.findall(file.read_text()):
            for package, name in IMPORTED.findall(body):
                base = ROOT / "plpython" / Path(*package.split("."))
                module = base / f"{name}.py"
                names = [n for n in RETURNED.findall(body) if n]
                if module.exists():
                    found += [(file.name, module, n) for n in names]
                elif base.with_suffix(".py").exists():
                    found.append((file.name, base.with_suffix(".py"), name))
    return found


def test_no_body_returns_a_generator() -> None:
    calls = returned()
    assert len(calls) > 60
    wrong = [
        (file, module.relative_to(SERVER).as_posix(), name)
        for file, module, name in calls
        if name in generators(module)
    ]
    assert not wrong, wrong
