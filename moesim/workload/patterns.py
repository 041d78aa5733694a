"""Patterns that people benchmark with: choices dealt in exact numbers, without a router.

A pattern is a function of (workload, seed, step) alone. Its choices of a token
are always distinct. Ranks are runs of E / R consecutive experts, as contiguous
placement has them; each expert-parallel group is dealt its tokens for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moesim.errors import ParameterError
from moesim.workload.dealing import deal, order_of

_HOT, _EVEN, _RANKS, _SOURCES = 1, 2, 3, 4
"""What an order that is drawn is for."""
_EVERY_STEP = 0
"""Step of orders that stay."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A pattern with its parameters, of which each kind reads some (`PATTERNS`)."""

    kind: str
    ranks: int
    """R: ranks of an expert-parallel group."""
    share: float = 0.5
    """Part of the tokens that go to hot experts."""
    experts: int = 8
    """How many experts of a layer are hot."""
    rank: int = 0
    every_steps: int = 10
    duration_steps: int = 2
    factor: float = 1.5
    """Tokens of the fullest rank over those of an average one."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Where tokens go in one layer of a step: some of them to `hot` experts as far as these go, others to `others`.

    `others` [R', m] are runs of equally many experts of ranks, over which the rest
    is dealt evenly in each step; [1, P] are experts without regard to ranks.
    """

    others: NDArray[np.int64]
    share: float = 0.0
    hot: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))


