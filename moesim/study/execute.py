"""Runs in other processes, by joblib: loky on this machine, Dask on a cluster. No scheduler of our own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from moesim.errors import InputError, MoesimError, RunError
from moesim.frames import flatten
from moesim.scenario import Scenario
from moesim.simulation import simulate

Outcome = tuple[str, dict[str, Any] | None, str]
"""Key of a run, its flat summary or None, and what went wrong."""


def execute(runs: Mapping[str, Scenario], *, workers: int = 1, dask: str | None = None) -> Generator[Outcome]:
    """Simulate runs and yield each as it finishes, in any order; the outcome of a run does not depend on `workers`.

    Args:
        runs: by key.
        workers: processes of this machine, each with one thread; 1 = this process, with all its threads.
        dask: address of a Dask scheduler, whose workers run everything instead.

    Raises:
        InputError: the scheduler cannot be reached, or its extra is not installed.
        RunError: a run ended its Dask workers again and again, or the scheduler is gone.
    """
    if dask is not None:
        yield from _parallel(runs, _on_dask(dask), n_jobs=-1, parent=None)
    elif workers == 1 or len(runs) < 2:
        yield from (_outcome(key, scenario, None) for key, scenario in runs.items())
    else:
        compile_for(runs)
        yield from _survive(dict(runs), workers)


def _outcome(key: str, scenario: Scenario, threads: int | None) -> Outcome:
    """One run; whatever goes wrong in it is kept as text, so that the others go on."""
    try:
        return key, flatten(simulate(scenario, threads=threads).summary), ""
    except MoesimError as error:
        return key, None, str(error)
    except MemoryError:
        return key, None, "this machine's memory is exhausted"
    except Exception as error:  # noqa: BLE001 - routers of the user's own may raise anything
        return key, None, f"{type(error).__name__}: {error}"


def _in_worker(key: str, scenario: Scenario, parent: int | None) -> Outcome:
    """One run in another process: of this machine if `parent` is given, else of a cluster."""
    if parent is not None:
        _follow(parent)
    return _outcome(key, scenario, 1)


@lru_cache(maxsize=1)
def _follow(parent: int) -> None:
    """Make this process end when its parent does: on Ctrl-C by the parent's hand, on SIGKILL by itself.

    loky's processes would wait for five more minutes for work that never comes.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def _parallel(
    runs: Mapping[str, Scenario], backend: AbstractContextManager[Any], *, n_jobs: int, parent: int | None
) -> Iterator[Outcome]:
    from joblib import Parallel, delayed

    with backend:
        parallel = Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        with sigint_blocked():
            outcomes = parallel(delayed(_in_worker)(key, scenario, parent) for key, scenario in list(runs.items()))
        try:
            for outcome in outcomes:  # noqa: UP028 - `yield from` would close it, with a warning for the user
                yield outcome
        finally:
            with warnings.catch_warnings(action="ignore"):  # of tasks that are given up, which the end is for
                outcomes.close()


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Processes that this thread starts in a `with` block do not hear Ctrl-C, where the system can block it.

    They would answer it with tracebacks in the middle of their imports. What
    arrives for this thread is raised when the block is done.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # its start, in the block, would end the blocking (CPython 3.11)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _survive(pending: dict[str, Scenario], workers: int) -> Iterator[Outcome]:
    """Processes on this machine; those that the system kills, for want of memory as a rule, are replaced.

    Runs that were under way are run again; if not one more finishes, then one
    by one, and a run that ends its process is the one that failed.
    """
    from joblib.externals.loky.process_executor import BrokenProcessPool

    together = True
    while pending:
        batch = pending if together else dict([next(iter(pending.items()))])
        finished = 0
        try:
            for outcome in _parallel(batch, _on_loky(), n_jobs=min(workers, max(2, len(batch))), parent=os.getpid()):
                del pending[outcome[0]]
                finished += 1
                yield outcome
        except BrokenProcessPool:
            if not together:
                (key,) = batch
                del pending[key]
                yield key, None, "its process was killed; this machine may have too little memory for it"
            together = together and finished > 0


def _on_loky() -> AbstractContextManager[Any]:
    from joblib import parallel_config

    config: AbstractContextManager[Any] = parallel_config("loky", inner_max_num_threads=1)
    return config


@contextmanager
def _on_dask(address: str) -> Iterator[None]:
    try:
        from dask.distributed import Client, KilledWorker
        from joblib import parallel_config
    except ImportError:
        raise InputError(f"dask {address}: found no dask.distributed, wanted it: pip install 'moesim[dask]'") from None
    try:
        client = Client(address, timeout=10)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(f"dask {address}: cannot be reached: {error}") from None
    with client, parallel_config("dask"):
        try:
            yield
        except (KilledWorker, OSError) as error:
            raise RunError(f"dask {address}: a run was given up; what is finished is kept: {error}") from None


def compile_for(runs: Mapping[str, Scenario]) -> None:
    """Compile, in this process and once, the kernels that runs use, so that processes find them in the cache.

    A scenario of every kind takes one step; the kinds whose kernels were
    compiled before are noted next to the cache.
    """
    from moesim.compiled.jit import cache_dir

    kinds = {_kind(scenario): scenario for scenario in runs.values()}
    noted = cache_dir() / "kinds"
    for kind, scenario in kinds.items():
        if (noted / kind).exists():
            continue
        workload = scenario.spec.workload.model_copy(update={"steps": 1})
        simulation = scenario.spec.simulation.model_copy(update={"warmup_steps": 1})
        with suppress(Exception):  # the run itself will say what is wrong
            simulate(scenario.with_parts(workload=workload, simulation=simulation), threads=1)
        with suppress(OSError):
            noted.mkdir(parents=True, exist_ok=True)
            Path(noted / kind).touch()


def _kind(scenario: Scenario) -> str:
    """A digest of what decides which kernels run: all words of a scenario but names, and no numbers."""

    def words(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: words(item) for name, item in value.items() if name not in ("name", "source", "gpu")}
        if isinstance(value, list):
            return [words(item) for item in value]
        return "number" if isinstance(value, int | float) and not isinstance(value, bool) else value

    return hashlib.sha256(json.dumps(words(scenario.resolved()), sort_keys=True).encode()).hexdigest()[:16]
