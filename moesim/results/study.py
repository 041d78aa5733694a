"""Several runs on shared axes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from moesim.atomic import replacing, write_file
from moesim.errors import OutputError
from moesim.frames import filled, flatten, label, mean_over_seeds, points_frame
from moesim.results.files import (
    MANIFEST,
    SCHEMA_VERSION,
    json_text,
    new_folder,
    own_manifest,
    read_frame,
    read_json,
    read_mapping,
    versions,
    write_json,
)
from moesim.results.result import Result
from moesim.scenario.renamed import current_field

if TYPE_CHECKING:
    from moesim.report import Plots


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """Many runs: variants on the same tokens, seeds, points of a sweep; the first variant is the baseline.

    Args:
        name: of the scenario.
        results: by variant, in order, of the first seed of each; a sweep keeps no frames of its runs.
        points: one row a run: the axes, `variant`, `seed`, then one column a summary key joined by dots. Default: the
            results alone.
        paired: differences to the baseline, paired by seed (`moesim.study.statistics.paired`); empty unless the
            study was made by `compare` or `sweep`.
        axes: of a sweep the swept fields, which are the first columns of points and paired; else None.
        errors: of runs that failed: mappings of axes, variant, seed and error.
        warnings: about fields of the scenario that have no effect, a line each. Default: those of the results.
    """

    name: str
    results: Mapping[str, Result] = field(default_factory=dict)
    points: pd.DataFrame = None  # type: ignore[assignment]  # filled in below
    paired: pd.DataFrame = field(default_factory=pd.DataFrame)
    axes: tuple[str, ...] | None = None
    errors: Sequence[Mapping[str, Any]] = ()
    warnings: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.points is None:
            rows = (({}, name, int(run.manifest["seed"]), flatten(run.summary)) for name, run in self.results.items())
            object.__setattr__(self, "points", points_frame(rows))
        if not self.warnings:
            lines = (line for run in self.results.values() for line in run.manifest.get("warnings", ()))
            object.__setattr__(self, "warnings", tuple(dict.fromkeys(lines)))

    def __eq__(self, other: object) -> bool:
        """Whether all but wall times are the same."""
        if not isinstance(other, Study):
            return NotImplemented
        frames = [(self.points, other.points), (self.paired, other.paired)]
        return (
            (self.name, self.axes, list(self.errors)) == (other.name, other.axes, list(other.errors))
            and list(self.results) == list(other.results)
            and all(run == other.results[name] for name, run in self.results.items())
            and all(mine.equals(theirs) for mine, theirs in frames)
        )

    __hash__ = None  # type: ignore[assignment]  # as of frames

    @property
    def summary(self) -> pd.DataFrame:
        """One row a variant (index) or, of a sweep, a point and variant: one column a summary key, mean over seeds.

        A sweep's axes and `variant` are columns too, its index is a label such as "exponent=0.2, tight".
        """
        means = mean_over_seeds(self.points, self.axes or ())
        if not self.axes:
            return means.set_index("variant")
        several = len(set(means["variant"])) > 1
        labels = [
            label(dict(zip(self.axes, row[:-1], strict=True))) + (f", {row[-1]}" if several else "")
            for row in means[[*self.axes, "variant"]].astype(object).itertuples(index=False)
        ]
        return means.set_index(pd.Index(labels, name="point", dtype="str"))

    @property
    def plot(self) -> Plots:
        """Figures of all variants: `plot.pareto()` or `plot("pareto")`; `dir(plot)` names them."""
        from moesim.report import Plots

        return Plots(self.results, self.points)

    def report_html(self) -> str:
        """The report of all variants, or of the points of a sweep: one self-contained page."""
        from moesim.report import report_html, sweep_html

        paired = self.paired if len(self.paired) and self.paired["n"].max() > 1 else None
        if not self.results:
            return sweep_html(self.points, title=self.name, paired=paired, warnings=self.warnings)
        scenario = next(iter(self.results.values())).shown_yaml()
        return report_html(self.results, title=self.name, scenario_yaml=scenario, points=self.points, paired=paired)

    def summaries(self) -> dict[str, dict[str, Any]]:
        """The summary of every variant, nested like summary.json; of several seeds the means."""
        nested = {variant: result.summary for variant, result in self.results.items()}
        if len(self.points) == len(nested):
            return nested
        means = {str(name): row for name, row in self.summary.to_dict(orient="index").items()}
        return {variant: filled(summary, means[variant]) for variant, summary in nested.items()}

    def save(self, folder: str | Path) -> Path:
        """Write the study; whole or not at all.

        Of variants: summary.json and .parquet (means over seeds), points.parquet (one row a run), paired.parquet, the
        report, and one folder a variant with the frames of its first seed. Of a sweep: summary.parquet (one row a
        run), paired.parquet and errors.json.

        Raises:
            OutputError: it cannot be written.
        """
        report = self.report_html() if len(self.points) else None
        with new_folder(folder) as new:
            places = {variant: f"{i:02d}-{_slug(variant)}" for i, variant in enumerate(self.results, start=1)}
            for variant, result in self.results.items():
                (new / places[variant]).mkdir()
                result.write_into(new / places[variant])
            if self.axes is not None:
                write_sweep(new, self)
            else:
                self.points.to_parquet(new / "points.parquet", engine="pyarrow", index=False)
                self.summary.to_parquet(new / "summary.parquet", engine="pyarrow")
                write_json(new / "summary.json", self.summaries())
                self.paired.to_parquet(new / "paired.parquet", engine="pyarrow", index=False)
                write_json(new / MANIFEST, {**manifest(self.name), "variants": places})
            if report is not None:
                (new / "report.html").write_text(report, encoding="utf-8")
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Study:
        """Read a folder that `save` or a sweep wrote.

        Raises:
            OutputError: it is no such folder, or a file is damaged.
        """
        home = Path(folder)
        found = read_mapping(home / MANIFEST, "name")
        if found.get("schema_version") != SCHEMA_VERSION or not isinstance(found.get("variants"), dict):
            raise OutputError(f"{home}: found no study with schema_version {SCHEMA_VERSION}")
        places: dict[str, str] = found["variants"]
        axes = tuple(current_field(axis) for axis in found["axes"]) if "axes" in found else None
        results = {variant: Result.load(home / Path(place).name) for variant, place in places.items()}
        points = read_points(home / ("points.parquet" if axes is None else "summary.parquet"))
        paired = read_points(home / "paired.parquet")
        errors = () if axes is None else read_json(home / "errors.json")
        return cls(
            name=found["name"],
            results=results,
            points=points,
            paired=paired,
            axes=axes,
            errors=tuple({current_field(name): value for name, value in error.items()} for error in errors),
            warnings=tuple(found.get("warnings", ())),
        )


def manifest(name: str, axes: Sequence[str] | None = None, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """What a study's folder says of itself; that of a sweep names its axes, and fields without effect."""
    named = {} if axes is None else {"axes": list(axes)}
    named |= {"warnings": list(warnings)} if warnings else {}
    return {"schema_version": SCHEMA_VERSION, "versions": versions(), "name": name, **named, "variants": {}}


def is_sweep(folder: Path) -> bool:
    """Whether the manifest of this folder is that of a sweep."""
    return "axes" in own_manifest(folder)


def write_sweep(folder: Path, study: Study) -> None:
    """The files of a sweep, each of them whole or as it was before."""
    for name, frame in (("summary.parquet", study.points), ("paired.parquet", study.paired)):
        with replacing(folder / name) as temporary:
            frame.to_parquet(temporary, engine="pyarrow", index=False)
    whole = manifest(study.name, study.axes, study.warnings)
    for name, value in (("errors.json", list(study.errors)), (MANIFEST, whole)):
        write_file(folder / name, json_text(value))


def read_points(path: Path) -> pd.DataFrame:
    """A frame whose first columns are axes, which in a study of version 0.1.0 may have former names."""
    return read_frame(path, ()).rename(columns=current_field)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "variant"
