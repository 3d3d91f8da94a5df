"""Data out of the database: ``alphaplus dataset``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Symbol = Annotated[str | None, typer.Option(help="default: all symbols, pooled")]
AsOf = Annotated[str | None, typer.Option("--as-of", help="rows as known by then; default: now")]
Since = Annotated[str | None, typer.Option("--from", help="first grid time; default: all there is")]
Until = Annotated[str | None, typer.Option("--to", help="end of the grid times, exclusive")]


def failed(command: str, error: Exception) -> typer.Exit:
    """Says what went wrong, with the server's hint; the exit to raise."""
    diagnosis = getattr(error, "diag", None)
    words = diagnosis.message_primary if diagnosis and diagnosis.message_primary else str(error)
    code = f"{diagnosis.sqlstate}: " if diagnosis and diagnosis.sqlstate else ""
    hint = f" ({diagnosis.message_hint})" if diagnosis and diagnosis.message_hint else ""
    typer.echo(f"alphaplus {command}: {code}{words.strip()}{hint}", err=True)
    return typer.Exit(1)


def dataset(
    model: Annotated[str, typer.Argument(help="a model, as in ml.models")],
    out: Annotated[Path, typer.Option(help="a file ending in .parquet, .feather, .arrow or .csv")],
    symbol: Symbol = None,
    as_of: AsOf = None,
    since: Since = None,
    until: Until = None,
    folds: Annotated[
        int, typer.Option(min=0, help="walk-forward folds, as a column of the rows they test")
    ] = 0,
    regime: Annotated[str | None, typer.Option(help="only rows of this regime")] = None,
) -> None:
    """Write a model's training set to a file, with named columns. Connects as the reader."""
    import psycopg
    from alphaplus.cli.connect import role_conninfo
    from alphaplus.client import connect, write

    try:
        with connect(role_conninfo("alphaplus_reader")) as client:
            rows = write(
                client, out, model, symbol, as_of, since, until, folds=folds, regime=regime
            )
    except (psycopg.Error, ValueError, LookupError, OSError) as error:
        raise failed("dataset", error) from None
    size = out.stat().st_size
    typer.echo(f"{out}: {rows:,} rows, {size / 1e6:,.1f} MB")


def register(app: typer.Typer) -> None:
    """The commands, in the program."""
    app.command()(dataset)
