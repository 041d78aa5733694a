"""The result of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from moesim.errors import OutputError
from moesim.results.files import (
    MANIFEST,
    SCHEMA_VERSION,
    json_text,
    new_file,
    new_folder,
    read_frame,
    read_mapping,
    write_json,
)
from moesim.scenario.renamed import with_current_names
from moesim.types import LEVELS, PARTS

if TYPE_CHECKING:
    from moesim.report import Plots

TRACE = "timeline.json"
_INT, _FLOAT, _TEXT = "int64", "float64", "str"


def _columns(integers: str = "", floats: str = "", texts: str = "") -> dict[str, str]:
    kinds = ((integers, _INT), (floats, _FLOAT), (texts, _TEXT))
    return {name: kind for names, kind in kinds for name in names.split()}


_PARTS_S = " ".join(f"{part}_s" for part in PARTS)

FRAMES: Mapping[str, Mapping[str, str]] = {
    "steps": {
        "step": _INT,
        **_columns(floats=f"start_s step_time_s {_PARTS_S}"),
        **_columns(
            "tokens requested processed dropped rerouted",
            "balancedness_min max_violation_max",
        ),
        **_columns(" ".join(f"bytes_{level}" for level in LEVELS)),
    },
    "layers": {
        **_columns("step layer", "max_violation balancedness cv gini entropy"),
        **_columns("dead_experts requested processed dropped rerouted"),
    },
    "router": _columns("step layer", "aux_loss z_loss bias_min bias_max popularity_shift_std"),
    "experts": _columns("step layer expert requested processed dropped rerouted_in rerouted_away"),
    "gpus": {
        **_columns("step gpu node", f"{_PARTS_S} critical_s"),
        **_columns("processed sent_bytes received_bytes"),
    },
    "links": {
        **_columns("source destination", texts="level"),
        **_columns("messages bytes"),
    },
    "timeline": {
        **_columns("step gpu stream layer", texts="kind"),
        **_columns("", "start_s end_s"),
        **_columns("bytes tokens"),
    },
}
"""Columns and types of every frame, the interface of everything downstream."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """Frames, summary and manifest of one run; see the README for columns and keys.

    Times are float64 seconds, loads and bytes int64. `scenario` is the resolved
    scenario, `scenario_yaml` the same as a file that reproduces the result. A
    frame without rows, such as `router` where the router does not evolve, says
    why in `attrs["empty"]`; `manifest["empty_frames"]` names them all.
    """

    steps: pd.DataFrame
    layers: pd.DataFrame
    router: pd.DataFrame
    experts: pd.DataFrame
    gpus: pd.DataFrame
    links: pd.DataFrame
    timeline: pd.DataFrame
    summary: dict[str, Any]
    scenario: dict[str, Any]
    scenario_yaml: str
    manifest: dict[str, Any]

    def __post_init__(self) -> None:
        for name, why in self.manifest.get("empty_frames", {}).items():
            getattr(self, name).attrs["empty"] = why

    @property
    def name(self) -> str:
        """The scenario's name."""
        return str(self.scenario["name"])

    @property
    def plot(self) -> Plots:
        """Figures of this run: `plot.latency_breakdown()` or `plot("latency_breakdown")`; `dir(plot)` names them."""
        from moesim.report import Plots

        return Plots({self.name: self})

    def report_html(self) -> str:
        """The report of this run: one self-contained page."""
        from moesim.report import report_html

        return report_html({self.name: self}, title=self.name, scenario_yaml=self.shown_yaml())

    def shown_yaml(self) -> str:
        """The resolved scenario without the folders of this machine, as the report shows it."""
        text, kernels = self.scenario_yaml, self.scenario.get("cluster", {}).get("kernels")
        paths = kernels if isinstance(kernels, dict) else {"kernels": kernels}
        for path in (self.scenario.get("workload", {}).get("trace"), *paths.values()):
            if path:
                text = text.replace(path, Path(path).name)
        return text

    def save(self, folder: str | Path, *, trace: bool = False) -> Path:
        """Write frames (parquet), summary.json, scenario.yaml, manifest.json and report.html.

        The folder appears whole or not at all; an existing one is replaced if it holds a moesim result.

        Args:
            folder: where to.
            trace: also write timeline.json, as `save_trace` does.

        Raises:
            OutputError: it cannot be written.
            InputError: a trace is wanted and no timeline was kept.
        """
        report = self.report_html()
        with new_folder(folder) as new:
            self.write_into(new)
            (new / "report.html").write_text(report, encoding="utf-8")
            if trace:
                self.save_trace(new / TRACE)
        return Path(folder)

    def save_trace(self, path: str | Path) -> Path:
        """Write the kept steps as a trace (JSON) that ui.perfetto.dev and chrome://tracing open.

        The file appears whole or not at all; an existing one is replaced if it is such a trace.

        Raises:
            OutputError: it cannot be written.
            InputError: no timeline was kept (keep.timeline_steps: 0).
        """
        from moesim.report.perfetto import OPENING, write_trace

        with new_file(path, opening=OPENING) as file:
            write_trace(self, file)
        return Path(path)

    def write_into(self, folder: Path) -> None:
        """Write all files but the report into an existing folder."""
        for name in FRAMES:
            getattr(self, name).to_parquet(folder / f"{name}.parquet", engine="pyarrow", index=False)
        (folder / "summary.json").write_text(json_text(self.summary), encoding="utf-8")
        (folder / "scenario.yaml").write_text(self.scenario_yaml, encoding="utf-8")
        write_json(folder / "scenario.json", self.scenario)
        write_json(folder / MANIFEST, {"schema_version": SCHEMA_VERSION, **self.manifest})

    @classmethod
    def load(cls, folder: str | Path) -> Result:
        """Read a folder that `save` wrote; equal to what was saved.

        Of a result of version 0.1.0 the fields of `scenario` get their present names; `scenario_yaml` stays as it is.

        Raises:
            OutputError: it is no such folder, or a file is damaged.
        """
        home = Path(folder)
        manifest = read_mapping(home / MANIFEST)
        if manifest.pop("schema_version", None) != SCHEMA_VERSION or "variants" in manifest:
            raise OutputError(f"{home}: found no result of one run with schema_version {SCHEMA_VERSION}")
        if "empty_frames" in manifest:  # version 0.1.0 had a frame more, which was always empty
            manifest["empty_frames"] = {n: why for n, why in manifest["empty_frames"].items() if n in FRAMES}
        frames = {name: read_frame(home / f"{name}.parquet", columns) for name, columns in FRAMES.items()}
        try:
            scenario_yaml = (home / "scenario.yaml").read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise OutputError(f"{home}: cannot be read as a moesim result: {error}") from None
        return cls(
            **frames,
            summary=read_mapping(home / "summary.json", "step_time_s"),
            scenario=with_current_names(read_mapping(home / "scenario.json", "name"))[0],
            scenario_yaml=scenario_yaml,
            manifest=manifest,
        )

    def __eq__(self, other: object) -> bool:
        """Whether all but wall times, and warnings about the file that the scenario was read from, are the same."""
        if not isinstance(other, Result):
            return NotImplemented
        exempt = {"profile_s", "events", "warnings"}
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if isinstance(mine, pd.DataFrame):
                if not mine.equals(theirs):
                    return False
            elif field.name == "manifest":
                if {k: v for k, v in mine.items() if k not in exempt} != {
                    k: v for k, v in theirs.items() if k not in exempt
                }:
                    return False
            elif mine != theirs:
                return False
        return True

    __hash__ = None  # type: ignore[assignment]
