"""Numbers, times and bytes as text."""

from __future__ import annotations

import math

import pytest

from moesim.report.text import MAX_LENGTH, label, printable
from moesim.report.units import bytes_scale, bytes_text, count, number, percent, time_scale, time_text


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "-"),
        (math.nan, "-"),
        (math.inf, "-"),
        (0.0, "0"),
        (0.0123456, "0.01235"),
        (12.3456, "12.35"),
        (123456.0, "123,456"),
        (-1.5, "-1.500"),
    ],
)
def test_number_keeps_four_digits(value: float | None, text: str) -> None:
    """Large and small numbers have the same precision."""
    assert number(value) == text


@pytest.mark.parametrize(
    "share, text",
    [(None, "-"), (math.nan, "-"), (0.0, "0"), (0.1234, "12.3"), (1.0, "100"), (1e-6, "<0.01"), (-1e-6, ">-0.01")],
)
def test_percent_never_shows_a_small_share_as_nothing(share: float | None, text: str) -> None:
    """What is not zero does not read as zero."""
    assert percent(share) == text


def test_count_is_whole() -> None:
    """With a comma every three digits; a missing one is a dash."""
    assert count(30.0) == "30"
    assert count(1234567) == "1,234,567"
    assert count(None) == "-"


@pytest.mark.parametrize(
    "seconds, text",
    [(None, "-"), (0.0, "0 s"), (1.5, "1.500 s"), (0.0123, "12.30 ms"), (42e-6, "42.00 us"), (3e-9, "3.000 ns")],
)
def test_time_picks_its_unit(seconds: float | None, text: str) -> None:
    """From nanoseconds to seconds."""
    assert time_text(seconds) == text


@pytest.mark.parametrize(
    "amount, text", [(0, "0 B"), (512, "512.0 B"), (2.5e6, "2.500 MB"), (1.2e9, "1.200 GB"), (3e12, "3.000 TB")]
)
def test_bytes_pick_their_decimal_unit(amount: float, text: str) -> None:
    """Steps of 1,000, not of 1,024."""
    assert bytes_text(amount) == text


def test_scales_follow_the_largest_value() -> None:
    """An axis has the unit of its largest value."""
    assert time_scale(0.0123) == (1e-3, "ms")
    assert time_scale(0.0) == (1e-9, "ns")
    assert bytes_scale(5e6) == (1e6, "MB")


def test_plain_is_one_printable_line() -> None:
    """Escapes, line ends and tabs become spaces, and long texts are cut."""
    assert printable("a\x1b[31mred\x07\nb\t c") == "a [31mred b c"
    assert len(printable("x" * 1000)) == MAX_LENGTH


def test_label_is_not_html_and_no_plotly_template() -> None:
    """Markup is escaped, and long labels are wrapped."""
    assert label("<b>&", 40) == "&lt;b&gt;&amp;"
    assert "%{" not in label("%{x}")
    assert label("one two three", 7) == "one two<br>three"
    assert label("") == ""
