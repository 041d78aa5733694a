"""How long every part of one step takes on every GPU."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.attention import attention_in_seconds, attention_seconds
from moesim.hardware.backends import Backend, backend_of, default_backend, expert_kernel
from moesim.hardware.dense import (
    gemm_seconds,
    head_rows,
    head_seconds,
    network_seconds,
    router_seconds,
    sum_seconds,
)
from moesim.hardware.expert import ExpertShape, expert_seconds
from moesim.hardware.gpu import without_sms
from moesim.hardware.layer_kernels import LayerKernels
from moesim.hardware.measured_experts import at_measured_level
from moesim.types import ClusterShape, GpuSpec, ModelShape, Parallelism, Precision


@dataclass(frozen=True, kw_only=True)
class Durations:
    """Seconds, float64, of one layer each; L MoE layers, G GPUs.

    `attention`, of which `attention_in` comes before its kernel, `router`,
    `dense`, `shared_experts` [G] are the same in every layer that has them,
    `experts` is [L, G], `head` [G] comes once a step.
    Where the family has measured tables, they stand instead of formulas.
    """

    attention: NDArray[np.float64]
    attention_in: NDArray[np.float64]
    router: NDArray[np.float64]
    dense: NDArray[np.float64]
    shared_experts: NDArray[np.float64]
    experts: NDArray[np.float64]
    head: NDArray[np.float64]


def step_durations(
    model: ModelShape,
    cluster: ClusterShape,
    precision: Precision,
    *,
    phase: str,
    tokens_per_gpu: NDArray[np.int64],
    context_tokens: int,
    sequence_tokens: int,
    slot_tokens: NDArray[np.int64],
    slot_rank: NDArray[np.int32],
    head_tokens: NDArray[np.int64] | None = None,
    parallelism: Parallelism | None = None,
    kernels: Backend | None = None,
    comm_sms: int = 0,
) -> Durations:
    """Durations of the compute parts of one step; what has no tokens takes no time.

    GPUs that share the heads of their tokens gather these, compute a part of
    the heads for all, and each keeps the sums of its own tokens (sequence
    parallelism), which takes as long as an all-reduce; it is part of `attention`.

    Args:
        model: its widths.
        cluster: its GPU.
        precision: data types of weights, activations and cache.
        phase: "decode", "prefill" or "train" (its forward pass).
        tokens_per_gpu: tokens whose attention each GPU computes, [G].
        context_tokens: cached tokens of a sequence, in decode.
        sequence_tokens: tokens of a prompt, in the other phases.
        slot_tokens: assignments processed by each slot, [L, S].
        slot_rank: GPU of each slot, [S]; the first of several that share it.
        head_tokens: tokens of each GPU in the whole step, [G], where these are of a part of it.
        parallelism: how GPUs are grouped; by default one group, nothing is shared.
        kernels: family of calibrated kernels; by default the one that suits data types and network.
        comm_sms: SMs of each GPU that kernels of a collective hold meanwhile;
            what was measured on a whole GPU slows down as the formula does.
    """
    backend = kernels or backend_of(default_backend(precision, cluster.network))
    if comm_sms and backend.measured is not None:
        again = partial(
            step_durations,
            model,
            cluster,
            precision,
            phase=phase,
            tokens_per_gpu=tokens_per_gpu,
            context_tokens=context_tokens,
            sequence_tokens=sequence_tokens,
            slot_tokens=slot_tokens,
            slot_rank=slot_rank,
            head_tokens=head_tokens,
            parallelism=parallelism,
        )
        formulas = replace(backend, measured=None)
        found = replace(backend, measured=backend.measured.scaled_by(f"slowed by formula on {comm_sms} SMs fewer"))
        return _slowed(again(kernels=found), again(kernels=formulas), again(kernels=formulas, comm_sms=comm_sms))
    gpu, tokens, layers = without_sms(cluster.gpu, comm_sms), tokens_per_gpu, backend.layers(phase)
    parallel = parallelism or Parallelism(expert=cluster.n_gpus)
    attention, before_kernel = _attention(
        model, gpu, precision, phase, tokens, context_tokens, sequence_tokens, parallel.attention_tp, layers
    )
    # all parts but attention and experts depend on the token count alone, and most GPUs have the same
    counts, where = np.unique(tokens, return_inverse=True)
    in_all, last = (counts, where) if head_tokens is None else np.unique(head_tokens, return_inverse=True)
    logit_rows = np.array([head_rows(int(n), sequence_tokens, phase) for n in in_all], dtype=np.int64)
    if backend.router_is_fused:  # softmax and top-k are in the experts' kernel
        width = model.hidden_size
        router = gemm_seconds(gpu, counts, model.n_experts, width, weights="bf16", activations="bf16", kernels=layers)
    else:
        router = router_seconds(model, gpu, counts, layers)

    def network(width: int) -> NDArray[np.float64]:
        return network_seconds(model, gpu, precision, counts, width, kernels=layers)[where]

    none = np.zeros(len(tokens))
    return Durations(
        attention=attention,
        attention_in=before_kernel,
        router=router[where],
        dense=network(model.intermediate_size) if model.dense_layers else none,
        shared_experts=network(model.shared_intermediate_size) if model.n_shared_experts else none,
        experts=_experts(
            model,
            gpu,
            precision,
            phase,
            tokens,
            slot_tokens,
            slot_rank,
            parallel,
            backend,
            all_tokens=cluster.network.copies == "all",
        ),
        head=head_seconds(model, gpu, logit_rows, layers)[last],
    )


def _attention(
    model: ModelShape,
    gpu: GpuSpec,
    precision: Precision,
    phase: str,
    tokens: NDArray[np.int64],
    context_tokens: int,
    sequence_tokens: int,
    heads_shared: int,
    kernels: LayerKernels,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds [G] of attention with the sums of GPUs that share its heads, and the part of it before its kernel."""
    attended, of_group = np.unique(tokens.reshape(-1, heads_shared).sum(axis=1), return_inverse=True)
    if heads_shared > 1:  # prompts of one GPU are not joined with those of another
        sequence_tokens = min(sequence_tokens, max(1, int(tokens.max(initial=0))))
    whole = attention_seconds(
        model,
        gpu,
        precision,
        attended,
        phase=phase,
        context_tokens=context_tokens,
        sequence_tokens=sequence_tokens,
        tensor_parallel=heads_shared,
        kernels=kernels,
    )
    before = attention_in_seconds(
        model, gpu, precision, attended, decodes=phase == "decode", tensor_parallel=heads_shared, kernels=kernels
    )
    summed = whole + sum_seconds(model, gpu, attended, heads_shared, kernels)
    return (
        np.repeat(summed[of_group], heads_shared),
        np.repeat(np.minimum(before, whole)[of_group], heads_shared),
    )


