"""What a card says, as pandas frames, read as of one moment."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import pandas as pd
import psycopg

Conn = psycopg.Connection[Any]
_FACTS = (
    "version_id", "model", "symbol", "regime", "version", "algorithm", "task", "label", "horizon",
    "feature_set", "feature_version", "features", "train_from", "train_to", "as_of", "row_count",
    "parent_id", "job_id", "created_by", "created_at", "expires_after", "archived_at", "params",
    "metrics", "library_versions", "code_version", "sha256",
    "training_sha256",
)  # fmt: skip
# The measures of classes and values, in the order in which one asks for them, and what they are.
MEASURES = {
    "auc": "area under the ROC curve (0.5: nothing learned)",
    "log_loss": "log loss, nats",
    "brier": "Brier score",
    "ece": "expected calibration error",
    "average_precision": "average precision",
    "ic": "information coefficient",
    "rank_ic": "rank information coefficient",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "r2": "share of the variance explained",
}


class NothingToReportError(LookupError):
    """There is no version of the model to report on."""


@dataclass(frozen=True)
class Card:
    """One version of a model; each frame may be empty."""

    version: dict[str, Any]  # columns of ml.model_versions
    description: str
    is_champion: bool
    as_of: dt.datetime
    metrics: pd.DataFrame  # measure, value, low, high, base_rate, persistence, linear
    folds: pd.DataFrame  # analytics.folds
    reliability: pd.DataFrame  # analytics.reliability
    importance: pd.DataFrame  # analytics.importance
    contributions: pd.DataFrame  # row, ts, feature, value, contribution (SHAP)
    gates: pd.DataFrame  # the last verdicts
    decisions: pd.DataFrame  # changes of aliases
    drift: pd.DataFrame  # checks of the version
    drift_features: pd.DataFrame  # the last check, by feature
    live: pd.DataFrame  # recorded predictions by hour
    versions: pd.DataFrame  # all of the line


def card(
    conn: Conn,
    model: str,
    symbol: str | None = None,
    as_of: dt.datetime | None = None,
    samples: int = 200,
) -> Card:
    """The card of a model's champion at as_of (default: now), else of its newest version.

    Args:
        conn: of anybody who may read.
        model: its name.
        symbol: of the line; None: the pooled one, else the first that serves.
        as_of: what was known then.
        samples: how many rows the SHAP summary is of.

    Raises:
        NothingToReportError: no version was there.
        psycopg.Error: AP961 unknown model, AP101 unknown symbol, with a hint.
    """
    now = as_of or _rows(conn, "select now() as now").iloc[0]["now"]
    lines = _rows(
        conn,
        "select * from analytics._shown_versions(%s, %s, %s)"
        " order by symbol is not null, not is_champion, symbol, regime nulls first",
        model, symbol, now,
    )  # fmt: skip
    if lines.empty:
        whose = f" for {symbol}" if symbol else ""
        raise NothingToReportError(
            f"model {model!r} has no version{whose} at {now:%Y-%m-%d %H:%M %Z}; train one:"
            f" call ml.retrain({model!r}, 'SYMBOL'); then run a trainer"
        )
    if symbol:
        of_symbol = lines[lines["symbol"].notna()]
        lines = lines if of_symbol.empty else of_symbol
    line = lines.iloc[0]
    version_id = int(line["version_id"])
    columns = ", ".join(f"v.{name}" for name in _FACTS)
    version = _rows(
        conn, f"select {columns} from ml.model_versions v where v.version_id = %s", version_id
    ).iloc[0]
    words = _rows(conn, "select description from ml.models where model = %s", model)

    def of_line(query: str) -> pd.DataFrame:
        found = _rows(conn, query, model, line["symbol"], now)
        return found[found["version_id"] == version_id].reset_index(drop=True)

    checks = _rows(
        conn,
        "select at, symbol, ts_from, ts_to, row_count, features, drifted, severity, score,"
        " first_feature, action, check_id from analytics.drift(%s, 36500) where version_id = %s"
        " order by at",
        now, version_id,
    )  # fmt: skip
    last = None if checks.empty else int(checks["check_id"].iloc[-1])
    return Card(
        version={str(name): value for name, value in version.items()},
        description=str(words["description"].iloc[0] or "") if len(words) else "",
        is_champion=bool(line["is_champion"]),
        as_of=now,
        metrics=measures(version["metrics"] or {}),
        folds=of_line("select * from analytics.folds(%s, %s, %s)"),
        reliability=of_line("select * from analytics.reliability(%s, %s, %s)"),
        importance=of_line("select * from analytics.importance(%s, %s, %s)"),
        contributions=_contributions(conn, version_id, samples),
        gates=_rows(
            conn,
            "select r.gate, r.metric, r.value, r.comparison, r.threshold, r.against,"
            " r.reference_value, r.passed, r.detail, r.at from ml.gate_results r"
            " where r.version_id = %s and r.at = (select max(l.at) from ml.gate_results l"
            " where l.version_id = r.version_id and l.at <= %s) order by r.gate",
            version_id, now,
        ),
        decisions=_rows(
            conn,
            "select at, alias, action, version, previous_version, actor, reason"
            " from analytics.promotions(%s, 36500) where model = %s"
            " and symbol is not distinct from %s and regime is not distinct from %s order by at",
            now, model, line["symbol"], line["regime"],
        ),
        drift=checks,
        drift_features=_rows(
            conn,
            "select feature, kind, severity, effect, blame, ks, psi, p_adjusted, null_share,"
            " reference_null_share from analytics.drift_features(%s, 36500) where check_id = %s"
            " order by blame desc nulls last, effect desc nulls last, feature",
            now, last,
        ),
        live=_rows(
            conn,
            "select i.* from analytics.inference(%s, analytics.recent_predictions(%s, %s), null,"
            " %s) i order by i.ts",
            model, model, now, now,
        ),
        versions=_rows(
            conn,
            "select v.version_id, v.version, v.algorithm, v.train_from, v.train_to, v.row_count,"
            " (v.metrics ->> 'auc')::float8 as auc, (v.metrics ->> 'log_loss')::float8 as log_loss,"
            " (v.metrics ->> 'rmse')::float8 as rmse, v.created_at, v.created_by, v.archived_at"
            " from ml.model_versions v where v.model = %s and v.symbol is not distinct from %s"
            " and v.regime is not distinct from %s and v.created_at <= %s order by v.version",
            model, line["symbol"], line["regime"], now,
        ),
    )  # fmt: skip


def measures(metrics: dict[str, Any]) -> pd.DataFrame:
    """The measures out of fold, their 95 % intervals, and the same of what costs nothing."""
    baseline = metrics.get("baseline") or {}
    others = metrics.get("baselines") or {}
    rows = [
        {
            "measure": name, "words": words, "value": metrics[name],
            "low": metrics.get(f"{name}_low"), "high": metrics.get(f"{name}_high"),
            "base_rate": baseline.get(name),
            **{other: (others.get(other) or {}).get(name) for other in ("persistence", "linear")},
        }
        for name, words in MEASURES.items()
        if isinstance(metrics.get(name), int | float)
    ]  # fmt: skip
    columns = ["measure", "words", "value", "low", "high", "base_rate", "persistence", "linear"]
    frame = pd.DataFrame(rows, columns=columns)
    numbers = columns[2:]
    frame[numbers] = frame[numbers].astype(float)
    return frame


def _contributions(conn: Conn, version_id: int, samples: int) -> pd.DataFrame:
    """SHAP contributions of stored vectors spread over the training rows, where there are some."""
    try:
        return _rows(
            conn,
            "with rows as (select v.version_id, x.ts, x.values, row_number() over (order by x.ts)"
            "  as place, count(*) over () as n"
            " from ml.model_versions v join feature.sets s on s.name = v.feature_set"
            "  and s.version = v.feature_version"
            " join feature.vectors x on x.set_id = s.set_id and x.ts >= v.train_from"
            "  and x.ts <= v.train_to and (v.symbol is null or x.symbol = v.symbol)"
            " where v.version_id = %s)"
            " select r.place as row, r.ts, e.feature, e.value, e.contribution"
            " from rows r cross join lateral ml.explain_version(r.version_id, r.values) e"
            " where r.place %% greatest(1, r.n / %s) = 0 and e.feature <> 'base' order by 1, 3",
            version_id, max(1, samples),
        )  # fmt: skip
    except psycopg.Error as error:
        if not str(error.sqlstate).startswith("AP"):
            raise
        return pd.DataFrame(columns=["row", "ts", "feature", "value", "contribution"])


def _rows(conn: Conn, query: str, *arguments: Any) -> pd.DataFrame:
    with conn.transaction(), conn.cursor() as cursor:
        cursor.execute(query.encode(), arguments or None)
        names = [column.name for column in cursor.description or ()]
        return pd.DataFrame(cursor.fetchall(), columns=names)
