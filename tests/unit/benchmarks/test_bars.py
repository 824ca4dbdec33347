"""What the gateway benchmark says of its results: a bar that was not measured is none that holds."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks" / "gateway"))

import bars

DIED = {"whole": 0, "inband": 20}


def results(**more: Any) -> dict[str, Any]:
    """Return what a run of the part `failures` finds where all is well."""
    modes = {mode: {"served": 200} for mode in ("close", "503", "exit")}
    found = {"one_of_four": modes, "aborts": {"within_20_ms": 50}, "cut": {"whole": 20, "inband": 0}}
    return {
        "skipped": {},
        "failed": [],
        **{name: {bars.OURS: value} for name, value in (found | more).items()},
    }


def code(found: dict[str, Any], column: str = "full", parts: tuple[str, ...] = ("failures",)) -> int:
    return bars.exit_code(bars.verdicts(found, column, parts), found)


def test_all_bars_that_were_asked_for_hold() -> None:
    assert code(results()) == 0


def test_a_bar_that_was_not_measured_is_none_that_holds() -> None:
    assert code(results(), parts=("failures", "memory")) == 1
    assert code(results() | {"shapes": {}, "skipped": {"nginx": "not found"}}, parts=("load",)) == 1


def test_a_bar_that_does_not_hold_is_worse_than_one_that_was_not_measured() -> None:
    assert code(results(aborts={"within_20_ms": 49}), parts=("failures", "memory")) == 3


def test_told_is_enough_for_the_plain_set_only() -> None:
    assert code(results(cut=DIED), "plain") == 0
    assert code(results(cut=DIED), "full") == 3


@pytest.mark.parametrize(
    ("name", "expected"), [("freehold", 3), ("+ continuation", 3), ("nginx", 1), ("mock", 1)]
)
def test_what_failed_is_ours_or_could_not_be_measured(name: str, expected: int) -> None:
    assert code(results() | {"failed": [(name, "answers were wrong")]}) == expected


@pytest.mark.parametrize(("name", "expected"), [("freehold", 1), ("+ metering", 1), ("tcp-relay", 0)])
def test_without_one_of_ours_nothing_was_measured(name: str, expected: int) -> None:
    assert code(results() | {"skipped": {name: "did not come up"}}) == expected


def test_every_bar_has_a_part_and_a_bound() -> None:
    assert {bar.part for bar in bars.BARS} == {"load", "memory", "slow", "failures", "before", "tls"}
    assert all(bar.plain is not None or bar.full is not None for bar in bars.BARS)
