"""The audit log on a real disk: whole lines whoever writes, a bound, and nothing of what a client claims about itself."""

import json
import os
import resource
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from freehold.fleet.control import audit
from freehold.fleet.control.peer import Peer, user_name

ME = Peer.myself()


def lines(logs: Path) -> list[dict[str, Any]]:
    files = sorted(logs.glob("audit.log*"), key=lambda path: -int(path.name.partition("log.")[2] or 0))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def test_a_line_says_who_what_when_and_from_where(tmp_path: Path) -> None:
    audit.append(tmp_path / "state" / "logs", "restart", peer=ME, detail={"name": "m-0", "op": "restart"})
    (line,) = lines(tmp_path / "state" / "logs")
    assert line["at"].startswith("20")
    assert (line["event"], line["name"]) == ("restart", "m-0")
    assert line["by"].endswith(user_name(os.geteuid()))
    assert line["origin"].startswith(f"pid {os.getpid()} (")
    for path, mode in (("state", 0o700), ("state/logs", 0o700), ("state/logs/audit.log", 0o600)):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == mode


def test_what_a_client_sends_neither_forges_a_field_nor_a_line(tmp_path: Path) -> None:
    forged = {
        "by": "root",
        "event": "key_revoked",
        "at": "1999",
        "reason": 'x\n{"by": "ann"}\x1b[2J',
        "mark": {},
    }
    audit.append(tmp_path, "set_healthy", peer=ME, detail=forged | {"name": "n" * 9999})
    (line,) = lines(tmp_path)
    assert (line["event"], line["by"]) == ("set_healthy", ME.who())
    assert not line["at"].startswith("1999")
    assert len(line["name"]) == audit.TEXT_CHARS_MAX
    assert b"\x1b" not in (tmp_path / "audit.log").read_bytes()


def test_many_writers_lose_and_tear_no_line_over_rotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "MAX_BYTES", 2000)
    monkeypatch.setattr(audit, "BACKUPS", 1000)

    def write(writer: int) -> None:
        for number in range(25):
            audit.append(tmp_path, "act", peer=ME, detail={"writer": writer, "number": number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(list(tmp_path.glob("audit.log.*"))) > 5
    found = [(line["writer"], line["number"]) for line in lines(tmp_path)]
    assert len(found) == 200
    for writer in range(8):
        assert [number for by, number in found if by == writer] == list(range(25))


def test_lines_are_only_appended(tmp_path: Path) -> None:
    before, inode = b"", 0
    for number in range(20):
        audit.append(tmp_path, "act", peer=ME, detail={"number": number})
        after = (tmp_path / audit.NAME).read_bytes()
        assert after.startswith(before)
        assert after.count(b"\n") == number + 1
        assert inode in {0, (tmp_path / audit.NAME).stat().st_ino}
        before, inode = after, (tmp_path / audit.NAME).stat().st_ino


def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_BYTES", 1000)
    monkeypatch.setattr(audit, "BACKUPS", 2)
    for number in range(60):
        audit.append(tmp_path, "act", peer=ME, detail={"number": number})
    assert len(list(tmp_path.iterdir())) == 3
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3000
    assert lines(tmp_path)[-1]["number"] == 59


def test_a_disk_that_fills_up_leaves_no_half_line(tmp_path: Path) -> None:
    script = f"""
import resource
from pathlib import Path
from freehold.fleet.control import audit
from freehold.fleet.control.peer import Peer
logs = Path({str(tmp_path)!r})
audit.append(logs, "first", peer=Peer.myself(), detail={{}})
size = (logs / "audit.log").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, {resource.RLIM_INFINITY}))
try:
    audit.append(logs, "second", peer=Peer.myself(), detail={{}})
except OSError as exc:
    print(exc.errno)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout, "the disk was not full"
    assert [line["event"] for line in lines(tmp_path)] == ["first"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_line_that_root_wrote_does_not_shut_out_the_stacks_own_user(tmp_path: Path) -> None:
    os.chown(tmp_path, 1, 1)
    audit.append(tmp_path, "key_created", peer=ME, detail={})
    assert (tmp_path / "audit.log").stat().st_uid == 1


def test_the_login_behind_another_user_is_named(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from freehold.fleet.control import audit
from freehold.fleet.control.peer import Peer
Path("/proc/self/loginuid").write_text("1")
audit.append(Path({str(tmp_path)!r}), "reload", peer=Peer.myself(), detail={{}})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if "loginuid" in done.stderr:
        pytest.skip("this kernel keeps no login, or this user has one")
    assert lines(tmp_path)[0]["by"] == f"{user_name(1)} as {user_name(os.geteuid())}"
