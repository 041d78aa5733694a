"""Families whose router takes sigmoids and whose attention has heads."""

from __future__ import annotations

from moesim.errors import ScenarioError
from moesim.scenario.hugging_face.config import Config
from moesim.scenario.hugging_face.parts import Fields, general
from moesim.scenario.hugging_face.registry import family, register

SIGMOID = {"scoring_func": "sigmoid"}
EXPERT_WIDTH = {"moe_intermediate_size": ("moe_intermediate_size", "intermediate_size")}
MTP = "layers that predict further tokens"

register("minimax_m2", "MiniMaxAI/MiniMax-M2", keys=EXPERT_WIDTH, defaults=SIGMOID, untold=MTP)
register("glm4_moe", "zai-org/GLM-4.5-Air", defaults={**SIGMOID, "first_dense": 1}, untold=MTP)
for _name in ("glm4v_moe", "glm4v_moe_text"):
    register(_name, "zai-org/GLM-4.5V", defaults={**SIGMOID, "first_dense": 1}, untold="images")
register("dots1", "rednote-hilab/dots.llm1.inst", defaults={**SIGMOID, "norm_topk_prob": False})
register("solar_open", "upstage/Solar-Open-100B", defaults=SIGMOID)
register(
    "exaone_moe", "LGAI-EXAONE/K-EXAONE-236B-A23B", defaults={**SIGMOID, "first_dense": 1, "routed_scaling_factor": 2.5}
)
register(
    "hy_v3",
    "tencent/Hy3-preview",
    defaults={**SIGMOID, "first_dense": 1, "n_shared_experts": 1, "routed_scaling_factor": 2.826},
    keys={"routed_scaling_factor": ("router_scaling_factor",)},
)
register(
    "flint",
    "RecursiveSI/flint",
    defaults={**SIGMOID, "norm_topk_prob": True, "first_dense": 2},
    untold="gates of the attention and of its values",
)
for _name in ("bailing_moe_v2", "bailing_moe"):
    register(
        _name,
        "inclusionAI/Ling-mini-2.0" if _name.endswith("v2") else "inclusionAI/Ling-lite-1.5",
        defaults={**(SIGMOID if _name.endswith("v2") else {}), "norm_topk_prob": True},
        untold=MTP,
    )


@family("kolibri1", "Aleph-Alpha/Kolibri-1", defaults={"scoring_func": "softmax-of-chosen"})
def kolibri(config: Config) -> Fields:
    """Logits are compared, and the sigmoids of the chosen ones weigh."""
    normalised = config.flag("norm_topk_prob", default=False)
    return {**general(config), "router": "llama4", "router_parameters": {"norm_topk_prob": normalised}}


def gated_attention(config: Config) -> Fields:
    """Every element of the attention's output has a gate."""
    return {**general(config), "attention_gate": True}


family(
    "afmoe",
    "arcee-ai/Trinity-Mini",
    defaults={**SIGMOID, "first_dense": 1},
)(gated_attention)
family(
    "beam",
    "reflection/Beam-1.0-501B-A23B",
    defaults={**SIGMOID, "routed_scaling_factor": 2.5, "n_group": 8, "first_dense": 3},
)(gated_attention)


@family(
    "muse_spark",
    "meta-models/Muse-Spark-Open-816B-A42B",
    defaults=SIGMOID,
    untold="images and sound",
)
@family("muse_spark_text", "meta-models/Muse-Spark-Open-816B-A42B", defaults=SIGMOID)
def muse_spark(config: Config) -> Fields:
    """Experts read and write vectors of a width of their own."""
    latent = config.count("moe_hidden_size", 0, least=0)
    return {**gated_attention(config), **({"moe_latent_size": latent} if latent else {})}


@family("doge", "SmallDoge/Doge-320M", untold="the model: its experts are single vectors, thousands of them")
def doge(config: Config) -> Fields:
    """Refused: what it calls experts are rows of an embedding, which nothing here is like."""
    raise ScenarioError(f"a config.json of experts that are networks, which those of {config.family} are not")
