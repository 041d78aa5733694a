"""regolith's binary traces: a header of 16 bytes, then the first choices of every token and layer.

The header is little-endian: `Q4RT`, version, layers, experts and choices as 16 bits, tokens as 32 bits. For each
(token, layer) follow the choices' ids and their values, 16 bits each. What type the values have is not verified, so
they are left out.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_CELLS, expert_ids
from moesim.recordings.layout import ChoiceBlock, ImportJob, Layout, blocks_of_tokens
from moesim.recordings.stream import open_stream, unreadable

MAGIC = b"Q4RT"
HEADER = struct.Struct("<4sHHHHI")


def regolith(where: str, file: IO[bytes]) -> tuple[NDArray[np.int32], int]:
    """Ids [T, L, K] of an open file, and the number of experts that its header states.

    Raises:
        TraceError: another header, sizes of 0, or fewer or more bytes than the header states.
    """
    head = file.read(HEADER.size)
    if len(head) < HEADER.size or head[:4] != MAGIC:
        raise TraceError(f"{where}: found {head[:4]!r}, wanted a header that begins with {MAGIC!r}")
    _, _, n_layers, n_experts, width, n_tokens = HEADER.unpack(head)
    if 0 in (n_layers, n_experts, width, n_tokens):
        raise TraceError(
            f"{where}: the header states {n_layers} layers, {n_experts} experts, {width} choices and "
            f"{n_tokens} tokens, wanted at least one of each"
        )
    cells = n_tokens * n_layers * 2 * width
    if cells > MAX_CELLS:
        raise TraceError(f"{where}: the header states {cells} numbers, wanted at most {MAX_CELLS}")
    content = file.read(2 * cells + 1)
    if len(content) != 2 * cells:
        found = "more" if len(content) > 2 * cells else str(len(content))
        raise TraceError(f"{where}: found {found} bytes after the header, wanted the {2 * cells} that it states")
    numbers = np.frombuffer(content, dtype="<u2").reshape(n_tokens, n_layers, 2, width)
    return expert_ids(f"{where}: ids", numbers[:, :, 0], {3: "[tokens, layers, k]"}, n_experts=n_experts), n_experts


def _read(job: ImportJob) -> Iterator[ChoiceBlock]:
    job.note("the values beside the ids are left out: what type they have is not documented")
    n_tokens = 0
    for number, path in enumerate(job.files):
        try:
            with open_stream(path) as file:
                expert, n_experts = regolith(str(path), file)
        except (OSError, EOFError, zlib.error) as error:
            raise unreadable(path, error) from None
        if number and n_experts != job.n_experts:
            raise TraceError(f"{path}: the header states {n_experts} experts, wanted {job.n_experts} as before")
        job.n_experts = n_experts
        length = len(expert)
        yield from blocks_of_tokens(
            expert,
            tuple(range(expert.shape[1])),
            first_token=n_tokens,
            where=lambda token, path=path: f"{path}: token {token}",  # type: ignore[misc]
            sequence=np.full(length, number),
        )
        n_tokens += length


LAYOUT = Layout(
    name="regolith",
    summary="regolith's binary trace (begins with Q4RT)",
    recognises=lambda sample: sample.head.startswith(MAGIC),
    read=_read,
)
