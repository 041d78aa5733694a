"""A scenario: checked fields, the nouns they stand for, and the place of each field."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from operator import index
from pathlib import Path, PurePath
from typing import Any, Literal

import yaml

from moesim.errors import ScenarioError
from moesim.scenario.layers import Layered, override, read_layers
from moesim.scenario.resolve import resolve
from moesim.scenario.schema import ScenarioSpec
from moesim.scenario.source import FieldPath, dotted, parse_document, shown
from moesim.scenario.sweep import read_sweep
from moesim.types import ClusterShape, GpuSpec, ModelShape, NetworkSpec, Parallelism, Precision

SUFFIXES = (".yaml", ".yml")
_IN_FILES = {
    "extends": "it in a scenario file; files are merged before overrides and variants",
    "compare": "it outside of variants",
    "sweep": "it outside of variants",
}
_VARIANTS = "a mapping of names to dotted overrides, such as {top-1: {routing.top_k: 1}}"


class Scenario:
    """What to simulate. Make one with `from_yaml` or `from_dict`.

    `spec` holds the checked fields, `model`, `cluster` and `precision` what
    they stand for, `provenance` where each input comes from.
    """

    def __init__(
        self,
        layered: Layered,
        *,
        overrides: Mapping[str, Any] | None = None,
        variant: str | None = None,
        changes: Mapping[str, Any] | None = None,
        swept: Collection[str] = (),
        with_points: bool = True,
    ) -> None:
        self._layered = layered
        self._overrides = plain_data(dict(overrides or {}))
        self._swept = frozenset(swept)
        self._variant = variant
        self._changes = dict(changes or {})
        data = override(layered.data, self._overrides, "--set")
        self._compare = data.pop("compare", None)
        self._sweep = data.pop("sweep", None)
        self._check_variants()
        if variant is not None:
            data = override(data, self._changes, self._place(("compare", variant)))
        for name, wanted in _IN_FILES.items():
            if name in data:
                raise self._fail((name,), shown(data[name]), wanted)
        self._points = read_sweep(self._sweep, self._fail) if with_points else []
        self.spec: ScenarioSpec = resolve(data, self._folder, self._fail)
        self.model = _model(self.spec)
        self.cluster = _cluster(self.spec)
        self.precision = Precision(**self.spec.precision.model_dump())
        self.parallelism = Parallelism(**self.spec.parallelism.model_dump(exclude={"attention"}))
        self.provenance = _provenance(self.spec)

    @classmethod
    def from_yaml(cls, path: str | Path, *, overrides: Mapping[str, Any] | None = None) -> Scenario:
        """Read a scenario file, or one that ships with the package by its name.

        Args:
            path: a path (it has a separator, ends in .yaml or exists) or a name such as "quickstart".
            overrides: dotted field -> value, e.g. {"workload.steps": 3}; replaces what the file says.

        Raises:
            ScenarioError: file, line, column and field, what was found and what would be right.
        """
        file = _locate(str(path))
        layered = read_layers(file, str(path))
        if layered.data.get("name") is None:
            layered.data["name"] = file.stem
        return cls(layered, overrides=overrides)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, overrides: Mapping[str, Any] | None = None) -> Scenario:
        """A scenario from the data of a file; paths in it are relative to the current folder.

        Raises:
            ScenarioError: field, what was found and what would be right.
        """
        try:
            document = parse_document(_yaml(plain_data(dict(data))), "scenario")
        except yaml.representer.RepresenterError as error:
            found = f"{error.args[-1]!r:.60}"
            raise ScenarioError(f"scenario: found {found}, wanted numbers, text, lists and mappings of them") from None
        if "extends" in document.data:
            raise ScenarioError("extends: found it in a mapping, wanted it in a file")
        return cls(Layered(document.data, {}, {}), overrides=overrides)

    def variants(self) -> dict[str, Scenario]:
        """The named variants, in order; each is this scenario with its overrides.

        Raises:
            ScenarioError: a variant is wrong.
        """
        return {name: self.variant(name) for name in self.variant_names()}

    def variant_names(self) -> list[str]:
        """The names of the variants, in order."""
        return list(self._compare or ())

    def variant(self, name: str) -> Scenario:
        """One of the named variants.

        Raises:
            ScenarioError: there is none of that name, or it is wrong.
        """
        if name not in self.variant_names():
            known = ", ".join(self.variant_names()) or "none, as it has no variants"
            raise ScenarioError(f"compare: found no variant {name}, wanted one of {known}")
        return Scenario(
            self._layered,
            overrides=self._overrides,
            variant=name,
            changes=self._compare[name],
            swept=self._swept,
            with_points=False,
        )

    def changes(self) -> list[str]:
        """The dotted fields that this variant replaces; none for a base scenario."""
        return list(self._changes)

    def points(self) -> list[dict[str, Any]]:
        """The points of the `sweep:` block, dotted field -> value, in order; a point or a variant itself has none."""
        return self._points

    def changed(self, overrides: Mapping[str, Any]) -> Scenario:
        """This scenario with dotted fields replaced, as `--set` would.

        Raises:
            ScenarioError: a field is wrong.
        """
        swept = self._swept - set(overrides)
        return Scenario(self._layered, overrides={**self._overrides, **overrides}, swept=swept, with_points=False)

    def at(self, point: Mapping[str, Any]) -> Scenario:
        """This scenario at a point of its sweep; paths on its axes are relative to the file that has the sweep.

        Raises:
            ScenarioError: a field is wrong.
        """
        return Scenario(self._layered, overrides={**self._overrides, **point}, swept=point, with_points=False)

    def settled(self, sampling: Literal["logits", "direct"]) -> Scenario:
        """This scenario, or variant, with `workload.sampling` decided."""
        decided = copy.copy(self)
        workload = self.spec.workload.model_copy(update={"sampling": sampling})
        decided.spec = self.spec.model_copy(update={"workload": workload})
        decided.provenance = _provenance(decided.spec)
        return decided

    def seeded(self, seed: int) -> Scenario:
        """This scenario, or variant, with another seed, which its variants and points have too."""
        other = self.with_parts(seed=index(seed))
        other._overrides = {**self._overrides, "seed": index(seed)}  # noqa: SLF001 - one of its own
        return other

    def with_parts(self, **parts: Any) -> Scenario:
        """This scenario, or variant, with checked parts of `spec` replaced that neither model nor cluster depend on."""
        other = copy.copy(self)
        other.spec = self.spec.model_copy(update=parts)
        return other

    def error(self, path: str, found: object, wanted: str) -> ScenarioError:
        """The error of a field, for checks that need other parts of the package.

        Args:
            path: dotted field; if it was not written, its nearest parent's place is named.
            found: a value, or text that describes it.
            wanted: what would be right.
        """
        return self._fail(tuple(path.split(".")), found if isinstance(found, str) else shown(found), wanted)

    def refusal(self, path: str, sentence: str) -> ScenarioError:
        """The error of a field that a whole sentence says more plainly than found and wanted."""
        return ScenarioError(": ".join(filter(None, (self._place(tuple(path.split("."))), path, sentence))))

    def resolved(self) -> dict[str, Any]:
        """The scenario with all presets and defaults filled in, as plain data."""
        return self.spec.model_dump(mode="json")

    def resolved_yaml(self) -> str:
        """The same as a scenario file, which reproduces the run."""
        return _yaml(self.resolved())

    def _check_variants(self) -> None:
        """Refuse a `compare:` of another form; what a variant sets is checked when it is made."""
        if not (self._compare is None or isinstance(self._compare, dict)):
            raise self._fail(("compare",), shown(self._compare), _VARIANTS)
        for name, changes in (self._compare or {}).items():
            if not (changes is None or isinstance(changes, dict)):
                raise self._fail(("compare", name), shown(changes), _VARIANTS)

    def _fail(self, path: FieldPath, found: str, wanted: str) -> ScenarioError:
        place = self._place(path)
        return ScenarioError(f"{place}{': ' if place else ''}{dotted(path)}: found {found}, wanted {wanted}")

    def _place(self, path: FieldPath) -> str:
        """Where a field was written: in the variant, on the command line, or in the file (or its nearest parent)."""
        origin = _governing(self._changes, path)
        if origin is not None and self._variant is not None:
            place: FieldPath = ("compare", self._variant, origin)
            return f"{self._written(place)} (variant {self._variant})"
        origin = _governing(self._overrides, path)
        if origin in self._swept:
            return f"{self._written(('sweep', origin))} (sweep)"
        return self._written(path)

    def _written(self, path: FieldPath) -> str:
        """The override, or the place in a file, that wrote a field or its nearest parent."""
        own = {name: value for name, value in self._overrides.items() if name not in self._swept}
        origin = _governing(own, path)
        return self._position(path) if origin is None else f"override {origin}"

    def _position(self, path: FieldPath) -> str:
        positions = self._layered.positions
        for length in range(len(path), -1, -1):
            if path[:length] in positions:
                return str(positions[path[:length]])
        return ""

    def _folder(self, path: FieldPath) -> Path:
        """The folder to which a path in this field is relative."""
        own, override = _naming(self._changes, path), _naming(self._overrides, path)
        where = path
        if own is not None and self._variant is not None:
            where = ("compare", self._variant, own)
        elif override in self._swept:
            where = ("sweep",)
        elif override is not None:
            return Path.cwd()
        for length in range(len(where), 0, -1):
            if where[:length] in self._layered.folders:
                return self._layered.folders[where[:length]]
        return Path.cwd()


def plain_data(value: Any) -> Any:
    """Data as a file would hold it: of NumPy numbers, arrays and paths, which Python code has, and of nothing else."""
    if isinstance(value, Mapping):
        return {name: plain_data(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_data(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    return value.tolist() if hasattr(value, "tolist") else value


def _governing(overrides: Mapping[str, Any], path: FieldPath) -> str | None:
    """The override that wrote a field, a parent of it, or part of it."""
    parts = tuple(str(part) for part in path)
    best = None
    for name in overrides:
        own = tuple(str(name).split("."))
        shorter = min(len(own), len(parts))
        if own[:shorter] == parts[:shorter] and len(own) >= 1 and (best is None or len(name) > len(best)):
            best = name
    return best


def _naming(overrides: Mapping[str, Any], path: FieldPath) -> str | None:
    """The override that wrote the value of a field, or a parent of it; not one of a field below."""
    parts = tuple(str(part) for part in path)
    names = {str(name): tuple(str(name).split(".")) for name in overrides}
    writes = [name for name, own in names.items() if own in (parts[: len(own)], (*parts, "preset"))]
    return max(writes, key=len, default=None)


def _locate(name: str) -> Path:
    """A path, or a scenario of the package."""
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


def _model(spec: ScenarioSpec) -> ModelShape:
    return ModelShape(**spec.model.model_dump())


def _cluster(spec: ScenarioSpec) -> ClusterShape:
    network = spec.cluster.network.model_dump(exclude={"provenance", "port_bandwidth_factor"})
    if spec.simulation.network == "port":  # rates belong to the level of detail that uses them
        within, across = spec.cluster.network.port_bandwidth_factor
        for field in ("dispatch_bandwidth_gb_per_s", "combine_bandwidth_gb_per_s"):
            network[field] = (network[field][0] * within, network[field][1] * across)
    return ClusterShape(
        gpu=GpuSpec(**spec.cluster.gpu.model_dump()),
        network=NetworkSpec(**network),
        n_nodes=spec.cluster.nodes,
        gpus_per_node=spec.cluster.gpus_per_node,
    )


def _provenance(spec: ScenarioSpec) -> dict[str, str]:
    """Each input with its label: measured on hardware or recorded, estimated (published figures), or synthetic."""

    def published(name: str, source: str) -> str:
        changed = not source or name.endswith("(changed)") or name == "inline"
        return f"synthetic: {name}" if changed else f"estimated: {name}, published: {source}"

    model, gpu, network = spec.model, spec.cluster.gpu, spec.cluster.network
    precision = spec.precision
    lacking = [
        f"{part} in bf16, as {gpu.name} does not compute in {dtype}"
        for part, dtype, own in (
            ("activations", precision.weights, precision.activations),
            ("dispatch", model.dispatch_dtype, precision.dispatch),
        )
        if dtype not in gpu.peak_tflops and own == "bf16"
    ]
    label = "synthetic" if network.name.endswith("(changed)") else network.provenance
    entries = {
        "model": published(model.name, model.source),
        "gpu": published(gpu.name, gpu.source),
        "network": f"{label}: {network.name}" + (f", {network.source}" if network.source else ""),
        "tokens": _tokens(spec),
    }
    if lacking:
        entries["precision"] = f"estimated: {'; '.join(lacking)}"
    return entries


def _tokens(spec: ScenarioSpec) -> str:
    if spec.workload.trace:
        return "measured: recorded routing"
    drawn = ", their top k drawn directly" if spec.workload.sampling == "direct" else ""
    return f"synthetic: seeded logits of a stated skew{drawn}"


class _Dumper(yaml.SafeDumper):
    """Quotes text that a scenario file would read as a number or a word of its own."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        plain = parse_document(f"value: {text}", "").data == {"value": text}
    except ScenarioError:
        plain = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def _yaml(data: dict[str, Any]) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
