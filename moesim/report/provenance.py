"""What a run rests on: each input and whether it was measured, estimated or made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moesim.report.run import RunLike
from moesim.report.text import printable

LABELS = ("measured", "estimated", "synthetic")
_MAX_NOTE = 1000
_LABEL_KEYS = ("label", "kind", "provenance", "status")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One input: its name, its label (one of LABELS, or "" if none was given), a note, and the variants with it."""

    name: str
    label: str
    note: str
    variants: str


def provenance(runs: Mapping[str, RunLike]) -> list[Source]:
    """The inputs of all runs; what is the same in all of them stands once, as of "all"."""
    owners: dict[tuple[str, str, str], list[str]] = {}
    for variant, run in runs.items():
        for row in _rows(run.manifest):
            owners.setdefault(row, []).append(printable(variant))
    ordered = sorted(owners.items(), key=lambda item: item[0][0])  # stable: variants stay in their order
    return [
        Source(
            name=name,
            label=kind,
            note=note,
            variants="all" if len(variants) == len(runs) else ", ".join(variants),
        )
        for (name, kind, note), variants in ordered
    ]


def counts(manifest: Mapping[str, Any]) -> str:
    """One line: "2 measured, 5 estimated, 1 synthetic"; empty where nothing is labelled.

    Files of inputs have no label of their own: the entries say what was taken from them.
    """
    labels = [kind for _, kind, _ in _rows(manifest)]
    return ", ".join(f"{labels.count(kind)} {kind}" for kind in LABELS if kind in labels)


def _rows(manifest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, label, note) of each entry of the provenance, then of each input file."""
    rows = list(dict.fromkeys(_entries("", manifest.get("provenance"))))
    rows += [
        (printable(found.get("name", "input")), "", f"sha256 {printable(found.get('sha256', ''))}")
        for found in manifest.get("inputs") or ()
        if isinstance(found, Mapping)
    ]
    return rows


def _entries(name: str, value: Any) -> list[tuple[str, str, str]]:
    """An entry is text that starts with its label, or a mapping that names its label, or a tree of these."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        key = next((key for key in _LABEL_KEYS if value.get(key) in LABELS), None)
        if key is not None:
            notes = [printable(v, _MAX_NOTE) for k, v in value.items() if k != key and v]
            return [(name, str(value[key]), "; ".join(notes))]
        return [
            row
            for key, v in value.items()
            for row in _entries(f"{name}.{printable(key)}" if name else printable(key), v)
        ]
    if isinstance(value, list | tuple):
        return [row for v in value for row in _entries(name, v)]
    text = printable(value, _MAX_NOTE)
    word, _, rest = text.partition(" ")
    kind = word.strip(":,;.()").lower()
    if kind not in LABELS:
        return [(name, "", text)]
    return [(name, kind, rest.strip(" :,;-"))]
