"""The decorator of all compiled functions of moesim, and where their machine code is kept.

Numba keys its on-disk cache by the one file a function stands in: it returns
stale code when a kernel of another file changes, and it cannot write next to a
read-only installation. So the cache lives in the user's cache folder, under a
digest of every compiled source of the package; NUMBA_CACHE_DIR overrides it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
KEEP_UNUSED_DAYS = 14


@lru_cache(maxsize=1)
def cache_dir() -> Path:
    """Folder of the machine code of exactly these sources and this Numba."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    return Path(chosen) if chosen else _user_cache() / "numba" / _digest()


def is_cold() -> bool:
    """Whether the kernels still have to be compiled, which takes 20 to 60 seconds once."""
    return not any(cache_dir().rglob("*.nbi"))


def njit(function: F) -> F:
    """Compile a function to nopython code that releases the GIL, cached on disk.

    Serial on purpose: threads work on different layers, so that results do not
    depend on their number. Division by zero follows IEEE, as in NumPy.
    """
    numba = _numba()
    compiled: F = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return compiled


@lru_cache(maxsize=1)
def _numba() -> Any:
    """Import Numba with the cache folder in place; an already imported Numba is told as well."""
    folder = cache_dir()
    if "NUMBA_CACHE_DIR" not in os.environ:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        _prune(folder)
    import numba

    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    return numba


def _user_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    folder = Path(base) if base else Path.home() / ".cache"
    if os.access(folder if folder.exists() else folder.parent, os.W_OK):
        return folder / "moesim"
    import tempfile  # a home that cannot be written to

    return Path(tempfile.gettempdir()) / f"moesim-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


def _digest() -> str:
    """One hash of the package's compiled sources and of Numba's version."""
    from importlib.metadata import version

    digest = hashlib.sha256(version("numba").encode())
    package = Path(__file__).parent.parent
    for source in sorted(package.rglob("*.py")):
        text = source.read_bytes()
        if b"njit" in text:
            digest.update(source.relative_to(package).as_posix().encode() + b"\0" + text)
    return digest.hexdigest()[:16]


def _prune(folder: Path) -> None:
    """Remove the machine code of other versions of the sources that have not been used for a while."""
    oldest = time.time() - KEEP_UNUSED_DAYS * 86400
    for other in folder.parent.iterdir():
        if other != folder and other.is_dir() and other.stat().st_mtime < oldest:
            shutil.rmtree(other, ignore_errors=True)
