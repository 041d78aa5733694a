"""Files of scenarios."""

from __future__ import annotations

from pathlib import Path


def write(folder: Path, text: str, name: str = "s.yaml") -> Path:
    """A scenario file with a model and a cluster."""
    path = folder / name
    path.write_text("model: mixtral-8x7b\ncluster: {gpu: h100-sxm}\n" + text)
    return path
