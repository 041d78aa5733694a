"""gpt-oss: softmax over the top-k logits, the router's learned bias included.

HF `GptOssTopKRouter`: logits = W h + b; the k largest logits; softmax over
them. The bias is part of the logits that come in, so this is Mixtral's
function; it has its own name because models are listed by theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

from moesim.routing.mixtral import route
from moesim.routing.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class GptOssParameters:
    """gpt-oss routing has none at inference."""


STRATEGY = Strategy(name="gpt-oss", route=route, parameters=GptOssParameters, order_only=True)
