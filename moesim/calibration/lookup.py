"""Measured tables as `cluster.kernels: {table: PATH}` names them: read, checked, and ready to be looked up."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from moesim.calibration.curves import AXES, concatenate, rows_for, rows_of
from moesim.calibration.gpus import gpu_of, published_gpus
from moesim.calibration.reading import Reading, far_off, predict_usable, read_folder, table_files
from moesim.errors import InputError
from moesim.hardware.backends import LAYERS, Backend
from moesim.hardware.measured import Measured, Rows
from moesim.types import GpuSpec


def with_table(backend: Backend, path: str | Path, gpu: GpuSpec, excluded: Mapping[str, str]) -> Backend:
    """The backend with measured tables that take precedence over formulas, where they hold its own kernels.

    Args:
        backend: whose kernels are looked up, and whose formulas stand for the rest.
        path: of a table, or of a folder of them.
        gpu: of the scenario, whose rows are taken.
        excluded: parts that take their formula nevertheless, and why.

    Raises:
        InputError: no such file, no table of a layout that a step takes, columns or latencies that are wrong, no row
            of the GPU or of the backend's framework.
    """
    place = Path(path)
    content = tuple((file.name, hashlib.sha256(_bytes(file)).hexdigest()) for file in table_files(place))
    rows, used = _read(str(place), content, json.dumps(dataclasses.asdict(gpu)))
    files = {name: digest for name, digest in content if name in used}
    found = {group.partition("/")[0] for own in rows.values() for group in own.groups}
    wanted = {backend.parts[part].partition("/")[0] for part in ("experts", *LAYERS) if part in backend.parts}
    wanted.add(backend.framework)
    if not found & wanted:
        raise InputError(
            f"{place}: column framework: found {', '.join(sorted(found))}, wanted rows of "
            f"{', '.join(sorted(wanted))} for {backend.name}"
        )
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest() if place.is_dir() else next(iter(files.values()))
    measured = Measured(name=place.name, files=files, sha256=digest, rows=rows, excluded=excluded)
    return dataclasses.replace(backend, measured=measured)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read as a table: {error.strerror or error}") from None


@lru_cache(maxsize=4)
def _read(path: str, content: tuple[tuple[str, str], ...], gpu_json: str) -> tuple[Mapping[str, Rows], frozenset[str]]:
    """The rows of each layout that a step on the GPU can take, and their files; read once for the same content."""
    gpu = GpuSpec(**json.loads(gpu_json))
    own = {gpu.name.lower().replace("-", "_"): gpu}
    reading = read_folder(path, Reading(layouts=AXES, gpus={**published_gpus(), **own}))
    _refuse(reading.problems)
    if not reading.tables:
        others = ", ".join(name for name, _ in content[:5])
        raise InputError(f"{path}: found {others}, wanted tables that a step takes: {', '.join(AXES)}")
    systems = sorted({str(system) for table in reading.tables for system in table.frame["system"].unique()})
    mine = {system for system in systems if gpu_of(system, own) is not None}
    if not mine:
        raise InputError(f"{path}: column system: found {', '.join(systems)}, wanted rows of {gpu.name}")
    rows, files = defaultdict(list), []
    for table in reading.tables:
        part = rows_for(table, mine)
        if part.scored.any():
            problems, doubts = far_off(part, predict_usable(part, gpus=reading.gpus))
            _refuse(problems + doubts)
            rows[table.layout.name].append(rows_of(part))
            files.append(Path(table.path).name)
    if not rows:
        raise InputError(f"{path}: found no row of {gpu.name} that is no artefact, wanted some that a step takes")
    return {layout: concatenate(parts) for layout, parts in rows.items()}, frozenset(files)


def _refuse(problems: list[str]) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(problems[0] + more)
