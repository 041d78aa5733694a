"""What every module keeps to."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_LINES = 350


def test_every_module_is_below_350_lines() -> None:
    """A longer one has two nouns."""
    sources = [path for folder in ("moesim", "tests") for path in (ROOT / folder).rglob("*.py")]
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert len(lines) > 300
    assert {name: n for name, n in lines.items() if n >= MAX_LINES} == {}
