"""What came in and is not stored yet, on disk: bounded, in order, whole after a kill.

A frame is acknowledged when it is flushed. Each channel has a lane of segment files, so that a full
spool throws out the oldest segment of the least valuable lane. Frames are numbered across lanes and
read back in that order.
"""

from __future__ import annotations

import heapq
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

HEAD = struct.Struct("<IIqq")  # length, CRC-32, number, receive time in microseconds
SEGMENT = 4 << 20  # bytes; a small spool has smaller ones
# The least valuable first: a book is made again by the next snapshot, a liquidation is not.
LANES = ("book", "candles", "open_interest", "funding", "trades", "liquidations", "control")


@dataclass(frozen=True)
class Frame:
    """A message as it came."""

    number: int
    received: int  # microseconds since 1970
    raw: bytes


class Spool:
    """A folder of frames. One writer, one reader; both may be in different threads."""

    def __init__(self, folder: Path, limit: int = 1 << 30, *, sync: bool = False) -> None:
        self.folder = folder
        self.limit = limit
        self.sync = sync
        self._segment = max(min(SEGMENT, limit // 16), 1)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Condition()
        self._buffers: dict[str, list[bytes]] = {}
        self._segments: dict[str, list[int]] = {lane: [] for lane in LANES}
        self._sizes: dict[str, dict[int, int]] = {lane: {} for lane in LANES}
        self._open: dict[str, int] = {}  # lane: file descriptor of its newest segment
        self._cursors: dict[str, tuple[int, int]] = {}  # lane: segment and offset of the reader
        self._ahead: dict[str, list[Frame]] = {lane: [] for lane in LANES}
        self.next = 1
        self.flushed = 0
        self.evicted = 0
        self.said: list[tuple[str, int]] = []  # lanes and frames thrown out since asked
        for path in sorted(folder.glob("*.frames")):
            lane, _, first = path.stem.rpartition("-")
            if lane in self._segments:
                size, last = self._whole(path)
                self._segments[lane].append(int(first))
                self._sizes[lane][int(first)] = size
                self.next = max(self.next, int(first), last + 1)
        checkpoint = self.checkpoint()
        self.next = max(self.next, checkpoint[0] + 1)
        self.flushed = self.next - 1

    # --- the writer ----------------------------------------------------------------------------

    def put(self, lane: str, raw: bytes, received: int) -> int:
        """Take a frame; it is acknowledged by the next :meth:`flush`. Returns its number."""
        with self._lock:
            number = self.next
            self.next += 1
            self._buffers.setdefault(lane, []).append(
                HEAD.pack(len(raw), zlib.crc32(raw), number, received) + raw
            )
            return number

    def flush(self) -> None:
        """Write down what was put: from here on a kill loses none of it."""
        with self._lock:
            if not self._buffers:
                return
            buffers, self._buffers = self._buffers, {}
            for lane, parts in buffers.items():
                data = b"".join(parts)
                segments = self._segments[lane]
                if lane not in self._open or self._sizes[lane][segments[-1]] >= self._segment:
                    self._begin(lane, HEAD.unpack_from(data)[2])
                view = memoryview(data)
                while view:
                    view = view[os.write(self._open[lane], view) :]
                if self.sync:
                    os.fdatasync(self._open[lane])
                self._sizes[lane][self._segments[lane][-1]] += len(data)
            self.flushed = self.next - 1
            self._make_room()
            self._lock.notify_all()

    def _begin(self, lane: str, number: int) -> None:
        if lane in self._open:
            os.close(self._open[lane])
        path = self._path(lane, number)
        self._open[lane] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._segments[lane].append(number)
        self._sizes[lane][number] = 0

    def _make_room(self) -> None:
        while self.size() > self.limit:
            for lane in LANES[:-1]:
                # The newest segment is being written.
                if len(self._segments[lane]) > 1 or (
                    self._segments[lane] and lane not in self._open
                ):
                    break
            else:
                return
            first = self._segments[lane][0]
            at = self._cursors.get(lane, (first, 0))
            start = at[1] if at[0] == first else 0
            count = sum(1 for _ in self._frames(self._path(lane, first), start))
            self._remove(lane, first)
            if count:
                self.evicted += count
                self.said.append((lane, count))

    def wait(self, seconds: float) -> None:
        """Until something is flushed, or so long."""
        with self._lock:
            self._lock.wait(seconds)

    # --- the reader ----------------------------------------------------------------------------

    def read(self, most: int) -> list[Frame]:
        """The next frames that are flushed, in the order in which they came."""
        with self._lock:
            limit = self.flushed
            heads: list[tuple[int, str]] = []
            for lane in LANES:
                if not self._ahead[lane]:
                    self._read_ahead(lane, most)
                if self._ahead[lane]:
                    heads.append((self._ahead[lane][0].number, lane))
            heapq.heapify(heads)
            out: list[Frame] = []
            taken = dict.fromkeys(LANES, 0)
            while heads and len(out) < most:
                number, lane = heads[0]
                if number > limit:
                    break
                ahead = self._ahead[lane]
                out.append(ahead[taken[lane]])
                taken[lane] += 1
                if taken[lane] < len(ahead):
                    heapq.heapreplace(heads, (ahead[taken[lane]].number, lane))
                    continue
                self._ahead[lane], taken[lane] = [], 0
                self._read_ahead(lane, most)
                if self._ahead[lane]:
                    heapq.heapreplace(heads, (self._ahead[lane][0].number, lane))
                else:
                    heapq.heappop(heads)
            for lane, count in taken.items():
                del self._ahead[lane][:count]
            return out

    def _read_ahead(self, lane: str, most: int) -> None:
        segments = self._segments[lane]
        while segments:
            at, offset = self._cursors.get(lane, (segments[0], 0))
            if at not in self._sizes[lane]:
                later = [s for s in segments if s > at]
                if not later:
                    return
                at, offset = later[0], 0
            if offset >= self._sizes[lane][at]:
                later = [s for s in segments if s > at]
                if not later:
                    self._cursors[lane] = (at, offset)
                    return
                at, offset = later[0], 0
            frames: list[Frame] = []
            for frame in self._frames(self._path(lane, at), offset, self._sizes[lane][at]):
                frames.append(frame)
                offset += HEAD.size + len(frame.raw)
                if len(frames) >= most:
                    break
            self._cursors[lane] = (at, offset)
            if not frames:
                return
            self._ahead[lane] = frames
            return

    def store_checkpoint(self, number: int, state: bytes) -> None:
        """All up to this frame is stored, and this is what is known by then: older files go."""
        path = self.folder / "checkpoint"
        new = self.folder / "checkpoint.new"
        with new.open("wb") as file:
            file.write(struct.pack("<qI", number, zlib.crc32(state)) + state)
            file.flush()
            if self.sync:
                os.fdatasync(file.fileno())
        new.replace(path)
        with self._lock:
            for lane in LANES:
                segments = self._segments[lane]
                while len(segments) > 1 and segments[1] <= number + 1:
                    self._remove(lane, segments[0])

    def checkpoint(self) -> tuple[int, bytes]:
        """The last one; (0, nothing) where there is none."""
        try:
            data = (self.folder / "checkpoint").read_bytes()
            number, crc = struct.unpack_from("<qI", data)
        except (FileNotFoundError, struct.error):
            return 0, b""
        state = data[12:]
        return (number, state) if zlib.crc32(state) == crc else (number, b"")

    # --- both ----------------------------------------------------------------------------------

    def size(self) -> int:
        """Bytes on disk."""
        return sum(sum(sizes.values()) for sizes in self._sizes.values())

    def close(self) -> None:
        """Flush and close the files."""
        self.flush()
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open = {}

    def _path(self, lane: str, number: int) -> Path:
        return self.folder / f"{lane}-{number:020d}.frames"

    def _remove(self, lane: str, first: int) -> None:
        self._path(lane, first).unlink(missing_ok=True)
        self._segments[lane].remove(first)
        del self._sizes[lane][first]
        if not self._segments[lane] and lane in self._open:
            os.close(self._open.pop(lane))

    @staticmethod
    def _frames(path: Path, start: int, end: int | None = None) -> Iterator[Frame]:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(-1 if end is None else max(end - start, 0))
        at = 0
        while at + HEAD.size <= len(data):
            length, crc, number, received = HEAD.unpack_from(data, at)
            raw = data[at + HEAD.size : at + HEAD.size + length]
            if len(raw) < length or zlib.crc32(raw) != crc:
                return
            yield Frame(number, received, raw)
            at += HEAD.size + length

    def _whole(self, path: Path) -> tuple[int, int]:
        """Cut off what a kill left half written; bytes and last number of what is whole."""
        size, last = 0, 0
        for frame in self._frames(path, 0):
            size += HEAD.size + len(frame.raw)
            last = frame.number
        if size != path.stat().st_size:
            os.truncate(path, size)
        return size, last


def control(what: str, **more: object) -> bytes:
    """A frame of our own among the exchange's: connected, lost, snapshot, repair."""
    return orjson.dumps({"alphaplus": what, **more})
