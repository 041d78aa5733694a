"""Finished runs in a folder, by what they are: nothing is computed twice, nothing half-written counts.

`points/<key>.json` holds the summary of one run. The key is a digest of the
resolved scenario, of the contents of its inputs, and of what computes the
result; so a sweep that was killed goes on where it was, and one with more
points, or another sweep into the same folder, takes those that are there.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from moesim import __version__
from moesim.atomic import PARTIAL, unwritable, write_file
from moesim.errors import OutputError
from moesim.results import Study, prepare_output
from moesim.results.files import MANIFEST, SCHEMA_VERSION
from moesim.results.study import is_sweep, write_sweep
from moesim.scenario import Scenario
from moesim.study.sources import package_sha256

POINTS = "points"


def key_of(scenario: Scenario, inputs: str = "") -> str:
    """The digest of a run.

    Args:
        scenario: with its seed, and with all that was left open decided.
        inputs: a digest of what the scenario names but does not hold (`sources.inputs_of`).
    """
    content = {
        "scenario": scenario.resolved(),
        "inputs": inputs,
        "moesim": __version__,
        "sources": package_sha256(),
        "schema": SCHEMA_VERSION,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


class Store:
    """The finished runs of a folder; without a folder they are kept in memory alone.

    Raises:
        OutputError: the folder cannot be written, or holds something that is no sweep.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self._memory: dict[str, dict[str, Any]] = {}
        self._points: Path | None = None
        self._folder: Path | None = None
        if folder is not None:
            self._folder = _open(Path(folder))
            self._points = self._folder / POINTS

    def get(self, key: str) -> dict[str, Any] | None:
        """The flat summary of a finished run, or None."""
        if key not in self._memory and self._points is not None:
            try:
                found = json.loads((self._points / f"{key}.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):  # absent, or cut off by a power failure
                return None
            if isinstance(found, dict) and found.get("key") == key and isinstance(found.get("summary"), dict):
                self._memory[key] = found["summary"]
        return self._memory.get(key)

    def put(self, key: str, summary: dict[str, Any]) -> None:
        """Keep a finished run: the file appears whole.

        Raises:
            OutputError: it cannot be written.
        """
        self._memory[key] = summary
        if self._points is None:
            return
        write_file(self._points / f"{key}.json", json.dumps({"key": key, "summary": summary}, allow_nan=False))

    def publish(self, study: Study) -> None:
        """Write what is finished so far: summary.parquet, paired.parquet, errors.json and the manifest.

        Raises:
            OutputError: they cannot be written.
        """
        if self._folder is not None:
            write_sweep(self._folder, study)


def _open(folder: Path) -> Path:
    """Make the folder of a sweep, or take one that a sweep has begun."""
    try:
        begun = (folder / POINTS).is_dir() and not (folder / MANIFEST).exists()
        if not begun and not is_sweep(folder):
            prepare_output(folder)
            if folder.exists() and any(folder.iterdir()):
                raise OutputError(f"{folder}: holds another result, wanted a new folder or that of a sweep; choose -o")
        (folder / POINTS).mkdir(parents=True, exist_ok=True)
        for left in (*folder.glob(PARTIAL), *(folder / POINTS).glob(PARTIAL)):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None
    return folder
