"""Where the file of a scenario is: at a path, or in the package."""

from __future__ import annotations

from pathlib import Path

from moesim.errors import ScenarioError

SUFFIXES = (".yaml", ".yml")


def locate(name: str) -> Path:
    """A path, or a scenario of the package.

    Raises:
        ScenarioError: there is none of that name.
    """
    path = Path(name)
    if "/" in name or "\\" in name or path.suffix in SUFFIXES or _is_file(path):
        return path
    package = Path(__file__).resolve().parent.parent
    folders = (package.parent / "scenarios", package / "scenarios")
    shipped = {file.stem: file for folder in folders if folder.is_dir() for file in folder.glob("*.yaml")}
    if name not in shipped:
        raise ScenarioError(f"{name}: found no such scenario, wanted a file or one of {', '.join(sorted(shipped))}")
    return shipped[name]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
