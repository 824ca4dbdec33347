"""Roles from end to end: the real command, as another user of the machine, on a running stack; and the audit log of it all."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.box import Box, Ran
from freehold.ledger.journal import JOURNAL_NAME
from waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be a second user")
OTHER = "daemon"  # every Linux has it
COMMAND = """
import os, pwd, sys
from freehold.__main__ import run
from freehold.cli import main
from freehold.cli.serve import down, logs, reload, restart, status, usage
if "review" in sys.argv:
    from freehold.cli.choose import review
sys.argv[0] = "freehold"
other = pwd.getpwnam("daemon")
os.setgroups([])
os.setgid(other.pw_gid)
os.setuid(other.pw_uid)
sys.exit(run())
"""
"""The command, imported before it becomes the other user, who may not be able to read the interpreter's files."""


@pytest.fixture
def state(box: Box) -> Iterator[Path]:
    """Give the box a state folder that other users can pass through, as docs/roles.md prepares one."""
    path = Path(tempfile.mkdtemp(prefix="roles-"))
    path.chmod(0o711)
    box.env["FREEHOLD_STATE_DIR"] = str(path)
    yield path
    box.kill_all()
    shutil.rmtree(path)


def as_other(state: Path, *arguments: str) -> Ran:
    argv = [sys.executable, "-P", "-c", COMMAND, *arguments]
    done = subprocess.run(
        [*argv, "--state-dir", str(state), "--config", "/nowhere.yaml"],
        cwd="/",
        env={"PATH": os.environ["PATH"], "HOME": "/", "LOGNAME": "root", "USER": "root"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return Ran(code=done.returncode, out=done.stdout, err=done.stderr)


def test_what_another_user_may_do_follows_the_file(box: Box, state: Path):
    config = box.fake_config(replicas=1)
    with box.foreground() as stack:
        for command in ("status", "down", "reload"):
            ran = as_other(state, command)
            assert ran.code == 1, ran
            assert "this user may not reach the control socket" in ran.err
        text = config.read_text()
        for role in ("viewer", "operator", "admin"):
            config.write_text(f"{text}roles: {{{OTHER}: {role}}}\n")
            assert box.run("reload").code == 0
            may = [as_other(state, *line).code == 0 for line in (("status",), ("restart", "fake-0"))]
            assert may == [True, role != "viewer"], role
            if role == "operator":
                assert box.run("health", "set-healthy").code == 0
            if role != "admin":
                ran = as_other(state, "down")
                assert ran.code == 1, ran
                assert f"down needs the role admin, this user is {role}" in ran.err
                assert "roles: {USER: admin}" in ran.err
            ledger = state / JOURNAL_NAME
            for command, path in (("logs", state / "logs"), ("usage", ledger), ("review", ledger)):
                ran = as_other(state, command)
                assert ran.code == 1, ran
                assert f"this user may not read {path}" in ran.err
                assert f"as the stack's own user or as root: `sudo -u root freehold {command}`" in ran.err
        readable = [
            path.name for path in state.iterdir() if path.stat().st_mode & 0o077 and not path.is_socket()
        ]
        assert not readable
        assert as_other(state, "down").code == 0
        assert stack.process.wait(10) == 0
    box.assert_nothing_left()


def test_a_user_that_is_not_there_is_a_mistake_in_the_file(box: Box):
    box.fake_config(more="roles: {no-such-user: viewer, daemon: caller}\n")
    ran = box.run("up")
    assert ran.code == 2
    assert "roles.daemon must be viewer or operator or admin" in ran.err
    box.fake_config(more="roles: {no-such-user: viewer}\n")
    assert "there is no user 'no-such-user' on this machine" in box.run("up").err


def test_each_act_is_in_the_audit_log(box: Box, state: Path):
    box.fake_config(replicas=1, more=f"roles: {{{OTHER}: operator}}\n")
    with box.foreground() as stack:
        key = box.run("key", "create", "ci", "--rpm", "60", "--json").said
        box.run("key", "revoke", "ci")
        box.run("reload")
        box.run("reload", "--dry-run")
        assert as_other(state, "restart", "fake-0").code == 0
        assert box.run("restart", "fake-0", "--no-wait").code == 0
        wait_until(lambda: (state / "health.json").exists() or (state / "agent.json").exists())
        marked = box.run("health", "set-healthy", "--reason", "new\n{riser}", "--json")
        assert marked.code == 0, marked
        assert stack.end() == 0
    shown = [json.loads(line) for line in box.run("logs", "audit", "--json").out.splitlines()]
    found = [json.loads(line["line"]) for line in shown]
    assert [line["event"] for line in found] == [
        *("key_created", "key_revoked", "reload", "restart", "restart", "set_healthy", "stop"),
    ]
    assert [line["by"].split()[-1] for line in found] == [
        "root",
        "root",
        "root",
        OTHER,
        "root",
        "root",
        "root",
    ]
    assert all("(freehold)" in line["origin"] for line in found if line["by"] != OTHER)
    assert found[0]["key"] == key["id"]
    assert found[5]["reason"] == "new\n{riser}"
    assert key["key"] not in (state / "logs" / "audit.log").read_text()
