"""The tables that ship with moesim, and the files of constants that are fitted on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import moesim.hardware.constants

if TYPE_CHECKING:
    import pandas as pd

MEASURED = Path(__file__).with_name("measured")
"""The folder of the tables that ship with moesim."""

CONSTANTS = Path(moesim.hardware.constants.__file__).parent
"""The folder of the constants that ship with moesim."""


def shipped_rows(names: Iterable[str]) -> pd.DataFrame:
    """The rows of shipped tables, one after the other, by the names of their files without ending."""
    import pandas as pd

    return pd.concat([pd.read_parquet(MEASURED / f"{name}.parquet") for name in names], ignore_index=True)


def write_constants(part: str, header: Mapping[str, Any], groups: Mapping[str, Mapping[str, float]]) -> None:
    """Replace the shipped constants of a part."""
    import yaml

    text = yaml.safe_dump({**header, "groups": dict(groups)}, sort_keys=False, width=118)
    (CONSTANTS / f"{part}.yaml").write_text(text, encoding="utf-8")
