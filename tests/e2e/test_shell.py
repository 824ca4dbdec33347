"""Freehold from a shell: what is wrong is said at once, in words or JSON, with the right exit code; output is readable."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.box import FREEHOLD, Box
from freehold import __version__
from waiting import wait_until

EXTERNAL = """\
version: 1
models:
  - {name: other, engine: external, endpoints: ["http://127.0.0.1:9"], api_key_env: NO_SUCH_KEY}
"""


def test_a_key_is_never_shown(box: Box) -> None:
    box.write(EXTERNAL)
    secret = "sk-very-secret-41"
    up = box.run("up", "-d", "--json", "--listen", "127.0.0.1:0", NO_SUCH_KEY=secret)
    assert "no replica of other is ready" in up.said["error"]["message"]
    shown = [up.out, box.run("status", "--json").out, box.run("logs", "-n", "1000").out]
    assert not [text for text in shown if secret in text]
    assert box.run("down").code == 0


def test_mistakes_are_said_on_stderr_and_in_json_on_stdout(box: Box) -> None:
    box.write("version: 1\nmodels: []\ngatway: {}\n")
    words, as_json = box.run("up"), box.run("up", "--json")
    assert (words.code, words.out) == (2, "")
    assert words.err.splitlines() == [
        f"{box.home}/freehold.yaml:2:9: models must have at least 1 entry",
        f"{box.home}/freehold.yaml:3:1: unknown key 'gatway' in the top level",
        "    did you mean 'gateway'?",
        "2 problems; nothing was done.",
    ]
    assert (as_json.code, as_json.err, len(as_json.said["problems"])) == (2, "", 2)
    assert box.run("--version").out == f"freehold {__version__}\n"


@pytest.mark.real_model
@pytest.mark.usefixtures("weights_path")
def test_init_and_then_up(box: Box) -> None:
    assert box.run("init").code == 0
    up = box.run("up", "-d", "--json", "--listen", "127.0.0.1:0")
    assert (up.code, up.said["status"]["config"]) == (0, str(box.home / "freehold.yaml"))
    assert [replica["state"] for replica in up.said["status"]["replicas"]] == ["ready", "ready"]
    assert box.run("down").code == 0
    box.assert_nothing_left()


def test_the_weights_on_this_machine(box: Box) -> None:
    box.fake_config()
    assert "Nothing yet in" in box.run("model", "list").out
    pulled = box.run("model", "pull", "--json")
    assert pulled.code == 0, pulled
    (model,) = pulled.said["models"]
    assert Path(model["path"]).read_bytes() == (box.home / "weights.bin").read_bytes()
    (listed,) = box.run("model", "list", "--json").said["models"]
    assert (listed["sha256"], listed["path"]) == (model["sha256"], model["path"])
    assert box.run("model", "verify", "--json").said["verdicts"][0]["healthy"] is True
    Path(model["path"]).chmod(0o600)
    Path(model["path"]).write_bytes(b"decayed")
    decayed = box.run("model", "verify")
    assert decayed.code == 3
    assert decayed.out.startswith("DAMAGED")


# Logs


@contextmanager
def following(box: Box, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [FREEHOLD, "logs", "-f", *arguments]
    with subprocess.Popen(command, env=box.env, cwd=box.home, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_logs_are_followed_over_a_rotation_until_ctrl_c(box: Box) -> None:
    log = box.home / "state" / "logs" / "fake-0.log"
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\n")
    with following(box, "-n", "1", "fake-0") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"| two\n"
        with log.open("a") as more:
            more.write("three\nfo")
        assert process.stdout.readline() == b"| three\n"
        with log.open("a") as more:
            more.write("ur\n")
        assert process.stdout.readline() == b"| four\n"
        log.rename(log.with_name("fake-0.log.1"))
        log.write_text("five\n")
        assert process.stdout.readline() == b"| five\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert box.run("logs", "-n", "2", "fake-0").out == "| four\n| five\n"
    assert box.run("logs", "--json").said == {
        "source": "fake-0",
        "at": None,
        "level": None,
        "line": "five",
    }


def test_a_reader_that_has_enough_ends_the_command_quietly(box: Box) -> None:
    log = box.home / "state" / "logs" / "a.log"
    log.parent.mkdir(parents=True)
    log.write_text("x" * 100 + "\n" + "y\n" * 200_000)
    shell = f"'{FREEHOLD}' logs -n 300000 a | head -n 1"
    ran = subprocess.run(["sh", "-c", shell], env=box.env, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("| " + "x" * 100 + "\n", "")


# Terminals


@contextmanager
def terminal(box: Box, *arguments: str, columns: int = 80, **env: str) -> Iterator["Terminal"]:
    """Give a command that runs in a terminal of its own."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    plain = {name: value for name, value in box.env.items() if name not in {"COLUMNS", "NO_COLOR"}}
    process = subprocess.Popen(
        [FREEHOLD, *arguments],
        cwd=box.home,
        env=plain | {"TERM": "xterm"} | env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 (no threads here)
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


class Terminal:
    def __init__(self, fd: int, process: "subprocess.Popen[bytes]") -> None:
        self._fd = fd
        self.process = process
        self.shown = ""

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.read(), timeout_s=30, what=f"{text!r} on the screen")

    def read(self) -> str:
        """Return all that was shown so far."""
        while select.select([self._fd], [], [], 0)[0]:
            try:
                self.shown += os.read(self._fd, 65536).decode()
            except OSError:  # the last program of the terminal has ended
                break
        return self.shown

    def press_ctrl_c(self) -> None:
        os.write(self._fd, b"\x03")

    def wait(self) -> int:
        wait_until(lambda: self.read() and self.process.poll() is not None, timeout_s=30, what="the end")
        return self.process.wait()


ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_up_and_ctrl_c_in_a_terminal(box: Box) -> None:
    box.fake_config(replicas=2, start_s=1)
    with terminal(box, "up", "--listen", "127.0.0.1:0") as screen:
        screen.wait_for("ready in ")
        screen.press_ctrl_c()
        assert screen.wait() == 0
        shown = ESCAPES.sub("", screen.shown)
    assert "0 of 2 replicas ready" in shown
    summary = re.search(
        r"freehold  gateway    http://127\.0\.0\.1:\d+/v1      \(OpenAI API\)\r\n"
        r"          model      fake   fake   2 replicas   ready in \d+\.\d s\r\n",
        shown,
    )
    assert summary, shown
    assert re.fullmatch(r"\^C\r?\n?\r\nStopping\.\r\nDown\.\r\n", shown[summary.end() :]), shown[
        summary.end() :
    ]
    box.assert_nothing_left()


def test_status_in_terminals_of_every_width_cuts_nothing(box: Box) -> None:
    box.fake_config()
    assert box.run("up", "-d", "--listen", "127.0.0.1:0").code == 0
    pid = box.status()["replicas"][0]["pid"]
    for columns in (40, 100):
        with terminal(box, "status", columns=columns) as screen:
            assert screen.wait() == 0
            shown = ESCAPES.sub("", screen.shown)
        assert "\x1b[32mready" in screen.shown
        assert "…" not in shown
        assert all(word in shown for word in ("fake-0", "ready", str(pid), "tokens/s"))
        table = [line for line in shown.splitlines() if "http" not in line and "freehold.yaml" not in line]
        assert max(map(len, table)) <= columns
    with terminal(box, "status", columns=100, NO_COLOR="1") as screen:
        assert screen.wait() == 0
        assert "\x1b" not in screen.shown
    assert box.run("down").code == 0
