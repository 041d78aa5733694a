"""The data types of a quantised checkpoint: `quantization_config` of its config.json, or an hf_quant_config.json.

Every method is read or refused by its name. Scales and zero points are not
counted. The part of a model that a checkpoint leaves in 16 bits stays so: what is in
the lists of modules (`moesim.scenario.hugging_face.modules`), and always
the router, the embedding and the head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moesim.errors import ScenarioError
from moesim.scenario.hugging_face.modules import PARTS, parts_named

Fields = dict[str, Any]
WIDE = "bf16"


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """Data types of the weights of the parts that are quantised; whether activations are in fp8, or not quantised."""

    weights: Mapping[str, str]
    fp8_activations: bool = False
    alone: bool = False


def quantized(config: Mapping[str, Any], layers: Mapping[str, Sequence[int]], expert_dtype: str | None) -> Fields:
    """The data types of a model.

    Args:
        config: `quantization_config`, or `quantization` of an hf_quant_config.json.
        layers: of each part of `PARTS` the layers that have it.
        expert_dtype: what the model's own config says of its experts.

    Returns:
        `weights_dtype` (of the experts), `part_dtypes` of parts in another, `dispatch_dtype`, and `alone` where
        8-bit integers are of the weights alone.

    Raises:
        ScenarioError: an unknown method or type, with what is known.
    """
    method = config.get("quant_method") or ("modelopt" if "quant_algo" in config else None)
    if not isinstance(method, str) or method not in METHODS:
        raise ScenarioError(
            f"a config.json whose quantization_config has a quant_method of {', '.join(METHODS)}, not {method!r:.40}; "
            "without the quantization_config it is read in 16 bits, and precision.weights says the data type"
        )
    scheme = METHODS[method](config, layers)
    weights = dict(scheme.weights)
    if expert_dtype is not None and "experts" in weights and method == "fp8" and weights["experts"] == "fp8":
        weights["experts"] = _dtype(expert_dtype, "expert_dtype")
    own = weights.get("experts", WIDE)
    others = {part: weights.get(part, WIDE) for part in PARTS if part != "experts" and layers.get(part)}
    return {
        "weights_dtype": own,
        "dispatch_dtype": "fp8" if scheme.fp8_activations and own != WIDE else "bf16",
        **({"alone": True} if own == "int8" and scheme.alone else {}),
        **({"part_dtypes": parts} if (parts := {p: d for p, d in others.items() if d != own}) else {}),
    }


_TYPES = {"fp4": "fp4", "nvfp4": "fp4", "mxfp4": "fp4", "fp8": "fp8", "mxfp8": "fp8", "int4": "int4", "int8": "int8"}
_TYPES |= {"bf16": WIDE, "bfloat16": WIDE, "fp16": WIDE, "float16": WIDE, "fp8_e4m3": "fp8", "fp8_e5m2": "fp8"}


def _dtype(name: Any, field: str) -> str:
    known = _TYPES.get(name.lower()) if isinstance(name, str) else None
    if known is None:
        raise ScenarioError(f"a config.json whose {field} is one of {', '.join(_TYPES)}, not {name!r:.40}")
    return known


def _list(config: Mapping[str, Any], *names: str) -> list[Any]:
    """The lists of modules under some names, together."""
    found: list[Any] = []
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if not isinstance(value, list):
            raise ScenarioError(f"a quantisation whose {name} is a list of modules, not {value!r:.40}")
        found += value
    return found


def _all_but(dtype: str, left_out: list[Any], layers: Mapping[str, Sequence[int]]) -> dict[str, str]:
    kept = parts_named(left_out, layers)
    return {part: dtype for part in layers if part not in kept}


_LEFT_OUT = ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules", "exclude")


def _fp8(config: Mapping[str, Any], layers: Mapping[str, Sequence[int]]) -> Scheme:
    """8 bits of weights and activations, but where layers are named that have 4."""
    if "quantized_layers" in config:
        base = _all_but("fp8", _list(config, "modules_to_not_convert", "ignored_layers"), layers)
        return Scheme(weights={**base, **_by_layer(config, layers)}, fp8_activations=True)
    return Scheme(weights=_all_but("fp8", _list(config, *_LEFT_OUT), layers), fp8_activations=True)


def _integers(config: Mapping[str, Any], layers: Mapping[str, Sequence[int]]) -> Scheme:
    """Weights of `bits` integers, activations of 16."""
    bits = config.get("bits", config.get("w_bit", 4))
    if bits not in (4, 8) or isinstance(bits, bool):
        raise ScenarioError(f"a config.json whose quantization_config has 4 or 8 bits, not {bits!r:.40}")
    return Scheme(weights=_all_but(f"int{bits}", _list(config, *_LEFT_OUT), layers), alone=True)


def _mxfp4(config: Mapping[str, Any], layers: Mapping[str, Sequence[int]]) -> Scheme:
    """4 bits of the experts alone, as the method converts them alone."""
    kept = parts_named(_list(config, *_LEFT_OUT), layers)
    return Scheme(weights={} if "experts" in kept else {"experts": "fp4"})


def _numbers(weights: Any, field: str) -> str:
    """The data type of numbers that are described by their bits and kind."""
    if not isinstance(weights, Mapping):
        raise ScenarioError(f"a quantization_config whose {field} has weights, a mapping, not {weights!r:.40}")
    kind, bits = weights.get("type", "int"), weights.get("num_bits")
    known = {("float", 4): "fp4", ("float", 8): "fp8", ("int", 4): "int4", ("int", 8): "int8"}
    found = known.get((kind, bits)) if isinstance(kind, str) and isinstance(bits, int) else None
    if found is None:
        raise ScenarioError(
            f"a quantization_config whose {field} has weights of 4 or 8 bits, int or float, "
            f"not {bits!r:.20} {kind!r:.20}"
        )
    return found


def _groups(config: Mapping[str, Any], layers: Mapping[str, Sequence[int]]) -> Scheme:
    """Groups of modules, each with the type of its weights."""
    groups = config.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise ScenarioError(f"a quantization_config whose config_groups is a mapping of groups, not {groups!r:.40}")
    kept = parts_named(_list(config, "ignore"), layers)
    weights: dict[str, str] = {}
    eight, alone = False, True
    for name, group in groups.items():
        if not isinstance(group, Mapping):
            raise ScenarioError(f"a quantization_config whose {name} is a mapping, not {group!r:.40}")
        dtype = _numbers(group.get("weights"), str(name)[:40])
        targets = _list(group, "targets")
        everything = not targets or any(each in ("Linear", "FusedMoE", "MoE") for each in targets)
        reached = frozenset(layers) if everything else parts_named(targets, layers)
        for part in reached - kept:
            weights.setdefault(part, dtype)
        inputs = group.get("input_activations")
        alone = alone and inputs is None
        eight = eight or (isinstance(inputs, Mapping) and (inputs.get("type"), inputs.get("num_bits")) == ("float", 8))
    return Scheme(weights=weights, fp8_activations=eight, alone=alone)


_ALGORITHMS: Mapping[str, tuple[str, bool]] = {
    "FP8": ("fp8", True),
    "FP8_PER_CHANNEL_PER_TOKEN": ("fp8", True),
    "FP8_PB_WO": ("fp8", True),
    "FP8_BLOCK_SCALES": ("fp8", True),
    "MXFP8": ("fp8", True),
    "NVFP4": ("fp4", False),
    "NVFP4_AWQ": ("fp4", False),
    "W4A16_NVFP4": ("fp4", False),
    "MXFP4": ("fp4", False),
    "W4A8_MXFP4_FP8": ("fp4", True),
    "W4A8_NVFP4_FP8": ("fp4", True),
    "W4A16_AWQ": ("int4", False),
    "W4A8_AWQ": ("int4", True),
    "INT8_SQ": ("int8", False),
    "W8A16": ("int8", False),
}
"""Types of weights, and whether activations are fp8, of the algorithms of modelopt."""


def _algorithm(name: Any) -> tuple[str, bool]:
    found = _ALGORITHMS.get(name.upper()) if isinstance(name, str) else None
    if found is None:
        raise ScenarioError(f"a quantisation whose quant_algo is one of {', '.join(_ALGORITHMS)}, not {name!r:.40}")
    return found


def _by_layer(config: Mapping[str, Any], layers: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """The types of parts that a mapping of modules states one by one."""
    stated = config.get("quantized_layers")
    if not isinstance(stated, Mapping):
        raise ScenarioError(f"a quantisation whose quantized_layers is a mapping of modules, not {stated!r:.40}")
    by_type: dict[str, list[str]] = {}
    for module, how in stated.items():
        name = how.get("quant_algo") if isinstance(how, Mapping) else how
        by_type.setdefault(_algorithm(name)[0], []).append(module)
    return {part: dtype for dtype, modules in by_type.items() for part in parts_named(modules, layers)}


def _modelopt(config: Mapping[str, Any], layers: Mapping[str, Sequence[int]]) -> Scheme:
    """One algorithm for all modules but some, or one for each of some modules."""
    algorithm = config.get("quant_algo")
    if algorithm is None and "config_groups" in config:
        return _groups(config, layers)
    if algorithm == "MIXED_PRECISION":
        weights = _by_layer(config, layers)
        return Scheme(weights=weights, fp8_activations=weights.get("experts") == "fp8")
    dtype, eight = _algorithm(algorithm)
    weights = _all_but(dtype, _list(config, *_LEFT_OUT), layers)
    return Scheme(weights=weights, fp8_activations=eight, alone=algorithm == "W8A16")


def _quark(config: Mapping[str, Any], layers: Mapping[str, Sequence[int]]) -> Scheme:
    """AMD's: a type for all modules but some."""
    whole = config.get("global_quant_config")
    weight = whole.get("weight") if isinstance(whole, Mapping) else None
    if isinstance(weight, list):
        weight = weight[-1] if weight else None
    dtype = _dtype(weight.get("dtype") if isinstance(weight, Mapping) else None, "global_quant_config.weight.dtype")
    return Scheme(weights=_all_but(dtype, _list(config, "exclude"), layers), fp8_activations=dtype == "fp8")


METHODS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Sequence[int]]], Scheme]] = {
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "awq": _integers,
    "awq_marlin": _integers,
    "gptq": _integers,
    "gptq_marlin": _integers,
    "auto-round": _integers,
    "compressed-tensors": _groups,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "modelopt_mixed": _modelopt,
    "mxfp4": _mxfp4,
    "quark": _quark,
}
