"""What attention sees of a workload whose sequences are alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.simulation.plan import RunPlan
from moesim.types import AttentionWork, equal_decodes, equal_prompts


def equal_work(plan: RunPlan, tokens: NDArray[np.int64]) -> AttentionWork:
    """The sequences of a step with so many tokens on each GPU, [G]; these may be the GPUs of one attention group."""
    shared = plan.parallelism.attention_tp
    if plan.phase == "decode":
        return equal_decodes(tokens, plan.context_tokens, heads_shared=shared)
    every_logit = plan.phase == "train"
    return equal_prompts(tokens, plan.sequence_tokens, heads_shared=shared, every_logit=every_logit)
