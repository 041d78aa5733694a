"""What the README says is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from moesim import Scenario, compare, simulate
from moesim.scenario.presets import presets
from moesim.study import plan_sweep

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, on the file that `moesim init mine` writes, made small."""
    from moesim.cli import main

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["init", "mine"])
    path = tmp_path / "mine.yaml"
    path.write_text(re.sub(r"steps: \d+", "steps: 1", path.read_text()))
    example, own_router, kernel = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example.replace('"workload.steps": 3', '"workload.steps": 1'), names)
    assert names["assignment"].served.shape == (512, 8)
    exec(own_router, names)
    assert names["route"](np.zeros((3, 5)), strategy="first-k", top_k=2).expert.tolist() == [[0, 1]] * 3
    exec(kernel, names)


def test_the_example_of_routing_is_a_scenario() -> None:
    """A mixture of parameters, a policy and a balancer that go together."""
    (block,) = re.findall(r"```yaml\n(routing:\n.*?)```", README, re.DOTALL)
    base = {
        "model": {"preset": "olmoe-1b-7b", "n_layers": 1},
        "cluster": {"gpu": "h100-sxm"},
        "workload": {"steps": 1, "tokens_per_gpu": 32, "popularity": {"exponent": 0.5}},
    }
    result = simulate(Scenario.from_dict(base | yaml.safe_load(block)))
    assert result.summary["reroute_rate"] > 0


def test_the_gpus_and_networks_of_the_readme_are_there() -> None:
    """As many as it says, and its inline GPU with the links of its network."""
    section = README[README.index("## GPUs and networks") : README.index("## Networks of racks and pods")]
    assert f"has {len(presets('gpus'))} devices" in section
    (block,) = re.findall(r"```yaml\n(cluster:\n.*?)```", section, re.DOTALL)
    cluster = Scenario.from_dict({"model": "mixtral-8x7b", **yaml.safe_load(block)}).cluster
    assert (cluster.gpu.peak_tflops, cluster.gpu.link_gb_per_s) == ({"bf16": 400}, (450, 50))


