"""Text, Parquet, Arrow and JSON as blocks of rows: how cells and numbers are written."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from alphaplus.loaders.files import BeyondLimit, DamagedFile, Limits
from alphaplus.loaders.formats import ID_COLUMNS, UnknownFormat

ROWS = 50_000
DELIMITERS = (",", ";", "\t", "|")


@dataclass
class Block:
    """Some rows of a file: a frame, their line numbers (from 1), their text for the quarantine."""

    frame: pd.DataFrame
    lines: npt.NDArray[np.int64]
    raw: Callable[[int], str]
    broken: list[tuple[int, str, str]] = field(default_factory=list)  # line, text, reason
    last_line: int = 0


@dataclass(frozen=True)
class Dialect:
    """How a text file writes its rows.

    numbers: plain, thousands (1,234.5) or decimal (1.234,5).
    """

    delimiter: str = ","
    numbers: str = "plain"
    trailing: bool = False  # an empty cell ends every row but the header


@dataclass(frozen=True)
class Head:
    """The first row of a text file: at which line it stands, its cells, and the dialect."""

    index: int
    cells: list[str]
    dialect: Dialect


def decoded(line: bytes) -> str:
    """A line as text, without a byte order mark and the rest of a line end."""
    return line.decode("utf-8-sig", "replace").rstrip("\r")


def split(line: bytes, delimiter: str) -> list[str]:
    """The cells of a line."""
    try:
        return next(csv.reader([decoded(line)], delimiter=delimiter), [])
    except csv.Error:
        return []


def check_text(lines: list[bytes], shown: str) -> None:
    """Raises UnknownFormat for what is no text in UTF-8 or ASCII."""
    head = b"\n".join(lines[:50])[:65_536]
    wide = max(head[:64:2].count(0), head[1:64:2].count(0))
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or wide > 20:
        raise UnknownFormat(f"{shown} is UTF-16 text: convert it to UTF-8")
    strange = sum(1 for c in head if c < 9 or (13 < c < 32 and c != 27))
    if head and (strange > len(head) // 20 or (b"\0" in head[:1024] and strange > 8)):
        raise UnknownFormat(
            f"{shown} is binary data of no layout known here; first row is: no text"
        )


def sniff(lines: list[bytes]) -> Head | None:
    """The first row and how rows are written; None where there is no row."""
    filled = [i for i, line in enumerate(lines) if line.strip()][:40]
    while filled and (
        (head := decoded(lines[filled[0]]).strip()).startswith("#")
        and len(re.split(r"[,;\t|]", head)) < 3
    ):
        filled.pop(0)
    if not filled:
        return None

    def widths(delimiter: str) -> list[int]:
        return [len(split(lines[i], delimiter)) for i in filled[:8]]

    def fit(delimiter: str) -> tuple[int, int]:
        found = widths(delimiter)
        last = found[-1]
        return (sum(1 for n in found if n == last and n > 1), last)

    delimiter = max(DELIMITERS, key=fit)
    if fit(delimiter)[0] == 0:
        delimiter = ","
    width = widths(delimiter)
    # A line before the header (an address, a title) has fewer cells than all that follow.
    while len(width) > 2 and width[0] < 3 <= width[1] and width[0] < width[2]:
        filled.pop(0)
        width.pop(0)
    cells = [
        cell.split("/")[0].strip() if not cell.isascii() else cell.strip()  # OKX: name/名
        for cell in split(lines[filled[0]], delimiter)
    ]
    if cells[:1] == ["Price"] and len(filled) > 2:
        # yfinance: names of columns, then the ticker of each, then that of the index
        tickers, index = (split(lines[i], delimiter) for i in filled[1:3])
        if tickers[:1] == ["Ticker"] and index[:1] in (["Date"], ["Datetime"]):
            if len(set(tickers[1:])) > 1:
                raise UnknownFormat(
                    "several tickers side by side: give each ticker's columns as a file of its own"
                )
            filled = filled[2:]
            cells = [index[0], *cells[1:]]
    if cells and cells[0].startswith("#"):
        cells[0] = cells[0].lstrip("#").strip()
    below = [split(lines[i], delimiter) for i in filled[1:]]
    trailing = bool(below) and all(
        len(row) == len(cells) + 1 and not row[-1].strip() for row in below[:8]
    )
    return Head(filled[0], cells, Dialect(delimiter, _style(below), trailing))


_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+\.\d+|[+-]?\d{1,3}(?:,\d{3}){2,}")
_DECIMAL = re.compile(
    r"[+-]?\d{1,3}(?:\.\d{3})*,\d{1,2}|[+-]?\d+,(?:\d{1,2}|\d{4,})|[+-]?\d{1,3}(?:\.\d{3})+,\d+"
)


def _style(rows: list[list[str]]) -> str:
    """How cells with a comma write numbers, where that is plain; else plain (they are refused)."""
    cells = [cell.strip() for row in rows for cell in row if "," in cell]
    thousands = any(_THOUSANDS.fullmatch(cell) for cell in cells)
    decimal = any(_DECIMAL.fullmatch(cell) for cell in cells)
    if thousands and not decimal:
        return "thousands"
    return "decimal" if decimal and not thousands else "plain"


_WITH_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_WITH_DECIMAL = re.compile(r"[+-]?(?:\d{1,3}(?:\.\d{3})+|\d+)(?:,\d+)?")


def _number(cell: str, style: str) -> str:
    if style == "thousands" and _WITH_THOUSANDS.fullmatch(cell):
        return cell.replace(",", "")
    if style == "decimal" and ("," in cell or "." in cell) and _WITH_DECIMAL.fullmatch(cell):
        return cell.replace(".", "").replace(",", ".")
    return cell


def parse_lines(
    lines: list[bytes], first: int, names: list[str], dialect: Dialect, limits: Limits
) -> Block:
    """Lines to a block. Lines with another number of fields are broken, not guessed at."""
    buffer = b"\n".join(lines)
    names = [*names, "_trailing"] if dialect.trailing else names
    mark = dialect.delimiter.encode()

    def parsed(kinds: Any) -> pd.DataFrame:
        return pd.read_csv(
            io.BytesIO(buffer),
            sep=dialect.delimiter,
            header=None,
            names=names,
            dtype=kinds,
            index_col=False,
            skip_blank_lines=False,
            low_memory=False,
            encoding_errors="replace",
            on_bad_lines="error",
        )

    plain = dialect.numbers == "plain" and b'"' not in buffer and b"\0" not in buffer
    if plain and buffer.count(mark) == (len(names) - 1) * len(lines):
        try:
            frame = parsed({})
            ids = {
                name: str for name in ID_COLUMNS if name in frame and frame[name].dtype.kind == "f"
            }
            if ids:
                frame = parsed(ids)
            if len(frame) == len(lines):
                return Block(
                    frame,
                    np.arange(first, first + len(lines), dtype=np.int64),
                    lambda i: lines[i].decode("utf-8", "replace").rstrip("\r"),
                )
        except (pd.errors.ParserError, ValueError):
            pass
    good, numbers, broken = [], [], []
    for i, line in enumerate(lines):
        words = line.decode("utf-8", "replace").rstrip("\r")
        if "\0" in words:
            broken.append((first + i, words, "NUL byte"))
            continue
        try:
            cells = next(csv.reader([words], delimiter=dialect.delimiter, strict=True), [])
        except csv.Error as error:
            broken.append((first + i, words[:1000], f"quotes: {error}"))
            continue
        if not cells:
            continue
        if len(cells) != len(names):
            broken.append((first + i, words[:1000], f"{len(cells)} fields, {len(names)} expected"))
            continue
        if len(words) > limits.cell and max(map(len, cells)) > limits.cell:
            broken.append(
                (first + i, words[:1000], f"a cell of more than {limits.cell} characters")
            )
            continue
        good.append([_number(cell.strip(), dialect.numbers) for cell in cells])
        numbers.append(i)
    frame = pd.DataFrame(good, columns=names, dtype=object).replace("", np.nan)
    where = np.array(numbers, dtype=np.int64)
    return Block(
        frame,
        where + first,
        lambda i: lines[where[i]].decode("utf-8", "replace").rstrip("\r"),
        broken,
    )


def _framed(frame: pd.DataFrame, first: int) -> Block:
    lines = np.arange(first, first + len(frame), dtype=np.int64)
    return Block(frame, lines, lambda i: str(frame.iloc[i].to_json(date_format="iso")))


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    """With a name for an index that was written without one, where it is of times."""
    for name in list(frame.columns):
        if str(name).startswith("__index_level_"):
            times = frame[name].dtype.kind == "M" or isinstance(
                frame[name].dtype, pd.DatetimeTZDtype
            )
            if times and "timestamp" not in frame:
                frame = frame.rename(columns={name: "timestamp"})
            else:
                frame = frame.drop(columns=name)
    return frame.rename(columns=str)


def columnar(path: Path, how: str) -> tuple[int, Iterator[pd.DataFrame]]:
    """Rows of a Parquet or Arrow (feather) file: how many, and frames of some of them.

    Raises:
        DamagedFile: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.ipc
    import pyarrow.parquet as pq

    try:
        if how == "parquet":
            file = pq.ParquetFile(path)
            total, batches = file.metadata.num_rows, file.iter_batches(ROWS)
        else:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            total = sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))
            batches = (
                reader.get_batch(i).slice(at, ROWS)
                for i in range(reader.num_record_batches)
                for at in range(0, max(reader.get_batch(i).num_rows, 1), ROWS)
            )
    except (pa.ArrowException, ValueError, OSError) as error:
        raise EOFError(str(error)) from None

    def frames() -> Iterator[pd.DataFrame]:
        try:
            for batch in batches:
                bare = pa.table(batch.columns, schema=batch.schema.remove_metadata())
                yield _named(bare.to_pandas())
        except (pa.ArrowException, OSError) as error:
            raise EOFError(str(error)) from None

    return total, frames()


