"""`moesim show`: the resolved scenario."""

from __future__ import annotations

import sys

from moesim.cli.options import FileArgument, SetOption, load_scenario


def show(file: FileArgument, settings: SetOption = None) -> None:
    """Check a scenario and print it resolved.

    All defaults and presets are filled in; what is printed is itself a scenario that gives the same result.
    """
    from moesim.simulation import check

    scenario = load_scenario(file, settings)
    check(scenario)
    sys.stdout.write(scenario.resolved_yaml())
