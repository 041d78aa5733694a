"""SimLLM's preplay traces, versions 1 and 2: JSON lines with a header, requests and a row for each forwarded token.

Facts: simllm/preplay of openfabric-systems/simllm (9c2672c). Rows of version 1 are `forward-token` with gate weights,
of version 2 `observed-dispatch` without; rows of other types (footer, events of the KV cache) say nothing of routing. A
request's last generated token is never forwarded; `token_index` is counted from 0 in each of its phases.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_EXPERTS, MAX_LAYERS
from moesim.recordings.layout import TOKEN_BITS, ChoiceBlock, ImportJob, Layout
from moesim.recordings.records import Row, blocks_of_rows, distinct, finite, json_objects, whole
from moesim.types import DECODE, PREFILL

SCHEMA = "simllm-preplay-trace-v"
SCHEMAS = ("simllm-preplay-trace-v1", "simllm-preplay-trace-v2")
ROUTED = ("forward-token", "observed-dispatch")
PHASE = {"prefill": PREFILL, "decode": DECODE}


class Header(NamedTuple):
    """What the first line states."""

    model: str
    n_experts: int
    top_k: int
    layer_ids: tuple[int, ...]


def header(where: str, row: dict[str, Any]) -> Header:
    """Check the first line.

    Raises:
        TraceError: another schema, or a provenance without its numbers.
    """
    if row.get("schema") not in SCHEMAS:
        raise TraceError(f"{where}: schema: found {row.get('schema')!r:.60}, wanted {' or '.join(SCHEMAS)}")
    facts = row.get("provenance")
    facts = facts if isinstance(facts, dict) else {}
    n_experts, top_k, layers = (facts.get(name) for name in ("expert_count", "top_k", "moe_layer_indices"))
    if type(n_experts) is not int or not 1 <= n_experts <= MAX_EXPERTS:
        raise TraceError(f"{where}: expert_count: found {n_experts!r:.40}, wanted a whole number from 1")
    if type(top_k) is not int or not 1 <= top_k <= n_experts:
        raise TraceError(f"{where}: top_k: found {top_k!r:.40}, wanted a whole number from 1 to {n_experts}")
    if not isinstance(layers, list) or not layers or not all(type(i) is int and 0 <= i < MAX_LAYERS for i in layers):
        raise TraceError(f"{where}: moe_layer_indices: found {layers!r:.40}, wanted a list of layers")
    if layers != sorted(set(layers)):
        raise TraceError(f"{where}: moe_layer_indices: wanted ascending layers, each once")
    return Header(str(facts.get("model_id", ""))[:200], n_experts, top_k, tuple(layers))


@dataclass
class _Requests:
    """What is known of the requests of a file so far: their sequences, tokens of their prompts, all tokens, rows."""

    first_sequence: int
    sequence: dict[str, int] = field(default_factory=dict)
    prompt: dict[str, int] = field(default_factory=dict)
    length: dict[str, int] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)

    def state(self, record: dict[str, Any]) -> None:
        """Note the lengths that the row of a request states."""
        parts = [record.get(name) for name in ("input_token_ids", "output_token_ids")]
        sizes = [len(part) for part in parts if isinstance(part, list)]
        if len(sizes) == len(parts):
            name = _name(record)
            self.prompt[name], self.length[name] = sizes[0], sum(sizes)

    def token(self, where: str, record: dict[str, Any]) -> tuple[int, int, int]:
        """Sequence, position and phase of the token of a row."""
        name = _name(record)
        place = whole(f"{where}: token_index", record.get("token_index"), 2**31)
        phase = PHASE.get(str(record.get("phase")))
        if phase is None:
            raise TraceError(f"{where}: phase: found {record.get('phase')!r:.40}, wanted prefill or decode")
        if phase == DECODE:
            place += self.prompt.setdefault(name, self.rows[name])
        self.rows[name] += 1
        return self.sequence.setdefault(name, self.first_sequence + len(self.sequence)), place, phase

    def say(self, job: ImportJob) -> None:
        """Note how rows and tokens differ."""
        if any(self.rows[name] == length - 1 for name, length in self.length.items()):
            job.note("rows = prompt + generated - 1: the last generated token is not routed")
        cut = sum(self.rows[name] not in (length, length - 1) for name, length in self.length.items())
        if cut:
            job.note(f"{cut} of {len(self.length)} requests have fewer or more rows than tokens")


def _name(record: dict[str, Any]) -> str:
    return f"{record.get('request_id')!s:.200}"


def _rows(job: ImportJob, number: int, first_sequence: int) -> Iterator[tuple[str, Row]]:
    """The rows of one file, whose requests are sequences from `first_sequence` on.

    Raises:
        TraceError: a line with a field that is missing or wrong, or layers other than the header's.
    """
    known: Header | None = None
    requests = _Requests(first_sequence)
    for where, record in json_objects(job.files[number], job.progress):
        if known is None:
            known = header(where, record)
            if number and (known.n_experts, known.model) != (job.n_experts, job.model):
                raise TraceError(f"{where}: found another model than in the file before, wanted the same")
            job.n_experts, job.model = known.n_experts, known.model
        if record.get("row_type") == "request":
            requests.state(record)
        if record.get("row_type") not in ROUTED:
            continue
        sequence, place, phase = requests.token(where, record)
        token = (sequence << TOKEN_BITS) + place
        for layer, ids, weights in _routing(where, record, known):
            yield where, Row(token, layer, ids, weights, phase=phase, sequence=sequence, position=place)
    requests.say(job)


def _routing(where: str, record: dict[str, Any], known: Header) -> Iterator[tuple[int, list[int], list[float] | None]]:
    """Layer, ids and weights of each element of a row's routing."""
    routing = record.get("routing")
    if not isinstance(routing, list) or not all(isinstance(each, dict) for each in routing):
        raise TraceError(f"{where}: routing: found {routing!r:.40}, wanted a list with an object a layer")
    if [each.get("layer_index") for each in routing] != list(known.layer_ids):
        raise TraceError(f"{where}: routing: wanted the {len(known.layer_ids)} layers of the header in their order")
    for layer, each in zip(known.layer_ids, routing, strict=True):
        ids = distinct(f"{where}: expert_ids", each.get("expert_ids"), known.n_experts)
        if len(ids) != known.top_k:
            raise TraceError(f"{where}: expert_ids: found {len(ids)}, wanted {known.top_k} as the header states")
        weights = each.get("gate_weights")
        yield layer, ids, None if weights is None else finite(f"{where}: gate_weights", weights, known.top_k)


def _read(job: ImportJob) -> Iterator[ChoiceBlock]:
    for number in range(len(job.files)):
        yield from blocks_of_rows(_rows(job, number, number << 20))


LAYOUT = Layout(
    name="simllm-preplay",
    summary="SimLLM's preplay trace, versions 1 and 2 (JSON lines)",
    recognises=lambda sample: (
        any(str(record.get("schema")).startswith(SCHEMA) for record in sample.records)
        or re.search(rf'"schema"\s*:\s*"{SCHEMA}', sample.text) is not None
    ),
    read=_read,
)
