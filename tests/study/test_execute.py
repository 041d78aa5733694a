"""Processes that runs are given to."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from moesim.study.execute import sigint_blocked

HEARS = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set()))"


def test_processes_that_start_do_not_hear_ctrl_c() -> None:
    """Afterwards they do again."""

    def deaf() -> bool:
        return subprocess.run([sys.executable, "-c", HEARS], capture_output=True, check=True).stdout == b"True\n"

    with sigint_blocked():
        assert deaf()
    assert not deaf()


def test_ctrl_c_during_their_start_comes_afterwards(hears_interrupts: None) -> None:
    """It is raised once the start is complete."""
    reached = []

    def start() -> None:
        with sigint_blocked():
            signal.raise_signal(signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert reached == ["the end"]
