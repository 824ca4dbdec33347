"""What to do next: `decide(view, now_s, rng) -> list[Action]`, pure, synchronous and total.

Every order changes the view (`state.apply`), so a second call does not repeat it. `next_due_s` returns
when another call can return a new order although nothing has happened. It knows no clock and no randomness (both are passed
in) and no process; the view carries what the engine file says of an exit code.
"""

from dataclasses import replace
from typing import Protocol

from freehold.core.events import ReplicaState as State
from freehold.fleet.decisions.events import (
    Abandon,
    Action,
    AskReady,
    Cordon,
    GiveUp,
    Kill,
    Launch,
    ReadCounters,
    Schedule,
    Settle,
    Terminate,
)
from freehold.fleet.decisions.plan import FleetSettings
from freehold.fleet.decisions.state import After, FleetView, Process, Replica

NEVER_S = float("inf")
# Doubling stops mattering long before: 0.5 s * 2**30 is 17 years, and floats must not overflow.
_EXPONENT_MAX = 30
_STALLED_GRACE_S = 1.0
"""From SIGTERM to SIGKILL of an engine that hangs, seconds. Source: our own choice: llama.cpp ends in 0.2 s where it still can."""


class RandomSource(Protocol):
    """A source of random numbers; `random.Random` is one."""

    def random(self) -> float:
        """Return a number from 0 (included) to 1 (excluded)."""
        ...


def decide(view: FleetView, now_s: float, rng: RandomSource) -> list[Action]:
    """Return the orders that are due at `now_s`, at most one per replica; empty: nothing is due."""
    orders = (_order(view, replica, now_s, rng) for replica in view.replicas)
    return [order for order in orders if order is not None]


def next_due_s(view: FleetView) -> float:
    """Return when the next order is due if nothing happens; NEVER_S: only an event makes one due."""
    return min((_due_s(view, replica) for replica in view.replicas), default=NEVER_S)


def all_stopped(view: FleetView) -> bool:
    """Return whether a requested stop is complete."""
    return view.stopping and all(r.state is State.STOPPED for r in view.replicas)


def _order(view: FleetView, replica: Replica, now_s: float, rng: RandomSource) -> Action | None:
    if now_s < _due_s(view, replica):
        return None
    if not replica.managed:
        return _external_order(view, replica)
    if replica.process is None:
        return _idle_order(view, replica, now_s, rng)
    return _live_order(view, replica, replica.process, now_s)


def _due_s(view: FleetView, replica: Replica) -> float:
    """Return the time from which `_order` is not None; a time in the past means now."""
    if not replica.managed:
        return _external_due_s(view, replica)
    if replica.process is None:
        return _idle_due_s(view, replica)
    if replica.state is State.CRASH_LOOP:  # abandoned: only a stop of the whole fleet changes that
        return -NEVER_S if view.ends(replica) else NEVER_S
    if replica.state is State.STOPPED:
        return NEVER_S
    return _live_due_s(view, replica, replica.process)


# --- external endpoints: nothing to start or to end, only to check --------------------------------------------------


def _external_due_s(view: FleetView, replica: Replica) -> float:
    if view.ends(replica):
        return NEVER_S if replica.state is State.STOPPED else -NEVER_S
    return NEVER_S if replica.asking else replica.ask_due_s


def _external_order(view: FleetView, replica: Replica) -> Action:
    if not view.ends(replica):
        # After an outage another server may answer at the same address.
        look = replica.capacity is None or replica.state is not State.READY
        return AskReady(id=replica.id, incarnation=replica.incarnation, look=look)
    if replica.state is State.READY:
        return Cordon(id=replica.id, incarnation=replica.incarnation, reason="stopping")
    return Settle(id=replica.id, incarnation=replica.incarnation)


# --- replicas without a process: start, wait or give up -----------------------------------------------------------


def _idle_due_s(view: FleetView, replica: Replica) -> float:
    if replica.state is State.STOPPED:
        return NEVER_S
    if replica.state is State.CRASH_LOOP and replica.due_s is None and not view.ends(replica):
        return NEVER_S
    if view.ends(replica) or replica.due_s is None:
        return -NEVER_S
    return replica.due_s


def _idle_order(view: FleetView, replica: Replica, now_s: float, rng: RandomSource) -> Action:
    if view.ends(replica):
        return Settle(id=replica.id, incarnation=replica.incarnation)
    if replica.state is State.BACKOFF and replica.due_s is None:
        return _after_failure(view.settings, replica, now_s, rng)
    return Launch(id=replica.id, incarnation=replica.incarnation + 1)


def _after_failure(settings: FleetSettings, replica: Replica, now_s: float, rng: RandomSource) -> Action:
    loop = _crash_loop(settings, replica)
    if loop:
        due_s = None if replica.trouble.final else now_s + settings.crash_loop_retry_s
        again = "" if due_s is None else f"it is tried again every {settings.crash_loop_retry_s / 60:g} min; "
        hint = (
            replica.hint
            or f"{again}see `freehold logs {replica.id}`, fix the cause, then `freehold restart {replica.id}`"
        )
        return GiveUp(id=replica.id, incarnation=replica.incarnation, reason=loop, hint=hint, due_s=due_s)
    delay_s = backoff_s(settings, replica.trouble.row, rng)
    return Schedule(id=replica.id, incarnation=replica.incarnation, due_s=now_s + delay_s, delay_s=delay_s)


