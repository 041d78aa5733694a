"""`moesim init`: a scenario to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moesim.errors import InputError, OutputError

TEMPLATE = "template.yaml"


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the scenario, or path of the file to write.")],
) -> None:
    """Write a commented scenario to start from.

    It goes to NAME.yaml; an existing file is never overwritten.
    """
    from importlib.resources import files
    from json import dumps

    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    title = path.stem if path.stem.strip(".") else "scenario"
    text = (files("moesim.cli") / TEMPLATE).read_text(encoding="utf-8").replace("name: NAME", f"name: {dumps(title)}")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path}: exists and is not overwritten; choose another name") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(f"{path}: cannot be written: {reason}") from None
    print(f"wrote {path}; run it with: moesim compare {path}")