class Dealer:
    """Deals the tokens of a step to the experts of a layer by a pattern.

    Args:
        pattern: its kind and parameters.
        seed: of the run.
        n_experts: E.

    Raises:
        ParameterError: a parameter, what was found and what would be right.
    """

    def __init__(self, pattern: Pattern, *, seed: int, n_experts: int) -> None:
        self.pattern, self._seed, self._n_experts = pattern, seed, n_experts
        if n_experts % pattern.ranks:
            raise ParameterError("ranks", str(pattern.ranks), f"a number that divides the {n_experts} experts")
        if pattern.rank >= pattern.ranks:
            raise ParameterError("rank", str(pattern.rank), f"0 to {pattern.ranks - 1}")

    def check(self, top_k: int) -> None:
        """Refuse a pattern that does not have `top_k` distinct experts for each token.

        Raises:
            ParameterError: the parameter, what was found and what would be right.
        """
        name = "experts" if "experts" in PATTERNS[self.pattern.kind].reads else "ranks"
        found = getattr(self.pattern, name)
        if name == "experts" and found >= self._n_experts:
            raise ParameterError(name, str(found), f"1 to {self._n_experts - 1} of the {self._n_experts} experts")
        targets = self._targets(self.pattern.every_steps - 1, 0)
        if targets.others.size < top_k:
            wanted = f"{top_k} experts or more, top_k, that are not hot or idle; there are {targets.others.size}"
            raise ParameterError(name, str(found), wanted)

    def source_counts(self, n_ranks: int, tokens_per_rank: int) -> NDArray[np.int64]:
        """Tokens of each source rank [n_ranks], in all steps n_ranks x tokens_per_rank together."""
        if self.pattern.kind != "ragged-sources":
            return np.full(n_ranks, tokens_per_rank)
        slope = self.pattern.factor - 1
        ramp = np.linspace(1 - slope, 1 + slope, n_ranks) if n_ranks > 1 else np.ones(1)
        ramp = ramp[order_of(self._seed, _EVERY_STEP, 0, _SOURCES, 0, n_ranks)]
        bounds = np.rint(np.cumsum(ramp) * tokens_per_rank).astype(np.int64)
        return np.diff(bounds, prepend=0)

    def fill(self, step: int, layer: int, group: int, out: NDArray[np.int32]) -> None:
        """Fill out [T, K] with the experts of all tokens of an expert-parallel group in a layer of a step."""
        targets = self._targets(step, layer)
        n_tokens, top_k = out.shape
        n_hot = round(targets.share * n_tokens)
        token = np.arange(n_tokens + 1)
        turned = np.diff(token * n_hot // max(1, n_tokens)).astype(np.int64)  # n_hot ones, evenly spread
        to_hot = turned * min(top_k, len(targets.hot))
        for purpose, pool, width, column in (
            (_HOT, targets.hot[None], to_hot, np.zeros(n_tokens, dtype=np.int64)),
            (_EVEN, targets.others, top_k - to_hot, to_hot),
        ):
            if width.any():
                deal(self._seed, step, layer, 2 * group + purpose, pool, width, column, out)

    def _targets(self, step: int, layer: int) -> Targets:
        return PATTERNS[self.pattern.kind].targets(self, step, layer)

    def by_rank(self) -> NDArray[np.int64]:
        """All experts [R, E / R] by rank."""
        return np.arange(self._n_experts).reshape(self.pattern.ranks, -1)

    def with_hot(self, hot: NDArray[np.int64]) -> Targets:
        """A share of the tokens to these experts, the others evenly to all others."""
        others = np.setdiff1d(np.arange(self._n_experts), hot)
        return Targets(others=others[None], share=self.pattern.share, hot=hot)

    def order(self, layer: int, purpose: int, n: int) -> NDArray[np.int64]:
        """A random order of n, the same in all steps."""
        return order_of(self._seed, _EVERY_STEP, layer, purpose, 0, n)


def _balanced(dealer: Dealer, step: int, layer: int) -> Targets:  # noqa: ARG001 - the same in all steps
    return Targets(others=dealer.by_rank())


def _hot_experts(dealer: Dealer, step: int, layer: int) -> Targets:  # noqa: ARG001
    return dealer.with_hot(dealer.order(layer, _HOT, dealer.by_rank().size)[: dealer.pattern.experts])


def _hot_rank(dealer: Dealer, step: int, layer: int) -> Targets:  # noqa: ARG001
    return dealer.with_hot(dealer.by_rank()[dealer.pattern.rank])


def _spread_hot_experts(dealer: Dealer, step: int, layer: int) -> Targets:  # noqa: ARG001
    by_rank = dealer.by_rank()
    ranks, places = (dealer.order(layer, purpose, n) for purpose, n in zip((_RANKS, _HOT), by_rank.shape, strict=True))
    return dealer.with_hot(by_rank[ranks][:, places].T.ravel()[: dealer.pattern.experts])


def _idle_rank(dealer: Dealer, step: int, layer: int) -> Targets:  # noqa: ARG001
    return Targets(others=np.delete(dealer.by_rank(), dealer.pattern.rank, axis=0))


def _rotating(dealer: Dealer, step: int, layer: int) -> Targets:  # noqa: ARG001
    pattern = dealer.pattern
    return dealer.with_hot(dealer.by_rank()[step // pattern.every_steps % pattern.ranks])


def _burst(dealer: Dealer, step: int, layer: int) -> Targets:
    pattern = dealer.pattern
    bursts = step % pattern.every_steps >= pattern.every_steps - pattern.duration_steps
    return (_hot_experts if bursts else _balanced)(dealer, step, layer)


@dataclass(frozen=True)
class PatternKind:
    """A kind of pattern: where its tokens go, and the parameters that it reads besides `ranks`."""

    summary: str
    targets: Callable[[Dealer, int, int], Targets]
    reads: tuple[str, ...] = ()


PATTERNS: Mapping[str, PatternKind] = {
    "balanced": PatternKind("equally many choices on every rank and expert in every step, to within one", _balanced),
    "hot-experts": PatternKind(
        "a share of the tokens go to some experts of each layer, drawn at random; the others evenly to the others",
        _hot_experts,
        ("share", "experts"),
    ),
    "hot-rank": PatternKind(
        "a share of the tokens go to the experts of one rank, the same in all layers", _hot_rank, ("share", "rank")
    ),
    "spread-hot-experts": PatternKind(
        "as hot-experts, but with the hot experts on as many ranks as possible: experts are uneven, ranks are not",
        _spread_hot_experts,
        ("share", "experts"),
    ),
    "ragged-sources": PatternKind(
        "balanced, from ranks whose numbers of tokens rise evenly up to factor times the mean, in a random order",
        _balanced,
        ("factor",),
    ),
    "idle-rank": PatternKind("balanced over all ranks but one, whose experts get no token", _idle_rank, ("rank",)),
    "rotating-hot-spot": PatternKind(
        "as hot-rank, and the next rank is the hot one after every_steps steps", _rotating, ("share", "every_steps")
    ),
    "burst": PatternKind(
        "balanced, but in the last duration_steps of every every_steps steps as hot-experts",
        _burst,
        ("share", "experts", "every_steps", "duration_steps"),
    ),
}
"""Kinds by name."""
