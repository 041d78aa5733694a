"""By what a finished run is found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import (
    Assignment,
    InputError,
    register_strategy,
    sweep,
)
from moesim.study.sources import inputs_of, with_imports
from moesim.study.store import key_of


def test_the_key_of_a_run_is_what_it_is(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field, the inputs, the version, the sources."""
    scenario = make()
    keys = {
        key_of(scenario),
        key_of(scenario, "a trace"),
        key_of(scenario.with_seed(4)),
        key_of(scenario.with_overrides({"simulation.engine": "simpy"})),
        key_of(scenario.with_overrides({"workload.popularity.exponent": 0.4000001})),
    }
    assert key_of(make()) in keys
    monkeypatch.setattr("moesim.study.store.__version__", "0.0.0")
    keys.add(key_of(scenario))
    monkeypatch.setattr("moesim.study.store.package_sha256", lambda: "other sources")
    keys.add(key_of(scenario))
    assert len(keys) == 7


ROUTER = """
import numpy as np
from moesim import Assignment, register_strategy
from {helper} import first

@register_strategy("{name}")
def route(logits, top_k, parameters, state, draw):
    return Assignment.of(first(len(logits), top_k), np.ones((len(logits), top_k), dtype=np.float32))
"""


HELPER = "import numpy as np\ndef first(n, k):\n    return np.tile(np.arange({first}, {first} + k), (n, 1))\n"


def test_the_key_of_a_run_knows_the_modules_that_its_router_imports(tmp_path: Path) -> None:
    """From beside it, in turn and around; what is installed has a version of its own."""
    (tmp_path / "near.py").write_text(ROUTER.format(helper="near_help", name="near"))
    (tmp_path / "near_help.py").write_text("from pathlib import Path\nfrom folder.more import first\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__init__.py").write_text("from . import more\n")
    (tmp_path / "folder" / "more.py").write_text("import near\n" + HELPER.format(first=0))
    found = with_imports(tmp_path / "near.py", tmp_path)
    names = {file.relative_to(tmp_path).as_posix() for file in found}
    assert names == {"near.py", "near_help.py", "folder/__init__.py", "folder/more.py"}


def test_runs_of_a_router_without_a_file_are_not_found_again(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another process it may be another router; other processes do not have it at all."""

    @register_strategy("of this session")
    def route(logits: Any, top_k: int, parameters: Any, state: Any, draw: Any) -> Assignment:
        expert = np.tile(np.arange(top_k, dtype=np.int32), (len(logits), 1))
        return Assignment.of(expert, np.ones(expert.shape, dtype=np.float32))

    scenario = make(routing={"strategy": "of this session"}, compare=None)
    here = inputs_of(scenario)
    assert here == inputs_of(scenario) != ""
    monkeypatch.setattr("moesim.study.sources._SESSION", "another")
    assert inputs_of(scenario) != here
    with pytest.raises(InputError, match=r"routing.strategy: found of this session, .* wanted package.module:name"):
        sweep(scenario, workers=2)
    assert len(sweep(scenario).points) == 4
