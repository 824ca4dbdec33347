"""The kernel's log as this machine has it, and as dmesg prints it."""

import contextlib
import errno
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.core.clock import SYSTEM_CLOCK, wall_s
from freehold.health.collectors import kernel_log
from freehold.health.collectors.kernel_log import KernelLog, parse_log_file
from freehold.health.kernel_log.events import Kind, read_events
from freehold.health.model.view import State

KMSG = Path("/dev/kmsg")
XID = "NVRM: Xid (PCI:0000:fe:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
DMESG_FORMS = {
    "plain": [],
    "dates": ["-T"],
    "decoded": ["-x"],
    "raw": ["-r"],
    "iso": ["--time-format", "iso"],
    "relative": ["-e"],
}


class HourLater:
    """The machine's clocks in an hour: the kernel's own clock, which stamps records, may be milliseconds ahead of ours."""

    def wall_s(self) -> float:
        return SYSTEM_CLOCK.wall_s() + 3600

    def monotonic_s(self) -> float:
        return SYSTEM_CLOCK.monotonic_s() + 3600


def write_kmsg(*texts: str) -> None:
    """Write one record each; the kernel takes ten in five seconds from one opening and drops the rest."""
    for text in texts:
        try:
            file = os.open(KMSG, os.O_WRONLY)
        except OSError as error:
            pytest.skip(f"cannot write {KMSG}: {error}")
        with contextlib.closing(os.fdopen(file, "wb", buffering=0)) as out:
            out.write(f"<4>{text}\n".encode())


def opened(**settings: object) -> KernelLog:
    log = KernelLog(**settings)  # type: ignore[arg-type]
    state = log.read()
    if state.state is not State.OK:
        pytest.skip(f"cannot read {KMSG}: {state.detail}")
    return log


@pytest.fixture
def trusting() -> Iterator[KernelLog]:
    log = opened(trust_user_lines=True)
    yield log
    log.close()


def test_what_user_space_writes_is_read_past() -> None:
    log = opened()
    write_kmsg(XID)
    assert not [line for line in log.read().lines if "0000:fe:00" in line.text]
    log.close()


def test_the_test_switch_believes_it_with_its_time(trusting: KernelLog) -> None:
    write_kmsg(XID, "one more\\of ours: \x01é")
    lines = [line for line in trusting.read().lines if "fe:00" in line.text or "one more" in line.text]
    (event,) = read_events(lines)
    assert (event.kind, event.number, event.device) == (Kind.XID, 79, "0000:fe:00")
    assert abs(event.at_s - wall_s()) < 5
    assert lines[0].level == 4
    assert lines[1].text == "one more\\of ours: \x01é"
    assert lines[1].sequence > lines[0].sequence


def test_a_driver_s_record_in_three_writes_is_one_event(trusting: KernelLog) -> None:
    write_kmsg(
        "NVRM: The NVIDIA GPU 0000:fd:00.0",
        "NVRM: (PCI ID: 10de:26b5) installed in this system has",
        "NVRM: fallen off the bus and is not responding to commands.",
    )
    events = read_events(trusting.read().lines)
    assert [(event.kind, event.device) for event in events] == [(Kind.OFF_BUS, "0000:fd:00")]


def test_it_starts_at_the_end_or_looks_back(trusting: KernelLog) -> None:
    write_kmsg("something before ours")
    late = KernelLog(trust_user_lines=True)
    assert "something before ours" not in [line.text for line in late.read().lines]
    back = KernelLog(trust_user_lines=True, lookback_s=300)
    assert "something before ours" in [line.text for line in back.read().lines]
    assert back.read().lines == ()
    an_hour_later = KernelLog(clock=HourLater(), trust_user_lines=True, lookback_s=300)
    assert "something before ours" not in [line.text for line in an_hour_later.read().lines]


def test_a_missing_device_is_absent_and_a_forbidden_one_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert KernelLog(path=tmp_path / "none").read().state is State.ABSENT

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    log = KernelLog()
    monkeypatch.setattr(kernel_log.os, "open", refuse)
    answer = log.read()
    monkeypatch.undo()
    assert (answer.state, answer.lines) == (State.DENIED, ())
    assert "not permitted" in answer.detail


