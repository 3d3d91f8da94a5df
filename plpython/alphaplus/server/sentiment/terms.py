"""Text models that are tables of terms, inside the server: checked, stored, read."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from alphaplus.texts.terms import INTERCEPT, Model, odds, parse, parts_of, words_of


def refuse(plpy: Any, artifact: bytes) -> None:
    """Refuse (AP671) what is no table of terms."""
    try:
        parse(artifact)
    except ValueError as error:
        plpy.error(
            f"the artifact is no table of terms: {error}",
            sqlstate="AP671",
            hint="Train it here: call sentiment.train(model).",
        )


def rows(artifact: bytes) -> list[dict[str, Any]]:
    """An artifact's terms as rows of ``sentiment.terms``."""
    read = json.loads(artifact)
    table = {**read["terms"], INTERCEPT: read["intercept"]}
    return [
        {"term": term, "weight": weights[-1] - weights[0], "class_weights": weights}
        for term, weights in table.items()
    ]


def pairs(text: str | None) -> list[tuple[str, str]]:
    """(word, term) of a text, a pair under its second word."""
    words = words_of(text or "")
    found = [(word, term) for word in words for term in parts_of(word)]
    return found + [(b, f"b:{a} {b}") for a, b in pairwise(words)]


def names(plpy: Any) -> list[str]:
    """The text models that there are."""
    found = plpy.execute("select model from ml.models where algorithm = 'terms' order by 1")
    return [row["model"] for row in found]


def exists(plpy: Any, cache: dict[str, Any], method: str | None) -> bool:
    """Whether there is a text model of that name."""
    return method is not None and method in names(plpy)


def model(plpy: Any, cache: dict[str, Any], method: str | None, as_of: int | None) -> Model | None:
    """The version of a text model that is, or at ``as_of`` was, its champion; kept by version."""
    if method is None:
        return None
    plan = cache.get("sentiment.champion_plan")
    if plan is None:
        plan = plpy.prepare("select sentiment._champion($1, $2) as version_id", ["text", "bigint"])
        cache["sentiment.champion_plan"] = plan
    version = plpy.execute(plan, [method, as_of])[0]["version_id"]
    if version is None:
        return None
    kept: dict[int, Model] = cache.setdefault("sentiment.models", {})
    if version not in kept:
        stored = _stored(plpy, version)
        if stored is None:
            return None
        if len(kept) >= 8:
            kept.pop(next(iter(kept)))
        kept[version] = stored
    return kept[version]


def _stored(plpy: Any, version: int) -> Model | None:
    """A version out of ``sentiment.terms``; None: it is of a model that reads no texts."""
    spec = plpy.prepare("select spec from ml.model_versions where version_id = $1", ["bigint"])
    read = json.loads(plpy.execute(spec, [version])[0]["spec"])
    if "classes" not in read:
        return None
    plan = plpy.prepare(
        "select term, class_weights from sentiment.terms where version_id = $1", ["bigint"]
    )
    k = len(read["classes"])
    table = {
        row["term"]: odds([float(x) for x in row["class_weights"]], k, row["term"])
        for row in plpy.execute(plan, [version])
    }
    intercept = table.pop(INTERCEPT)
    return Model(str(version), read["language"], k, intercept, table)
