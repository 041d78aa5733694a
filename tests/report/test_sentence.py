"""A comparison in one line, and its differences as a table."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.table import Table

from moesim.report.sentence import sentence
from moesim.report.terminal import print_table
from moesim.report.terminal_tables import paired_text_table, points_text_table
from moesim.study.statistics import paired


def points(**variants: list[float]) -> pd.DataFrame:
    """Runs of the given mean step times; the first waits 38 % of the step, the others 11 % and drop 4.2 %."""
    first = next(iter(variants))
    rows = [
        {
            "variant": name.replace("_", " "),
            "seed": seed,
            "step_time_s.mean": value,
            "step_time_s.p99": 2 * value,
            "breakdown_s.wait": value * (0.38 if name == first else 0.11),
            "drop_rate": 0.0 if name == first else 0.042,
            "n_steps": 100,
        }
        for name, values in variants.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def told(runs: pd.DataFrame) -> str:
    """The sentence about points, paired by seed."""
    summary = runs.drop(columns="seed").groupby("variant", sort=False).mean()
    return sentence(summary, paired(runs))


def test_the_fastest_variant_is_told() -> None:
    """How much faster with its interval, what it drops, what the waiting does."""
    line = told(points(dropless=[1.31, 1.31, 1.33, 1.30], slow=[2, 2, 2, 2.1], capacity_1=[1.0, 0.99, 1.02, 1.0]))
    assert line == (
        "capacity 1 is 1.31x faster than dropless (95 % CI 1.29 to 1.33, 4 seeds); capacity 1 drops 4.20 % of "
        "assignments, dropless 0 %; straggler wait falls from 38 % to 11 % of the step"
    )


def test_one_seed_has_no_interval() -> None:
    """And says so."""
    line = told(points(a=[1.0], b=[0.5]))
    assert line.startswith(
        "b is 2.00x faster than a (one seed, no interval); b drops 4.20 % of assignments, a 0 %; straggler"
    )


def test_what_may_be_chance_is_not_called_faster() -> None:
    """The interval is there, the waiting is not."""
    line = told(points(a=[1.0, 1.1, 0.9, 1.0], b=[1.05, 0.95, 0.99, 0.97]))
    assert line.startswith("b and a do not differ significantly in mean step time: 1.0")
    assert line.endswith(", 4 seeds) as fast; b drops 4.20 % of assignments, a 0 %")


def test_a_baseline_may_be_the_fastest() -> None:
    """The nearest other one is named."""
    line = told(points(a=[1.0, 1.01, 1.0], b=[3.0, 3.0, 3.0], c=[2.0, 2.02, 2.0]))
    assert line == (
        "no variant is faster than a: c comes nearest and takes 2.00x (95 % CI 2.00 to 2.00, 3 seeds) as long; "
        "c drops 4.20 % of assignments, a 0 %"
    )


def unequal(**variants: tuple[float, list[float]]) -> pd.DataFrame:
    """Runs of (tokens a step, mean step times); what they drop and wait as in `points`."""
    runs = points(**{name: times for name, (_, times) in variants.items()})
    runs["work.tokens_per_step"] = [tokens for tokens, times in variants.values() for _ in times]
    runs["work.gpus"] = 1.0
    runs["tokens_per_s_per_gpu"] = runs["work.tokens_per_step"] / runs["step_time_s.mean"]
    return runs


def test_unequal_work_is_compared_by_throughput() -> None:
    """A batch of 8 is no faster than one of 512; the drops of both are named, or that there are none."""
    runs = unequal(large=(512, [4.0, 4.04]), small=(8, [0.5, 0.51]), larger=(1024, [5.0, 5.06]))
    assert told(runs) == (
        "the work differs (tokens a step), so by throughput per GPU: larger has 1.60x the tokens/s/GPU of large "
        "(95 % CI 1.58 to 1.62, 2 seeds); larger drops 4.20 % of assignments, large 0 %"
    )
    dropless = runs[runs["variant"] != "larger"].assign(drop_rate=0.0)
    assert told(dropless).endswith(
        ": no variant has more tokens/s/GPU than large; small comes nearest with 0.124x (95 % CI 0.117 to 0.132, "
        "2 seeds) as many; neither drops an assignment"
    )
    by_chance = unequal(a=(8, [1.0, 1.3, 0.9]), b=(16, [2.0, 1.9, 2.2]))
    assert ": b and a do not differ significantly in tokens/s/GPU: " in told(by_chance)


def test_tokens_without_an_expert_are_told() -> None:
    """They are no dropped assignments, and not free either."""
    runs = points(top=[1.0], ec=[0.5]).assign(drop_rate=0.0, unrouted_token_rate=[0.0, 0.2])
    assert "; ec leaves 20.0 % of tokens without an expert, top 0 %; straggler" in told(runs)


def test_nothing_to_compare_is_nothing_to_say() -> None:
    """One variant, or none."""
    assert told(points(a=[1.0])) == ""
    assert sentence(pd.DataFrame()) == ""


def test_names_of_users_are_one_printable_line() -> None:
    """Escapes of a terminal as well."""
    assert "\x1b" not in told(points(**{"a\x1b[31m": [1.0], "b\nc": [0.5]}))
    assert "\n" not in told(points(**{"a": [1.0], "b\nc": [0.5]}))


def shown(table: Table) -> str:
    """The table as it is printed."""
    stream = io.StringIO()
    print_table(table, stream)
    return stream.getvalue()


def test_differences_that_may_be_chance_are_marked() -> None:
    """n.s., few steps, and no interval for one seed."""
    runs = points(base=[1.0, 1.1, 0.9], same=[1.05, 1.0, 0.95], fast=[0.5, 0.6, 0.41])
    lines = shown(paired_text_table(paired(runs), ["step_time_s.mean", "drop_rate"])).splitlines()
    same, fast = (next(line for line in lines if line.startswith(name)) for name in ("same", "fast"))
    assert " n.s. " in same
    assert " n.s. " not in fast
    assert "-496.7" in fast
    assert "few steps" in shown(paired_text_table(paired(runs.assign(n_steps=3)), ["step_time_s.p99"]))
    assert "few steps" not in shown(paired_text_table(paired(runs), ["step_time_s.p99"]))
    one = shown(paired_text_table(paired(runs[runs["seed"] == 0]), ["step_time_s.mean"]))
    assert "n.s." not in one.splitlines()[2]


def test_differences_in_step_time_are_of_equal_work() -> None:
    """Else throughput has their place, and the table says so; results of earlier versions have no such column."""
    differences = paired(unequal(large=(512, [4.0, 4.1]), small=(8, [0.5, 0.51]), same=(512, [5.0, 5.2])))
    assert dict(zip(differences["variant"], differences["same_work"], strict=True)) == {"small": False, "same": True}
    text = shown(paired_text_table(differences, ["step_time_s.mean"]))
    small, same = (next(line for line in text.splitlines() if line.startswith(name)) for name in ("small", "same"))
    assert "tokens/s/GPU" in small
    assert "step time mean" in same
    assert (text.count("\nsmall "), text.count("\nsame ")) == (1, 1)
    assert "where the work differs tokens/s/GPU stands in place of step times" in " ".join(text.split())
    old = shown(paired_text_table(differences.drop(columns="same_work"), ["step_time_s.mean"]))
    assert old.count("step time mean") == 2
    assert "tokens/s/GPU" not in old


@pytest.mark.parametrize("rows, more", [(3, False), (70, True)])
def test_a_table_of_points_has_its_axes_first(rows: int, more: bool) -> None:
    """And tells of the rows that it leaves out."""
    summary = points(**{f"v{i}": [1.0 + i] for i in range(rows)}).drop(columns="seed")
    summary.insert(0, "routing.top_k", range(rows))
    summary.insert(0, "routing.capacity.factor", [float("nan"), *[1.25] * (rows - 1)])
    text = shown(points_text_table(summary, ["routing.capacity.factor", "routing.top_k"]))
    assert text.splitlines()[1].split()[:3] == ["factor", "top_k", "variant"]
    assert text.splitlines()[3].split()[:3] == ["none", "0", "v0"]
    assert ("more rows are in the files" in text) == more
