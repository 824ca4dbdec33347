"""Whether each engine makes progress: progressing, idle, busy, stalled or dead. `/health` alone proves nothing.

Liveness is progress: while requests run, the engine's own counters or the bytes that the gateway gets must move. If they do
not, CPU time, a running thread or a GPU at work make the engine busy, as a long prompt does; busy is never stalled. An
engine that sleeps with requests under way, or whose process is stopped, is stalled. One that works on and on while the gateway
has no request there works for no client. The check judges by what moved, never by how fast, and it cannot see that an answer
is nonsense.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise, takewhile

from freehold.core.findings import Action, Evidence
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.rule_result import RuleResult
from freehold.health.judge.series import named, number
from freehold.health.model.probe import Expected
from freehold.health.model.view import EngineView, State, View

DECLARED = declared(__name__)
STILL_S = DECLARED.limit("still_s")
CPU_SHARE = DECLARED.limit("cpu_share")
GPU_PERCENT = DECLARED.limit("gpu_percent")
GPU_BUSY_S = DECLARED.limit("gpu_busy_s")
NO_PROGRESS_S = DECLARED.limit("no_progress_s")
UNANSWERED_S = DECLARED.limit("unanswered_s")
REMOTE_STILL_S = DECLARED.limit("remote_still_s")
NO_CLIENT_S = DECLARED.limit("no_client_s")

FRESH_S = 30.0
"""GPU readings older than this say nothing of now. Source: our own choice, three of the agent's periods."""
_GONE = frozenset({"backoff", "crash_loop"})
_NOT_SERVING = frozenset({"pending", "starting", "asleep", "draining", "stopping", "stopped"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """One look at one engine, with what is known from looks before where this one could not ask."""

    at_s: float
    """Monotonic."""
    view: EngineView
    works: bool
    """A request is under way there, ours included, as far as is known."""
    moved: bool
    """A counter or the gateway's count differs from the last one known."""

    @property
    def has_no_client(self) -> bool:
        """Return whether it has a request, or does not answer, while the gateway has none there."""
        has_request = bool(number(self.view.running)) or self.view.state is State.HUNG
        return has_request and self.view.gateway_running == 0 and not self.view.canary_waits_s


@dataclass(frozen=True, slots=True, kw_only=True)
class _EngineWindow:
    """One engine over the window, of its present process."""

    points: tuple[_Point, ...]
    """Oldest first, at least one."""
    gpu_percent: float
    """The most that any GPU of the node is used now."""
    at_s: float

    @property
    def now(self) -> EngineView:
        return self.points[-1].view

    @property
    def now_s(self) -> float:
        return self.points[-1].at_s

    def since(self, seconds: float) -> tuple[_Point, ...]:
        """Return the points of the last `seconds`, and the one before them."""
        start = self.now_s - seconds
        first = max((index for index, point in enumerate(self.points) if point.at_s <= start), default=0)
        return self.points[first:]

    def still_s(self) -> float:
        """Return how long no counter has moved while there was work; the whole time in view where none ever did."""
        for before, after in reversed(tuple(pairwise(self.points))):
            if after.moved or not before.works:
                return self.now_s - after.at_s
        return self.now_s - self.points[0].at_s

    def no_client_s(self) -> float:
        """Return how long it has worked on what was not, or no longer, the gateway's; 0: it has not.

        Requests that arrived since count only if something has moved: else they wait behind that work.
        """
        newest = tuple(reversed(self.points))
        alone = tuple(takewhile(lambda point: point.has_no_client, newest))
        still = tuple(takewhile(lambda point: not point.moved and _has_work(point), newest))
        groups = groupby(reversed(still), lambda point: point.has_no_client)
        spans = [tuple(points) for has_none, points in groups if has_none]
        # A single look may be older than the gateway's report of a new request.
        starts = [span[0].at_s for span in spans if span[-1].at_s - span[0].at_s >= STILL_S]
        return self.now_s - min([alone[-1].at_s if alone else self.now_s, *starts])

    def cpu_share(self, seconds: float) -> float | None:
        """Return the part of a core that its processes took in the last `seconds`; None: not known."""
        known = [
            (point.at_s, cpu_s)
            for point in self.since(seconds)
            if (cpu_s := number(point.view.cpu_s)) is not None
        ]
        if len(known) < 2 or known[-1][0] <= known[0][0]:
            return None
        return max(0.0, known[-1][1] - known[0][1]) / (known[-1][0] - known[0][0])

    def states(self, seconds: float) -> set[str]:
        """Return what the processes were doing at the looks of the last `seconds`."""
        start = self.now_s - seconds
        return {point.view.process_state for point in self.points if point.at_s >= start}


def _judge(views: Sequence[View], _expected: Expected) -> Iterator[tuple[str, RuleResult]]:
    engines, percent = views[-1].engines, _gpu_percent(views)
    if engines is None:
        yield "engine", result.unknown("not_read", "the engines were not read")
    elif not engines:
        yield "engine", result.not_applicable("no_engine", "no engine runs here")
    for engine in engines or ():
        seen = _EngineWindow(points=tuple(_points(views, engine)), gpu_percent=percent, at_s=views[-1].at_s)
        found = replace(_at_rest(seen.now) or _at_work(seen), evidence=tuple(_evidence(seen)))
        yield f"engine:{engine.replica}", found


def _points(views: Sequence[View], engine: EngineView) -> Iterator[_Point]:
    tokens: float | None = None
    running: float | None = None
    passed: int | None = None
    for view in views:
        for each in view.engines or ():
            if each.replica != engine.replica or each.pid != engine.pid:
                continue
            now = number(each.tokens_total)
            moved = _differs(tokens, now) or _differs(passed, each.gateway_progress)
            tokens = tokens if now is None else now
            passed = passed if each.gateway_progress is None else each.gateway_progress
            running = running if (count := number(each.running)) is None else count
            works = _works(each, running)
            yield _Point(at_s=view.monotonic_s, view=each, works=works, moved=moved)


def _differs(before: float | None, now: float | None) -> bool:
    return before is not None and now is not None and before != now


def _works(view: EngineView, running: float | None) -> bool:
    """Return whether a request is under way; the engine's last reading counts where there is no newer one."""
    if view.canary_waits_s or view.gateway_running or number(view.running):
        return True
    return bool(running) and view.gateway_running is None and view.state is not State.OK


def _has_work(point: _Point) -> bool:
    return point.works or point.has_no_client


def _gpu_percent(views: Sequence[View]) -> float:
    recent = (view for view in reversed(views) if view.monotonic_s >= views[-1].monotonic_s - FRESH_S)
    gpus = next((view.gpus for view in recent if view.gpus is not None), None)
    found = (named(gpu.readings, "utilisation_percent") for gpu in (gpus.gpus if gpus else ()))
    return max((value for value in found if value is not None), default=0.0)


# --- what needs no counters -----------------------------------------------------------------------------------------


def _at_rest(now: EngineView) -> RuleResult | None:
    """Return what process and fleet show without the engine's work; None: its work has to be looked at."""
    if now.serves in _GONE or (now.exit_text and not now.pid):
        why = now.exit_text or "it ended"
        return result.unhealthy("dead", f"no process: {why}", Action.WATCH)
    if now.process_state in ("X", "Z"):
        message = f"its process {now.pid} has ended"
        return result.unhealthy("dead", message, Action.WATCH)
    if now.process_state == "T":
        return result.unhealthy(
            "stalled", f"its process {now.pid} is stopped (state T): it cannot work", Action.RESTART_ENGINE
        )
    if now.serves in _NOT_SERVING:
        return result.not_applicable("not_serving", f"it is {now.serves}")
    return None


# --- with and without work ------------------------------------------------------------------------------------------


def _at_work(seen: _EngineWindow) -> RuleResult:
    if not any(_is_readable(point.view) for point in seen.since(UNANSWERED_S)):
        return _unreadable(seen.now)
    if _has_no_client(seen):
        message = f"it has worked for {seen.no_client_s():.0f} s, and not on a request of the gateway"
        return result.unhealthy("no_client", message, Action.RESTART_ENGINE)
    if not seen.points[-1].works:
        return _idle(seen)
    still_s = seen.still_s()
    if still_s < STILL_S:
        return result.healthy("progressing", f"{_how_many(seen.now)} under way, and it makes progress")
    share = seen.cpu_share(still_s)
    if _is_busy(seen, share, still_s):
        return _busy(still_s, share)
    return _still(seen, share, still_s)


def _is_busy(seen: _EngineWindow, share: float | None, still_s: float) -> bool:
    recent = seen.cpu_share(STILL_S)
    at_work = (recent or 0.0) >= CPU_SHARE or "R" in seen.states(STILL_S)
    on_gpu = seen.gpu_percent >= GPU_PERCENT and still_s < GPU_BUSY_S
    held = "t" in seen.states(STILL_S)  # a debugger holds it, which is on purpose
    return at_work or on_gpu or held or (share is None and still_s < _remote_limit_s(seen.now))


def _remote_limit_s(now: EngineView) -> float:
    """Return how long an engine may be still whose processes are not seen; with processes, one look more decides."""
    return STILL_S if now.process_state else max(REMOTE_STILL_S, now.stall_s)


def _has_no_client(seen: _EngineWindow) -> bool:
    """Return whether an engine of this node works for no client for longer than it may need to notice that one has left."""
    limit_s = max(NO_CLIENT_S, seen.now.stall_s or REMOTE_STILL_S)
    at_work = (seen.cpu_share(NO_CLIENT_S) or 0.0) >= CPU_SHARE
    return bool(seen.now.pid) and at_work and seen.no_client_s() >= limit_s


def _busy(still_s: float, share: float | None) -> RuleResult:
    cpu = "CPU time not known" if share is None else f"{share:.2f} cores of CPU time"
    if still_s >= NO_PROGRESS_S:
        message = f"it works ({cpu}), but nothing has come of it for {still_s:.0f} s"
        return result.degraded("no_progress", message, Action.WATCH)
    return result.healthy("busy", f"nothing has moved for {still_s:.0f} s, but it works ({cpu})")


def _still(seen: _EngineWindow, share: float | None, still_s: float) -> RuleResult:
    """Return what an engine is that has work and neither moves nor works."""
    now = seen.now
    state = f"{_how_many(now)} under way, nothing has moved for {still_s:.0f} s"
    if share is None:
        message = f"{state}; its processes cannot be seen"
        return result.degraded("no_progress", message, Action.WATCH)
    if "D" in seen.states(STILL_S):
        message = f"{state}: its threads wait in the kernel (state D)"
        return result.unhealthy("blocked", message, Action.WATCH)
    if number(now.running) == 0 and not now.canary_waits_s:
        # The engine has none: the gateway's requests may be on their way to slow clients.
        message = f"{state} by the gateway's count, while the engine knows of none"
        if still_s >= max(REMOTE_STILL_S, now.stall_s):
            return result.degraded("no_progress", message, Action.WATCH)
        return result.healthy("idle", message)
    message = f"{state} and it used {share:.3f} cores of CPU time: it hangs"
    return result.unhealthy("stalled", message, Action.RESTART_ENGINE)


def _idle(seen: _EngineWindow) -> RuleResult:
    now = seen.now
    if now.canary.state is State.HUNG:
        message = f"a tiny completion got no answer: {now.canary.detail}"
        return result.unhealthy("canary_failed", message, Action.RESTART_ENGINE)
    recent = seen.since(UNANSWERED_S)
    if seen.now_s - recent[0].at_s < UNANSWERED_S or any(p.view.state is not State.HUNG for p in recent):
        return result.healthy("idle", "no request is under way")
    if (seen.cpu_share(UNANSWERED_S) or 0.0) >= CPU_SHARE:
        return result.healthy("busy", f"it has not answered for {UNANSWERED_S:.0f} s, but it works")
    message = f"no answer for {UNANSWERED_S:.0f} s, and no CPU time used"
    return result.degraded("unresponsive", message, Action.RESTART_ENGINE)


def _is_readable(view: EngineView) -> bool:
    """Return whether a look has any reading of the engine's work: its own, its processes', or the gateway's."""
    by_itself = view.state is State.OK and number(view.running) is not None
    return by_itself or number(view.cpu_s) is not None or view.gateway_running is not None


def _unreadable(now: EngineView) -> RuleResult:
    message = f"it cannot be read: {now.tokens_total.detail or now.state}"
    return result.unknown("unreadable", message)


# --- one look -------------------------------------------------------------------------------------------------------


def _how_many(view: EngineView) -> str:
    count = round(max(number(view.running) or 0, view.gateway_running or 0, view.canary_waits_s > 0))
    return "1 request" if count == 1 else f"{count} requests"


def _evidence(seen: _EngineWindow) -> Iterator[Evidence]:
    now, at_s = seen.now, seen.at_s
    for what, reading in (("counters", now.tokens_total), ("requests running", now.running)):
        count = number(reading)
        value = str(reading.state) if count is None else f"{count:g}"
        yield Evidence(what=what, value=value, source="engine metrics", at_s=at_s)
    if now.gateway_running is not None:
        yield Evidence(what="requests under way", value=str(now.gateway_running), source="gateway", at_s=at_s)
    share = seen.cpu_share(STILL_S)
    if share is not None:
        value = f"{share:.3f} cores over {STILL_S:.0f} s"
        yield Evidence(what="CPU time", value=value, source="/proc/PID/stat", at_s=at_s)
    if now.process_state:
        yield Evidence(what="process state", value=now.process_state, source="/proc/PID/stat", at_s=at_s)


PROBE = DECLARED.probe_of(_judge)
