"""Exchanges message by message against measured DeepEP low-latency kernels, fitted rows and predicted rows apart."""

from __future__ import annotations

import importlib

import pytest

from moesim import Scenario
from moesim.errors import ScenarioError


@pytest.fixture
def deepep(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.config.rootpath / "tests" / "validation"))
    return importlib.import_module("deepep")


@pytest.fixture
def several_nodes(deepep):
    rows = deepep.table("0.5.6.post2")
    return deepep.errors(rows[rows.gpus > 8])


def test_16_to_64_gpus_are_within_five_percent(several_nodes):
    """Dispatch and combine of 128 and 256 tokens a GPU, top-8 of 256 at random, mean GPU."""
    fitted = several_nodes[several_nodes.fitted]
    assert sorted(set(fitted.gpus)) == [16, 32, 64]
    assert len(fitted) == 12
    assert fitted.error.abs().max() < 0.05
    assert fitted.error.abs().median() < 0.02


def test_rows_never_fitted(several_nodes):
    """Other numbers of experts, and fewer tokens, where the latency decides; it grows with the nodes, ours does not."""
    rows = several_nodes[~several_nodes.fitted]
    assert len(rows) == 84
    # 288 experts are dealt out evenly over 16 and 32 GPUs only
    other = rows[(rows.num_experts == 288) & (rows.num_token >= 128) & (rows.gpus < 64)]
    assert len(other) == 8
    assert other.error.abs().max() < 0.05
    assert rows[rows.gpus > 16].error.abs().max() < 0.12
    assert rows.error.abs().median() < 0.05
    assert rows.error.abs().max() < 0.30


def test_inside_a_node_of_two_versions_of_the_kernels(deepep):
    """Within 10 % where the bandwidth decides, in the version that was fitted and in the other."""
    rows = deepep.table("0.5.12")
    fitted = deepep.errors(rows[rows.fitted & (rows.hidden_size == 7168)])
    assert fitted.error.abs().max() < 0.10
    older = deepep.table("0.5.6.post2")
    predicted = deepep.errors(older[(older.gpus == 8) & (older.num_token >= 64)])
    assert not predicted.fitted.any()
    assert predicted.error.abs().max() < 0.12


@pytest.mark.slow
def test_the_preset_holds_what_the_fit_gives(deepep):
    preset = Scenario.from_dict({"model": "deepseek-v3", "cluster": {"gpu": "h100-sxm", "network": deepep.PRESET}})
    assert preset.spec.cluster.network.port_bandwidth_factor == pytest.approx(deepep.fit(), abs=0.004)


def test_the_factor_is_of_the_port_level_alone():
    def cluster(network, **changes):
        data = {
            "model": "mixtral-8x7b",
            "cluster": {"gpu": "h100-sxm", "network": {"preset": "nvlink4-ib400", **changes}},
            "simulation": {"network": network},
        }
        return Scenario.from_dict(data).cluster.network

    factor = {"port_bandwidth_factor": [0.5, 2.0]}
    assert cluster("closed-form", **factor).dispatch_bandwidth_gb_per_s == (360, 40)
    assert cluster("port", **factor).dispatch_bandwidth_gb_per_s == (180, 80)
    assert cluster("port", **factor).combine_bandwidth_gb_per_s == (180, 80)
    assert cluster("port").dispatch_bandwidth_gb_per_s == (360, 40)
    with pytest.raises(ScenarioError, match=r"port_bandwidth_factor: found \(0\.0, 1\.0\), wanted factors above 0"):
        cluster("port", port_bandwidth_factor=[0, 1])
