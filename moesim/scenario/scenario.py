"""A scenario: checked fields, the nouns they stand for, and the place of each field."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from operator import index
from pathlib import Path
from typing import Any, Literal

import yaml

from moesim.errors import ScenarioError
from moesim.scenario.cluster_shape import cluster_shape
from moesim.scenario.locate import locate
from moesim.scenario.merge import Layered, layer_of, override, override_naming, override_of, read_layers
from moesim.scenario.model_shape import model_shape
from moesim.scenario.network import links_warning
from moesim.scenario.notices import idle_fields
from moesim.scenario.provenance import provenance_of
from moesim.scenario.renamed import with_current_names
from moesim.scenario.resolve import resolve
from moesim.scenario.schema import ScenarioSpec
from moesim.scenario.source import Document, FieldPath, Notice, Position, dotted, parse_document, shown
from moesim.scenario.sweep_block import read_sweep
from moesim.scenario.yaml_text import plain_data, yaml_text
from moesim.types import Parallelism, Precision

_IN_FILES = {
    "extends": "it in a scenario file; files are merged before overrides and variants",
    "compare": "it outside of variants",
    "sweep": "it outside of variants",
}
_VARIANTS = "a mapping of names to dotted overrides, such as {top-1: {routing.top_k: 1}}"


class Scenario:
    """What to simulate. Make one with `from_yaml` or `from_dict`.

    `spec` holds the checked fields, `model`, `cluster` and `precision` what
    they stand for, `provenance` where each input comes from, `warnings` what
    the writer of the file should know.
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
        self._overrides, self._renamed = with_current_names(plain_data(dict(overrides or {})))
        self._swept = frozenset(swept)
        self._variant = variant
        self._changes = dict(changes or {})
        self._root = self
        self._warnings: tuple[Notice, ...] | None = None
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
        own = {name: value for name, value in self._overrides.items() if name not in self._swept}
        base_routing = override(layered.data, own, "--set").get("routing") or {}
        self.spec: ScenarioSpec = resolve(data, self._folder, self._fail, base_routing)
        self._links_warning = links_warning(data["cluster"])
        self.model = model_shape(self.spec.model)
        self.cluster = cluster_shape(self.spec)
        self.precision = Precision(**self.spec.precision.model_dump())
        self.parallelism = Parallelism(**self.spec.parallelism.model_dump(exclude={"attention"}))
        self.provenance = provenance_of(self.spec)

    @classmethod
    def from_yaml(cls, path: str | Path, *, overrides: Mapping[str, Any] | None = None) -> Scenario:
        """Read a scenario file, or one that ships with the package by its name.

        Args:
            path: a path (it has a separator, ends in .yaml or exists) or a name such as "quickstart".
            overrides: dotted field -> value, e.g. {"workload.steps": 3}; replaces what the file says.

        Raises:
            ScenarioError: file, line, column and field, what was found and what would be right.
        """
        file = locate(str(path))
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
            document = parse_document(yaml_text(plain_data(dict(data))), "scenario")
        except yaml.representer.RepresenterError as error:
            found = f"{error.args[-1]!r:.60}"
            raise ScenarioError(f"scenario: found {found}, wanted numbers, text, lists and mappings of them") from None
        if "extends" in document.data:
            raise ScenarioError("extends: found it in a mapping, wanted it in a file")
        return cls(layer_of(Document(document.data, {})), overrides=overrides)

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
        made = Scenario(
            self._layered,
            overrides=self._overrides,
            variant=name,
            changes=self._compare[name],
            swept=self._swept,
            with_points=False,
        )
        made._root = self
        return made

    def changes(self) -> list[str]:
        """The dotted fields that this variant replaces; none for a base scenario."""
        return list(self._changes)

    def points(self) -> list[dict[str, Any]]:
        """The points of the `sweep:` block, dotted field -> value, in order; a point or a variant itself has none."""
        return self._points

    def with_overrides(self, overrides: Mapping[str, Any]) -> Scenario:
        """This scenario with dotted fields replaced, as `--set` would.

        Raises:
            ScenarioError: a field is wrong.
        """
        new, notices = with_current_names(plain_data(dict(overrides)))
        swept = self._swept - set(new)
        made = Scenario(self._layered, overrides={**self._overrides, **new}, swept=swept, with_points=False)
        made._renamed = [*self._renamed, *notices]
        return made

    def with_point(self, point: Mapping[str, Any]) -> Scenario:
        """This scenario at a point of its sweep; paths on its axes are relative to the file that has the sweep.

        Raises:
            ScenarioError: a field is wrong.
        """
        new, _ = with_current_names(plain_data(dict(point)))
        return Scenario(self._layered, overrides={**self._overrides, **new}, swept=new, with_points=False)

    def without_overrides(self) -> Scenario:
        """The scenario as its file has it, without its points.

        Raises:
            ScenarioError: the file alone is wrong.
        """
        return Scenario(self._layered, with_points=False)

    def base(self) -> Scenario:
        """The scenario before variants and points of a sweep, with `--set`; itself where that alone is wrong."""
        if self._variant is None and not self._swept:
            return self
        own = {name: value for name, value in self._overrides.items() if name not in self._swept}
        try:
            return Scenario(self._layered, overrides=own, with_points=False)
        except ScenarioError:
            return self

    @property
    def warnings(self) -> tuple[Notice, ...]:
        """Old names of fields, and fields that have no effect, in the order of its file; str() of each is one line.

        A variant has those of its file, a point of a sweep none.
        """
        root = self._root
        if root._warnings is None:  # noqa: SLF001 - one of its own
            notices = [] if root._swept else [*root._old_names(), *root._idle()]  # noqa: SLF001
            if root._links_warning:  # noqa: SLF001
                notices.append(root.notice("cluster.gpu", root._links_warning))  # noqa: SLF001
            notices.sort(key=lambda notice: (notice.place.line, notice.place.column) if notice.place else (0, 0))
            root._warnings = tuple(notices)  # noqa: SLF001
        return root._warnings  # noqa: SLF001

    def _old_names(self) -> list[Notice]:
        """Old names in its files and overrides, each once."""
        found = (*self._layered.notices, *self._renamed)
        return list({notice.text: notice for notice in reversed(found)}.values())

    def _idle(self) -> list[Notice]:
        """Fields without effect; those that `--set` replaces are not the file's any more."""
        kept = (
            (field, text) for field, text in idle_fields(self) if not override_naming(self._overrides, _path(field))
        )
        return [self.notice(field, text) for field, text in kept]

    def notice(self, field: str, text: str) -> Notice:
        """A notice about a dotted field, with its place in the file."""
        return Notice(self._position(_path(field)), field, text)

    def written(self, field: str) -> Any:
        """What the file itself says of a dotted field (not what it extends, a variant or `--set`); None = nothing."""
        path = _path(field)
        node: Any = self._layered.data
        for part in path:
            inside = (isinstance(node, dict) and part in node) or (isinstance(node, list) and part in range(len(node)))
            node = node[part] if inside else None
        positions = self._layered.positions
        return node if not positions or (path in positions and positions[path].file == positions[()].file) else None

    def with_sampling(self, sampling: Literal["logits", "direct"]) -> Scenario:
        """This scenario, or variant, with `workload.sampling` decided."""
        decided = copy.copy(self)
        workload = self.spec.workload.model_copy(update={"sampling": sampling})
        decided.spec = self.spec.model_copy(update={"workload": workload})
        decided.provenance = provenance_of(decided.spec)
        return decided

    def with_seed(self, seed: int) -> Scenario:
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
        return yaml_text(self.resolved())

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
        origin = override_of(self._changes, path)
        if origin is not None and self._variant is not None:
            place: FieldPath = ("compare", self._variant, origin)
            return f"{self._written(place)} (variant {self._variant})"
        origin = override_of(self._overrides, path)
        if origin in self._swept:
            return f"{self._written(('sweep', origin))} (sweep)"
        return self._written(path)

    def _written(self, path: FieldPath) -> str:
        """The override, or the place in a file, that wrote a field or its nearest parent."""
        own = {name: value for name, value in self._overrides.items() if name not in self._swept}
        origin = override_of(own, path)
        return str(self._position(path) or "") if origin is None else f"override {origin}"

    def _position(self, path: FieldPath) -> Position | None:
        positions = self._layered.positions
        return next((positions[path[:n]] for n in range(len(path), -1, -1) if path[:n] in positions), None)

    def _folder(self, path: FieldPath) -> Path:
        """The folder to which a path in this field is relative."""
        own, override = override_naming(self._changes, path), override_naming(self._overrides, path)
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


def _path(field: str) -> FieldPath:
    return tuple(int(part) if part.isdigit() else part for part in field.split("."))
