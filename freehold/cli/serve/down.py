"""`freehold down`: stop a running stack in order. Without a running stack it succeeds too."""

import signal
import threading
from dataclasses import asdict

import click

from freehold.cli.terminal.output import answer
from freehold.cli.terminal.place import StackPlace, elsewhere_hint, json_option, stack_options, timeout_option
from freehold.core.clock import monotonic_s
from freehold.core.errors import Temporary
from freehold.fleet.control.client import NotRunning, ask
from freehold.fleet.control.state_dir import Running, StateDir
from freehold.fleet.processes import proc_files
from freehold.stack.folders import running_elsewhere
from freehold.stack.status import running_status

_LOOK_AGAIN_S = 0.02  # Between letting go and ending there are some milliseconds.


@click.command("down")
@stack_options
@click.option("--now", is_flag=True, help="Do not wait for streams to finish.")
@timeout_option(120.0, "Longest wait for the end.")
@json_option
def command(stack: StackPlace, *, now: bool, timeout_s: float, as_json: bool) -> None:
    """End a running stack: streams finish, then engines stop."""
    state = StateDir(stack.state_path)
    holder = state.holder() or state.hidden_holder() or _answering(state)
    if holder is None:
        ended = state.end_leftovers()
        others = running_elsewhere(state.path)
        hint = elsewhere_hint("down", stack, others)
        what = f"No stack runs here ({state.path})" + ("." if others else ", nor elsewhere for this user.")
        others_json = [asdict(other) for other in others]
        value = {"was_running": False, "leftovers_ended": ended, "elsewhere": others_json}
        answer(value, what + (f"\n    {hint}" if hint else ""), as_json=as_json)
        return
    deadline_s = monotonic_s() + timeout_s
    _stop(state, holder, now=now, deadline_s=deadline_s)
    if not _wait_end(state, holder, deadline_s):
        raise Temporary(
            f"the stack (pid {holder.pid}) has not ended within {timeout_s:g} s",
            hint="streams may still be running: freehold down --now ends them",
        )
    state.end_leftovers()  # there are some only where the controller had to be killed
    answer({"was_running": True, "pid": holder.pid}, "Down.", as_json=as_json)


def _answering(state: StateDir) -> Running | None:
    """Return the controller behind the socket: an admin beside its own user cannot read its files. Raises NotAllowed for others."""
    status = running_status(state.path)
    return None if status is None else Running(pid=status.pid, mark=proc_files.mark(status.pid))


def _stop(state: StateDir, holder: Running, *, now: bool, deadline_s: float) -> None:
    """Ask the controller to stop: over its socket, by SIGTERM if it has none yet, by SIGKILL with --now if it does not answer."""
    try:
        for _sign_of_life in ask(state.path, {"op": "stop", "now": now}):
            if monotonic_s() > deadline_s:
                return
    except NotRunning:  # it still fetches weights, or its socket went with the folder
        _signal(holder, signal.SIGTERM)
    except Temporary as exc:
        if not now:
            raise Temporary(
                exc.message, hint="freehold down --now kills it, its engines end after it"
            ) from exc
        _signal(holder, signal.SIGKILL)


def _wait_end(state: StateDir, holder: Running, deadline_s: float) -> bool:
    """Return whether the controller has let go of the folder and then ended, in time."""
    free = state.wait_free(max(0.0, deadline_s - monotonic_s()))
    while free and holder.mark is not None and proc_files.is_alive(holder.mark):
        if monotonic_s() > deadline_s:
            return False
        threading.Event().wait(_LOOK_AGAIN_S)
    return free


def _signal(holder: Running, number: signal.Signals) -> None:
    if holder.mark is not None:
        proc_files.end(holder.mark, number)
