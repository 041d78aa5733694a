"""The families, alike ones in a module; importing this package fills the registry."""

from __future__ import annotations

from moesim.scenario.hugging_face.families import (  # noqa: F401 - each registers its families
    compressed,
    encoder_decoder,
    hybrid,
    latent,
    sigmoid,
    softmax,
    windows,
)
