"""The strategies by name, and `route`, the call that runs one on logits."""

from __future__ import annotations

import dataclasses
import importlib
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moesim.errors import InputError, ParameterError, did_you_mean
from moesim.routing.strategy import NoParameters, P, Strategy, checked_router
from moesim.types import Router


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the registry: where the strategy is, and what a list of strategies tells."""

    target: str
    summary: str
    paper: str
    models: str
    parameters: str = ""
    """Names and defaults, and those outside training where they differ; "gate" stands for GATE_PARAMETERS, followed by
    what is otherwise. A test holds them."""


GATE_PARAMETERS = (
    "score=softmax, norm_topk_prob=False, norm_epsilon=0.0, routed_scaling_factor=1.0, "
    "n_group=1, topk_group=1, group_score=max, masked_score=-inf"
)
"""Parameters of every strategy that is the top-k gate, with the gate's own defaults."""

STRATEGIES: Mapping[str, Entry] = {
    "switch": Entry(
        target="moesim.routing.switch:STRATEGY",
        summary="top-1 of the softmax over all experts; weight = its probability",
        paper="Fedus et al. 2021, Switch Transformers",
        models="Switch Transformer",
        parameters="gate, jitter=0.0",
    ),
    "gshard": Entry(
        target="moesim.routing.gshard:STRATEGY",
        summary="top-2, normalised; the second expert may be drawn or left out at random",
        paper="Lepikhin et al. 2020, GShard",
        models="GShard",
        parameters="second_expert_policy=all, second_expert_threshold=0.5, legacy_mtf_behavior=True",
    ),
    "st-moe": Entry(
        target="moesim.routing.st_moe:STRATEGY",
        summary="top-k of the softmax over all experts, raw probabilities",
        paper="Zoph et al. 2022, ST-MoE",
        models="ST-MoE",
        parameters="gate",
    ),
    "softmax-top-k": Entry(
        target="moesim.routing.softmax_top_k:STRATEGY",
        summary="top-k of the softmax over all experts; norm_topk_prob renormalises",
        paper="Muennighoff et al. 2024, OLMoE; Qwen Team 2025, Qwen3",
        models="OLMoE (off), Qwen2-MoE (off), Qwen3-MoE (on)",
        parameters="gate",
    ),
    "mixtral": Entry(
        target="moesim.routing.mixtral:STRATEGY",
        summary="softmax over the top-k logits",
        paper="Jiang et al. 2024, Mixtral of Experts",
        models="Mixtral 8x7B and 8x22B",
        parameters="gate, score=softmax-of-chosen",
    ),
    "gpt-oss": Entry(
        target="moesim.routing.gpt_oss:STRATEGY",
        summary="softmax over the top-k logits, the learned bias included in them",
        paper="OpenAI 2025, gpt-oss-120b and gpt-oss-20b model card",
        models="gpt-oss-20b and 120b",
        parameters="gate, score=softmax-of-chosen",
    ),
    "llama4": Entry(
        target="moesim.routing.llama4:STRATEGY",
        summary="top-k logits, each weighed by its own sigmoid",
        paper="Meta 2025, Llama 4",
        models="Llama 4 Scout and Maverick",
        parameters="gate, score=sigmoid-of-chosen",
    ),
    "top-p": Entry(
        target="moesim.routing.top_p:STRATEGY",
        summary="as many experts, up to top_k, as hold a share top_p of the probability",
        paper="Huang et al. 2024, Harder Tasks Need More Experts",
        models="Dynamic_MoE",
        parameters="top_p=0.4",
    ),
    "deepseek-v2": Entry(
        target="moesim.routing.deepseek_v2:STRATEGY",
        summary="softmax over all experts, best groups by their best expert, scaling factor",
        paper="DeepSeek-AI 2024, DeepSeek-V2, section 2.2",
        models="DeepSeek-V2 and Coder-V2",
        parameters="gate",
    ),
    "deepseek-v3": Entry(
        target="moesim.routing.deepseek_v3:STRATEGY",
        summary="sigmoid scores, selection bias, best groups by their two best, scaling factor",
        paper="DeepSeek-AI 2024, DeepSeek-V3, section 2.1.2",
        models="DeepSeek-V3 and R1",
        parameters="gate, score=sigmoid, norm_topk_prob=True, norm_epsilon=1e-20, group_score=top-2-sum",
    ),
    "moge": Entry(
        target="moesim.routing.moge:STRATEGY",
        summary="the same number of experts from every group, the most probable of each",
        paper="Tang et al. 2025, Pangu Pro MoE: Mixture of Grouped Experts",
        models="Pangu Pro MoE",
        parameters="n_group=1, norm_topk_prob=False, routed_scaling_factor=1.0",
    ),
    "longcat": Entry(
        target="moesim.routing.longcat:STRATEGY",
        summary="softmax top-k with a selection bias; the last n_zero_experts compute nothing",
        paper="Meituan 2025, LongCat-Flash, section 2.1",
        models="LongCat-Flash",
        parameters="gate, n_zero_experts=0",
    ),
    "moe-plus-plus": Entry(
        target="moesim.routing.moe_plus_plus:STRATEGY",
        summary="top-2, normalised; the last n_zero_experts compute nothing, the very last weighs 0",
        paper="Jin et al. 2024, MoE++",
        models="MoE++",
        parameters="n_zero_experts=4, moe_use_mixtral_gating=False",
    ),
    "relu": Entry(
        target="moesim.routing.relu:STRATEGY",
        summary="every expert with a positive logit, up to top_k",
        paper="Wang et al. 2024, ReMoE",
        models="ReMoE",
    ),
    "noisy-top-k": Entry(
        target="moesim.routing.noisy_top_k:STRATEGY",
        summary="softmax over the top k of logits with normal noise; without it outside training",
        paper="Shazeer et al. 2017, Outrageously Large Neural Networks",
        models="the first sparsely gated MoE LSTMs",
        parameters="noise_std=1.0 (0.0 outside training)",
    ),
    "sinkhorn": Entry(
        target="moesim.routing.sinkhorn:STRATEGY",
        summary="top-k of a matrix scaled to equal sums of experts; plain top-k outside training",
        paper="Clark et al. 2022, Unified Scaling Laws for Routed Language Models",
        models="S-BASE",
        parameters="training=True (False outside training)",
    ),
    "base": Entry(
        target="moesim.routing.base_layers:STRATEGY",
        summary="top-1 with equal loads and the largest sum of logits; the argmax outside training",
        paper="Lewis et al. 2021, BASE Layers",
        models="BASE",
        parameters="training=True (False outside training)",
    ),
    "hash": Entry(
        target="moesim.routing.hash:STRATEGY",
        summary="experts by the token's vocabulary id, from a fixed random table",
        paper="Roller et al. 2021, Hash Layers",
        models="Hash Layers",
        parameters="table_seed=0",
    ),
    "expert-choice": Entry(
        target="moesim.routing.expert_choice:STRATEGY",
        summary="every expert takes its best tokens; top_k is the mean number of experts a token",
        paper="Zhou et al. 2022, Mixture-of-Experts with Expert Choice Routing",
        models="",
    ),
    "round-robin": Entry(
        target="moesim.routing.round_robin:STRATEGY",
        summary="control: assignments dealt to the experts in turn, perfectly even in load; sends what random sends",
        paper="control, as SGLang simulates balanced routing",
        models="",
        parameters="shuffled=True, n_ranks=1, offset=0",
    ),
    "random": Entry(
        target="moesim.routing.random:STRATEGY",
        summary="control: top_k distinct experts, uniformly, whatever the logits",
        paper="control, cf. Roller et al. 2021, Hash Layers",
        models="",
    ),
}


