"""The reports in a real browser: every figure is drawn, every control works, nothing is asked of a network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from moesim.report import FIGURES, Run, draw, figure_data, points_of, report_html
from moesim.report.html import sweep_html
from tests.browser import Page, browser, needs_chromium

pytestmark = needs_chromium

EVIL = "<img src=x onerror=alert(1)>"
DRAWN = "Array.from(document.querySelectorAll('.plot')).filter(p => !p.closest('[hidden]'))"
ROWS = "Array.from(document.querySelectorAll('#summary-table tbody tr'))"
OPEN_GOAL_S = 3.0


def compared(make: Callable[..., Run]) -> dict[str, Run]:
    """Two routers at three capacities, one of them with a name that tries to be HTML."""
    found = {}
    for (strategy, skew), factor in product((("switch", 1.2), (EVIL, 0.6)), (None, 1.25, 1.0)):
        name = strategy if factor is None else f"{strategy}, capacity {factor}"
        routing = {"strategy": strategy, "capacity": None if factor is None else {"factor": factor}}
        made = make(name, skew=skew, drop=0.0 if factor is None else 0.5 / factor)
        scenario = {"name": EVIL, "routing": routing, "workload": {"popularity": {"exponent": skew}}}
        found[name] = replace(made, scenario=scenario)
    return found


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    """Compared runs of two routers, each with and without a capacity."""
    from tests.report_runs import make_run

    return compared(make_run)


@pytest.fixture(scope="module")
def page(runs: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The report of the runs, opened in a browser."""
    folder = tmp_path_factory.mktemp("report")
    file = folder / "report.html"
    file.write_text(report_html(runs, title=EVIL, scenario_yaml=f"name: {EVIL}\n"), encoding="utf-8")
    with browser(folder) as page:
        page.open(file)
        yield page


def draw_all(page: Page) -> None:
    """Draw every figure, as printing does."""
    page.run("window.dispatchEvent(new Event('beforeprint'))")
    page.wait(f"{DRAWN}.every(p => p.classList.contains('drawn'))")


def test_every_figure_is_drawn_without_errors_or_requests(page: Page) -> None:
    """All figures, no message of the console, and no address asked for."""
    assert page.run("document.querySelectorAll('.plot.drawn').length") < len(FIGURES)  # only what is near
    draw_all(page)
    for name in (name for name in FIGURES if name != "skew_balance"):
        place = f"#figure-{name.replace('_', '-')} .main-svg"
        assert page.run(f"document.querySelectorAll('{place}').length") > 0, f"{name} was not drawn"
    assert page.console == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in page.requests if url.startswith("file:")]) == 1
    assert not page.run("document.querySelector('[data-title^=\"Share chart\"]')")  # would send the figure to a server


@pytest.mark.parametrize("name", ["drop-tradeoff", "pareto"])
def test_labels_cover_no_marker_and_no_label(name: str, page: Page) -> None:
    """No two boxes that the browser drew overlap."""
    boxes = (
        "Array.from(document.querySelectorAll('#figure-{} {}')).map(e => e.getBoundingClientRect())"
        ".map(r => [r.left, r.top, r.right, r.bottom])"
    )
    draw_all(page)
    texts = page.run(boxes.format(name, ".annotation-text"))
    markers = page.run(boxes.format(name, ".scatterlayer .point"))
    assert texts
    assert markers
    covered = [
        (a, b) for i, a in enumerate(texts) for b in (*texts[:i], *markers)
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]  # fmt: skip
    assert covered == []


def test_marks_scroll_with_their_table(page: Page) -> None:
    """Marks stand absolutely: their place is counted from the box that scrolls, which clips them too."""
    parents = page.run(
        "Array.from(document.querySelectorAll('.marks')).map(e => Boolean(e.offsetParent.closest('.scroll')))"
    )
    assert parents
    assert all(parents)


def test_names_stay_names(page: Page) -> None:
    """Markup in names is shown as text, in the page and in the figures."""
    draw_all(page)
    assert page.run("document.querySelectorAll('img[src=x]').length") == 0
    assert page.run(f"document.querySelector('h1').textContent === {EVIL!r}")
    assert page.run("Array.from(document.querySelectorAll('text')).some(t => t.textContent.includes('<img'))")
    names = page.run("Array.from(document.querySelectorAll('#variant option')).map(o => o.textContent)")
    assert EVIL in names


def column(page: Page, index: int) -> list[str]:
    """The texts of a column of the summary's table."""
    found: list[str] = page.run(f"{ROWS}.map(r => r.cells[{index}].textContent.trim())")
    return found


def test_a_click_on_a_header_sorts_best_first_then_worst_first_then_not(page: Page) -> None:
    """The third click restores the order of the variants."""
    head = "#summary-table thead th:nth-child(4) button"  # tokens/s/GPU, of which more is better
    before = column(page, 3)
    numbers = [float(text.rstrip("*").replace(",", "")) for text in before]
    for order in (sorted(numbers, reverse=True), sorted(numbers), numbers):
        page.click(head)
        assert [float(text.rstrip("*").replace(",", "")) for text in column(page, 3)] == order
    page.click("#summary-table thead th:first-child button")
    assert column(page, 0) == sorted(column(page, 0), key=str.lower)
    page.click("#summary-table thead th:first-child button")
    page.click("#summary-table thead th:first-child button")


