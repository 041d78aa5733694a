"""Where results go, and what people see while and after they are made."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import TaskID

PATIENCE_S = 1.0
"""Seconds before a progress bar is worth showing."""
LINE_S = 60.0
"""Seconds between two lines of progress in a log."""


def default_folder(name: str, suffix: str = "") -> Path:
    """The result folder of a scenario's name, results/<letters and digits>."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80].rstrip("-")
    return Path("results") / f"{slug or 'scenario'}{suffix}"


def will_compile() -> bool:
    """Whether the kernels of this version were never compiled; to be asked before the first of them is used."""
    from moesim.compiled.jit import is_cold

    return os.environ.get("NUMBA_DISABLE_JIT", "0") == "0" and is_cold()


def tell_compiling() -> None:
    """Say on stderr why the first run of a version takes longer."""
    print("compiling kernels, once for this version (up to a minute) ...", file=sys.stderr, flush=True)


def tell_shortfall(text: str) -> None:
    """Say on stderr that --until-ci was not reached (`moesim.study.shortfall`); nothing where it was."""
    from moesim.report.text import printable

    if text:
        print(f"--until-ci: {printable(text, 400)}", file=sys.stderr)


class ProgressBar:
    """A bar on stderr that appears after PATIENCE_S, on a terminal only.

    `update` may be called from the first step on; until then, while kernels
    compile for one, the bar only says that something is going on.
    """

    def __init__(self, text: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
        self._task: TaskID = self._progress.add_task(text, total=None)

    def start(self) -> None:
        """Show the bar."""
        self._progress.start()

    def stop(self) -> None:
        """Take the bar away."""
        self._progress.stop()

    def update(self, text: str, done: int, total: int) -> None:
        """So many steps are done of so many."""
        self._progress.update(self._task, description=text, completed=done, total=total)


class NoProgress:
    """What takes the place of a bar where nothing is to be printed."""

    def update(self, text: str, done: int, total: int) -> None:
        """Nothing to show."""


class ProgressLines:
    """A line on stderr now and then, for the log of a run without a terminal."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()

    def update(self, text: str, done: int, total: int) -> None:
        """So many steps, or runs, are done of so many."""
        now = time.monotonic()
        if done == 0:
            self._start = now
        elif now - self._last >= LINE_S:
            self._last = now
            left = (now - self._start) / done * (total - done)
            amount = f"{left / 60:,.0f} min" if left >= 60 else f"{left:.0f} s"
            print(f"{' '.join(text.split())}: {done} of {total}, about {amount} left", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class InterruptibleProgress:
    """A bar that raises an interrupt again which arrived before and got lost."""

    bar: ProgressBar | ProgressLines | NoProgress
    interrupts: list[int]

    def update(self, text: str, done: int, total: int) -> None:
        """So many steps, or runs, are done of so many.

        Raises:
            KeyboardInterrupt: there was one.
        """
        if self.interrupts:
            raise KeyboardInterrupt
        self.bar.update(text, done, total)


@contextmanager
def progress_bar(text: str, *, quiet: bool) -> Iterator[InterruptibleProgress]:
    """A bar for the time of a `with` block, if stderr is a terminal and the block takes longer than PATIENCE_S.

    Off a terminal it is a line every LINE_S. No interrupt is lost in the block.

    Raises:
        KeyboardInterrupt: one arrived, at the latest when the block is done.
    """
    with _interrupts() as seen:
        if quiet or not sys.stderr.isatty():
            yield InterruptibleProgress(NoProgress() if quiet else ProgressLines(), seen)
        else:
            with _bar(text) as bar:
                yield InterruptibleProgress(bar, seen)
        if seen:
            raise KeyboardInterrupt


@contextmanager
def _bar(text: str) -> Iterator[ProgressBar]:
    bar = ProgressBar(text)
    timer = threading.Timer(PATIENCE_S, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield bar
    finally:
        timer.cancel()
        timer.join()  # a bar that is just appearing must be there before it can be stopped
        bar.stop()


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list of the interrupts that arrive in a `with` block; each of them is raised as well.

    What a callback from C code raises is printed or dropped by its caller, as
    llvmlite's are, and so is an interrupt that arrives in one.
    """
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, or handled by the caller
        yield seen
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def print_saved(folder: Path, table: Any) -> None:
    """A table on stdout and the path of the report below it."""
    from moesim.report.terminal import print_table

    print_table(table, sys.stdout)
    print(f"\nreport: {folder / 'report.html'}")


def print_summary_json(folder: Path) -> None:
    """summary.json of a saved result, alone."""
    sys.stdout.write((folder / "summary.json").read_text(encoding="utf-8"))
