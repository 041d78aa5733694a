"""Backends, the families of calibrated kernels: what `cluster.kernels` names, and what is known of it on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moesim.errors import InputError, did_you_mean
from moesim.hardware.constants import Constants, document
from moesim.hardware.expert import ExpertConstants, calibrated_gpu
from moesim.hardware.expert_kernel import ExpertKernel
from moesim.hardware.kernel_dtypes import KernelDtype, is_narrow, kernel_dtype
from moesim.hardware.layer_kernels import LayerKernels
from moesim.hardware.measured import Measured
from moesim.types import GpuSpec, NetworkSpec, Precision

LAYERS = (
    "gemm",
    "attention_context",
    "attention_generation",
    "mla_context",
    "mla_generation",
    "mla_bmm",
)
"""Parts for which a backend may take the constants of another group than its framework's own."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """The kernels of all parts of a step.

    `parts` is the backend's entry of backends.yaml. `constants`, by part and
    group, take precedence over the shipped ones; they come from `file`, whose
    digest is `sha256`, and were fitted on `gpu`. All four are empty if no file
    was named. `measured` holds tables that take precedence over formulas.
    """

    name: str
    parts: Mapping[str, str]
    constants: Mapping[str, Constants] = field(default_factory=dict)
    gpu: str = ""
    file: str = ""
    sha256: str = ""
    measured: Measured | None = None

    @property
    def digest(self) -> str:
        """The digest of the user's files that the backend reads; "" if there are none."""
        return self.sha256 + (self.measured.sha256 if self.measured is not None else "")

    @property
    def framework(self) -> str:
        """The framework of all layers for which `parts` names no other group."""
        return self.parts.get("framework", LayerKernels.framework)

    def layers(self, *, throttled: bool) -> LayerKernels:
        """The kernels of all parts but the experts, on GPUs that are at their power limit (`throttled`) or below it."""
        groups = {part: self.parts[part] for part in LAYERS if part in self.parts}
        return LayerKernels(
            framework=self.framework,
            groups=groups,
            constants=self.constants,
            measured=self.measured,
            throttled=throttled,
        )

    @property
    def router_is_fused(self) -> bool:
        """Whether the experts' kernel was timed with the router's softmax and top-k."""
        return self.parts.get("router") == "fused"

    def experts(self, *, prompts: bool) -> str:
        """The group of constants of the experts in a step with tokens of prompts, or in one of decodes alone."""
        return self.parts.get("experts_prefill", self.parts["experts"]) if prompts else self.parts["experts"]


def backends() -> dict[str, dict[str, str]]:
    """Every backend by name: its `summary` and the group of constants of each part."""
    groups: dict[str, dict[str, str]] = document("backends")["groups"]
    return groups


_OF_DEEPEP: Mapping[str, str] = {"low-latency": "sglang-deepep-fp8", "normal": "sglang-deepep-fp8-normal"}
"""The backends of fp8 whose kernels run behind DeepEP's exchanges, by its mode."""


def default_backend(precision: Precision, network: NetworkSpec | None = None) -> str:
    """The backend that suits the data types and the network. All backends are calibrated on one GPU.

    DeepGEMM's masked kernels take the rows as DeepEP's low-latency dispatch
    leaves them, so they run behind that exchange alone. The constants of fp8
    stand for all narrow activations, with their own bytes and peak.
    """
    if is_narrow(precision.activations):
        return _OF_DEEPEP.get(network.deepep if network else "", "sglang-fp8-block")
    return "trtllm-mxfp4" if precision.weights == "fp4" else "trtllm-bf16"


def calibrated_backends(gpu: str) -> list[str]:
    """The backends whose constants were fitted on the GPU of that name."""
    return [*backends()] if gpu == calibrated_gpu().name else []


def check_backend(backend: Backend, precision: Precision) -> None:
    """Refuse a backend that computes in another data type, or that unpacks weights which are not packed.

    Raises:
        InputError: what would be right.
    """
    group = backend.parts["experts"]
    dtype = kernel_dtype(group.rpartition("/")[2])
    if is_narrow(dtype.compute) != is_narrow(precision.activations):
        raise InputError(
            f"a family for activations in {precision.activations}; {backend.name} computes in {dtype.compute}"
        )
    if not suits(group, precision):
        raise InputError(
            f"a family for weights in {precision.weights}; {backend.name} takes weights in {dtype.weights} "
            f"(precision.weights: {dtype.weights})"
        )


def suits(group: str, precision: Precision) -> bool:
    """Whether a group of constants of the experts suits a precision.

    Its kernel must multiply in a data type that is narrow if and only if the activations are. A kernel for narrow
    weights takes no others; any kernel stands in for one of narrow weights, which then has their bytes.
    """
    dtype, own = kernel_dtype(group.rpartition("/")[2]), _dtype(precision)
    same = is_narrow(dtype.compute) == is_narrow(own.compute)
    return same and (own.weights_only or not dtype.weights_only)


def _dtype(precision: Precision) -> KernelDtype:
    return KernelDtype(weights=precision.weights, compute=precision.activations)


def expert_kernel(
    backend: Backend, gpu: GpuSpec, precision: Precision, *, prompts: bool, throttled: bool
) -> ExpertKernel:
    """The experts' kernel of a backend on a GPU, with the data types of the scenario.

    `prompts`: the step has tokens of prompts; `throttled`: GPUs are at their power limit.

    Raises:
        InputError: the GPU has no peak for the type of activations.
    """
    group, mine = backend.experts(prompts=prompts), backend.constants.get("experts", {})
    dtype = _dtype(precision)
    constants = ExpertConstants(**mine[group]) if group in mine else ExpertKernel.from_preset(group).constants
    return ExpertKernel(name=group, gpu=gpu, constants=constants, sustained=throttled, dtype=dtype)


def backend_of(name: str) -> Backend:
    """The backend of that name.

    Raises:
        InputError: there is no such backend; the text names all of them and the most similar one.
    """
    known = backends()
    if name not in known:
        raise InputError(f"one of {', '.join(known)}{did_you_mean(name, known)}")
    return Backend(name=name, parts=known[name])


def provenance(backend: Backend, gpu: GpuSpec, precision: Precision) -> str:
    """Where the times of kernels come from, with its label."""
    shipped, calibrated = calibrated_gpu().name, backend.gpu or calibrated_gpu().name
    constants = f"constants of {backend.name} on {shipped}"
    if backend.file:
        constants = (
            f"constants of {backend.file} on {backend.gpu} ({', '.join(sorted(backend.constants))}; "
            f"sha256 {backend.sha256}), others of {backend.name} on {shipped}"
        )
    rest = f", where the tables of {backend.measured.name} have no measurement" if backend.measured is not None else ""
    text = f"estimated: formulas with {constants}{rest}{_stand_in(backend, precision)}"
    if {calibrated, shipped} == {gpu.name}:
        return text
    own = f", as none of the kernels of {gpu.vendor} was measured" if gpu.vendor else ""
    return f"{text}, for {gpu.name} only the published specifications changed{own}"


def _stand_in(backend: Backend, precision: Precision) -> str:
    """A remark on weights that are narrower than those of the backend's kernel; "" if there is none to make."""
    kernel, own = kernel_dtype(backend.parts["experts"].rpartition("/")[2]), _dtype(precision)
    if kernel.weights_only or not own.weights_only:
        return ""
    return f", which stand in for weights in {own.weights} with their own bytes"
