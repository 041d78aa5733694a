"""What a model says of its recordings: which of its layers have experts, and how many."""

from __future__ import annotations

from moesim.recordings.layout import KnownModel


def known_model(name: str) -> KnownModel:
    """The facts of a model, as `model` in a scenario names it.

    Args:
        name: of a preset, or the path of a config.json.

    Raises:
        InputError: there is no such model, or its configuration is wrong.
    """
    from moesim.scenario import Scenario

    model = Scenario.from_dict({"model": name, "cluster": {"gpu": "h100-sxm"}}).model
    return KnownModel(
        name=model.name,
        n_layers=model.n_layers,
        moe_layers=tuple(map(int, model.moe_layers)),
        n_experts=model.n_experts,
        top_k=model.top_k,
    )
