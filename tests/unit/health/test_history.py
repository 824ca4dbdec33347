"""What was diagnosed before: kept in a file that may be cut anywhere, ended by an operator's hand."""

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.health.agent.history_file import HistoryFile
from freehold.health.evidence.kernel_signs import PastFault
from freehold.health.incidents.history import (
    KEEP_S,
    MOST,
    History,
    Mark,
    history_lines,
    latest_revisions,
    read_history,
    since,
    still_kept,
)


def past(
    at_s: float, subject: str = "gpu:0", signature: str = "xid 119", action: str = "reboot"
) -> PastFault:
    return PastFault(at_s=at_s, subject=subject, signature=signature, action=action)


PASTS = st.lists(
    st.builds(past, st.integers(0, 10**9).map(float), st.text(alphabet='ag:0é\n"\\', max_size=8)), max_size=5
)


@given(PASTS, st.integers(0, 10_000))
def test_a_torn_file_loses_only_the_torn_line(pasts: list[PastFault], cut: int) -> None:
    lines = [history_lines([one]) for one in pasts]
    text = "".join(lines)
    torn = text[: min(cut, len(text))]
    whole = 0
    while whole < len(lines) and len("".join(lines[: whole + 1])) <= len(torn) + 1:
        whole += 1
    assert list(read_history(torn).past) == sorted(pasts[:whole], key=lambda one: one.at_s)


@given(st.text(alphabet='{}[]":,0a\n\r\x00é\ud800', max_size=80))
def test_any_text_is_read(text: str) -> None:
    read_history(text)


def test_a_keeper_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    keeper = HistoryFile(tmp_path / "state" / "history.jsonl")
    assert keeper.load() == History()
    keeper.add([past(1)], now_s=1)
    with keeper.path.open("ab") as file:
        file.write(b'{"at_s": 2.0, "subj')
    keeper.add([past(3)], now_s=3)
    assert [one.at_s for one in HistoryFile(keeper.path).load().past] == [1, 3]


def test_a_file_that_grew_is_cut_to_what_counts(tmp_path: Path) -> None:
    keeper = HistoryFile(tmp_path / "history.jsonl")
    keeper.path.write_text(history_lines([past(float(i)) for i in range(MOST)]))
    keeper.add([past(KEEP_S + 10)], now_s=KEEP_S + 10)
    left = keeper.load().past
    assert len(left) <= MOST
    assert left[-1].at_s == KEEP_S + 10
    assert left[0].at_s >= 10


def test_old_entries_are_not_kept() -> None:
    assert [
        one.at_s
        for one in still_kept(History(past=(past(0), past(KEEP_S + 5))), now_s=KEEP_S + 6)
        if isinstance(one, PastFault)
    ] == [KEEP_S + 5]


def test_set_healthy_ends_what_was_before_for_that_subject_only() -> None:
    pasts = [past(1), past(1, subject="gpu:1"), past(9)]
    assert since(pasts, boundaries={"gpu:0": 5}) == [pasts[1], pasts[2]]
    assert since(pasts, boundaries={"": 5}) == [pasts[2]]


def test_of_an_incident_only_the_last_word_counts_once() -> None:
    first = PastFault(at_s=5.0, subject="gpu:1", signature="ambiguous", incident="a", revision=1)
    better = [
        PastFault(at_s=5.0, subject="gpu:1", signature=name, incident="a", revision=2)
        for name in ("gsp", "xid 119")
    ]
    other = PastFault(at_s=7.0, subject="gpu:1", signature="gsp", incident="b", revision=1)
    assert latest_revisions([first, *better, other, *better]) == [*better, other]
    assert latest_revisions([past(1), past(1)]) == [past(1), past(1)]  # nobody said that they are one


def test_a_mark_stands_among_the_diagnoses_and_outlives_a_rewrite(tmp_path: Path) -> None:
    keeper = HistoryFile(tmp_path / "history.jsonl")
    keeper.path.write_text(history_lines([past(float(i)) for i in range(MOST)]))
    mark = Mark(set_healthy_s=10.0, subject="gpu:0", component="gpu:GPU-1", by="ann", reason="new riser")
    keeper.mark(mark)
    keeper.add([past(MOST + 10.0), past(MOST + 11.0)], now_s=MOST + 11.0)
    found = keeper.load()
    assert found.marks == (mark,)
    assert len(found.past) == MOST
    assert min(one.at_s for one in since(latest_revisions(found.past), boundaries=found.boundaries())) > 10.0
    keeper.mark(Mark(set_healthy_s=MOST + 10.5))
    found = keeper.load()
    counted = since(latest_revisions(found.past), boundaries=found.boundaries())
    assert [one.at_s for one in counted] == [MOST + 11.0]


def test_a_disk_that_takes_half_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = HistoryFile(tmp_path / "history.jsonl")
    keeper.add([past(1)], now_s=1)
    before = keeper.path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("freehold.health.agent.history_file.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        keeper.add([past(2)], now_s=2)
    monkeypatch.undo()
    assert keeper.path.read_bytes() == before
    keeper.add([past(2)], now_s=2)
    assert [one.at_s for one in keeper.load().past] == [1, 2]


@given(st.text(alphabet='{}[]":,0a\n\r\x00é\ud800', max_size=80))
def test_any_text_is_a_history(text: str) -> None:
    read_history(text)
