"""Pictures of versions, predictions and data, for people without a BI tool: ``alphaplus plot``."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Pictures as PNG, SVG, PDF or a page of HTML.")

ENDINGS = (".png", ".svg", ".pdf", ".html")
BINS = 10
MOST_FEATURES, MOST_SYMBOLS = 25, 40

Version = Annotated[int, typer.Argument(help="version_id, as in ml.registry")]
Out = Annotated[Path, typer.Option(help="a file ending in .png, .svg, .pdf or .html")]
Since = Annotated[str | None, typer.Option("--from", help="first time")]
Until = Annotated[str | None, typer.Option("--to", help="end of the times, exclusive")]


class Nothing(Exception):
    """There is nothing to draw; the message says what is missing."""


def _drawn(command: str, out: Path, draw: Callable[[Any, Any], str]) -> None:
    """Draw on a figure with a client's data, write it, and say so.

    ``draw`` gets the client and the figure and returns a line that says what is to be seen.
    """
    import psycopg
    from alphaplus.cli.connect import role_conninfo
    from alphaplus.cli.data import failed
    from alphaplus.client import connect
    from matplotlib.figure import Figure

    try:
        if out.suffix not in ENDINGS:
            raise ValueError(f"{out}: the ending says the format: {', '.join(ENDINGS)}")
        figure = Figure(figsize=(9, 5.5), layout="constrained")
        with connect(role_conninfo("alphaplus_reader")) as client:
            words = draw(client, figure)
        write(figure, out, words)
    except (psycopg.Error, ValueError, LookupError, Nothing, OSError) as error:
        raise failed(f"plot {command}", error) from None
    typer.echo(f"{out}: {words}")


def write(figure: Any, out: Path, words: str) -> None:
    """Write a figure; HTML is one page with the picture in it, that needs nothing else."""
    if out.suffix != ".html":
        figure.savefig(out, dpi=120)
        return
    picture = io.BytesIO()
    figure.savefig(picture, format="svg")
    data = base64.b64encode(picture.getvalue()).decode()
    title = html.escape(words)
    out.write_text(
        f'<!doctype html>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<img style="max-width: 100%" alt="{title}" src="data:image/svg+xml;base64,{data}">\n'
        f"<p>{title}</p>\n"
    )


def _about(client: Any, version: int) -> dict[str, Any]:
    """A version's row."""
    from psycopg.rows import dict_row

    with client.conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            "select version_id, model, symbol, version, algorithm, task, horizon, metrics,"
            " fold_metrics, importance from ml.model_versions where version_id = %s",
            (version,),
        ).fetchone()
    if row is None:
        raise LookupError(f"unknown model version {version}: select version_id from ml.registry")
    found: dict[str, Any] = row
    found["name"] = (
        f"{row['model']} · {row['symbol'] or 'all symbols'} · version {row['version_id']}"
        f" ({row['algorithm']})"
    )
    return found


def _out_of_fold(client: Any, version: int) -> Any:
    rows = client.out_of_fold(version)
    if rows.empty:
        raise Nothing(f"version {version} has no out-of-fold predictions: none were handed in")
    return rows


@app.command()
def calibration(version: Version, out: Out) -> None:
    """How often it happened, by the probability that was said out of fold."""
    _drawn("calibration", out, lambda client, figure: draw_calibration(client, figure, version))


def draw_calibration(client: Any, figure: Any, version: int) -> str:
    """Frequency by mean probability in bins of as many rows, with 95 % intervals.

    The intervals are Wilson's, for as many rows as do not overlap: labels that share time share
    their outcome.
    """
    import numpy as np

    about = _about(client, version)
    if about["task"] != "classification":
        raise Nothing(f"version {version} says values, no probabilities: alphaplus plot folds")
    rows = _out_of_fold(client, version)
    p, y = rows["prediction"].to_numpy(), rows["target"].to_numpy()
    step = max(np.median(np.diff(np.unique(rows["ts"].to_numpy("M8[us]").astype(np.int64)))), 1)
    overlap = max(about["horizon"].total_seconds() * 1e6 / step, 1.0)
    order = np.argsort(p, kind="stable")
    said, happened, low, high = [], [], [], []
    for part in np.array_split(order, BINS):
        if not len(part):
            continue
        mean = float(y[part].mean())
        below, above = wilson(mean, max(len(part) / overlap, 1.0))
        said.append(float(p[part].mean()))
        happened.append(mean)
        low.append(mean - below)
        high.append(above - mean)
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    edge = min(1.0, 1.08 * max(*said, *(h + e for h, e in zip(happened, high, strict=True))))
    top.plot([0, edge], [0, edge], color="0.6", linestyle="--", label="as said")
    top.errorbar(said, happened, yerr=[low, high], fmt="o-", capsize=3, label="out of fold, 95 %")
    base = float(y.mean())
    top.axhline(base, color="0.8", label=f"base rate {base:.3f}")
    top.set(ylabel="frequency of the event", xlim=(0, edge), ylim=(0, edge))
    top.legend(loc="upper left")
    top.set_title(f"Calibration · {about['name']}")
    bottom.hist(p, bins=40, range=(0, edge), color="0.5")
    bottom.set(xlabel="probability said", ylabel="rows")
    ece = about["metrics"].get("ece")
    tail = f", ECE {ece:.3f}" if ece is not None else ""
    return f"calibration of version {version}: {len(p):,} out-of-fold rows{tail}"


