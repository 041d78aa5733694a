"""The tokens that a scenario makes: synthetic ones, or those that a pattern deals."""

from __future__ import annotations

import numpy as np

from moesim.errors import ParameterError
from moesim.scenario import Scenario
from moesim.scenario.schema import MixtureSpec
from moesim.simulation.popularity import Popularity
from moesim.simulation.sampling import what_reads_scores
from moesim.types import ModelShape
from moesim.workload import Batches, Bursts, Dealer, DealtTokens, Mixture, Pattern, SyntheticTokens, by_layer


def synthetic_tokens(scenario: Scenario, zero: int, popularity: Popularity | None, n_ranks: int) -> SyntheticTokens:
    """Tokens of a stated skew, with logits; `zero` experts that compute nothing are behind the others."""
    workload, model, bursts = scenario.spec.workload, scenario.model, scenario.spec.workload.bursts
    assert workload.tokens_per_gpu is not None  # only a trace comes without
    return SyntheticTokens(
        seed=scenario.spec.seed,
        n_layers=len(model.moe_layers),
        n_experts=model.n_experts,
        n_zero_experts=zero,
        n_ranks=n_ranks,
        tokens_per_rank=workload.tokens_per_gpu,
        phase=workload.phase,
        sequence_tokens=workload.sequence_tokens,
        context_tokens=workload.context_tokens,
        zipf_exponent=workload.popularity.exponent if workload.popularity.kind == "zipf" else 0.0,
        topic_count=workload.topics.count,
        topic_strength=workload.topics.strength,
        vocab_size=model.vocab_size,
        generated_tokens=workload.generated_tokens,
        locality=by_layer(workload.locality, len(model.moe_layers)),
        mixture=_mixture(workload.topics.mixture),
        half_life_steps=None if workload.drift is None else workload.drift.half_life_steps,
        bursts=None if bursts is None else Bursts(**bursts.model_dump()),
        popularity=popularity,
    )


def _mixture(entries: tuple[MixtureSpec, ...]) -> Mixture | None:
    if not entries:
        return None
    steps, weights = (np.array([getattr(entry, field) for entry in entries]) for field in ("step", "weights"))
    return Mixture(steps=steps, weights=weights)


def dealt_tokens(scenario: Scenario, model: ModelShape, n_ranks: int) -> DealtTokens:
    """Tokens whose choices a pattern deals.

    Raises:
        ScenarioError: a policy reads scores, which a pattern does not have, or a parameter does not fit the model.
    """
    spec, pattern = scenario.spec, scenario.spec.workload.pattern
    workload, field = spec.workload, "workload.pattern"
    assert pattern is not None
    assert workload.tokens_per_gpu is not None
    why = what_reads_scores(scenario)
    if why is not None:
        raise scenario.error(field, pattern.kind, f"none: {why}, and a pattern has choices alone")
    top_k = max(model.choices_of_layer)
    fields = pattern.model_dump() | {
        "experts": pattern.experts or top_k,
        "ranks": pattern.ranks or spec.placement.expert_gpus or scenario.parallelism.expert,
    }
    if pattern.experts is None and pattern.kind == "spread-hot-experts":
        on_all = -(-top_k // fields["ranks"]) * fields["ranks"]  # as many on every rank
        fields["experts"] = on_all if on_all < model.n_experts else top_k
    try:
        dealer = Dealer(Pattern(**fields), seed=spec.seed, n_experts=model.n_experts)
        dealer.check(top_k)
    except ParameterError as error:
        raise scenario.error(f"{field}.{error.argument}", error.found, error.wanted) from None
    batches = Batches(
        seed=spec.seed,
        counts=dealer.source_counts(n_ranks, workload.tokens_per_gpu),
        decodes=workload.phase == "decode",
        sequence_tokens=workload.sequence_tokens,
        context_tokens=workload.context_tokens,
        vocab_size=model.vocab_size,
    )
    n_groups = 1 if spec.placement.expert_gpus else scenario.cluster.n_gpus // scenario.parallelism.group_gpus
    return DealtTokens(dealer, batches, n_groups=n_groups, n_ranks=n_ranks)
