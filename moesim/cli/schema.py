"""`moesim schema`: what a scenario file may hold."""

from __future__ import annotations


def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    from json import dumps

    from moesim.scenario import json_schema

    print(dumps(json_schema(), indent=2, ensure_ascii=False))
