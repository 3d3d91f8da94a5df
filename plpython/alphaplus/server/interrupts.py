"""PostgreSQL's interrupts (cancel, terminate, timeouts) for code that runs long without it."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable
from typing import Any


def _flag() -> Any:
    try:
        return ctypes.c_int.in_dll(ctypes.CDLL(None), "InterruptPending")
    except (ValueError, OSError):
        return None  # not in a backend


_PENDING = _flag()


def pending() -> bool:
    """Whether the backend has an interrupt to process; False outside of one."""
    return _PENDING is not None and _PENDING.value != 0


def process() -> None:
    """Let PostgreSQL process what is pending: any statement does; a cancel raises."""
    if pending():
        import plpy  # type: ignore[import-not-found]  # there only in a backend

        plpy.execute("select 1")


def thread(target: Callable[[], None]) -> threading.Thread:
    """A started thread that takes no signals: PostgreSQL's handlers belong to its main thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        found = threading.Thread(target=target, daemon=True)
        found.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return found
