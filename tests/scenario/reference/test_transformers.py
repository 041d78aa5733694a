"""Every family of the installed transformers: its model on the meta device against what its config.json is read as."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from moesim.hardware import parameter_count
from moesim.scenario.hugging_face import FAMILIES, read_config
from moesim.scenario.hugging_face.keys import KEYS
from moesim.scenario.hugging_face.registry import class_defaults
from moesim.scenario.model_shape import model_rules, model_shape
from moesim.scenario.schema import ModelSpec

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
pytestmark = pytest.mark.ref

LAYERS = {"num_hidden_layers": 9}
NESTED: dict[str, dict[str, Any]] = {
    "gemma4": {"enable_moe_block": True, "num_experts": 16, "top_k_experts": 2, "moe_intermediate_size": 256},
    "diffusion_gemma": {"num_experts": 16, "top_k_experts": 2, "moe_intermediate_size": 256},
    "deepseek_ocr2": {
        "num_experts_per_tok": 6,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 896,
        "mlp_layer_types": ["dense"] + ["sparse"] * 8,
    },
}
_INDEXER = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 256,
    "indexer_budget": 2048,
    "indexer_compress_ratio": 4,
}
NESTED |= {f"{name}_text": fields for name, fields in NESTED.items()}
NESTED |= {"qwen4_exp": _INDEXER, "qwen4_exp_text": _INDEXER}
for _fields in (NESTED["gemma4"], NESTED["gemma4_text"]):
    _fields["hidden_size_per_layer_input"] = 0
CHANGES: dict[str, dict[str, Any]] = {
    "dbrx": {"n_layers": 3, "attn_config": {"kv_n_heads": 8, "rope_theta": 1e4}},
    "deepseek_v2": {"num_experts_per_tok": 6, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 1408, **LAYERS},
    "dots1": {"n_routed_experts": 128, "n_shared_experts": 2, "num_experts_per_tok": 6, **LAYERS},
    "granitemoehybrid": {"layer_types": ["mamba", "mamba", "attention"] * 3, **LAYERS},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 8, "moe_topk": 2, **LAYERS},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention"] * 3, **LAYERS},
    "longcat_flash": {"num_layers": 4},
    "nemotron_h": {"layers_block_type": ["mamba", "moe", "attention", "mlp", "mamba", "moe"]},
    "nllb-moe": {"num_experts": 8},
    "switch_transformers": {},
}
"""What the configuration needs besides its defaults, and fewer layers."""
NO_TEXT = {"dots3_note_vision_encoder", "qwen3_omni_moe_talker_text", "vitpose_backbone"}
"""Parts of models that are no language models, though they have experts."""
NOT_BUILT = {"doge", "qwen3_omni_moe"}
"""Refused by name, as what the family calls experts are no networks; and one whose part, the thinker, is built."""
KNOWN_LESS = {"jetmoe": 0.15, "longcat_flash": 0.3}
"""Experts of the attention that no token chooses; zero experts, for which transformers allocates matrices."""
OTHERS = r"visual|vision|audio|resampler|projector|talker|code2wav|self_attention|self_conditioning"


def _types() -> list[str]:
    return [kind for kind in FAMILIES if kind in transformers.CONFIG_MAPPING and kind not in NOT_BUILT]


def _configuration(kind: str) -> Any:
    """The family's configuration with few layers."""
    made = transformers.CONFIG_MAPPING[kind]
    if kind in CHANGES:
        return made(**CHANGES[kind])
    text = {**NESTED.get(kind, {}), **LAYERS}
    parts = getattr(made, "sub_configs", {})
    return made(**({"text_config": text} if "text_config" in parts else text))


def _built(config: Any) -> Any:
    """The language model of a configuration, without memory for its weights."""
    auto = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForSeq2SeqLM")
    with torch.device("meta"):
        for name in auto:
            if type(config) in getattr(transformers, name)._model_mapping:  # noqa: SLF001 - there is no public way
                return getattr(transformers, name).from_config(config)
        module = importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
        models = [
            each
            for each in vars(module).values()
            if isinstance(each, type)
            and issubclass(each, transformers.PreTrainedModel)
            and vars(each).get("config_class", each.__annotations__.get("config"))
            in (type(config), type(config).__name__)
        ]
        whole = [each for each in models if "For" in each.__name__] or models[-1:]
        return whole[-1](config)


@pytest.mark.parametrize("kind", _types())
def test_a_family_is_read_as_it_is_built(kind: str, tmp_path: Path) -> None:
    """Parameters within 2 %, those of routed experts and the number of MoE layers exactly."""
    config = _configuration(kind)
    built = {name: each for name, each in _built(config).named_parameters() if not re.search(OTHERS, name)}
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    spec = ModelSpec.model_validate(read_config(tmp_path / "config.json"))
    assert all(holds for holds, *_ in model_rules(spec))
    model = model_shape(spec)
    count = parameter_count(model)
    total = sum(each.numel() for each in built.values())
    if not model.tied_embeddings and not any("lm_head" in name for name in built):
        total += model.vocab_size * model.hidden_size
    assert count["total"] == pytest.approx(total, rel=KNOWN_LESS.get(kind, 0.02))
    if kind in KNOWN_LESS:
        return
    experts = {
        name: each for name, each in built.items() if ".experts." in name and each.dim() > 1 and "bias" not in name
    }
    assert count["experts"] == sum(each.numel() for each in experts.values())
    assert len(model.moe_layers) == len({name.split("experts")[0] for name in experts})


@pytest.mark.parametrize("kind", [kind for kind in _types() if kind in class_defaults()])
def test_a_file_may_leave_out_what_the_class_has(kind: str, tmp_path: Path) -> None:
    """What class_defaults.json states is what transformers takes where a file is silent."""
    data = _configuration(kind).to_dict()
    text = data["text_config"] if isinstance(data.get("text_config"), dict) else data
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data, default=str))
    whole = read_config(path)
    family = FAMILIES[text["model_type"] if text["model_type"] in FAMILIES else kind]
    for name in class_defaults()[kind]:
        keys = family.keys.get(name) or KEYS.get(name) or (name,)
        left_out = {key: text.pop(key) for key in keys if key in text}
        path.write_text(json.dumps(data, default=str))
        if name != "window":  # of which transformers makes the layers' types
            assert read_config(path) == whole, name
        text.update(left_out)


def test_every_configuration_with_experts_is_a_family() -> None:
    """What the installed transformers calls a model with experts has a reader, or is known not to be one."""

    def has_experts(made: Any) -> bool:
        fields = {name for each in made.__mro__ for name in getattr(each, "__annotations__", {})}
        return any("expert" in name for name in fields)

    found = set()
    for kind in transformers.CONFIG_MAPPING:
        made = transformers.CONFIG_MAPPING[kind]
        if any(has_experts(each) for each in (made, *getattr(made, "sub_configs", {}).values())):
            found.add(kind)
    assert found - set(FAMILIES) == NO_TEXT
