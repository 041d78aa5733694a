"""The JSON Schema of scenario files."""

from __future__ import annotations

from typing import Any

from moesim.scenario.schema.cluster import KernelTables
from moesim.scenario.schema.routing import CapacitySpec, SubstitutionSpec, TrainingSpec
from moesim.scenario.schema.scenario import ScenarioSpec
from moesim.scenario.sweep_block import SWEEP_SCHEMA


def json_schema() -> dict[str, Any]:
    """The JSON Schema of scenario files, for editors.

    What a preset name may replace is offered as text too, and the parts of a
    file that are merged before checking (extends, compare, sweep) are added.
    """
    schema = ScenarioSpec.model_json_schema()
    definitions = schema["$defs"]
    for owner, name in (
        (schema, "model"),
        (definitions["ClusterSpec"], "gpu"),
        (definitions["ClusterSpec"], "network"),
        (definitions["WorkloadSpec"], "popularity"),
    ):
        own = owner["properties"][name]
        reference = {"$ref": own.pop("$ref")} if "$ref" in own else {"allOf": own.pop("allOf")}
        own["anyOf"] = [{"type": "string"}, reference]
    for name in ("ModelSpec", "GpuPreset", "NetworkPreset", "PopularitySpec"):
        definitions[name]["properties"]["preset"] = {"type": "string", "description": "base of the other fields"}
        definitions[name].pop("required", None)
    definitions["ClusterSpec"]["required"] = ["gpu"]
    definitions["RoutingSpec"]["properties"]["strategy"] = {
        "anyOf": [{"type": "string"}, {"type": "null"}],
        "default": None,
    }
    definitions["ClusterSpec"]["properties"]["kernels"]["anyOf"] = [
        {"type": "string"},
        {"$ref": "#/$defs/KernelTables"},
        {"type": "null"},
    ]
    overlap = definitions["SimulationSpec"]["properties"]["overlap"]
    overlap["anyOf"] = [{"enum": ["none", "shared-expert", "two-batch"]}, {"type": "null"}]
    for name, part in (
        ("capacity", "CapacitySpec"),
        ("substitution", "SubstitutionSpec"),
        ("training", "TrainingSpec"),
    ):
        definitions["RoutingSpec"]["properties"][name] = {
            "anyOf": [{"$ref": f"#/$defs/{part}"}, {"const": "none"}, {"type": "null"}],
            "default": None,
        }
    for optional in (CapacitySpec, SubstitutionSpec, TrainingSpec, KernelTables):  # not there yet, as they may be none
        definitions[optional.__name__] = optional.model_json_schema()
    overrides = {"type": "object", "description": "dotted field: value"}
    schema["properties"] |= {
        "extends": {"type": "string", "description": "another scenario file that this one changes"},
        "compare": {"type": "object", "additionalProperties": {"anyOf": [overrides, {"type": "null"}]}},
        "sweep": SWEEP_SCHEMA,
    }
    schema["required"] = []
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "moesim scenario"
    return schema
