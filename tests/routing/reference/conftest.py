"""The order of equal scores in a reference, and no import of one that is not asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Importing the references takes seconds, which `-m "not ref"` need not wait for."""
    return True if "not ref" in config.option.markexpr and collection_path.name.startswith("test_") else None


@pytest.fixture(params=[False, True], ids=["any-order", "lowest-first"])
def lowest_first(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether torch takes the lowest index of equal scores first, as we do; left alone it may take any."""
    if request.param:
        import torch

        sort, argsort = torch.sort, torch.argsort

        def topk(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:  # noqa: A002
            found = sort(x, dim=dim, descending=largest, stable=True)
            return torch.return_types.topk((found[0].narrow(dim, 0, int(k)), found[1].narrow(dim, 0, int(k))))

        def stable_sort(x: Any, dim: int = -1, descending: bool = False) -> Any:
            return sort(x, dim=dim, descending=descending, stable=True)

        def stable_argsort(x: Any, dim: int = -1, descending: bool = False) -> Any:
            return argsort(x, dim=dim, descending=descending, stable=True)

        for place in (torch, torch.Tensor):
            monkeypatch.setattr(place, "topk", topk)
            monkeypatch.setattr(place, "sort", stable_sort)
            monkeypatch.setattr(place, "argsort", stable_argsort)
    return bool(request.param)
