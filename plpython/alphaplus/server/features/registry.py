"""Which families there are: every module of this package that declares one."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from alphaplus.server import features as package
from alphaplus.server.database import Database
from alphaplus.server.features import joined, user_set
from alphaplus.server.features.family import Family

_KNOWN: dict[str, Family] = {}


def _modules() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def _families(module: str) -> tuple[Family, ...]:
    found: Any = importlib.import_module(f"{package.__name__}.{module}")
    if hasattr(found, "FAMILIES"):
        several: tuple[Family, ...] = found.FAMILIES
        return several
    return (found.FAMILY,) if hasattr(found, "FAMILY") else ()


def everything() -> list[Family]:
    """All families, by name."""
    found = {family.name: family for module in _modules() for family in _families(module)}
    _KNOWN.update(found)
    return [found[name] for name in sorted(found)]


def get(name: str) -> Family:
    """The family of a name.

    Raises:
        KeyError: there is none.
    """
    if name not in _KNOWN:
        # The module that a family is named after is looked at first: a backend imports little.
        modules = _modules()
        for module in sorted(modules, key=lambda module: not name.startswith(module)):
            _KNOWN.update({family.name: family for family in _families(module)})
            if name in _KNOWN:
                break
    return _KNOWN[name]


def find(db: Database, definition: str) -> Family:
    """The family of a name, the user's set behind ``select:<set_id>``, or ``joined:<set_id>``.

    Raises (SQLSTATE AP214): ``name@version``, a version that an older release computed; a name
    that this release does not know.
    """
    if definition.startswith(user_set.PREFIX):
        if definition not in db.sets:
            db.sets[definition] = user_set.family(db, definition)
        found: Family = db.sets[definition]
        return found
    if definition.startswith(joined.PREFIX):
        return joined.family(db, definition, find)
    if "@" in definition:
        name, version = definition.split("@")
        db.plpy.error(
            f"version {version} of feature set {name} is no longer computed",
            sqlstate="AP214",
            detail=f"This release computes version {get(name).version} of it.",
            hint="Vectors that were stored can still be read. Train models anew: call"
            " ml.retrain(model, symbol)",
        )
    try:
        return get(definition)
    except KeyError:
        return db.plpy.error(  # type: ignore[no-any-return]  # it raises
            f"feature set {definition} is not computed by this release",
            sqlstate="AP214",
            hint="Stored vectors can still be read. The sets: select name from feature.sets",
        )


def declared() -> list[tuple[Any, ...]]:
    """``feature._declared``: what each family is, a row each; lengths of time in microseconds."""
    return [
        (
            family.name, family.version, list(family.names), family.grid,
            family.needs.lookback * family.grid,
            max(family.needs.lookback, family.reach) * family.grid,
            family.sha256, family.description,
            *([feature[i] for feature in family.features] for i in (1, 2, 3)),
        )
        for family in everything()
    ]  # fmt: skip
