"""The report as a page: it is whole, safe and the same to the byte."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from moesim.errors import InputError
from moesim.report import FIGURES, Run, report_html
from moesim.report.captions import CAPTIONS
from moesim.report.header_facts import header_facts
from moesim.report.html import SECTIONS
from moesim.report.provenance import LABELS, counts, provenance

EVIL = "<script>alert(1)</script>"
SHARED = [name for name in FIGURES if name not in ("capacity_drops", "skew_balance", "latency_axes")]
"""Figures that runs without a scenario have."""


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
        """Note what a tag would load."""
        self._inside = tag
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]

    def handle_endtag(self, tag: str) -> None:
        """Text after it is outside of the tag."""
        self._inside = ""

    def handle_data(self, data: str) -> None:
        """Keep scripts and text apart."""
        (self.scripts if self._inside == "script" else self.text).append(data)


@pytest.fixture
def page(runs: dict[str, Run]) -> str:
    """The report of three runs and of one whose name is markup."""
    return report_html({EVIL: runs["random"], **runs}, title=f"A & {EVIL}", scenario_yaml=f"name: {EVIL}\n")


def test_the_same_runs_give_the_same_bytes(runs: dict[str, Run]) -> None:
    """Nothing in the page depends on time or chance."""
    first = report_html(runs, title="t", scenario_yaml="name: t\n")
    assert first == report_html(runs, title="t", scenario_yaml="name: t\n")


def test_names_and_yaml_are_only_text(page: str) -> None:
    """Markup in a name reaches neither the page nor Plotly's labels."""
    outline = Outline(page)
    assert EVIL in "".join(outline.text)
    assert not any(script.strip().startswith("alert(1)") for script in outline.scripts)
    assert EVIL not in page
    # Plotly, which renders HTML in labels, gets the name escaped once more.
    assert "\\u003cscript" not in page
    assert "\\u0026lt;script\\u0026gt;alert(1)\\u0026lt;" in "".join(outline.scripts)


def test_the_page_loads_nothing_and_holds_plotly_once(page: str) -> None:
    """Every target is an anchor or data of the page itself."""
    assert all(target.startswith(("#", "data:,")) for target in Outline(page).loads)
    assert sum(len(script) > 1_000_000 for script in Outline(page).scripts) == 1
    assert "url(" not in page.split("<script>", maxsplit=1)[0]


def test_every_figure_has_a_caption_and_a_fixed_id(page: str) -> None:
    """Every figure stands in one section, under an id that links can name."""
    assert set(CAPTIONS) == set(FIGURES)
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(FIGURES)
    for name in SHARED:
        assert f'<div id="figure-{name.replace("_", "-")}" class="plot"' in page
    assert "Not drawn: Drops against capacity factor (The capacity factor does not vary.)" in page
    assert all(caption.count(". ") == 0 and caption.endswith(".") for caption in CAPTIONS.values())


def test_no_path_and_no_wall_time(runs: dict[str, Run]) -> None:
    """Neither the profile nor a folder of the machine is in the page."""
    first = runs["random"]
    first.manifest["profile_s"] = {"engine": 123.456789}
    outline = Outline(report_html(runs, title="t", scenario_yaml=None))
    text = "".join(outline.text)
    assert "123.45" not in text
    assert str(Path.cwd()) not in text
    assert "Scenario" not in text


def test_tables_mark_the_best_and_name_the_worst(page: str) -> None:
    """A 99th percentile of few steps has a mark of its own."""
    summary = page[page.index('id="summary-table"') :]
    table, _, below = summary.partition("</table>")
    assert table.count('class="best"') >= 8
    assert table.count("\u2020</span>") == 4  # the 99th percentile of each variant
    assert "\u2020 of 6 steps a run" in below[:200]
    worst = page[page.index('id="worst-table"') :]
    assert worst[: worst.index("</table>")].count("<tr") == 1 + 3 * 4


def test_one_run_has_no_best(runs: dict[str, Run]) -> None:
    """There is nothing to compare it with."""
    page = report_html({"only": runs["random"]}, title="t", scenario_yaml=None)
    assert 'class="best"' not in page
    assert "first is the baseline" not in page


def test_no_run_is_an_error() -> None:
    """A report needs one."""
    with pytest.raises(InputError, match="found no run"):
        report_html({}, title="t", scenario_yaml=None)


