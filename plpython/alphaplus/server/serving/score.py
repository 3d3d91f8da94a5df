"""Scoring: from a version id and a vector to a prediction, by the version's own spec.

The spec's keys are written by ``alphaplus.trainer.spec``, whose functions this module agrees with
to 1e-6 (a test says so).
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from alphaplus.server.serving import lightgbm_text, packed_trees
from alphaplus.server.serving.booster import Booster, BoosterError
from alphaplus.server.serving.model_cache import DEFAULT_BYTES, ModelCache, allocated, moment

# Where backends share packed models: the server's own folder for temporary files, which it empties
# when it starts. A backend's working folder is the data directory.
SHARED = "base/pgsql_tmp"


class Model:
    """A loaded version: its artifact, how to read its answer, and what it says of trust.

    ``share``: most bytes of the packed models that all backends share; None: keep an own copy.
    """

    def __init__(self, row: Any, share: int | None) -> None:
        artifact: bytes = row["artifact"]
        self.version_id = int(row["version_id"])
        self.task: str = row["task"]
        self.format: str = row["format"]
        self.features: list[str] = row["features"]
        self.spec: dict[str, Any] = json.loads(row["spec"])
        self.digest: str = row["digest"]
        # How much a feature's absence says: 0 where training rows never had it either.
        absent = json.loads(row.get("absent") or "{}")
        self.weights = [1.0 - float(absent.get(name) or 0.0) for name in self.features]
        self.booster: Any
        before = allocated()
        if self.format == "lightgbm":
            try:
                self.booster = packed_trees.shared(artifact, row["digest"], SHARED, share)
            except packed_trees.UnsupportedError:
                self.booster = Booster(artifact)
        else:
            from alphaplus.server.serving.onnx import Session

            self.booster = Session(artifact, self.spec)
        self.shared = isinstance(self.booster, packed_trees.Trees)
        # What is mapped; what the allocator handed out; or its own bytes where that does not tell.
        self.size = self.booster.size if self.shared else max(allocated() - before, len(artifact))
        self.explainer: Booster | None = None if self.shared else self.booster
        if self.booster.features != len(self.features):
            raise BoosterError(
                f"the artifact takes {self.booster.features} features, its version names"
                f" {len(self.features)}"
            )
        self.checked: tuple[int, int, int] | None = None
        self.raw = self.booster.raw
        self.raws = self.booster.many
        # LightGBM's own forests (boosting=rf) predict the mean of their trees, not the sum.
        self.trees = lightgbm_text.averaged(artifact) if self.format == "lightgbm" else 1
        if self.trees > 1:
            total, totals, trees = self.booster.raw, self.booster.many, self.trees
            self.raw = lambda row: total(row) / trees
            self.raws = lambda rows: totals(rows) / trees
        # A forest's trees add up to a probability; its log odds are the raw score.
        if (
            self.format == "lightgbm"
            and (self.spec.get("output") or {}).get("kind") == "probability"
        ):
            votes, all_votes = self.raw, self.raws
            self.raw = lambda row: _log_odds(votes(row))
            self.raws = lambda rows: [_log_odds(vote) for vote in all_votes(rows).tolist()]
        self.prediction = (
            _probability(self.spec) if self.task == "classification" else _value(self.spec)
        )

    def predictions(self, rows: Any) -> list[float | None]:
        """Probabilities or values of an array (n, width), those of each row alone; None where
        nothing of a row is known."""
        raw = self.raws(rows)
        if not isinstance(raw, list):
            raw = raw.tolist()
        found: list[float | None]
        plain = self.prediction is _sigmoid
        found = [*_sigmoids(raw)] if plain else [self.prediction(x) for x in raw]
        first = rows[:, 0]
        for i in (first != first).nonzero()[0].tolist():  # noqa: PLR0124  NaN is not itself
            if (rows[i] != rows[i]).all():
                found[i] = None
        return found

    def trust(
        self, prediction: float, missing: float = 0.0
    ) -> tuple[float | None, float | None, float | None]:
        """(confidence, lower, upper) of a prediction, as the spec defines them.

        ``missing``: share of the usually known features that are unknown. What is not known may be
        anything, so that share of the whole range joins the interval.
        """
        if self.task == "classification":
            table = self.spec.get("confidence")
            if not table:
                return None, None, None
            lower = min(prediction, _interpolate(prediction, table["x"], table["lower"]))
            upper = max(prediction, _interpolate(prediction, table["x"], table["upper"]))
            if missing > 0:
                lower, upper = lower * (1 - missing), upper + (1 - upper) * missing
            return 1.0 - (upper - lower), lower, upper
        interval = self.spec.get("interval")
        if not interval or missing >= 1:
            return None, None, None
        if interval["kind"] == "multiplicative":
            ends = prediction * interval["lower"], prediction * interval["upper"]
        else:
            ends = prediction + interval["lower"], prediction + interval["upper"]
        lower = prediction - (prediction - min(prediction, *ends)) / (1 - missing)
        upper = prediction + (max(prediction, *ends) - prediction) / (1 - missing)
        width = (self.spec.get("confidence") or {}).get("scale")
        confidence = max(0.0, 1.0 - (upper - lower) / width) if width else None
        return confidence, lower, upper

    def missing(self, features: Sequence[float | None]) -> tuple[int, float]:
        """How many features are unknown, and their share of those usually known in training."""
        gone = [i for i, x in enumerate(features) if x is None or x != x]  # noqa: PLR0124
        if not gone:
            return 0, 0.0
        usual = math.fsum(self.weights)
        share = math.fsum(self.weights[i] for i in gone) / usual if usual > 0 else 0.0
        return len(gone), min(share, 1.0)

    def distance(self, features: Sequence[float | None]) -> float | None:
        """Distance to the training rows in units of the threshold: above 1 is out of support."""
        support = self.spec.get("support")
        if not support:
            return None
        total, count = 0.0, 0
        for x, center, scale in zip(features, support["center"], support["scale"], strict=True):
            if x is not None and x == x and center is not None:  # noqa: PLR0124  NaN is not itself
                total += min(((x - center) / scale) ** 2, 1e6)
                count += 1
        return math.sqrt(total / max(count, 1)) / float(support["threshold"])

    def close(self) -> None:
        """Give the memory back."""
        self.booster.close()
        if self.shared and self.explainer is not None:
            self.explainer.close()


def _sigmoid(x: float) -> float:
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)


def _sigmoids(raw: Sequence[float]) -> list[float]:
    """:func:`_sigmoid` of each, to the last bit, without a call for each."""
    exp = math.exp
    return [1.0 / (1.0 + exp(-x)) if x >= 0 else (e := exp(x)) / (1.0 + e) for x in raw]


def _log_odds(p: float) -> float:
    p = min(max(p, 1e-7), 1 - 1e-7)
    return math.log(p / (1 - p))


def _interpolate(x: float, knots: Sequence[float], values: Sequence[float]) -> float:
    """Piecewise linear through the knots, flat outside: numpy.interp for one number."""
    if x <= knots[0]:
        return values[0]
    if x >= knots[-1]:
        return values[-1]
    i = bisect_right(knots, x)
    x0, x1 = knots[i - 1], knots[i]
    return values[i - 1] + (values[i] - values[i - 1]) * (x - x0) / (x1 - x0)


def _probability(spec: dict[str, Any]) -> Any:
    calibration = spec.get("calibration")
    if not calibration:
        return _sigmoid
    if calibration["method"] == "platt":
        a, b = calibration["a"], calibration["b"]
        return lambda raw: _sigmoid(a * raw + b)
    x, y = calibration["x"], calibration["y"]
    return lambda raw: _interpolate(_sigmoid(raw), x, y)


def _value(spec: dict[str, Any]) -> Any:
    output = spec.get("output", {})
    kind, scale = output.get("kind", "identity"), float(output.get("scale", 1.0))
    if kind == "exp":
        return lambda raw: scale * math.exp(raw)
    if kind == "expm1":
        return lambda raw: scale * math.expm1(raw)
    return lambda raw: scale * raw


def _setting(plpy: Any, name: str, fallback: int) -> int:
    """A setting that is a number, or true or false."""
    rows = plpy.execute(
        plpy.prepare(
            "select (case value when 'true' then '1' when 'false' then '0' else value end"
            " #>> '{}')::bigint as value from ops.settings where name = $1",
            ["text"],
        ),
        [name],
    )
    return int(rows[0]["value"]) if len(rows) else fallback


def models(cache: dict[str, Any]) -> ModelCache:
    """This backend's model cache."""
    found: ModelCache | None = cache.get("alphaplus.models")
    if found is None:
        found = cache["alphaplus.models"] = ModelCache(DEFAULT_BYTES)
    return found


