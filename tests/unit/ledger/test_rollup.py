"""Sums by day and model; what is unknown adds nothing and is counted."""

from pathlib import Path

import pytest

from freehold.ledger.journal import Journal, Span
from freehold.ledger.records.money import picousd, usd, usd_text
from freehold.ledger.records.reconcile import EngineReading, reconcile
from freehold.ledger.records.record import Basis, LedgerRecord, Outcome
from freehold.ledger.records.rollup import Dimension, UsageTally, roll_up, tally

DAY_US = 86_400_000_000
DAY = 20_781  # 2026-11-24


def record(**more: object) -> LedgerRecord:
    told = {
        "run": 1, "seq": 1, "time_us": DAY * DAY_US + 1, "request_id": "r", "key_id": "k", "model": "m", "path": "/p",
        "endpoint": "m-0", "status": 200, "outcome": Outcome.COMPLETE, "basis": Basis.MEASURED, "stream": True,
    }  # fmt: skip
    return LedgerRecord(**(told | more))


MEASURED = record(prompt_tokens=10, cached_tokens=4, completion_tokens=5)
CUT = record(outcome=Outcome.CUT, basis=Basis.ESTIMATED, completion_tokens=7, lost=3)
UNKNOWN = record(basis=Basis.UNKNOWN, model="n")
REJECTED = record(outcome=Outcome.FAILED, basis=Basis.NONE, status=400)
FAILED = record(outcome=Outcome.FAILED, basis=Basis.NONE, status=503, time_us=(DAY + 1) * DAY_US)


def test_estimates_and_unknowns_never_pass_for_measured_tokens() -> None:
    (((), total),) = roll_up(map(tally, (MEASURED, CUT, UNKNOWN, FAILED, REJECTED)), ())
    assert total == UsageTally(
        requests=5, complete=2, interrupted=1, failed=1, rejected=1, unknown=2, prompt_tokens=10, cached_tokens=4,
        completion_tokens=5, estimated_tokens=7, lost=3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("by", "places"),
    [
        (["model"], [("m",), ("n",)]),
        (["day"], [("2026-11-24",), ("2026-11-25",)]),
        (["hour"], [("2026-11-24T00:00Z",), ("2026-11-25T00:00Z",)]),
        (["key", "endpoint"], [("k", "m-0")]),
    ],
)
def test_rows(by: list[Dimension], places: list[tuple[str, ...]]) -> None:
    rows = roll_up(map(tally, (MEASURED, CUT, UNKNOWN, FAILED)), by)
    assert [place for place, _ in rows] == places
    assert sum(row.requests for _, row in rows) == 4


def test_nothing_is_no_row() -> None:
    assert roll_up([], ["model"]) == []


def reading(day: int, tokens: int, *, started_us: int = 1, replica: str = "m-0") -> EngineReading:
    return EngineReading(replica, started_us, day, tokens, read_us=day * DAY_US)


def gaps(
    readings: list[EngineReading], first: int = DAY, end: int = DAY + 1
) -> dict[str, tuple[int | None, int]]:
    found = reconcile([tally(MEASURED), tally(CUT)], readings, first_day=first, end_day=end)
    return {gap.endpoint: (gap.engine_tokens, gap.ledger_tokens) for gap in found}


def test_a_counter_begins_anew_with_each_start() -> None:
    assert gaps([reading(DAY, 8), reading(DAY, 9, started_us=2)]) == {"m-0": (17, 12)}


def test_a_day_has_what_the_counter_grew_since_the_day_before() -> None:
    assert gaps([reading(DAY - 1, 100), reading(DAY, 113)]) == {"m-0": (13, 12)}
    assert gaps([reading(DAY - 1, 100), reading(DAY, 113)], first=DAY - 1) == {"m-0": (113, 12)}


def test_no_counter_is_unknown_and_not_nought() -> None:
    (gap,) = reconcile([tally(MEASURED)], [], first_day=0, end_day=DAY + 1)
    assert gap.gap_tokens is None
    assert gaps([reading(DAY, 5, replica="other")]) == {"m-0": (None, 12), "other": (5, 0)}


def test_the_gap() -> None:
    (gap,) = reconcile([tally(MEASURED)], [reading(DAY, 6)], first_day=DAY, end_day=DAY + 1)
    assert gap.gap_tokens == 1


def test_costs_add_up_exactly_and_an_unknown_one_is_no_nought(tmp_path: Path) -> None:
    dear = record(seq=2, cost_usd=usd_text(10**18 + 1))
    records = [
        record(seq=1, cost_usd=usd_text(1)),
        dear,
        record(seq=3, cost_usd=usd_text(0)),
        record(seq=4, cost_usd=""),
        record(seq=5),
    ]
    (((), total),) = roll_up(map(tally, records), ())
    assert (total.priced, total.cost_unknown, total.cost_picousd) == (3, 1, 10**18 + 2)
    assert f"{usd(total.cost_picousd):f}" == "1000000.000000000002"
    journal = Journal(tmp_path / "ledger.sqlite")
    journal.add(records)
    (((), kept),) = roll_up(journal.tallies(Span()), ())
    journal.close()
    assert kept == total


@pytest.mark.parametrize(
    ("written", "text"), [("0.15", "0.150000000000"), (10, "10.000000000000"), (1e-6, "0.000001000000")]
)
def test_money_is_as_it_was_written(written: str | float, text: str) -> None:
    assert usd_text(picousd(written)) == text
    assert picousd(text) == picousd(written)
