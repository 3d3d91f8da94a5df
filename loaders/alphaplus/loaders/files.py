"""Files, archives and their members as streams of bytes, within stated bounds.

What packs a file is told by its first bytes, not by its name. Archives are read one level deep; a
member may itself be packed by gzip, bzip2, xz or Zstandard, but may be no archive.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import IO, Any

import psycopg

BROKEN = (
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    lzma.LZMAError,
    tarfile.TarError,
)


class DamagedFile(Exception):
    """The file cannot be read to its end."""


class BeyondLimit(Exception):
    """The file is beyond a bound; the message names the setting."""


@dataclass(frozen=True)
class Limits:
    """Bounds of what is read; settings market.load_<name>."""

    line: int = 4 * 2**20  # bytes of a line
    cell: int = 64 * 2**10  # characters of a cell
    members: int = 1000  # files in an archive
    ratio: int = 250  # bytes unpacked for one packed, from the first 64 MiB on
    unpacked: int = 256 * 2**30  # bytes of all members of an archive together
    document: int = 128 * 2**20  # bytes of a file that is read whole (a JSON array)

    @classmethod
    def read(cls, conn: psycopg.Connection[Any]) -> Limits:
        """From the database's settings; those not there stay as above."""
        rows = conn.execute(
            "select substr(name, 13), (value #>> '{}')::numeric::bigint from ops.settings"
            " where name like 'market.load\\_%'"
        ).fetchall()
        known = {f.name for f in fields(cls)}
        return cls(**{name: int(value) for name, value in rows if name in known})


_RATIO_FROM = 64 * 2**20
_PIECE = 64 * 2**10  # what is read at once: what lies before a damage is kept
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"FEA1", "feather of the first version"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!", "rar"),
    (b"\x89HDF", "HDF5"),
    (b"SQLite format 3\0", "SQLite"),
)
_PACKED = ("gzip", "bzip2", "xz", "zstd")


def magic(head: bytes) -> str:
    """What packs or lays out a file, by its first bytes; '' for text."""
    return next((name for start, name in _MAGIC if head.startswith(start)), "")


class _Counted(io.RawIOBase):
    """Bytes unpacked, counted: too many for what was packed is a bomb."""

    def __init__(self, stream: IO[bytes], packed: int, limits: Limits, name: str) -> None:
        super().__init__()
        self._stream, self._packed, self._limits, self._name = stream, packed, limits, name
        self._count = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As :class:`io.RawIOBase`."""
        read = getattr(self._stream, "read1", self._stream.read)
        data = read(min(len(buffer), _PIECE))
        self._count += len(data)
        if self._count > max(_RATIO_FROM, self._limits.ratio * self._packed):
            raise BeyondLimit(
                f"{self._name} unpacks to more than {self._limits.ratio} times its size"
                f" ({self._packed:,} bytes): setting market.load_ratio allows more"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Closes what is under it too."""
        with contextlib.suppress(Exception):
            self._stream.close()
        super().close()


def _unpacked(stream: IO[bytes], how: str) -> Any:
    if how == "gzip":
        return gzip.GzipFile(fileobj=stream)
    if how == "bzip2":
        return bz2.BZ2File(stream)
    if how == "xz":
        return lzma.LZMAFile(stream)
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")


@dataclass(frozen=True)
class Source:
    """One table or stream: a file, or one member of an archive.

    ``path``: where its bytes are (an unpacked member: a temporary file); ``label``: the folders and
    the name that say what it is.
    """

    file: Path
    member: str | None = None
    path: Path | None = None
    limits: Limits = field(default_factory=Limits, compare=False)

    @property
    def name(self) -> str:
        """What market.loads and market.quarantine call it."""
        return f"{self.file}!{self.member}" if self.member else str(self.file)

    @property
    def label(self) -> PurePosixPath:
        """Folders and name, of the archive first."""
        whole = PurePosixPath(self.file)
        return whole / PurePosixPath(self.member) if self.member else whole

    @property
    def shown(self) -> str:
        """Its name as messages show it."""
        return f"{self.file.name}!{self.member}" if self.member else self.file.name

    def layout(self) -> str:
        """parquet, arrow, another binary layout's name, or '' for text."""
        with self.open() as stream:
            return magic(stream.read(16))

    def open(self) -> IO[bytes]:
        """Its bytes, unpacked, within the bounds."""
        raw: IO[bytes] = (self.path or self.file).open("rb")
        size = (self.path or self.file).stat().st_size
        if self.member and self.path is None:
            archive = zipfile.ZipFile(raw)
            size = archive.getinfo(self.member).compress_size
            try:
                raw = archive.open(self.member)
            except (RuntimeError, NotImplementedError) as error:  # encrypted; unknown method
                raise zipfile.BadZipFile(str(error)) from None
            raw = io.BufferedReader(_Counted(raw, max(size, 1), self.limits, self.shown), _PIECE)
        head = raw.peek(16)[:16] if isinstance(raw, io.BufferedReader) else b""
        how = magic(head)
        if how == "zip":
            if self.member:
                raise BeyondLimit(f"{self.shown} is an archive inside an archive: unpack it first")
            raise zipfile.BadZipFile("the end of the archive is missing")
        if how in _PACKED:
            counted = _Counted(_unpacked(raw, how), max(size, 1), self.limits, self.shown)
            stream = io.BufferedReader(counted, _PIECE)
            if self.member and magic(stream.peek(16)[:16]) in ("zip", *_PACKED):
                raise BeyondLimit(f"{self.shown} is packed twice: unpack it first")
            return stream
        return raw

    @contextlib.contextmanager
    def plain_file(self) -> Iterator[Path]:
        """A file of its bytes as they are, for layouts that are read from their end."""
        where = self.path or self.file
        with where.open("rb") as probe:
            packed = magic(probe.read(16)) in (*_PACKED, "zip")
        if not packed:
            yield where
            return
        with tempfile.NamedTemporaryFile(prefix="alphaplus-") as copy, self.open() as stream:
            shutil.copyfileobj(stream, copy, 2**20)
            copy.flush()
            yield Path(copy.name)


