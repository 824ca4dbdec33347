"""What the disk reading child's lines mean, and what the reader makes of what is usual."""

from freehold.health.collectors.disk_process import DiskReport, Space, take
from freehold.health.collectors.disks import FIRST_READS, MINUTE_READS, UsualReadTime
from freehold.health.model.view import State


def report(*lines: str) -> DiskReport:
    found = DiskReport(began_s=1.0)
    for line in lines:
        take(found, line)
    return found


def test_a_read_that_ended_is_none_that_waits() -> None:
    found = report("at 254 0 /models", "s 10.5", "r 0.000300", "s 11.5", "r 0.1")
    assert (found.reads_s, found.began_s) == ([0.0003, 0.1], None)
    assert found.place == (254, 0, "/models")


def test_a_read_that_did_not_end_waits_since_its_begin() -> None:
    assert report("s 10.5", "r 0.0003", "s 11.5").began_s == 11.5


def test_a_child_that_said_nothing_waits_since_its_start() -> None:
    assert report("at 254 0 /models").began_s == 1.0


def test_a_failed_read_has_its_errno_and_does_not_wait() -> None:
    found = report("s 10.5", "e EIO 0.2")
    assert (found.errors, found.reads_s, found.began_s) == (["EIO"], [], None)


def test_writes_are_kept_apart_from_reads() -> None:
    found = report("s 10.5", "S 10.6", "r 0.0003", "w 0.002", "S 20.6", "x ENOSPC 0.1", "S 30.6")
    assert (found.reads_s, found.began_s, found.writes_s) == ([0.0003], None, [0.002])
    assert (found.write_error, found.write_began_s) == ("ENOSPC", 30.6)
    take(found, "w 0.003")
    assert (found.write_error, found.write_began_s) == ("", None)


def test_a_path_may_hold_spaces() -> None:
    assert report("at 254 0 /my models/a  b").place == (254, 0, "/my models/a  b")


def test_space_and_refusal() -> None:
    found = report("space 100 40 10 4", "no EINVAL Invalid argument")
    assert found.space == Space(total_bytes=100, free_bytes=40, total_inodes=10, free_inodes=4)
    assert (found.refused, found.began_s) == ("EINVAL Invalid argument", None)


def test_lines_that_are_none_of_ours_change_nothing() -> None:
    assert report("", "x", "r", "r abc", "at 1", "space 1 2", "new 1 2 3", "s") == DiskReport(began_s=1.0)


def test_while_the_file_is_made_the_clock_starts_anew() -> None:
    found = report("make")
    assert found.making
    assert found.began_s is not None
    assert found.began_s > 1.0
    take(found, "s 10.5")
    assert not found.making


def test_usual_is_not_known_before_thirty_reads() -> None:
    usual = UsualReadTime()
    usual.add([0.001] * (FIRST_READS - 1))
    assert usual.reading().state is State.TRANSIENT
    usual.add([0.001])
    assert usual.reading().value == 0.001


def test_usual_is_the_best_minute_so_a_disk_that_becomes_slow_does_not_raise_it() -> None:
    usual = UsualReadTime()
    usual.add([0.001] * FIRST_READS)
    usual.add([0.08] * MINUTE_READS * 100)
    assert usual.reading().value == 0.001


def test_usual_forgets_after_a_day() -> None:
    usual = UsualReadTime()
    usual.add([0.001] * FIRST_READS)
    usual.add([0.08] * MINUTE_READS * 1440)
    assert usual.reading().value == 0.08
