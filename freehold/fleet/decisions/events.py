"""What can happen to a fleet: facts from outside, and orders of `decide`. Plain frozen values.

Both are events to `state.apply`: a given order is a fact from then on. Nothing here knows how a fact is
obtained or how an order is carried out.
"""

from dataclasses import dataclass, field

from freehold.engines.base import Capacity, ExitCause
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan

# --- facts from outside ---------------------------------------------------------------------------------------


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
    key: str = field(default="", repr=False)
    """Bearer key that it requires; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MainProcessGone(About):
    """The engine's main process has ended, but processes that it left behind have not."""

    cause: ExitCause


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited(About):
    """No process of the group is left (or none ever started)."""

    cause: ExitCause


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(About):
    """The readiness check succeeded."""

    capacity: Capacity | None = None
    """The capacity that the server reports; None: it was not read, or the server does not report it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered(About):
    """The readiness check failed; `reason` in a few words."""

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
    """The agent has seen, for long enough, that the engine has work and makes no progress; `reason` in a few words."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered(About):
    """The agent sees that a stalled engine makes progress again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAsked:
    """Everything is to end."""

    drained: bool = False
    hurry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartAsked:
    """An operator has this replica started again, whatever state it is in."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeAsked:
    """An operator has changed the wanted replicas, or the numbers they are decided by."""

    plans: tuple[ReplicaPlan, ...]
    settings: FleetSettings


# --- moves of a roll-out ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    """Add a replica that is wanted and missing."""

    id: str
    plan: ReplicaPlan
    base: int = 0
    """Incarnations that earlier replicas of this id have had, so that their facts are not mistaken for the new one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Drain, end and forget a replica that is no longer wanted."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """Forget a replica that has ended."""

    id: str


# --- orders that `decide` gives ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch(About):
    """Start a process; `incarnation` is the new one's number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskReady(About):
    """Send the readiness check."""

    look: bool = False
    """Read the server's capacity as well, if its engine file says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCounters(About):
    """Read the counters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cordon(About):
    """No new requests; running ones finish."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminate(About):
    """SIGTERM to the group, SIGKILL after `grace_s`; `blame` is the reason if it counts as the replica's failure."""

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
    """No more quick restarts."""

    reason: str
    hint: str
    due_s: float | None = None
    """When it is tried again; None: an operator must restart it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle(About):
    """Set a replica without a process that is to have none to STOPPED."""


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
