"""What was simulated, in a few words each: the head of the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moesim.report.run import RunLike
from moesim.report.text import printable
from moesim.report.units import count

_NAMED = (("model", "model.name"), ("gpu", "cluster.gpu.name"), ("network", "cluster.network.name"))
_OF_ONE_RUN = (
    ("phase", "workload.phase"),
    ("routing", "routing.strategy"),
    ("capacity factor", "routing.capacity.factor"),
    ("placement", "placement.strategy"),
)


def header_facts(runs: Mapping[str, RunLike], scenario_yaml: str | None) -> list[tuple[str, str]]:
    """(name, value) pairs; a fact that differs between the runs lists its values, the baseline's first.

    Names of model, GPU and network are read from the resolved scenario, which
    is the baseline's; where another variant has another one, it says so.
    """
    found: dict[str, list[str]] = {}
    for run in runs.values():
        for name, value in _measured(run):
            values = found.setdefault(name, [])
            if value not in values:
                values.append(value)
    return [
        *_from_scenario(runs, scenario_yaml),
        *((name, ", ".join(values)) for name, values in found.items()),
    ]


def _from_scenario(runs: Mapping[str, RunLike], scenario_yaml: str | None) -> list[tuple[str, str]]:
    import yaml

    try:
        scenario = yaml.safe_load(scenario_yaml or "")
    except yaml.YAMLError:  # the page shows the text as it is; its facts are a convenience
        return []
    rows = []
    for name, path in _NAMED if len(runs) > 1 else (*_NAMED, *_OF_ONE_RUN):
        value = _at(scenario, path)
        if value is None or isinstance(value, list | Mapping):
            continue
        inputs = [str((run.manifest.get("provenance") or {}).get(name)) for run in runs.values()]
        others = "" if len(set(inputs)) == 1 else " (baseline)"
        rows.append((name.upper() if name == "gpu" else name, printable(value) + others))
    return rows


def _at(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _measured(run: RunLike) -> list[tuple[str, str]]:
    """What the frames and the manifest of a run tell of its size."""
    rows = []
    if len(run.gpus):
        rows.append(("GPUs", count(run.gpus["gpu"].nunique())))
        rows.append(("nodes", count(run.gpus["node"].nunique())))
    if len(run.layers):
        rows.append(("MoE layers", count(run.layers["layer"].nunique())))
    if len(run.experts):
        rows.append(("experts per layer", count(run.experts["expert"].nunique())))
    rows.append(("measured steps", count(len(run.steps))))
    if len(run.steps):
        rows.append(("tokens per step", count(float(run.steps["tokens"].mean()))))
    rows += [(name, printable(run.manifest[name])) for name in ("seed", "engine") if run.manifest.get(name) is not None]
    version = (run.manifest.get("versions") or {}).get("moesim")
    if version is not None:
        rows.append(("moesim", printable(version)))
    return rows
