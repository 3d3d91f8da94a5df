"""The pictures of a card, by matplotlib."""

from __future__ import annotations

from typing import Any

import numpy as np
from alphaplus.report.frames import Card
from matplotlib.figure import Figure

INK, BLUE, RED, GREY, GREEN = "#222222", "#2b6cb0", "#d1495b", "#8d99ae", "#2a9d64"


def figures(card: Card) -> dict[str, Figure]:
    """Those pictures for which there are data, by name."""
    made = {
        "metrics": _metrics, "folds": _folds, "calibration": _calibration,
        "importance": _importance, "shap": _shap, "drift": _drift, "live": _live,
    }  # fmt: skip
    found = {name: draw(card) for name, draw in made.items()}
    return {name: figure for name, figure in found.items() if figure is not None}


def _axes(title: str, x: str, y: str, height: float = 3.2) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7.2, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _metrics(card: Card) -> Figure | None:
    """The main measure with its interval, beside what costs nothing."""
    kept = card.metrics[card.metrics["measure"].isin(["log_loss", "rmse"])]
    if kept.empty:
        return None
    row = kept.iloc[0]
    figure, axes = _axes("Out of fold, beside what costs nothing", str(row["words"]), "", 2.4)
    names = [n for n in ("base_rate", "persistence", "linear") if np.isfinite(row[n])]
    labels = [*(n.replace("_", " ") for n in names), "this version"]
    values = [*(row[n] for n in names), row["value"]]
    axes.barh(labels, values, color=[GREY] * len(names) + [BLUE], height=0.6)
    if np.isfinite(row["low"]) and np.isfinite(row["high"]):
        span = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
        axes.errorbar([row["value"]], ["this version"], xerr=np.abs(span), color=INK, capsize=4)
    axes.margins(x=0.1)
    return figure


def _folds(card: Card) -> Figure | None:
    name, base = ("log_loss", "base_rate_log_loss")
    folds = card.folds
    if folds.empty or folds[name].isna().all():
        name, base = "rmse", "baseline_rmse"
    if folds.empty or folds[name].isna().all():
        return None
    unit = "log loss, nats" if name == "log_loss" else "root mean squared error"
    figure, axes = _axes("By walk-forward fold", "held-out rows (UTC)", unit)
    for fold in folds.itertuples():
        span = [fold.test_from, fold.test_to]
        axes.plot(span, [getattr(fold, name)] * 2, color=BLUE, linewidth=3,
                  label="this version" if fold.Index == 0 else None)  # fmt: skip
        axes.plot(span, [getattr(fold, base)] * 2, color=GREY, linewidth=2, linestyle="--",
                  label="base rate" if fold.Index == 0 else None)  # fmt: skip
    axes.legend(fontsize=8, frameon=False)
    figure.autofmt_xdate()
    return figure


def _calibration(card: Card) -> Figure | None:
    bins = card.reliability
    if bins.empty:
        return None
    figure, axes = _axes(
        "Calibration out of fold, 95 % intervals", "mean probability that was said",
        "share that came", 3.8,
    )  # fmt: skip
    said, seen = bins["mean_probability"].to_numpy(), bins["observed"].to_numpy()
    most = float(max(said.max(), bins["observed_high"].max()))
    axes.plot([0, most], [0, most], color=GREY, linestyle="--", label="as it should be")
    span = np.abs([seen - bins["observed_low"], bins["observed_high"] - seen])
    axes.errorbar(said, seen, yerr=span, color=BLUE, marker="o", markersize=4, capsize=3,
                  label="this version")  # fmt: skip
    axes.legend(fontsize=8, frameon=False)
    return figure


def _importance(card: Card) -> Figure | None:
    top = card.importance.head(15).iloc[::-1]
    if top.empty:
        return None
    kind = str(top["kind"].iloc[0])
    figure, axes = _axes(f"Importance ({kind})", "share of all", "", 0.9 + 0.25 * len(top))
    axes.barh(top["feature"], 100 * top["share"].astype(float), color=BLUE, height=0.65)
    axes.xaxis.set_major_formatter("{x:.0f} %")
    return figure


def _shap(card: Card) -> Figure | None:
    """A dot a row and feature: how far it moved the score, coloured by the feature's value."""
    rows = card.contributions
    if rows.empty:
        return None
    size = rows.groupby("feature")["contribution"].apply(lambda c: c.abs().mean())
    names = list(size.sort_values(ascending=False).index[:15])[::-1]
    figure, axes = _axes(
        f"SHAP, {rows['row'].nunique()} training rows (blue: low value, red: high)",
        "contribution to the score before calibration", "", 0.9 + 0.3 * len(names),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for place, name in enumerate(names):
        one = rows[rows["feature"] == name]
        value = one["value"].astype(float)
        rank = value.rank(pct=True).fillna(0.5)
        axes.scatter(
            one["contribution"], place + rng.uniform(-0.3, 0.3, len(one)), c=rank, cmap="coolwarm",
            s=6, linewidths=0, vmin=0, vmax=1,
        )  # fmt: skip
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    return figure


def _drift(card: Card) -> Figure | None:
    found = card.drift_features
    top = found[found["effect"].notna()].nlargest(15, "effect").iloc[::-1]
    if top.empty:
        return None
    at = f"{card.drift['ts_to'].iloc[-1]:%Y-%m-%d %H:%M}"
    figure, axes = _axes(
        f"Drift of the day up to {at}", "statistic over its threshold (1: drifted)", "",
        0.9 + 0.25 * len(top),
    )  # fmt: skip
    colours = [RED if value >= 1 else BLUE for value in top["effect"]]
    axes.barh(top["feature"], top["effect"].astype(float), color=colours, height=0.65)
    axes.axvline(1, color=GREY, linestyle="--")
    return figure


def _live(card: Card) -> Figure | None:
    rows = card.live[card.live["log_loss"].notna()]
    if rows.empty:
        return None
    figure, axes = _axes(
        "Recorded predictions of the model, by hour", "hour (UTC)", "log loss, nats"
    )
    axes.plot(rows["ts"], rows["log_loss"], color=BLUE, label="the model")
    axes.plot(rows["ts"], rows["base_rate_log_loss"], color=GREY, linestyle="--",
              label="the hour's own base rate")  # fmt: skip
    axes.legend(fontsize=8, frameon=False)
    figure.autofmt_xdate()
    return figure