def load(plpy: Any, cache: dict[str, Any], version_id: int, known: bool = False) -> Model:
    """The version's model, from the cache or from its row.

    ``known``: the caller's statement has just read the version's row. Else a model from the cache
    is only given while its row is there: it may have been deleted, or never have been committed.

    Raises (SQLSTATE): AP501 no such version, AP502 the artifact's hash differs from the one
    registered, AP503 the artifact cannot be read.
    """
    kept = models(cache)
    model: Model | None = kept.get(version_id)
    if model is not None and (known or _there(plpy, cache, model)):
        return model
    kept.drop(version_id)
    kept.limit = _setting(plpy, "ml.cache_bytes", DEFAULT_BYTES)
    row = _registered(plpy, cache, version_id)
    limit = _setting(plpy, "registry.max_artifact_bytes", 2**26)
    try:
        if len(row["artifact"]) > limit:
            raise ValueError(f"it has {len(row['artifact'])} bytes, the limit is {limit}")
        most = _setting(plpy, "ml.shared_bytes", 2**30)
        model = Model(row, most if _setting(plpy, "ml.share_models", 1) else None)
    except (BoosterError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        _unreadable(plpy, version_id, error)
        raise
    kept.put(version_id, model)
    return model


def _there(plpy: Any, cache: dict[str, Any], model: Model) -> bool:
    """Whether the version of a cached model is there, with the artifact that was loaded.

    Looked at once for each statement, and again after each change within it.
    """
    now = moment()
    if now is not None and model.checked == now:
        return True
    plan = cache.get("alphaplus.there")
    if plan is None:
        plan = cache["alphaplus.there"] = plpy.prepare(
            "select pg_catalog.encode(sha256, 'hex') as digest"
            " from ml.model_versions where version_id = $1",
            ["int8"],
        )
    rows = plpy.execute(plan, [model.version_id])
    there = len(rows) == 1 and rows[0]["digest"] == model.digest
    model.checked = now if there else None
    return there


def _unreadable(plpy: Any, version_id: int, error: Exception) -> None:
    plpy.error(
        f"the artifact of model version {version_id} cannot be read",
        sqlstate="AP503",
        detail=str(error),
        hint="Train the model again: call ml.retrain(model, symbol)",
    )


def _registered(plpy: Any, cache: dict[str, Any], version_id: int) -> Any:
    """The row of a version whose artifact is the one that was registered. Raises AP501, AP502."""
    plan = cache.get("alphaplus.load")
    if plan is None:
        plan = cache["alphaplus.load"] = plpy.prepare(
            "select version_id, task, format, artifact, features, spec,"
            " (select pg_catalog.jsonb_object_agg(f.key, f.value -> 'null_share') from"
            " pg_catalog.jsonb_each(case pg_catalog.jsonb_typeof(reference_stats -> 'features')"
            " when 'object' then reference_stats -> 'features' end) f)::text as absent,"
            " pg_catalog.encode(sha256, 'hex') as digest,"
            " sha256 = pg_catalog.sha256(artifact) as intact"
            " from ml.model_versions where version_id = $1",
            ["int8"],
        )
    rows = plpy.execute(plan, [version_id])
    if len(rows) == 0:
        plpy.error(
            f"unknown model version {version_id}",
            sqlstate="AP501",
            hint="List them with: select version_id, model, symbol from ml.registry",
        )
    row = rows[0]
    if not row["intact"]:
        plpy.error(
            f"the artifact of model version {version_id} is not the one that was registered",
            sqlstate="AP502",
            detail="Its SHA-256 differs from ml.model_versions.sha256.",
            hint="Serve another version: call ml.rollback(model, symbol); then find out who"
            " changed the row.",
        )
    return row


def score(
    plpy: Any, cache: dict[str, Any], version_id: int, features: Sequence[Any], known: bool = False
) -> float | None:
    """Probability or value of one vector, None where no feature is known; in microseconds.

    Raises (SQLSTATE): AP501 to AP503, AP504 another number of features than the version's.
    """
    kept = cache.get("alphaplus.models")
    if (
        kept is not None
        and kept.newest_id == version_id
        and (known or kept.newest.checked == moment() is not None)
    ):
        kept.hits += 1
        model = kept.newest
    else:
        model = load(plpy, cache, version_id, known)
    try:
        prediction: float = model.prediction(model.raw(features))
        first = features[0]
        if (first is None or first != first) and _nothing(features):  # noqa: PLR0124
            return None
    except (ValueError, TypeError):
        _wrong_length(plpy, model, features)
        raise
    return prediction


def score_known(
    plpy: Any, cache: dict[str, Any], version_id: int, features: Sequence[Any]
) -> float | None:
    """:func:`score` of a version whose row the statement has just read."""
    return score(plpy, cache, version_id, features, True)


def _nothing(features: Sequence[Any]) -> bool:
    return all(x is None or x != x for x in features)  # noqa: PLR0124


def _wrong_length(plpy: Any, model: Model, features: Any) -> None:
    if isinstance(features, list) and any(isinstance(value, list) for value in features):
        plpy.error(
            "an array of arrays where one vector is needed",
            sqlstate="AP504",
            hint="Many vectors at once: ml.score_many(version_id, vectors).",
        )
    if features is None or len(features) != model.booster.width:
        plpy.error(
            f"{0 if features is None else len(features)} values, model version"
            f" {model.version_id} takes {model.booster.width}",
            sqlstate="AP504",
            hint=f"In this order: {', '.join(model.features[:6])}, … (ml.model_versions.features)",
        )


def score_with_trust(
    plpy: Any, cache: dict[str, Any], version_id: int, features: Sequence[Any]
) -> tuple[float, float, float | None, float | None, float | None, float | None]:
    """(raw, prediction, confidence, lower, upper, distance) of one vector, by the spec."""
    model = load(plpy, cache, version_id)
    try:
        raw = model.raw(features)
    except (ValueError, TypeError):
        _wrong_length(plpy, model, features)
        raise
    prediction = model.prediction(raw)
    last = features[-len(model.features) :]
    return raw, prediction, *model.trust(prediction), model.distance(last)


Scored = tuple[
    int, float | None, float | None, float | None, float | None, float | None, float | None,
    float | None, int | None, str | None,
]  # fmt: skip


def score_versions(
    plpy: Any,
    cache: dict[str, Any],
    version_ids: Sequence[int],
    vectors: Sequence[float | None],
    lengths: Sequence[int],
) -> list[Scored]:
    """What several versions say, each of its own vector: those of ``lengths`` one after the other.

    Each row: version id, raw, prediction, confidence, lower, upper, distance, missing share,
    number of unknown features, problem. A version that cannot say anything has a problem instead:
    the others are not held up.
    """
    sizes = [-1 if size is None or isinstance(size, list) else size for size in lengths or ()]
    ids = [i for i in version_ids or () if i is not None and not isinstance(i, list)]
    flat = not any(isinstance(value, list) for value in vectors or ())
    fits = sum(sizes) == len(vectors or ()) and min(sizes, default=0) >= 0
    if not (flat and fits) or len(ids) != len(sizes) or len(ids) != len(version_ids or ()):
        plpy.error(
            "as many lengths as versions are needed, and as many values as they add up to",
            sqlstate="AP504",
            hint="ml.score_versions(version_ids, vectors one after the other, their lengths).",
        )
    found: list[Scored] = []
    at = 0
    for version_id, length in zip(ids, sizes, strict=True):
        row = vectors[at : at + length]
        at += length
        try:
            found.append(_scored(load(plpy, cache, version_id, True), row))
        except plpy.SPIError:
            raise  # what the database says, a cancelled statement among it
        except Exception as error:
            state = getattr(error, "sqlstate", None)
            text = str(error) if state else f"it failed: {error}"
            found.append((version_id, *(None,) * 8, text.splitlines()[0][:300]))
    return found


def _scored(model: Model, row: Sequence[float | None]) -> Scored:
    if len(row) != model.booster.width:
        problem = f"{len(row)} values where it takes {model.booster.width}"
        return (model.version_id, *(None,) * 8, problem)
    last = row[-len(model.features) :]
    missing, share = model.missing(last)
    if missing == len(last):
        return (model.version_id, *(None,) * 6, 1.0, missing, None)
    raw = model.raw(row)
    prediction = model.prediction(raw)
    if not math.isfinite(prediction):
        return (model.version_id, *(None,) * 6, share, missing, "its answer is no finite number")
    trust = model.trust(prediction, share)
    return (
        model.version_id, raw, prediction, *trust, model.distance(last), share, missing, None,
    )  # fmt: skip


def score_many(
    plpy: Any, cache: dict[str, Any], version_id: int, rows: Sequence[Sequence[Any]]
) -> list[float | None]:
    """Probability or value of many vectors: one call of the library for all of them.

    Raises (SQLSTATE): AP501 to AP504.
    """
    model = load(plpy, cache, version_id)
    if not rows:
        return []
    if not isinstance(rows[0], list):
        plpy.error(
            "one vector where an array of vectors is needed",
            sqlstate="AP504",
            hint="Write array[vector], or call ml.predict_version(version_id, vector).",
        )
    if len(rows[0]) != model.booster.width:
        _wrong_length(plpy, model, rows[0])
    import numpy as np

    return model.predictions(np.array(rows, dtype=float))


def score_block(
    plpy: Any, cache: dict[str, Any], version_id: int, vectors: bytes
) -> list[float | None]:
    """:func:`score_many` of vectors that come one after the other as ``array_send`` writes them.

    Raises (SQLSTATE): AP501 to AP504.
    """
    import numpy as np
    from alphaplus.server import codec

    model = load(plpy, cache, version_id)
    if not vectors:
        return []
    try:
        rows = codec.rows(vectors, model.booster.width)
    except ValueError as error:
        plpy.error(
            f"vectors that model version {version_id} cannot take: {error}",
            sqlstate="AP504",
            detail=f"It takes {model.booster.width} values.",
            hint="Send them with array_send, NaN for what is not known, in the order of"
            " ml.model_versions.features; stored ones: call feature.materialise again.",
        )
        raise
    return model.predictions(np.ascontiguousarray(rows, dtype=float))


def score_sequences(
    plpy: Any,
    cache: dict[str, Any],
    version_id: int,
    set_id: int,
    symbol: str,
    times: Sequence[float],
    step: float,
) -> list[tuple[float, float | None]]:
    """(seconds since 1970, probability or value) of a sequence model at stored vectors' times.

    The vectors are read once, however many sequences they are part of; times without a whole
    sequence before them are left out.

    Raises (SQLSTATE): AP501 to AP503.
    """
    import numpy as np

    model = load(plpy, cache, version_id)
    if not getattr(model.booster, "length", 0):
        plpy.error(
            f"model version {version_id} reads one vector, not a sequence",
            sqlstate="AP504",
            hint="Score its vectors with ml.score_block or ml.predict_version.",
        )
    if not step or not 0 < step < math.inf:
        plpy.error(
            f"the grid's step is {step} seconds",
            sqlstate="AP504",
            hint="Give the seconds of the feature set's grid: feature.sets.grid.",
        )
    length, width = max(model.booster.length, 1), len(model.features)
    times = [time for time in times or () if time is not None and abs(time) < 1e11]
    asked = np.unique(np.rint(np.asarray(times) * 1e6).astype(np.int64))
    micros = round(step * 1e6)
    plan = cache.get("alphaplus.stored")
    if plan is None:
        plan = cache["alphaplus.stored"] = plpy.prepare(
            "select string_agg(timestamptz_send(v.ts), ''::bytea order by v.ts) as ts,"
            " string_agg(array_send(v.values), ''::bytea order by v.ts) as vectors"
            " from feature.valid_vectors v where v.set_id = $1 and v.symbol = $2"
            " and v.ts between to_timestamp($3) and to_timestamp($4)",
            ["int4", "text", "float8", "float8"],
        )
    element = np.dtype([("head", "V20"), ("body", [("size", ">i4"), ("value", ">f8")], (width,))])
    found: list[tuple[float, float | None]] = []
    # Stretches of time that lie together are read together.
    for part in np.split(asked, np.flatnonzero(np.diff(asked) > 1000 * micros) + 1):
        for begin in range(0, len(part), 20_000):
            some = part[begin : begin + 20_000]
            first = (int(some[0]) - (length - 1) * micros) / 1e6
            row = plpy.execute(plan, [set_id, symbol, first, int(some[-1]) / 1e6])[0]
            stored = np.frombuffer(row["ts"] or b"", dtype=">i8").astype(np.int64)
            stored += 946_684_800_000_000
            values = np.frombuffer(row["vectors"] or b"", dtype=element)["body"]["value"]
            last = np.searchsorted(stored, some)
            last = np.minimum(last, len(stored) - 1)
            whole = np.zeros(len(some), dtype=bool)
            if len(stored):
                start = np.maximum(last - length + 1, 0)
                whole = (stored[last] == some) & (last >= length - 1)
                whole &= stored[start] == some - (length - 1) * micros
            places = last[whole]
            for at in range(0, len(places), 2048):
                chosen = places[at : at + 2048]
                rows = values[chosen[:, None] + np.arange(1 - length, 1)]
                predicted = model.predictions(rows.reshape(len(chosen), -1))
                at_times = (some[whole][at : at + 2048] / 1e6).tolist()
                found += zip(at_times, predicted, strict=True)
    return found


def explain(
    plpy: Any, cache: dict[str, Any], version_id: int, features: Sequence[Any]
) -> list[tuple[str, float | None, float]]:
    """(feature, value, contribution): the raw score is the sum, "base" being its expectation.

    Trees: exact SHAP values (Lundberg et al. 2020, Nature Machine Intelligence 2), computed by the
    artifact's own library; of a forest they sum to its mean vote. Linear models: weight times the
    distance from the training median, exactly. Others: occlusion.
    """
    model = load(plpy, cache, version_id)
    if features is None or len(features) != model.booster.width:
        _wrong_length(plpy, model, features)
    if model.format != "lightgbm":
        rows: list[tuple[str, float | None, float]] = model.booster.explain(
            features, model.features
        )
        return rows
    if model.explainer is None:
        # The packed trees do not know how many rows went which way: the library does.
        before = allocated()
        try:
            model.explainer = Booster(_registered(plpy, cache, version_id)["artifact"])
        except BoosterError as error:
            _unreadable(plpy, version_id, error)
            raise
        models(cache).resize(version_id, model.size + max(allocated() - before, 0))
    values = [math.nan if x is None else float(x) for x in features]
    contributions = [x / model.trees for x in model.explainer.contributions(values)]
    named = list(zip(model.features, values, contributions, strict=False))
    named.sort(key=lambda item: -abs(item[2]))
    return [
        *((n, None if math.isnan(v) else v, c) for n, v, c in named),
        ("base", None, contributions[-1]),
    ]


def attention(
    plpy: Any, cache: dict[str, Any], version_id: int, features: Sequence[Any]
) -> list[float] | None:
    """Attention weights of a sequence model that has them, oldest grid time first."""
    model = load(plpy, cache, version_id)
    if model.format != "onnx":
        return None
    weights: list[float] | None = model.booster.attention(features)
    return weights


def warm(plpy: Any, cache: dict[str, Any], version_ids: Sequence[Any] | None) -> int:
    """Load versions into this backend; how many."""
    import numpy as np

    wanted = [int(x) for x in np.ravel(version_ids or []) if x is not None]
    for version_id in wanted:
        load(plpy, cache, version_id)
    return len(wanted)


def status(plpy: Any, cache: dict[str, Any]) -> list[dict[str, Any]]:
    """The models this backend holds, least recently used first, and the cache's counters."""
    kept = models(cache)
    return [
        {
            "version_id": version_id,
            "bytes": model.size,
            "shared": model.shared,
            "total_bytes": kept.size,
            "limit_bytes": kept.limit,
            "hits": kept.hits,
            "misses": kept.misses,
            "evictions": kept.evictions,
        }
        for version_id, model in kept.status()
    ]
