"""YAML with positions: safe, bounded, and without the surprises of YAML 1.1."""

from __future__ import annotations

import pytest

from moesim.errors import ScenarioError
from moesim.scenario.source import parse_document, parse_value


def test_scalars_mean_what_people_think() -> None:
    """1e-3 is a number; on, yes and dates are text; quotes make text."""
    text = """
a: 1e-3
b: on
c: 2024-01-01
d: "1"
e: 1_000
f: true
g:
h: ~
i: -0.5
j: 012
k: .5
l: 1.
m: no
"""
    assert parse_document(text, "x").data == {
        "a": 0.001,
        "b": "on",
        "c": "2024-01-01",
        "d": "1",
        "e": 1000,
        "f": True,
        "g": None,
        "h": None,
        "i": -0.5,
        "j": 12,
        "k": 0.5,
        "l": 1.0,
        "m": "no",
    }


def test_every_field_has_its_place() -> None:
    """Keys where they are written, list items too, lines and columns from 1."""
    found = parse_document("a:\n  b: [1, 2]\n", "f.yaml").positions
    assert str(found["a",]) == "f.yaml:1:1"
    assert str(found["a", "b"]) == "f.yaml:2:3"
    assert str(found["a", "b", 1]) == "f.yaml:2:10"


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: 1\nb: 2\na: 3\n", r"f\.yaml:3:1: a: found the field twice"),
        ("b: &b {x: 1}\na: {<<: *b, y: 1}", r"f\.yaml:2:5: a\.<<: found a merge key of YAML, wanted the fields"),
        ("x: {y: 1, y: 2}", "x.y: found the field twice"),
        ("a: !!python/name:os.system ''", "tag"),
        ("a: !!python/object/apply:os.system ['true']", "tag"),
        ("a: !x {b: 1}", "tag"),
        ("a: !!set {b}", "tag"),
        ("a: !!binary aGk=", "tag"),
        ("? [1]\n: 2", "list or mapping as a field name"),
        ("- 1", "found a list"),
        ("text", "found a single value"),
        ("", "found nothing"),
        ("a: [1", "no valid YAML"),
        ("a: *b", "no valid YAML"),
        ("a: 1\n---\nb: 2", "no valid YAML"),
        ("a: \x01", "no valid YAML"),
        ("a: " + "[" * 40 + "]" * 40, "depth 30"),
        ("a: " + "[" * 5000, "no valid YAML"),
    ],
)
def test_what_is_no_scenario_is_refused(text: str, message: str) -> None:
    """One line, with the place."""
    with pytest.raises(ScenarioError, match=message) as caught:
        parse_document(text, "f.yaml")
    assert "\n" not in str(caught.value)


def test_an_alias_bomb_is_refused() -> None:
    """Nine levels of nine aliases would be a billion values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(ScenarioError, match="aliases counted"):
        parse_document("\n".join(lines), "f.yaml")


@pytest.mark.parametrize(
    "text, value",
    [("3", 3), ("[1, 2]", [1, 2]), ("{factor: 1.25}", {"factor": 1.25}), ("none", "none"), ("", None), ("a b", "a b")],
)
def test_values_of_the_command_line_are_yaml(text: str, value: object) -> None:
    """As in a file."""
    assert parse_value(text) == value


def test_a_value_that_is_no_yaml_is_refused() -> None:
    """With what it was."""
    with pytest.raises(ScenarioError, match="--set"):
        parse_value("{a")
