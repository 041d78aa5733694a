"""Hash routing, and routers of the user's own."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from interpreted import enough

from moesim import Assignment, Scenario, register_strategy, route, simulate
from moesim.errors import InputError
from moesim.workload import SyntheticTokens

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
    ids = source.token_ids(0)
    share = 1 / (1 / np.arange(1, 1001)).sum()
    assert abs((ids == 0).mean() - share) < 5 * np.sqrt(share / tokens)
    assert 0 <= ids.min() < ids.max() <= 999
    assert (source.token_ids(1) != ids).any()


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
    def shifted(logits, top_k, parameters, state, draw):
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
    def biased(logits, top_k, parameters, state, draw):
        expert = np.argsort(-(logits if state is None else logits + state), axis=1, kind="stable")[:, :top_k]
        return Assignment.of(expert.astype(np.int32), np.ones(expert.shape, dtype=np.float32))

    x = np.array([[2.0, 1.0, 0.0]])
    assert route(x, strategy="biased-argmax", top_k=1).expert.tolist() == [[0]]
    assert route(x, strategy="biased-argmax", top_k=1, bias=[0, 0, 5]).expert.tolist() == [[2]]