def wilson(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share of n (Wilson 1927)."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


@app.command()
def folds(version: Version, out: Out) -> None:
    """Metrics fold by fold beside the base rate, at the times that each fold was tested on."""
    _drawn("folds", out, lambda client, figure: draw_folds(client, figure, version))


def draw_folds(client: Any, figure: Any, version: int) -> str:
    """One panel a metric: a bar a fold over its test times, and the pooled figure."""
    import datetime as dt

    about = _about(client, version)
    parts = [part for part in about["fold_metrics"] if "test_from" in part]
    if not parts:
        raise Nothing(f"version {version} has no metrics by fold: none were handed in")
    classes = about["task"] == "classification"
    shown: tuple[tuple[str, str, float | None], ...] = (
        (("auc", "AUC", 0.5), ("log_loss", "log loss (nats)", None), ("ece", "ECE", None))
        if classes
        else (("rmse", "RMSE", None), ("mae", "MAE", None), ("rank_ic", "rank IC", 0.0))
    )
    shown = tuple(one for one in shown if any(part.get(one[0]) is not None for part in parts))
    if not shown:
        raise Nothing(f"version {version} has no metrics by fold that are drawn")
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    for panel, (name, label, chance) in zip(panels, shown, strict=True):
        base_drawn = False
        for part in parts:
            begin, end = (
                epoch + dt.timedelta(microseconds=part[key]) for key in ("test_from", "test_to")
            )
            if part.get(name) is None:
                continue
            panel.hlines(part[name], begin, end, linewidth=4, color="C0")
            panel.annotate(
                f"{part['fold']}: {part[name]:.3f}", (begin, part[name]), xytext=(2, 4),
                textcoords="offset points", fontsize="small",
            )  # fmt: skip
            base = (part.get("baseline") or {}).get(name)
            if base is not None and chance is None:
                panel.hlines(
                    base, begin, end, color="0.5", linestyle="--",
                    label=None if base_drawn else "base rate",
                )  # fmt: skip
                base_drawn = True
        pooled = about["metrics"].get(name)
        if pooled is not None:
            panel.axhline(pooled, color="C1", label=f"pooled {pooled:.3f}")
        if chance is not None:
            panel.axhline(chance, color="0.5", linestyle="--", label=f"chance {chance:g}")
        panel.set_ylabel(label)
        panel.margins(y=0.3)
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small")
    panels[0].set_title(f"Folds · {about['name']}")
    _dated(panels[-1], "test times (UTC)")
    return f"{len(parts)} folds of version {version}"


def _dated(panel: Any, label: str) -> None:
    from matplotlib import dates

    made: Any = dates  # untyped

    locator = made.AutoDateLocator()
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(made.ConciseDateFormatter(locator))
    panel.set_xlabel(label)


@app.command()
def importance(
    version: Version,
    out: Out,
    top: Annotated[int, typer.Option(min=1, help="so many features")] = MOST_FEATURES,
) -> None:
    """What a version's features weigh, the heaviest first."""
    _drawn("importance", out, lambda client, figure: draw_importance(client, figure, version, top))


def draw_importance(client: Any, figure: Any, version: int, top: int) -> str:
    """A bar a feature: its share of all importance, of the kind that the algorithm gives."""
    about = _about(client, version)
    found = about["importance"]
    kind, values = next(
        ((kind, values) for kind, values in found.items() if isinstance(values, dict) and values),
        ("", {}),
    )
    if not values and found and all(isinstance(v, int | float) for v in found.values()):
        kind, values = "importance", found
    total = sum(abs(value) for value in values.values())
    if not total:
        raise Nothing(f"version {version} has no importance: its algorithm gives none")
    ranked = sorted(values.items(), key=lambda item: -abs(item[1]))[:top]
    figure.set_size_inches(9, max(3.0, 0.28 * len(ranked) + 1.2))
    panel = figure.subplots()
    names = [name for name, _ in ranked][::-1]
    shares = [100 * abs(value) / total for _, value in ranked][::-1]
    panel.barh(names, shares)
    panel.set(xlabel=f"share of all {kind.replace('_', ' ')} (%)")
    panel.set_title(f"Importance · {about['name']}")
    panel.margins(y=0.01)
    return f"{len(ranked)} of {len(values)} features of version {version}, by {kind}"


@app.command()
def coverage(
    out: Out,
    symbols: Annotated[list[str] | None, typer.Argument(help="default: all")] = None,
) -> None:
    """What is stored of which symbol from when to when, and where bars are missing."""
    _drawn("coverage", out, lambda client, figure: draw_coverage(client, figure, symbols or []))


def draw_coverage(client: Any, figure: Any, symbols: Sequence[str]) -> str:
    """A bar a symbol and kind over time; holes in it in black."""
    rows = client.conn.execute(
        'select c.symbol, concat_ws(\' \', c.kind, c.timeframe), c.kind, c."from", c."to", c.rows,'
        " c.gaps from market.coverage c"
        " where %(some)s::text[] = '{}' or c.symbol in"
        " (select market.resolve(u.name) from unnest(%(some)s::text[]) u (name))"
        " order by c.symbol, c.kind, c.timeframe",
        {"some": list(symbols)},
    ).fetchall()
    if not rows:
        raise Nothing("nothing is stored: alphaplus load")
    left = max(0, len(rows) - MOST_SYMBOLS)
    rows = rows[:MOST_SYMBOLS]
    figure.set_size_inches(11, max(3.0, 0.26 * len(rows) + 1.3))
    panel = figure.subplots()
    kinds = list(dict.fromkeys(row[2] for row in rows))
    seen: set[str] = set()
    holes = False
    for place, (symbol, _, kind, begin, end, _, gaps) in enumerate(rows):
        new = kind not in seen
        seen.add(kind)
        panel.hlines(
            place, begin, end, linewidth=6, color=f"C{kinds.index(kind)}",
            label=kind.replace("_", " ") if new else None,
        )  # fmt: skip
        panel.plot([begin, end], [place, place], "|", color=f"C{kinds.index(kind)}")
        if not gaps or kind != "candles":
            continue
        for low, high in client.conn.execute(
            "select g.gap_from, g.gap_to from market.gaps(%s) g where g.kind = 'candles'"
            " and g.how = 'no bars' and g.gap_from >= %s and g.gap_to <= %s",
            (symbol, begin, end),
        ):
            panel.hlines(place, low, high, linewidth=6, color="black",
                         label=None if holes else "missing bars")  # fmt: skip
            panel.plot([low], [place], "|", color="black", markersize=9)
            holes = True
    panel.set_yticks(range(len(rows)), [f"{row[0]} {row[1]} ({row[5]:,})" for row in rows],
                     fontsize="small")  # fmt: skip
    panel.set_ylim(len(rows) - 0.4, -0.6)
    _dated(panel, "time (UTC)")
    panel.set_title("What is stored (rows)" + (f", {left} more not shown" if left else ""))
    panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small")
    return f"{len(rows)} series of {len({row[0] for row in rows})} symbols"


@app.command()
def predictions(
    model: Annotated[str, typer.Argument(help="a model, as in ml.models")],
    symbol: Annotated[str, typer.Option(help="a symbol or alias")],
    out: Out,
    since: Since = None,
    until: Until = None,
) -> None:
    """Recorded predictions over time, and what came of them."""
    _drawn(
        "predictions", out,
        lambda client, figure: draw_predictions(client, figure, model, symbol, since, until),
    )  # fmt: skip


def draw_predictions(
    client: Any, figure: Any, model: str, symbol: str, since: str | None, until: str | None
) -> str:
    """The prediction by time, by who gave it; outcomes above (events) or beside (values)."""
    import numpy as np

    rows = client.predictions(model, symbol, since, until)
    if rows.empty:
        raise Nothing(f"no prediction of {model} for {symbol} is recorded: ml.record_prediction")
    panel = figure.subplots()
    classes = rows["probability"].notna().any()
    at = rows["as_of"].to_numpy("M8[us]")
    fallback = rows["is_fallback"].to_numpy()
    value = rows["probability" if classes else "prediction"].to_numpy()
    if not fallback.all():
        panel.plot(at, np.where(fallback, np.nan, value), ".-", label="model", linewidth=0.8)
    if fallback.any():
        panel.plot(at[fallback], value[fallback], "x", color="0.5", label="base rate (fallback)")
    known = rows["outcome"].notna().to_numpy()
    outcome = rows["outcome"].to_numpy()
    if classes:
        happened = known & (outcome > 0)
        if happened.any():
            panel.plot(
                at[happened], value[happened], "o", color="red", markerfacecolor="none",
                label=f"it happened ({happened.sum()} of {known.sum()})",
            )  # fmt: skip
        panel.set(ylabel="probability")
        panel.set_ylim(0, min(1.0, 1.1 * float(np.nanmax(value)) + 0.02))
    else:
        if known.any():
            panel.plot(at[known], outcome[known], ".", color="red", label="outcome")
        panel.set(ylabel="value")
    unknown = int((~known).sum())
    panel.legend(loc="best")
    name = str(rows["symbol"].iloc[0])
    panel.set_title(f"Predictions · {model} · {name}")
    _dated(panel, "asked as of (UTC)")
    waiting = f", {unknown} without an outcome yet" if unknown else ""
    return f"{len(rows):,} predictions of {model} for {name}{waiting}"
