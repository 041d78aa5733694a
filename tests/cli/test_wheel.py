"""The built wheel, installed into an empty environment, runs without the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources, through the sdist as a release is."""
    source = tmp_path_factory.mktemp("source") / "moesim"
    source.mkdir()
    for name in ("moesim", "scenarios", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "data"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)],
        check=True,
        capture_output=True,
    )
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an empty environment with the wheel; its dependencies are those of this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    # the installer of this environment, told to install into the other one; no network
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)],
        check=True,
        capture_output=True,
    )
    site = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    # the other libraries are found after the wheel, without the .pth files that may lead to these sources
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return home / "bin"


def run(installed: Path, folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment where nothing leads to these sources."""
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [str(installed / program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=variables, timeout=300)


def test_the_wheel_holds_what_it_needs(wheel: Path) -> None:
    """Scenarios, presets, templates, measurements and licences, and nothing of the tests."""
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"moesim/scenarios/{path.name}" for path in (ROOT / "scenarios").glob("*.yaml")}
    assert "moesim/scenarios/quickstart.yaml" in shipped <= names
    assert "moesim/scenarios/mixtral-synthetic.parquet" in names
    fits = {path.name for path in (ROOT / "moesim" / "scenario" / "presets" / "fitted").iterdir()}
    assert {f"moesim/scenario/presets/fitted/{name}" for name in fits} <= names
    assert {"moesim/py.typed", "moesim/cli/template.yaml", "moesim/scenario/presets/models.yaml"} <= names
    assert {f"moesim/report/templates/{name}" for name in ("report.html.j2", "validation.html.j2", "page.css")} <= names
    assert any(name.startswith("moesim/calibration/measured/") and name.endswith(".parquet") for name in names)
    assert {"LICENSE", "NOTICE"} <= {Path(name).name for name in names}
    assert not [name for name in names if name.startswith(("tests", "results"))]


def test_the_installed_sources_are_those_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    """No path leads to the repository."""
    code = "import moesim; print(moesim.__file__)"
    done = run(installed, tmp_path, "python", "-c", code)
    assert Path(done.stdout.strip()).is_relative_to(installed.parent)


@pytest.mark.slow
def test_quickstart_runs_from_anywhere(installed: Path, tmp_path: Path) -> None:
    """With a report of Plotly and all figures."""
    done = run(installed, tmp_path, "moesim", "run", "quickstart", "--json", "--set", "workload.steps=1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_steps"] == 1
    (home,) = (tmp_path / "results").iterdir()
    assert (home / "report.html").stat().st_size > 100_000


@pytest.mark.slow
def test_the_recorded_scenario_runs_from_anywhere(installed: Path, tmp_path: Path) -> None:
    """Its trace is in the wheel: no file has to be made first."""
    done = run(installed, tmp_path, "moesim", "run", "mixtral-recorded", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_steps"] == 1


def test_a_new_scenario_runs(installed: Path, tmp_path: Path) -> None:
    """`init` and `show` find the template and the presets in the wheel."""
    assert run(installed, tmp_path, "moesim", "init", "mine").returncode == 0
    done = run(installed, tmp_path, "moesim", "show", "mine.yaml")
    assert (done.returncode, done.stderr) == (0, "")
