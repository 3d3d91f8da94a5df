"""Text models: a table of weights of terms, fitted on labelled texts.

Terms are words, pairs of words and parts of words (:mod:`alphaplus.texts.terms`), counted, scaled
by inverse document frequency and by the root of the text's length; the weights are a multinomial
logistic regression's with an L2 penalty. Folds go forward in time where texts have times of their
own, else they are drawn by class.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from alphaplus.texts import terms
from alphaplus.trainer import metrics, provenance
from alphaplus.trainer.data import moment
from alphaplus.trainer.models.base import Progress, TrainingError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST = 60  # texts
LEAST_OF_CLASS = 10
FOLDS = 5
NEUTRAL = 1 / 3  # labels between are neutral
# What a term of each kind counts beside a word.
KIND = {"w": 1.0, "b": 0.7, "c": 0.35}


@dataclass(frozen=True)
class Labelled:
    """The labelled texts of a job, by time."""

    texts: list[str]
    label: Floats
    ts: Ints
    language: str
    timed: bool  # whether they have times of their own
    known: Ints  # when each label was known; where texts have no times, theirs

    @classmethod
    def read(cls, conn: psycopg.Connection[Any], job_id: int, lease: str) -> Labelled:
        """From the database.

        Raises:
            TrainingError: too few.
        """
        rows = conn.execute(
            "select text, label, ts, language, is_timed, coalesce(label_known, ts)"
            " from sentiment._job_texts(%s, %s)",
            (job_id, lease),
        ).fetchall()
        if len(rows) < LEAST:
            raise TrainingError(f"{len(rows)} labelled texts; at least {LEAST} are needed")
        return cls(
            [row[0] for row in rows],
            np.array([row[1] for row in rows], dtype=np.float64),
            np.array([row[2] for row in rows], dtype=np.int64),
            str(rows[0][3]),
            all(row[4] for row in rows),
            np.array([row[5] for row in rows], dtype=np.int64),
        )


def classes_of(label: Floats) -> tuple[Ints, int]:
    """(class of each label, number of classes): negative, neutral and positive, or two.

    Raises:
        TrainingError: a class has too few texts.
    """
    y = np.where(label > NEUTRAL, 2, np.where(label < -NEUTRAL, 0, 1)).astype(np.int64)
    counts = np.bincount(y, minlength=3)
    if counts[1] < LEAST_OF_CLASS:
        # Without neutral texts a rating near zero has no class of its own.
        y, k = (label > 0).astype(np.int64), 2
        counts = np.bincount(y, minlength=2)
    else:
        k = 3
    if counts.min() < LEAST_OF_CLASS:
        names = ", ".join(f"{n} {c}" for n, c in zip(terms.CLASSES[k], counts, strict=True))
        raise TrainingError(f"each class needs {LEAST_OF_CLASS} texts: {names}")
    return y, k


Counted = tuple[dict[str, int], int]


def matrix(counted: list[Counted], vocabulary: dict[str, int], scale: Floats) -> Any:
    """Sparse (texts, terms)."""
    from scipy.sparse import csr_matrix

    indices: list[int] = []
    values: list[float] = []
    ends = [0]
    for counts, length in counted:
        root = max(length, 1) ** -0.5
        for term, count in counts.items():
            at = vocabulary.get(term)
            if at is not None:
                indices.append(at)
                values.append(count * root * scale[at])
        ends.append(len(indices))
    return csr_matrix((values, indices, ends), shape=(len(counted), len(vocabulary)))


def fit(
    counted: list[Counted], y: Ints, k: int, language: str, params: dict[str, Any]
) -> terms.Model:
    """A model of texts whose terms are counted.

    Raises:
        TrainingError: no term is in enough texts.
    """
    from sklearn.linear_model import LogisticRegression

    frequency: dict[str, int] = {}
    for counts, _ in counted:
        for term in counts:
            frequency[term] = frequency.get(term, 0) + 1
    least = int(params.get("min_texts", 2))
    chosen = sorted(term for term, n in frequency.items() if n >= least)
    if len(chosen) > terms.MOST_TERMS:
        chosen = sorted(sorted(chosen, key=lambda t: -frequency[t])[: terms.MOST_TERMS])
    if not chosen:
        raise TrainingError(f"no term is in {least} texts")
    vocabulary = {term: at for at, term in enumerate(chosen)}
    n = len(counted)
    scale = np.array([(np.log((1 + n) / (1 + frequency[t])) + 1) * KIND[t[0]] for t in chosen])
    model = LogisticRegression(
        C=float(params.get("C", 0.2)),
        class_weight=params.get("class_weight", "balanced"),
        max_iter=300,
    ).fit(matrix(counted, vocabulary, scale), y)
    weights, intercept = model.coef_, model.intercept_
    if k == 2:
        weights = np.vstack([np.zeros_like(weights[0]), weights[0]])
        intercept = np.array([0.0, intercept[0]])
    weights = np.round(weights * scale, 6)
    table = {
        term: weights[:, at].tolist() for term, at in vocabulary.items() if weights[:, at].any()
    }
    return terms.parse(artifact(table, np.round(intercept, 6).tolist(), k, language))


def artifact(table: dict[str, list[float]], intercept: list[float], k: int, language: str) -> bytes:
    """The table as bytes, the same for the same table."""
    return json.dumps(
        {
            "format": "alphaplus.terms.1", "language": language,
            "classes": list(terms.CLASSES[k]), "intercept": intercept,
            "terms": dict(sorted(table.items())),
        },
        allow_nan=False, ensure_ascii=False, separators=(",", ":"),
    ).encode()  # fmt: skip


def probabilities(model: terms.Model, texts: list[str]) -> Floats:
    """(n, classes)."""
    out = np.empty((len(texts), model.classes))
    for at, text in enumerate(texts):
        p = terms.told(model, text)
        out[at] = p if model.classes == 3 else (p[0], p[2])
    return out


def measure(y: Ints, p: Floats, base: Floats, others: dict[str, Ints], seed: int) -> dict[str, Any]:
    """Metrics of probabilities, and of other ways to tell the same texts' classes."""
    from sklearn.metrics import f1_score

    k = p.shape[1]
    at = np.arange(len(y))
    labels = list(range(k))

    def told(chosen: Ints) -> float:
        return float(f1_score(y, chosen, average="macro", labels=labels, zero_division=0))

    chosen = p.argmax(axis=1)
    extreme = y != 1 if k == 3 else np.ones(len(y), dtype=bool)
    score = p[:, -1] - p[:, 0]
    positive = (y[extreme] == k - 1).astype(np.float64)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(200):
        rows = rng.integers(0, len(positive), len(positive))
        if 0 < positive[rows].sum() < len(rows):
            drawn.append(metrics.auc(positive[rows], score[extreme][rows]))
    rivals = {name: {"macro_f1": told(classes)} for name, classes in others.items()}
    return {
        "rows": len(y),
        "classes": k,
        "macro_f1": told(chosen),
        "accuracy": float((chosen == y).mean()),
        "auc": metrics.auc(positive, score[extreme]),
        "auc_low": float(np.quantile(drawn, 0.025)),
        "auc_high": float(np.quantile(drawn, 0.975)),
        "log_loss": float(-np.log(np.maximum(p[at, y], 1e-12)).mean()),
        "ece": metrics.ece((chosen == y).astype(np.float64), p[at, chosen]),
        "baseline": {
            "macro_f1": max(
                told(np.full(len(y), np.bincount(y).argmax())),
                *(rival["macro_f1"] for rival in rivals.values()),
            ),
            "log_loss": float(-np.log(np.maximum(base[at, y], 1e-12)).mean()),
        },
        "beside": rivals,
    }


