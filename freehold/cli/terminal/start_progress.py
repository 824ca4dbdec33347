"""The progress of a stack that starts, serves and ends, for people and scripts, and the outcome of its start.

On a terminal one changing line shows what the start waits for; elsewhere there is one plain line per change. Progress goes
to stderr and the result to stdout. It starts and ends nothing: `stack/run` reads the outcome.
"""

import contextlib
import re
from enum import Enum

from rich.console import Console
from rich.text import Text

from freehold.cli.terminal.output import say_json
from freehold.cli.terminal.report import note, show_ready, state_colour
from freehold.core.clock import monotonic_s
from freehold.core.events import ReplicaState, ReplicaStatus
from freehold.stack.status import StackStatus

EXTERNAL_PATIENCE_S = 3.0
"""How long a start waits for external endpoints, seconds. Source: our own choice: a running endpoint lists its models in
milliseconds, and one that comes later is served all the same."""
_FAILED = frozenset({ReplicaState.BACKOFF, ReplicaState.CRASH_LOOP})
_ENDING = frozenset({ReplicaState.DRAINING, ReplicaState.STOPPING, ReplicaState.STOPPED})


_SPINNER_COLUMNS = 3  # The dots, a space, and the last column, which some terminals wrap after.


class StartOutcome(Enum):
    """The outcome of a start."""

    WAITING = "waiting"
    READY = "ready"  # every model is served
    PARTLY = "partly"  # some model is not served, now or perhaps ever
    HOPELESS = "hopeless"  # nothing can be started


