"""DeepSeek-V2: softmax scores, groups by their best expert, no normalisation.

HF `DeepseekV2TopkRouter`, `group_limited_greedy`: p = softmax over all
experts; the score of a group is its largest p (V3 takes the sum of the two
best); the `topk_group` best of `n_group` groups stay; the top k of p among
them, each times `routed_scaling_factor`. V2 has 8 groups, 3 kept, and a factor
of 16; `n_group` 1 is its `greedy`.
"""

from __future__ import annotations

from moesim.routing.gate import gate

STRATEGY = gate("deepseek-v2")
