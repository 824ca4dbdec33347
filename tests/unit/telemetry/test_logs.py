import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from freehold.telemetry.logs import RECORD_BYTES_MAX, LogHandle, configure, get_logger
from freehold.telemetry.redact import clean
from waiting import wait_until

FAST_S = 1.0
"""Far above what a thousand records cost, far below any wait on a disk."""


@contextmanager
def logging_to(target: Path, **options: object) -> Iterator[LogHandle]:
    handle = configure(target, **options)
    try:
        yield handle
    finally:
        handle.close(0.2)


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def last_number_is(path: Path, number: int) -> bool:
    try:
        return path.read_text().endswith(f'"number":{number}}}\n')
    except FileNotFoundError:  # not yet, or between two files
        return False


def test_a_record_is_one_json_line_with_time_level_and_name(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.log"
    with logging_to(path) as handle:
        get_logger("fleet.run").info("replica ready", replica="m-0", seconds=2.1)
        get_logger("fleet.run").debug("too quiet to be written")
        assert handle.close(5)
    (record,) = records(path)
    assert record.pop("at").endswith("+00:00")
    assert record == {
        "level": "info", "logger": "fleet.run", "event": "replica ready", "replica": "m-0", "seconds": 2.1,
    }  # fmt: skip


def test_secrets_and_prompts_never_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with logging_to(path) as handle:
        get_logger("x").warning(
            "Bearer hunter2hunter2", api_key="hunter2", prompt="hunter2", deep={"token": "hunter2"}
        )
        assert handle.close(5)
    assert "hunter2" not in path.read_text()
    assert len(records(path)) == 1


@pytest.mark.parametrize("odd", ["a\ud800b", "sk-" + "x" * 30, "z" * 20_000, Path("p"), {1: b"\xff"}])
def test_odd_values_are_logged_in_some_form(tmp_path: Path, odd: object) -> None:
    path = tmp_path / "a.log"
    with logging_to(path) as handle:
        get_logger("x").info("odd", value=odd)
        assert handle.close(5)
    (record,) = records(path)
    assert record["value"] == msgspec.json.decode(msgspec.json.encode(clean(odd)))


def test_an_exception_is_logged_with_its_chain(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with logging_to(path) as handle:
        try:
            int("seen")
        except ValueError:
            get_logger("x").exception("guard")
        assert handle.close(5)
    (record,) = records(path)
    assert record["level"] == "error"
    assert "ValueError: invalid literal" in str(record["exception"])


def test_libraries_that_use_logging_take_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with logging_to(path) as handle:
        logging.getLogger("asyncio").error("task %s was destroyed", "T")
        logging.getLogger("httpx2").info("every request")
        assert handle.close(5)
    (record,) = records(path)
    assert (record["logger"], record["event"]) == ("asyncio", "task T was destroyed")


def test_a_huge_record_is_cut_to_its_head(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with logging_to(path) as handle:
        get_logger("x").info("huge", **{f"f{n}": "y" * 8000 for n in range(20)})
        assert handle.close(5)
    (record,) = records(path)
    assert record["event"] == "huge"
    assert record["cut_from_bytes"] > RECORD_BYTES_MAX


def test_the_file_rotates_and_no_record_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with logging_to(path, max_bytes=2000, backups=2) as handle:
        for number in range(60):
            get_logger("x").info("n", number=number)
            wait_until(partial(last_number_is, path, number), timeout_s=1)
        assert handle.close(5)
        assert handle.dropped_total == 0
    files = [tmp_path / name for name in ("a.log.2", "a.log.1", "a.log")]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(file.stat().st_size <= 2000 for file in files)
    numbers = [record["number"] for file in files for record in records(file)]
    assert numbers == list(range(numbers[0], 60))


def test_without_backups_the_file_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with logging_to(path, max_bytes=300, backups=0) as handle:
        for number in range(9):
            get_logger("x").info("n", number=number)
            wait_until(partial(last_number_is, path, number), timeout_s=1)
        assert handle.close(5)
    assert records(path)[-1]["number"] == 8
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_size <= 300


def test_a_pipe_that_nobody_opens_blocks_no_caller_and_every_loss_is_counted(tmp_path: Path) -> None:
    fifo = tmp_path / "hung"
    os.mkfifo(fifo)
    with logging_to(fifo, queue_records=100) as handle:
        started_s = time.monotonic()
        for number in range(1000):
            get_logger("x").info("n", number=number)
        assert not handle.close(0.05)
        assert time.monotonic() - started_s < FAST_S
        assert handle.dropped_total == 1000
        os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))  # lets the thread's open() return, so it can end


def test_a_reader_that_stops_costs_records_but_no_time_and_the_gap_is_written_down(tmp_path: Path) -> None:
    fifo = tmp_path / "slow"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with logging_to(fifo, queue_records=200) as handle:
        started_s = time.monotonic()
        for number in range(3000):
            get_logger("x").info("n", number=number, filler="z" * 100)
        assert time.monotonic() - started_s < FAST_S
        lost = handle.dropped_total
        assert lost > 0
        text = bytearray()
        drain = threading.Thread(target=_read_to_the_end, args=(reader, text))
        drain.start()
        wait_until(lambda: text.count(b'"event":"n"') == 3000 - lost, timeout_s=1)
        get_logger("x").info("last")
        assert handle.close(1)
        drain.join(1)
    got = [json.loads(line) for line in text.splitlines()]
    assert got[-1]["event"] == "last"
    notes = [record["count"] for record in got if record["event"] == "log records dropped"]
    assert sum(notes) == lost == handle.dropped_total
    assert sum(record["event"] == "n" for record in got) + lost == 3000


def _read_to_the_end(reader: int, text: bytearray) -> None:
    os.set_blocking(reader, True)
    while part := os.read(reader, 65536):
        text.extend(part)
    os.close(reader)


def test_a_full_disk_blocks_no_caller_and_every_loss_is_counted() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, logging_to(full) as handle:
        for number in range(50):
            get_logger("x").info("n", number=number)
        handle.close(5)
        assert handle.dropped_total == 50
        assert "No space left" in handle.last_error


def test_a_target_that_cannot_be_opened_is_counted_and_tried_again(tmp_path: Path) -> None:
    parent = tmp_path / "not-a-folder"
    parent.write_text("")
    with logging_to(parent / "a.log") as handle:
        get_logger("x").info("lost")
        wait_until(lambda: handle.dropped_total == 1, timeout_s=1)
        parent.unlink()
        get_logger("x").info("kept")
        assert handle.close(5)
    assert [record["event"] for record in records(parent / "a.log")] == ["log records dropped", "kept"]


def test_after_close_records_are_dropped_and_counted(tmp_path: Path) -> None:
    with logging_to(tmp_path / "a.log") as handle:
        assert handle.close(5)
        get_logger("x").info("too late")
        assert handle.dropped_total == 1


def test_before_configure_nothing_is_written(capfd: pytest.CaptureFixture[str]) -> None:
    get_logger("x").error("nobody asked for logs")
    assert capfd.readouterr() == ("", "")