def lexicon_classes(texts: list[str], k: int) -> dict[str, Ints]:
    """What VADER and TextBlob say of the same texts."""
    from textblob.en import sentiment
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    vader = SentimentIntensityAnalyzer()
    scores = {
        "vader": np.array([vader.polarity_scores(text)["compound"] for text in texts]),
        "textblob": np.array([sentiment(text)[0] for text in texts]),
    }
    if k == 2:
        return {name: (s > 0).astype(np.int64) for name, s in scores.items()}
    return {
        name: np.where(s >= 0.05, 2, np.where(s <= -0.05, 0, 1)).astype(np.int64)
        for name, s in scores.items()
    }


def folds_of(
    ts: Ints | None, y: Ints, count: int, seed: int, known: Ints | None = None
) -> list[tuple[Ints, Ints]]:
    """(train, test) rows: forward in time where the texts have times, else drawn by class.

    known: when each label was known: none that came of what a test text could tell trains. A label
    that people gave long after is no such thing, and its text may train.
    """
    from sklearn.model_selection import StratifiedKFold

    if ts is not None:
        edges = np.linspace(0, len(ts), count + 2).astype(int)[1:]
        # A label known before the last text was published is one of the market's, and is purged by.
        ended = ts if known is None or known.min() > ts.max() else np.maximum(ts, known)
        split = [
            (np.flatnonzero(ended < ts[low]), np.arange(low, high)) for low, high in pairwise(edges)
        ]
        good = [s for s in split if len(np.unique(y[s[0]])) == len(np.unique(y))]
        if good:
            return good
    drawn = StratifiedKFold(count, shuffle=True, random_state=seed)
    return [(np.asarray(a), np.asarray(b)) for a, b in drawn.split(np.zeros(len(y)), y)]


