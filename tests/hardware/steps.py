"""Steps whose durations are looked up in measured tables."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from moesim.hardware import Backend, Durations, backend_of, default_backend, step_durations
from moesim.hardware.measured import Measured
from moesim.hardware.token_loads import balanced
from moesim.types import ModelShape, Parallelism, Precision
from tests.hardware.shapes import NETWORK, cluster, work


def measured_by(backend: Backend) -> Measured:
    """The tables of a backend that has some."""
    assert backend.measured is not None
    return backend.measured


def step(
    model: ModelShape,
    precision: Precision,
    tokens: list[int],
    kernels: Backend | None,
    *,
    loads: NDArray[np.int64] | list[int] | None = None,
    phase: str = "decode",
    context: int = 1000,
    sequence: int = 1024,
    parallelism: Parallelism | None = None,
    comm_sms: int = 0,
    copies: str = "per-rank",
) -> Durations:
    """A step, with the loads [E] of its one MoE layer, by default even ones."""
    n_gpus, n_experts = len(tokens), model.n_experts
    shared = 1 if parallelism is None else parallelism.attention_tp
    if loads is None:
        loads = balanced(sum(tokens), n_experts, model.top_k, 1)
    return step_durations(
        model,
        dataclasses.replace(cluster(1, n_gpus), network=dataclasses.replace(NETWORK, copies=copies)),
        precision,
        work(tokens, phase, context=context, sequence=sequence, heads_shared=shared),
        slot_tokens=np.asarray(loads, dtype=np.int64)[None],
        slot_rank=np.repeat(np.arange(n_gpus), n_experts // n_gpus).astype(np.int32),
        parallelism=parallelism,
        comm_sms=comm_sms,
        kernels=kernels or backend_of(default_backend(precision)),
    )
