"""A period is reviewed from a real ledger file and spool, and from the files that people bring; nothing is made up."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from freehold.cli.main import main
from freehold.cost.intake.measured_period import MeasuredFiles, MeasuredPeriod, measured_period
from freehold.ledger.journal import JOURNAL_NAME, Journal
from freehold.ledger.records.record import Basis, LedgerRecord, Outcome
from freehold.ledger.spool import SpoolWriter, make_folder, remove_folder, segments, spool_folder

OCT_1_S = 1_790_812_800.0
HOUR_S = 3600.0


def record(
    seq: int,
    at_s: float,
    *,
    prompt: int | None = 100,
    endpoint: str = "smol-0",
    outcome: Outcome = Outcome.COMPLETE,
    cost_usd: str | None = None,
) -> LedgerRecord:
    known = prompt is not None
    return LedgerRecord(
        run=1, seq=seq, time_us=int(at_s * 1e6), request_id=f"r{seq}", key_id="k", model="smol", path="/v1/completions",
        endpoint=endpoint, status=502 if outcome is Outcome.FAILED else 200, outcome=outcome, basis=Basis.MEASURED if known else Basis.NONE, stream=True,
        prompt_tokens=prompt, cached_tokens=40 if known else None, completion_tokens=20 if known else None,
        cost_usd=cost_usd,
    )  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "state"
    folder.mkdir()
    spool = spool_folder(folder)
    make_folder(spool)
    yield folder
    for segment in segments(spool):
        segment.path.unlink()
    remove_folder(spool)


def write(state: Path, *records: LedgerRecord) -> None:
    journal = Journal(state / JOURNAL_NAME)
    journal.add(records)
    journal.close()


def review(
    state: Path, files: MeasuredFiles | None = None, *, now_s: float = OCT_1_S + 48 * HOUR_S
) -> MeasuredPeriod:
    return measured_period(
        state, files or MeasuredFiles(), since_s=OCT_1_S, until_s=OCT_1_S + 24 * HOUR_S, now_s=now_s
    )


def test_nothing_recorded_is_unknown_and_no_nought(state: Path):
    found = review(state)
    assert found.traffic is None
    assert found.watts is None
    assert found.incidents is None
    assert found.down_node_hours is None
    assert found.problems == ()


def test_ledger_and_spool_are_one_history(state: Path):
    write(
        state,
        record(1, OCT_1_S - 100),
        record(2, OCT_1_S + 2.5 * HOUR_S),
        record(3, OCT_1_S + 5 * HOUR_S, endpoint="smol-1"),
    )
    writer = SpoolWriter(spool_folder(state))
    assert writer.append(record(4, OCT_1_S + 5 * HOUR_S + 1))
    assert writer.append(record(5, OCT_1_S + 6 * HOUR_S, prompt=None, outcome=Outcome.FAILED))
    assert writer.append(
        record(3, OCT_1_S + 5 * HOUR_S, endpoint="smol-1")
    )  # drained before, and not yet removed
    writer.close()
    found = review(state)
    assert found.hours == 24
    assert (found.requests, found.failed) == (4, 1)
    assert found.tokens_by_endpoint == (("smol-0", 240), ("smol-1", 120))
    assert found.traffic is not None
    # the stack was there before and after: all 24 hours count, the quiet ones too
    assert found.traffic.input_tokens_per_month == pytest.approx(300 * 730 / 24)
    assert found.traffic.cached_share == pytest.approx(0.4)
    assert [hour.input_tokens for hour in found.traffic.hours if hour.input_tokens] == [100, 200]
    assert len(found.traffic.hours) == 24


def test_what_others_answered_is_not_the_machines_work(state: Path):
    write(
        state,
        record(1, OCT_1_S - 100),
        record(2, OCT_1_S + HOUR_S, cost_usd="0.000000000001"),  # an own model may have a price too
        record(6, OCT_1_S + HOUR_S, endpoint="smol-ext-3", cost_usd="0.000000000001"),
        record(3, OCT_1_S + HOUR_S, endpoint="cloud", cost_usd="1.250000000000"),
        record(4, OCT_1_S + HOUR_S, endpoint="gpt-5", cost_usd="0.250000000000"),
        record(5, OCT_1_S + HOUR_S, endpoint="cloud", cost_usd=""),
    )
    found = review(state)
    assert found.traffic is not None
    assert found.traffic.tokens_per_month == pytest.approx(240 * 730 / 24)
    assert found.overflow is not None
    assert (found.overflow.tokens, found.overflow.usd) == (360, pytest.approx(1.5))
    assert (found.overflow.endpoints, found.overflow.cost_unknown) == (("cloud", "gpt-5"), 1)
    assert dict(found.tokens_by_endpoint) == {"cloud": 240, "smol-0": 120, "smol-ext-3": 120, "gpt-5": 120}
    line = found.traffic.assumed[-1]
    assert line.startswith("360 tokens of the period were answered by cloud, gpt-5 for 1.50 USD, and 1 req")


def test_where_others_answered_for_nothing_that_is_known(state: Path):
    write(state, record(1, OCT_1_S + 60, endpoint="cloud", cost_usd=""), record(2, OCT_1_S + 60))
    found = review(state).overflow
    assert found is not None
    assert found.usd is None
    assert "at an unknown cost: neither" in found.text


def test_a_stack_that_began_later_is_not_idle_before(state: Path):
    write(state, record(1, OCT_1_S + 20 * HOUR_S + 600), record(2, OCT_1_S + 23 * HOUR_S))
    found = review(state)
    assert found.hours == 4
    assert found.traffic is not None
    assert found.traffic.input_tokens_per_month == pytest.approx(200 * 730 / 4)


def test_a_month_that_is_not_over_ends_now(state: Path):
    write(state, record(1, OCT_1_S - 100), record(2, OCT_1_S + 600))
    found = review(state, now_s=OCT_1_S + 2 * HOUR_S)
    assert found.hours == 2
    assert found.traffic is not None
    assert found.traffic.input_tokens_per_month == pytest.approx(100 * 730 / 2)


def test_watts_and_incidents_stand_beside_it(state: Path, tmp_path: Path):
    write(state, record(1, OCT_1_S - 100), record(2, OCT_1_S + 600))
    watts, incidents = tmp_path / "watts.csv", tmp_path / "incidents.json"
    watts.write_text("time,watts\n" + "".join(f"{OCT_1_S + at},650\n" for at in range(0, 86_400, 240)))
    incidents.write_text(
        json.dumps([
            {"start": OCT_1_S - 7200, "end": OCT_1_S + 1800, "what": "reaches in"},
            {"start": OCT_1_S - 7200, "end": OCT_1_S - 3600, "what": "before"},
        ])
    )  # fmt: skip
    found = review(state, MeasuredFiles(watts=watts, incidents=incidents))
    assert found.problems == ()
    assert found.watts is not None
    assert (found.watts.mean_w, found.watts.covered_h, found.days) == (650, 24, 1)
    assert found.traffic is not None
    assert "Watts" not in " ".join(found.traffic.assumed)
    assert found.incidents is not None
    assert [each.what for each in found.incidents] == ["reaches in"]
    assert found.down_node_hours == 0.5


def test_all_problems_come_at_once(state: Path, tmp_path: Path):
    (state / JOURNAL_NAME).write_bytes(b"no database at all, but long enough to be looked at" * 10)
    bad = tmp_path / "bad"
    bad.write_text("[1]")
    found = review(state, MeasuredFiles(watts=tmp_path / "none", incidents=bad))
    assert [problem.where for problem in found.problems] == [str(state), str(tmp_path / "none"), f"{bad}[0]"]
    assert found.traffic is None
    assert found.incidents is None


def test_watts_of_a_part_of_the_time_are_said(state: Path, tmp_path: Path):
    write(state, record(1, OCT_1_S - 100), record(2, OCT_1_S + 600))
    watts = tmp_path / "watts.csv"
    watts.write_text("time,watts\n" + "".join(f"{OCT_1_S + at},650\n" for at in range(0, 43_200, 240)))
    found = review(state, MeasuredFiles(watts=watts))
    assert found.traffic is not None
    assert (
        found.traffic.assumed[-1]
        == "Watts were measured for 12 of 24 hours: the rest is assumed to be like them."
    )


# The command


def asked(capsys: pytest.CaptureFixture[str], state: Path, *more: str, code: int = 0) -> Any:
    machines = (
        "--gpu",
        "l4",
        "--gpu-usd",
        "3k",
        "--model",
        "llama-3.1-8b",
        "--staff-fte",
        "0.1",
        "--slo-itl",
        "100ms",
    )
    flags = ("--state-dir", str(state), "--since", "2026-10-01", "--until", "2026-10-09")
    assert main(["review", *flags, *machines, *more, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_the_next_command_plans_for_the_ledgers_traffic(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freehold.cli.review.wall_s", lambda: OCT_1_S + 30 * 24 * HOUR_S)
    write(state, *(record(seq, OCT_1_S + seq * HOUR_S) for seq in range(190)))
    words = shlex.split(asked(capsys, state)["next_command"])
    said = dict(zip(words[2::2], words[3::2], strict=True))
    assert words[:2] == ["freehold", "plan"]
    assert said["--usage"] == str(state / JOURNAL_NAME)
    assert (said["--gpu"], said["--model"], said["--staff-fte"]) == ("l4", "llama-3.1-8b", "0.1")
    assert main([*words[1:], "--draws", "1000", "--json"]) == 0


def test_a_period_that_ends_before_it_begins_is_a_problem(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = asked(capsys, state, "--until", "2026-09-01", "--gpu-usd", "3", code=2)
    assert [problem["where"] for problem in found["problems"]][:1] == ["--until"]
    assert "2026-09-01 is not after --since 2026-10-01" in found["problems"][0]["message"]
