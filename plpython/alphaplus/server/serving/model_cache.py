"""A backend's models: keyed by version id, bounded in bytes, least recently used out first.

A version never changes, but it can be deleted, or its registration rolled back: whoever takes a
model from here looks once in each statement (:func:`moment`) whether its row is there.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

DEFAULT_BYTES = 256 * 2**20
NOBODY = object()  # equal to no version id, null neither


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    ]  # fmt: skip


def allocated() -> int:
    """Bytes that the C allocator has handed out in this process; 0 where it does not tell."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0
    mallinfo.restype = _Mallinfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def trim() -> None:
    """Give freed memory back to the operating system."""
    try:
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
    except AttributeError:
        return


def _clock() -> Callable[[], tuple[int, int, int] | None]:
    try:
        server = ctypes.PyDLL(None)
        started = server.GetCurrentStatementStartTimestamp
        command, inner = server.GetCurrentCommandId, server.GetCurrentSubTransactionId
    except AttributeError:
        return lambda: None
    started.restype = ctypes.c_int64
    started.argtypes = ()
    command.restype = inner.restype = ctypes.c_uint32
    command.argtypes = (ctypes.c_bool,)
    inner.argtypes = ()
    return lambda: (started(), command(False), inner())


# When it is, as the server counts: the statement's start, the changes made in the transaction, and
# the subtransaction. What was read stays as it is while this does; None outside of a server.
moment = _clock()


class ModelCache:
    """Models by version id. A model has ``size`` (bytes) and ``close()``."""

    def __init__(self, limit: int = DEFAULT_BYTES) -> None:
        self.limit = limit
        self.size = 0
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self._models: OrderedDict[int, Any] = OrderedDict()
        # The most recently used one, which is asked for again most often.
        self.newest_id: object = NOBODY
        self.newest: Any = None

    def get(self, version_id: int) -> Any | None:
        """The model, now the most recently used; None when it is not here."""
        model = self._models.get(version_id)
        if model is None:
            self.misses += 1
            return None
        self.hits += 1
        self._models.move_to_end(version_id)
        self.newest_id, self.newest = version_id, model
        return model

    def put(self, version_id: int, model: Any) -> None:
        """Keep a model, and drop the least recently used ones until all fit.

        A model larger than the whole limit is kept alone: it is in use.
        """
        self.drop(version_id)
        full = bool(self._models) and self.size + model.size > self.limit
        while self._models and self.size + model.size > self.limit:
            self.drop(next(iter(self._models)))
            self.evictions += 1
        if full:
            trim()
        self._models[version_id] = model
        self.newest_id, self.newest = version_id, model
        self.size += model.size

    def resize(self, version_id: int, size: int) -> None:
        """A model has become larger: drop others, least recently used first, until all fit."""
        model = self._models[version_id]
        self.size += size - model.size
        model.size = size
        while len(self._models) > 1 and self.size > self.limit:
            self.drop(next(iter(self._models)))
            self.evictions += 1

    def drop(self, version_id: int) -> None:
        """Forget a model and give its memory back."""
        model = self._models.pop(version_id, None)
        if version_id == self.newest_id:
            self.newest_id, self.newest = NOBODY, None
        if model is not None:
            self.size -= model.size
            model.close()

    def status(self) -> list[tuple[int, Any]]:
        """(version id, model), least recently used first."""
        return list(self._models.items())
