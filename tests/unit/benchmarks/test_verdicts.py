"""What the benchmarks of what must hold say of their counts: nothing seen is nothing shown, and who left is not forgotten."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

import ledger_kill
import overload
import resume
from callers import PATIENCE_S, Caller, Turn

from gateway_rig.killing import Verdict

KILLED = Verdict(runs=2, begun=9, ended=7, recorded=8, missing=0, doubled=0, torn_bytes=0)
RESUMED = resume.Round(whole=True, in_time=True, same=[True] * 10)


@pytest.mark.parametrize(
    ("changes", "code"), [({}, 0), ({"missing": 1}, 3), ({"doubled": 1}, 3), ({"ended": 0}, 1)]
)
def test_a_ledger_that_lost_nothing_of_nothing_is_not_shown_to_hold(
    changes: dict[str, int], code: int
) -> None:
    assert ledger_kill.exit_code(replace(KILLED, **changes)) == code


@pytest.mark.parametrize(
    ("rounds", "code"),
    [
        ([RESUMED, RESUMED], 0),
        ([RESUMED, replace(RESUMED, same=[])], 1),
        ([], 1),
        ([RESUMED, replace(RESUMED, whole=False)], 3),
        ([RESUMED, replace(RESUMED, whole=False, same=[])], 3),
        ([RESUMED, replace(RESUMED, in_time=False)], 3),
        ([RESUMED, replace(RESUMED, same=[True] * 7 + [False] * 3)], 3),
    ],
)
def test_each_kill_must_have_met_streams(rounds: list[resume.Round], code: int) -> None:
    assert resume.exit_code(rounds) == code


def turn(name: str, **fates: int) -> Turn:
    callers = [Caller(at_s=4.0, fate=fate) for fate, count in fates.items() for _ in range(count)]
    for caller in callers:
        caller.ttft_s = 0.5 if caller.fate == "whole" else None
    return Turn(name=name, lasted_s=13.0, capacity_per_s=10.0, callers=callers)


def missed(**fates: int) -> set[str]:
    """Return the bars that do not hold where one turn went so and all else well."""
    fine = turn("fine", whole=100)
    return {bar.name for bar in overload.bars(fine, turn("odd", **fates), fine, 1.0) if not bar.holds}


def test_who_left_before_a_token_waited_all_of_its_patience() -> None:
    assert turn("some", whole=98, left=2).ttft_s(0.99) == PATIENCE_S
    assert turn("some", whole=98, refused=2).ttft_s(0.99) == 0.5
    assert not missed(whole=100)
    assert missed(whole=96, left=4) == {"TTFT p99 of the admitted, odd"}


def test_none_may_fail() -> None:
    assert missed(whole=100, failed=1) == {"failed, odd"}
