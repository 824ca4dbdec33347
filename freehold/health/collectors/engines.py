"""Reads every engine of this node: its own counters, its processes, what the gateway sees of it, and a canary when idle.

The fleet says which engines there are (`EngineTarget`); this module asks them. Counters are asked for at each
look while requests run and less often when none do. The canary, one tiny completion, goes out only where nothing is under
way, at most once a minute, and never to an external endpoint: it might cost money. Nothing here judges.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from freehold.core.clock import SYSTEM_CLOCK, Clock
from freehold.core.events import ReplicaState
from freehold.engines import all_engines
from freehold.engines.base import Engine
from freehold.engines.shared.metrics_page import read_metrics, shows_progress
from freehold.health.collectors.plain_http import Got, fetch
from freehold.health.collectors.process_group import ProcessGroup
from freehold.health.model.targets import EngineTarget
from freehold.health.model.view import EngineView, Reading, State

IDLE_EVERY_S = 10.0
"""Between two questions for the counters of an engine that has nothing to do. Source: our own choice."""
_WORK = frozenset({"running_requests", "waiting_requests"})
_NO_PROGRESS = _WORK | {"awake_engines"}
_CANNOT_ANSWER = frozenset("TtXZ")
"""States of a process group in which it cannot answer. Source: proc(5)."""
_NOT_ASKED = Reading(state=State.TRANSIENT, detail="not asked: nothing is under way")
_NO_COUNTERS = Reading(state=State.UNSUPPORTED, detail="this engine has no counters that we know of")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How to ask."""

    deadline_s: float = 1.5
    """For the counters. An engine that is busy answers late or not: that is a reading, and no fault by itself."""
    canary_every_s: float = 60.0
    canary_deadline_s: float = 30.0
    """A one-token completion takes 20 ms on an idle engine; a machine that is overloaded a hundred times may take this."""
    root: Path = Path("/")
    clock: Clock = SYSTEM_CLOCK


@dataclass(slots=True)
class _Canary:
    """The tiny completions of one engine."""

    due_s: float
    last: Reading = field(default_factory=lambda: Reading(state=State.UNKNOWN, detail="not asked yet"))
    task: "asyncio.Task[None] | None" = None
    began_s: float = 0.0


@dataclass(slots=True)
class _EngineMemory:
    """What is remembered of one replica between two looks."""

    group: ProcessGroup | None
    canary: _Canary
    asked_s: float = float("-inf")
    idle: bool = False
    """By its own last counters nothing was under way."""
    tokens: float | None = None


