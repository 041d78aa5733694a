"""What attention sees of a workload whose sequences are alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.simulation.stages import Stages
from moesim.types import AttentionWork, equal_decodes, equal_prompts


def equal_work(stages: Stages, tokens: NDArray[np.int64]) -> AttentionWork:
    """The sequences of a step with so many tokens on each GPU, [G]; these may be the GPUs of one attention group."""
    workload, shared = stages.scenario.spec.workload, stages.scenario.parallelism.attention_tp
    if workload.phase == "decode":
        return equal_decodes(tokens, workload.context_tokens, heads_shared=shared)
    every_logit = workload.phase == "train"
    return equal_prompts(tokens, workload.sequence_tokens, heads_shared=shared, every_logit=every_logit)
