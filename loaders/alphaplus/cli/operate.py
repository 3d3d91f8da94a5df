"""Commands with the seeds' words: ``alphaplus scheduler …`` and ``alphaplus drift …``.

Each is one statement that can be run in SQL with the same words; they run as the operator.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

scheduler = typer.Typer(no_args_is_help=True, help="Training schedules.")
drift = typer.Typer(no_args_is_help=True, help="Drift of what models see.")

Model = Annotated[str, typer.Option(help="the model")]
Symbol = Annotated[str | None, typer.Option(help="the instrument; none: pooled")]
Regime = Annotated[str | None, typer.Option(help="only for this regime")]


def _ask(query: str, *arguments: Any) -> None:
    """Run a statement as the operator and print its rows; its error in one line, exit status 1."""
    import psycopg
    from alphaplus.cli.connect import role_conninfo
    from rich.console import Console
    from rich.table import Table

    try:
        with psycopg.connect(role_conninfo("alphaplus_operator"), autocommit=True) as conn:
            cursor = conn.execute(query, arguments)
            if cursor.description is None:
                return
            table = Table(show_edge=False)
            for column in cursor.description:
                table.add_column(column.name, overflow="fold")
            for row in cursor.fetchall():
                table.add_row(*("" if x is None else _text(x) for x in row))
    except psycopg.Error as error:
        words = [error.diag.message_primary or str(error).strip(), error.diag.message_hint]
        typer.echo(f"alphaplus: {error.sqlstate}: {'. '.join(w for w in words if w)}", err=True)
        raise typer.Exit(1) from None
    Console(width=None, soft_wrap=True).print(table)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@scheduler.command()
def start() -> None:
    """Let the training schedules run."""
    _ask("select ops.set_setting('training.schedules_on', 'true') as schedules_on")


@scheduler.command()
def stop() -> None:
    """Let them pause; what is queued goes on."""
    _ask("select ops.set_setting('training.schedules_on', 'false') as schedules_on")


@scheduler.command()
def status() -> None:
    """What is trained when, and whether it was."""
    _ask(
        "select at, schedule, model, symbol, regime, status, version_id, detail"
        " from ops.training_calendar()"
    )


@scheduler.command()
def manual(model: Model = "direction_15m", symbol: Symbol = None, regime: Regime = None) -> None:
    """Ask for a training now."""
    _ask("call ml.retrain(%s, %s, %s)", model, symbol, regime)


@drift.command()
def check(
    model: Model = "direction_15m",
    symbol: Symbol = None,
    window: Annotated[str, typer.Option(help="how far back")] = "1 day",
    as_of: Annotated[str | None, typer.Option(help="as of this time; none: now")] = None,
) -> None:
    """How far what is seen now lies from what the champion was trained on."""
    _ask(
        "select feature, kind, ks, psi, js, wasserstein, p_adjusted, severity, blame"
        " from drift.check(%s, %s, %s::interval, %s::timestamptz)",
        model, symbol, window, as_of,
    )  # fmt: skip


@drift.command()
def summary(days: Annotated[int, typer.Option(min=1, help="days back")] = 7) -> None:
    """What the checks of the last days found."""
    _ask("select * from drift.summary(days => %s)", days)


@drift.command()
def history(
    model: Model = "direction_15m",
    feature: Annotated[str | None, typer.Option(help="one feature; none: all")] = None,
) -> None:
    """What the checks found of a feature, newest first."""
    _ask(
        "select at, symbol, feature, ks, psi, p_adjusted, severity from drift.history(%s, %s)",
        model, feature,
    )  # fmt: skip


@drift.command()
def retrain(model: Model = "direction_15m", symbol: Symbol = None, regime: Regime = None) -> None:
    """Ask for a training because of drift: the same as ``scheduler manual``."""
    _ask("call ml.retrain(%s, %s, %s)", model, symbol, regime)
