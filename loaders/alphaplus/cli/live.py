"""``alphaplus stream``, ``replay``, ``alerts`` and ``events``: from a socket to an alert.

Exit status of stream: 0 stopped · 1 it failed · 2 wrong use · 3 another process reads the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

FAILED, USAGE, RUNNING = 1, 2, 3
# alphaplus.loaders.streams.markets has them; the command line imports it only to run one.
MARKETS = (
    "binance", "binance-usdm", "binance-coinm", "bybit", "bybit-inverse", "bybit-spot", "okx",
    "kraken", "coinbase", "deribit", "bitmex", "simulator",
)  # fmt: skip


def spool_folder(name: str) -> Path:
    """Where what is not stored yet is kept: ALPHAPLUS_SPOOL, else the user's state folder."""
    base = os.environ.get("ALPHAPLUS_SPOOL")
    if base:
        return Path(base) / name
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "alphaplus" / "spool" / name


def register(app: typer.Typer) -> None:
    """The commands."""
    group = typer.Typer(no_args_is_help=True, help="Follow a source, and store what it says.")
    for market in MARKETS:
        group.command(market)(stream)
    app.add_typer(group, name="stream")
    app.command()(replay)
    app.command()(alerts)
    app.command()(events)
    app.command()(live)


def stream(
    context: typer.Context,
    symbols: Annotated[
        list[str] | None, typer.Argument(help="as the exchange writes them: BTCUSDT")
    ] = None,
    channels: Annotated[
        str, typer.Option(help="some of trades,book,liquidations,funding,open_interest,candles")
    ] = "trades,book",
    name: Annotated[
        str | None, typer.Option(help="name in market.streams (one process each)")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="keep the raw frames in this file, too (.gz: packed)")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="websocket in place of the exchange's (alphaplus replay)")
    ] = None,
    rest: Annotated[str | None, typer.Option(help="REST in place of the exchange's")] = None,
    recorded_times: Annotated[
        bool, typer.Option(help="take a replay's receive times, not those of now")
    ] = False,
    repair: Annotated[bool, typer.Option(help="fetch by REST what was missed")] = True,
    rows: Annotated[int, typer.Option(min=1, help="messages after which a batch is stored")] = 5000,
    linger: Annotated[
        float, typer.Option(min=0.001, help="seconds after which a batch is stored")
    ] = 0.1,
    levels: Annotated[int, typer.Option(min=1, max=1000, help="of a book, a side")] = 20,
    every: Annotated[float, typer.Option(min=0.001, help="seconds between two books")] = 1.0,
    silence: Annotated[
        float | None, typer.Option(min=0.1, help="seconds without a message before reconnecting")
    ] = None,
    spool: Annotated[
        Path | None, typer.Option(help="folder for what is not stored yet (or ALPHAPLUS_SPOOL)")
    ] = None,
    spool_mb: Annotated[int, typer.Option(min=1, help="most MB of it")] = 1024,
    fsync: Annotated[
        bool, typer.Option(help="acknowledge what survives a power cut, not only a kill")
    ] = False,
    speed: Annotated[float, typer.Option(min=0.01, help="of the simulator's clock")] = 1.0,
    seed: Annotated[int, typer.Option(help="of the simulator")] = 7,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="stop after so long")] = None,
) -> None:
    """Read an exchange's streams into the database, until it is stopped."""
    from alphaplus.cli.connect import role_conninfo
    from alphaplus.loaders.streams import markets
    from alphaplus.loaders.streams.stream import AlreadyRunning, Options, Stream

    exchange = str(context.info_name)
    from alphaplus.loaders.streams.venue import BadSubscription

    def say(words: str) -> None:
        typer.echo(f"{name or exchange}: {words}", err=True)

    if exchange == "simulator" and not symbols:
        symbols = ["BTCUSDT", "ETHUSDT"]
    try:
        venue = markets.market(exchange)
        made = Stream(
            venue,
            tuple(symbols or ()),
            tuple(dict.fromkeys(c.strip() for c in channels.split(",") if c.strip())),
            role_conninfo("alphaplus_loader"),
            spool or spool_folder(name or venue.name),
            Options(
                rows=rows,
                linger=linger,
                levels=levels,
                every=every,
                base=url,
                rest=rest,
                repair=repair,
                record=record,
                recorded=recorded_times,
                silence=silence,
                spool_limit=spool_mb << 20,
                sync=fsync,
            ),
            name=name,
            say=say,
        )
    except BadSubscription as error:
        say(str(error))
        raise typer.Exit(USAGE) from None
    try:
        own = (seed, speed) if exchange == "simulator" and url is None else None
        asyncio.run(_until_stopped(made, seconds, own))
    except AlreadyRunning as error:
        say(str(error))
        raise typer.Exit(RUNNING) from None
    typer.echo(f"{made.name}: {made.stored:,} rows stored in {made.batches:,} batches")


