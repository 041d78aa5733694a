"""Softmax over all experts, then the top k: Qwen-MoE and OLMoE.

HF `Qwen3MoeTopKRouter`, `OlmoeTopKRouter`: p = softmax(float32 logits), the k
largest, and with `norm_topk_prob` (Qwen3 on, OLMoE and Qwen2 off) divided by
their sum. Without it a row sums to less than 1, the less the more experts
there are. Selection compares logits, which order as their probabilities do
but do not underflow.
"""

from __future__ import annotations

from moesim.routing.gate import gate

STRATEGY = gate("softmax-top-k")
