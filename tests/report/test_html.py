from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from moesim.errors import InputError
from moesim.report import FIGURES, Run, report_html
from moesim.report.facts import facts
from moesim.report.html import _SECTIONS, CAPTIONS
from moesim.report.provenance import LABELS, counts, provenance

EVIL = "<script>alert(1)</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
IDS = {f"figure-{name.replace('_', '-')}" for name in FIGURES}


class Outline(HTMLParser):
    """Tags that load something, and the text outside scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self._inside == "script" else self.text).append(data)


@pytest.fixture
def page(runs: dict[str, Run]) -> str:
    return report_html({EVIL: runs["random"], **runs}, title=f"A & {EVIL}", scenario_yaml=f"name: {EVIL}\n")


def test_the_same_runs_give_the_same_bytes(runs: dict[str, Run]) -> None:
    first = report_html(runs, title="t", scenario_yaml="name: t\n")
    assert first == report_html(runs, title="t", scenario_yaml="name: t\n")


def test_names_and_yaml_are_only_text(page: str) -> None:
    outline = Outline(page)
    assert EVIL in "".join(outline.text)
    assert not any(script.strip().startswith("alert(1)") for script in outline.scripts)
    assert EVIL not in page
    # Plotly, which renders HTML in labels, gets the name escaped once more.
    assert "\\u003cscript" not in page
    assert "&lt;script&gt;alert(1)&lt;" in "".join(outline.scripts)


def test_the_page_loads_nothing_and_holds_plotly_once(page: str) -> None:
    assert all(target.startswith(("#", "data:,")) for target in Outline(page).loads)
    assert sum("Plotly.newPlot(" in script for script in Outline(page).scripts) >= len(FIGURES)
    assert sum(len(script) > 1_000_000 for script in Outline(page).scripts) == 1
    assert "url(" not in page.split("<script>", maxsplit=1)[0]


def test_every_figure_has_a_caption_and_a_fixed_id(page: str) -> None:
    assert set(CAPTIONS) == set(FIGURES)
    assert sorted(name for names in _SECTIONS.values() for name in names) == sorted(FIGURES)
    assert set(re.findall(r'<div id="(figure-[a-z-]+)"', page)) == IDS
    assert all(caption.count(". ") == 0 and caption.endswith(".") for caption in CAPTIONS.values())


def test_no_path_and_no_wall_time(runs: dict[str, Run]) -> None:
    first = runs["random"]
    first.manifest["profile_s"] = {"engine": 123.456789}
    outline = Outline(report_html(runs, title="t", scenario_yaml=None))
    text = "".join(outline.text)
    assert "123.45" not in text
    assert str(Path.cwd()) not in text
    assert "Scenario" not in text


def test_tables_mark_the_best_and_name_the_worst(page: str) -> None:
    summary = page[page.index('id="summary-table"') :]
    assert summary[: summary.index("</table>")].count('class="best"') >= 8
    worst = page[page.index('id="worst-table"') :]
    assert worst[: worst.index("</table>")].count("<tr") == 1 + 3 * 4


def test_one_run_has_no_best(runs: dict[str, Run]) -> None:
    page = report_html({"only": runs["random"]}, title="t", scenario_yaml=None)
    assert 'class="best"' not in page
    assert "first is the baseline" not in page


def test_no_run_is_an_error() -> None:
    with pytest.raises(InputError, match="found no run"):
        report_html({}, title="t", scenario_yaml=None)


def test_provenance_reads_text_mappings_and_trees(runs: dict[str, Run]) -> None:
    one, two, three = runs.values()
    one.manifest["provenance"] = {
        "gpu": {"label": "measured", "source": "H100 table"},
        "network": {"latency": "estimated (data sheet)", "bandwidth": "Measured: nccl"},
        "note": "fp8 is not on a100: bf16",
        "nothing": None,
    }
    one.manifest["inputs"] = [{"name": "trace.parquet", "sha256": "ab12"}]
    two.manifest["provenance"] = {"gpu": {"label": "measured", "source": "H100 table"}}
    three.manifest["provenance"] = {"gpu": {"label": "measured", "source": "H100 table"}}
    rows = {source.name: source for source in provenance(runs)}
    assert (rows["gpu"].label, rows["gpu"].note, rows["gpu"].variants) == ("measured", "H100 table", "all")
    assert (rows["network.latency"].label, rows["network.bandwidth"].note) == ("estimated", "nccl")
    assert rows["note"].label == ""
    assert rows["trace.parquet"].variants == "as trained"
    assert counts(one.manifest) == "3 measured, 1 estimated"
    assert {source.label for source in rows.values()} <= {*LABELS, ""}
    assert counts({}) == ""


def test_facts_name_what_was_simulated(runs: dict[str, Run]) -> None:
    scenario = "model: {name: tiny}\ncluster: {gpu: {name: round}, network: inline}\nrouting: {strategy: switch}\n"
    several = dict(facts(runs, scenario))
    assert (several["model"], several["GPU"], several["GPUs"], several["nodes"]) == ("tiny", "round", "4", "2")
    assert "routing" not in several  # may differ between variants
    runs["random"].manifest["provenance"] = {"model": "measured: another"}
    assert dict(facts(runs, scenario))["model"] == "tiny (baseline)"
    runs["random"].manifest["seed"] = 2
    assert dict(facts(runs, None))["seed"] == "1, 2"
    alone = dict(facts({"only": runs["as trained"]}, scenario))
    assert alone["routing"] == "switch"
    for broken in ("}{", "- 1", "model: 3", ""):
        assert "model" not in dict(facts(runs, broken))


def test_a_run_without_frames_is_still_a_page(runs: dict[str, Run]) -> None:
    run = runs["random"]
    frames = ("steps", "layers", "experts", "gpus", "links", "timeline")
    bare = replace(run, summary={}, manifest={}, **{name: getattr(run, name).iloc[:0] for name in frames})
    page = report_html({"bare": bare}, title="t", scenario_yaml=None)
    assert "The manifest names no inputs." in page


def chromium(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"),
        *(
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--virtual-time-budget=20000",
            f"--user-data-dir={page.parent}/user",
        ),
        *options,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)


@pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("MOESIM_REQUIRE_CHROMIUM") != "1", reason="chromium is not installed"
)
def test_a_browser_draws_every_figure_without_errors_or_requests(page: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    # The page reports what it asked for: anything but itself would be listed.
    probe = (
        "<script>window.addEventListener('load', () => setTimeout(() => { const p = document.createElement('pre');"
        "p.id = 'probe'; p.textContent = performance.getEntriesByType('resource').map(e => e.name).join(' ');"
        "document.body.append(p); }, 5000));</script></body>"
    )
    file.write_text(page.replace("</body>", probe), encoding="utf-8")
    done = chromium(file, "--enable-logging=stderr", "--v=0", "--dump-dom")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
    dom = done.stdout
    drawn = re.split(r'<div id="(figure-[a-z-]+)"', dom)
    assert set(drawn[1::2]) == IDS
    for name, body in zip(drawn[1::2], drawn[2::2], strict=True):
        assert 'class="main-svg"' in body, f"{name} was not drawn"
    assert '<pre id="probe"></pre>' in dom
    assert 'data-title="Download plot"' in dom
    assert 'data-title="Share chart' not in dom  # would send the figure to a server
    assert "&lt;script&gt;alert(1)&lt;/script&gt;</text>" in dom
    image = tmp_path / "shot.png"
    file.write_text(page, encoding="utf-8")
    chromium(file, f"--screenshot={image}", "--window-size=1280,6000")
    assert image.stat().st_size > 50_000