class EnginesReader:
    """Gives the view's engines; `targets` may be set anew at any time."""

    def __init__(
        self, options: EngineOptions | None = None, engines: Mapping[str, Engine] | None = None
    ) -> None:
        self.targets: Sequence[EngineTarget] = ()
        self._options = options or EngineOptions()
        self._engines = all_engines() if engines is None else engines
        self._known: dict[str, _EngineMemory] = {}

    async def read(self) -> tuple[EngineView, ...]:
        """Return one view per target, in their order; takes at most little more than the deadline."""
        targets = tuple(self.targets)
        for gone in self._known.keys() - {target.replica for target in targets}:
            self._forget(gone)
        return tuple(await asyncio.gather(*(self._one(target) for target in targets)))

    async def close(self) -> None:
        """Cancel what is under way."""
        for name in list(self._known):
            self._forget(name)

    def _forget(self, name: str) -> None:
        known = self._known.pop(name)
        if known.canary.task is not None:
            known.canary.task.cancel()

    def _of(self, target: EngineTarget) -> _EngineMemory:
        known = self._known.get(target.replica)
        if known is None or (known.group.pid if known.group else 0) != target.pid:
            if known is not None:
                self._forget(target.replica)
            options = self._options
            group = ProcessGroup(target.pid, root=options.root, clock=options.clock) if target.pid else None
            due_s = options.clock.monotonic_s() + options.canary_every_s
            known = self._known[target.replica] = _EngineMemory(group, _Canary(due_s))
        return known

    async def _one(self, target: EngineTarget) -> EngineView:
        known, engine = self._of(target), self._engines[target.engine]
        view = EngineView(
            replica=target.replica,
            engine=target.engine,
            pid=target.pid,
            gateway_running=target.running,
            gateway_progress=target.progress,
            exit_text=target.exit_text,
            serves=target.state,
            stall_s=target.stall_s or engine.stall_s,
        )
        if known.group is not None:
            state, cpu_s = known.group.read(threads=not known.idle)
            reading = (
                Reading(state=State.ABSENT, detail="no such process")
                if cpu_s is None
                else Reading(value=cpu_s)
            )
            view = msgspec.structs.replace(
                view, process_state=state, cpu_s=reading, processes=known.group.members
            )
        serves = bool(target.url) and target.state == ReplicaState.READY
        asks = serves and view.process_state not in _CANNOT_ANSWER
        if asks:
            view = await self._counted(view, target, engine, known)
        elif serves:
            known.idle = False
            unasked = Reading(
                state=State.HUNG, detail=f"not asked: its process is in state {view.process_state}"
            )
            view = msgspec.structs.replace(view, tokens_total=unasked, running=unasked, state=State.HUNG)
        if target.state == ReplicaState.ASLEEP:
            self._drop_canary(known)
        if asks and engine.managed:
            self._start_canary(target, engine, known)
        canary = known.canary
        waits_s = self._options.clock.monotonic_s() - canary.began_s if canary.task is not None else 0.0
        return msgspec.structs.replace(view, canary=canary.last, canary_waits_s=waits_s)

    # --- counters -------------------------------------------------------------------------------------------------

    async def _counted(
        self, view: EngineView, target: EngineTarget, engine: Engine, known: _EngineMemory
    ) -> EngineView:
        if engine.metrics_path is None or target.url.startswith("https://"):
            known.idle = target.running == 0
            return msgspec.structs.replace(view, tokens_total=_NO_COUNTERS, running=_NO_COUNTERS)
        now_s = self._options.clock.monotonic_s()
        if known.idle and target.running == 0 and now_s - known.asked_s < IDLE_EVERY_S:
            return msgspec.structs.replace(view, tokens_total=_NOT_ASKED, running=Reading(value=0))
        known.asked_s = now_s
        tokens, running, state = await self._ask(target, engine)
        moved = tokens.value != known.tokens
        known.tokens = float(tokens.value) if isinstance(tokens.value, int | float) else None
        known.idle = running.value == 0 and not target.running and not moved
        return msgspec.structs.replace(view, tokens_total=tokens, running=running, state=state)

    async def _ask(self, target: EngineTarget, engine: Engine) -> tuple[Reading, Reading, State]:
        """Return progress, requests under way, and how asking went."""
        try:
            page = await self._page(target, engine)
            running = _sum(page, _WORK)
            progress = _sum(page, page.keys() - _NO_PROGRESS)
            if engine.unfinished is not None and running.value:
                slots = await self._get(target, engine.unfinished.path)
                progress = _plus(progress, engine.unfinished.tokens(slots.body))
        except TimeoutError:
            failed = Reading(state=State.HUNG, detail=f"no answer within {self._options.deadline_s:g} s")
        except (ConnectionRefusedError, FileNotFoundError):
            failed = Reading(state=State.ABSENT, detail="it refuses connections")
        except (OSError, ValueError) as exc:
            failed = Reading(state=State.UNKNOWN, detail=f"{type(exc).__name__}: {exc}"[:200])
        else:
            return progress, running, State.OK
        return failed, failed, failed.state

    async def _page(self, target: EngineTarget, engine: Engine) -> Mapping[str, float]:
        """Return its counters by our names; where versions differ in their pages, one that is missing is not a failure."""
        page: Mapping[str, float] = {}
        try:
            got = await self._get(target, str(engine.metrics_path))
            page = read_metrics(got.body.decode("utf-8", "replace"), engine.metrics)
        except ValueError:
            if not engine.more_pages:
                raise
        for more in engine.more_pages:
            if shows_progress(page):
                break
            page = {**more.read((await self._get(target, more.path)).body), **page}
        return page

    async def _get(self, target: EngineTarget, path: str) -> Got:
        got = await fetch(target.url, path, deadline_s=self._options.deadline_s, key=target.key)
        if got.status != 200:
            raise ValueError(f"{path} answered {got.status}")
        return got

    # --- the canary -----------------------------------------------------------------------------------------------

    def _start_canary(self, target: EngineTarget, engine: Engine, known: _EngineMemory) -> None:
        """Send a tiny completion where one is due and nothing is under way."""
        canary, now_s = known.canary, self._options.clock.monotonic_s()
        if not known.idle:
            canary.due_s = max(canary.due_s, now_s + self._options.canary_every_s)
        elif canary.task is None and now_s >= canary.due_s:
            canary.due_s, canary.began_s = now_s + self._options.canary_every_s, now_s
            canary.task = asyncio.get_running_loop().create_task(self._complete(target, engine, canary))

    def _drop_canary(self, known: _EngineMemory) -> None:
        """Drop the completion that was under way when its engine fell asleep: a missing answer means nothing then."""
        if known.canary.task is not None:
            known.canary.task.cancel()
        known.canary = _Canary(self._options.clock.monotonic_s() + self._options.canary_every_s)

    async def _complete(self, target: EngineTarget, engine: Engine, canary: _Canary) -> None:
        check, clock = target.proof or engine.ready(target.model), self._options.clock
        body = None if check.body is None else msgspec.json.encode(check.body)
        deadline_s = self._options.canary_deadline_s
        try:
            got = await fetch(target.url, check.path, deadline_s=deadline_s, body=body, key=target.key)
            took_s = clock.monotonic_s() - canary.began_s
            canary.last = (
                Reading(value=took_s)
                if got.status < 400
                else Reading(state=State.UNKNOWN, detail=f"it answered {got.status}")
            )
        except TimeoutError:
            canary.last = Reading(state=State.HUNG, detail=f"no answer within {deadline_s:g} s")
        except (OSError, ValueError) as exc:
            canary.last = Reading(state=State.UNKNOWN, detail=f"{type(exc).__name__}: {exc}"[:200])
        finally:
            canary.task = None


def _sum(page: Mapping[str, float], names: "frozenset[str] | set[str]") -> Reading:
    found = [page[name] for name in names if name in page]
    return Reading(value=sum(found)) if found else _NO_COUNTERS


def _plus(progress: Reading, tokens: float | None) -> Reading:
    if tokens is None or not isinstance(progress.value, int | float):
        return progress
    return Reading(value=progress.value + tokens)
