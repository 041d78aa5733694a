"""Folders that are complete or absent, and files that are the same bytes for the same result."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from moesim.atomic import replacing, unwritable
from moesim.errors import OutputError

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "manifest.json"
SCHEMA_VERSION = 3
LIBRARIES = (
    "moesim",
    "numpy",
    "numba",
    "simpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "plotly",
)


def versions() -> dict[str, str]:
    """Versions of Python, moesim and the libraries that shape a result."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            found[name] = "unknown"
    return found


def prepare_output(folder: str | Path) -> Path:
    """Check, before hours of work, that a result can be written to this folder.

    Raises:
        OutputError: it cannot be made, or something that is no result of moesim stands there.
    """
    target = Path(folder)
    try:
        if target.exists() and not _is_replaceable(target):
            raise OutputError(f"{target}: exists and holds no moesim result, so it is not replaced; choose another -o")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}."):
            pass
    except OSError as error:
        raise unwritable(target, error) from None
    return target


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `folder` when all went well, and vanishes when not.

    Raises:
        OutputError: as `prepare_output`.
    """
    target = prepare_output(folder)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if target.exists():
            old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
            target.replace(old / "result")
            temporary.replace(target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(target)
    except OSError as error:
        raise unwritable(target, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def prepare_file(path: str | Path, *, opening: str) -> Path:
    """Check, before hours of work, that a file can be written here.

    Args:
        path: of the file.
        opening: how all files of its kind begin; one that begins otherwise is not replaced.

    Raises:
        OutputError: it cannot be made, or a file of another kind stands there.
    """
    target = Path(path)
    try:
        if target.exists():
            with target.open("rb") as file:
                if file.read(len(opening)) != opening.encode():
                    raise OutputError(f"{target}: exists and was not written by moesim, so it is not replaced")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise unwritable(target, error) from None
    return target


@contextmanager
def new_file(path: str | Path, *, opening: str) -> Iterator[TextIO]:
    """A text file to write that takes the place of `path` when all went well, and vanishes when not.

    Raises:
        OutputError: as `prepare_file`.
    """
    with replacing(prepare_file(path, opening=opening)) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield file


def write_json(path: Path, value: Any) -> None:
    """JSON that a person can read; NaN is refused, absent values are null."""
    path.write_text(json_text(value), encoding="utf-8")


def json_text(value: Any) -> str:
    """The text of summary.json and manifest.json."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """Read a JSON file of a result.

    Raises:
        OutputError: it is absent or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"{path}: cannot be read as a file of a moesim result: {error}") from None


def read_mapping(path: Path, *needed: str) -> dict[str, Any]:
    """Read a JSON file of a result that holds a mapping with these keys.

    Raises:
        OutputError: it is absent or damaged.
    """
    found = read_json(path)
    if not isinstance(found, dict) or not set(needed) <= set(found):
        raise OutputError(f"{path}: is damaged, wanted a mapping{' with ' if needed else ''}{', '.join(needed)}")
    return found


def read_frame(path: Path, columns: Collection[str]) -> pd.DataFrame:
    """Read a frame of a result that has these columns.

    Raises:
        OutputError: it is absent or damaged.
    """
    import pandas as pd

    try:
        with path.open("rb") as file:  # a folder would be read as the files in it
            frame = pd.read_parquet(file, engine="pyarrow")
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read as a frame of a moesim result: {error}") from None
    missing = [name for name in columns if name not in frame]
    if missing:
        raise OutputError(f"{path}: is damaged, column {missing[0]} is missing")
    return frame


def own_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder that moesim wrote, {} where there is none or another program wrote it."""
    try:
        found = read_json(folder / MANIFEST)
    except OutputError:
        return {}
    return found if isinstance(found, dict) and "moesim" in (found.get("versions") or ()) else {}


def _is_replaceable(target: Path) -> bool:
    """Whether this is a result of moesim, or an empty folder."""
    if not target.is_dir():
        return False
    if not any(target.iterdir()):
        return True
    return bool(own_manifest(target))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
