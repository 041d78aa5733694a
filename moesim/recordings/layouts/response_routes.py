"""Routed experts in responses of SGLang and vLLM: base64 of int32, uint16 or uint8, or nested lists.

Facts: SGLang `return_routed_experts` (`meta_info.routed_experts`, `sglext.routed_experts` of chat completions), vLLM
`enable_return_routed_experts` (`prompt_routed_experts`, `choices[].routed_experts`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_CELLS, expert_ids
from moesim.recordings.layout import ChoiceBlock, ImportJob, Layout
from moesim.recordings.records import json_values
from moesim.recordings.sample import Sample
from moesim.recordings.sequences import Routes, blocks_of_sequences, with_counts

DTYPES = {"int32": "<i4", "uint16": "<u2", "uint8": "u1", "int16": "<i2", "int8": "i1", "int64": "<i8"}


def has_routes(value: Any) -> bool:
    """Whether a JSON object is a response, or a list of responses, with routed experts."""
    if isinstance(value, list):
        return bool(value) and has_routes(value[0])
    if not isinstance(value, dict):
        return False
    meta, extension, choices = value.get("meta_info"), value.get("sglext"), value.get("choices")
    return (
        any(isinstance(part, dict) and "routed_experts" in part for part in (meta, extension))
        or "prompt_routed_experts" in value
        or (
            isinstance(choices, list)
            and any(
                isinstance(choice, dict)
                and ("routed_experts" in choice or has_routes({"sglext": choice.get("sglext")}))
                for choice in choices
            )
        )
    )


def routes(where: str, response: Any, n_layers: int | None, top_k: int | None) -> Iterator[Routes]:
    """The routed experts of a response, a sequence each choice.

    `n_layers` and `top_k` of the model are needed for base64 alone, which is a plain row of numbers.

    Raises:
        TraceError: text that is no base64, a length that does not divide by layers x k, or ids that are no ids.
    """
    if isinstance(response, list):
        for number, each in enumerate(response):
            yield from routes(f"{where}[{number}]", each, n_layers, top_k)
        return
    if not has_routes(response):
        raise TraceError(f"{where}: found no routed_experts, wanted a response of SGLang or vLLM with them")
    counts = _token_counts(response)
    for name in ("meta_info", "sglext"):
        part = response.get(name)
        if isinstance(part, dict) and "routed_experts" in part:
            dtype = part.get("routed_experts_dtype", "int32")
            value = decode(f"{where}: {name}.routed_experts", part["routed_experts"], dtype, n_layers, top_k)
            yield with_counts(where, value, *counts)
    prompt = response.get("prompt_routed_experts")
    choices = response.get("choices")
    choices = [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []
    shape = {3: "[tokens, layers, k]"}
    before = None if prompt is None else expert_ids(f"{where}: prompt_routed_experts", prompt, shape)
    answered = False
    for number, choice in enumerate(choices):
        at = f"{where}: choices[{number}]"
        extension = choice.get("sglext")
        if isinstance(extension, dict) and "routed_experts" in extension:
            dtype = extension.get("routed_experts_dtype", "int32")
            value = decode(f"{at}.sglext.routed_experts", extension["routed_experts"], dtype, n_layers, top_k)
            yield with_counts(at, value, *counts)
        elif choice.get("routed_experts") is not None:
            value = decode(f"{at}.routed_experts", choice["routed_experts"], "int32", n_layers, top_k)
            if before is None:
                yield with_counts(at, value, *counts)
            elif before.shape[1:] != value.shape[1:]:
                raise TraceError(f"{at}: found {list(value.shape)}, wanted layers and k of the prompt's {before.shape}")
            else:
                yield Routes(np.concatenate([before, value]), len(before), None)
            answered = True
    if before is not None and not answered:
        yield Routes(before, len(before), None)


def decode(where: str, value: Any, dtype: Any, n_layers: int | None, top_k: int | None) -> NDArray[np.int32]:
    """Ids [tokens, L, K] of base64 text, of nested lists, or of `{values, valid_mask}` around either.

    Raises:
        TraceError: it is none of these, or layers and k are needed and unknown.
    """
    mask = None
    if isinstance(value, dict):
        mask, value = value.get("valid_mask"), value.get("values")
    if isinstance(value, list):
        expert = expert_ids(where, value, {3: "[tokens, layers, k]"})
    elif isinstance(value, str):
        expert = _from_base64(where, value, dtype, n_layers, top_k)
    else:
        raise TraceError(f"{where}: found {type(value).__name__}, wanted base64 text or lists [tokens, layers, k]")
    if mask is None:
        return expert
    valid = np.asarray(mask, dtype=object)
    if valid.shape != expert.shape[:1] or not all(type(each) in (bool, int) for each in valid.tolist()):
        raise TraceError(f"{where}: valid_mask: found {list(valid.shape)}, wanted one true or false a token")
    return np.asarray(expert[valid.astype(bool)])


def _from_base64(where: str, text: str, dtype: Any, n_layers: int | None, top_k: int | None) -> NDArray[np.int32]:
    if dtype not in DTYPES:
        raise TraceError(f"{where}: routed_experts_dtype: found {dtype!r:.40}, wanted {', '.join(DTYPES)}")
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise TraceError(f"{where}: found {text[:20]!r}..., wanted base64 text") from None
    size = np.dtype(DTYPES[dtype]).itemsize
    if not content or len(content) % size:
        raise TraceError(f"{where}: found {len(content)} bytes, wanted a multiple of {size} ({dtype})")
    if n_layers is None or top_k is None:
        raise TraceError(
            f"{where}: base64 does not say how its {len(content) // size} numbers divide into tokens, layers and k; "
            "say the model: --model NAME or --model config.json"
        )
    numbers = len(content) // size
    if numbers % (n_layers * top_k) or numbers > MAX_CELLS:
        raise TraceError(
            f"{where}: found {numbers} numbers, wanted a multiple of {n_layers * top_k} "
            f"({n_layers} layers x top-{top_k} of the model); is it the right model?"
        )
    ids = np.frombuffer(content, dtype=DTYPES[dtype]).astype(np.int64)
    return expert_ids(where, ids.reshape(-1, n_layers, top_k), {3: "[tokens, layers, k]"})


def _token_counts(response: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Prompt and generated tokens as the response states them."""
    for name in ("meta_info", "usage"):
        part = response.get(name)
        if isinstance(part, dict):
            prompt, output = part.get("prompt_tokens"), part.get("completion_tokens")
            if all(type(each) is int and 0 <= each < 2**31 for each in (prompt, output)):
                return prompt, output
    return None, None


def _recognises(sample: Sample) -> bool:
    return bool({"routed_experts", "prompt_routed_experts"} & sample.keys)


def _read(job: ImportJob) -> Iterator[ChoiceBlock]:
    model = job.options.model
    sizes = (None, None) if model is None else (model.n_layers, model.top_k)
    values = ((where, value) for path in job.files for where, value in json_values(path, job.progress))
    yield from blocks_of_sequences(
        job, ((where, each) for where, value in values for each in routes(where, value, *sizes))
    )


LAYOUT = Layout(
    name="routed-experts-responses",
    summary="routed_experts in responses of SGLang and vLLM (JSON or JSON lines; base64 needs --model)",
    recognises=_recognises,
    read=_read,
)
