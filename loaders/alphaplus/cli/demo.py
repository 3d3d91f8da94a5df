"""``alphaplus demo``: from raw market data to a prediction in SQL, each step said and timed.

Run twice it does only what is missing: data already loaded, vectors already stored and models
already promoted stay.
"""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from alphaplus.cli.connect import role_conninfo
from alphaplus.cli.load import one_file, series, summary, within
from alphaplus.cli.pulse import pulse
from alphaplus.loaders import simulator
from alphaplus.loaders.load import Options, Report
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.metrics import roc_auc_score

BASES = ["BTC", "ETH", "SOL"]
DAYS = 30.0
SEED = 7
HORIZONS = ("5m", "15m", "30m", "60m")

Conn = psycopg.Connection[Any]


@dataclass(frozen=True)
class Key:
    """A model to train for a symbol as of the end of its data."""

    model: str
    symbol: str
    as_of: dt.datetime


class Demo:
    """One run: its connections and where it prints."""

    def __init__(self, console: Console, operator: Conn, loader: Conn) -> None:
        self.console = console
        self.operator = operator
        self.loader = loader
        self.step_number = 0
        self.doing = ""

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Say what is being done, and how long it took."""
        self.step_number += 1
        self.console.print(f"[bold]{self.step_number}. {what}[/bold]")
        begin = time.monotonic()
        self.doing = "at it"
        with pulse(
            lambda words: self.console.print(f"   … {words}", markup=False, highlight=False),
            lambda: self.doing,
            on=not self.console.is_terminal,
        ):
            yield
        self.console.print(f"   {time.monotonic() - begin:.1f} s")

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """All rows of a query, as the operator."""
        return self.operator.execute(query, arguments).fetchall()

    def clock(self, schedule: str) -> None:
        """Run a schedule as the clock does; while the clock is at it, wait for our turn."""
        while True:
            self.operator.execute("call ops.run(%s, quiet => true)", (schedule,))
            ((status, detail),) = self.rows(
                "select status, detail from ops.runs where schedule = %s"
                " and backend_pid = pg_backend_pid() order by run_id desc limit 1",
                schedule,
            )
            if status == "failed":
                raise RuntimeError(f"{schedule}: {detail}")
            if status == "succeeded":
                return
            time.sleep(1)


def run(data: Path | None) -> int:
    """The whole demo; returns the exit status."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    with (
        psycopg.connect(role_conninfo("alphaplus_operator"), autocommit=True) as operator,
        psycopg.connect(role_conninfo("alphaplus_loader"), autocommit=True) as loader,
    ):
        demo = Demo(console, operator, loader)
        return simulated(demo) if data is None else from_files(demo, data)


