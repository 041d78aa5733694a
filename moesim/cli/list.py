"""`moesim list`: what there is to choose from."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from moesim.cli.options import JsonOption
from moesim.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "models": (
        ("parameters.total", "total"),
        ("parameters.active", "active"),
        ("n_layers", "layers"),
        ("moe_layers", "MoE"),
        ("n_experts", "experts"),
        ("top_k", "top-k"),
        ("n_shared_experts", "shared"),
        ("hidden_size", "hidden"),
        ("moe_intermediate_size", "expert width"),
        ("kinds_of_attention", "attention"),
        ("router", "router"),
        ("source", "source"),
    ),
    "gpus": (
        ("peak_tflops.bf16", "TFLOP/s bf16"),
        ("peak_tflops.fp8", "fp8"),
        ("peak_tflops.int8", "int8"),
        ("peak_tflops.fp4", "fp4"),
        ("memory_gb", "memory GB"),
        ("memory_bandwidth_gb_per_s", "GB/s"),
        ("n_sms", "SMs"),
        ("gpus_per_node", "a node"),
        ("network", "network"),
        ("link_gb_per_s", "port GB/s"),
        ("source", "source"),
        ("estimated", "not published"),
        ("kernels", "calibrated kernels"),
    ),
    "kernels": (
        ("summary", "what it is"),
        ("experts", "constants of the experts"),
        ("framework", "of the other layers"),
        ("gpu", "calibrated on"),
    ),
    "networks": (
        ("copies", "copies"),
        ("dispatch_bandwidth_gb_per_s", "dispatch GB/s"),
        ("combine_bandwidth_gb_per_s", "combine GB/s"),
        ("dispatch_latency_us", "dispatch us"),
        ("combine_latency_us", "combine us"),
        ("comm_sms", "SMs held"),
        ("measured_on", "measured on"),
        ("source", "source"),
    ),
    "popularities": (
        ("kind", "kind"),
        ("summary", "what it says"),
        ("fields", "fields"),
        ("source", "source"),
    ),
    "strategies": (
        ("summary", "what it does"),
        ("parameters", "parameters"),
        ("models", "models"),
        ("paper", "source"),
    ),
    "overflows": (("summary", "which assignments are refused, and where they go"),),
    "scopes": (("summary", "what shares a capacity"),),
    "substitutions": (("summary", "what it does"),),
    "patterns": (("summary", "what it deals"), ("reads", "parameters")),
    "placements": (("summary", "what it does"),),
    "families": (("example", "an example"), ("untold", "not modelled")),
    "layouts": (("summary", "what `moesim import` recognises"),),
}
"""Fields of an entry (dotted: of a mapping in it) and the column that shows each; pairs are (within node, across
nodes), lists of a popularity's fields from the first MoE layer to the last."""
BELOW: Mapping[str, tuple[str, ...]] = {
    "models": ("hidden_size", "moe_intermediate_size", "kinds_of_attention", "router", "source"),
    "gpus": ("network", "link_gb_per_s", "source", "estimated", "kernels"),
    "networks": ("combine_bandwidth_gb_per_s", "combine_latency_us", "comm_sms", "measured_on", "source"),
    "popularities": ("fields", "source"),
}
"""Fields that a terminal lacks the width for: they stand below its table, a paragraph an entry, those of combine
where they differ from those of dispatch."""
AMOUNTS = frozenset({"parameters.total", "parameters.active"})
"""Fields with numbers of parameters, which are shown in billions."""
NODE = 8
"""GPUs of a node where a preset says nothing."""
RENAMED = {"balancers": "substitutions"}
"""Kinds by their names in version 0.1.0."""


def list_(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=", ".join(COLUMNS))],
    json: JsonOption = False,
) -> None:
    """List what there is to choose from, by its kind."""
    if kind in RENAMED:
        print(f"warning: {kind} are now called {RENAMED[kind]}; the old name still works", file=sys.stderr)
        kind = RENAMED[kind]
    if kind not in COLUMNS:
        raise InputError(f"list: found {kind}, wanted {', '.join(COLUMNS)}{did_you_mean(kind, COLUMNS)}")
    found = entries(kind)
    if json:
        from json import dumps

        print(dumps(found, indent=2, ensure_ascii=False))
    else:
        print_entries(kind, found, sys.stdout)


