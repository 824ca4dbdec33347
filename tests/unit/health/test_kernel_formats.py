"""Saved kernel logs in every form that people have them in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.health.kernel_log.events import Kind, read_events
from freehold.health.kernel_log.formats import PROBLEMS_MOST, parse_log_file, parse_record

XID = "NVRM: Xid (PCI:0000:9b:00): 48, pid=7, name=python3, DBE (double bit error)"
AT_S = 1739509421.0  # 2025-02-14 05:03:41 UTC
NOW_S = AT_S + 86_400 * 30

FORMS = [
    (f"[  123.456789] {XID}", 123.456789),
    (f"[123.456789] {XID}", 123.456789),
    (f"[    0.456789][  T123] {XID}", 0.456789),
    (f"kern  :err   : [  123.456789] {XID}", 123.456789),
    (f"<3>[  123.456789] {XID}", 123.456789),
    (f"[Fri Feb 14 05:03:41 2025] {XID}", AT_S),
    (f"kern  :err   : [Fri Feb 14 05:03:41 2025] {XID}", AT_S),
    (f"2025-02-14T05:03:41,250000+00:00 {XID}", AT_S + 0.25),
    (f"2025-02-14T06:03:41,250000+01:00 {XID}", AT_S + 0.25),
    (f"Feb 14 05:03:41 gpu-1 kernel: {XID}", AT_S),
    (f"Feb 14 05:03:41.250000 gpu-1 kernel: {XID}", AT_S + 0.25),
    (f"Feb 14 05:03:41 gpu-1 kernel: [12345.678901] {XID}", AT_S),
    (f"2025-02-14T05:03:41+0000 gpu-1 kernel: {XID}", AT_S),
    (f"2025-02-14T05:03:41+00:00 gpu-1.example.com kernel: {XID}", AT_S),
    (f"2025-02-14T05:03:41.250000+00:00 gpu-1 kernel: [12345.678901] {XID}", AT_S + 0.25),
    (f"2025-02-14T05:03:41Z gpu-1 kernel: {XID}", AT_S),
    (f"Fri 2025-02-14 05:03:41 UTC gpu-1 kernel: {XID}", AT_S),
    (f"1739509421.250000 gpu-1 kernel: {XID}", AT_S + 0.25),
    (f"[  123.456789] gpu-1 kernel: {XID}", 123.456789),
    (f"10.0.0.7: kern: warning: [2025-02-14T05:03:41.250000000Z]: {XID}", AT_S + 0.25),
    (f"kern: err: [2025-02-14T05:03:41Z]: {XID}", AT_S),
    (f"3,379,123456789,-;{XID}", 123.456789),
    (f"3,379,123456789,-,caller=T12;{XID}", 123.456789),
    (XID, 0.0),
]


@pytest.mark.parametrize(("line", "at_s"), FORMS)
def test_every_form_gives_the_same_line(line: str, at_s: float) -> None:
    (read,), bad = parse_log_file(line + "\n", now_s=NOW_S)
    assert (bad, read.text, read.facility, read.sequence) == ([], XID, 0, 1)
    assert read.at_s == pytest.approx(at_s)
    (event,) = read_events([read])
    assert (event.kind, event.number) == (Kind.XID, 48)


@pytest.mark.parametrize(
    "line",
    [
        f"user  :notice: [  123.456789] {XID}",
        f"10.0.0.7: user: warning: [2025-02-14T05:03:41.25Z]: {XID}",
        f"<12>[  123.456789] {XID}",
        f"12,379,123456789,-;{XID}",
        f"Feb 14 05:03:41 gpu-1 root[77]: {XID}",
        f"Feb 14 05:03:41 gpu-1 nvidia-persistenced: {XID}",
        f"2025-02-14T05:03:41+0000 gpu-1 containerd[9]: {XID}",
        f"1739509421.250000 gpu-1 my-job: {XID}",
    ],
)
def test_a_program_s_line_is_never_the_kernel_s(line: str) -> None:
    (read,), bad = parse_log_file(line, now_s=NOW_S)
    assert bad == []
    assert read.facility
    assert read_events([read]) == []


def test_times_since_boot_become_unix_seconds_where_boot_is_known() -> None:
    (read,), _ = parse_log_file(f"[  100.000000] {XID}", boot_at_s=AT_S)
    assert read.at_s == AT_S + 100


def test_a_date_without_a_year_is_the_last_such_date() -> None:
    assert parse_log_file(f"Dec 31 23:59:59 h kernel: {XID}", now_s=AT_S)[0][0].at_s < AT_S
    assert parse_log_file(f"Feb 14 05:03:41 h kernel: {XID}", now_s=AT_S)[0][0].at_s == AT_S
    assert parse_log_file(f"Jan  1 00:00:10 h kernel: {XID}")[0][0].at_s == 10


def test_relative_times_add_up() -> None:
    text = "[Feb14 05:03] one\n[  +1.500000] two\n[  -0.500000] three\n[Feb 14 05:04] four\n"
    lines, bad = parse_log_file(text, now_s=NOW_S)
    minute_s = AT_S - 41
    assert bad == []
    assert [line.at_s for line in lines] == [minute_s, minute_s + 1.5, minute_s + 1.0, minute_s + 60]


def test_indented_lines_go_on_and_journal_headers_say_nothing() -> None:
    text = (
        "-- Logs begin at Thu 2025-02-13. --\n-- Boot 0123456789abcdef --\n\n"
        "[ 1843.308145] NVRM: The NVIDIA GPU 0000:b3:00.0\r\n"
        "               NVRM: (PCI ID: 10de:26b5) installed in this system has\n"
        "               NVRM: fallen off the bus and is not responding to commands.\n"
        "6,379,123456789,-;pci 0000:b3:00.0: hello\n SUBSYSTEM=pci\n DEVICE=+pci:0000:b3:00.0\n"
    )
    lines, bad = parse_log_file(text)
    assert bad == []
    assert [line.text.count("\n") for line in lines] == [2, 0]
    assert [(event.kind, event.device) for event in read_events(lines)] == [(Kind.OFF_BUS, "0000:b3:00")]


def test_bare_lines_take_the_time_before_and_others_are_problems() -> None:
    text = f"[  10.000000] hello\n{XID}\nno kernel line at all\nNVRM: and this?\n"
    lines, bad = parse_log_file(text, name="saved.log")
    assert [line.at_s for line in lines] == [10.0, 10.0, 10.0]
    assert [str(problem.where) for problem in bad] == ["saved.log:3:1"]


def test_a_file_of_something_else_gives_a_few_problems_and_a_count() -> None:
    lines, bad = parse_log_file("{}\n" * 1000, name="x.json")
    assert lines == []
    assert len(bad) == PROBLEMS_MOST + 1
    assert bad[-1].message == f"{1000 - PROBLEMS_MOST} more lines are not kernel lines"


PIECES = [line for line, _ in FORMS] + ["-- Boot --", "", "   more", "[Feb14 05:03] x", "[  +1.5] y"]


@st.composite
def spoilt(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(PIECES))
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.text(max_size=8)) + text[at + draw(st.integers(0, 8)) :]


@given(st.lists(st.one_of(st.text(max_size=120), spoilt()), max_size=8), st.sampled_from([0.0, NOW_S]))
def test_no_text_raises(texts: list[str], now_s: float) -> None:
    lines, _ = parse_log_file("\n".join(texts), now_s=now_s)
    read_events(lines)


@given(st.one_of(st.binary(max_size=120), st.binary(max_size=60).map(lambda tail: b"6,1,2,-;" + tail)))
def test_no_bytes_raise(data: bytes) -> None:
    record = parse_record(data)
    assert record is None or record.facility >= 0
