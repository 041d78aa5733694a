"""Figures as files: vector and pixel images, a page of their own, or their data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moesim.atomic import unwritable, write_file
from moesim.errors import InputError, RunError
from moesim.report.data import figure_data

if TYPE_CHECKING:
    import plotly.graph_objects as go

IMAGES = ("svg", "png", "pdf")
FORMATS = (*IMAGES, "html", "csv")
DEFAULT_WIDTH = 1100
_PNG_SCALE = 2


def write_figure(figure: go.Figure, file: str | Path, *, width: int | None = None, height: int | None = None) -> Path:
    """Write a figure in the format that the file's ending names: svg, png, pdf, html or csv; whole or not at all.

    Images are made by kaleido in a Chromium or Chrome of this machine, without network.

    Args:
        figure: a Plotly figure.
        file: its ending is one of FORMATS.
        width: in pixels; of images 1100 if not given.
        height: in pixels; that of the figure if not given.

    Raises:
        InputError: another ending; or kaleido is not installed.
        OutputError: the file cannot be written.
        RunError: no browser was found, or it failed.
    """
    path = Path(file)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        wanted = ", ".join(f".{known}" for known in FORMATS)
        raise InputError(f"{path}: found the ending {path.suffix!r}, wanted one of {wanted}")
    if kind == "csv":
        content = figure_data(figure).to_csv(index=False, lineterminator="\n").encode()
    elif kind == "html":
        content = figure.to_html(include_plotlyjs=True, div_id="figure", default_width=width or "100%").encode()
    else:
        content = _image(figure, kind, width or DEFAULT_WIDTH, height)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None
    write_file(path, content)
    return path


def _image(figure: go.Figure, kind: str, width: int, height: int | None) -> bytes:
    try:
        import kaleido
        from kaleido.errors import ChromeNotFoundError
    except ImportError:
        raise InputError(f".{kind} needs kaleido: pip install 'moesim[plot]'; .html and .csv need nothing") from None
    options = {
        "format": kind,
        "width": width,
        "height": height or figure.layout.height,
        "scale": _PNG_SCALE if kind == "png" else 1,
    }
    try:
        # kaleido would fetch MathJax from a network
        image = kaleido.calc_fig_sync(figure.to_dict(), opts=options, kopts={"mathjax": False})
    except ChromeNotFoundError:
        raise RunError(
            f".{kind} is drawn by a browser, and none was found: install chromium (or set BROWSER_PATH to one), "
            "or write .html or .csv"
        ) from None
    except Exception as error:
        raise RunError(f"the browser failed to draw .{kind}: {error}") from error
    return bytes(image)
