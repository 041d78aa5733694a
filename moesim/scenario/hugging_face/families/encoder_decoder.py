"""Families of an encoder and a decoder, run one after the other as layers of one model."""

from __future__ import annotations

from moesim.scenario.hugging_face.config import Config
from moesim.scenario.hugging_face.layers import by_layer
from moesim.scenario.hugging_face.parts import Fields, decoder, networks
from moesim.scenario.hugging_face.registry import family


def _model(config: Config, encoder: list[bool], dense: list[int], heads: int, head_dim: int, width: int) -> Fields:
    """Both as layers of one model: `encoder` says which layers are the encoder's, `dense` which have no experts."""
    config = config.updated(num_hidden_layers=len(encoder))
    return {
        **decoder(config),
        **networks(config.updated(width=width), dense, "width"),
        "n_experts": config.count("n_experts"),
        "moe_intermediate_size": width,
        "gated": False,
        "n_heads": heads,
        "n_kv_heads": heads,
        "head_dim": head_dim,
        **by_layer({"cross_attention": [not each for each in encoder]}),
    }


@family(
    "switch_transformers",
    "google/switch-base-8",
    keys={"n_layers": ("num_hidden_layers",)},
    defaults={"tied_embeddings": True},
    untold="positions of the attention",
)
def switch(config: Config) -> Fields:
    """Every second layer or so of both has experts, of which a token takes the best."""
    n_encoder = config.count("num_layers", 12)
    n_decoder = config.count("num_decoder_layers", n_encoder)
    config.updated(num_hidden_layers=n_encoder + n_decoder).n_layers  # noqa: B018 - refuses too many
    dense = []
    for first, number, sparse in (
        (0, n_encoder, config.count("num_sparse_encoder_layers", 3, least=0)),
        (n_encoder, n_decoder, config.count("num_sparse_decoder_layers", 3, least=0)),
    ):
        step = max(1, number // sparse) if sparse else 0
        dense += [first + i for i in range(number) if not step or (i % step != 1 and step != 1)]
    width = config.count("intermediate_size")
    return {
        **_model(
            config,
            [True] * n_encoder + [False] * n_decoder,
            dense,
            config.count("n_heads"),
            config.count("head_dim", 64),
            width,
        ),
        "top_k": 1,
        "router": "switch",
    }


@family("nllb-moe", "facebook/nllb-moe-54b", defaults={"tied_embeddings": True}, untold="positions of the attention")
def nllb(config: Config) -> Fields:
    """Every fourth layer of both has experts, of which a token takes two."""
    n_encoder, n_decoder = config.count("encoder_layers", 12), config.count("decoder_layers", 12)
    config.updated(num_hidden_layers=n_encoder + n_decoder).n_layers  # noqa: B018 - refuses too many
    dense = []
    for first, number, step in (
        (0, n_encoder, config.count("encoder_sparse_step", 4, least=0)),
        (n_encoder, n_decoder, config.count("decoder_sparse_step", 4, least=0)),
    ):
        dense += [first + i for i in range(number) if not step or (i + 1) % step]
    heads = config.count("encoder_attention_heads", 16)
    return {
        **_model(
            config,
            [True] * n_encoder + [False] * n_decoder,
            dense,
            heads,
            max(1, config.count("hidden_size") // heads),
            config.count("encoder_ffn_dim"),
        ),
        "top_k": 2,
        "router": "gshard",
    }