def simulated(demo: Demo) -> int:
    """Liquidation models on the built-in market simulator."""
    with demo.step(
        f"market data: no DATA given, so the built-in simulator ({', '.join(BASES)}, {DAYS:g} days,"
        f" seed {SEED}); this is not a real market"
    ):
        have = {name for (name,) in demo.rows("select distinct symbol from market.simulation_runs")}
        missing = [base for base in BASES if f"{base}USDT@sim" not in have]
        for base in missing:
            demo.doing = f"simulating {base}"
            (name,) = simulator.run(demo.loader, [base], DAYS, SEED + BASES.index(base))
            demo.console.print(f"   {name}")
        for symbol, trades, books, events in demo.rows(
            "select i.symbol, (select count(*) from market.trades t where t.symbol = i.symbol),"
            " (select count(*) from market.order_book_snapshots b where b.symbol = i.symbol),"
            " (select count(*) from market.liquidation_events l where l.symbol = i.symbol)"
            " from market.instruments i where i.is_simulated order by 1"
        ):
            demo.console.print(
                f"   {symbol}: {trades:,} trades, {books:,} order books, {events:,} liquidations"
            )
    prepare(demo)
    symbols = [f"{base}USDT@sim" for base in BASES]
    keys = [
        Key(f"{kind}_{horizon}", symbol, data_end(demo, symbol))
        for kind in ("liquidation", "liquidation_volume")
        for horizon in HORIZONS
        for symbol in symbols
    ]
    train(demo, keys)
    metrics(demo, [key for key in keys if key.model.startswith("liquidation_volume") is False])
    for key in keys:
        if demo.rows("select ml.champion(%s, %s)", key.model, key.symbol) == [(None,)]:
            # Its base rate answers: kept, as the clock would, it costs a look-up.
            demo.operator.execute(
                "call ml.keep_base_rates(%s, %s, %s, %s)",
                (key.model, key.symbol, key.as_of - dt.timedelta(hours=1), key.as_of),
            )
    query = "select * from ml.predict_liquidation(%s, interval %s, as_of => %s)"
    demo.console.print(
        "\n[bold]select * from ml.predict_liquidation('BTC/USDT', '15 min', as_of => …)[/bold],"
        " for each symbol and horizon:"
    )
    table = Table()
    shown = (
        "symbol", "horizon", "probability", "confidence", "risk_level", "expected_volume",
        "model_version", "is_fallback", "feature_as_of", "staleness",
    )  # fmt: skip
    for name in shown:
        table.add_column(name)
    for symbol in symbols:
        for minutes in (5, 15, 30, 60):
            as_of = data_end(demo, symbol)
            cursor = demo.operator.execute(
                query.replace("interval %s", "%s::interval"), (symbol, f"{minutes} min", as_of)
            )
            names = [column.name for column in cursor.description or ()]
            row = dict(zip(names, cursor.fetchone() or (), strict=True))
            table.add_row(*(show(row[name]) for name in shown))
    demo.console.print(table)
    ensemble(demo, "liquidation_15m", symbols[1])
    regimes(demo, symbols)
    end = data_end(demo, symbols[0])
    # What is explained has to be served: a symbol that missed its gates has a base rate.
    served = [
        symbol
        for symbol in symbols
        if demo.rows("select ml.champion('liquidation_15m', %s)", symbol) != [(None,)]
    ]
    in_service(demo, "liquidation_15m", (served or symbols)[0])
    explained = (served or symbols)[0].removesuffix("USDT@sim") + "/USDT"
    asked = f"{data_end(demo, (served or symbols)[0]):%Y-%m-%d %H:%M}+00"
    next_commands(
        demo,
        [
            f"select * from ml.explain('liquidation_15m', '{explained}', '{asked}');",
            "select kind, name, outcomes, regret, bound from ml.regret;",
            f"select * from feature.liquidation('ETH/USDT', '{end:%Y-%m-%d %H:%M}+00');",
            "select * from drift.check('liquidation_15m', 'BTC/USDT', '1 day',"
            f" '{end:%Y-%m-%d %H:%M}+00');",
            "select score, label, keywords from sentiment.analyze('BTC dumps, ETH flies', 'ETH');",
            "call analytics.refresh_states();",
            "select moments, return_p05, return_p50, return_p95, reason from"
            f" analytics.similar_outcomes('BTC/USDT', '{end:%Y-%m-%d %H:%M}+00',"
            " horizon => '1 hour');",
            "select check_name, status, detail from ops.health;",
        ],
    )
    return 0


def in_service(demo: Demo, model: str, symbol: str) -> None:
    """The last day as if a version of the day before had served: for the dashboards to show."""
    end = data_end(demo, symbol)
    start = end - dt.timedelta(days=1)
    train(demo, [Key(model, symbol, start)])
    found = demo.rows(
        "select version_id from ml.model_versions where model = %s and symbol = %s and as_of = %s"
        " order by version_id desc limit 1",
        model,
        symbol,
        start,
    )
    if not found:
        return
    with demo.step("a day in service: predictions and what came of them, drift, a back-test"):
        demo.operator.execute(
            "select ml.record_prediction(%s, %s, t.ts, %s)"
            " from generate_series(%s::timestamptz, %s, interval '30 minutes') t (ts)"
            " where not exists (select from ml.predictions p where p.model = %s and p.symbol = %s"
            " and p.as_of = t.ts)",
            (
                model, symbol, found[0][0], start + dt.timedelta(minutes=30),
                end - dt.timedelta(minutes=30), model, symbol,
            ),
        )  # fmt: skip
        demo.operator.execute("call ml.join_outcomes(%s)", (end,))
        demo.operator.execute("call drift.monitor(%s)", (end,))
        demo.operator.execute("call analytics.refresh()")
        if not demo.rows("select from backtest.strategies where strategy = 'calm'"):
            settings = '{"enter_short": 0.1, "exit_short": 0.35, "hold": "1 hour"}'
            demo.operator.execute(
                "select backtest.create_strategy('calm', %s, array[%s], %s)",
                (model, symbol, settings),
            )
            demo.operator.execute(
                "select * from backtest.run_variants('calm', %s, %s, %s)",
                ('[{}, {"enter_short": 0.3}]', end - dt.timedelta(days=10), end),
            )
        ((predictions, outcomes, trials),) = demo.rows(
            "select (select count(*) from ml.predictions), (select count(outcome) from"
            " ml.predictions), (select count(*) from backtest.trials)"
        )
        demo.console.print(
            f"   {predictions} predictions recorded, {outcomes} outcomes; {trials} back-tests tried"
        )


