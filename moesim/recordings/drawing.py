"""Recordings that moesim draws itself from a fit: `python -m moesim.recordings.drawing FIT -o TRACE`.

The recording that the scenario `mixtral-recorded` replays is
`python -m moesim.recordings.drawing mixtral-8x7b-gsm8k --tokens 64 -o scenarios/mixtral-synthetic.parquet`.
"""

from __future__ import annotations

import argparse

import numpy as np

from moesim.recordings.parquet import write_trace
from moesim.recordings.synthetic_twin import draw_choices
from moesim.scenario.fitted import fitted_path, read_popularity
from moesim.types import PREFILL, FittedPopularity, Trace, token_columns


def drawn_trace(fit: FittedPopularity, *, name: str, n_sequences: int, sequence_tokens: int, seed: int = 1) -> Trace:
    """Choices of the prompts of whole sequences, drawn from a fit and labelled as synthetic.

    Args:
        fit: whose statistics they have.
        name: of the fit, for the notes of the trace.
        n_sequences: one prefill step each has.
        sequence_tokens: tokens of a sequence.
        seed: of the draws.
    """
    expert, sequence, topic = draw_choices(
        fit.shares,
        fit.top_k,
        seed=seed,
        n_sequences=n_sequences,
        sequence_tokens=sequence_tokens,
        topic_count=fit.topic_count,
        topic_strength=fit.topic_strength,
        locality=fit.locality or None,
    )
    n_tokens = n_sequences * sequence_tokens
    return Trace(
        expert=expert,
        weight=None,
        **token_columns(
            n_tokens,
            sequence=sequence,
            step=sequence,
            position=np.arange(n_tokens) % sequence_tokens,
            phase=np.full(n_tokens, PREFILL),
            topic=topic,
        ),
        layer_ids=fit.layers,
        n_experts=fit.n_experts,
        layout="moesim-synthetic",
        model=fit.model,
        synthetic=True,
        notes=(f"drawn by moesim from the fit {name}, seed {seed}; no recording",),
    )


def main() -> None:
    """Draw a recording and write it."""
    parser = argparse.ArgumentParser(description="Draw a recording from a fit of moesim fit.")
    parser.add_argument("fit", help="a file of moesim fit, or the name of a fit that ships")
    parser.add_argument("-o", "--output", default="trace.parquet")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128, help="of a sequence")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    fit, _ = read_popularity(fitted_path(arguments.fit))
    trace = drawn_trace(
        fit,
        name=arguments.fit,
        n_sequences=arguments.sequences,
        sequence_tokens=arguments.tokens,
        seed=arguments.seed,
    )
    write_trace(trace, arguments.output)


if __name__ == "__main__":
    main()
