"""Which parts of a model a quantisation leaves out or takes in: lists of modules, matched with what modules are called.

Lists hold names (`lm_head`, `model.layers.3.self_attn`), names with `*`, and
expressions after `re:`. A list counts for a part in a layer if it names most of
the part's matrices there, whatever the model calls them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from moesim.errors import ScenarioError

_PREFIXES = (
    "model.layers.#.",
    "model.language_model.layers.#.",
    "language_model.model.layers.#.",
    "language_model.layers.#.",
    "layers.#.",
    "backbone.layers.#.",
    "transformer.layers.#.",
)


def _named(module: str, *matrices: str) -> tuple[str, ...]:
    return tuple(f"{module}.{each}" for each in matrices)


_GATED, _W = ("gate_proj", "up_proj", "down_proj"), ("w1", "w2", "w3")
_HEADS, _OTHER_HEADS = ("q_proj", "k_proj", "v_proj", "o_proj"), ("wq_a", "wq_b", "wkv", "wo_a", "wo_b")
_LATENT = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
_MATRICES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "attention": (
        _named("self_attn", *_HEADS),
        _named("self_attn", *_LATENT),
        _named("attn", *_OTHER_HEADS),
        _named("linear_attn", "in_proj_qkv", "in_proj_z", "out_proj"),
        _named("linear_attn", "in_proj_qkvz", "out_proj"),
        _named("mixer", *_HEADS),
        _named("mixer", "in_proj", "out_proj"),
        _named("mamba", "in_proj", "out_proj"),
    ),
    "experts": (
        _named("mlp.experts.0", *_GATED),
        _named("mlp.experts", "gate_up_proj", "down_proj"),
        _named("block_sparse_moe.experts.0", *_W),
        _named("feed_forward.experts", "gate_up_proj", "down_proj"),
        _named("feed_forward.experts.0", *_GATED),
        _named("ffn.experts.0", *_W),
        _named("mixer.experts.0", "up_proj", "down_proj"),
    ),
    "shared": (
        _named("mlp.shared_experts", *_GATED),
        _named("mlp.shared_expert", *_GATED),
        _named("block_sparse_moe.shared_experts", *_GATED),
        _named("feed_forward.shared_expert", *_GATED),
        _named("ffn.shared_experts", *_W),
        _named("mixer.shared_experts", "up_proj", "down_proj"),
    ),
    "dense": (
        _named("mlp", *_GATED),
        _named("feed_forward", *_GATED),
        _named("ffn", *_W),
        _named("mixer", "up_proj", "down_proj"),
    ),
}
"""The matrices of each part that may be quantised, as different models call them."""
PARTS = tuple(_MATRICES)
_MAX_FORMS, _MAX_EXPRESSIONS = 1000, 100
"""Above any checkpoint's, and matched within seconds."""
_LAYER = re.compile(r"layers\.(\d+)(?=\.|\*|$)")
_NESTED = re.compile(r"[+*]\)[+*{]")


def parts_named(patterns: Iterable[Any], layers: Mapping[str, Sequence[int]]) -> frozenset[str]:
    """The parts that a list names in at least half of the layers that have them.

    Args:
        patterns: the list.
        layers: of each part the layers that have it.

    Raises:
        ScenarioError: an entry is no text, or no expression.
    """
    forms, expressions = _forms(patterns)
    found = set()
    for part, having in layers.items():
        wanted = set(having)
        named: set[int] = set()
        for prefix in _PREFIXES:
            for matrices in _MATRICES[part]:
                counts = Counter(
                    layer
                    for matrix in matrices
                    for layer in _layers_naming(prefix + matrix, forms, expressions, wanted)
                )
                named |= {layer for layer, count in counts.items() if 2 * count > len(matrices)}
        if wanted and 2 * len(named) >= len(wanted):
            found.add(part)
    return frozenset(found)


def _layers_naming(
    name: str, forms: Mapping[str, set[int] | None], expressions: Sequence[re.Pattern[str]], wanted: set[int]
) -> set[int]:
    """The wanted layers in which an entry names a matrix."""
    found: set[int] = set()
    for form, of_layers in forms.items():
        if _matches(form, name):
            if of_layers is None:
                return wanted
            found |= of_layers
    for each in expressions:
        if "layers" not in each.pattern and each.match(name.replace("#", "0")):
            return wanted
        if "layers" in each.pattern:
            found |= {layer for layer in wanted if each.match(name.replace("#", str(layer)))}
    return found & wanted


def _forms(patterns: Iterable[Any]) -> tuple[dict[str, set[int] | None], list[re.Pattern[str]]]:
    """Entries that are alike but for their layer, with the layers (None: any), and the expressions."""
    forms: dict[str, set[int] | None] = {}
    expressions = {}
    for entry in patterns:
        if not isinstance(entry, str):
            raise ScenarioError(f"modules that are named by words, not {entry!r:.40}")
        if entry.startswith("re:"):
            expressions[entry] = _expression(entry[3:])
            if len(expressions) > _MAX_EXPRESSIONS:
                raise ScenarioError(f"modules that are named by at most {_MAX_EXPRESSIONS} expressions")
            continue
        text = re.sub(r"experts\.\d+", "experts.0", entry)
        place = _LAYER.search(text)
        if place is None:
            forms[text] = None
        elif forms.setdefault(form := f"{text[: place.start()]}layers.#{text[place.end() :]}", set()) is not None:
            of_layers = forms[form]
            assert of_layers is not None
            of_layers.add(int(place[1][:9]))
        if len(forms) > _MAX_FORMS:
            raise ScenarioError(f"modules of at most {_MAX_FORMS} different names, but for the layer")
    return forms, list(expressions.values())


def _expression(text: str) -> re.Pattern[str]:
    if len(text) > 1000 or _NESTED.search(text):
        raise ScenarioError(f"modules that are named by simple expressions, not {text!r:.40}")
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError):
        raise ScenarioError(f"modules that are named by expressions of Python's re, not {text!r:.40}") from None


def _matches(form: str, name: str) -> bool:
    """Whether an entry names a module or one that this is a part of."""
    if "*" in form or "?" in form:
        return fnmatchcase(name, form) or fnmatchcase(name, f"{form}.*")
    return f".{form.strip('.')}." in f".{name}."