# What is combined with the LightGBM model of a label; the deep ones where PyTorch is installed.
OTHERS = ("xgboost", "logistic_regression", "lstm", "transformer")


def ensemble(demo: Demo, model: str, symbol: str) -> None:
    """Other algorithms for one model and symbol, and what they say together."""
    deep = find_spec("torch") is not None
    chosen = [name for name in OTHERS if deep or name not in ("lstm", "transformer")]
    for name in chosen:
        training = '{"lookback": "7 days", "folds": 3}' if name in ("lstm", "transformer") else "{}"
        params = '{"epochs": 2}' if name in ("lstm", "transformer") else "{}"
        demo.operator.execute(
            "insert into ml.models (model, label, feature_set, feature_version, algorithm, params,"
            " training, description) select %s, m.label, m.feature_set, m.feature_version, %s, %s,"
            " %s, %s from ml.models m where m.model = %s on conflict do nothing",
            (
                f"{model}_{name}",
                name,
                params,
                training,
                f"{model} by {name}, for ensembles.",
                model,
            ),
        )
    as_of = data_end(demo, symbol)
    train(demo, [Key(f"{model}_{name}", symbol, as_of) for name in chosen])
    members = [model, *(f"{model}_{name}" for name in chosen)]
    with demo.step(
        f"ensemble of {len(members)}: rounds from out-of-fold predictions, what came of them"
    ):
        demo.operator.execute(
            'select ml.create_ensemble(%s, %s, %s, settings => \'{"regime_weights": "seeds"}\')',
            (f"{model}_ensemble", model, members),
        )
        demo.operator.execute(
            "call ml.fill_ensemble(%s, %s, %s, %s)",
            (f"{model}_ensemble", symbol, as_of - dt.timedelta(days=DAYS), as_of),
        )
        demo.operator.execute("call ml.refresh_ensembles(%s)", (as_of,))
    ((p, lower, upper, weights, slept, outcomes),) = demo.rows(
        "select probability, lower, upper, weights, slept, outcomes"
        " from ml.predict_ensemble(%s, ensemble => %s, as_of => %s)",
        symbol,
        f"{model}_ensemble",
        as_of,
    )
    shown = ", ".join(f"{name} {weight:.2f}" for name, weight in (weights or {}).items())
    demo.console.print(
        f"   ml.predict_ensemble('{symbol}', '15 min'): {show(p)} [{show(lower)}, {show(upper)}]"
        f" after {outcomes} outcomes; weights: {shown or 'none'}",
        markup=False, highlight=False,
    )  # fmt: skip
    for name, why in (slept or {}).items():
        demo.console.print(f"   asleep: {name}: {why}", markup=False, highlight=False)


def regimes(demo: Demo, symbols: list[str]) -> None:
    """The regime of each symbol at its end, and where it is likely to go."""
    with demo.step("market regimes: as known then, and in a day"):
        for symbol in symbols:
            as_of = data_end(demo, symbol)
            for regime, confidence, since, ahead, chance in demo.rows(
                "select c.regime, c.confidence, c.since, f.regime, f.confidence"
                " from regime.classify(%s, %s) c, regime.forecast(%s, interval '1 day', %s) f",
                symbol, as_of, symbol, as_of,
            ):  # fmt: skip
                demo.console.print(
                    f"   regime.classify('{symbol}'): {regime} {confidence:.2f} since"
                    f" {since:%m-%d %H:%M}; in a day {ahead} {chance:.2f}",
                    markup=False, highlight=False,
                )  # fmt: skip


