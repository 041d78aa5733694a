"""Files that people try to import and that hold no routing: recognised, so that the error says what they are for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

from moesim.errors import TraceError
from moesim.recordings.layout import ImportJob, Layout
from moesim.recordings.layouts.training_csv import has_scalars_only
from moesim.recordings.sample import Sample
from moesim.recordings.stream import line_blocks
from moesim.recordings.tensor_files import torch_names

NUMBER = r"(\d{1,12}(?:\.\d{1,12})?)"
VLLM_LINE = re.compile(rf"avg_tokens={NUMBER}, max_tokens=\d+, balancedness={NUMBER}".encode())
SGLANG_LINE = re.compile(rf"\[Expert Balancedness\].{{0,200}}?current_pass_balancedness={NUMBER}".encode())
PLACEMENTS = {
    "initial_global_assignments": "slots of the load balancer of TensorRT-LLM or vLLM",
    "layer_list": "an expert map of vllm-ascend",
    "physical_to_logical_map": "slots of SGLang's --init-expert-location",
}
REQUESTS = {
    ("timestamp", "contexttokens", "generatedtokens"): "requests of the Azure LLM inference trace",
    ("timestamp", "request tokens", "response tokens"): "requests of BurstGPT",
}
"""Columns by which request traces are known."""


def _placement(sample: Sample) -> str:
    """What kind of placement a file holds, "" if none."""
    if sample.kind == "pt":
        names = torch_names(sample.path)
        slots = b"physical_to_logical_map" in names.replace(b"last_physical_to_logical_map", b"")
        return PLACEMENTS["physical_to_logical_map"] if slots and b"logical_count" not in names else ""
    if "logical_count" in sample.keys:
        return ""
    found = next((what for name, what in PLACEMENTS.items() if name in sample.keys), "")
    yaml_of_slots = re.search(r"^initial_global_assignments\s*:", sample.text, re.MULTILINE) is not None
    return PLACEMENTS["initial_global_assignments"] if yaml_of_slots else found


def _requests(sample: Sample) -> str:
    """What requests a file holds, "" if none."""
    return next((what for columns, what in REQUESTS.items() if set(columns) <= set(sample.header)), "")


def _is_model_config(sample: Sample) -> bool:
    return {"model_type", "hidden_size"} <= sample.keys


def _is_log(sample: Sample) -> bool:
    head = sample.head if sample.kind == "text" else b""
    return VLLM_LINE.search(head) is not None or SGLANG_LINE.search(head) is not None


def _refuse_placement(job: ImportJob) -> NoReturn:
    raise TraceError(
        f"{job.files[0]}: found a placement ({_placement(Sample(job.files[0]))}), which says where experts are and not "
        "which tokens they get; wanted a recording of loads or choices, such as the one that it was made from"
    )


def _refuse_model(job: ImportJob) -> NoReturn:
    raise TraceError(
        f"{job.files[0]}: found the configuration of a model, which holds no routing (`moesim describe` tells what is "
        "in it); wanted a recording of loads or choices"
    )


def _refuse_requests(job: ImportJob) -> NoReturn:
    raise TraceError(
        f"{job.files[0]}: found {_requests(Sample(job.files[0]))}: their arrivals and lengths, and no routing; wanted "
        "a recording of loads or choices"
    )


def _refuse_scalars(job: ImportJob) -> NoReturn:
    raise TraceError(
        f"{job.files[0]}: found scalars of MoE layers of a training run and no loads of experts; wanted a column for "
        "each layer and expert, such as global_batch_tokens_per_expert_layer0_expert3"
    )


def _refuse_log(job: ImportJob) -> NoReturn:
    values: list[float] = []
    engine = ""
    for path in job.files:
        for _, block in line_blocks(path, job.progress):
            for name, pattern, group in (("vLLM", VLLM_LINE, 2), ("SGLang", SGLANG_LINE, 1)):
                found = [float(match[group]) for match in pattern.finditer(block)]
                engine = name if found and not engine else engine
                values += found
    mean = sum(values) / max(1, len(values))
    unreliable = (
        "; before its pull request 51813 vLLM averaged over the wrong axis, so that the values of such versions are "
        "unreliable"
    )
    raise TraceError(
        f"{job.files[0]}: found a log of {engine} with {len(values)} lines of balancedness (mean {mean:.3f}) and "
        f"no loads of experts, so nothing can be replayed{unreliable if engine == 'vLLM' else ''}; wanted a recording, "
        "or generate tokens of such a balance"
    )


def _refusing(
    name: str, summary: str, recognises: Callable[[Sample], bool], read: Callable[[ImportJob], NoReturn]
) -> Layout:
    return Layout(name=name, summary=f"{summary}: refused with what it is", recognises=recognises, read=read)


LAYOUTS = (
    _refusing(
        "placement",
        "a placement of TensorRT-LLM, vLLM, vllm-ascend or SGLang",
        lambda sample: bool(_placement(sample)),
        _refuse_placement,
    ),
    _refusing(
        "request-trace",
        "arrivals of requests of Azure or BurstGPT",
        lambda sample: bool(_requests(sample)),
        _refuse_requests,
    ),
    _refusing("model-config", "the config.json of a model", _is_model_config, _refuse_model),
    _refusing("balancedness-log", "lines of balancedness in a log of vLLM or SGLang", _is_log, _refuse_log),
    _refusing(
        "training-scalars",
        "scalars of MoE layers of Megatron-LM",
        lambda sample: has_scalars_only(sample.header),
        _refuse_scalars,
    ),
)
