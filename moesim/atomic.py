"""Files that appear whole or not at all, whatever ends the process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from moesim.errors import OutputError

PARTIAL = ".*.partial"
"""Pattern of the names of files that are being written; a process that was killed leaves them behind."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path to write a file to, which takes the place of `path` when the block ends without an error.

    It is in the same folder, since a file is renamed at once only within a file system.

    Raises:
        OutputError: the file cannot be written; what was at `path` is unharmed.
    """
    target = Path(path)
    temporary = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise unwritable(target, error) from None
    finally:
        with suppress(OSError):  # a name that is too long cannot be removed either
            temporary.unlink(missing_ok=True)


def write_file(path: str | Path, content: str | bytes) -> None:
    """Write a text in UTF-8, or bytes.

    Raises:
        OutputError: the file cannot be written; what was at `path` is unharmed.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def unwritable(path: str | Path, error: OSError) -> OutputError:
    """The error of a file or folder that the system refuses to write."""
    return OutputError(f"{path}: cannot be written: {error.strerror or error}")
