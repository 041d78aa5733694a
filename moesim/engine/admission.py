"""What the experts take: the tokens that were sent to their slots, never more than a slot admits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.errors import ConservationError
from moesim.types import Program


def check_admission(program: Program) -> None:
    """Refuse a program that sends a slot more than it admits.

    Raises:
        ConservationError: the first such slot.
    """
    over = (program.slot_capacity >= 0) & (program.slot_tokens > program.slot_capacity)
    if over[_rows(program)].any():
        row, slot = np.argwhere(over)[0]
        tokens, capacity = program.slot_tokens[row, slot], program.slot_capacity[row, slot]
        layer = row // program.micro_batches
        raise ConservationError(f"slot {slot} of MoE layer {layer} got {tokens} tokens, it admits {capacity}")


def admitted(program: Program) -> NDArray[np.int64]:
    """What the experts operations of the program have processed once it has ended, [L, S]."""
    result = np.zeros_like(program.slot_tokens)
    result[_rows(program)] = program.slot_tokens[_rows(program)]
    return result


def _rows(program: Program) -> list[int]:
    return [row for row in program.expert_rows() if row >= 0]
