"""The fleet's state, as one frozen value, and how each event changes it: `apply(view, event, now_s) -> view`.

Facts from outside (a process started, exited, answered) and orders that were just given (launch, terminate) are
both events, so the view always shows what is under way and `decide` never orders the same thing twice. Nothing is
decided here and nothing is done: no clock, no randomness, no I/O. A fact about an older incarnation changes nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import singledispatch

from freehold.core.events import EngineEnd, ReplicaState, socket_path
from freehold.engines.base import Capacity, ExitCause, ExitKind
from freehold.fleet.decisions.events import (
    Abandon,
    About,
    Add,
    Answered,
    AskReady,
    ChangeAsked,
    Cordon,
    CountersRead,
    Event,
    Exited,
    Forget,
    GiveUp,
    Kill,
    Launch,
    Leave,
    MainProcessGone,
    Move,
    ReadCounters,
    Recovered,
    RestartAsked,
    Schedule,
    Settle,
    Stalled,
    Started,
    StopAsked,
    Terminate,
    Unanswered,
)
from freehold.fleet.decisions.meter import Meter, with_reading
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan

State = ReplicaState


class After(StrEnum):
    """What follows when the present process has ended."""

    COUNT = "count"  # its end was not requested: a failure
    RESTART = "restart"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that was ordered and whose end was not reported: it may be running."""

    ordered_s: float
    pid: int | None = None
    ready_s: float | None = None
    terminate_s: float | None = None
    """When SIGTERM was ordered."""
    kill_s: float | None = None
    """When SIGKILL was ordered past the minder."""
    blame: str = ""
    """Why the fleet ended it, if that counts as its failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A replica's recent failures; reset after a stable period or an operator's restart."""

    row: int = 0
    """Failures in a row; the back-off's exponent."""
    unready_row: int = 0
    """Failures in a row without having been READY in between."""
    failures_s: tuple[float, ...] = ()
    """Times of the latest failures, at most `window_failures_max`."""
    port_retries: int = 0
    final: bool = False
    """By the engine file, another start must fail the same way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """The state of one replica."""

    id: str
    model: str = ""
    managed: bool = True
    metered: bool = True
    """Its engine has counters to read."""
    url: str = ""
    key: str = field(default="", repr=False)
    """Bearer key of its present process; empty: it requires none, or the plan has it."""
    state: State = State.PENDING
    since_s: float = 0.0
    incarnation: int = 0
    base: int = 0
    """Incarnations that earlier replicas of this id have had."""
    leaving: bool = False
    """It is no longer wanted."""
    process: Process | None = None
    after: After = After.COUNT
    asking: bool = False
    """A readiness check is under way."""
    ask_due_s: float = 0.0
    misses: int = 0
    """Failed readiness checks in a row."""
    due_s: float | None = None
    """When a replica in BACKOFF or CRASH_LOOP starts again; None: not decided yet, or never by itself."""
    trouble: Trouble = field(default_factory=Trouble)
    meter: Meter = field(default_factory=Meter)
    capacity: Capacity | None = None
    """The capacity that its server reported; None: not reported yet."""
    stalled: str = ""
    """Why its running process is to be ended; empty: it is not."""
    mending: bool = False
    """Its last process was ended because it stalled, and the next one is neither ready nor has failed."""
    end: EngineEnd | None = None
    """How its newest process that has ended did so; None: none has ended."""
    ended: str = ""
    """Why that process ended, in words, also when the next one is ready."""
    ended_s: float | None = None
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """All replicas with the settings they are decided by."""

    settings: FleetSettings
    born_s: float = 0.0
    replicas: tuple[Replica, ...] = ()
    stopping: bool = False
    drained: bool = False
    """The gateway has finished all requests: nothing to wait for before SIGTERM."""
    hurry: bool = False
    """No grace: SIGKILL."""

    def find(self, replica_id: str) -> Replica | None:
        """Return the replica of that id, or None."""
        return next((r for r in self.replicas if r.id == replica_id), None)

    def ends(self, replica: Replica) -> bool:
        """Return whether a replica is to end for good."""
        return self.stopping or replica.leaving


def first_view(plans: Iterable[ReplicaPlan], settings: FleetSettings, now_s: float) -> FleetView:
    """Return the view before anything has happened: every replica PENDING."""
    return FleetView(
        settings=settings,
        born_s=now_s,
        replicas=tuple(_replica(plan, now_s) for plan in plans),
    )


def _replica(plan: ReplicaPlan, now_s: float, base: int = 0) -> Replica:
    return Replica(
        id=plan.id,
        model=plan.model,
        managed=plan.engine.managed,
        metered=plan.engine.managed and plan.engine.metrics_path is not None,
        url="" if plan.engine.managed else plan.url,
        since_s=now_s,
        ask_due_s=now_s,
        incarnation=base,
        base=base,
    )


def apply(view: FleetView, event: Event, now_s: float) -> FleetView:
    """Return the view after `event` at `now_s` (monotonic seconds); total: an event that does not apply changes nothing."""
    if isinstance(event, StopAsked):
        return _stop_asked(view, event)
    if isinstance(event, RestartAsked):
        return _on_replica(view, event.id, lambda r: r if view.ends(r) else _restart_asked(r, now_s))
    if isinstance(event, ChangeAsked):
        return replace(view, settings=event.settings)
    if isinstance(event, Add | Leave | Forget):
        return _moved(view, event, now_s)
    settings = view.settings
    return _on_replica(view, event.id, lambda r: _about(event, r, settings, now_s))


def _moved(view: FleetView, move: Move, now_s: float) -> FleetView:
    if isinstance(move, Leave):
        return _on_replica(view, move.id, lambda r: replace(r, leaving=True, after=After.STOP))
    others = tuple(r for r in view.replicas if r.id != move.id)
    added = (_replica(move.plan, now_s, move.base),) if isinstance(move, Add) else ()
    return replace(view, replicas=(*others, *added))


def _on_replica(view: FleetView, replica_id: str, change: Callable[[Replica], Replica]) -> FleetView:
    return replace(view, replicas=tuple(change(r) if r.id == replica_id else r for r in view.replicas))


def _about(event: About, replica: Replica, settings: FleetSettings, now_s: float) -> Replica:
    expected = replica.incarnation + isinstance(event, Launch)
    return _change(event, replica, settings, now_s) if event.incarnation == expected else replica


def _to(replica: Replica, state: State, now_s: float) -> Replica:
    """Return the replica in `state`, since now if it was in another."""
    return replica if replica.state is state else replace(replica, state=state, since_s=now_s)


def _stop_asked(view: FleetView, event: StopAsked) -> FleetView:
    return replace(
        view,
        stopping=True,
        drained=view.drained or event.drained or event.hurry,
        hurry=view.hurry or event.hurry,
        replicas=tuple(replace(r, after=After.STOP) for r in view.replicas),
    )


def _restart_asked(replica: Replica, now_s: float) -> Replica:
    if replica.process is not None:
        stuck = replica.state in {State.CRASH_LOOP, State.STOPPED}
        return replica if stuck else replace(replica, after=After.RESTART)
    fresh = replace(replica, trouble=Trouble(), misses=0, due_s=None, ask_due_s=now_s, reason="", hint="")
    return _to(fresh, State.PENDING, now_s)


@singledispatch
def _change(_event: About, replica: Replica, _settings: FleetSettings, _now_s: float) -> Replica:
    return replica


# --- how orders change a replica --------------------------------------------------------------------------------


@_change.register
def _(event: Launch, replica: Replica, _settings: FleetSettings, now_s: float) -> Replica:
    fresh = replace(
        replica,
        incarnation=event.incarnation,
        process=Process(ordered_s=now_s),
        after=After.COUNT,
        url="",
        asking=False,
        misses=0,
        due_s=None,
        meter=Meter(),
        stalled="",
        reason="loading",
        hint="",
    )
    return _to(fresh, State.STARTING, now_s)


@_change.register
def _(_event: AskReady, replica: Replica, _settings: FleetSettings, now_s: float) -> Replica:
    asked = replace(replica, asking=True)
    if replica.state is State.PENDING:  # only external endpoints are checked before they are started
        return _to(replace(asked, reason="no answer yet"), State.STARTING, now_s)
    return asked


@_change.register
def _(_event: ReadCounters, replica: Replica, _settings: FleetSettings, now_s: float) -> Replica:
    return replace(replica, meter=replace(replica.meter, under_way=True, asked_s=now_s))


@_change.register
def _(event: Cordon, replica: Replica, settings: FleetSettings, now_s: float) -> Replica:
    meter = replace(replica.meter, due_s=now_s + settings.drain_settle_s, running=None)
    return _to(replace(replica, meter=meter, reason=event.reason), State.DRAINING, now_s)


@_change.register
def _(event: Terminate, replica: Replica, _settings: FleetSettings, now_s: float) -> Replica:
    if replica.process is None:
        return replica
    process = replace(replica.process, terminate_s=now_s, blame=event.blame)
    reason = event.blame or f"ending, {event.grace_s:g} s grace"
    mending = replica.mending or bool(replica.stalled)
    return _to(replace(replica, process=process, reason=reason, mending=mending), State.STOPPING, now_s)


@_change.register
def _(_event: Kill, replica: Replica, _settings: FleetSettings, now_s: float) -> Replica:
    if replica.process is None:
        return replica
    return replace(
        replica, process=replace(replica.process, kill_s=now_s), reason="killed, waiting for its end"
    )


@_change.register
def _(_event: Abandon, replica: Replica, _settings: FleetSettings, now_s: float) -> Replica:
    pid = replica.process.pid if replica.process else None
    changed = replace(
        replica,
        mending=False,
        reason=f"process {pid or 'of unknown id'} survives SIGKILL: it hangs in the kernel",
        hint="look at the disk, GPU or driver it waits for; it ends by itself or with a reboot",
    )
    return _to(changed, State.STOPPED if replica.after is After.STOP else State.CRASH_LOOP, now_s)


@_change.register
def _(event: Schedule, replica: Replica, _settings: FleetSettings, _now_s: float) -> Replica:
    return replace(replica, due_s=event.due_s)


@_change.register
def _(event: GiveUp, replica: Replica, _settings: FleetSettings, now_s: float) -> Replica:
    changed = replace(replica, mending=False, reason=event.reason, hint=event.hint, due_s=event.due_s)
    return _to(changed, State.CRASH_LOOP, now_s)


@_change.register
def _(_event: Settle, replica: Replica, _settings: FleetSettings, now_s: float) -> Replica:
    changed = replace(replica, due_s=None, mending=False, reason="", hint="", meter=Meter())
    return _to(changed, State.STOPPED, now_s)


# --- how facts change a replica ---------------------------------------------------------------------------------


@_change.register
def _(event: Started, replica: Replica, _settings: FleetSettings, now_s: float) -> Replica:
    if replica.process is None:
        return replica
    return replace(
        replica,
        process=replace(replica.process, pid=event.pid),
        url=event.url,
        key=event.key,
        ask_due_s=now_s,
    )


@_change.register
def _(event: MainProcessGone, replica: Replica, _settings: FleetSettings, now_s: float) -> Replica:
    if replica.process is None or replica.process.terminate_s is not None:
        return replica
    end = _end(replica, replica.process, event.cause)
    process = replace(replica.process, terminate_s=now_s)
    return _to(replace(replica, process=process, end=end, reason=event.cause.summary), State.STOPPING, now_s)


@_change.register
def _(event: Exited, replica: Replica, settings: FleetSettings, now_s: float) -> Replica:
    process = replica.process
    if process is None:
        return replica
    end = _end(replica, process, event.cause)
    why = _REQUESTED if replica.after is After.RESTART else process.blame or event.cause.summary
    gone = replace(
        replica, process=None, url="", asking=False, meter=Meter(), end=end, ended=why, ended_s=now_s
    )
    if replica.after is After.STOP:
        return _to(replace(gone, reason="", hint=""), State.STOPPED, now_s)
    if replica.after is After.RESTART:
        return _restart_asked(replace(gone, after=After.COUNT), now_s)
    if replica.state is State.CRASH_LOOP:  # abandoned earlier: an operator may restart it now
        return replace(gone, reason=f"{replica.reason} (it has ended now)")
    if event.cause.kind is ExitKind.PORT_IN_USE and not process.blame:
        return _port_taken(gone, event.cause, settings, now_s)
    return _failed(gone, process, event.cause, settings, now_s=now_s)


def _end(replica: Replica, process: Process, cause: ExitCause) -> EngineEnd:
    """Return how the present process ended; the first report counts, since the second one is of what it left behind."""
    if replica.end is not None and replica.end.incarnation == replica.incarnation:
        return replica.end
    kind = cause.kind if process.terminate_s is None else ExitKind.STOPPED
    return EngineEnd(id=replica.id, incarnation=replica.incarnation, kind=kind)


def _port_taken(replica: Replica, cause: ExitCause, settings: FleetSettings, now_s: float) -> Replica:
    retries = replica.trouble.port_retries
    if retries >= settings.port_retries_max:
        return _failed(replica, Process(ordered_s=now_s), cause, settings, now_s=now_s)
    changed = replace(
        replica,
        trouble=replace(replica.trouble, port_retries=retries + 1),
        due_s=now_s,
        reason="its port was taken: another one is tried",
    )
    return _to(changed, State.BACKOFF, now_s)


_REQUESTED = "a restart was requested"
_ASLEEP = "its engine was put to sleep"
_SLOW = "its log shows how far it came; large weights and a first compilation take minutes: raise fleet.ready_timeout"


def _wake(url: str) -> str:
    path = socket_path(url)
    where = f"--unix-socket {path} http://localhost" if path else url
    return f"run `curl -X POST {where}/wake_up`, and it serves again"


def _failed(
    replica: Replica, process: Process, cause: ExitCause, settings: FleetSettings, *, now_s: float
) -> Replica:
    was_ready = process.ready_s is not None
    stable = process.ready_s is not None and now_s - process.ready_s >= settings.stable_s
    trouble = Trouble() if stable else replica.trouble
    recent = [t for t in trouble.failures_s if now_s - t <= settings.failure_window_s]
    changed = replace(
        replica,
        trouble=Trouble(
            row=trouble.row + 1,
            unready_row=0 if was_ready else trouble.unready_row + 1,
            failures_s=(*recent, now_s)[-settings.window_failures_max :],
            # A replica that has served had an engine, options, weights and a driver that fit: whatever its last lines
            # report does not keep it from starting again.
            final=not cause.restart and not process.blame and not was_ready,
        ),
        due_s=None,
        # `stalled` belongs to the process that hung: if it is empty, the next process has failed now.
        mending=replica.mending and bool(replica.stalled),
        reason=process.blame or cause.summary,
        hint=("" if was_ready else _SLOW) if process.blame else cause.hint,
    )
    return _to(changed, State.BACKOFF, now_s)


@_change.register
def _(event: Answered, replica: Replica, settings: FleetSettings, now_s: float) -> Replica:
    heard = replace(
        replica,
        asking=False,
        misses=0,
        ask_due_s=now_s + settings.external_poll_s,
        capacity=event.capacity or replica.capacity,
    )
    if not replica.managed:
        taken = replica.state in {State.PENDING, State.STARTING, State.BACKOFF, State.READY}
        return _to(replace(heard, reason="", hint=""), State.READY, now_s) if taken else heard
    if replica.state is not State.STARTING or replica.process is None:
        return heard
    ready = replace(
        heard,
        process=replace(replica.process, ready_s=now_s),
        trouble=replace(replica.trouble, unready_row=0, port_retries=0),
        meter=Meter(due_s=now_s),
        mending=False,
        reason="",
        hint="",
    )
    return _to(ready, State.READY, now_s)


@_change.register
def _(event: Unanswered, replica: Replica, settings: FleetSettings, now_s: float) -> Replica:
    pause_s = settings.ready_poll_s if replica.managed else settings.external_poll_s
    missed = replace(replica, asking=False, misses=replica.misses + 1, ask_due_s=now_s + pause_s)
    if replica.managed:
        return replace(missed, reason=event.reason) if replica.state is State.STARTING else missed
    changed = replace(missed, reason=event.reason, hint=event.hint)
    if replica.state is State.READY and missed.misses >= settings.external_misses_max:
        return _to(changed, State.BACKOFF, now_s)
    return changed


@_change.register
def _(event: CountersRead, replica: Replica, settings: FleetSettings, now_s: float) -> Replica:
    if replica.process is None:
        return replica
    draining = replica.state is State.DRAINING
    meter = replace(
        replica.meter,
        under_way=False,
        due_s=now_s + (settings.drain_poll_s if draining else settings.scrape_s),
        running=event.running,
        readings=with_reading(
            replica.meter.readings, event.tokens_total, window_s=settings.rate_window_s, now_s=now_s
        ),
    )
    changed = replace(replica, meter=meter)
    if replica.state is State.READY and event.asleep:
        return _to(replace(changed, stalled="", reason=_ASLEEP, hint=_wake(replica.url)), State.ASLEEP, now_s)
    if replica.state is State.ASLEEP and event.asleep is False:
        return _to(replace(changed, reason="", hint=""), State.READY, now_s)
    return changed


@_change.register
def _(event: Stalled, replica: Replica, _settings: FleetSettings, _now_s: float) -> Replica:
    serves = replica.managed and replica.state in {State.READY, State.DRAINING}
    return replace(replica, stalled=event.reason) if serves and replica.process is not None else replica


@_change.register
def _(_event: Recovered, replica: Replica, _settings: FleetSettings, _now_s: float) -> Replica:
    waits = replica.process is not None and replica.process.terminate_s is None
    return replace(replica, stalled="") if waits else replica