def _experts(
    model: ModelShape,
    gpu: GpuSpec,
    precision: Precision,
    phase: str,
    tokens: NDArray[np.int64],
    slot_tokens: NDArray[np.int64],
    slot_rank: NDArray[np.int32],
    parallel: Parallelism,
    backend: Backend,
    *,
    all_tokens: bool,
) -> NDArray[np.float64]:
    """Seconds of the experts [L, G], group by group; with `all_tokens` of a group each of its ranks is handed them."""
    kernel = expert_kernel(backend, gpu, precision, phase)
    shape = ExpertShape.of(model, n_ranks=parallel.expert, tensor_parallel=parallel.expert_tp)
    groups = []
    for first in range(0, len(tokens), parallel.group_gpus):
        until = first + parallel.group_gpus
        own = (slot_rank >= first) & (slot_rank < until)
        rank = (slot_rank[own] - np.int32(first)) // np.int32(parallel.expert_tp)
        in_group = int(tokens[first:until].sum())
        received_tokens = in_group if all_tokens else None
        experts = expert_seconds(kernel, shape, slot_tokens[:, own], rank, parallel.expert, received_tokens)
        if backend.measured is not None:
            experts = at_measured_level(
                experts,
                backend.measured,
                kernel,
                shape,
                precision,
                tokens=in_group,
                inner_size=model.moe_intermediate_size,
                ranks=len(np.unique(rank)),
                tensor_parallel=parallel.expert_tp,
            )
        groups.append(np.repeat(experts, parallel.expert_tp, axis=1))
    return np.concatenate(groups, axis=1)


def _slowed(found: Durations, whole: Durations, held: Durations) -> Durations:
    """What was found of a whole GPU, as much slower as the formulas are on a part of it."""

    def part(name: str) -> NDArray[np.float64]:
        seconds, before, after = (getattr(durations, name) for durations in (found, whole, held))
        ratio = np.divide(after, before, out=np.ones_like(after), where=before > 0)
        return np.asarray(np.where(seconds == before, after, seconds * ratio))

    return Durations(**{field.name: part(field.name) for field in fields(Durations)})
