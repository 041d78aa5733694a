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
from moesim.recordings.layout import ChoiceBlock, ImportJob, KnownModel, Layout
from moesim.recordings.records import json_values
from moesim.recordings.sample import Sample
from moesim.recordings.sequences import Routes, blocks_of_sequences, with_counts

NAME, PROMPT = "routed_experts", "prompt_routed_experts"
SHAPE = {3: "[tokens, layers, k]"}
DTYPES = {"int32": "<i4", "uint16": "<u2", "uint8": "u1", "int16": "<i2", "int8": "i1", "int64": "<i8"}


def has_routes(value: Any) -> bool:
    """Whether a JSON object is a response, or a list of responses, with routed experts."""
    if isinstance(value, list):
        return bool(value) and has_routes(value[0])
    return isinstance(value, dict) and (PROMPT in value or any(True for _ in _holders(value)))


def routes(where: str, response: Any, model: KnownModel | None) -> Iterator[Routes]:
    """The routed experts of a response, a sequence each choice; base64 alone needs the model.

    Raises:
        TraceError: text that is no base64, a length that does not divide by layers x k, or ids that are no ids.
    """
    if isinstance(response, list):
        for number, each in enumerate(response):
            yield from routes(f"{where}[{number}]", each, model)
        return
    if not has_routes(response):
        raise TraceError(f"{where}: found no {NAME}, wanted a response of SGLang or vLLM with them")
    n_prompt, n_output = _token_counts(response)
    prompt = response.get(PROMPT)
    before = None if prompt is None else expert_ids(f"{where}: {PROMPT}", prompt, SHAPE)
    found = False
    for place, holder in _holders(response):
        at = f"{where}: {place}{NAME}"
        value = decode(at, holder[NAME], holder.get(f"{NAME}_dtype", "int32"), model, (n_prompt, n_output))
        found = True
        if before is None:
            yield with_counts(at, value, n_prompt, n_output)
        elif before.shape[1:] != value.shape[1:]:
            raise TraceError(f"{at}: found {list(value.shape)}, wanted the layers and k of {PROMPT} {before.shape}")
        else:
            yield Routes(np.concatenate([before, value]), len(before), None)
    if before is not None and not found:
        yield Routes(before, len(before), None)


def _holders(response: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a response that have routed experts, and their places in it."""
    choices = response.get("choices")
    parts = [("meta_info.", response.get("meta_info")), ("sglext.", response.get("sglext"))]
    for number, choice in enumerate(choices if isinstance(choices, list) else []):
        parts.append((f"choices[{number}].", choice))
        if isinstance(choice, dict):
            parts.append((f"choices[{number}].sglext.", choice.get("sglext")))
    yield from ((place, part) for place, part in parts if isinstance(part, dict) and part.get(NAME) is not None)


def decode(
    where: str, value: Any, dtype: Any, model: KnownModel | None, n_tokens: tuple[int | None, int | None]
) -> NDArray[np.int32]:
    """Ids [tokens, L, K] of base64 text, of nested lists, or of `{values, valid_mask}` around either.

    Raises:
        TraceError: it is none of these, or layers and k are needed and unknown.
    """
    mask = None
    if isinstance(value, dict):
        mask, value = value.get("valid_mask"), value.get("values")
    if isinstance(value, list):
        expert = expert_ids(where, value, SHAPE)
    elif isinstance(value, str):
        expert = _from_base64(where, value, dtype, model, n_tokens)
    else:
        raise TraceError(f"{where}: found {type(value).__name__}, wanted base64 text or lists {SHAPE[3]}")
    if mask is None:
        return expert
    if not isinstance(mask, list) or len(mask) != len(expert) or not all(type(each) in (bool, int) for each in mask):
        raise TraceError(
            f"{where}: valid_mask: found {mask!r:.40}, wanted true or false for each of {len(expert)} tokens"
        )
    return np.asarray(expert[np.array(mask, dtype=bool)])


def _from_base64(
    where: str, text: str, dtype: Any, model: KnownModel | None, n_tokens: tuple[int | None, int | None]
) -> NDArray[np.int32]:
    if dtype not in DTYPES:
        raise TraceError(f"{where}_dtype: found {dtype!r:.40}, wanted {', '.join(DTYPES)}")
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise TraceError(f"{where}: found {text[:20]!r}..., wanted base64 text") from None
    size = np.dtype(DTYPES[dtype]).itemsize
    if not content or len(content) % size:
        raise TraceError(f"{where}: found {len(content)} bytes, wanted a multiple of {size} ({dtype})")
    numbers = len(content) // size
    if model is None:
        raise TraceError(
            f"{where}: base64 does not say how its {numbers} numbers divide into tokens, layers and k; "
            "say the model: --model NAME or --model config.json"
        )
    shapes = [(numbers // (n * model.top_k), n, model.top_k) for n in (model.n_layers, len(model.moe_layers))]
    shapes = [shape for shape in shapes if numbers == shape[0] * shape[1] * shape[2]]
    if not shapes or numbers > MAX_CELLS:
        raise TraceError(
            f"{where}: found {numbers} numbers, wanted a multiple of {model.n_layers * model.top_k} "
            f"({model.n_layers} layers x top-{model.top_k} of {model.name}); is it the right model?"
        )
    total = sum(each or 0 for each in n_tokens)
    shape = next((shape for shape in shapes if shape[0] in (total - 1, total)), shapes[0])
    ids = np.frombuffer(content, dtype=DTYPES[dtype]).astype(np.int64).reshape(shape)
    return expert_ids(where, ids, SHAPE, n_experts=model.n_experts)


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
    return bool({NAME, PROMPT} & sample.keys)


def _read(job: ImportJob) -> Iterator[ChoiceBlock]:
    values = ((where, value) for path in job.files for where, value in json_values(path, job.progress))
    model = job.options.model
    yield from blocks_of_sequences(
        job, ((where, each) for where, value in values for each in routes(where, value, model))
    )


LAYOUT = Layout(
    name="routed-experts-responses",
    summary="routed_experts in responses of SGLang and vLLM (JSON or JSON lines; base64 needs --model)",
    recognises=_recognises,
    read=_read,
)