class StartProgress:
    """Shows what changes from one status to the next."""

    def __init__(self, *, started_s: float, as_json: bool) -> None:
        self.outcome = StartOutcome.WAITING
        self._started_s = started_s
        self._as_json = as_json
        self._draining = False
        self._states: dict[str, ReplicaState] = {}
        self._stages: dict[str, str] = {}
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._spinner = self._console.status("") if self._console.is_terminal and not as_json else None

    @property
    def waiting(self) -> bool:
        """Return whether the outcome of the start is still open."""
        return self.outcome is StartOutcome.WAITING

    @property
    def hopeless(self) -> bool:
        """Return whether the stack can never serve."""
        return self.outcome is StartOutcome.HOPELESS

    def see(self, status: StackStatus) -> StartOutcome:
        """Take a newer status, show what is new, and return the outcome of the start so far."""
        waiting = self.outcome is StartOutcome.WAITING
        if waiting and status.hopeless:
            self._end_wait(StartOutcome.HOPELESS)
            self._show_hopeless(status)
        elif status.gateway.draining or self._draining:
            self._show_end(status)
        else:
            self._show_changes(status)
            if waiting:
                self._check_settled(status)
        return self.outcome

    def hurry(self) -> None:
        """Print that the stack now ends at once."""
        self._print(Text("Ending at once."))

    def close(self) -> None:
        """Remove the changing line, and print when the stack has ended."""
        self._stop_spinner()
        if self._draining:
            self._print(Text("Down."))

    # The start

    def _check_settled(self, status: StackStatus) -> None:
        waited_s = monotonic_s() - self._started_s
        if status.settled(waited_s=waited_s, patience_s=EXTERNAL_PATIENCE_S):
            self._end_wait(StartOutcome.PARTLY if status.unserved else StartOutcome.READY)
            self._show_ready(status, took_s=waited_s)

    def _end_wait(self, outcome: StartOutcome) -> None:
        self.outcome = outcome
        self._stop_spinner()

    def _show_ready(self, status: StackStatus, *, took_s: float) -> None:
        if not self._as_json:
            show_ready(status, took_s=took_s)
        elif self.outcome is StartOutcome.READY:
            say_json({"ready_s": round(took_s, 3), "status": status})
        else:
            message = f"no replica of {', '.join(status.unserved)} is ready; the stack serves what is"
            hint = "freehold status shows why, freehold down ends it"
            say_json({"error": {"message": message, "hint": hint}, "status": status})

    def _show_hopeless(self, status: StackStatus) -> None:
        why = "; ".join(f"{failure.name}: {failure.reason}" for failure in status.hopeless)
        hint = next((failure.hint for failure in status.hopeless if failure.hint), "")
        if self._as_json:
            say_json({"error": {"message": f"cannot be started: {why}", "hint": hint}, "status": status})
            return
        for failure in status.hopeless:
            self._print(Text.assemble((failure.name, "red"), f" cannot be started: {failure.reason}"))
            if failure.hint:
                self._print(Text(f"    {failure.hint}"))
        self._print(Text("    freehold logs shows what the engine wrote"))

    # What changes

    def _show_changes(self, status: StackStatus) -> None:
        changed = [r for r in status.replicas if self._has_changed(r)]
        self._states = {replica.id: replica.state for replica in status.replicas}
        self._stages = {replica.id: _stage(replica) for replica in status.replicas}
        moving = self._spinner is not None and self.outcome is StartOutcome.WAITING
        for replica in changed:
            if replica.state in _FAILED or not (moving or replica.state is ReplicaState.PENDING):
                self._show_change(replica)
        if self._spinner is not None and moving:
            line = _waited_for(status, monotonic_s() - self._started_s)
            line.truncate(self._console.width - _SPINNER_COLUMNS, overflow="ellipsis")
            self._spinner.update(line)
            self._spinner.start()

    def _has_changed(self, replica: ReplicaStatus) -> bool:
        if self._states.get(replica.id) is not replica.state:
            return True
        return replica.state is ReplicaState.STARTING and self._stages.get(replica.id) != _stage(replica)

    def _show_change(self, replica: ReplicaStatus) -> None:
        said = note(replica)
        state = (replica.state.value, state_colour(replica))
        self._print(Text.assemble(f"{replica.id} ", state, f": {said}" if said else ""))

    # The end

    def _show_end(self, status: StackStatus) -> None:
        if self.outcome is StartOutcome.HOPELESS:
            return  # the cause has been printed
        if not self._draining:
            self._draining = True
            self._stop_spinner()
            self._show_stopping(status.gateway.in_flight or 0)
        for replica in status.replicas:
            new = self._states.get(replica.id) is not replica.state
            if new and replica.state not in _ENDING:  # an engine that fails while it ends
                self._show_change(replica)
        self._states = {replica.id: replica.state for replica in status.replicas}

    def _show_stopping(self, in_flight: int) -> None:
        if self._console.is_terminal and not self._as_json:
            self._console.print()  # below the ^C of the terminal
        what = "1 request" if in_flight == 1 else f"{in_flight} requests"
        rest = f": {what} may finish first; once more (Ctrl-C, or freehold down --now) ends at once"
        self._print(Text("Stopping" + (rest if in_flight else ".")))

    def _print(self, text: Text) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone, the stack keeps running
            if not self._as_json:
                self._console.print(text, soft_wrap=True)

    def _stop_spinner(self) -> None:
        with contextlib.suppress(OSError):
            if self._spinner is not None:
                self._spinner.stop()


def _stage(replica: ReplicaStatus) -> str:
    """Return the phase of a start without its numbers, since a line per percent would be too many."""
    return re.sub(r" \(.*|,? *\d+ ?(?:%|s\b)", "", replica.reason)


def _waited_for(status: StackStatus, waited_s: float) -> Text:
    """Return the changing line: how many replicas are ready, and the state of the first other one."""
    waiting = [replica for replica in status.replicas if replica.state is not ReplicaState.READY]
    ready, wanted = len(status.replicas) - len(waiting), len(status.replicas)
    text = Text(f"{ready} of {wanted} replicas ready, {waited_s:.0f} s")
    if not waiting:
        text.append("   the gateway is starting", style="dim")
    else:
        text.append(f"   {waiting[0].id} {waiting[0].state.value} {waiting[0].reason}".rstrip(), style="dim")
    return text
