"""Counts on ports are the sums of the counts on links."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.kernels.links import link_counts, port_counts


@pytest.mark.parametrize("rule", ["per-selection", "per-rank", "per-node"])
@given(nodes=st.integers(1, 4), m=st.integers(1, 4), layers=st.integers(1, 3), seed=st.integers(0, 1000))
def test_ports_carry_what_their_links_carry(rule: str, nodes: int, m: int, layers: int, seed: int) -> None:
    """Direct collectives and the one that passes copies on inside the node."""
    rng = np.random.default_rng(seed)
    copies = rng.integers(0, 9, (layers, nodes * m, nodes * m))
    node_copies = (
        rng.integers(0, 9, (layers, nodes * m, nodes)) if rule == "per-node" else np.zeros((0, 0, 0), dtype=int)
    )
    links = link_counts(copies, node_copies, copies_rule=rule, gpus_per_node=m)
    sent, received = port_counts(copies, node_copies, copies_rule=rule, gpus_per_node=m)
    np.testing.assert_array_equal(sent, links.sum(axis=3))
    np.testing.assert_array_equal(received, links.sum(axis=2))
