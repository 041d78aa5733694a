"""Files as streams of bounded blocks, unpacked where they are compressed with gzip."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from moesim.errors import TraceError

BLOCK_BYTES = 4 << 20
MAX_LINE_BYTES = 64 << 20
MAX_DOCUMENT_BYTES = 1 << 30
"""Of a file that must be held whole, such as a JSON document; a compressed one may be a bomb."""


def open_stream(path: Path) -> IO[bytes]:
    """A file to read bytes from, unpacked where it is compressed with gzip.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")  # type: ignore[return-value]


def line_blocks(path: Path, progress: Callable[[int], None] | None = None) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines with the number of the first line, counted from 1.

    Args:
        path: of a text file, plain or compressed with gzip.
        progress: is told the bytes of the file that were read since the last block.

    Raises:
        TraceError: the file cannot be read, or has a line that is too long to hold.
    """
    number = 1
    try:
        with path.open("rb") as raw, _unpacked(raw) as stream:
            at = 0
            while True:
                block = stream.read(BLOCK_BYTES)
                rest = stream.readline(MAX_LINE_BYTES) if block and not block.endswith(b"\n") else b""
                if progress is not None:
                    progress(raw.tell() - at)
                    at = raw.tell()
                if not block:
                    break
                if len(rest) == MAX_LINE_BYTES:
                    number += block.count(b"\n")
                    raise TraceError(f"{path}:{number}: found a line above {MAX_LINE_BYTES >> 20} MiB, wanted less")
                block += rest
                yield number, block
                number += count_newlines(block)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None


def count_newlines(block: bytes) -> int:
    """How many lines of a block end."""
    return int(np.count_nonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")))


def read_document(path: Path, progress: Callable[[int], None] | None = None, most: int = MAX_DOCUMENT_BYTES) -> bytes:
    """All bytes of a file, unpacked, of which there may be at most `most`.

    Raises:
        TraceError: it cannot be read, or is too large to be held.
    """
    try:
        with open_stream(path) as stream:
            found = stream.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None
    if len(found) > most:
        raise TraceError(f"{path}: found above {most >> 20} MiB in one document, wanted less")
    if progress is not None:
        progress(path.stat().st_size)
    return found


def unreadable(path: Path, error: Exception) -> TraceError:
    """The error of a file that the system or its compression does not let us read."""
    return TraceError(f"{path}: cannot be read: {reason(error)}")


def reason(error: Exception) -> str:
    """What an error of a library says, in one short line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:80]


def _unpacked(raw: IO[bytes]) -> IO[bytes]:
    packed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    return gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[return-value]
