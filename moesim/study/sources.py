"""Digests of what computes a run: moesim itself, files that a scenario names, and a router of the user's own."""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from moesim.routing.registry import is_of_session
from moesim.scenario import Scenario

_SESSION = os.urandom(16).hex()
"""Stands for the code of routers that this process alone knows: their runs are not found again."""
NOT_SHAPING = ("cli", "report", "study")
"""Packages that read finished runs: no summary depends on them."""


def inputs_of(scenario: Scenario, files_sha256: str = "") -> str:
    """A digest of the files that a scenario names and of a router of the user's own, "" where there is neither.

    Of a router that has no file it is another one in every process.
    """
    name = scenario.spec.routing.strategy or ""
    if is_of_session(name):
        return files_sha256 + _SESSION
    return files_sha256 + _router_sha256(name.partition(":")[0]) if ":" in name else files_sha256


@lru_cache
def _router_sha256(module: str) -> str:
    """The digest of a module and of its neighbours that it imports, as this process first read them."""
    import importlib.util

    found = importlib.util.find_spec(module)
    digest = hashlib.sha256()
    if found is not None and found.origin:
        origin = Path(found.origin)
        root = origin.parents[module.count(".") + (origin.name == "__init__.py")]
        for file in sorted(with_imports(origin, root)):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def with_imports(file: Path, root: Path) -> set[Path]:
    """A module's file and those below `root` that it imports, in turn."""
    found: set[Path] = set()
    pending = [file]
    while pending:
        here = pending.pop()
        if here in found:
            continue
        found.add(here)
        if here.suffix == ".py":
            for name, level in _imports(here):
                path = here.parents[level - 1] if level else root
                for part in filter(None, name.split(".")):
                    path /= part
                    pending += [f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()]
    return found


def _imports(file: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, folders above the file, 0 = absolute) of all that a file may import."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield module, node.level
            yield from (((f"{module}." if module else "") + alias.name, node.level) for alias in node.names)


@lru_cache(maxsize=1)
def package_sha256() -> str:
    """A digest of the code that computes a summary: while moesim is developed its version stays the same."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for file in shaping_files(package):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def shaping_files(package: Path) -> list[Path]:
    """The sources and data of a package on which summaries may depend, in order: all but those of NOT_SHAPING."""
    files = (file for file in sorted(package.rglob("*")) if file.suffix in (".py", ".yaml", ".parquet", ".json"))
    return [file for file in files if file.relative_to(package).parts[0] not in NOT_SHAPING]
