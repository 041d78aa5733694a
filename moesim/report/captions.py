"""What stands below each figure: how to read it."""

from __future__ import annotations

from collections.abc import Mapping

CAPTIONS: Mapping[str, str] = {
    "latency_breakdown": (
        "Each bar is as long as the mean step and shows the mean over GPUs and steps of every part; wait is time "
        "lost to GPUs that were slower, dispatch and combine are communication that nothing hides."
    ),
    "imbalance_penalty": (
        "How many times longer the mean step takes than the same load spread evenly over GPUs; read it with the "
        "drop rate, and a value below 1 means that the uneven load streams fewer active experts."
    ),
    "drop_tradeoff": (
        "Left and low is good among variants that do the same work: one that is fast because it drops assignments lies "
        "to the right, and the whisker reaches up to its 99th percentile."
    ),
    "step_time": (
        "Left, the time of every step; right, the share of steps that take no longer than a given time, so that a "
        "steep line is a steady run and its symbols are the 50th, 95th and 99th percentile."
    ),
    "layer_imbalance": (
        "How far the busiest expert of a layer lies above the mean before any capacity acts (0 = even): the line is "
        "the mean over steps, the triangle the worst step."
    ),
    "load_over_steps": (
        "Every step, the mean over MoE layers: a router that collapses loses entropy and leaves experts dead while its "
        "MaxVio climbs; what a capacity then refuses is the drop rate."
    ),
    "load_distribution": (
        "Experts from the busiest to the idlest, ranked anew in every layer and step and then averaged: an even load "
        "is the dotted line at 1, a collapsed router a spike at the left."
    ),
    "expert_load": (
        "Load of each expert over the mean requested load of its layer, summed over the measured steps (1 = its fair "
        "share); where assignments were dropped or rerouted, the processed load stands next to the requested one."
    ),
    "load_animation": (
        "The same for every single step: press play or drag the slider, and see whether the same experts stay hot, "
        "which a placement can help, or others take turns, which only replicas and capacity can."
    ),
    "gpu_load": (
        "Each line says for how many GPUs and steps the load, summed over layers, stays below a multiple of the mean: "
        "a vertical line at 1 is perfect balance, and where it reaches 100 % stands the load of the straggler."
    ),
    "gpu_time": (
        "A GPU that is bright in the upper strip computes most of the time; one that is bright in the lower strip "
        "waits for the dark ones."
    ),
    "link_traffic": (
        "Bytes that each GPU (row) sends to each other GPU (column) in a step, dispatch and combine together; the "
        "lines part the nodes, and a bright column is a hot receiver."
    ),
    "timeline": (
        "Operations of each GPU from the start of the step: where wait begins, a GPU has entered an exchange, and it "
        "ends when the slowest participant has entered too; the view opens on the first layers, and a double click "
        "shows the rest."
    ),
    "capacity_drops": (
        "What a tighter capacity costs each router: the share of assignments that are refused, and of tokens that no "
        "expert serves; routers with more choices lose assignments before they lose tokens."
    ),
    "skew_balance": (
        "How the imbalance grows with the skew of the tokens: what is asked of the experts, what is left of it after "
        "capacity, and what the GPUs get after placement; read them together with the drop rate."
    ),
    "latency_axes": (
        "Mean step time along every axis that varies, other things equal: a steep line is what to change first; lines "
        "that cross say that the best variant depends on the axis; more tokens, layers or GPUs are more work a step, "
        "for which throughput compares."
    ),
    "pareto": (
        "Up and left is good: the grey line joins what nothing beats in both; hollow marks drop assignments or tokens, "
        "so that part of their speed is work not done."
    ),
}
"""One sentence a figure: how to read it."""
