"""The commands of the door: ``alphaplus load``, ``inspect`` and ``instruments``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Exchange = Annotated[str | None, typer.Option(help="the venue, where the file does not say it")]
Symbol = Annotated[str | None, typer.Option(help="its symbol, where the file does not say it")]
Kind = Annotated[
    str | None, typer.Option("--kind", help="spot, perpetual, future, option, stock or fx")
]
ContractSize = Annotated[
    float | None,
    typer.Option(help="one contract: base units if linear, quote units if inverse"),
]
Margin = Annotated[str | None, typer.Option(help="linear, inverse or quanto")]
Quote = Annotated[str | None, typer.Option(help="the currency of prices")]
Timeframe = Annotated[str | None, typer.Option(help="bar length: 1m, 1h, 1d, 1M, or seconds")]
Unit = Annotated[str | None, typer.Option(help="what sizes count: base, quote or contracts")]
Tz = Annotated[str | None, typer.Option(help="zone of times without one: UTC, Europe/Berlin …")]
DateFormat = Annotated[
    str | None, typer.Option(help="form of times as strptime writes it: '%m/%d/%Y %H:%M'")
]
ColumnMap = Annotated[
    str | None, typer.Option("--columns", help="our names and the file's: ts=Date,open=O,volume=#6")
]
Series = Annotated[
    str | None, typer.Option(help="traded, or the venue's mark, index or premium prices")
]
NegativePrices = Annotated[
    bool | None,
    typer.Option("--negative-prices/--no-negative-prices", help="prices may be negative"),
]
Since = Annotated[
    str | None, typer.Option(help="first plausible day (default: setting market.plausible_from)")
]


def _options(**given: Any) -> Any:
    """The loader's options from the command line's.

    Raises:
        typer.Exit: a value that cannot be.
    """
    import datetime as dt

    from alphaplus.loaders.description import BadDescription, columns_of, length_of
    from alphaplus.loaders.load import Options

    try:
        if given.get("timeframe") is not None:
            given["timeframe"] = length_of(given["timeframe"])
        if given.get("columns") is not None:
            given["columns"] = tuple(columns_of(given["columns"]).items())
        if given.get("since") is not None:
            try:
                day = dt.datetime.fromisoformat(given["since"])
            except ValueError:
                raise BadDescription(f"--since {given['since']!r}: a day, as 1990-01-01") from None
            given["since"] = (day if day.tzinfo else day.replace(tzinfo=dt.UTC)).timestamp() * 1e6
    except BadDescription as error:
        typer.echo(f"alphaplus: {error}", err=True)
        raise typer.Exit(2) from None
    return Options(**given)


def _kind_and_files(what: list[str]) -> tuple[str, list[Path]]:
    """What ``load`` is given: files, and before them what they are.

    A first word that is the name of something on disk and no kind is a file.
    """
    from alphaplus.loaders.load import KINDS

    first, rest = what[0], what[1:]
    if first in (*KINDS, "texts") and rest:
        return first, [Path(one) for one in rest]
    if Path(first).exists() or first.startswith((".", "/", "~")) or "." in first:
        return "auto", [Path(one) for one in what]
    if rest:
        return first, [Path(one) for one in rest]  # no kind: the loader lists those there are
    typer.echo(f"alphaplus load: no such file: {first}", err=True)
    raise typer.Exit(1)


def load(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="[KIND] FILES...",
            help="KIND: auto (default), candles, trades, order_book, book_feed, liquidations,"
            " funding, open_interest, texts. FILES: CSV, JSON, Parquet, feather, recorded streams;"
            " packed or in archives; or folders of them",
        ),
    ],
    exchange: Exchange = None,
    symbol: Symbol = None,
    instrument_kind: Kind = None,
    contract_size: ContractSize = None,
    margin: Margin = None,
    quote: Quote = None,
    timeframe: Timeframe = None,
    unit: Unit = None,
    tz: Tz = None,
    date_format: DateFormat = None,
    columns: ColumnMap = None,
    series: Series = None,
    negative_prices: NegativePrices = None,
    since: Since = None,
    live: Annotated[
        bool,
        typer.Option("--live/--history", help="known on arrival, or when it happened plus --lag"),
    ] = False,
    lag: Annotated[
        float,
        typer.Option(
            min=0, help="seconds after its time (a bar: its close) at which history was known"
        ),
    ] = 0.0,
    correct: Annotated[
        bool, typer.Option(help="a row with other content replaces the old one, known from now")
    ] = False,
    max_bad: Annotated[
        int | None, typer.Option(min=0, help="most refused rows of a file; more: exit status 3")
    ] = None,
    levels: Annotated[int, typer.Option(min=1, help="book levels a side kept of feeds")] = 20,
    every: Annotated[
        float, typer.Option(min=0.05, help="seconds between snapshots made of feeds")
    ] = 1.0,
    again: Annotated[bool, typer.Option(help="read a file that was loaded before")] = False,
    source: Annotated[
        str | None,
        typer.Option(
            help="of texts, where they do not say: twitter, reddit, news, telegram, other"
        ),
    ] = None,
    refresh: Annotated[bool, typer.Option(help="refresh the aggregates at the end")] = True,
) -> None:
    """Load market files: identified or refused, streamed, checked, idempotent, resumable."""
    from alphaplus.cli import load as runner
    from alphaplus.cli.connect import role_conninfo

    kind, files = _kind_and_files(what)
    if kind == "texts":
        from alphaplus.cli import texts

        raise typer.Exit(
            texts.run(
                role_conninfo("alphaplus_loader"), files, source=source, tz=tz,
                symbols=(symbol,) if symbol else (), live=live, lag=lag, max_bad=max_bad,
                again=again,
            )
        )  # fmt: skip
    options = _options(
        kind=kind, exchange=exchange, symbol=symbol, instrument_kind=instrument_kind,
        contract_size=contract_size, margin=margin, quote=quote, timeframe=timeframe, unit=unit,
        tz=tz, date_format=date_format, columns=columns, series=series,
        negative_prices=negative_prices, since=since, live=live, lag=lag, correct=correct,
        max_bad=max_bad, levels=levels, every=every, again=again,
    )  # fmt: skip
    conninfo = role_conninfo("alphaplus_loader")
    raise typer.Exit(runner.run(conninfo, files, options, refresh=refresh))


def inspect(
    files: Annotated[list[Path], typer.Argument(help="as for load; folders too")],
    dataset: Annotated[str, typer.Option(help="auto, or the kind that load takes")] = "auto",
    exchange: Exchange = None,
    symbol: Symbol = None,
    instrument_kind: Kind = None,
    contract_size: ContractSize = None,
    margin: Margin = None,
    quote: Quote = None,
    timeframe: Timeframe = None,
    unit: Unit = None,
    tz: Tz = None,
    date_format: DateFormat = None,
    columns: ColumnMap = None,
    series: Series = None,
    negative_prices: NegativePrices = None,
    since: Since = None,
) -> None:
    """Say what files would be taken for, and store nothing: symbols, units, spans, gaps, rows."""
    from alphaplus.cli import load as runner
    from alphaplus.cli.connect import role_conninfo

    options = _options(
        kind=dataset, exchange=exchange, symbol=symbol, instrument_kind=instrument_kind,
        contract_size=contract_size, margin=margin, quote=quote, timeframe=timeframe, unit=unit,
        tz=tz, date_format=date_format, columns=columns, series=series,
        negative_prices=negative_prices, since=since,
    )  # fmt: skip
    conninfo = role_conninfo("alphaplus_loader")
    raise typer.Exit(runner.run(conninfo, files, options, dry=True, command="inspect"))


instruments = typer.Typer(
    no_args_is_help=True, help="Instruments and their contracts: list, set, import."
)


@instruments.command("list")
def list_instruments(
    like: Annotated[str, typer.Argument(help="part of a symbol, base or venue")] = "",
    rules: Annotated[bool, typer.Option(help="the venues' contract rules instead")] = False,
) -> None:
    """Instruments that are registered, or the rules by which new ones are understood."""
    import psycopg
    from alphaplus.cli.connect import role_conninfo
    from rich.console import Console
    from rich.table import Table

    query = (
        "select exchange, pattern, kind, margin, contract_size, size_unit, settlement, source_date,"
        " source from market.contract_rules where exchange || pattern ilike %s order by 1, 2"
        if rules
        else "select symbol, exchange, native_symbol, kind, series, base, quote, settlement,"
        " margin, contract_size, size_unit, expiry from market.instruments"
        " where symbol || base || exchange ilike %s order by 1"
    )
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    with psycopg.connect(role_conninfo("alphaplus_loader")) as conn:
        cursor = conn.execute(query, (f"%{like}%",))
        table = Table(*[column.name for column in cursor.description or ()])
        for row in cursor:
            table.add_row(*("" if cell is None else str(cell) for cell in row))
    console.print(table)


@instruments.command("set")
def set_instrument(
    symbol: Annotated[str, typer.Argument(help="a symbol or alias, or the venue's symbol")],
    exchange: Annotated[str | None, typer.Option(help="the venue, of a new instrument")] = None,
    kind: Kind = None,
    base: Annotated[str | None, typer.Option(help="the asset that sizes count")] = None,
    quote: Quote = None,
    settlement: Annotated[str | None, typer.Option(help="what profit is paid in")] = None,
    margin: Margin = None,
    contract_size: ContractSize = None,
    unit: Annotated[
        str | None, typer.Option(help="what the venue's sizes count: base, quote, contracts")
    ] = None,
    expiry: Annotated[str | None, typer.Option(help="when a dated contract expires")] = None,
    negative_prices: NegativePrices = None,
    source: Annotated[str | None, typer.Option(help="where the contract's terms are from")] = None,
) -> None:
    """Add an instrument or correct one; says what to reload where sizes were converted before."""
    import psycopg
    from alphaplus.cli.connect import role_conninfo
    from alphaplus.loaders.instruments import BadName, Register, checked_name

    given = {
        "kind": kind, "base": base, "quote": quote, "settlement": settlement, "margin": margin,
        "contract_size": contract_size, "size_unit": unit, "expiry": expiry,
        "negative_prices": negative_prices, "source": source,
    }  # fmt: skip
    values = {name: value for name, value in given.items() if value is not None}
    try:
        with psycopg.connect(role_conninfo("alphaplus_loader"), autocommit=True) as conn:
            if exchange is not None:
                register = Register(conn)
                made = register.catalog.instrument(exchange, checked_name(symbol), kind)
                name = register.symbol(made)
            else:
                name = symbol
            row = conn.execute(
                "select instrument, reload from market.set_instrument(%s, %s)",
                (name, json.dumps(values)),
            ).fetchone()
    except (psycopg.Error, BadName) as error:
        diagnosis = getattr(error, "diag", None)
        words = diagnosis.message_primary if diagnosis else str(error)
        hint = f" ({diagnosis.message_hint})" if diagnosis and diagnosis.message_hint else ""
        typer.echo(f"alphaplus instruments: {words}{hint}", err=True)
        raise typer.Exit(1) from None
    assert row is not None
    typer.echo(f"{row[0]} is set")
    for file in row[1] or ():
        typer.echo(f"sizes of {row[0]} in {file} were converted as before: reload it with"
                   f" alphaplus load auto --again --correct {file}")  # fmt: skip


@instruments.command("import")
def import_instruments(
    exchange: Annotated[str, typer.Argument(help="the venue, as ccxt names it (okx, gate, …)")],
    file: Annotated[Path, typer.Argument(help="the venue's answer to its markets request, JSON")],
    source: Annotated[str, typer.Option(help="where the file is from")] = "",
) -> None:
    """Contracts from a venue's own list of markets, read by ccxt without a connection."""
    import psycopg
    from alphaplus.cli.connect import role_conninfo
    from alphaplus.loaders import markets

    try:
        found = markets.read(exchange, file)
    except ValueError as error:
        typer.echo(f"alphaplus instruments: {error}", err=True)
        raise typer.Exit(1) from None
    with psycopg.connect(role_conninfo("alphaplus_loader"), autocommit=True) as conn:
        count = markets.store(conn, exchange, found, source or str(file))
    typer.echo(f"{count} contracts of {exchange} are known by {source or file}")


def register(app: typer.Typer) -> None:
    """The commands, in the program."""
    app.command()(load)
    app.command()(inspect)
    app.add_typer(instruments, name="instruments")
