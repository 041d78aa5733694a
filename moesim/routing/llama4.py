"""Llama 4: the top-k logits, each weighed by its own sigmoid.

HF `Llama4Router`: all logits but the k largest become -inf, then the sigmoid
of each; nothing is normalised. The models use top_k 1 and one shared expert.
"""

from __future__ import annotations

from moesim.routing.gate import gate

STRATEGY = gate("llama4", score="sigmoid-of-chosen")
