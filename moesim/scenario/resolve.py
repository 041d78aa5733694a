"""From merged data to checked fields: presets, defaults that depend on others, and what fields must agree on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from moesim.errors import ScenarioError, nearest
from moesim.scenario import schema
from moesim.scenario.agreement import RATES, check_agreement
from moesim.scenario.fitted import fields_of_fit, is_shipped
from moesim.scenario.hugging_face import in_cache, read_config
from moesim.scenario.kernel_paths import whole_paths
from moesim.scenario.model_shape import first_layers
from moesim.scenario.network import with_defaults, with_links
from moesim.scenario.popularity import (
    load_router,
    refuse_fields_of_other_kinds,
    router_fields,
    with_kind,
)
from moesim.scenario.presets import canonical, names, preset, suggestion
from moesim.scenario.source import Fail, FieldPath, shown, whole_path

SECTIONS: Mapping[FieldPath, type[BaseModel]] = {
    (): schema.ScenarioSpec,
    ("model",): schema.ModelSpec,
    ("precision",): schema.PrecisionSpec,
    ("cluster",): schema.ClusterSpec,
    ("cluster", "gpu"): schema.GpuPreset,
    ("cluster", "network"): schema.NetworkPreset,
    ("cluster", "kernels"): schema.KernelTables,
    ("parallelism",): schema.ParallelismSpec,
    ("workload",): schema.WorkloadSpec,
    ("workload", "popularity"): schema.PopularitySpec,
    ("workload", "popularity", "router"): schema.LoadRouterSpec,
    ("workload", "popularity", "target"): schema.TargetSpec,
    ("workload", "topics"): schema.TopicsSpec,
    ("workload", "drift"): schema.DriftSpec,
    ("workload", "bursts"): schema.BurstsSpec,
    ("workload", "pattern"): schema.PatternSpec,
    ("routing",): schema.RoutingSpec,
    ("routing", "substitution"): schema.SubstitutionSpec,
    ("routing", "training"): schema.TrainingSpec,
    ("routing", "capacity"): schema.CapacitySpec,
    ("placement",): schema.PlacementSpec,
    ("simulation",): schema.SimulationSpec,
    ("keep",): schema.KeepSpec,
}
_KNOWN_MODEL = "a preset of 'moesim list models', or the path of a config.json or of its folder"
_IN_LISTS: Mapping[FieldPath, type[BaseModel]] = {
    ("faults",): schema.FaultSpec,
    ("workload", "topics", "mixture"): schema.MixtureSpec,
    ("model", "layers"): schema.LayersSpec,
    ("cluster", "network", "levels"): schema.LevelSpec,
}
"""What the entries of lists are."""
_KEPT_WORDS: set[FieldPath] = {("keep", "experts"), ("keep", "links")}
_FREE_TEXT: set[FieldPath] = {("name",), ("model", "name"), ("model", "source"), *_KEPT_WORDS}


def resolve(
    data: dict[str, Any], folder: Callable[[FieldPath], Path], fail: Fail, base_routing: Any = None
) -> schema.ScenarioSpec:
    """Fill in presets and check every field.

    Args:
        data: merged and overridden, without extends, compare and sweep.
        folder: of the file that wrote a field, to which its paths are relative.
        fail: makes the error.
        base_routing: `routing` before variants and sweeps, whose router gives a stated load.

    Raises:
        ScenarioError: the first field that is wrong.
    """
    clean = _without_none(data, ())
    for name in ("model", "cluster"):
        if name not in clean:
            example = "a preset such as mixtral-8x7b" if name == "model" else "{gpu: h100-sxm, nodes: 1}"
            raise fail((name,), "nothing", example)
    clean["model"] = _model(clean["model"], folder(("model",)), fail)
    if isinstance(clean["cluster"], dict):
        clean["cluster"] = _cluster(clean["cluster"], fail)
    if isinstance(clean.get("workload"), dict) and "popularity" in clean["workload"]:
        written = clean["workload"]["popularity"]
        popularity = _preset("popularities", written, ("workload", "popularity"), fail)
        refuse_fields_of_other_kinds(written, popularity, fail)
        clean["workload"] = {**clean["workload"], "popularity": with_kind(popularity)}
    _refuse_later_fields(clean, fail)
    try:
        spec = schema.ScenarioSpec.model_validate(clean)
    except ValidationError as error:
        raise _first_error(error, fail) from None
    spec = _filled(spec, folder, fail, _without_none(base_routing, ("routing",)))
    check_agreement(spec, fail)
    return spec


def _without_none(value: Any, path: FieldPath) -> Any:
    """Mappings without their null fields, which so take their defaults; `none` is null."""
    if not isinstance(value, dict):
        return value
    result = {}
    for key, item in value.items():
        here = (*path, key)
        kept = "none" if here in _KEPT_WORDS and item is None else item
        if kept is not None and (kept != "none" or here in _FREE_TEXT):
            result[key] = _without_none(kept, here)
    return result


def _preset(kind: str, value: Any, path: FieldPath, fail: Fail) -> Any:
    """The fields of a preset name, of a mapping that names one, or of an inline mapping."""
    if isinstance(value, str):
        return _named(kind, value, path, fail)
    if isinstance(value, dict) and "preset" in value:
        own = {key: item for key, item in value.items() if key != "preset"}
        base = _named(kind, value["preset"], (*path, "preset"), fail)
        return {**base, **({"name": f"{base['name']} (changed)"} if own else {}), **own}
    return value


def _named(kind: str, name: Any, path: FieldPath, fail: Fail) -> dict[str, Any]:
    known = names(kind)
    own = canonical(kind, name) if isinstance(name, str) else name
    if own not in known:
        wanted = _KNOWN_MODEL if kind == "models" else f"one of {', '.join(known)}"
        raise fail(path, shown(name), f"{wanted}{suggestion(kind, name)}")
    return {"name": own, **preset(kind, own)}


def _model(value: Any, folder: Path, fail: Fail) -> Any:
    named = isinstance(value, dict) and "preset" in value
    if not named and not isinstance(value, str):
        return value
    base = value["preset"] if named else value
    own = {key: item for key, item in value.items() if key != "preset"} if named else {}
    if isinstance(base, str) and _is_path(base, folder):
        fields = _of_file(base, folder, fail)
    else:
        fields = _named("models", base, ("model", "preset") if named else ("model",), fail)
        fields["name"] += " (changed)" if own else ""
    parts = own.get("part_dtypes")
    if isinstance(parts, dict):  # those that it does not name stay
        own["part_dtypes"] = {**fields.get("part_dtypes", {}), **parts}
    return {**first_layers(fields, own.get("n_layers")), **own}


def _of_file(base: str, folder: Path, fail: Fail) -> dict[str, Any]:
    """The fields of a model from a config.json, or from a folder or an organisation/name that has one."""
    try:
        path = (folder / base).expanduser()
        there = os.path.exists(path)  # noqa: PTH110 - false of a name that is too long
        found = path if there else in_cache(base)
        if found is None:
            raise ScenarioError(f"{_KNOWN_MODEL}{suggestion('models', base)}")
        return read_config(found)
    except (ScenarioError, RuntimeError) as error:  # the latter of a home of an unknown user
        raise fail(("model",), shown(base), str(error)) from None


def _is_path(text: str, folder: Path) -> bool:
    if not text.strip() or text in names("models"):
        return False
    if canonical("models", text) in names("models"):  # organisation/name of a shipped model, unless it is there
        return os.path.exists(folder / text)  # noqa: PTH110 - false of a name that is too long
    named = os.sep in text or "/" in text or text.endswith(".json")
    return named or os.path.isfile(folder / text / "config.json")  # noqa: PTH113 - false of a name that is too long


def _cluster(value: dict[str, Any], fail: Fail) -> dict[str, Any]:
    cluster = dict(value)
    if "gpu" not in cluster:
        raise fail(("cluster", "gpu"), "nothing", f"one of {', '.join(names('gpus'))}")
    if isinstance(cluster["gpu"], int) and not isinstance(cluster["gpu"], bool):  # as in 4090
        cluster["gpu"] = str(cluster["gpu"])
    cluster["gpu"] = _preset("gpus", cluster["gpu"], ("cluster", "gpu"), fail)
    if isinstance(cluster["gpu"], dict):
        gpu = with_defaults(cluster["gpu"], value["gpu"])
        cluster["gpu"] = with_links(gpu, cluster.get("network"))
        if cluster["gpu"].get("gpus_per_node") is not None:
            cluster.setdefault("gpus_per_node", cluster["gpu"]["gpus_per_node"])
    network = cluster.get("network", {})
    whole = isinstance(network, dict) and ("fitted" in network or all(name in network for name in RATES))
    if isinstance(network, dict) and "preset" not in network and not whole and isinstance(cluster["gpu"], dict):
        # what is not said of the network is as the GPU's own has it
        own = cluster["gpu"].get("network", schema.GpuPreset.model_fields["network"].default)
        network = {"preset": own, **network}
    cluster["network"] = _preset("networks", network, ("cluster", "network"), fail)
    return cluster


def _refuse_later_fields(data: dict[str, Any], fail: Fail) -> None:
    for dotted_name, what in schema.UNSUPPORTED.items():
        path = tuple(dotted_name.split("."))
        node: Any = data
        for part in path:
            node = node.get(part) if isinstance(node, dict) else None
        if node is not None:
            raise fail(path, shown(node), f"no such field: this version does not model {what}")


def _first_error(error: ValidationError, fail: Fail) -> ScenarioError:
    """The first error of a validation as ours."""
    errors = error.errors(include_url=False, include_context=False)
    first = errors[0]
    if first["type"] == "missing":  # a misspelt field of the same mapping says more
        misspelt = [e for e in errors if e["type"] == "extra_forbidden" and e["loc"][:-1] == first["loc"][:-1]]
        first = (misspelt or errors)[0]
    path: FieldPath = tuple(part for part in first["loc"] if part not in ("[key]", "[name]", "[tables]"))
    kind, message = first["type"], first["msg"]
    if kind == "extra_forbidden":
        part = _IN_LISTS.get(tuple(p for p in path[:-1] if isinstance(p, str)), SECTIONS.get(path[:-1]))
        known = [field.alias or name for name, field in part.model_fields.items()] if part is not None else []
        known += ["extends", "compare", "sweep"] if len(path) == 1 else []
        return fail(path, "an unknown field", nearest(path[-1], known) or f"one of {', '.join(known)}")
    if kind == "missing":
        return fail(path, "nothing", "this field, which has no default")
    wanted = message.removeprefix("Input should be ").removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        wanted = f"a text of the form {wanted.removeprefix('String should match pattern ')}"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        wanted = "a mapping of fields"
    if kind == "tuple_type":
        wanted = "a list"
    return fail(path, shown(first["input"]), wanted)


def _filled(
    spec: schema.ScenarioSpec, folder: Callable[[FieldPath], Path], fail: Fail, base_routing: Any
) -> schema.ScenarioSpec:
    """The scenario with whole paths, and the defaults that depend on other fields."""

    def whole(text: str, *path: str) -> str:
        try:
            return str(whole_path(folder(path), text))
        except ScenarioError as error:
            raise fail(path, shown(text), str(error)) from None

    model, workload, routing, cluster = spec.model, spec.workload, spec.routing, spec.cluster
    cluster = cluster.model_copy(update={"kernels": whole_paths(cluster.kernels, whole)})
    work: dict[str, Any] = {}
    if workload.trace is not None:
        work["trace"] = whole(workload.trace, "workload", "trace")
        one = workload.tokens_per_gpu is None and workload.trace_steps == "whole"
        if one and "steps" not in workload.model_fields_set:
            work["steps"] = 1
    elif workload.tokens_per_gpu is None:
        work["tokens_per_gpu"] = 128 if workload.phase == "decode" else 4096
    route: dict[str, Any] = {"top_k": routing.top_k or model.top_k}
    if workload.trace is None:
        route = router_fields(routing, model)
    if workload.popularity.kind in schema.LOAD_KINDS or workload.popularity.target is not None:
        popularity: dict[str, Any] = {"router": load_router(spec, base_routing)}
        if workload.popularity.counts is not None:
            popularity["counts"] = whole(workload.popularity.counts, "workload", "popularity", "counts")
        if workload.popularity.from_ is not None and not is_shipped(workload.popularity.from_):
            popularity["from_"] = whole(workload.popularity.from_, "workload", "popularity", "from")
        work["popularity"] = workload.popularity.model_copy(update=popularity)
        if workload.popularity.kind == "fitted" and workload.trace is None:
            work |= fields_of_fit(spec, work["popularity"], fail)
    return spec.model_copy(
        update={
            "cluster": cluster,
            "precision": _precision(spec),
            "parallelism": _parallelism(spec),
            "workload": workload.model_copy(update=work),
            "routing": routing.model_copy(update=route),
        }
    )


def _parallelism(spec: schema.ScenarioSpec) -> schema.ParallelismSpec:
    """One expert-parallel group of all GPUs; tensor-parallel attention over the GPUs of a node."""
    asked, a_node = spec.parallelism, spec.cluster.gpus_per_node
    n_ranks = max(1, spec.cluster.nodes * a_node // asked.expert_tp)
    shared = asked.attention_tp or (a_node if asked.attention == "tensor" else 1)
    return asked.model_copy(update={"expert": asked.expert or n_ranks, "attention_tp": shared})


def _precision(spec: schema.ScenarioSpec) -> schema.PrecisionSpec:
    """The model's own data types; activations and what is sent in bf16 where the GPU does not compute in them."""
    peaks, asked = spec.cluster.gpu.peak_tflops, spec.precision

    def own(dtype: Any) -> Any:
        return dtype if dtype in peaks else "bf16"

    weights = asked.weights or spec.model.weights_dtype
    return schema.PrecisionSpec(
        weights=weights,
        activations=asked.activations or own(weights),
        dispatch=asked.dispatch or own(spec.model.dispatch_dtype),
        combine=asked.combine or "bf16",
        kv_cache=asked.kv_cache or "bf16",
    )
