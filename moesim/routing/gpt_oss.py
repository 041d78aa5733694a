"""gpt-oss: softmax over the top-k logits, the router's learned bias included.

HF `GptOssTopKRouter`: logits = W h + b; the k largest logits; softmax over
them. The learned bias is part of the logits that come in, so this is Mixtral's
function; it has its own name because models are listed by theirs.
"""

from __future__ import annotations

from moesim.routing.gate import gate

STRATEGY = gate("gpt-oss", score="softmax-of-chosen")
