"""What a version was made with: the libraries' versions and a digest of this package's sources."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from alphaplus.trainer.models.base import Estimator


def library_versions(algorithm: type[Estimator]) -> dict[str, str]:
    """Versions of what a trained model rests on."""
    return base_versions() | algorithm.library_versions()


def base_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that all training rests on."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "scipy", "scikit-learn", "alphaplus"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def code_version() -> str:
    """``sha256:`` of this package's sources: what it was trained with, wherever it is installed."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(
            path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0"
        )
    return f"sha256:{digest.hexdigest()}"