def prepare(demo: Demo) -> None:
    """Aggregates and features, as the clock would."""
    with demo.step("continuous aggregates: one-minute bars, books and liquidations, 5 min to 1 d"):
        demo.clock("refresh aggregates")
    with demo.step("features: every vector as it was known at its time"):
        demo.clock("refresh features")
        # So much came at once that the planner has to be told now, not by autovacuum in a minute:
        # without it the first training took two minutes instead of eight seconds.
        with psycopg.connect(role_conninfo("alphaplus_owner"), autocommit=True) as owner:
            owner.execute("set client_min_messages = error")
            owner.execute("analyze")
        for name, symbols, count in demo.rows(
            "select s.name, count(distinct v.symbol), count(*) from feature.vectors v"
            " join feature.sets s using (set_id) group by 1 order by 1"
        ):
            demo.console.print(f"   {name}: {count:,} vectors of {symbols} symbols")


def data_end(demo: Demo, symbol: str) -> dt.datetime:
    """The end of a symbol's newest bar."""
    ((end,),) = demo.rows(
        "select greatest("
        " (select max(bucket) + interval '1 minute' from market.trades_1m where symbol = %s),"
        " (select max(ts + timeframe) from market.candles where symbol = %s))",
        symbol,
        symbol,
    )
    return end  # type: ignore[no-any-return]


