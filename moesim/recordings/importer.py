"""Importer of recorded routing: JSON lines in, a routing trace out."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moesim.errors import TraceError
from moesim.recordings.parquet import check_replaceable, write_trace
from moesim.types import Trace, token_columns

FIELDS = ("problem_id", "token_idx", "layer", "experts", "gating_probs")
MAX_EXPERTS = 100_000
"""As a scenario's model may have."""
MAX_WEIGHT = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What was read, and what a user must know about it."""

    n_tokens: int
    n_layers: int
    top_k: int
    n_sequences: int
    notes: tuple[str, ...]


def import_recordings(paths: Sequence[str | Path], out: str | Path) -> ImportReport:
    """Read JSON-lines recordings (plain or .gz), one line a (token, layer), and write one trace.

    Each line holds problem_id, token_idx, layer, experts (K ids, best first)
    and gating_probs (K weights). Tokens keep the order of their first line; a
    file's problems are apart from those of another file. A (token, layer) that
    was not recorded becomes -1 choices and a note.

    Raises:
        TraceError: a line that is no such record; the text names file and line.
        OutputError: the trace cannot be written, or another file, such as a recording, stands there.
    """
    if not paths:
        raise TraceError("nothing to import: name at least one recording")
    check_replaceable(out)
    sequences: dict[tuple[int, int], int] = {}
    tokens: dict[tuple[int, int], int] = {}
    rows: dict[tuple[int, int], tuple[list[int], list[float]]] = {}
    for number, path in enumerate(paths):
        for where, record in _records(Path(path)):
            problem, index, layer, experts, weights = _fields(where, record)
            sequence = sequences.setdefault((number, problem), len(sequences))
            token = tokens.setdefault((sequence, index), len(tokens))
            if (token, layer) in rows:
                raise TraceError(f"{where}: token {index} of problem {problem} has layer {layer} twice")
            rows[token, layer] = (experts, weights)
    if not rows:
        raise TraceError(f"{paths[0]}: found no records, wanted one line a (token, layer)")
    trace, missing = _arrays(list(tokens), rows)
    write_trace(trace, out)
    notes = []
    if missing:
        whole = int(np.count_nonzero((trace.expert >= 0).all(axis=(0, 2))))
        notes.append(
            f"{missing} of {trace.n_tokens * trace.n_layers} (token, layer) pairs were not recorded; they make no "
            f"choice there ({trace.n_tokens - whole} of {trace.n_tokens} tokens are incomplete)"
        )
    return ImportReport(
        n_tokens=trace.n_tokens,
        n_layers=trace.n_layers,
        top_k=trace.top_k,
        n_sequences=len(sequences),
        notes=tuple(notes),
    )


def _arrays(
    tokens: list[tuple[int, int]],
    rows: dict[tuple[int, int], tuple[list[int], list[float]]],
) -> tuple[Trace, int]:
    """The trace of all rows, and how many (token, layer) pairs are missing."""
    n_layers = max(layer for _, layer in rows) + 1
    top_k = max(len(experts) for experts, _ in rows.values())
    expert = np.full((n_layers, len(tokens), top_k), -1, dtype=np.int32)
    weight = np.zeros((n_layers, len(tokens), top_k), dtype=np.float32)
    for (token, layer), (experts, weights) in rows.items():
        expert[layer, token, : len(experts)] = experts
        weight[layer, token, : len(weights)] = weights
    sequence = np.array([sequence for sequence, _ in tokens], dtype=np.int32)
    return Trace(
        expert=expert,
        weight=weight,
        **token_columns(len(tokens), sequence=sequence, position=np.array([index for _, index in tokens])),
        layer_ids=tuple(range(n_layers)),
        n_experts=int(expert.max()) + 1,
        layout="moesim-jsonl",
    ), len(tokens) * n_layers - len(rows)


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON objects of a file with the place each stands at."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                where = f"{path}:{number}"
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    raise TraceError(f"{where}: found {line[:40]!r}, wanted a JSON object") from None
                if not isinstance(record, dict):
                    raise TraceError(f"{where}: found {line[:40]!r}, wanted a JSON object")
                yield where, record
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from None


def _fields(where: str, record: dict[str, Any]) -> tuple[int, int, int, list[int], list[float]]:
    missing = [name for name in FIELDS if name not in record]
    if missing:
        raise TraceError(f"{where}: {', '.join(missing)}: missing, wanted a record with {', '.join(FIELDS)}")
    problem, index, layer, experts, weights = (record[name] for name in FIELDS)
    for name, value in (
        ("problem_id", problem),
        ("token_idx", index),
        ("layer", layer),
    ):
        if type(value) is not int or not 0 <= value < 2**31:
            raise TraceError(f"{where}: {name}: found {value!r:.60}, wanted an integer from 0")
    if layer >= 10_000:
        raise TraceError(f"{where}: layer: found {layer}, wanted less than 10000")
    if not isinstance(experts, list) or not experts or len(set(map(str, experts))) != len(experts):
        raise TraceError(f"{where}: experts: found {experts!r:.60}, wanted a list of distinct experts")
    if any(type(e) is not int or not 0 <= e < MAX_EXPERTS for e in experts):
        raise TraceError(f"{where}: experts: found {experts!r:.60}, wanted integers from 0 below {MAX_EXPERTS}")
    numbers = isinstance(weights, list) and all(
        type(w) in (int, float) and 0 <= w <= MAX_WEIGHT for w in weights
    )  # compared as they are: an integer of JSON may be too large for any float
    if not numbers or len(weights) != len(experts):
        wanted = f"{len(experts)} finite numbers from 0 to {MAX_WEIGHT:.1e}"
        raise TraceError(f"{where}: gating_probs: found {weights!r:.60}, wanted {wanted}")
    return problem, index, layer, experts, weights
