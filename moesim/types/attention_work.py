"""What attention has to compute in one step: prompts and cached sequences, equal ones counted together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Kinds of sequences of each of A attention groups, int64 [W, A] each.

    `count` sequences of a group have `new_tokens` in this step after
    `cached_tokens` of earlier ones. A group with fewer than W kinds has counts
    of 0; no group has the same kind twice.
    """

    count: Counts
    new_tokens: Counts
    cached_tokens: Counts

    @property
    def tokens(self) -> Counts:
        """New tokens of each group, [A]."""
        return np.asarray((self.count * self.new_tokens).sum(axis=0), dtype=np.int64)

    @property
    def any(self) -> bool:
        """Whether some group has a sequence."""
        return bool(self.count.any())


@dataclass(frozen=True, kw_only=True)
class AttentionWork:
    """The sequences that attention sees in one step, or in one micro-batch of it.

    An attention group is the GPUs that share the heads of their tokens; without
    such sharing every GPU is one. New tokens of `prompts` attend causally to
    each other and to the cached ones before them. Each sequence of `decodes` has
    one new token, which reads `cached_tokens`, at least one.

    `tokens` int64 [G] counts the new tokens of each GPU, `logit_rows` int64 [G]
    those whose next token is wanted, of the whole step.
    """

    prompts: Sequences
    decodes: Sequences
    tokens: Counts
    logit_rows: Counts

    @property
    def n_groups(self) -> int:
        """A, attention groups."""
        return int(self.prompts.count.shape[1])

    @property
    def group_tokens(self) -> Counts:
        """New tokens of each attention group, [A]."""
        return self.prompts.tokens + self.decodes.tokens

    @property
    def prompt_tokens(self) -> int:
        """New tokens of prompts of all groups."""
        return int(self.prompts.tokens.sum())

    @property
    def decode_tokens(self) -> int:
        """New tokens of sequences that decode of all groups."""
        return int(self.decodes.tokens.sum())


def equal_decodes(tokens: Counts, context_tokens: int, *, heads_shared: int = 1) -> AttentionWork:
    """A step in which every token is the next one of a sequence with equally many cached tokens.

    Args:
        tokens: of each GPU, [G].
        context_tokens: cached tokens of every sequence.
        heads_shared: GPUs of an attention group.
    """
    tokens = np.asarray(tokens, dtype=np.int64)
    count = tokens.reshape(1, -1, heads_shared).sum(axis=2)
    decodes = Sequences(count=count, new_tokens=np.ones_like(count), cached_tokens=np.full_like(count, context_tokens))
    return AttentionWork(prompts=_none(count.shape[1]), decodes=decodes, tokens=tokens, logit_rows=tokens)


def equal_prompts(
    tokens: Counts, sequence_tokens: int, *, heads_shared: int = 1, every_logit: bool = False
) -> AttentionWork:
    """A step in which the tokens of a GPU are prompts of equal length, of which the last may be short.

    Args:
        tokens: of each GPU, [G].
        sequence_tokens: of a prompt; none is longer than the tokens of a GPU.
        heads_shared: GPUs of an attention group; what is left of their prompts is counted as one.
        every_logit: whether the next token of every token is wanted, as in training, or of the last of each prompt.
    """
    tokens = np.asarray(tokens, dtype=np.int64)
    length = sequence_tokens
    if heads_shared > 1:  # prompts of one GPU are not joined with those of another
        length = min(sequence_tokens, max(1, int(tokens.max(initial=0))))
    whole, short = np.divmod(tokens.reshape(-1, heads_shared).sum(axis=1), length)
    prompts = Sequences(
        count=np.stack([whole, short > 0]).astype(np.int64),
        new_tokens=np.stack([np.full_like(short, length), short]),
        cached_tokens=np.zeros((2, len(short)), dtype=np.int64),
    )
    logit_rows = tokens if every_logit else -(-tokens // sequence_tokens)
    return AttentionWork(prompts=prompts, decodes=_none(len(short)), tokens=tokens, logit_rows=logit_rows)


def attention_work(
    source: NDArray[np.int32],
    sequence: NDArray[np.int32],
    context: NDArray[np.int32],
    decodes: NDArray[np.bool_],
    n_gpus: int,
    *,
    heads_shared: int = 1,
    every_logit: bool = False,
) -> AttentionWork:
    """The sequences of a step in which prompts and decodes of any lengths may be mixed.

    The tokens of a GPU with the same sequence are one sequence; the smallest
    context among them is what is cached of it.

    Args:
        source: GPU of each token, [T].
        sequence: its sequence, [T].
        context: tokens of its sequence before it, [T].
        decodes: whether it is the next token of a sequence that decodes, [T]; else it is part of a prompt.
        n_gpus: G.
        heads_shared: GPUs of an attention group.
        every_logit: whether the next token of every token is wanted, or of the last of each sequence.
    """
    order = np.lexsort((sequence, source))
    gpu, name = source[order], sequence[order]
    starts = np.ones(len(order), dtype=np.bool_)
    starts[1:] = (gpu[1:] != gpu[:-1]) | (name[1:] != name[:-1])
    first = np.flatnonzero(starts)
    new = np.diff(np.append(first, len(order)))
    cached = np.minimum.reduceat(context[order], first) if len(first) else np.empty(0, np.int32)
    own, decode = gpu[first], decodes[order][first]
    tokens = np.bincount(source, minlength=n_gpus).astype(np.int64)
    rows = tokens if every_logit else np.bincount(own, minlength=n_gpus).astype(np.int64)
    of_group, n_groups = own // heads_shared, n_gpus // heads_shared

    def kinds(which: NDArray[np.bool_]) -> Sequences:
        return _counted(of_group[which], new[which], cached[which], n_groups)

    return AttentionWork(prompts=kinds(~decode), decodes=kinds(decode), tokens=tokens, logit_rows=rows)


def _counted(group: NDArray[np.int32], new: Counts, cached: NDArray[np.int32], n_groups: int) -> Sequences:
    """The kinds of sequences of each group with how many there are of each."""
    order = np.lexsort((cached, new, group))
    columns = np.stack([group[order], new[order], cached[order]]).astype(np.int64)
    starts = np.ones(len(order), dtype=np.bool_)
    starts[1:] = (columns[:, 1:] != columns[:, :-1]).any(axis=0)
    first = np.flatnonzero(starts)
    of_kind, new_tokens, cached_tokens = columns[:, first]
    n_kinds = np.bincount(of_kind, minlength=n_groups)
    row = np.arange(len(first)) - np.repeat(np.cumsum(n_kinds) - n_kinds, n_kinds)
    made = np.zeros((3, int(n_kinds.max(initial=0)), n_groups), dtype=np.int64)
    made[:, row, of_kind] = np.diff(np.append(first, len(order))), new_tokens, cached_tokens
    return Sequences(count=made[0], new_tokens=made[1], cached_tokens=made[2])


def _none(n_groups: int) -> Sequences:
    empty = np.zeros((0, n_groups), dtype=np.int64)
    return Sequences(count=empty, new_tokens=empty, cached_tokens=empty)