async def _until_stopped(
    made: Any, seconds: float | None, simulated: tuple[int, float] | None
) -> None:
    """Run; SIGTERM and SIGINT end it after what came in is stored."""
    from dataclasses import replace

    from alphaplus.loaders.streams.simulated import SimulatedExchange

    async with contextlib.AsyncExitStack() as stack:
        if simulated is not None:
            server = await stack.enter_async_context(SimulatedExchange(made.symbols, *simulated))
            made.options = replace(made.options, base=server.url, repair=False)
        task = asyncio.create_task(made.run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        if seconds is not None:
            loop.call_later(seconds, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task


def replay(
    recording: Annotated[Path, typer.Argument(help="of alphaplus stream --record, or as such")],
    speed: Annotated[
        float, typer.Option(min=0, help="1: as recorded; 60: an hour a minute; 0: at once")
    ] = 1.0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 0,
) -> None:
    """Serve recorded frames by websocket on loopback, to each who connects, until it is stopped."""
    from alphaplus.loaders.streams.recording import Replay

    if not recording.is_file():
        typer.echo(f"alphaplus replay: no such file: {recording}", err=True)
        raise typer.Exit(USAGE)

    async def serve() -> None:
        async with Replay(recording, speed, port=port) as server:
            typer.echo(server.url)
            done = asyncio.Event()
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, done.set)
            await done.wait()

    asyncio.run(serve())


def alerts(
    webhook: Annotated[
        list[str] | None, typer.Option(help="POST to this address; may be given several times")
    ] = None,
    email: Annotated[list[str] | None, typer.Option(help="mail to this address")] = None,
    smtp: Annotated[str, typer.Option(help="mail server, host:port")] = "localhost:25",
    sender: Annotated[str, typer.Option(help="from this address")] = "alphaplus@localhost",
    starttls: Annotated[bool, typer.Option(help="mail by TLS")] = False,
    consumer: Annotated[str, typer.Option(help="each consumer gets every alert")] = "alphaplus",
    channel: Annotated[
        str | None, typer.Option(help="also alerts of rules that name this channel")
    ] = None,
    kinds: Annotated[str | None, typer.Option(help="only these kinds: gap,whale,…")] = None,
    min_severity: Annotated[str, typer.Option(help="info, low, medium, high or critical")] = "info",
    every: Annotated[float, typer.Option(min=0.05, help="seconds between two looks")] = 5.0,
    lease: Annotated[
        float, typer.Option(min=0.1, help="seconds after which what failed is tried again")
    ] = 60.0,
    check: Annotated[bool, typer.Option(help="check the rules and predict at closes, too")] = True,
    once: Annotated[bool, typer.Option(help="deliver what waits, and end")] = False,
) -> None:
    """Deliver alerts by webhook and mail, at least once each, until it is stopped.

    Secrets come from the environment: ALPHAPLUS_WEBHOOK_TOKEN, ALPHAPLUS_SMTP_USER and
    ALPHAPLUS_SMTP_PASSWORD.
    """
    import psycopg
    from alphaplus.cli.connect import role_conninfo
    from alphaplus.loaders.dispatch import Dispatcher, Mail, Receiver, Webhook

    host, _, port = smtp.rpartition(":")
    receivers: list[Receiver] = [
        Webhook(url, os.environ.get("ALPHAPLUS_WEBHOOK_TOKEN")) for url in webhook or ()
    ]
    if email:
        if not host or not port.isdigit():
            typer.echo(f"alphaplus alerts: --smtp {smtp!r} is not host:port", err=True)
            raise typer.Exit(USAGE)
        receivers.append(
            Mail(host, int(port), tuple(email), sender, os.environ.get("ALPHAPLUS_SMTP_USER"),
                 os.environ.get("ALPHAPLUS_SMTP_PASSWORD"), starttls)
        )  # fmt: skip
    if not receivers:
        typer.echo("alphaplus alerts: say where to: --webhook URL or --email ADDRESS", err=True)
        raise typer.Exit(USAGE)
    conninfo = role_conninfo("alphaplus_operator")
    only = [k.strip() for k in kinds.split(",") if k.strip()] if kinds else None
    try:
        with psycopg.connect(conninfo, autocommit=True) as conn:
            conn.execute(
                "select ops.add_alert_consumer(%s, %s, %s)", (consumer, only, min_severity)
            )
    except psycopg.Error as error:
        typer.echo(f"alphaplus alerts: {str(error).splitlines()[0]}", err=True)
        raise typer.Exit(FAILED) from None
    made = Dispatcher(
        conninfo, consumer, receivers, channel, lease, every, check=check,
        say=lambda words: typer.echo(f"alphaplus alerts: {words}", err=True),
    )  # fmt: skip

    def stop(number: int, frame: Any) -> None:
        made.stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    made.run(once)
    typer.echo(f"{made.delivered} alerts delivered")


def events(
    file: Annotated[Path, typer.Argument(help="CSV or JSON: kind, ts, known_at, symbol, …")],
    source: Annotated[
        str | None, typer.Option(help="who says so (default: the file's name)")
    ] = None,
    known_at: Annotated[
        str | None, typer.Option(help="since when those are known that do not say so; default now")
    ] = None,
) -> None:
    """Load a calendar of events: token unlocks, listings, macro releases, maintenance."""
    import datetime as dt

    import psycopg
    from alphaplus.cli.connect import role_conninfo
    from alphaplus.loaders import calendar

    try:
        at = dt.datetime.fromisoformat(known_at.replace("Z", "+00:00")) if known_at else None
        at = at.replace(tzinfo=dt.UTC) if at is not None and at.tzinfo is None else at
        with psycopg.connect(role_conninfo("alphaplus_loader"), autocommit=True) as conn:
            report = calendar.load(conn, file, source or file.stem, at)
    except (OSError, ValueError) as error:
        typer.echo(f"alphaplus events: {error}", err=True)
        raise typer.Exit(FAILED) from None
    for line, why in report.refused:
        typer.echo(f"alphaplus events: {file.name} line {line}: {why}", err=True)
    typer.echo(
        f"{file.name}: {report.loaded} loaded, {report.there} already there,"
        f" {len(report.refused)} refused"
    )
    if report.refused:
        raise typer.Exit(RUNNING)


def live(
    seconds: Annotated[float, typer.Option(min=5, help="how long the feed runs")] = 90.0,
    days: Annotated[float, typer.Option(min=0.5, help="of history before it")] = 3.0,
    speed: Annotated[float, typer.Option(min=0.1, help="of the simulated feed")] = 10.0,
    train: Annotated[bool, typer.Option(help="train a model first (minutes)")] = True,
) -> None:
    """A simulated exchange, a stream, a trainer and the clock; ends with what is known now."""
    from alphaplus.cli import live_demo

    live_demo.run(seconds, days, speed, train)
