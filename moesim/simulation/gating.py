"""Who the tokens of one layer ask for: recorded, drawn, or gated block by block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.routing import group_mask, rebalance, router_scores
from moesim.simulation.evolution import Watch
from moesim.simulation.profile import Profile
from moesim.simulation.stages import Stages, group_nodes
from moesim.types import Assignment, Batch, Draw
from moesim.workload import RecordedTokens

BLOCK_TOKENS = 1024
"""Tokens whose logits are held at a time by one thread."""


def request(
    stages: Stages, batch: Batch, there: NDArray[np.bool_], layer: int, watch: Watch | None, profile: Profile
) -> tuple[Assignment, NDArray[np.float32] | None]:
    """Who the tokens of one layer that are `there` [T] ask for: recorded, drawn, or gated block by block.

    With the scores of all experts [T, E], or of the choices [T, K], where the capacity policy reads them.
    """
    source, strategy = stages.source, stages.strategy
    if isinstance(source, RecordedTokens) or strategy is None:
        assert isinstance(source, RecordedTokens)
        with profile.timed("generate"):
            return _rows(source.assignment(batch.step, layer), there), None
    n_tokens = batch.n_tokens
    if stages.scenario.spec.workload.sampling == "direct":
        return _rows(_draw_directly(stages, batch, layer, profile), there), None
    whole = strategy.scope == "batch"
    step = n_tokens if whole else BLOCK_TOKENS
    scratch = np.empty((min(step, n_tokens), stages.n_logits), dtype=np.float32)
    load = np.zeros(stages.n_logits, dtype=np.int64)
    blocks, scores = [], []
    for first in range(0, n_tokens, step):
        last = min(first + step, n_tokens)
        logits = scratch[: last - first]
        with profile.timed("generate"):
            source.logits(batch.step, layer, first, last, logits)
        with profile.timed("route"):
            draw = Draw(
                seed=stages.scenario.spec.seed,
                step=batch.step,
                layer=layer,
                first_token=first,
                token_ids=None if batch.token_ids is None else batch.token_ids[first:last][there[first:last]],
            )
            if not there[first:last].all():
                logits = logits[there[first:last]]
            if watch is not None:
                watch.shift(logits, batch.source[first:last][there[first:last]])
            block, block_scores = _route_block(stages, logits, draw, load, None if watch is None else watch.bias)
            blocks.append(block)
            if stages.keeps_scores:
                scores.append(block_scores)
            elif stages.keeps_priorities:
                scores.append(_of_choices(block_scores, block.expert, stages.model.n_experts))
    kept = np.concatenate(scores) if scores else None
    if whole:
        return blocks[0], kept
    widths = {block.expert.shape[1] for block in blocks}
    if len(widths) > 1:  # a router of the user's own
        found = " and ".join(map(str, sorted(widths)))
        raise InputError(f"strategy {strategy.name}: its router returned {found} choices, wanted one number of them")
    expert, weight = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("expert", "weight"))
    return Assignment.of(expert, weight), kept


def _of_choices(scores: NDArray[np.float32], expert: NDArray[np.int32], n_experts: int) -> NDArray[np.float32]:
    """The scores of the choices [T, K], or of all experts [T, E] where K = E: capacity takes E columns for these."""
    if expert.shape[1] == n_experts:
        return scores[:, :n_experts]
    return np.take_along_axis(scores, np.maximum(expert, 0), axis=1)


def _rows(assignment: Assignment, there: NDArray[np.bool_]) -> Assignment:
    """Of the tokens that are there."""
    return assignment if there.all() else Assignment.of(assignment.expert[there], assignment.weight[there])


def _route_block(
    stages: Stages,
    logits: NDArray[np.float32],
    draw: Draw,
    load: NDArray[np.int64],
    bias: NDArray[np.float32] | None,
) -> tuple[Assignment, NDArray[np.float32]]:
    """Route a block and let the balancer have its way; `load` [E] are the choices of the blocks before it.

    The scores are [T, E], or [0, 0] where nobody reads them.
    """
    assert stages.strategy is not None
    balancer, parameters = stages.scenario.spec.routing.substitution, stages.parameters
    needed = stages.keeps_scores or stages.keeps_priorities or balancer is not None
    by_sigmoid = stages.strategy.by_sigmoid(parameters)
    scores = router_scores(logits, by_sigmoid=by_sigmoid) if needed else np.empty((0, 0), dtype=np.float32)
    if balancer is not None and balancer.policy == "node-limited" and not stages.limits_itself:
        mask = group_mask(
            scores, n_group=group_nodes(stages.scenario), topk_group=balancer.nodes, summed=stages.best_of_a_node
        )
        logits[~mask] = -np.inf
        scores[~mask] = -np.inf
    block = stages.strategy.route(logits, stages.top_k, parameters, bias, draw)
    if balancer is not None and balancer.policy == "least-loaded":
        block = rebalance(block, scores, threshold=balancer.threshold, load=load)
    return block, scores


def _draw_directly(stages: Stages, batch: Batch, layer: int, profile: Profile) -> Assignment:
    """Ids without logits, where nobody reads weights: these are NaN, so that who does read them sees it."""
    assert not isinstance(stages.source, RecordedTokens)
    expert = np.empty((batch.n_tokens, stages.top_k), dtype=np.int32)
    with profile.timed("generate"):
        stages.source.experts(batch.step, layer, 0, batch.n_tokens, expert)
    return Assignment.of(expert, np.broadcast_to(np.float32(np.nan), expert.shape))
