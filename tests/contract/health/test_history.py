"""The history's file with two processes at it, as an agent and an operator's command may be."""

import subprocess
import sys
from pathlib import Path

from freehold.health.agent.history_file import HistoryFile
from freehold.health.evidence.kernel_signs import PastFault
from freehold.health.incidents.history import MOST, history_lines

EACH = 12


def past(at_s: float) -> PastFault:
    return PastFault(at_s=at_s, subject="gpu:1", signature="xid 119")


def test_two_processes_write_one_file_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(
        history_lines(past(float(n)) for n in range(MOST - 5))
    )  # so that it is written anew meanwhile
    code = (
        "import sys; from pathlib import Path; from freehold.health.incidents.history import Mark; from freehold.health.agent.history_file import HistoryFile\n"
        f"for n in range({EACH}): HistoryFile(Path(sys.argv[1])).mark(Mark(set_healthy_s=float(n), by='other'))"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as other:
        for n in range(EACH):
            HistoryFile(path).add([past(1e6 + n)], now_s=1e6 + n)
        assert other.wait(timeout=50) == 0
    found = HistoryFile(path).load()
    assert len(found.marks) == EACH
    assert len([one for one in found.past if one.at_s >= 1e6]) == EACH
