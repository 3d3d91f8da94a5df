"""``alphaplus model …``: versions taken out of the database."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Versions of models as files.")


@app.callback()
def _model() -> None:
    """Versions of models as files."""


@app.command()
def export(
    version: Annotated[int, typer.Argument(help="version_id, as in ml.registry")],
    out: Annotated[Path, typer.Option(help="folder; default: version-<number>")] = Path(),
) -> None:
    """Write a version's artifact and all that is needed to use it: about.json with its spec,
    features and a probe. Connects as the operator.
    """
    import psycopg
    from alphaplus.cli.connect import role_conninfo

    folder = out if out != Path() else Path(f"version-{version}")
    try:
        with psycopg.connect(role_conninfo("alphaplus_operator")) as conn:
            row = conn.execute(
                "select artifact, format, sha256, about from ml.export_version(%s)", (version,)
            ).fetchone()
    except psycopg.Error as error:
        typer.echo(f"alphaplus model: {str(error).splitlines()[0]}", err=True)
        raise typer.Exit(1) from None
    assert row is not None
    for path in write(folder, *row):
        typer.echo(path)


def write(
    folder: Path, artifact: bytes, format: str, sha256: bytes, about: dict[str, Any]
) -> list[Path]:
    """The files of a version.

    Raises:
        ValueError: the artifact is not the one that was registered.
    """
    if hashlib.sha256(artifact).digest() != sha256:
        raise ValueError("the artifact does not have the SHA-256 it was registered with")
    folder.mkdir(parents=True, exist_ok=True)
    name = "model.txt" if format == "lightgbm" else "model.onnx"
    (folder / name).write_bytes(artifact)
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n")
    return [folder / name, folder / "about.json"]
