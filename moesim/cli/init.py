"""`moesim init`: a scenario to start from."""

from __future__ import annotations

import os
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
    from shlex import quote

    if not os.path.basename(name).removesuffix(".yaml").removesuffix(".yml").strip(". "):
        raise InputError(f"NAME: found {name!r}, wanted the name of a scenario or the path of a file to write")
    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    template = (files("moesim.cli") / TEMPLATE).read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template.replace("name: NAME", f"name: {dumps(path.stem)}"))
    except FileExistsError:
        raise InputError(f"{path}: exists and is not overwritten; choose another name") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(f"{path}: cannot be written: {reason}") from None
    print(f"wrote {path}; run it with: moesim compare {quote(str(path))}")
