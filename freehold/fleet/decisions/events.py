"""What can happen to a fleet: facts that the world reports, and orders that `decide` gives. Plain frozen values.

Both are events to `state.apply`: an order that was given is a fact from then on. Nothing here knows how a fact is
found out or how an order is carried out.
"""

from dataclasses import dataclass

from freehold.engines.base import Capacity, ExitCause
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan

# --- facts from the world ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Anything that concerns one incarnation of one replica."""

    id: str
    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(About):
    """The engine's process runs; `url` is where it will answer."""

    pid: int
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MainProcessGone(About):
    """The engine's main process is gone, but not yet all it left behind."""

    cause: ExitCause


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited(About):
    """Nothing of the process group lives any more (or it never came to life)."""

    cause: ExitCause


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(About):
    """The readiness question was answered as hoped."""

    capacity: Capacity | None = None
    """What the server told of itself; None: it was not asked, or did not answer that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered(About):
    """It was not; `reason` in a few words."""

    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountersRead(About):
    """One reading of the engine's counters; None is unknown."""

    tokens_total: float | None
    running: float | None
    asleep: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled(About):
    """Somebody who watches it has seen, for long enough, that it has work and does nothing; `reason` in a few words."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered(About):
    """Whoever watches it sees that it works after all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAsked:
    """Everything is to end."""

    drained: bool = False
    hurry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartAsked:
    """A person wants this replica started afresh, whatever state it is in."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeAsked:
    """A person wants other replicas, or other numbers to judge them by."""

    plans: tuple[ReplicaPlan, ...]
    settings: FleetSettings


# --- moves of a roll-out ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    """A replica is wanted that is not there."""

    id: str
    plan: ReplicaPlan
    base: int = 0
    """Incarnations that earlier replicas of this id have had, so that none is taken for another's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """A replica is not wanted any more: it drains, ends and is forgotten."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """It has ended."""

    id: str


# --- orders that `decide` gives ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch(About):
    """Start a process; `incarnation` is the new one's number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskReady(About):
    """Put the readiness question."""

    look: bool = False
    """Ask the server for its capacity as well, where its engine file says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCounters(About):
    """Read the counters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cordon(About):
    """No new requests; running ones finish."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminate(About):
    """SIGTERM to the group, SIGKILL after `grace_s`; `blame` says why if it is the replica's failure."""

    grace_s: float
    blame: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill(About):
    """SIGKILL to the minder and the group at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon(About):
    """Stop waiting for a process that survives SIGKILL; it is never replaced while it lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(About):
    """Start again at `due_s`."""

    due_s: float
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp(About):
    """No more automatic restarts."""

    reason: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle(About):
    """Nothing runs and nothing is to run: STOPPED."""


Fact = (
    Started
    | MainProcessGone
    | Exited
    | Answered
    | Unanswered
    | CountersRead
    | Stalled
    | Recovered
    | StopAsked
    | RestartAsked
    | ChangeAsked
)
Move = Add | Leave | Forget
Action = Launch | AskReady | ReadCounters | Cordon | Terminate | Kill | Abandon | Schedule | GiveUp | Settle
Event = Fact | Move | Action