_CANDLE_ARRAY = ("timestamp", "open", "high", "low", "close", "volume")
_KLINE_ARRAY = (  # Binance's REST answer
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
    "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip
_OKX_ARRAY = (
    "open_time", "open", "high", "low", "close", "vol", "vol_ccy", "vol_quote", "confirm",
)  # fmt: skip
_BYBIT_ARRAY = (*_CANDLE_ARRAY, "turnover")
_TRADE_ARRAY = ("timestamp", "id", "type", "side", "price", "amount", "cost")


def document(stream: IO[bytes], limits: Limits, shown: str) -> pd.DataFrame:
    """A JSON array as a frame: of records, or of freqtrade's and ccxt's rows.

    Raises:
        BeyondLimit: it is too long to be read whole.
        UnknownFormat: it is no such array.
    """
    import orjson

    data = stream.read(limits.document + 1)
    if len(data) > limits.document:
        raise BeyondLimit(
            f"{shown} is one JSON array of more than {limits.document:,} bytes: setting"
            " market.load_document allows more"
        )
    try:
        rows = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise DamagedFile(f"{shown} is damaged ({error}); no row of it is loaded") from None
    except RecursionError:
        raise UnknownFormat(f"{shown} is JSON nested too deeply") from None
    if not isinstance(rows, list) or not rows:
        raise UnknownFormat(f"{shown} is a JSON array without rows")
    if all(isinstance(row, dict) for row in rows):
        flat = [
            {key: value for key, value in row.items() if not isinstance(value, dict | list)}
            for row in rows
        ]
        return pd.DataFrame(flat)
    if all(isinstance(row, list) for row in rows):
        width = len(rows[0])
        names: tuple[str, ...] | None = {
            6: _CANDLE_ARRAY, 7: _TRADE_ARRAY, 9: _OKX_ARRAY, 12: _KLINE_ARRAY,
        }.get(width)  # fmt: skip
        if width == 7 and rows[0][3] not in ("buy", "sell"):
            texts = all(isinstance(cell, str) for cell in rows[0])
            names = _BYBIT_ARRAY if texts else None
        if names and all(len(row) == width for row in rows):
            return pd.DataFrame(rows, columns=list(names))
    raise UnknownFormat(
        f"{shown} is a JSON array of no layout known here; its first row is: {str(rows[0])[:200]}"
    )


def chunks(frame: pd.DataFrame) -> Iterator[Block]:
    """A frame in blocks."""
    for at in range(0, len(frame), ROWS):
        yield _framed(frame.iloc[at : at + ROWS].reset_index(drop=True), at + 1)


def framed(frame: pd.DataFrame, first: int) -> Block:
    """A frame as a block, its rows numbered from ``first``."""
    return _framed(frame, first)
