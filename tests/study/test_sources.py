"""What keys the runs of a sweep: every package of moesim but those that only read finished runs."""

from __future__ import annotations

from pathlib import Path

import moesim
from moesim.study.sources import NOT_SHAPING, shaping_files


def test_a_new_package_is_among_the_sources(tmp_path: Path) -> None:
    """Nobody has to list it; what reads finished runs is left out, and so are files of other kinds."""
    for name in ("errors.py", "novel/law.py", "novel/deep/constants.yaml", "novel/notes.md", "report/html.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [file.relative_to(tmp_path).as_posix() for file in shaping_files(tmp_path)]
    assert found == ["errors.py", "novel/deep/constants.yaml", "novel/law.py"]


def test_all_packages_but_three_are_among_the_sources() -> None:
    """The three are there, so that a renamed one cannot be left out by its old name."""
    package = Path(moesim.__file__).parent
    packages = {folder.name for folder in package.iterdir() if (folder / "__init__.py").exists()}
    shaping = {file.relative_to(package).parts[0] for file in shaping_files(package)}
    assert packages & shaping == packages - set(NOT_SHAPING)
    assert set(NOT_SHAPING) <= packages
