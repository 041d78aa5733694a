"""What a report needs to know of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import pandas as pd


class RunLike(Protocol):
    """Frames, summary and manifest of one run; `moesim.Result` is one, `Run` another."""

    @property
    def name(self) -> str:
        """Of the run; figures and tables name it by its variant."""

    @property
    def summary(self) -> dict[str, Any]:
        """Nested like summary.json."""

    @property
    def manifest(self) -> dict[str, Any]:
        """Seed, versions, inputs, provenance."""

    @property
    def scenario(self) -> dict[str, Any]:
        """The resolved scenario, nested like scenario.json; empty where none is known."""

    @property
    def steps(self) -> pd.DataFrame:
        """A row a step."""

    @property
    def layers(self) -> pd.DataFrame:
        """A row a step and MoE layer."""

    @property
    def experts(self) -> pd.DataFrame:
        """A row a step, MoE layer and expert."""

    @property
    def gpus(self) -> pd.DataFrame:
        """A row a step and GPU."""

    @property
    def links(self) -> pd.DataFrame:
        """A row a pair of GPUs and level."""

    @property
    def timeline(self) -> pd.DataFrame:
        """A row a kept operation and GPU."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A run made of plain frames, where there is no `Result`.

    `summary` is nested like summary.json; the frames have the columns of the
    README (times in seconds, loads in assignments, data in bytes).
    """

    name: str
    summary: dict[str, Any]
    manifest: dict[str, Any]
    steps: pd.DataFrame
    layers: pd.DataFrame
    experts: pd.DataFrame
    gpus: pd.DataFrame
    links: pd.DataFrame
    timeline: pd.DataFrame
    scenario: dict[str, Any] = field(default_factory=dict)
