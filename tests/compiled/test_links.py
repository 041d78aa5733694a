"""Counts on ports are the sums of the counts on links."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.compiled.links import add_links, port_counts

NO_UNITS = np.empty(0, dtype=np.int64)


@pytest.mark.parametrize("rule", ["per-selection", "per-rank", "per-node"])
@given(nodes=st.integers(1, 4), m=st.integers(1, 4), layers=st.integers(1, 3), seed=st.integers(0, 1000))
def test_ports_carry_what_their_links_carry(rule: str, nodes: int, m: int, layers: int, seed: int) -> None:
    """Direct collectives and the one that passes copies on inside the node."""
    rng = np.random.default_rng(seed)
    copies = rng.integers(0, 9, (layers, nodes * m, nodes * m))
    node_copies = (
        rng.integers(0, 9, (layers, nodes * m, nodes)) if rule == "per-node" else np.zeros((0, 0, 0), dtype=int)
    )
    sent, received = port_counts(copies, node_copies, copy_rule=rule, gpus_per_node=m)
    back = np.zeros((2, nodes * m, nodes * m), dtype=int)
    for layer in range(layers):
        messages, links = np.zeros_like(back), np.zeros_like(back)
        own_nodes = node_copies[layer] if rule == "per-node" else np.zeros((0, 0), dtype=int)
        add_links(copies[layer], own_nodes, rule == "per-node", m, NO_UNITS, True, 3, messages, links)
        np.testing.assert_array_equal(3 * sent[layer], links.sum(axis=2))
        np.testing.assert_array_equal(3 * received[layer], links.sum(axis=1))
        np.testing.assert_array_equal(messages, links > 0)
        back[:] = 0
        add_links(copies[layer], own_nodes, rule == "per-node", m, NO_UNITS, False, 3, messages, back)
        np.testing.assert_array_equal(back, links.transpose(0, 2, 1))
