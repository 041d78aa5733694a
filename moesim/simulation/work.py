"""What attention has to compute in a step, or in a micro-batch of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.simulation.plan import RunPlan
from moesim.types import AttentionWork, Batch, EqualSequences, attention_work, equal_decodes, equal_prompts


def work_of(plan: RunPlan, batch: Batch) -> AttentionWork:
    """The prompts and the sequences that decode of a batch, or of a part of one."""
    if batch.alike is not None:
        tokens = np.bincount(batch.source, minlength=plan.cluster.n_gpus).astype(np.int64)
        return equal_work(plan, batch.alike, tokens)
    return attention_work(
        batch.source,
        batch.sequence,
        batch.context,
        batch.decodes,
        plan.cluster.n_gpus,
        heads_shared=plan.parallelism.attention_tp,
        every_logit=plan.is_training,
    )


def equal_work(plan: RunPlan, alike: EqualSequences, tokens: NDArray[np.int64]) -> AttentionWork:
    """The sequences of a step with so many tokens on each GPU, [G]; these may be the GPUs of one attention group."""
    shared = plan.parallelism.attention_tp
    if alike.decodes:
        return equal_decodes(tokens, alike.length, heads_shared=shared)
    return equal_prompts(tokens, alike.length, heads_shared=shared, every_logit=plan.is_training)
