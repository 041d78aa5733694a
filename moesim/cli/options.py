"""The options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moesim.errors import InputError

if TYPE_CHECKING:
    from moesim.scenario import Scenario

FileArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="A scenario file, or the name of one that ships with moesim.")
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="DIR", help="Result folder (default: results/ and the name).")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a field, as workload.steps=3; may be given repeatedly."),
]
SeedsOption = Annotated[
    int | None,
    typer.Option("--seeds", metavar="N", help="Run every variant with N seeds; with --until-ci at most N (100)."),
]
UntilCiOption = Annotated[
    str | None,
    typer.Option(
        "--until-ci",
        metavar="PERCENT",
        help="Run 5 seeds or more, until the 95 % interval of the step time's differences is +-PERCENT, as 2%.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Refuse a scenario that writes fields without effect, which are warnings else.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def load_scenario(file: str, settings: Sequence[str] | None, *, strict: bool, quiet: bool = False) -> Scenario:
    """Read a scenario with its overrides of the command line, and say on stderr which of its fields have no effect.

    Raises:
        ScenarioError: the file or an override is wrong.
        typer.Exit: with 2, where fields have no effect and `strict` makes that an error.
    """
    from moesim.scenario import Scenario

    scenario = Scenario.from_yaml(file, overrides=parse_settings(settings or ()))
    for notice in scenario.warnings if strict or not quiet else ():
        print(f"{'error' if strict else 'warning'}: {' '.join(str(notice).split())}", file=sys.stderr)
    if strict and scenario.warnings:
        raise typer.Exit(2)
    return scenario


def parse_percent(text: str | None) -> float | None:
    """Turn "2%" into 0.02.

    Raises:
        InputError: no percentage between 0 and 100.
    """
    if text is None:
        return None
    number, sign, rest = text.strip().partition("%")
    try:
        share = float(number) / 100
    except ValueError:
        share = 0.0
    if not sign or rest or not 0 < share < 1:
        raise InputError(f"--until-ci {text:.40}: found no percentage between 0 and 100, wanted one, as 2%")
    return share


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Turn `dotted.key=value` texts into overrides; values are YAML scalars or flow collections.

    Raises:
        InputError: no such text, or its value is not YAML.
    """
    from moesim.scenario.source import parse_value

    overrides: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals or not key or not all(key.split(".")):
            raise InputError(f"--set {setting}: found no key=value, wanted a field and its value, as workload.steps=3")
        try:
            overrides[key] = parse_value(text)
        except InputError:
            wanted = "a YAML value (quote text with colons or brackets)"
            raise InputError(f"--set {key}: found {text!r:.80}, wanted {wanted}") from None
    return overrides
