"""``alphaplus dashboards publish | grafana``: dashboards from one list of tiles."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="Dashboards made from one list: docker/dashboards/tiles.toml."
)


@app.command()
def publish() -> None:
    """Import the dashboards into the Superset of `make dashboards`, and say where they are."""
    import psycopg
    from alphaplus.cli.connect import role_conninfo
    from alphaplus.screens import superset, tiles

    home = Path(os.environ.get("ALPHAPLUS_STATE", ".server")) / "superset"
    try:
        port = (home / "port").read_text().strip()
        password = (home / "admin_password").read_text().strip()
    except OSError:
        typer.echo("alphaplus dashboards: Superset does not run here; start it: make dashboards")
        raise typer.Exit(1) from None
    address = f"http://127.0.0.1:{port}"
    try:
        titles = superset.update(address, password, role_conninfo("alphaplus_reader"))
        with psycopg.connect(role_conninfo("alphaplus_operator")) as conn:
            tiles.register(conn, tiles.load())
    except (OSError, superset.SupersetError, psycopg.Error) as error:
        typer.echo(f"alphaplus dashboards: the import failed: {error}", err=True)
        raise typer.Exit(1) from None
    for slug, title in titles.items():
        typer.echo(f"dashboards: {title:16} {address}/superset/dashboard/{slug}/")
    typer.echo(f"dashboards: user admin, password in {home / 'admin_password'}; make down stops it")


@app.command()
def grafana(
    check: Annotated[
        bool, typer.Option("--check", help="write nothing; exit 1 if a file is stale")
    ] = False,
) -> None:
    """Write docker/dashboards/grafana/*.json, to be imported into a Grafana of yours."""
    from alphaplus.screens import grafana as made

    stale = made.write(check)
    for path in stale:
        typer.echo(
            f"{path}: {'is stale: run alphaplus dashboards grafana' if check else 'written'}"
        )
    if check and stale:
        raise typer.Exit(1)
