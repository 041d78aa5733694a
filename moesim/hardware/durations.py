"""How long every part of one step takes on every GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.attention import attention_in_seconds, attention_seconds
from moesim.hardware.backends import Backend, backend_of, default_backend, expert_kernel
from moesim.hardware.dense import (
    gemm_seconds,
    head_seconds,
    latent_projection_seconds,
    network_seconds,
    router_seconds,
    sum_seconds,
)
from moesim.hardware.expert import ExpertShape
from moesim.hardware.expert_kernel import expert_seconds
from moesim.hardware.gpu import without_sms
from moesim.hardware.layer_kernels import LayerKernels
from moesim.hardware.measured_experts import at_measured_level
from moesim.types import AttentionWork, ClusterShape, GpuSpec, LayerShape, ModelShape, Parallelism, Precision, Sequences

Seconds = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Durations:
    """Seconds, float64, of one layer each; C classes of layers, L MoE layers, G GPUs.

    `attention`, of which `attention_in` comes before its kernels, `router` (with
    the products into and out of the experts' width, if that is a latent one),
    `dense` and `shared_experts` are [C, G], with a row for each of
    `ModelShape.layers`, 0 where these have no such part; `experts` is [L, G], and
    `head` [G] comes once a step.
    """

    attention: Seconds
    attention_in: Seconds
    router: Seconds
    dense: Seconds
    shared_experts: Seconds
    experts: Seconds
    head: Seconds


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What a step has to compute, and where."""

    model: ModelShape
    cluster: ClusterShape
    precision: Precision
    work: AttentionWork
    slot_tokens: Counts
    slot_rank: NDArray[np.int32]
    parallelism: Parallelism
    splits_attention: bool


def step_durations(
    model: ModelShape,
    cluster: ClusterShape,
    precision: Precision,
    work: AttentionWork,
    *,
    slot_tokens: Counts,
    slot_rank: NDArray[np.int32],
    parallelism: Parallelism | None = None,
    kernels: Backend | None = None,
    comm_sms: int = 0,
    splits_attention: bool = True,
) -> Durations:
    """Durations of the compute parts of one step; what has no tokens takes no time.

    GPUs that share the heads of their tokens gather these, compute a part of
    the heads for all, and each keeps the sums of its own tokens (sequence
    parallelism), which takes as long as an all-reduce; it is part of `attention`.

    Args:
        model: its layers and widths.
        cluster: its GPU.
        precision: data types of weights, activations and cache.
        work: the sequences of the step, or of a part of it; its groups are those of GPUs that share heads.
        slot_tokens: assignments processed by each slot, [L, S].
        slot_rank: GPU of each slot, [S]; the first of several that share it.
        parallelism: how GPUs are grouped; by default one group, nothing is shared.
        kernels: family of calibrated kernels; by default the one that suits data types and network.
        comm_sms: SMs of each GPU that kernels of a collective hold meanwhile;
            what was measured on a whole GPU slows down as the formula does.
        splits_attention: whether `attention_in` is wanted; else it is 0.
    """
    backend = kernels or backend_of(default_backend(precision, cluster.network))
    step = _Step(
        model=model,
        cluster=cluster,
        precision=precision,
        work=work,
        slot_tokens=slot_tokens,
        slot_rank=slot_rank,
        parallelism=parallelism or Parallelism(expert=cluster.n_gpus),
        splits_attention=splits_attention,
    )
    if not comm_sms or backend.measured is None:
        return _durations(step, backend, comm_sms)
    formulas = replace(backend, measured=None)
    found = replace(backend, measured=backend.measured.scaled_by(f"slowed by formula on {comm_sms} SMs fewer"))
    return _slowed(_durations(step, found, 0), _durations(step, formulas, 0), _durations(step, formulas, comm_sms))


def is_throttled(work: AttentionWork) -> bool:
    """Whether GPUs stay at their power limit: in steps that have more tokens of prompts than of decodes.

    A step of decodes streams more than it multiplies and draws less. Most of
    what a mixed step multiplies is of its tokens, whatever their kind.
    Source: Splitwise (arXiv 2311.18677), power of the prompt and of the token phase.
    """
    return work.prompt_tokens > work.decode_tokens


def _durations(step: _Step, backend: Backend, comm_sms: int) -> Durations:
    model, work = step.model, step.work
    gpu = without_sms(step.cluster.gpu, comm_sms)
    layers = backend.layers(throttled=is_throttled(work))
    # all parts but attention and experts depend on the token count alone, and most GPUs have the same
    counts, of_gpu = np.unique(work.tokens, return_inverse=True)
    distinct, of_group = _distinct(work)

    def by_class(seconds: Callable[[LayerShape], Seconds]) -> Seconds:
        return np.stack([seconds(each.shape) for each in model.layers])

    def router(layer: LayerShape) -> Seconds:
        if not layer.n_experts:
            return np.zeros(len(of_gpu))
        if backend.router_is_fused:  # softmax and top-k are in the experts' kernel
            widths = layer.n_experts, layer.hidden_size
            seconds = gemm_seconds(gpu, counts, *widths, weights="bf16", activations="bf16", kernels=layers)
        else:
            seconds = router_seconds(layer, gpu, counts, layers)
        return (seconds + latent_projection_seconds(layer, gpu, step.precision, counts, layers))[of_gpu]

    def network(layer: LayerShape, width: int) -> Seconds:
        if not width:
            return np.zeros(len(of_gpu))
        return network_seconds(layer, gpu, step.precision, counts, width, kernels=layers)[of_gpu]

    shapes, of_class = model.attention_shapes
    shared = step.parallelism.attention_tp
    attention, before = zip(*(_attention(step, shape, gpu, distinct, layers) for shape in shapes), strict=True)

    def by_gpu(seconds: Sequence[Seconds]) -> Seconds:
        return np.repeat(np.stack(seconds)[of_class][:, of_group], shared, axis=1)

    rows, of_rows = np.unique(work.logit_rows, return_inverse=True)
    return Durations(
        attention=by_gpu(attention),
        attention_in=by_gpu(before),
        router=by_class(router),
        dense=by_class(lambda layer: network(layer, layer.intermediate_size)),
        shared_experts=by_class(lambda layer: network(layer, layer.shared_intermediate_size)),
        experts=_experts(step, backend, gpu),
        head=head_seconds(model, gpu, rows, layers)[of_rows],
    )


def _attention(
    step: _Step, layer: LayerShape, gpu: GpuSpec, work: AttentionWork, kernels: LayerKernels
) -> tuple[Seconds, Seconds]:
    """Seconds [A] of attention with the sums of GPUs that share its heads, and the part of it before its kernels."""
    shared = step.parallelism.attention_tp
    arguments = (layer, gpu, step.precision, work)
    whole = attention_seconds(*arguments, tensor_parallel=shared, kernels=kernels)
    before = np.zeros_like(whole)
    if step.splits_attention:
        before = attention_in_seconds(*arguments, tensor_parallel=shared, kernels=kernels)
    if layer.attention == "absent":
        return whole, before
    summed = whole + sum_seconds(layer, gpu, work.group_tokens, shared, kernels)
    return summed, np.minimum(before, whole)


def _distinct(work: AttentionWork) -> tuple[AttentionWork, NDArray[np.intp]]:
    """The attention groups that differ, and the place among them of each group; most have the same sequences."""
    parts = [getattr(own, each.name) for own in (work.prompts, work.decodes) for each in fields(Sequences)]
    rows = np.concatenate(parts)
    rows = rows[(rows != rows[:, :1]).any(axis=1)]
    if len(rows) == 1:
        _, first, of_group = np.unique(rows[0], return_index=True, return_inverse=True)
    elif len(rows):
        _, first, of_group = np.unique(rows, axis=1, return_index=True, return_inverse=True)
    else:
        first, of_group = np.zeros(1, dtype=np.intp), np.zeros(work.n_groups, dtype=np.intp)

    def only(own: Sequences) -> Sequences:
        return Sequences(**{each.name: getattr(own, each.name)[:, first] for each in fields(Sequences)})

    return replace(work, prompts=only(work.prompts), decodes=only(work.decodes)), of_group.reshape(-1)


def _experts(step: _Step, backend: Backend, gpu: GpuSpec) -> Seconds:
    """Seconds of the experts [L, G], class by class of layers."""
    classes = [each for each in step.model.layers if each.shape.n_experts]
    if len(classes) == 1:
        return _experts_of(step, classes[0].shape, step.slot_tokens, backend, gpu)
    moe_index = {layer: i for i, layer in enumerate(step.model.moe_layers)}
    seconds = np.zeros((len(step.slot_tokens), len(step.work.tokens)))
    for each in classes:
        own = [moe_index[layer] for layer in each.indices]
        seconds[own] = _experts_of(step, each.shape, step.slot_tokens[own], backend, gpu)
    return seconds


def _experts_of(step: _Step, layer: LayerShape, slot_tokens: Counts, backend: Backend, gpu: GpuSpec) -> Seconds:
    """Seconds of the experts of equal layers, group by group; an all-gather hands each rank the tokens of its group."""
    prompts, tokens, parallel = step.work.prompts.any, step.work.tokens, step.parallelism
    kernel = expert_kernel(backend, gpu, step.precision, prompts=prompts, throttled=is_throttled(step.work))
    shape = ExpertShape.of(layer, n_ranks=parallel.expert, tensor_parallel=parallel.expert_tp)
    groups = []
    for first in range(0, len(tokens), parallel.group_gpus):
        until = first + parallel.group_gpus
        own = (step.slot_rank >= first) & (step.slot_rank < until)
        rank = (step.slot_rank[own] - np.int32(first)) // np.int32(parallel.expert_tp)
        in_group = int(tokens[first:until].sum())
        received_tokens = in_group if step.cluster.network.copies == "all" else None
        experts = expert_seconds(kernel, shape, slot_tokens[:, own], rank, parallel.expert, received_tokens)
        if backend.measured is not None:
            experts = at_measured_level(
                experts,
                backend.measured,
                kernel,
                shape,
                step.precision,
                tokens=in_group,
                inner_size=layer.moe_intermediate_size,
                ranks=len(np.unique(rank)),
                tensor_parallel=parallel.expert_tp,
            )
        groups.append(np.repeat(experts, parallel.expert_tp, axis=1))
    return np.concatenate(groups, axis=1)


def _slowed(found: Durations, whole: Durations, held: Durations) -> Durations:
    """What was found of a whole GPU, as much slower as the formulas are on a part of it."""

    def part(name: str) -> Seconds:
        seconds, before, after = (getattr(durations, name) for durations in (found, whole, held))
        ratio = np.divide(after, before, out=np.ones_like(after), where=before > 0)
        return np.asarray(np.where(seconds == before, after, seconds * ratio))

    return Durations(**{field.name: part(field.name) for field in fields(Durations)})
