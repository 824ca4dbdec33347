"""The waiting part of `freehold up -d`: start a detached child that runs the blueprint, and report when it is ready or failed.

The child writes JSON to its standard output, which is the log `up`; its errors are shown here. A stack that does not serve
every model keeps running, and the exit code is 1.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from freehold.cli.terminal.output import INTERRUPTED
from freehold.cli.terminal.start_progress import StartOutcome, StartProgress
from freehold.core.errors import Permanent, Temporary
from freehold.fleet.control.state_dir import StateDir
from freehold.stack.status import StackStatus, running_status

_POLL_S = 0.1  # Interval between two requests for the status; readiness takes seconds.
_LINES_SHOWN = 20  # Last lines shown of a child that failed without a JSON error.


def start_in_background(state: StateDir, progress: StartProgress) -> int:
    """Start the stack detached, wait until the outcome is known, and return the exit code.

    Raises Permanent with the child's own message when it ended before.
    """
    output_path = state.logs / "up.log"
    child = _spawn(state, output_path)
    try:
        outcome = _wait(child, state, progress, output_path)
    except KeyboardInterrupt:
        progress.close()
        click.echo(
            "The stack keeps starting in the background: freehold status shows it, freehold down ends it.",
            err=True,
        )
        return INTERRUPTED
    finally:
        progress.close()
    return 0 if outcome is StartOutcome.READY else 1


def _spawn(state: StateDir, output_path: Path) -> "subprocess.Popen[bytes]":
    arguments = ["--json", "--from-blueprint", "--state-dir", str(state.path)]
    with output_path.open("wb") as output:
        # -P: a file in the current directory must not replace a module.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "freehold", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _wait(
    child: "subprocess.Popen[bytes]", state: StateDir, progress: StartProgress, output_path: Path
) -> StartOutcome:
    while True:
        with contextlib.suppress(Temporary):  # the controller is busy starting: try again
            status = running_status(state.path)
            if status is not None and progress.see(status) is not StartOutcome.WAITING:
                return _ended(child, progress)
        try:
            child.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            continue
        return _explain(output_path.read_bytes().splitlines(), progress)


def _ended(child: "subprocess.Popen[bytes]", progress: StartProgress) -> StartOutcome:
    """Return the outcome; if the stack can never serve, wait until it has ended."""
    if progress.outcome is StartOutcome.HOPELESS:
        child.wait()
    return progress.outcome


def _explain(lines: Sequence[bytes], progress: StartProgress) -> StartOutcome:
    """Raise Permanent with the child's own error, or show why the stack can never serve."""
    for answer in _answers(lines):
        status = msgspec.convert(answer["status"], StackStatus) if "status" in answer else None
        if status is not None and status.hopeless:
            return progress.see(status)
        if "error" in answer:
            raise Permanent(str(answer["error"]["message"]), hint=str(answer["error"]["hint"]))
    said = [line.decode("utf-8", "replace") for line in lines[-_LINES_SHOWN:]]
    raise Permanent("the stack ended before it was ready", hint="\n    ".join(said))


def _answers(lines: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the child's JSON lines, the last one first."""
    for line in reversed(lines):
        with contextlib.suppress(msgspec.MsgspecError):
            yield msgspec.json.decode(line, type=dict[str, Any])
