"""The command line: ``alphaplus migrate | load | stream | simulate | demo | …``.

Commands import what they need when they run, so that ``alphaplus --help`` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from alphaplus.cli import dashboards, data, files, live, model, operate, plot, report, texts

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Machine learning inside the market database."
)

app.add_typer(model.app, name="model")
app.add_typer(plot.app, name="plot")
app.add_typer(operate.scheduler, name="scheduler")
app.add_typer(operate.drift, name="drift")
app.add_typer(dashboards.app, name="dashboards")


data.register(app)
files.register(app)
live.register(app)
report.register(app)
texts.register(app)


@app.callback()
def _main() -> None:
    """Machine learning inside the market database."""


@app.command()
def migrate(
    down: Annotated[
        str | None,
        typer.Option(
            help="undo migrations, newest first, down to, not including, this one ('all': all)"
        ),
    ] = None,
) -> None:
    """Bring the database that PG* or DATABASE_URL name up to date, creating it when missing."""
    import psycopg
    from alphaplus import migrations
    from alphaplus.cli import connect

    def wait(message: str) -> None:
        typer.echo(f"alphaplus migrate: {message}", err=True)

    conninfo = connect.superuser_conninfo()
    try:
        if down is not None:
            undone = migrations.rollback(conninfo, None if down == "all" else down, say=wait)
            typer.echo(f"undone: {', '.join(undone) or 'nothing'}")
            return
        report = migrations.migrate(conninfo, say=wait)
    except (migrations.MigrationError, psycopg.OperationalError) as error:
        typer.echo(f"alphaplus migrate: {error}", err=True)
        raise typer.Exit(1) from None
    if report.created_database:
        typer.echo("database created")
    typer.echo(f"migrations applied: {', '.join(report.migrations) or 'none pending'}")
    typer.echo(f"sql/ applied; changed since last time: {len(report.changed_files)} files")


@app.command()
def simulate(
    symbols: Annotated[
        list[str] | None, typer.Argument(help="base names; default BTC ETH SOL")
    ] = None,
    days: Annotated[float, typer.Option(min=0.1, help="days up to the end")] = 14.0,
    seed: Annotated[int, typer.Option(help="the same seed gives the same market")] = 7,
    to: Annotated[
        str, typer.Option(help="end of the simulated time, UTC (now: this minute)")
    ] = "2024-06-30",
    signal: Annotated[bool, typer.Option(help="liquidations depend on what can be seen")] = True,
    drift_at: Annotated[
        float, typer.Option(min=0, max=1, help="share of the span after which it drifts")
    ] = 1.0,
    drift_volatility: Annotated[
        float, typer.Option(help="factor on volatility from there on")
    ] = 1.0,
    drift_flow: Annotated[float, typer.Option(help="shift of order flow from there on")] = 0.0,
    latency: Annotated[float, typer.Option(min=0, help="seconds until a row is known")] = 0.0,
) -> None:
    """Fill the market tables from the built-in simulator, ground truth included."""
    import datetime as dt

    import psycopg
    from alphaplus.loaders import simulator

    if to == "now":
        end = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0)
    else:
        end = dt.datetime.fromisoformat(to).replace(tzinfo=dt.UTC)
    config = simulator.Config(
        signal=signal,
        drift_at=drift_at,
        drift_volatility=drift_volatility,
        drift_flow=drift_flow,
        latency=latency,
    )
    bases = [
        name.upper().removesuffix("@SIM").removesuffix("USDT").rstrip("/")
        for name in symbols or ("BTC", "ETH", "SOL")
    ]
    from alphaplus.cli.connect import role_conninfo
    from alphaplus.cli.pulse import pulse

    doing = ["simulating"]
    with (
        psycopg.connect(role_conninfo("alphaplus_loader"), autocommit=True) as conn,
        pulse(lambda words: typer.echo(f"alphaplus simulate: {words}", err=True), lambda: doing[0]),
    ):
        for i, base in enumerate(bases):
            doing[0] = f"simulating {base}"
            for name in simulator.run(conn, [base], days, seed + i, end, config):
                typer.echo(
                    f"simulated {name}: {days:g} days to {end:%Y-%m-%d %H:%M} UTC, seed {seed}"
                )
        doing[0] = "refreshing the aggregates"
        conn.execute("call market.refresh_aggregates()")


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="folder with market files; default: the simulator")
    ] = None,
) -> None:
    """From raw market data to a prediction in SQL: loads, trains, gates, promotes, predicts."""
    from alphaplus.cli import demo as steps

    raise typer.Exit(steps.run(data))


@app.command()
def docs(
    check: Annotated[
        bool, typer.Option("--check", help="write nothing; exit 1 if the page is stale")
    ] = False,
) -> None:
    """Write docs/reference.md from the database's own comments."""
    import psycopg
    from alphaplus.cli import connect, reference

    with psycopg.connect(connect.superuser_conninfo()) as conn:
        if check:
            if reference.PATH.read_text() == reference.page(conn):
                return
            typer.echo(f"{reference.PATH} is stale: run make docs", err=True)
            raise typer.Exit(1)
        changed = reference.write(conn)
    typer.echo(f"{reference.PATH}: {'written' if changed else 'unchanged'}")


if __name__ == "__main__":
    app()
