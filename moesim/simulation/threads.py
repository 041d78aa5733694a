"""How many threads a run has."""

from __future__ import annotations

import os
import re

from moesim.errors import InputError


def threads_or_default(threads: int | None) -> int:
    """Worker threads as asked for, or `default_threads`.

    Raises:
        InputError: there are none.
    """
    if threads is None:
        return default_threads()
    if threads < 1:
        raise InputError(f"threads: found {threads}, wanted 1 or more")
    return threads


def default_threads() -> int:
    """Worker threads: MOESIM_THREADS, else the processors that this process may use.

    Raises:
        InputError: MOESIM_THREADS is no number of threads.
    """
    wanted = os.environ.get("MOESIM_THREADS", "")
    if wanted:
        if not re.fullmatch("[0-9]{1,9}", wanted) or int(wanted) < 1:
            raise InputError(f"MOESIM_THREADS: found {wanted!r:.60}, wanted a whole number from 1")
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
