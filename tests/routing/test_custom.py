"""Hash routing, and routers of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from moesim import Assignment, Scenario, register_strategy, route, simulate
from moesim.errors import InputError
from moesim.routing.strategy import NoParameters
from moesim.types import Draw
from moesim.workload import SyntheticTokens
from tests.interpreted import enough

CUSTOM = """
import numpy as np
from moesim import Assignment, register_strategy

@register_strategy("{name}")
def first(logits, top_k, parameters, state, draw):
    expert = np.tile(np.arange(top_k, dtype=np.int32), (len(logits), 1))
    return Assignment.of(expert, np.full(expert.shape, 1 / top_k, dtype=np.float32))

number = 3
"""


def test_hash_sends_an_id_always_to_the_same_distinct_experts() -> None:
    """Whatever the logits; other ids and tables to others, evenly over many ids."""
    n = enough(20_000)
    ids = np.arange(2 * n) % n
    got = route(np.zeros((2 * n, 16)), strategy="hash", top_k=2, token_ids=ids)
    np.testing.assert_array_equal(got.expert[:n], got.expert[n:])
    assert (got.expert[:, 0] != got.expert[:, 1]).all()
    load = got.requested_load(16) / 2
    assert np.abs(load - n / 8).max() < 5 * np.sqrt(n / 8)
    other = route(np.zeros((2 * n, 16)), strategy="hash", top_k=2, token_ids=ids, table_seed=1)
    assert (other.expert != got.expert).any()
    with pytest.raises(InputError, match="token_ids"):
        route(np.zeros((2, 16)), strategy="hash", top_k=2)


def test_token_ids_follow_zipf_and_the_step() -> None:
    """The most frequent id has the share 1 / H(V); another step, other ids."""
    tokens = enough(50_000)
    source = SyntheticTokens(
        seed=1,
        n_layers=1,
        n_experts=2,
        n_ranks=1,
        tokens_per_rank=tokens,
        phase="decode",
        sequence_tokens=1,
        vocab_size=1000,
    )
    ids, others = (source.batch(step).token_ids for step in (0, 1))
    assert ids is not None
    assert others is not None
    share = 1 / (1 / np.arange(1, 1001)).sum()
    assert abs((ids == 0).mean() - share) < 5 * np.sqrt(share / tokens)
    assert 0 <= ids.min() < ids.max() <= 999
    assert (others != ids).any()


def test_hash_runs_in_a_scenario() -> None:
    """Frequent words make hot experts."""
    model = {"preset": "olmoe-1b-7b", "n_layers": 2}
    base = {"model": model, "cluster": {"gpu": "h100-sxm"}, "workload": {"steps": 1, "tokens_per_gpu": 64}}
    hashed = simulate(Scenario.from_dict({**base, "routing": {"strategy": "hash"}})).summary
    drawn = simulate(Scenario.from_dict({**base, "routing": {"strategy": "random"}})).summary
    assert hashed["max_violation"]["mean"] > 2 * drawn["max_violation"]["mean"]


def test_a_router_of_a_users_module_runs_from_a_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named package.module:name; found in the current folder."""
    (tmp_path / "my_routers.py").write_text(CUSTOM.format(name="all-to-the-first"))
    monkeypatch.chdir(tmp_path)
    scenario = Scenario.from_dict(
        {
            "model": "mixtral-8x7b",
            "cluster": {"gpu": "h100-sxm"},
            "workload": {"steps": 1, "tokens_per_gpu": 4},
            "routing": {"strategy": "my_routers:first"},
        }
    )
    loads = simulate(scenario).experts.groupby("expert").requested.sum()
    assert loads.tolist() == [32 * 32, 32 * 32, 0, 0, 0, 0, 0, 0]
    assert route(np.zeros((3, 8)), strategy="all-to-the-first", top_k=1).expert.tolist() == [[0]] * 3
    for name in ("my_routers:number", "my_routers:absent", "no_such_module:x"):
        with pytest.raises(InputError, match=r"routing\.strategy: found .*wanted a strategy"):
            simulate(Scenario.from_dict({**scenario.resolved(), "routing": {"strategy": name}}))
    sys.modules.pop("my_routers")


