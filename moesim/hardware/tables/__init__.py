"""Measured tables: how each layout is recognised, predicted row by row, and fitted.

In: a frame of measurements and a GPU. Out: seconds for every row, or the
constants that fit it. One module a kind of table; `KINDS` names them.
"""

from moesim.hardware.tables.kind import KINDS, TableKind, kind_of, load_kind

__all__ = ["KINDS", "TableKind", "kind_of", "load_kind"]
