"""Boosted trees that all backends share: a LightGBM model's scores from one read-only file.

The library keeps a model on the heap of every backend that uses it; with many backends on few
cores each prediction then walks through cold caches. Here the first backend that needs a version
writes its trees, packed (trees.c says how), into a file of the server's folder for temporary files,
and all map it: one copy in memory, nothing to parse, and the scores are the library's to the last
bit. What the packed form does not hold (categorical splits, linear leaves, several outputs a row)
and a server without the compiled walk take the library (``booster.py``).
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import zlib
from typing import Any

FORMAT = 1
PLAIN, NAN_AS_ZERO, NAN_LEFT, ZERO_RIGHT, ZERO_LEFT, WAYS = range(6)
_MAGIC = b"AP-TREES"
_HEADER = struct.Struct("=8s4I8s")
# CRC-32 of all but itself and of the digest of the text it was made of, after the header: another
# model's file under a digest is as damaged as one with a flipped bit.
_CHECKSUM = struct.Struct("=Q")
_TREE = struct.Struct("=2I")
_NODE = struct.Struct("=d2H")
_MOST_PLACES = 16384
# What PostgreSQL itself deletes at its start, and leaves out of base backups.
_PREFIX = "pgsql_tmp_alphaplus_trees_"

try:
    import alphaplus_trees as walk  # type: ignore[import-not-found]  # compiled with the server
except ImportError:
    walk = None  # a server without it takes the library


class UnsupportedError(Exception):
    """A model that the packed form does not hold, or a server without the compiled walk."""


def pack(text: bytes, digest: str) -> bytes:
    """A LightGBM model's text, whose digest it is, as the packed form. Its raw scores are sums, as
    the library's are: of a text with ``average_output`` too, which ``score.Model`` divides.

    Raises:
        UnsupportedError: it has what the packed form does not hold, or is no such text.
    """
    try:
        return _pack(text.decode(), digest)
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise UnsupportedError(str(error)) from error


def _checksum(head: bytes, rest: bytes, digest: str) -> bytes:
    return _CHECKSUM.pack(zlib.crc32(digest.encode(), zlib.crc32(rest, zlib.crc32(head))))


def _pack(text: str, digest: str) -> bytes:
    blocks = text.split("\nend of trees", 1)[0].split("\nTree=")
    head = dict(line.split("=", 1) for line in blocks[0].splitlines() if "=" in line)
    if head["num_tree_per_iteration"] != "1":
        raise UnsupportedError("several outputs a row")
    features = int(head["max_feature_idx"]) + 1
    parsed = [
        _tree(dict(line.split("=", 1) for line in b.splitlines()[1:] if line)) for b in blocks[1:]
    ]
    used = sorted({way for nodes, _ in parsed for _, _, way, _ in nodes if way is not None})
    start = {way: 1 + i * features for i, way in enumerate(used)}
    if 1 + len(used) * features > _MOST_PLACES:
        raise UnsupportedError(f"{features} features")
    trees, body, first = [], [], 0
    for nodes, depth in parsed:
        trees.append(_TREE.pack(first, depth))
        for value, feature, way, child in nodes:
            if not 0 <= feature < features or math.isnan(value):
                raise UnsupportedError("no such feature, or a value that is not a number")
            body.append(_NODE.pack(value, 0 if way is None else start[way] + feature, child))
        first += len(nodes)
    ways = bytes(way in start for way in range(8))
    header = _HEADER.pack(_MAGIC, FORMAT, features, len(trees), first, ways)
    rest = b"".join((*trees, *body))
    return header + _checksum(header, rest, digest) + rest


Node = tuple[float, int, int | None, int]


def _tree(lines: dict[str, str]) -> tuple[list[Node], int]:
    """(value, feature, way, child) of each node, level by level, children side by side, and the
    depth; a leaf has no way, and itself as its child."""
    if lines.get("num_cat", "0") != "0" or lines.get("is_linear", "0") != "0":
        raise UnsupportedError("categorical splits or linear leaves")
    outputs = [float(x) for x in lines["leaf_value"].split()]
    if int(lines["num_leaves"]) == 1:
        return [(outputs[0], 0, None, 0)], 0
    features, lefts, rights, kinds = (
        [int(x) for x in lines[key].split()]
        for key in ("split_feature", "left_child", "right_child", "decision_type")
    )
    thresholds = [float(x) for x in lines["threshold"].split()]
    nodes: list[Node] = []
    level, depth, free = [0], 0, 1
    while True:
        below: list[int] = []
        for i in level:
            if i < 0:
                nodes.append((outputs[~i], 0, None, 0))
            else:
                nodes.append((thresholds[i], features[i], _way(kinds[i]), free - len(nodes)))
                below += (lefts[i], rights[i])
                free += 2
        if free > 2 * len(outputs):
            raise UnsupportedError("an invalid tree")
        if not below:
            return nodes, depth
        level, depth = below, depth + 1


def _way(kind: int) -> int:
    """How a split with LightGBM's decision_type reads a value."""
    if kind & 1:
        raise UnsupportedError("categorical splits")
    missing, left = kind >> 2 & 3, kind & 2
    if missing == 0:
        return NAN_AS_ZERO
    if missing == 1:
        return ZERO_LEFT if left else ZERO_RIGHT
    return NAN_LEFT if left else PLAIN


