"""Arrays of whole numbers from elsewhere: checked before anything is computed with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.layout import ImportJob

MAX_CELLS = 2**28
"""Numbers that one array may hold: 2 GiB as 64 bits, so that a file of a few bytes cannot claim all memory."""
MAX_COUNT = 2**53
"""Above this a count in JSON, which is a float for many writers, is no longer exact."""
MAX_EXPERTS = 100_000
"""As a scenario's model may have."""
MAX_LAYERS = 10_000


def check_shape(where: str, shape: tuple[int, ...], dimensions: dict[int, str]) -> None:
    """Refuse an array whose dimensions are not among those wanted (number of dimensions -> their names), or too large.

    Raises:
        TraceError: named with `where`.
    """
    if len(shape) not in dimensions:
        raise TraceError(f"{where}: found an array of shape {list(shape)}, wanted {' or '.join(dimensions.values())}")
    if 0 in shape:
        raise TraceError(f"{where}: found an empty array of shape {list(shape)}, wanted {dimensions[len(shape)]}")
    cells = 1
    for size in shape:
        cells *= int(size)
    if cells > MAX_CELLS:
        raise TraceError(f"{where}: found an array of shape {list(shape)}, wanted at most {MAX_CELLS} numbers")


def whole_numbers(
    where: str, value: Any, dimensions: dict[int, str], *, low: int = 0, high: int = MAX_COUNT
) -> NDArray[np.int64]:
    """Nested lists, or an array, of whole numbers from `low` to `high`, as int64; floats that are whole are taken.

    Raises:
        TraceError: ragged lists, text, NaN, fractions, numbers out of range, or another number of dimensions.
    """
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, RecursionError):
        wanted = " or ".join(dimensions.values())
        raise TraceError(f"{where}: found lists of unequal lengths or depths, wanted {wanted}") from None
    check_shape(where, array.shape, dimensions)
    if array.dtype.kind not in "iuf":
        odd = next((each for each in array.ravel()[:MAX_EXPERTS].tolist() if type(each) not in (int, float)), "?")
        found = f"{odd!r:.40}" if array.dtype.kind != "O" or odd != "?" else "numbers beyond 64 bits"
        raise TraceError(f"{where}: found {found}, wanted whole numbers from {low} to {high}")
    with np.errstate(invalid="ignore"):
        right = (array >= low) & (array <= high)
        if array.dtype.kind == "f":
            right &= array == np.floor(array)
    if not right.all():
        index = tuple(int(i) for i in np.argwhere(~right)[0])
        at = "".join(f"[{i}]" for i in index)
        raise TraceError(f"{where}{at}: found {array[index]}, wanted whole numbers from {low} to {high}")
    return array.astype(np.int64)


def expert_ids(
    where: str, value: Any, dimensions: dict[int, str], *, n_experts: int | None = None, low: int = -1
) -> NDArray[np.int32]:
    """Ids of experts counted from 0 as int32; -1 where nothing was chosen, unless `low` is 0.

    Raises:
        TraceError: as `whole_numbers`, or an id of `n_experts` or more.
    """
    high = (MAX_EXPERTS if n_experts is None else n_experts) - 1
    return whole_numbers(where, value, dimensions, low=low, high=high).astype(np.int32)


def to_logical(
    where: str, physical: NDArray[np.int64], slots: NDArray[np.int64], n_experts: int | None = None
) -> NDArray[np.int64]:
    """Counts of slots [..., L, P] summed to their experts [..., L, E] by the map `slots` [L, P], -1 for an empty slot.

    Raises:
        TraceError: the map is of another shape.
    """
    if physical.shape[-2:] != slots.shape:
        raise TraceError(
            f"{where}: found a map of {list(slots.shape)} slots for counts of {list(physical.shape[-2:])}, "
            "wanted both as [layers, slots]"
        )
    n_experts = n_experts or int(slots.max()) + 1
    logical = np.zeros((*physical.shape[:-1], n_experts), dtype=np.int64)
    for layer in range(slots.shape[0]):
        used = slots[layer] >= 0
        np.add.at(logical[..., layer, :].T, slots[layer][used], physical[..., layer, :][..., used].T)
    return logical


def stated_experts(job: ImportJob, highest: int) -> int:
    """The number of experts that was stated, or one more than the highest that occurs.

    Raises:
        TraceError: a higher one occurs than was stated.
    """
    if job.n_experts is not None and highest >= job.n_experts:
        raise TraceError(f"{job.files[0]}: found expert {highest}, wanted experts 0 to {job.n_experts - 1}")
    return job.n_experts or highest + 1
