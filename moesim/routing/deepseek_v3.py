"""DeepSeek-V3: sigmoid scores, a bias that only selects, groups by their two best experts.

DeepSeek-AI 2024, section 2.1.2; HF `DeepseekV3TopkRouter`. With s = sigmoid(x)
and c = s + bias: the score of a group of experts is the sum of its two largest
c; the `topk_group` best of `n_group` groups stay; the top k of c among them
are chosen. Weights are s, without the bias, over their sum + 1e-20, times
`routed_scaling_factor`. V3 has 8 groups, 4 kept, and a factor of 2.5.
"""

from __future__ import annotations

from moesim.routing.gate import gate

STRATEGY = gate("deepseek-v3", score="sigmoid", norm_topk_prob=True, norm_epsilon=1e-20, group_score="top-2-sum")
