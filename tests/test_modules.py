"""What every module keeps to."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_LINES = 350


def test_every_module_is_below_350_lines() -> None:
    """A longer one has two nouns."""
    sources = [path for folder in ("moesim", "tests") for path in (ROOT / folder).rglob("*.py")]
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert len(lines) > 300
    assert {name: n for name, n in lines.items() if n >= MAX_LINES} == {}


def test_tests_import_no_private_names() -> None:
    """What a test needs of moesim is public; ruff's SLF001 says the same of attributes."""
    private = [
        f"{path.relative_to(ROOT)}: {name.name}"
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "moesim"
        for name in node.names
        if name.name.startswith("_")
    ]
    assert private == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_files_that_documents_name_exist(document: str) -> None:
    """Paths in backticks, and commands that run modules."""
    text = (ROOT / document).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:moesim|tests|scenarios|notebooks)/[\w/.-]*)`", text)
    modules = [name.replace(".", "/") for name in re.findall(r"`python -m ((?:moesim|tests)\.[\w.]+)", text)]
    assert len(paths) + len(modules) > 5
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert missing + [name for name in modules if not (ROOT / f"{name}.py").exists()] == []