def entries(kind: str) -> dict[str, dict[str, Any]]:
    """Everything of a kind by name, as plain JSON types."""
    if kind == "strategies":
        from moesim.routing.registry import STRATEGIES

        return {
            name: {field: getattr(entry, field) for field, _ in COLUMNS[kind]} for name, entry in STRATEGIES.items()
        }
    if kind == "substitutions":
        from moesim.routing.policies import SUBSTITUTIONS

        return {name: {"summary": summary} for name, summary in SUBSTITUTIONS.items()}
    if kind in {"overflows", "scopes"}:
        from moesim.routing.policies import OVERFLOWS, SCOPES

        if kind == "scopes":
            return {name: {"summary": summary} for name, summary in SCOPES.items()}
        return {name: {"summary": policy.summary} for name, policy in OVERFLOWS.items()}
    if kind == "patterns":
        from moesim.workload import PATTERNS

        return {name: {"summary": entry.summary, "reads": list(entry.reads)} for name, entry in PATTERNS.items()}
    if kind == "placements":
        from moesim.placement import PLANNERS

        return {name: {"summary": entry.summary} for name, entry in PLANNERS.items()}
    if kind == "families":
        from moesim.scenario.hugging_face import FAMILIES

        return {name: {"example": each.example, "untold": each.untold} for name, each in sorted(FAMILIES.items())}
    if kind == "layouts":
        from moesim.recordings.layouts import LAYOUTS

        return {name: {"summary": layout.summary} for name, layout in LAYOUTS.items()}
    from moesim.hardware import backends, calibrated_backends, calibrated_gpu
    from moesim.scenario import presets
    from moesim.scenario.presets import aliases

    if kind == "kernels":
        return {name: {**family, "gpu": calibrated_gpu().name} for name, family in backends().items()}
    found = presets(kind)
    if kind == "popularities":
        from moesim.scenario.schema import POPULARITY_FIELDS, POPULARITY_KINDS

        kinds = {
            f"{{kind: {name}}}": {"kind": name, "summary": text, "fields": list(POPULARITY_FIELDS[name])}
            for name, text in POPULARITY_KINDS.items()
        }
        own = {
            name: {
                **entry,
                "fields": {field: entry[field] for field in POPULARITY_FIELDS[entry["kind"]] if field in entry},
            }
            for name, entry in found.items()
        }
        return {**kinds, **own}
    if kind == "gpus":
        others = aliases(kind)
        return {
            name: {
                "vendor": "NVIDIA",
                "gpus_per_node": NODE,
                **entry,
                "aliases": others.get(name, []),
                "kernels": calibrated_backends(name),
            }
            for name, entry in found.items()
        }
    return {name: _model_entry(name, entry) for name, entry in found.items()} if kind == "models" else found


def _model_entry(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's preset says, what it need not say, and its parameters, attention and names."""
    from moesim.hardware import parameter_count
    from moesim.report.model import attention_text
    from moesim.scenario.model_shape import preset_model
    from moesim.scenario.presets import aliases
    from moesim.study.describe import kinds_of_attention

    shape = preset_model(name)
    count = parameter_count(shape)
    return {
        **_model_defaults(),
        **entry,
        "parameters": {"total": count["total"], "active": count["active"]},
        "moe_layers": len(shape.moe_layers),
        "kinds_of_attention": attention_text(kinds_of_attention(shape)),
        "hugging_face": aliases("models").get(name, []),
    }


def _model_defaults() -> dict[str, Any]:
    """What a model's preset need not say."""
    from dataclasses import fields

    from moesim.types import ModelShape

    return {field.name: field.default for field in fields(ModelShape) if isinstance(field.default, bool | int | str)}


def print_entries(kind: str, found: Mapping[str, Mapping[str, Any]], file: IO[str]) -> None:
    """Print a table that fits a terminal, what has no room in it below; elsewhere each entry is one uncut line."""
    from rich.text import Text

    from moesim.report.terminal import plain_table, print_table

    narrow = file.isatty() and kind in BELOW
    table = plain_table()
    if narrow:
        table.padding = (0, 1, 0, 0)
    table.add_column("name", no_wrap=True)
    columns = [(field, header) for field, header in COLUMNS[kind] if not (narrow and field in BELOW[kind])]
    for field, header in columns:
        numeric = all(isinstance(_value(entry, field), int | float | None) for entry in found.values())
        table.add_column(header, justify="right" if numeric else "left")
    for name, entry in found.items():
        table.add_row(name, *(Text(_shown(entry, field)) for field, _ in columns))
    print_table(table, file)
    if narrow:
        print(file=file)
        print_table(_paragraphs(kind, found), file)
    if kind == "strategies":
        from moesim.routing.registry import GATE_PARAMETERS

        print(f"\ngate: {GATE_PARAMETERS}", file=file)
    if kind == "families":
        from moesim.scenario.hugging_face import METHODS

        print(f"\nquantisation: {', '.join(METHODS)}; any other model_type is read by its keys", file=file)


def _paragraphs(kind: str, found: Mapping[str, Mapping[str, Any]]) -> Table:
    """What stands below the table of a terminal: the name of each entry that has such fields, with their values."""
    from rich.text import Text

    from moesim.report.terminal import plain_table

    table = plain_table()
    table.padding, table.show_header = (0, 1, 0, 0), False
    table.add_column()
    table.add_column(overflow="fold")
    headers = dict(COLUMNS[kind])
    for name, entry in found.items():
        told = []
        for field in BELOW[kind]:
            text, value = _shown(entry, field), _value(entry, field)
            repeated = field.startswith("combine") and value == entry.get(field.replace("combine", "dispatch"))
            if text != "-" and not repeated:
                told.append(text if field == "source" else f"{headers[field]} {text}")
        if told:
            table.add_row(Text(name), Text("; ".join(told)))
    return table


def _value(entry: Mapping[str, Any], field: str) -> Any:
    """The value of a field, or of a dotted one in a mapping; None if there is none."""
    value: Any = entry
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _shown(entry: Mapping[str, Any], field: str) -> str:
    """A field for people."""
    value = _value(entry, field)
    if field not in AMOUNTS:
        return _text(value)
    from moesim.report.model import parameters_text

    return parameters_text(value)


def _text(value: Any) -> str:
    """A value for people: pairs as `within / across`, words with commas, mappings as `name value`, absent as a dash."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    if isinstance(value, list | tuple):
        return " / ".join(_text(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
