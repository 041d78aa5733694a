"""Several runs on shared axes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from moesim.errors import OutputError
from moesim.results.files import (
    MANIFEST,
    SCHEMA_VERSION,
    new_folder,
    read_json,
    versions,
    write_json,
)
from moesim.results.result import Result
from moesim.results.summary import flatten

if TYPE_CHECKING:
    from moesim.report import Plots


@dataclass(frozen=True, kw_only=True)
class Study:
    """Results by variant, in order; the first is the baseline."""

    name: str
    results: Mapping[str, Result]

    @property
    def summary(self) -> pd.DataFrame:
        """One row a variant (index), one column a summary key joined by dots."""
        rows = {variant: flatten(result.summary) for variant, result in self.results.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("variant")

    @property
    def plot(self) -> Plots:
        """Figures of all variants: `plot.pareto()` or `plot("pareto")`; `dir(plot)` names them."""
        from moesim.report import Plots

        return Plots(self.results)

    def report_html(self) -> str:
        """The report of all variants: one self-contained page."""
        from moesim.report import report_html

        baseline = next(iter(self.results.values()))
        return report_html(self.results, title=self.name, scenario_yaml=baseline.shown_yaml())

    def save(self, folder: str | Path) -> Path:
        """Write summary.json and .parquet, the report and one folder a variant; whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        report = self.report_html()
        with new_folder(folder) as new:
            places = {variant: f"{i:02d}-{_slug(variant)}" for i, variant in enumerate(self.results, start=1)}
            for variant, result in self.results.items():
                (new / places[variant]).mkdir()
                result.write_into(new / places[variant])
            self.summary.to_parquet(new / "summary.parquet", engine="pyarrow")
            write_json(
                new / "summary.json",
                {variant: result.summary for variant, result in self.results.items()},
            )
            manifest = {
                "schema_version": SCHEMA_VERSION,
                "versions": versions(),
                "name": self.name,
            }
            write_json(new / MANIFEST, {**manifest, "variants": places})
            (new / "report.html").write_text(report, encoding="utf-8")
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Study:
        """Read a folder that `save` wrote.

        Raises:
            OutputError: it is no such folder, or a file is damaged.
        """
        home = Path(folder)
        manifest = read_json(home / MANIFEST)
        if manifest.get("schema_version") != SCHEMA_VERSION or not isinstance(manifest.get("variants"), dict):
            raise OutputError(f"{home}: found no study with schema_version {SCHEMA_VERSION}")
        places: dict[str, str] = manifest["variants"]
        return cls(
            name=manifest["name"],
            results={variant: Result.load(home / Path(place).name) for variant, place in places.items()},
        )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "variant"
