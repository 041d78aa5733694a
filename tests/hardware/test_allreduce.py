"""All-reduces: laws, and the bandwidth that large ones reach."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.hardware.allreduce import AllReduceConstants, allreduce_seconds
from moesim.hardware.constants import load
from moesim.types import GpuSpec
from tests.hardware.shapes import H100


def faster(gpu: GpuSpec, compute: float = 1.0, bandwidth: float = 1.0) -> GpuSpec:
    """A GPU with multiplied peaks, clock and memory bandwidth."""
    peaks = {dtype: compute * peak for dtype, peak in gpu.peak_tflops.items()}
    clock, moved = compute * gpu.clock_ghz, bandwidth * gpu.memory_bandwidth_gb_per_s
    return dataclasses.replace(gpu, peak_tflops=peaks, clock_ghz=clock, memory_bandwidth_gb_per_s=moved)


@given(
    st.sampled_from(list(load("allreduce"))), st.sampled_from([2, 4, 8]), st.integers(1, 2**28), st.integers(1, 2**24)
)
def test_larger_sums_are_never_faster(group: str, gpus: int, message: int, more: int) -> None:
    """Nor do they take no time."""
    c = AllReduceConstants(**load("allreduce")[group])
    before, after = (allreduce_seconds(c, H100, gpus=gpus, message=m) for m in (message, message + more))
    assert after >= before > 0
    assert allreduce_seconds(c, H100, gpus=gpus, message=0) == 0
    assert allreduce_seconds(c, H100, gpus=1, message=message) == 0


@given(st.sampled_from(list(load("allreduce"))), st.sampled_from([2, 3, 4, 6, 8]), st.integers(1, 2**28))
def test_faster_links_and_memory_never_slow_down_a_sum(group: str, gpus: int, message: int) -> None:
    """The links of Blackwell are faster than H100's."""
    c, newer = AllReduceConstants(**load("allreduce")[group]), dataclasses.replace(H100, network="nvlink5-ib400")
    took = allreduce_seconds(c, H100, gpus=gpus, message=message)
    assert allreduce_seconds(c, newer, gpus=gpus, message=message) <= took
    assert allreduce_seconds(c, faster(H100, bandwidth=2.0), gpus=gpus, message=message) <= took


@pytest.mark.parametrize("group", load("allreduce"))
def test_large_sums_reach_the_bandwidth_of_the_links(group: str) -> None:
    """A sum of 1 GiB on eight GPUs."""
    # 1 GiB over 8 GPUs: 430 GB/s of bus bandwidth are published beside the tables, the port has 450
    c, message = AllReduceConstants(**load("allreduce")[group]), 2.0**30
    took = float(allreduce_seconds(c, H100, gpus=8, message=message))
    assert 350e9 < 2 * 7 / 8 * message / took < 480e9
