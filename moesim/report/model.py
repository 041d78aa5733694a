"""What a model is and needs, for the terminal, within 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from moesim.report.terminal import text_table
from moesim.report.text import printable
from moesim.report.units import ABSENT, bytes_text, count, number

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 80
_LABEL = 18
_PARTS = ("experts", "shared", "dense", "attention", "router", "embeddings", "vision")
_SHOWN_DTYPES = ("bf16", "fp8", "int4")


def parameters_text(amount: float) -> str:
    """A number of parameters as publishers write it: "46.7B", "1.03T", "620M"."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if amount >= size:
            return f"{number(amount / size, 3)}{unit}"
    return count(amount)


def model_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """A line a fact, wrapped; `facts` as of `moesim.study.describe.describe_model`."""
    for label, text in _facts(facts):
        body = textwrap.wrap(printable(text, 2000), WIDTH - _LABEL, break_long_words=True) or [ABSENT]
        yield f"{label:<{_LABEL}}{body[0]}"
        yield from (f"{'':<{_LABEL}}{line}" for line in body[1:])


def gpu_table(facts: Mapping[str, Any]) -> Table:
    """GPUs that hold the model: how many of each, what is on one, and the tokens of caches that all have room for."""
    rows = [
        [
            printable(name),
            count(row["gpus"]),
            _ranks(row),
            count(row.get("attention_tp")),
            bytes_text(row["memory_bytes"], 3),
            bytes_text(row.get("weight_bytes"), 3),
            bytes_text(row.get("free_bytes"), 3),
            count(row.get("kv_tokens")) if row["gpus"] else ABSENT,
        ]
        for name, row in facts["gpus"].items()
    ]
    table = text_table(["GPU", "GPUs", "EP", "TP", "memory", "weights", "free", "KV tokens"], rows, 1)
    table.padding = (0, 1, 0, 0)
    return table


def _ranks(row: Mapping[str, Any]) -> str:
    """Expert-parallel ranks, and the GPUs of each where these are several: "64", "8x2"."""
    if not row["gpus"]:
        return ABSENT
    return str(row["expert"]) + (f"x{row['expert_tp']}" if row["expert_tp"] > 1 else "")


def gpu_note(facts: Mapping[str, Any]) -> str:
    """What the table of GPUs counts."""
    text = (
        f"The fewest GPUs that hold the model in {facts['weights']['dtype']} with the cache of a sequence: EP ranks "
        "share the experts (8x2: of 2 GPUs each), TP GPUs the heads of attention, all else is on each; 10 % of the "
        "memory is kept back. KV tokens are those that all of them have room for, in sequences of "
        f"{count(facts['kv_cache']['context_tokens'])}."
    )
    return textwrap.fill(text, WIDTH)


def attention_text(kinds: list[dict[str, Any]]) -> str:
    """Kinds of attention in words: "18 x gqa 64/8, window 128; 18 x gqa 64/8"."""
    return "; ".join(f"{kind['layers']} x {_kind(kind)}" for kind in kinds)


def _kind(kind: Mapping[str, Any]) -> str:
    heads = f" {kind['heads']}/{kind['kv_heads']}" if "heads" in kind else ""
    limits = [
        f"{words} {count(kind[field])}"
        for field, words in (
            ("window", "window"),
            ("chunk", "chunks of"),
            ("index_top_k", "indexer of"),
            ("compress_ratio", "compressed by"),
        )
        if field in kind
    ]
    return ", ".join([f"{kind['kind']}{heads}", *limits])


def _facts(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    parameters, weights, cache = facts["parameters"], facts["weights"], facts["kv_cache"]
    yield "model", f"{facts['name']}"
    if facts["source"]:
        yield "source", facts["source"]
    yield (
        "parameters",
        f"{parameters_text(parameters['total'])} total, {parameters_text(parameters['active'])} active",
    )
    parts = (f"{part} {parameters_text(parameters[part])}" for part in _PARTS if parameters[part])
    yield "", ", ".join(parts)
    dense = f", {len(facts['dense_layers'])} without experts" if facts["dense_layers"] else ""
    yield "layers", f"{facts['layers']}: {facts['moe_layers']} with experts{dense}; hidden size {facts['hidden_size']}"
    shared, zero = facts["shared_experts"], facts["zero_experts"]
    others = (f", {_plain(shared)} shared" if shared else "") + (
        f", {_plain(zero)} that compute nothing" if zero else ""
    )
    yield (
        "experts",
        f"{facts['experts']}, top-{_plain(facts['top_k'])}{others}; width {_plain(facts['expert_width'])}",
    )
    yield "router", _plain(facts["router"])
    given = facts["router_parameters"]
    if given:
        yield "", _plain(given)
    if facts["groups"]:
        yield "groups", _plain(facts["groups"])
    yield "attention", attention_text(facts["attention"])
    own = "".join(f", {part} in {dtype}" for part, dtype in weights["part_dtypes"].items() if dtype != weights["dtype"])
    yield "weights", f"{bytes_text(weights['bytes']['stored'])} as stored: {weights['dtype']}{own}"
    yield "", ", ".join(f"{dtype} {bytes_text(weights['bytes'][dtype], 3)}" for dtype in _SHOWN_DTYPES)
    fixed = cache["bytes_per_sequence"]
    once = f", and {bytes_text(fixed, 3)} of each sequence" if fixed else ""
    yield "KV cache", f"{bytes_text(cache['bytes_per_token'])} a token in {cache['dtype']}{once}"
    yield "", f"{bytes_text(cache['bytes'], 3)} of a sequence of {count(cache['context_tokens'])} tokens"
    for name, label in facts["estimated"].items():
        yield "estimated", f"{name}, {label.removeprefix('estimated: ')}"


def _plain(value: Any) -> str:
    """Mappings as `name value`, lists with slashes."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " / ".join(_plain(item) for item in value)
    return ABSENT if value is None else str(value)