class Trees:
    """The model of a digest, mapped. ``raw(row)`` is the raw score of one row, a list of
    ``features`` numbers, NaN or None for missing values (ValueError: another number of them);
    ``size`` the bytes that all backends share.

    Raises:
        ValueError: the file does not hold packed trees, they are damaged, or another model's.
    """

    def __init__(self, path: str, digest: str) -> None:
        with open(path, "rb") as file:  # noqa: PTH123
            head, kept, rest = file.read(_HEADER.size), file.read(_CHECKSUM.size), file.read()
        if kept != _checksum(head, rest, digest):
            raise ValueError(f"{path} is damaged, or another model's")
        self._walk = walk.Trees(path)
        self.features = self.width = int(self._walk.features)
        self.size = int(self._walk.size)
        self.raw = self._walk.raw
        self.close = self._walk.close

    def many(self, rows: Any) -> Any:
        """Raw scores (n,) of the rows of a C-contiguous float64 array (n, features): the same
        numbers as ``raw`` of each."""
        import numpy as np

        out = np.empty(len(rows))
        self._walk.fill(rows, out)
        return out


def shared(text: bytes, digest: str, folder: str, limit: int | None) -> Trees:
    """The model of a text, mapped from the file that ``folder`` keeps for its ``digest`` (SHA-256
    in hex), which is written when it is not there.

    What no backend has loaded for longest is deleted when the files together pass ``limit`` bytes
    (who has it mapped keeps it); None: nothing is to be shared.

    Raises:
        UnsupportedError: the packed form does not hold this model, or nothing can be shared here.
    """
    if walk is None or walk.FORMAT != FORMAT or limit is None:
        raise UnsupportedError("no compiled walk of this format, or not to be shared")
    path = f"{folder}/{_PREFIX}{FORMAT}.{digest}"
    try:
        with contextlib.suppress(FileNotFoundError, ValueError):
            found = Trees(path, digest)
            os.utime(path)
            return found
        packed = pack(text, digest)
        os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103
        own = f"{path}.{os.getpid()}"
        try:
            with open(own, "wb") as file:  # noqa: PTH123
                file.write(packed)
            # A broken one is replaced; of two that are written at once the later stays.
            os.replace(own, path)  # noqa: PTH105
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(own)  # noqa: PTH108
            raise
        _prune(folder, limit)
        return Trees(path, digest)
    except (OSError, ValueError) as error:
        raise UnsupportedError(str(error)) from error


def _prune(folder: str, limit: int) -> None:
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX):
                with contextlib.suppress(FileNotFoundError):
                    files.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files)[:-1]:
        if total <= limit:
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108
        total -= size