def test_provenance_reads_text_mappings_and_trees(runs: dict[str, Run]) -> None:
    """Labels are recognised in each of them."""
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
    assert (
        rows["trace.parquet"].label == ""
    )  # what was taken from a file is said by the entries above, and counted once
    assert counts(one.manifest) == "2 measured, 1 estimated"
    assert {source.label for source in rows.values()} <= {*LABELS, ""}
    assert counts({}) == ""


def test_warnings_of_all_runs_stand_once_on_top(runs: dict[str, Run]) -> None:
    """Warnings that several runs share are one line."""
    assert 'id="warnings"' not in report_html(runs, title="t", scenario_yaml=None)
    first, second, _ = runs.values()
    first.manifest["warnings"] = ["s.yaml:3:1: seed: found <1>, which has no effect"]
    second.manifest["warnings"] = [*first.manifest["warnings"], "another"]
    page = report_html(runs, title="t", scenario_yaml=None)
    assert page.count("<li>s.yaml:3:1: seed: found &lt;1&gt;, which has no effect</li>") == 1
    assert page.index("<li>another</li>") < page.index('id="summary"')


def test_facts_name_what_was_simulated(runs: dict[str, Run]) -> None:
    """What may differ between variants is left out, or is said of the baseline."""
    scenario = "model: {name: tiny}\ncluster: {gpu: {name: round}, network: inline}\nrouting: {strategy: switch}\n"
    several = dict(header_facts(runs, scenario))
    assert (several["model"], several["GPU"], several["GPUs"], several["nodes"]) == ("tiny", "round", "4", "2")
    assert "routing" not in several  # may differ between variants
    runs["random"].manifest["provenance"] = {"model": "measured: another"}
    assert dict(header_facts(runs, scenario))["model"] == "tiny (baseline)"
    runs["random"].manifest["seed"] = 2
    assert dict(header_facts(runs, None))["seed"] == "1, 2"
    alone = dict(header_facts({"only": runs["as trained"]}, scenario))
    assert alone["routing"] == "switch"
    for broken in ("}{", "- 1", "model: 3", ""):
        assert "model" not in dict(header_facts(runs, broken))


def test_a_run_without_frames_is_still_a_page(runs: dict[str, Run]) -> None:
    """Its figures say that they have nothing to show."""
    run = runs["random"]
    frames = ("steps", "layers", "experts", "gpus", "links", "timeline")
    bare = replace(run, summary={}, manifest={}, **{name: getattr(run, name).iloc[:0] for name in frames})
    page = report_html({"bare": bare}, title="t", scenario_yaml=None)
    assert "The manifest names no inputs." in page


def test_differences_are_in_the_units_of_the_table(runs: dict[str, Run]) -> None:
    """Times in milliseconds, rates in percent, with their intervals."""
    rows = [
        ("random", "step_time_s.mean", 2e-3, -5e-4, -6e-4, -4e-4, 0.75, 5, True, 3, False),
        ("random", "step_time_s.p99", 2e-3, 1e-5, -6e-4, 4e-4, 1.01, 5, False, 40, True),
        ("random", "drop_rate", 0.0, 0.0, 0.0, 0.0, float("nan"), 5, False, 1, False),
        ("random", "load_cv", 1.0, 0.1, 0.0, 0.2, 1.1, 5, True, 1, False),
    ]
    names = "variant metric baseline_mean difference ci_low ci_high ratio n significant seeds_needed too_few_steps"
    paired = pd.DataFrame(rows, columns=names.split())
    page = report_html(runs, title="t", scenario_yaml=None, paired=paired)
    table = page[page.index('id="paired-table"') :]
    lines = table[table.index("<tbody>") : table.index("</table>")].split("</tr>")[:-1]
    cells = [re.findall(r"<t[dh][^>]*>([^<]*)<", line) for line in lines]
    assert cells == [
        ["random", "step time mean [ms]", "2.000", "-0.5000", "-0.6000", "-0.4000", "0.7500", "5", "3", ""],
        [
            *("random", "step time p99 [ms]", "2.000", "0.01000", "-0.6000", "0.4000", "1.010", "5", "40"),
            "not significant, of too few steps",
        ],
    ]