def test_a_registered_router_takes_parameters_and_keeps_its_name() -> None:
    """A frozen dataclass of numbers; a name is given once."""

    @dataclass(frozen=True, kw_only=True)
    class Shift:
        by: int = 0

    @register_strategy("shifted", parameters=Shift)
    def shifted(
        logits: NDArray[np.float32], top_k: int, parameters: Shift, state: NDArray[np.float32] | None, draw: Draw
    ) -> Assignment:
        expert = (np.arange(len(logits) * top_k).reshape(-1, top_k) + parameters.by) % logits.shape[1]
        return Assignment.of(expert.astype(np.int32), np.ones(expert.shape, dtype=np.float32))

    assert route(np.zeros((2, 4)), strategy="shifted", top_k=1, by=3).expert.tolist() == [[3], [0]]
    assert shifted.name == "shifted"
    with pytest.raises(InputError, match="taken"):
        register_strategy("shifted")(shifted.route)
    with pytest.raises(InputError, match="taken"):
        register_strategy("mixtral")(shifted.route)


def test_a_router_of_ones_own_may_take_a_selection_bias() -> None:
    """Its state is then the bias; without it, a bias is refused."""

    @register_strategy("biased-argmax", takes_bias=True)
    def biased(
        logits: NDArray[np.float32],
        top_k: int,
        parameters: NoParameters,
        state: NDArray[np.float32] | None,
        draw: Draw,
    ) -> Assignment:
        expert = np.argsort(-(logits if state is None else logits + state), axis=1, kind="stable")[:, :top_k]
        return Assignment.of(expert.astype(np.int32), np.ones(expert.shape, dtype=np.float32))

    x = np.array([[2.0, 1.0, 0.0]])
    assert route(x, strategy="biased-argmax", top_k=1).expert.tolist() == [[0]]
    assert route(x, strategy="biased-argmax", top_k=1, bias=[0, 0, 5]).expert.tolist() == [[2]]


WRONG: dict[str, tuple[Callable[[NDArray[np.int32]], Any], str]] = {
    "a tuple": (lambda e: (e, e), "a tuple, wanted an Assignment"),
    "a row more": (lambda e: e[[*range(len(e)), 0]], "wanted whole numbers of shape"),
    "a row less": (lambda e: e[1:], "wanted whole numbers of shape"),
    "ids from 1": (lambda e: e + 1, "expert 8, wanted 0 to 7, or -1"),
    "an id of no meaning": (lambda e: e * 0 - 2, "expert -2, wanted 0 to 7, or -1"),
    "an expert twice": (lambda e: e * 0, "an expert twice for token 0"),
    "fractions": (lambda e: e.astype(float), "experts float64"),
    "fewer choices for some": (lambda e: e if e[0, 0] == 7 else e[:, :1], "1 and 2 choices"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_a_router_of_ones_own_returns_is_checked(wrong: str) -> None:
    """Before any kernel reads it: ids that are none would be read as places in memory."""
    change, message = WRONG[wrong]
    blocks = []

    @register_strategy(wrong)
    def route_it(
        logits: NDArray[np.float32], top_k: int, parameters: NoParameters, state: NDArray[np.float32] | None, draw: Draw
    ) -> Any:
        blocks.append(len(logits))
        first = 7 if len(blocks) == 1 else 6
        expert = change(np.tile(np.array([first, 5], dtype=np.int32), (len(logits), 1)))
        return Assignment.of(expert, np.ones(expert.shape, np.float32)) if isinstance(expert, np.ndarray) else expert

    workload = {"phase": "prefill", "steps": 1, "tokens_per_gpu": 400}
    cluster = {"gpu": "h100-sxm", "gpus_per_node": 8}
    given = {"model": "mixtral-8x7b", "cluster": cluster, "workload": workload, "routing": {"strategy": wrong}}
    scenario = Scenario.from_dict(given)
    with pytest.raises(InputError, match=f"strategy {wrong}: its router returned .*{message}"):
        simulate(scenario, threads=1)


def test_a_router_of_ones_own_may_return_other_types_of_numbers() -> None:
    """As np.argsort does; they become those that kernels read."""

    @register_strategy("wide-numbers")
    def wide(
        logits: NDArray[np.float32], top_k: int, parameters: NoParameters, state: NDArray[np.float32] | None, draw: Draw
    ) -> Assignment:
        expert = np.argsort(-logits, axis=1)[:, :top_k]
        wide: Any = expert, np.ones(expert.shape)
        return Assignment.of(*wide)

    got = route(np.array([[0.0, 1.0, 2.0]]), strategy="wide-numbers", top_k=2)
    assert got.expert.tolist() == [[2, 1]]
    assert got.expert.dtype == np.int32
    assert got.weight.dtype == np.float32
    assert got.served.dtype == np.int32
