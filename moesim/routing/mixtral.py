"""Mixtral: softmax over the top-k logits.

Jiang et al. 2024, section 2.1; HF `MixtralTopKRouter` takes the softmax over
all experts and renormalises the k largest, which is the same function; so does
Megatron by default (softmax after the top k).
"""

from __future__ import annotations

from moesim.routing.gate import gate

STRATEGY = gate("mixtral", score="softmax-of-chosen")
