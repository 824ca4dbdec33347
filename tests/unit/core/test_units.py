"""Quantities as people write them: read, written, and read back."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core import units
from freehold.core.units import Unreadable


@pytest.mark.parametrize(
    ("text", "value_s"),
    [
        ("20s", 20.0),
        ("500ms", 0.5),
        ("2m", 120.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("2d", 172800.0),
        ("250us", 0.00025),
        ("1m0.5s", 60.5),
        ("0s", 0.0),
        ("0.1s", 0.1),
        ("1d2h3m4s5ms6us", 93784.005006),
    ],
)
def test_duration_is_read(text: str, value_s: float):
    assert units.parse_duration_s(text) == value_s


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "s",
        "1.s",
        ".5s",
        "-1s",
        "+1s",
        "1 s",
        " 1s",
        "1s\n",
        "1S",
        "1H",
        "1e3s",
        "1,5s",
        "10sec",
        "٣s",
        "1" * 16 + "s",
    ],
)
def test_no_duration_says_what_one_looks_like(text: str):
    assert units.parse_duration_s(text) == Unreadable("must be a duration such as 500ms, 20s, 2m or 1h30m")


@pytest.mark.parametrize("text", ["30m1h", "1s1s", "1ms1s"])
def test_duration_parts_stand_once_and_largest_first(text: str):
    assert units.parse_duration_s(text) == Unreadable("must name each unit once, largest first, as in 1h30m")


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (0, "0s"),
        (0.2, "200ms"),
        (0.00025, "250us"),
        (0.0015, "1.5ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (60, "1m"),
        (5400, "1h30m"),
        (90061.5, "1d1h1m1.5s"),
        (86400, "1d"),
    ],
)
def test_duration_is_written_shortest(value_s: float, text: str):
    assert units.format_duration(value_s) == text


@given(st.integers(min_value=0, max_value=10**14))
def test_duration_round_trip(value_us: int):
    value_s = value_us / 1_000_000
    assert units.parse_duration_s(units.format_duration(value_s)) == value_s


@pytest.mark.parametrize(
    ("text", "value_bytes"),
    [
        ("64KiB", 65536),
        ("10MB", 10_000_000),
        ("1.5GiB", 1610612736),
        ("512B", 512),
        ("0B", 0),
        ("1kB", 1000),
        ("1KB", 1000),
        ("2TiB", 2 * 1024**4),
        ("2TB", 2 * 1000**4),
        ("0.1GiB", 107374182),  # 107374182.4 rounded
    ],
)
def test_bytes_are_read(text: str, value_bytes: int):
    assert units.parse_bytes(text) == value_bytes


@pytest.mark.parametrize(
    "text", ["", "10", "10M", "10G", "10mb", "10 MB", "-1B", "MB", "1B\n", "1e3B", "1KIB"]
)
def test_no_bytes_says_what_they_look_like(text: str):
    assert units.parse_bytes(text) == Unreadable(
        "must be a size in bytes such as 64KiB, 16MiB, 1.5GiB or 10MB"
    )


@pytest.mark.parametrize(
    ("value_bytes", "text"),
    [
        (0, "0B"),
        (1, "1B"),
        (1331, "1.331kB"),
        (1000, "1kB"),
        (1024, "1KiB"),
        (16777216, "16MiB"),
        (10_000_000, "10MB"),
        (1610612736, "1.5GiB"),
        (1234567, "1234.567kB"),
        (10**16 + 1, "10000000000000.001kB"),
    ],
)
def test_bytes_are_written_in_the_largest_exact_unit(value_bytes: int, text: str):
    assert units.format_bytes(value_bytes) == text


@given(st.integers(min_value=0, max_value=10**15))
def test_bytes_round_trip(value_bytes: int):
    assert units.parse_bytes(units.format_bytes(value_bytes)) == value_bytes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("900M", 900_000_000),
        ("200k", 200_000),
        ("200K", 200_000),
        ("1.5B", 1_500_000_000),
        ("2G", 2 * 10**9),
        ("1T", 10**12),
        ("0", 0),
        ("1500", 1500),
        ("0.5k", 500),
        ("2.0", 2),
    ],
)
def test_count_is_read(text: str, value: int):
    assert units.parse_count(text) == value


@pytest.mark.parametrize("text", ["", "0.5", "1.0005k", "-1", "900 M", "900m", "1e6", "M", "1_000", "1\n"])
def test_no_count_says_what_one_looks_like(text: str):
    assert units.parse_count(text) == Unreadable("must be a whole number such as 1500, 200k, 900M or 1.5B")


@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_count_round_trip(value: int):
    assert units.parse_count(units.format_count(value)) == value


@given(st.text(max_size=30))
def test_readers_never_raise(text: str):
    for read in (units.parse_duration_s, units.parse_bytes, units.parse_count):
        assert isinstance(read(text), int | float | Unreadable)


@given(st.from_regex(units.DURATION_PATTERN, fullmatch=True))
def test_what_matches_the_published_duration_pattern_fails_only_by_order(text: str):
    read = units.parse_duration_s(text)
    assert isinstance(read, float) or (isinstance(read, Unreadable) and "largest first" in read.message)


@given(st.from_regex(units.BYTES_PATTERN, fullmatch=True))
def test_what_matches_the_published_bytes_pattern_is_read(text: str):
    assert isinstance(units.parse_bytes(text), int)


@pytest.mark.parametrize("pattern", [units.DURATION_PATTERN, units.BYTES_PATTERN, units.COUNT_PATTERN])
def test_published_patterns_are_anchored(pattern: str):
    assert pattern.startswith("^")
    assert pattern.endswith("$")
    assert not re.match(pattern, "nothing of the kind")
