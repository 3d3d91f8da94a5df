"""The command line: ``alphaplus migrate | load | simulate | demo | …``.

Commands import what they need when they run, so that ``alphaplus --help`` is quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Machine learning inside the market database."
)


@app.callback()
def _main() -> None:
    """Machine learning inside the market database."""


@app.command()
def migrate(
    down: Annotated[
        str | None,
        typer.Option(
            help="undo migrations, newest first, down to but not including this one ('all': every one)"
        ),
    ] = None,
) -> None:
    """Bring the database that PG* or DATABASE_URL name up to date, creating it when missing."""
    import psycopg
    from alphaplus.loaders import db

    conninfo = db.superuser_conninfo()
    try:
        if down is not None:
            undone = db.rollback(conninfo, None if down == "all" else down)
            typer.echo(f"undone: {', '.join(undone) or 'nothing'}")
            return
        report = db.migrate(conninfo)
    except (db.MigrationError, psycopg.OperationalError) as error:
        typer.echo(f"alphaplus migrate: {error}", err=True)
        raise typer.Exit(1) from None
    if report.created_database:
        typer.echo("database created")
    typer.echo(f"migrations applied: {', '.join(report.migrations) or 'none pending'}")
    typer.echo(f"sql/ applied; changed since last time: {len(report.changed_files)} files")


if __name__ == "__main__":
    app()