def train(
    job: dict[str, Any], labelled: Labelled, champion: bytes | None, progress: Progress
) -> tuple[bytes, dict[str, Any]]:
    """(artifact, version) of one job.

    Raises:
        TrainingError: too few texts, or of a class.
    """
    y, k = classes_of(labelled.label)
    training: dict[str, Any] = job["training"] or {}
    params: dict[str, Any] = {**(job["params"] or {}), **(training.get("params") or {})}
    seed = int(training.get("seed", 1))
    counted = [terms.terms_of(text) for text in labelled.texts]
    folds = folds_of(
        labelled.ts if labelled.timed else None, y, int(training.get("folds", FOLDS)), seed,
        labelled.known,
    )  # fmt: skip
    tested: list[Ints] = []
    told: list[Floats] = []
    base: list[Floats] = []
    fold_metrics = []
    for number, (rows, test) in enumerate(folds):
        progress(0.1 + 0.6 * number / len(folds), f"fold {number + 1} of {len(folds)}")
        model = fit([counted[i] for i in rows], y[rows], k, labelled.language, params)
        p = probabilities(model, [labelled.texts[i] for i in test])
        share = np.tile((np.bincount(y[rows], minlength=k) + 1) / (len(rows) + k), (len(test), 1))
        tested.append(test)
        told.append(p)
        base.append(share)
        fold_metrics.append({"fold": number, "rows": len(test), **_few(y[test], p)})
    rows, p = np.concatenate(tested), np.concatenate(told)
    texts = [labelled.texts[i] for i in rows]
    progress(0.75, "measuring")
    others = lexicon_classes(texts, k) if labelled.language == "en" else {}
    measured = measure(y[rows], p, np.concatenate(base), others, seed)
    if champion is not None and job.get("champion"):
        rival = terms.parse(champion)
        if rival.classes == k:
            other = probabilities(rival, texts)
            names = ("macro_f1", "accuracy", "auc", "log_loss")
            values = measure(y[rows], other, np.concatenate(base), {}, seed)
            measured["champion"] = {
                "version_id": job["champion"]["version_id"],
                "values": {name: values[name] for name in names},
                "challenger": {name: measured[name] for name in names},
                "in_sample": True,  # it may have been trained on these texts
            }
    progress(0.85, "fitting on all texts")
    final = fit(counted, y, k, labelled.language, params)
    content = _content(final)
    digest = hashlib.sha256()
    for text, label in zip(labelled.texts, labelled.label, strict=True):
        digest.update(f"{label!r}\0{text}\0".encode("utf-8", "replace"))
    strongest = sorted(final.terms.items(), key=lambda item: -abs(item[1][0]))[:100]
    version = {
        "algorithm": "terms",
        "format": "json",
        "features": list(job["features"]),
        "spec": {
            "inputs": {"kind": "text"}, "language": labelled.language,
            "classes": list(terms.CLASSES[k]),
        },
        "params": params | {"seed": seed},
        "metrics": measured,
        "fold_metrics": fold_metrics,
        "importance": {"weight": {term: abs(w[0]) for term, w in strongest}},
        "reference_stats": {},
        "train_from": moment(int(labelled.ts.min())).isoformat(),
        "train_to": moment(int(labelled.ts.max())).isoformat(),
        "row_count": len(y),
        "training_sha256": digest.hexdigest(),
        "library_versions": provenance.base_versions(),
        "code_version": provenance.code_version(),
        "parent_id": (job.get("champion") or {}).get("version_id"),
    }  # fmt: skip
    return content, version


def _few(y: Ints, p: Floats) -> dict[str, float]:
    from sklearn.metrics import f1_score

    chosen = p.argmax(axis=1)
    return {
        "macro_f1": float(f1_score(y, chosen, average="macro", zero_division=0)),
        "accuracy": float((chosen == y).mean()),
    }


def _content(model: terms.Model) -> bytes:
    """The artifact of a model, its log odds against negative."""

    def weights(odds: tuple[float, float]) -> list[float]:
        positive, neutral = (round(x, 6) for x in odds)
        return [0.0, positive] if model.classes == 2 else [0.0, neutral, positive]

    table = {term: weights(odds) for term, odds in model.terms.items()}
    return artifact(table, weights(model.intercept), model.classes, model.language)
