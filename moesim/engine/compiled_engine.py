"""The compiled interpreter of a program: one sweep over its operations, no event heap.

It runs what needs no events: nothing but the program happens in a step. Every
operation starts when its predecessors and the one before it on its stream have
ended; an exchange moves when its last participant has entered. That is all
that the SimPy interpreter does too, so both agree to the picosecond.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.engine.closed_form import transfer_ps
from moesim.engine.dependencies import dependencies, moe_layers
from moesim.errors import ConservationError
from moesim.kernels.jit import njit
from moesim.types import Program, Timeline


def run_compiled(program: Program) -> Timeline:
    """Run a program to its end.

    Raises:
        ConservationError: a slot was sent more tokens than it admits.
    """
    over = (program.slot_capacity >= 0) & (program.slot_tokens > program.slot_capacity)
    layers = [layer for layer in moe_layers(program) if layer >= 0]
    if over[layers].any():
        layer, slot = np.argwhere(over)[0]
        tokens, capacity = program.slot_tokens[layer, slot], program.slot_capacity[layer, slot]
        raise ConservationError(f"slot {slot} of MoE layer {layer} got {tokens} tokens, it admits {capacity}")
    waits_for = dependencies(program)
    counts = np.array([len(before) for before in waits_for], dtype=np.int64)
    start = np.zeros((program.n_operations, program.n_gpus), dtype=np.int64)
    end = np.zeros_like(start)
    _sweep(
        program.duration_ps,
        transfer_ps(program),
        program.exchange_layer >= 0,
        np.concatenate([[0], np.cumsum(counts)]),
        np.array([p for before in waits_for for p in before], dtype=np.int64),
        start,
        end,
    )
    admitted = np.zeros_like(program.slot_tokens)
    admitted[layers] = program.slot_tokens[layers]
    return Timeline(start_ps=start, end_ps=end, admitted=admitted, n_events=start.size)


@njit
def _sweep(
    duration: NDArray[np.int64],
    transfer: NDArray[np.int64],
    is_exchange: NDArray[np.bool_],
    first: NDArray[np.int64],
    before: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
) -> None:
    """Fill start and end [O, G]; operation o waits for before[first[o]:first[o + 1]], which are earlier ones."""
    n_ops, n_gpus = start.shape
    for o in range(n_ops):
        for k in range(first[o], first[o + 1]):
            p = before[k]
            for x in range(n_gpus):
                start[o, x] = max(start[o, x], end[p, x])
        if is_exchange[o]:
            entered = start[o, 0]
            for x in range(1, n_gpus):
                entered = max(entered, start[o, x])
            for x in range(n_gpus):
                end[o, x] = entered + transfer[o, x]
        else:
            for x in range(n_gpus):
                end[o, x] = start[o, x] + duration[o, x]