class Device:
    """Answers to reading one file, in turn: records, or the error of a number."""

    def __init__(self, path: Path, answers: list[bytes | int]) -> None:
        self.answers = answers
        self.read_really = os.read
        path.touch()
        self.path = path

    def read(self, file: int, size: int) -> bytes:
        if Path(f"/proc/self/fd/{file}").resolve() != self.path:
            return self.read_really(file, size)
        answer = self.answers.pop(0) if self.answers else errno.EAGAIN
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        return answer


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    found = Device(tmp_path.resolve() / "kmsg", [])
    monkeypatch.setattr(kernel_log.os, "read", found.read)
    return found


def test_overwritten_records_are_counted(device: Device) -> None:
    log = KernelLog(path=device.path)
    device.answers = [b"6,10,1000000,-;a\n", b"6,11,1000001,-;b\n", errno.EPIPE, b"6,20,1000009,-;c\n"]
    first = log.read()
    assert ([line.text for line in first.lines], first.lost) == (["a", "b", "c"], 8)
    device.answers = [b"6,21,1000010,-;d\n"]
    assert log.read().lost == 0
    device.answers = [b"6,25,1000011,-;e\n"]
    assert log.read().lost == 3
    fresh = KernelLog(path=device.path)
    device.answers = [errno.EPIPE, b"6,40,1000012,-;f\n"]
    assert fresh.read().lost == 1


def test_records_of_programs_count_in_the_sequence_but_are_not_kept(device: Device) -> None:
    device.answers = [b"6,1,1,-;kernel\n", b"14,2,2,-;program\n", b"30,3,3,-;daemon\n", b"4,4,4,-;kernel\n"]
    answer = KernelLog(path=device.path).read()
    assert ([line.sequence for line in answer.lines], answer.lost) == ([1, 4], 0)


def test_fragments_join_and_escapes_and_dictionaries_go(device: Device) -> None:
    device.answers = [
        b"6,1,1,c;one \n SUBSYSTEM=pci\n",
        b"6,2,2,+;two\\x0athree \\x5c\\xc3\\xa9\n",
        b"rubbish\n",
        b"6,3,3,-,caller=T1;four\n",
    ]
    answer = KernelLog(path=device.path).read()
    assert [line.text for line in answer.lines] == ["one two\nthree \\é", "four"]


def test_a_device_that_breaks_is_unknown_and_tried_again(device: Device) -> None:
    log = KernelLog(path=device.path)
    device.answers = [errno.EIO]
    assert log.read().state is State.UNKNOWN
    device.answers = [b"6,1,1,-;back\n"]
    assert [line.text for line in log.read().lines] == ["back"]


def test_in_a_flood_what_tells_something_is_kept(device: Device) -> None:
    xid = f"6,%d,%d,-;{XID}\n"
    records = [b"6,%d,%d,-;audit: nothing\n" % (n, n) for n in range(3 * kernel_log.LINES_MOST)]
    records[5] = (xid % (5, 5)).encode()
    device.answers = list(records)
    answer = KernelLog(path=device.path).read()
    assert len(answer.lines) == kernel_log.LINES_MOST
    assert answer.lines[0].text == XID
    assert answer.lines[-1].sequence == len(records) - 1
    assert answer.detail == f"{2 * kernel_log.LINES_MOST} lines that are not events left out"


@pytest.mark.parametrize("form", DMESG_FORMS)
def test_dmesg_of_this_machine_is_read_in_every_form(form: str) -> None:
    program = shutil.which("dmesg")
    if not program:
        pytest.skip("no dmesg here")
    run = [
        subprocess.run([program, *options], capture_output=True, text=True, timeout=20, check=False)
        for options in ([], DMESG_FORMS[form])
    ]
    if any(each.returncode for each in run):
        pytest.skip(f"dmesg does not work here: {run[-1].stderr.strip()}")
    (plain, _), (lines, bad) = (parse_log_file(each.stdout, now_s=wall_s()) for each in run)
    assert bad == []
    assert len(lines) > 20
    shared = min(len(plain), len(lines))
    assert [line.text for line in plain[:shared]] == [line.text for line in lines[:shared]]
    assert all(before.at_s <= after.at_s + 1 for before, after in itertools.pairwise(lines))