def train(demo: Demo, keys: list[Key]) -> None:
    """Ask for what is not trained as of its data's end, run trainers, and show their progress."""
    with demo.step(f"training: {len(keys)} models through the queue, walk-forward, then the gates"):
        jobs = []
        for key in keys:
            done = demo.rows(
                "select 1 from ml.model_versions where model = %s and symbol = %s and as_of = %s",
                key.model,
                key.symbol,
                key.as_of,
            )
            if not done:
                demo.operator.execute(
                    "call ml.retrain(%s, %s, as_of => %s, options => %s)",
                    (key.model, key.symbol, key.as_of, '{"auto_promote": true}'),
                )
                jobs.append(key)
        if not jobs:
            demo.console.print("   nothing to train: all are there")
            return
        # A small model keeps one core busy: a trainer for each, and the cores divided among them.
        cores = os.cpu_count() or 1
        count = min(cores, len(jobs), 2)  # as many as training.max_concurrent lets run at once
        command = [sys.executable, "-m", "alphaplus.trainer", "--drain"]
        trainers = [
            subprocess.Popen(
                [*command, "--threads", str(cores // count)],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
            for _ in range(count)
        ]  # fmt: skip
        waiting = "select count(*) from ml.training_jobs where status in ('queued', 'running')"
        with Progress(
            TextColumn("   {task.description}"),
            BarColumn(),
            TextColumn("{task.completed:g} of {task.total:g}"),
            TimeElapsedColumn(),
            console=demo.console,
            disable=not demo.console.is_terminal,
        ) as progress:
            bar = progress.add_task("training", total=len(jobs))
            while any(trainer.poll() is None for trainer in trainers):
                ((left,),) = demo.rows(waiting)
                now = demo.rows(
                    "select model, symbol from ml.training_jobs where status = 'running' limit 1"
                )
                what = f"{now[0][0]} {now[0][1]}" if now else "training"
                progress.update(bar, completed=len(jobs) - left, description=what)
                demo.doing = f"{len(jobs) - left} of {len(jobs)} done, now {what}"
                time.sleep(0.5)
            progress.update(bar, completed=len(jobs))
        for trainer in trainers:
            _, errors = trainer.communicate()
            if trainer.returncode:
                demo.console.print(
                    f"[red]a trainer ended with {trainer.returncode}[/red]\n{errors}"
                )
        for model, symbol, error in demo.rows(
            "select model, symbol, error from ml.training_jobs where status = 'failed'"
            " and finished_at > clock_timestamp() - interval '1 hour'"
        ):
            demo.console.print(f"   [red]failed[/red] {model} {symbol}: {error}")
        ((promoted, trained),) = demo.rows(
            "select count(*) filter (where exists (select from ml.aliases a where a.version_id ="
            " v.version_id and a.alias = 'champion')), count(*) from ml.model_versions v"
        )
        demo.console.print(f"   {trained} versions trained, {promoted} passed the gates and serve")


def metrics(demo: Demo, keys: list[Key]) -> None:
    """Held-out metrics beside the base rate, as they came out; the best there is where known."""
    demo.console.print(
        "\n[bold]held-out metrics[/bold] (walk-forward, purged by the horizon; 95 % intervals by"
        " block bootstrap; the base rate has an AUC of 0.5)"
    )
    table = Table()
    for name in (
        "model",
        "symbol",
        "AUC",
        "best possible AUC",
        "log loss",
        "base rate's",
        "ECE",
        "served",
    ):
        table.add_column(name)
    for key in keys:
        found = demo.rows(
            "select v.metrics, exists (select from ml.aliases a where a.version_id = v.version_id"
            " and a.alias = 'champion') from ml.model_versions v where model = %s and symbol = %s"
            " order by v.version_id desc limit 1",
            key.model,
            key.symbol,
        )
        if not found:
            table.add_row(key.model, key.symbol, "not trained")
            continue
        m, served = found[0]
        baseline = m.get("baseline", {})
        table.add_row(
            key.model,
            key.symbol,
            f"{m['auc']:.3f} [{m['auc_low']:.3f}, {m['auc_high']:.3f}]",
            best_possible(demo, key),
            f"{m['log_loss']:.4f}",
            f"{baseline.get('log_loss', float('nan')):.4f}",
            f"{m['ece']:.3f}",
            "yes" if served else "no: gates",
        )
    demo.console.print(table)


def best_possible(demo: Demo, key: Key) -> str:
    """The simulator's own hazard scored on the same label: no model can do better on average."""
    horizon = key.model.rsplit("_", 1)[1]
    if not key.symbol.endswith("@sim") or not key.model.startswith("liquidation_"):
        return ""
    rows = demo.rows(
        f"select t.hazard_{horizon}, l.target from ml.label_values(%s, %s, %s, %s, %s) l"
        " join market.simulation_truth t on t.symbol = %s and t.ts = l.ts"
        f" where t.hazard_{horizon} is not null",
        key.model,
        key.symbol,
        key.as_of - dt.timedelta(days=0.6 * DAYS),
        key.as_of,
        key.as_of,
        key.symbol,
    )
    score, target = np.array(rows, dtype=np.float64).T
    return f"{roc_auc_score(target, score):.3f}"


def show(value: Any) -> str:
    """A value as the table shows it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"
    if isinstance(value, dt.datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return str(value)


def next_commands(demo: Demo, commands: list[str]) -> None:
    """What to try next."""
    demo.console.print("\n[bold]Try next[/bold], after `make psql`:")
    for command in commands:
        demo.console.print(f"   {command}", markup=False, highlight=False, soft_wrap=True)
    demo.console.print("\n[bold]Where to look[/bold]:")
    ((model,),) = demo.rows(
        "select coalesce((select a.model from ml.aliases a where a.alias = 'champion'"
        " order by a.model limit 1), (select max(v.model) from ml.model_versions v), 'MODEL')"
    )
    for command, what in (
        ("make dashboards", "all of it in Apache Superset, on localhost (docs/dashboards.md)"),
        (f"alphaplus report --model {model} --out report.html", "a model's card as one page"),
    ):
        demo.console.print(f"   {command:52} {what}", markup=False, highlight=False)


def from_files(demo: Demo, folder: Path) -> int:
    """Direction and volatility-burst models on the user's own files."""
    if not folder.is_dir():
        demo.console.print(f"alphaplus demo: {folder} is no folder")
        return 1
    files, _ = within([folder])
    with demo.step(f"market data: {len(files)} files under {folder}"):
        load_files(demo, files)
    prepare(demo)
    ((liquidated, booked),) = demo.rows(
        "select count(distinct l.symbol), (select count(distinct symbol) from"
        " market.order_book_snapshots where symbol not like '%%@sim')"
        " from market.liquidation_events l where symbol not like '%%@sim'"
    )
    if not liquidated:
        demo.console.print(
            "   These data hold no forced liquidations, so no liquidation model is trained; they"
            " support direction and volatility-burst models on candles."
        )
    if booked:
        demo.console.print(
            f"   Order books of {booked} symbols are loaded, minutes or samples only: too short to"
            " train on."
        )
    minutes = candle_symbols(demo, "1 minute", dt.timedelta(days=14), MINUTE_SYMBOLS)
    hours = candle_symbols(demo, "1 hour", dt.timedelta(days=180), HOUR_SYMBOLS)
    for name, found in (("one-minute", minutes), ("hourly", hours)):
        listed = ", ".join(found) or "none long enough to train on"
        demo.console.print(f"   {name} candles: {listed}")
    keys = [
        Key(f"{kind}_{horizon}", symbol, candle_end(demo, symbol, width))
        for symbols, horizons, width in (
            (minutes, ("15m", "60m"), "1 minute"),
            (hours, ("4h", "24h"), "1 hour"),
        )
        for kind in ("direction", "volatility")
        for horizon in horizons
        for symbol in symbols
    ]
    if not keys:
        demo.console.print("   Nothing here is long enough to train on.")
        return 1
    train(demo, keys)
    metrics(demo, keys)
    demo.console.print(
        "\n[bold]select * from ml.predict('volatility_4h', 'BTCUSDT', as_of => …)[/bold]:"
    )
    table = Table()
    shown = (
        "model", "symbol", "probability", "lower", "upper", "version_id", "partition_used",
        "is_fallback", "feature_as_of", "out_of_support",
    )  # fmt: skip
    for name in shown:
        table.add_column(name)
    for key in keys:
        cursor = demo.operator.execute(
            "select * from ml.predict(%s, %s, %s)", (key.model, key.symbol, key.as_of)
        )
        names = [column.name for column in cursor.description or ()]
        row = dict(zip(names, cursor.fetchone() or (), strict=True))
        table.add_row(*(show(row[name]) for name in shown))
    demo.console.print(table)
    first = keys[0]
    as_of = f"{first.as_of:%Y-%m-%d %H:%M}+00"
    next_commands(
        demo,
        [
            f"select * from ml.explain('{first.model}', '{first.symbol}', '{as_of}');",
            f"select ts, close from market.candles_1d where symbol = '{first.symbol}' order by ts;",
            "select model, symbol, metrics ->> 'auc' as auc from ml.model_versions;",
            "select symbol, kind, margin, contract_size from market.instruments;",
        ],
    )
    return 0


MINUTE_SYMBOLS, HOUR_SYMBOLS = 2, 6


def load_files(demo: Demo, files: list[Path]) -> None:
    """Load what can be identified, and say of the rest what is missing."""
    reports: list[Report] = []

    def complain(words: str) -> None:
        demo.console.print(f"   not loaded: {words}", markup=False, soft_wrap=True)

    for path in files:
        demo.doing = f"loading {path.name}"
        _, got = one_file(demo.loader, path, Options(), complain)
        reports += got
    demo.console.print(summary(reports))
    for line in series(reports):
        demo.console.print(f"   {line}", markup=False, highlight=False, soft_wrap=True)


def candle_symbols(demo: Demo, width: str, least: dt.timedelta, most: int) -> list[str]:
    """Symbols with loaded candles of a length over a long enough span, the longest first."""
    return [
        symbol
        for (symbol,) in demo.rows(
            "select symbol from market.candles where timeframe = %s::interval"
            " group by symbol having max(ts) - min(ts) >= %s"
            " order by count(*) desc, symbol limit %s",
            width,
            least,
            most,
        )
    ]


def candle_end(demo: Demo, symbol: str, width: str) -> dt.datetime:
    """The close of a symbol's newest candle of a length."""
    ((end,),) = demo.rows(
        "select max(ts + timeframe) from market.candles where symbol = %s"
        " and timeframe = %s::interval",
        symbol,
        width,
    )
    return end  # type: ignore[no-any-return]
