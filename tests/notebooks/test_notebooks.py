"""Every notebook runs from top to bottom and stays small."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    """An empty list would run nothing."""
    assert NOTEBOOKS


def test_the_readme_leads_to_every_notebook() -> None:
    """Links to notebooks that are there, and none is left out."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert {f"notebooks/{path.name}" for path in NOTEBOOKS} == set(re.findall(r"notebooks/[^)\s]+\.ipynb", readme))


def test_notebooks_need_public_names_alone() -> None:
    """What they import of moesim is in the list of a package's names, none of it private."""
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for module, names in re.findall(r"^from (moesim\S*) import (.+)$", source, re.MULTILINE):
            assert module in {"moesim", "moesim.hardware", "moesim.calibration"}, path.name
            assert set(names.split(", ")) <= set(importlib.import_module(module).__all__), path.name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the Jupyter stack, which is not ours
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_is_small(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an error, in a folder of its own; with its outputs it is below 1 MB, so that a diff can be read."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    assert any(cell.get("outputs") for cell in notebook.cells), "is committed with its outputs"
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    assert path.stat().st_size < 1_000_000
