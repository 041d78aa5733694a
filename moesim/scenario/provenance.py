"""Where each input of a scenario comes from, with its label: measured, estimated or synthetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moesim.scenario.fitted import is_shipped
from moesim.scenario.model_shape import estimated_attention
from moesim.scenario.network import network_provenance
from moesim.scenario.schema import LOAD_KINDS, OVERLAP_SLOWDOWN, GpuPreset, ScenarioSpec


def provenance_of(spec: ScenarioSpec) -> dict[str, str]:
    """Each input with its label: measured on hardware or recorded, estimated (published figures), or synthetic."""

    def published(name: str, source: str) -> str:
        changed = not source or name.endswith("(changed)") or name == "inline"
        return f"synthetic: {name}" if changed else f"estimated: {name}, published: {source}"

    model, gpu, precision = spec.model, spec.cluster.gpu, spec.precision
    lacking = [
        f"{part} in bf16, as {gpu.name} does not compute in {dtype}"
        for part, dtype, own in (
            ("activations", precision.weights, precision.activations),
            ("dispatch", model.dispatch_dtype, precision.dispatch),
        )
        if dtype not in gpu.peak_tflops and own == "bf16"
    ]
    entries = {
        "model": published(model.name, model.source),
        "gpu": published(gpu.name, gpu.source) + _not_published(gpu),
        "network": network_provenance(spec),
        "tokens": _tokens(spec),
    }
    entries |= estimated_attention(spec.model)
    if spec.simulation.overlap == "two-batch":
        loss = spec.simulation.overlap_slowdown
        fitted = (
            "estimated: {:g}, fitted on published steps" if loss == OVERLAP_SLOWDOWN else "synthetic: {:g}, as stated"
        )
        entries["overlap slowdown"] = fitted.format(loss)
    if spec.faults:
        entries["faults"] = f"synthetic: {len(spec.faults)}, as stated"
    if lacking:
        entries["precision"] = f"estimated: {'; '.join(lacking)}"
    return entries


def _not_published(gpu: GpuPreset) -> str:
    """The values of a GPU that neither a source nor the scenario states; "" if there are none."""
    values = {name: getattr(gpu, name, None) for name in gpu.estimated}
    shown = (f"{name} {_plain(value)}" for name, value in values.items() if value is not None)
    text = ", ".join(shown)
    return f"; {'by default' if gpu.name == 'inline' else 'not published, estimated'}: {text}" if text else ""


def _plain(value: Any) -> str:
    """A number, or a pair as within / across."""
    return " / ".join(f"{each:g}" for each in value) if isinstance(value, tuple) else f"{value:g}"


def _tokens(spec: ScenarioSpec) -> str:
    if spec.workload.trace:
        return "measured: recorded routing"
    if spec.workload.pattern is not None:
        return f"synthetic: choices dealt by the pattern {spec.workload.pattern.kind}"
    drawn = ", their top k drawn directly" if spec.workload.sampling == "direct" else ""
    popularity, of = spec.workload.popularity, "skew"
    if popularity.kind == "counts":
        of = f"load, counted in {Path(popularity.counts or '').name}"
    elif popularity.kind == "fitted":
        file = popularity.from_ or ""
        of = f"load, fitted to a recording: {file if is_shipped(file) else Path(file).name}"
        of += f", {popularity.source}" if popularity.source else ""
    elif popularity.kind in LOAD_KINDS:
        of = f"load, {popularity.name}" + (f", {popularity.source}" if popularity.source else "")
    if popularity.target is not None:
        of += ", solved for"
    workload = spec.workload
    moving = {"locality": any(workload.locality), "drift": workload.drift, "bursts": workload.bursts}
    changes = [name for name, given in moving.items() if given] + ["a mixture of topics"] * bool(
        workload.topics.mixture
    )
    with_changes = f", with {', '.join(changes)}" if changes else ""
    return f"synthetic: seeded logits of a stated {of}{with_changes}{drawn}"
