"""Room on the disk of the data directory, in which a backend works."""

from __future__ import annotations

import os


def space(folder: str = ".") -> tuple[int, int]:
    """(bytes free to the server, bytes in all)."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
