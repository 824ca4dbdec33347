"""`freehold ca` as a person and a script meet it: a real process, its streams, its exit codes, its folder and its lines in the audit log."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from freehold.core.clock import SYSTEM_CLOCK, wall_s
from freehold.stack.ca.ca_folder import BUNDLE, DAY_S, NODE_DAYS, CaFolder

Freehold = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FREEHOLD_")}
    folders = {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "FREEHOLD_STATE_DIR": str(tmp_path / "state")}

    def start(*arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "freehold", *arguments],
            cwd=tmp_path,
            env=clean | folders,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def freehold(start: Start) -> Freehold:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        process = start("ca", *arguments)
        out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "xdg" / "freehold" / "example" / "ca"


def test_from_nothing_to_a_nodes_file(freehold: Freehold, folder: Path):
    assert "Next: freehold ca init" in freehold("show").stdout
    none = freehold("issue", "gpu-1")
    assert (none.returncode, "freehold ca init makes one" in none.stderr) == (1, True)
    assert str(folder / "ca-1.pem") in freehold("init").stdout
    again = freehold("init")
    assert (again.returncode, "freehold ca init --beside" in again.stderr) == (1, True)
    assert not list(folder.glob("nodes/*"))
    issued = freehold("issue", "gpu-1", "--host", "10.0.0.1", "--host", "::1")
    assert (
        f"{folder / 'nodes' / 'gpu-1.pem'} holds the key and certificate of gpu-1, 10.0.0.1, ::1"
        in issued.stdout
    )
    assert "PRIVATE KEY" not in issued.stdout + issued.stderr
    shown = freehold("show")
    assert shown.returncode == 0
    assert [name in shown.stdout for name in ("gpu-1", "30 d 0 h", "do:")] == [True, True, False]


def test_a_file_made_again_after_damage_names_the_hosts_it_lost(freehold: Freehold, folder: Path):
    freehold("init")
    assert "no other name" not in freehold("issue", "gateway", "--host", "llm.lan").stdout
    path = folder / "nodes" / "gateway.pem"
    path.write_text("half a file")
    assert "a node's new file needs each --host again" in freehold("issue", "gateway").stderr
    path.unlink()
    again = freehold("issue", "gateway").stdout
    assert "of gateway, good until" in again
    assert "It has no other name: freehold ca issue gateway --host HOST adds one." in again


def test_a_script_gets_json(freehold: Freehold, folder: Path):
    made = json.loads(freehold("init", "--json").stdout)
    issued = json.loads(freehold("issue", "gpu-1", "--json").stdout)
    assert issued["path"] == str(folder / "nodes" / "gpu-1.pem")
    assert (issued["hosts"], issued["is_due"], issued["signed_by"]) == (["gpu-1"], False, made["name"])
    assert 0 <= wall_s() + NODE_DAYS * DAY_S - issued["ends_s"] < 30
    shown = json.loads(freehold("show", "--json").stdout)
    assert shown == {"path": str(folder), "authorities": [made], "nodes": [issued]}


def test_every_mistake_is_reported_at_once_and_nothing_is_written(freehold: Freehold, folder: Path):
    freehold("init")
    wrong = freehold(
        "issue", "../gpu", "--host", "a b", "--host", "10.0.0.1", "--host", "fe80::1%eth0", "--json"
    )
    assert wrong.returncode == 2
    problems = json.loads(wrong.stdout)["problems"]
    assert [problem["where"] for problem in problems] == ["NAME", "--host", "--host"]
    assert not list(folder.glob("nodes/*"))


class Ago:
    """The machine's clock, some days ago."""

    def __init__(self, days: float) -> None:
        self._s = days * DAY_S
        self.monotonic_s = SYSTEM_CLOCK.monotonic_s

    def wall_s(self) -> float:
        return wall_s() - self._s


@pytest.mark.parametrize(("days", "left"), [(NODE_DAYS - 9, "9 d 0 h"), (NODE_DAYS + 1, "expired")])
def test_what_has_to_be_renewed_is_exit_code_3(freehold: Freehold, folder: Path, days: float, left: str):
    before = CaFolder(folder, Ago(days))
    before.init()
    before.issue("gpu-1")
    shown = freehold("show")
    assert shown.returncode == 3
    assert left in shown.stdout
    assert "do: freehold ca issue gpu-1" in shown.stdout
    assert freehold("issue", "gpu-1").returncode == 0
    assert freehold("show").returncode == 0


def test_an_old_ca_is_replaced_and_then_needs_nothing(freehold: Freehold, folder: Path):
    CaFolder(folder, Ago(9 * 365)).init()
    shown = freehold("show")
    assert (shown.returncode, "do: freehold ca init --beside" in shown.stdout) == (3, True)
    assert freehold("init", "--beside").returncode == 0
    shown = freehold("show")
    assert (shown.returncode, "do:" in shown.stdout, "ca-1.pem" in shown.stdout) == (0, False, True)


def test_of_many_at_once_one_makes_the_ca(start: Start, freehold: Freehold, folder: Path):
    processes = [start("ca", "init") for _ in range(4)]
    for process in processes:
        process.communicate(timeout=30)
    assert sorted(process.returncode for process in processes) == [0, 1, 1, 1]
    names = [f"gpu-{number}" for number in range(4)]
    processes = [start("ca", "issue", name) for name in names]
    for process in processes:
        process.communicate(timeout=30)
    shown = json.loads(freehold("show", "--json").stdout)
    assert [each["name"] for each in shown["nodes"]] == names
    assert (folder / BUNDLE).read_bytes().count(b"BEGIN CERTIFICATE") == 1


def test_each_act_is_in_the_audit_log(freehold: Freehold, tmp_path: Path):
    freehold("init")
    freehold("issue", "gpu-1", "--host", "10.0.0.1")
    freehold("issue", "bad name")
    freehold("init")
    freehold("show")
    lines = [
        json.loads(line) for line in (tmp_path / "state" / "logs" / "audit.log").read_text().splitlines()
    ]
    assert [line["event"] for line in lines] == ["ca_created", "certificate_issued"]
    assert (lines[1]["name"], lines[1]["hosts"]) == ("gpu-1", "gpu-1, 10.0.0.1")
    assert all(line["by"] and line["origin"] for line in lines)
