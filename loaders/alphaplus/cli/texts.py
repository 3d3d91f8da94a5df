"""``alphaplus load texts`` and ``stream rss``: texts into the database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def run(conninfo: str, files: list[Path], **given: Any) -> int:
    """Load files of texts; the exit status is that of :mod:`alphaplus.cli.load`."""
    import psycopg
    from alphaplus.cli import load as runner
    from alphaplus.loaders.load import FAULTS, TooManyBad
    from alphaplus.loaders.stamps import BadZone
    from alphaplus.loaders.texts import Bad, TextLoader, TextOptions
    from rich.console import Console

    console = Console(stderr=True)

    def complain(words: str) -> None:
        shown = "".join(c if c.isprintable() else "·" for c in words)
        console.print(f"alphaplus load: {shown}", markup=False, soft_wrap=True)

    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        complain(f"no such file: {', '.join(missing)}")
        return runner.FAILED
    status = 0
    reports = []
    with psycopg.connect(conninfo, autocommit=True) as conn:
        for path in files:
            loader: TextLoader | None = None
            try:
                loader = TextLoader(conn, TextOptions(**given))
                reports.append(loader.load(path))
            except TooManyBad as error:
                complain(str(error))
                reports += loader.begun if loader else []
                status = status or runner.TOO_MANY_BAD
            except (BadZone, Bad) as error:
                complain(f"{error} {getattr(error, 'detail', '')}".strip())
                return runner.USAGE
            except FAULTS as error:
                complain(f"{path.name}: {error}")
                reports += [report for report in loader.begun if report.read] if loader else []
                status = runner.FAILED
    console.print(runner.summary(reports))
    return status


def rss(
    urls: Annotated[list[str], typer.Argument(help="RSS or Atom feeds")],
    source: Annotated[str, typer.Option(help="twitter, reddit, news, telegram, other")] = "news",
    every: Annotated[float, typer.Option(min=1, help="seconds between looks")] = 60.0,
    rounds: Annotated[int | None, typer.Option(min=1, help="stop after so many looks")] = None,
    symbol: Annotated[str | None, typer.Option(help="asset that all of it is about")] = None,
) -> None:
    """Texts of feeds, known from when they are first seen; runs until stopped."""
    import psycopg
    from alphaplus.cli import load as runner
    from alphaplus.cli.connect import role_conninfo
    from alphaplus.loaders.formats import UnknownFormat
    from alphaplus.loaders.texts import Bad, TextOptions, poll
    from rich.console import Console

    console = Console(stderr=True)
    options = TextOptions(source=source, symbols=(symbol,) if symbol else ())
    with psycopg.connect(role_conninfo("alphaplus_loader"), autocommit=True) as conn:
        try:
            reports = poll(
                conn, urls, options, every=every, rounds=rounds,
                say=lambda words: console.print(words, markup=False),
            )  # fmt: skip
        except (UnknownFormat, Bad) as error:
            console.print(f"alphaplus stream: {error}", markup=False)
            raise typer.Exit(runner.FAILED) from None
        except KeyboardInterrupt:
            return
    console.print(runner.summary(reports))


def register(app: typer.Typer) -> None:
    """The commands, in the program."""
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    stream = groups.get("stream")
    if stream is None:
        stream = typer.Typer(no_args_is_help=True, help="Follow a source, and store what it says.")
        app.add_typer(stream, name="stream")
    stream.command()(rss)
