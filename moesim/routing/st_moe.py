"""ST-MoE: top-k of the softmax over all experts, raw probabilities as weights.

Zoph et al. 2022; flaxformer `TokensChooseMaskedRouter` (top-2). Its capacity
is choice-major with flaxformer's rounding, which leaves top_k out: overflow
"drop-by-choice", rounding "flaxformer".
"""

from __future__ import annotations

from moesim.routing.gate import gate

STRATEGY = gate("st-moe")