def test_the_table_of_deepep_is_what_its_command_prints() -> None:
    """Every number of it."""
    section = README[README.index("DeepEP low latency against EP size") : README.index("## Speed")]
    command = [sys.executable, "-m", "tests.validation.deepep_ep_size"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    quoted = [line.strip("| ").split(" | ") for line in section.splitlines() if re.match(r"\| \d", line)]
    assert [[cell.removesuffix(".0") for cell in line.split()] for line in printed.splitlines()[1:]] == quoted


@pytest.mark.slow
def test_the_errors_of_collectives_are_what_their_command_prints() -> None:
    """The held-out rows of DeepEP."""
    command = [sys.executable, "-m", "moesim.calibration.fit_collectives"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    nccl = README[README.index("NCCL, every third size") : README.index("NCCL changes its protocol")]
    for operation in ("alltoall", "all_gather", "reduce_scatter", "all_reduce"):
        ((median, p90),) = re.findall(rf"nccl +latency +{operation} +held out +14 +(\S+) +(\S+)", printed)
        assert re.search(rf"{operation.replace('_', '-').replace('alltoall', 'all-to-all')} {median} / {p90}", nccl)
    section = README[README.index("Collectives, absolute error") : README.index("Runs charge their exchanges")]
    names = {"low latency": ("deepep_ll", "avg_t_us"), "normal": ("deepep_normal", "us")}
    rows = re.findall(r"\| DeepEP (low latency|normal), (within a node|across nodes) .*?\| (.*?) \| (.*?) \|", section)
    assert len(rows) == 4
    for mode, place, *cells in rows:
        kind, column = names[mode]
        for direction, cell in zip(("dispatch", "combine"), cells, strict=True):
            pattern = rf"{kind} +{direction}_{column} +{place} +held out +\d+ +(\S+) +(\S+)"
            (found,) = re.findall(pattern, printed)
            assert " / ".join(found) == cell


def test_the_example_of_a_sweep_is_one() -> None:
    """Of all parts: 2 listed x 20 random x 3 of the grid, every one of which can run."""
    (block,) = re.findall(r"```yaml\n(sweep:.*?)```", README, re.DOTALL)
    base = {"model": "olmoe-1b-7b", "cluster": {"gpu": "h100-sxm"}, "workload": {"topics": {"count": 4}}}
    cells = plan_sweep(Scenario.from_dict(base | yaml.safe_load(block)))
    assert len(cells) == 120
    assert not [cell.error for cell in cells if cell.error]


@pytest.mark.slow
def test_the_table_of_the_quickstart_is_what_it_prints() -> None:
    """Every number of it."""
    (block,) = re.findall(r"```\n(variant .*?)```", README, re.DOTALL)
    table = compare(Scenario.from_yaml(ROOT / "scenarios" / "quickstart.yaml")).summary
    lines = block.strip().splitlines()[1:]
    assert len(lines) == len(table) == 9
    for line in lines:
        variant, *cells = re.split(r"  +", line.strip())
        found = table.loc[variant]
        numbers = [float(cell.rstrip("*")) for cell in cells]
        wait = found["breakdown_s.wait"] / found["step_time_s.mean"]
        expected = [
            found["step_time_s.mean"] * 1e3,
            found["imbalance_penalty"],
            found["max_violation.mean"],
            found["balancedness.mean"],
            found["drop_rate"] * 100,
            found["token_drop_rate"] * 100,
            wait * 100,
        ]
        assert numbers == pytest.approx(expected, rel=6e-3, abs=6e-3), variant


@pytest.mark.slow
def test_the_quickstart_teaches_the_same_on_both_sides_of_a_power_of_two() -> None:
    """Less capacity is less imbalance and a shorter step, and imbalance by chance alone costs 2 %, at any batch."""
    for tokens in (60, 64, 65, 100):
        overrides = {"workload.tokens_per_gpu": tokens, "workload.steps": 3}
        table = compare(Scenario.from_yaml(ROOT / "scenarios" / "quickstart.yaml", overrides=overrides)).summary
        for router in ("mixtral", "switch", "random"):
            rows = table.loc[[f"{router}, capacity 1.0", f"{router}, capacity 1.25", router]]
            assert rows["step_time_s.mean"].is_monotonic_increasing, (tokens, router)
            assert rows["imbalance_penalty"].is_monotonic_increasing, (tokens, router)
        assert 1.005 < table["imbalance_penalty"]["random"] < 1.025


@pytest.mark.slow
def test_the_sentence_about_the_quickstart_is_what_is_printed(tmp_path: Path) -> None:
    """With the command beside it."""
    command, quoted = re.findall(r"`moesim (compare quickstart --seeds 5)`:\n\n```\n(.*?)\n```", README)[0]
    done = subprocess.run(
        [sys.executable, "-m", "moesim", *command.split()], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert quoted in done.stdout.splitlines()


@pytest.mark.slow
def test_the_table_of_speed_is_of_the_kernels_that_its_command_measures() -> None:
    """Their names and goals, on a small batch; the ratios are of the machine."""
    (command,) = re.findall(r"`python -m (tests\.benchmarks\.kernels) --markdown`", README)
    small = [sys.executable, "-m", command, "--tokens", "4096", "--repeats", "1"]
    section = README[README.index("## Speed") : README.index("`python -m tests.benchmarks.engine`")]
    output = subprocess.run([*small, "--markdown"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    quoted, printed = ([line for line in text.splitlines() if line.startswith("| ")] for text in (section, output))
    assert len(quoted) == len(printed) > 5
    assert quoted[0] == printed[0]
    for line, found in zip(quoted[1:], printed[1:], strict=True):
        kernel, baseline, _, goal = (cell.strip() for cell in line.strip("|").split("|"))
        assert found.startswith((f"| {kernel} | {baseline} |", f"| {kernel} | torch not installed | - |"))
        assert found.endswith(f"| {goal} |")
    table = subprocess.run(small, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert all(f"\n{what} " in table for what in ("first routed token", "import moesim", "moesim --help"))


@pytest.mark.slow
def test_the_figure_against_reality_is_what_its_command_prints() -> None:
    """The errors that the README quotes, and the cells of its excerpt."""
    command = [sys.executable, "-m", "tests.validation.expert_time"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    section = README[README.index("## One figure against reality") :]
    section = section[: section.index("\n## Def")]
    cells = re.findall(r"(\d\.\d{3}) / (\d\.\d{3})", section)
    assert len(cells) == 16
    for measured, predicted in cells:
        assert f"{measured}/{predicted}" in printed
    text = " ".join(section.split())
    quoted = {
        "uniform   fitted": re.findall(r"constants, (\S+) % median and (\S+) % at the 90th percentile", text),
        "power_law_0.6 held out": re.findall(r"never fitted, (\S+) % and (\S+) %", text),
    }
    for kind, errors in quoted.items():
        (line,) = [line for line in printed.splitlines() if kind in line]
        assert [tuple(line.split()[-2:])] == errors
