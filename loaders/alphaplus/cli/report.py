"""``alphaplus report``: a model's card as one page that needs no network."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="report")(write)


def write(
    model: Annotated[str, typer.Option(help="the model's name")],
    out: Annotated[Path, typer.Option(help="the file to write, HTML")],
    symbol: Annotated[str | None, typer.Option(help="of which line; default: what serves")] = None,
    as_of: Annotated[str | None, typer.Option(help="what was known then, ISO 8601")] = None,
) -> None:
    """A model's card: data, folds, measures, calibration, importance, SHAP, drift, decisions."""
    import psycopg
    from alphaplus import report
    from alphaplus.cli.connect import role_conninfo

    at = None
    if as_of:
        try:
            at = dt.datetime.fromisoformat(as_of)
        except ValueError:
            typer.echo(f"alphaplus report: {as_of!r} is no time; write 2026-03-02T12:00Z", err=True)
            raise typer.Exit(2) from None
        at = at if at.tzinfo else at.replace(tzinfo=dt.UTC)
    try:
        with psycopg.connect(role_conninfo("alphaplus_reader"), autocommit=True) as conn:
            text = report.page(report.card(conn, model, symbol, at))
        out.write_text(text)
    except (psycopg.Error, report.NothingToReportError, OSError) as error:
        typer.echo(f"alphaplus report: {str(error).splitlines()[0]}", err=True)
        if isinstance(error, psycopg.Error) and error.diag.message_hint:
            typer.echo(f"   {error.diag.message_hint}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{out}: {len(text) // 1024} KiB, open it in a browser")
