"""The beginning of a file, by which its layout is recognised: what a name ends in is no evidence."""

from __future__ import annotations

import gzip
import json
import re
import tokenize
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from moesim.errors import TraceError
from moesim.recordings.stream import reason, unreadable

HEAD_BYTES = 1 << 18
_LFS = b"version https://git-lfs.github.com/spec/"
_MAGIC = (
    (b"PK\x03\x04", "zip"),
    (b"\x93NUMPY", "npy"),
    (b"PAR1", "parquet"),
    (b"\x89HDF", "hdf5"),
    (b"\x80\x02", "pickle"),
    (b"\x80\x03", "pickle"),
    (b"\x80\x04", "pickle"),
    (b"\x80\x05", "pickle"),
)


_BROKEN_HEADER = (
    ValueError,
    OSError,
    EOFError,
    SyntaxError,
    OverflowError,
    TypeError,
    RecursionError,
    MemoryError,
    tokenize.TokenError,
)


class Sample:
    """A file or folder and its first bytes.

    `kind` is folder, text, npy, npz, pt, zip, parquet, pickle, hdf5 or binary; `head` are the first bytes, unpacked
    where the file is compressed with gzip.

    Raises:
        TraceError: it cannot be read, is empty, or is the pointer that Git LFS leaves in place of a file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            special = self.path.exists() and not self.path.is_file() and not self.path.is_dir()
        except OSError as error:  # of a name that is too long, or a folder that may not be read
            raise unreadable(self.path, error) from None
        if special:
            raise TraceError(f"{path}: found a pipe or device, which can be read once only; wanted a file or folder")
        self.head = b"" if self.path.is_dir() else _head(self.path)
        if self.head.startswith(_LFS):
            raise TraceError(f"{path}: this is a Git LFS pointer and not the file itself; run git lfs pull")
        if not self.path.is_dir() and not self.head.strip():
            raise TraceError(f"{path}: found no records: the file is empty")
        self.kind = "folder" if self.path.is_dir() else _kind(self.head)
        if self.kind == "zip":
            self.kind = _zip_kind(self.names)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names in a folder or an archive, sorted."""
        if self.path.is_dir():
            return tuple(sorted(entry.name for entry in self.path.iterdir()))
        try:
            with zipfile.ZipFile(self.path) as archive:
                return tuple(sorted(archive.namelist()))
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise TraceError(f"{self.path}: cannot be read: the archive is damaged ({reason(error)})") from None

    @cached_property
    def text(self) -> str:
        """The head of a text file without a byte order mark, "" of others."""
        return self.head.decode("utf-8", errors="ignore").removeprefix("\ufeff") if self.kind == "text" else ""

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """The lines of the head that are whole and not blank."""
        whole = self.text if len(self.head) < HEAD_BYTES else self.text.rpartition("\n")[0]
        return tuple(line.strip() for line in whole.splitlines() if line.strip())

    @cached_property
    def records(self) -> tuple[dict[str, Any], ...]:
        """The JSON objects that the first lines hold, one a line; empty where the first line is none."""
        found: list[dict[str, Any]] = []
        for line in self.lines[:8]:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(record, dict):
                break
            found.append(record)
        return tuple(found)

    @cached_property
    def keys(self) -> frozenset[str]:
        """Names of fields in the head, at any depth; also of a JSON document that is longer than the head."""
        if not self.text.lstrip().startswith(("{", "[")):
            return frozenset()
        return frozenset(re.findall(r'"([^"\\\n]{1,80})"\s*:', self.text))

    @cached_property
    def header(self) -> tuple[str, ...]:
        """Cells of the first line of a text with commas, lower case; empty where it is JSON."""
        if not self.lines or self.lines[0].startswith(("{", "[")):
            return ()
        return tuple(cell.strip().strip('"').lower() for cell in self.lines[0].split(","))

    @cached_property
    def array(self) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        """Shape and type of a .npy file, None of another."""
        if self.kind != "npy":
            return None
        with self.path.open("rb") as file:
            return npy_header(file, str(self.path))

    def has(self, *names: str) -> bool:
        """Whether the first record that is no metadata has all these fields."""
        return any(all(name in record for name in names) for record in self.records[:3])


def npy_header(file: Any, where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that a .npy stream states.

    Raises:
        TraceError: it states none.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except _BROKEN_HEADER as error:
        raise TraceError(f"{where}: cannot be read: no array of NumPy ({reason(error)})") from None
    return tuple(shape), dtype


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if head[:2] != b"\x1f\x8b":
            return head
        with gzip.open(path) as packed:
            return packed.read(HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _kind(head: bytes) -> str:
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if b"\x00" in head:
        return "binary"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # else a character that the end of the head cuts
            return "binary"
    return "text"


def _zip_kind(names: tuple[str, ...]) -> str:
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    return "pt" if any(name.endswith("data.pkl") for name in names) else "zip"
