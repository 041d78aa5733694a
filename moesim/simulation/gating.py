"""Which experts the tokens of one layer ask for: given by their source, or gated block by block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.routing import group_mask, router_scores, substitute
from moesim.simulation.plan import LayerRouter, RunPlan
from moesim.simulation.profile import Profile
from moesim.simulation.router_dynamics import RouterDynamics
from moesim.types import Assignment, Batch, Draw
from moesim.workload import no_choices

BLOCK_TOKENS = 1024
"""Tokens whose logits are held at a time by one thread."""


def request(
    plan: RunPlan,
    batch: Batch,
    present: NDArray[np.bool_],
    layer: int,
    dynamics: RouterDynamics | None,
    profile: Profile,
) -> tuple[Assignment, NDArray[np.float32] | None]:
    """The experts that the tokens of one layer which are `present` [T] ask for.

    With the scores of all experts [T, E], or of the choices [T, K], where the capacity policy reads them, else None.
    """
    if plan.draws_choices:
        with profile.timed("generate"):
            return _rows(plan.source.choices(batch, layer, plan.model.choices_of_layer[layer]), present), None
    if layer in plan.unrecorded_layers:
        return no_choices(int(np.count_nonzero(present)), plan.model.choices_of_layer[layer]), None
    router = plan.routers[layer]
    strategy = router.strategy
    n_tokens = batch.n_tokens
    whole = strategy.scope == "batch"
    step = n_tokens if whole else BLOCK_TOKENS
    scratch = np.empty((min(step, n_tokens), plan.n_logits), dtype=np.float32)
    load = np.zeros(plan.n_logits, dtype=np.int64)
    blocks, scores = [], []
    for first in range(0, n_tokens, step):
        last = min(first + step, n_tokens)
        own = present[first:last]
        logits = scratch[: last - first]
        with profile.timed("generate"):
            plan.source.logits(batch, layer, first, last, logits)
        with profile.timed("route"):
            draw = Draw(
                seed=plan.seed,
                step=batch.step,
                layer=layer,
                first_token=first,
                token_ids=None if batch.token_ids is None else batch.token_ids[first:last][own],
            )
            if not own.all():
                logits = logits[own]
            if dynamics is not None:
                dynamics.shift(logits, batch.source[first:last][own])
            block, block_scores = _route_block(
                plan, router, logits, draw, load, None if dynamics is None else dynamics.bias
            )
            blocks.append(block)
            if plan.keeps_scores:
                scores.append(block_scores)
            elif plan.keeps_priorities:
                scores.append(_of_choices(block_scores, block.expert, plan.model.n_experts))
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


def _rows(assignment: Assignment, present: NDArray[np.bool_]) -> Assignment:
    """The assignment of the tokens that are present."""
    return assignment if present.all() else Assignment.of(assignment.expert[present], assignment.weight[present])


def _route_block(
    plan: RunPlan,
    router: LayerRouter,
    logits: NDArray[np.float32],
    draw: Draw,
    load: NDArray[np.int64],
    bias: NDArray[np.float32] | None,
) -> tuple[Assignment, NDArray[np.float32]]:
    """Route a block and substitute choices; `load` [E] counts the choices of the blocks before it.

    The scores are [T, E], or [0, 0] where no policy reads them.
    """
    substitution = plan.substitution
    needed = plan.keeps_scores or plan.keeps_priorities or substitution is not None
    scores = router_scores(logits, by_sigmoid=router.by_sigmoid) if needed else np.empty((0, 0), dtype=np.float32)
    if substitution is not None and substitution.policy == "node-limited" and not router.has_groups:
        # a node is ranked by the sum of its top_k / nodes best scores, as in DeepSeek-V3, section 2.1.2
        summed = max(1, router.top_k // substitution.nodes)
        mask = group_mask(scores, n_group=plan.group_nodes, topk_group=substitution.nodes, summed=summed)
        logits[~mask] = -np.inf
        scores[~mask] = -np.inf
    block = router.strategy.route(logits, router.top_k, router.parameters, bias, draw)
    if substitution is not None and substitution.policy == "least-loaded":
        block = substitute(block, scores, threshold=substitution.threshold, load=load)
    return block, scores
