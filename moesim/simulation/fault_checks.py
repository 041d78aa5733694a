"""Which fields a fault needs, which it may have, and what a scenario must be for it to happen."""

from __future__ import annotations

from moesim.scenario import Scenario

_EVENT = {"gpu", "start_s", "duration_s", "mean_time_between_s"}
NEEDED = {
    "slow-gpu": {"factor"},
    "gpu-pause": {"gpu", "duration_s"},
    "gpu-failure": {"gpu"},
    "slow-link": {"level", "factor"},
    "compute-jitter": {"cv"},
    "message-jitter": {"cv"},
}
ALLOWED = {
    "slow-gpu": _EVENT | {"factor"},
    "gpu-pause": _EVENT,
    "gpu-failure": {"gpu", "start_s", "mean_time_between_s", "detection_s", "recovery_s", "orphans"},
    "slow-link": _EVENT | {"level", "factor"},
    "compute-jitter": {"cv", "distribution"},
    "message-jitter": {"cv", "distribution"},
}


def check_faults(scenario: Scenario) -> None:
    """Refuse faults that lack a field, have one too many, or cannot happen in this scenario."""
    n_gpus, network = scenario.cluster.n_gpus, scenario.spec.simulation.network
    for i, fault in enumerate(scenario.spec.faults):
        # a field that says what is so anyway is no field too many: a resolved scenario has all of them
        defaults = {name: field.default for name, field in type(fault).model_fields.items() if name != "kind"}
        where, given = f"faults.{i}", {name for name, value in defaults.items() if getattr(fault, name) != value}
        for name in sorted(given - ALLOWED[fault.kind]):
            raise scenario.error(f"{where}.{name}", getattr(fault, name), f"no {name} for a {fault.kind}")
        needed = NEEDED[fault.kind] - ({"gpu"} if fault.mean_time_between_s is not None else set())
        for name in sorted(needed - given):
            raise scenario.error(where, "nothing", f"{name}, which a {fault.kind} needs")
        if fault.mean_time_between_s is not None and fault.duration_s is None and fault.kind != "gpu-failure":
            raise scenario.error(
                where, "mean_time_between_s without duration_s", "duration_s: what happens again must end"
            )
        if fault.gpu is not None and fault.gpu >= n_gpus:
            raise scenario.error(f"{where}.gpu", fault.gpu, f"0 to {n_gpus - 1}")
        queued = scenario.spec.simulation.experts == "queued"
        if fault.kind in ("slow-link", "message-jitter") and network != "port" and not queued:
            raise scenario.error(f"{where}.kind", fault.kind, "simulation.network: port, which has messages")
        if fault.kind == "gpu-failure":
            _check_loss(scenario, where, fault.orphans, fault.recovery_s)
        if fault.distribution == "exponential" and fault.cv is not None and fault.cv > 1:
            raise scenario.error(f"{where}.cv", fault.cv, "at most 1 for an exponential")


def _check_loss(scenario: Scenario, where: str, orphans: str, recovery_s: float | None) -> None:
    parallel = scenario.parallelism
    if parallel.group_gpus < scenario.cluster.n_gpus or parallel.expert_tp > 1 or parallel.attention_tp > 1:
        wanted = "one expert-parallel group of all GPUs without tensor parallelism, or a gpu-pause"
        raise scenario.error(f"{where}.kind", "gpu-failure", wanted)
    if scenario.spec.simulation.experts == "queued":
        raise scenario.error(f"{where}.kind", "gpu-failure", "simulation.experts: grouped, or a gpu-pause")
    copies, n_nodes = scenario.cluster.network.copies, scenario.cluster.n_nodes
    if copies == "all" or (copies == "per-node" and n_nodes > 1):
        wanted = (
            "a network whose copies are neither per-node nor all, as the GPU that fails would have to forward copies"
        )
        raise scenario.error(f"{where}.kind", "gpu-failure", wanted)
    capacity = scenario.spec.routing.capacity
    if capacity is not None and capacity.pad:
        raise scenario.error(f"{where}.kind", "gpu-failure", "routing.capacity.pad: false")
    if orphans == "stall" and recovery_s is None:
        raise scenario.error(where, "orphans: stall", "recovery_s, after which the run goes on")