def _is_noise(name: str) -> bool:
    """Files that systems add to folders and archives."""
    parts = PurePosixPath(name).parts
    return not parts or "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] in (
        ".DS_Store", "Thumbs.db", "desktop.ini",
    )  # fmt: skip


@contextlib.contextmanager
def sources(path: Path, limits: Limits) -> Iterator[list[Source | Exception]]:
    """What is to be read of a file: itself, or each member of an archive; or why one is not.

    Raises:
        BeyondLimit: an archive of too many members.
        DamagedFile: an archive that cannot be opened.
    """
    path = path.resolve()
    with path.open("rb") as probe:
        how = magic(probe.read(16))
    if how == "zip":
        yield _zip_members(path, limits)
        return
    if how in _PACKED and _is_tar(path, limits):
        with tempfile.TemporaryDirectory(prefix="alphaplus-") as folder:
            yield _tar_members(path, Path(folder), limits)
        return
    if how == "" and tarfile.is_tarfile(path):
        with tempfile.TemporaryDirectory(prefix="alphaplus-") as folder:
            yield _tar_members(path, Path(folder), limits)
        return
    yield [Source(path, limits=limits)]


def _zip_members(path: Path, limits: Limits) -> list[Source | Exception]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [i for i in archive.infolist() if not i.is_dir() and not _is_noise(i.filename)]
    except zipfile.BadZipFile as error:
        raise DamagedFile(
            f"{path} is damaged ({error}); 0 rows up to there are loaded. Load it again once it is"
            " whole"
        ) from None
    names = [i.filename for i in infos]
    if "[Content_Types].xml" in names:
        raise BeyondLimit(f"{path.name} is a workbook of a spreadsheet: export it as CSV first")
    _check_members(path, names, sum(i.file_size for i in infos), limits)
    if not names:
        raise DamagedFile(f"{path} is damaged (no file in the archive); 0 rows are loaded")
    if len(names) == 1:
        # One file in an archive is the archive, and named as it is.
        return [Source(path, names[0], limits=limits)]
    return [
        Source(path, name, limits=limits)
        if names.count(name) == 1
        else BeyondLimit(
            f"{path.name}!{name}: the archive has {names.count(name)} members of that name"
        )
        for name in dict.fromkeys(names)
    ]


def _check_members(path: Path, names: list[str], size: int, limits: Limits) -> None:
    if len(names) > limits.members:
        raise BeyondLimit(
            f"{path.name} has {len(names):,} members, at most {limits.members:,} are read: setting"
            " market.load_members allows more"
        )
    if size > limits.unpacked:
        raise BeyondLimit(
            f"{path.name} unpacks to {size:,} bytes, at most {limits.unpacked:,} are read: setting"
            " market.load_unpacked allows more"
        )


def _is_tar(path: Path, limits: Limits) -> bool:
    try:
        with Source(path, limits=limits).open() as stream:
            return stream.read(512)[257:262] == b"ustar"
    except (*BROKEN, OSError):
        return False


def _tar_members(path: Path, folder: Path, limits: Limits) -> list[Source | Exception]:
    """Members, written out one by one; a link or device is none."""
    found: list[Source | Exception] = []
    total = 0
    try:
        with (
            Source(path, limits=limits).open() as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            for member in archive:
                if not member.isfile() or _is_noise(member.name):
                    continue
                total += member.size
                _check_members(path, [""] * (len(found) + 1), total, limits)
                if any(isinstance(s, Source) and s.member == member.name for s in found):
                    found.append(
                        BeyondLimit(f"{path.name}!{member.name}: another member has that name")
                    )
                    continue
                out = folder / f"{len(found)}"
                content = archive.extractfile(member)
                assert content is not None
                with out.open("wb") as file:
                    shutil.copyfileobj(content, file, 2**20)
                with out.open("rb") as probe:
                    inner = magic(probe.read(16))
                source = Source(path, member.name, out, limits)
                if inner == "zip":
                    found.append(
                        BeyondLimit(
                            f"{source.shown} is an archive inside an archive: unpack it first"
                        )
                    )
                    continue
                found.append(source)
    except (*BROKEN, OSError) as error:
        found.append(
            DamagedFile(f"{path} is damaged ({error}); the members up to there are loaded")
        )
    return found


def file_hash(path: Path) -> bytes:
    """SHA-256 of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def blocks_of_lines(stream: IO[bytes], size: int, limits: Limits) -> Iterator[list[bytes]]:
    """Whole lines, about ``size`` bytes at a time, without their ends (\\n, \\r\\n or \\r).

    Raises:
        BeyondLimit: a line is too long.
    """
    rest = b""
    end: bytes | None = None
    while chunk := stream.read(size):
        if end is None:
            end = b"\r" if b"\n" not in chunk and b"\r" in chunk else b"\n"
        lines = (rest + chunk).split(end)
        rest = lines.pop()
        if len(rest) > limits.line or max(map(len, lines), default=0) > limits.line:
            raise BeyondLimit(
                f"a line of more than {limits.line:,} bytes: setting market.load_line allows more"
            )
        if lines:
            yield lines
    if rest:
        yield [rest]