def test_a_name_leads_to_the_page_of_its_variant(page: Page) -> None:
    """One section is shown, and the others are hidden."""
    page.click("#summary-table tbody tr:nth-child(3) a")
    page.wait("!document.getElementById('variant-2').hidden")
    assert page.run("Array.from(document.querySelectorAll('section.variant')).filter(s => !s.hidden).length") == 1
    assert page.run("document.querySelector('#variant-2 h3').textContent") == "switch, capacity 1.0"
    page.wait("document.querySelectorAll('#variant-2 .plot.drawn').length > 0")
    page.run("const s = document.getElementById('variant'); s.value = '4'; s.dispatchEvent(new Event('change'))")
    assert page.run("document.getElementById('variant-4').hidden") is False
    assert page.run("document.getElementById('variant-2').hidden") is True


def test_two_scenarios_show_where_they_differ(page: Page) -> None:
    """The choice of two variants fills the table of differing fields."""
    rows = f"{ROWS.replace('summary', 'difference')}.map(r => Array.from(r.cells).map(c => c.textContent))"
    assert page.run(rows) == [["routing.capacity.factor", "none", "1.25"]]
    page.run(
        "const r = document.getElementById('difference-right'); r.value = '3'; r.dispatchEvent(new Event('change'))"
    )
    assert page.run(rows) == [["routing.strategy", "switch", EVIL], ["workload.popularity.exponent", "1.2", "0.6"]]
    page.run(
        "const q = document.getElementById('difference-right'); q.value = '0'; q.dispatchEvent(new Event('change'))"
    )
    assert page.run("document.getElementById('difference-none').hidden") is False


def downloaded(page: Page, folder: Path, name: str, kind: str) -> Path:
    """The file that a button of a figure gives."""
    page.downloads_to(folder)
    page.click(f"button[data-plot='figure-{name.replace('_', '-')}'][data-format='{kind}']")
    file = folder / f"{name}.{kind}"
    end = time.monotonic() + 30
    while not file.exists() or not file.stat().st_size:
        assert time.monotonic() < end, f"{file.name} never came"
        page.run("1")
        time.sleep(0.05)
    return file


@pytest.mark.parametrize("name", ["drop_tradeoff", "expert_load", "imbalance_penalty", "load_animation", "timeline"])
def test_the_downloaded_data_are_those_of_the_figure(
    name: str, page: Page, runs: dict[str, Run], tmp_path: Path
) -> None:
    """The CSV of the page equals `figure_data` in Python."""
    found = pd.read_csv(downloaded(page, tmp_path, name, "csv"))
    wanted = figure_data(draw(name, runs))
    wanted.to_csv(tmp_path / "wanted.csv", index=False)
    pd.testing.assert_frame_equal(found, pd.read_csv(tmp_path / "wanted.csv"), check_dtype=False)


def test_figures_download_as_svg_and_png(page: Page, tmp_path: Path) -> None:
    """Both start as their formats do."""
    assert downloaded(page, tmp_path, "pareto", "svg").read_text(encoding="utf-8").startswith("<svg")
    assert downloaded(page, tmp_path, "pareto", "png").read_bytes().startswith(b"\x89PNG")
    assert page.console == []


def test_the_animation_plays(page: Page, runs: dict[str, Run], tmp_path: Path) -> None:
    """The last frame is shown after the request to play it, and the data stay those of the figure."""
    page.run("document.getElementById('figure-load-animation').scrollIntoView({block: 'center'})")
    page.wait("document.querySelector('#figure-load-animation.drawn')")
    page.run("Plotly.animate('figure-load-animation', ['5'], {mode: 'immediate', frame: {duration: 0, redraw: true}})")
    page.wait("document.querySelector('#figure-load-animation .slider-label').textContent === 'step 5'")
    found = pd.read_csv(downloaded(page, tmp_path, "load_animation", "csv"))
    figure_data(draw("load_animation", runs)).to_csv(tmp_path / "wanted.csv", index=False)
    pd.testing.assert_frame_equal(found, pd.read_csv(tmp_path / "wanted.csv"), check_dtype=False)
    assert page.console == []


def test_a_sweep_is_a_page_of_its_points(runs: dict[str, Run], tmp_path: Path) -> None:
    """Its figures are drawn without a message of the console."""
    points = pd.concat([points_of(runs).assign(seed=seed) for seed in (1, 2, 3)], ignore_index=True)
    file = tmp_path / "sweep.html"
    file.write_text(sweep_html(points, title=EVIL, scenario_yaml="name: x\n"), encoding="utf-8")
    with browser(tmp_path) as page:
        page.open(file)
        draw_all(page)
        assert page.console == []
        assert page.run("document.querySelectorAll('#summary-table tbody tr').length") == len(runs)
        assert page.run("document.querySelectorAll('.plot.drawn').length") >= 3
        assert page.run("document.querySelectorAll('img[src=x]').length") == 0
        heads = page.run(
            "Array.from(document.querySelectorAll('#summary-table thead th')).map(t => t.textContent.trim())"
        )
        assert "router" in heads


@pytest.mark.slow
def test_fifty_variants_open_in_under_three_seconds(tmp_path: Path) -> None:
    """Of work in the browser, as wall time depends on what else the machine does."""
    from tests.report_runs import make_run

    made = make_run("x", n_steps=20, n_layers=32, n_experts=64, n_gpus=16)
    runs: dict[str, Any] = {f"variant {i}": made for i in range(50)}
    file = tmp_path / "report.html"
    file.write_text(report_html(runs, title="fifty", scenario_yaml=None), encoding="utf-8")
    with browser(tmp_path) as page:
        page.open(file)
        assert page.run(f"{ROWS}.length") == 50
        busy = page.busy_s()
        print(f"{file.stat().st_size / 1e6:.1f} MB: {page.opened_s:.2f} s, of which busy {busy:.2f} s")
        page.run("document.getElementById('pareto').scrollIntoView()")
        page.wait("document.querySelector('#figure-pareto.drawn')")
        assert page.console == []
    assert 0.05 < busy < OPEN_GOAL_S
