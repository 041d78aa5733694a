"""The tokens of a step, and what a router knows of a block of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Draw:
    """All that a random or hashing router may use, so that any token can be recomputed alone."""

    seed: int = 0
    step: int = 0
    layer: int = 0
    first_token: int = 0
    token_ids: NDArray[np.int64] | None = None
    """Vocabulary id of each token of the block, [T], or None."""


@dataclass(frozen=True, kw_only=True)
class EqualSequences:
    """Sequences that are all alike: each token decodes after `length` cached ones, or each prompt has `length` tokens.

    The last prompt of a rank may be shorter.
    """

    decodes: bool
    length: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The tokens of one step; T tokens, which may be those of prompts and of sequences that decode.

    `source` and `sequence` int32 [T] are the rank and the sequence of each
    token, `topic` int32 [T] that of its sequence. A token that `decodes` (bool
    [T]) is the next of its sequence, another is part of a prompt; `context`
    int32 [T] counts the tokens of the sequence before it. `token_ids` int64 [T]
    are vocabulary ids, None where they are not known.

    Where `alike` is given, attention is that of equal sequences and follows
    from how many tokens each rank has. Else it follows from `sequence`,
    `decodes` and `context`.
    """

    step: int
    source: NDArray[np.int32]
    sequence: NDArray[np.int32]
    topic: NDArray[np.int32]
    decodes: NDArray[np.bool_]
    context: NDArray[np.int32]
    token_ids: NDArray[np.int64] | None = None
    alike: EqualSequences | None = None

    @property
    def n_tokens(self) -> int:
        """T, tokens of the step over all ranks."""
        return len(self.source)

    def part(self, tokens: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Batch:
        """Some of the tokens: those of a mask [T], or of these numbers."""
        return replace(
            self,
            source=self.source[tokens],
            sequence=self.sequence[tokens],
            topic=self.topic[tokens],
            decodes=self.decodes[tokens],
            context=self.context[tokens],
            token_ids=None if self.token_ids is None else self.token_ids[tokens],
        )
