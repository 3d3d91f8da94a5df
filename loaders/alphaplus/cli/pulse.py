"""A line now and then on long work whose output is no terminal, so that it is never silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 20.0  # seconds between lines


@contextmanager
def pulse(
    say: Callable[[str], None], words: Callable[[], str], *, on: bool = True, every: float = EVERY
) -> Iterator[None]:
    """While the block runs, say ``words()`` and the seconds it has taken, every ``every`` seconds.

    Args:
        on: False says nothing: a terminal shows a bar instead.
    """
    if not on:
        yield
        return
    begun, done = time.monotonic(), threading.Event()

    def beat() -> None:
        while not done.wait(every):
            say(f"{words()} ({time.monotonic() - begun:.0f} s)")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
