"""What a stack logs of the place where it runs."""

import json
from pathlib import Path

from freehold.ledger.spool import spool_folder
from freehold.stack.run import warn_of_disk
from freehold.telemetry.logs import configure


def said_of(state: Path, shm: Path) -> list[str]:
    log = state.with_suffix(".log")
    handle = configure(log)
    try:
        warn_of_disk(spool_folder(state, shm), state)
    finally:
        handle.close()
    return [json.loads(line)["event"] for line in log.read_text().splitlines()] if log.exists() else []


def test_a_spool_on_disk_is_warned_of(tmp_path: Path):
    shm = tmp_path / "shm"
    assert said_of(tmp_path / "without", shm) == ["spool_not_in_memory"]
    shm.mkdir()
    assert said_of(tmp_path / "with", shm) == []
