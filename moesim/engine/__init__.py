"""When things happen: the work of a step as a program, and the interpreters that run it.

In: durations, traffic, placement and the network's rates. Out: a Program
(arrays) and its Timeline (start and end of every operation on every GPU, in
integer picoseconds). `layout` builds programs, `balanced_twin` the evenly
loaded twin of a step. `simpy_engine`, the reference, and `compiled_engine` run
programs and agree exactly, group by group (`groups`) where there are several
that exchange within themselves. Exchanges take the closed form (`closed_form`)
or queue at ports message by message (`port_exchange`, `ports`, `two_hop`).
`expert_queues` runs steps whose experts are servers with queues.
"""

from moesim.engine.balanced_twin import balanced_traffic
from moesim.engine.compiled_engine import run_compiled
from moesim.engine.expert_queues import OVERFLOWS as QUEUE_OVERFLOWS
from moesim.engine.expert_queues import run_queued
from moesim.engine.faults import jitter, longest_ps, too_long
from moesim.engine.groups import group_program, in_groups
from moesim.engine.layout import OVERLAPS, Collective, lay_out
from moesim.engine.port_exchange import exchange, latencies
from moesim.engine.ports import Ports, free_ports
from moesim.engine.simpy_engine import run

ENGINES = {"simpy": in_groups(run), "compiled": in_groups(run_compiled)}
"""Interpreters of programs by name; `auto` is compiled. Queued experts have one of their own, on SimPy."""

__all__ = [
    "ENGINES",
    "OVERLAPS",
    "QUEUE_OVERFLOWS",
    "Collective",
    "Ports",
    "balanced_traffic",
    "exchange",
    "free_ports",
    "group_program",
    "in_groups",
    "jitter",
    "latencies",
    "lay_out",
    "longest_ps",
    "run",
    "run_compiled",
    "run_queued",
    "too_long",
]