def _crash_loop(settings: FleetSettings, replica: Replica) -> str:
    """Return why a failed replica is not to be restarted quickly; empty: it may be."""
    trouble = replica.trouble
    if trouble.final:
        return replica.reason
    if trouble.unready_row >= settings.unready_failures_max:
        return f"failed {trouble.unready_row} times in a row before it was ready; last: {replica.reason}"
    if len(trouble.failures_s) >= settings.window_failures_max:
        span_s = trouble.failures_s[-1] - trouble.failures_s[0]
        return f"failed {len(trouble.failures_s)} times within {span_s:.0f} s; last: {replica.reason}"
    return ""


def backoff_s(settings: FleetSettings, failures: int, rng: RandomSource) -> float:
    """Return the pause before the start that follows `failures` (at least 1) failures in a row, seconds.

    Doubles from `backoff_base_s` up to `backoff_max_s`, then half of it is left to chance, so that replicas that
    failed together do not come back together ("equal jitter": AWS Architecture Blog, Exponential Backoff and
    Jitter, 2015).
    """
    exponent = min(max(failures, 1) - 1, _EXPONENT_MAX)
    full_s = min(settings.backoff_max_s, settings.backoff_base_s * 2.0**exponent)
    return full_s * (0.5 + 0.5 * rng.random())


# --- replicas with a process: check it, end it --------------------------------------------------------------------


def _live_due_s(view: FleetView, replica: Replica, process: Process) -> float:
    if replica.state is State.STOPPING:
        return _reaping_due_s(view, process)
    if replica.stalled and not _waits_its_turn(view, replica):
        return -NEVER_S
    if replica.state is State.DRAINING:
        return min(_drained_s(view, replica), _meter_due_s(replica))
    if replica.after is not After.COUNT:
        return -NEVER_S
    if replica.state is State.STARTING:
        asks = bool(replica.url) and not replica.asking
        return min(_ready_deadline_s(view, process), replica.ask_due_s if asks else NEVER_S)
    return _meter_due_s(replica)


def _live_order(view: FleetView, replica: Replica, process: Process, now_s: float) -> Action:
    if replica.state in {State.STOPPING, State.CRASH_LOOP}:
        return _reaping_order(replica, process)
    if replica.stalled and not _waits_its_turn(view, replica):
        # It accepts no requests, so there is nothing to drain, and a stopped process does not react to SIGTERM either.
        return replace(
            _terminate(view, replica, blame=f"it hung: {replica.stalled}"), grace_s=_STALLED_GRACE_S
        )
    if replica.state is State.DRAINING and now_s >= _drained_s(view, replica):
        return _terminate(view, replica)
    if replica.state is State.STARTING:
        return _starting_order(view, replica, process, now_s)
    if replica.state in {State.READY, State.ASLEEP} and replica.after is not After.COUNT:
        why = "stopping" if replica.after is After.STOP else "restarting"
        return Cordon(id=replica.id, incarnation=replica.incarnation, reason=why)
    return ReadCounters(id=replica.id, incarnation=replica.incarnation)


def _waits_its_turn(view: FleetView, replica: Replica) -> bool:
    """Return whether a stalled replica is to be replaced later: of a model, one at a time.

    If several are reported as stalled at once, it may be a false alarm, and each of them may still recover. One that is to
    end anyway does not wait, and no replica waits for one that leaves.
    """
    if not _hangs(replica) or view.ends(replica):
        return False
    mates = [r for r in view.replicas if r.model == replica.model and not view.ends(r)]
    first = next(r for r in mates if _hangs(r))
    return first.id != replica.id or any(r.mending for r in mates)


def _hangs(replica: Replica) -> bool:
    return bool(replica.stalled) and replica.state is State.READY and replica.after is After.COUNT


def _starting_order(view: FleetView, replica: Replica, process: Process, now_s: float) -> Action:
    if replica.after is not After.COUNT:
        return _terminate(view, replica)
    if now_s >= _ready_deadline_s(view, process):
        waited = f"not ready within {view.settings.ready_timeout_s:g} s"
        return _terminate(view, replica, blame=f"{waited} ({replica.reason})" if replica.reason else waited)
    return AskReady(id=replica.id, incarnation=replica.incarnation, look=True)


def _terminate(view: FleetView, replica: Replica, *, blame: str = "") -> Terminate:
    grace_s = 0.0 if view.hurry else view.settings.stop_grace_s
    return Terminate(id=replica.id, incarnation=replica.incarnation, grace_s=grace_s, blame=blame)


def _reaping_order(replica: Replica, process: Process) -> Action:
    if process.kill_s is None:
        return Kill(id=replica.id, incarnation=replica.incarnation)
    return Abandon(id=replica.id, incarnation=replica.incarnation)


def _ready_deadline_s(view: FleetView, process: Process) -> float:
    return process.ordered_s + view.settings.ready_timeout_s


def _meter_due_s(replica: Replica) -> float:
    return replica.meter.due_s if replica.metered and not replica.meter.under_way else NEVER_S


def _drained_s(view: FleetView, replica: Replica) -> float:
    """Return when a cordoned replica may be ended: now, if a reading since the cordon found no request running."""
    settled_s = replica.since_s + view.settings.drain_settle_s
    idle = replica.meter.running == 0 and replica.meter.asked_s >= settled_s
    return -NEVER_S if view.drained or idle else replica.since_s + view.settings.drain_s


def _reaping_due_s(view: FleetView, process: Process) -> float:
    if process.kill_s is not None:
        return process.kill_s + view.settings.abandon_s
    if view.hurry or process.terminate_s is None:
        return -NEVER_S
    return process.terminate_s + view.settings.stop_grace_s + view.settings.kill_margin_s
