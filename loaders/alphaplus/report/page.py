"""A card as one page of HTML that asks nobody for anything."""

from __future__ import annotations

import base64
import datetime as dt
import html
import io
import json
import math
from collections.abc import Iterable
from typing import Any

import pandas as pd
from alphaplus.report.frames import Card
from alphaplus.report.pictures import figures

_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 980px; padding: 16px }
h1 { font-size: 24px } h2 { font-size: 18px; margin-top: 32px; border-bottom: 1px solid #8886 }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto }
th, td { padding: 3px 10px 3px 0; text-align: left; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums }
tr + tr td { border-top: 1px solid #8883 }
img { max-width: 100%; background: white; border-radius: 4px; margin: 8px 0 }
.none { opacity: 0.7; font-style: italic } .bad { color: #d1495b } .good { color: #2a9d64 }
"""
# Nothing may be fetched, whatever a text holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(card: Card) -> str:
    """The whole page."""
    v = card.version
    drawn = {name: _image(figure, name) for name, figure in figures(card).items()}
    name = " ".join(str(x) for x in (v["model"], v["symbol"], v["regime"]) if _is(x))
    passed = _verdict(card)
    serves = "Serves as champion" if card.is_champion else "Does not serve"
    body = [
        f"<h1>{_text(name)}, version {_text(v['version'])}</h1>",
        f"<p>{_text(card.description)}</p>" if card.description else "",
        f"<p>{serves}; {passed}. As known at {_text(card.as_of)}.</p>",
        _section("Data", _facts(v)),
        _section("Measures out of fold", drawn.get("metrics", ""), _measures(card.metrics)),
        _section("Folds", drawn.get("folds", ""), _table(card.folds, (
            "fold", "test_from", "test_to", "row_count", "auc", "log_loss", "base_rate_log_loss",
            "rmse", "baseline_rmse"))),
        _section("Calibration", drawn.get("calibration") or _none(
            "No out-of-fold probabilities: it says a value, or was registered without them.")),
        _section("Importance", drawn.get("importance") or _none(
            f"{v['algorithm']} gives no importance of its features.")),
        _section("SHAP summary", drawn.get("shap") or _none(
            "No contributions: no stored vectors of its training time, or a kind without them.")),
        _section("Drift", drawn.get("drift") or _none(
            "Not checked yet. The clock does it every hour; by hand: call drift.monitor()"),
            _table(card.drift.tail(20), (
                "at", "ts_from", "ts_to", "row_count", "features", "drifted", "severity", "score",
                "first_feature", "action"))),
        _section("In service", drawn.get("live") or _none(
            "No recorded prediction has its outcome: select ml.record_prediction(model, symbol)")),
        _section("Gates", _gates(card.gates)),
        _section("Decisions", _table(card.decisions) or _none("No alias was ever moved.")),
        _section("Versions", _table(card.versions)),
        _section("Made with", _made(v)),
    ]  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(name)}, version {_text(v['version'])}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _section(title: str, *parts: str) -> str:
    content = "".join(parts)
    return f"<h2>{title}</h2>{content}" if content else ""


def _verdict(card: Card) -> str:
    if card.gates.empty:
        return "its gates were not looked at"
    failed = [str(gate) for gate in card.gates[~card.gates["passed"].astype(bool)]["gate"]]
    if failed:
        return f'<span class="bad">gates not passed: {_text(", ".join(failed))}</span>'
    return '<span class="good">all gates passed</span>'


def _facts(v: dict[str, Any]) -> str:
    rows = {
        "label": v["label"], "horizon": v["horizon"], "task": v["task"],
        "algorithm": v["algorithm"],
        "features": f"{len(v['features'])} of {v['feature_set']} version {v['feature_version']}",
        "training rows": v["row_count"], "from": v["train_from"], "to": v["train_to"],
        "nothing known after": v["as_of"], "expires after": v["expires_after"],
        "parent": v["parent_id"],
    }  # fmt: skip
    return _pairs(rows.items())


def _made(v: dict[str, Any]) -> str:
    rows = {
        "version_id": v["version_id"], "job": v["job_id"], "created": v["created_at"],
        "by": v["created_by"], "code": v["code_version"], "artifact's SHA-256": _hex(v["sha256"]),
        "training set's SHA-256": _hex(v["training_sha256"]), "parameters": v["params"],
        "libraries": v["library_versions"],
    }  # fmt: skip
    return _pairs(rows.items())


def _measures(metrics: pd.DataFrame) -> str:
    if metrics.empty:
        return _none("No measures: the version was registered without out-of-fold predictions.")
    shown = metrics.drop(columns=["measure"]).rename(
        columns={"words": "measure", "low": "95 % from", "high": "to", "base_rate": "base rate"}
    )
    return _table(shown)


def _gates(gates: pd.DataFrame) -> str:
    if gates.empty:
        return _none("Not looked at yet: select * from ml.evaluate_gates(version_id)")
    return _table(gates)


def _pairs(rows: Iterable[tuple[str, Any]]) -> str:
    lines = [f"<tr><th>{_text(k)}</th><td>{_text(v)}</td></tr>" for k, v in rows if _is(v)]
    return f"<table>{''.join(lines)}</table>"


def _table(frame: pd.DataFrame, columns: tuple[str, ...] | None = None) -> str:
    frame = frame[[c for c in columns if c in frame]] if columns else frame
    frame = frame.dropna(axis="columns", how="all")
    if frame.empty:
        return ""
    head = "".join(f"<th>{_text(str(c).replace('_', ' '))}</th>" for c in frame.columns)
    lines = [
        "<tr>" + "".join(f"<td{_kind(x)}>{_text(x) if _is(x) else ''}</td>" for x in row) + "</tr>"
        for row in frame.itertuples(index=False, name=None)
    ]
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _kind(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return ' class="n"' if number else ""


def _is(value: Any) -> bool:
    """Whether there is a value."""
    if value is None or value is pd.NaT:
        return False
    return not (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str:
    """A value as text of HTML."""
    if isinstance(value, dt.datetime):
        value = f"{value.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
    elif isinstance(value, dt.timedelta):
        value = str(dt.timedelta(seconds=value.total_seconds()))
    elif isinstance(value, float):
        value = f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
    elif isinstance(value, int) and not isinstance(value, bool):
        value = f"{value:,}"
    elif isinstance(value, dict | list):
        value = json.dumps(value, sort_keys=True)
    return html.escape(str(value))


def _hex(value: Any) -> str | None:
    return bytes(value).hex() if value is not None else None


def _none(words: str) -> str:
    return f'<p class="none">{html.escape(words)}</p>'


def _image(figure: Any, name: str) -> str:
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=110)
    data = base64.b64encode(held.getvalue()).decode()
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{data}">'