_registered: dict[str, Strategy[Any]] = {}


def register_strategy(
    name: str,
    *,
    parameters: type[Any] = NoParameters,
    scope: str = "token",
    check: Callable[[int, int, Any], None] | None = None,
    takes_bias: bool = False,
    by_sigmoid: bool = False,
) -> Callable[[Router[Any]], Strategy[Any]]:
    """Make a strategy of a function `(logits [T, E], top_k, parameters, state, draw) -> Assignment`.

    It may be compiled or plain NumPy. `parameters` is a frozen dataclass of
    numbers with defaults. With `takes_bias` the state is a float32 [E] for the
    selection, or None, and `routing.training` may move it. `by_sigmoid` says that its scores are sigmoids of the
    logits, where a policy reads scores; else they are probabilities. In a scenario it is named
    `package.module:name`, by the variable it is bound to; `route` takes its name as well. What it returns is checked.

    Raises:
        InputError: the name is taken.
    """

    def decorate(function: Router[Any]) -> Strategy[Any]:
        if name in STRATEGIES or name in _registered:
            raise InputError(f"strategy {name}: found the name taken, wanted another")
        _registered[name] = Strategy(
            name=name,
            route=checked_router(name, function),
            parameters=parameters,
            scope=scope,
            check=check,
            takes_bias=takes_bias,
            by_sigmoid=lambda _: by_sigmoid,
        )
        return _registered[name]

    return decorate


def is_of_session(name: str) -> bool:
    """Whether a name stands for a router that this process registered, and other processes do not know."""
    return name in _registered


def _imported(name: str) -> Strategy[Any]:
    """The strategy that `package.module:name` names, looked for in the current folder as well."""
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"a strategy, or package.module:name of one ({error})") from None
    finally:
        sys.path.remove(here)
    if not isinstance(found, Strategy):
        raise InputError(f"a strategy made by @register_strategy, not a {type(found).__name__}")
    return found


def strategy(name: str) -> Strategy[Any]:
    """The strategy of that name, of the registry, of `register_strategy`, or of `package.module:name`.

    Raises:
        InputError: the names there are.
    """
    if name in _registered:
        return _registered[name]
    if ":" in name:
        return _imported(name)
    if name not in STRATEGIES:
        raise InputError(f"one of {', '.join(STRATEGIES)}{did_you_mean(name, STRATEGIES)}")
    module, attribute = STRATEGIES[name].target.split(":")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, Strategy)
    return found


def parameters_for(found: Strategy[P], values: Mapping[str, Any]) -> P:
    """The parameters of a strategy, its defaults where `values` has none.

    Raises:
        ParameterError: an unknown name or a value of the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(found.parameters)}
    kinds = {"float": (int, float), "int": (int,), "bool": (bool,), "str": (str,)}
    values = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    for name, value in values.items():
        if name not in fields:
            known = ", ".join(fields) or "none"
            hint = did_you_mean(name, fields)
            raise ParameterError(name, value, f"a parameter of {found.name}: {known}; not {name}{hint}")
        kind = str(fields[name].type)
        wrong = not isinstance(value, kinds[kind]) or (kind != "bool" and isinstance(value, bool))
        if wrong or (kind == "float" and not math.isfinite(value)):
            wanted = {"float": "a finite number", "int": "a whole number", "bool": "true or false", "str": "a word"}
            raise ParameterError(name, value, wanted[kind])
    return found.parameters(**{**found.defaults, **values})
