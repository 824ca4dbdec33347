"""The fleet at work: one task is the single writer of the view; facts come in through one bounded queue, orders go out.

It gets orders from `decide`, applies each to the view with `state.apply`, carries it out, and publishes a new snapshot when
something changed. It has no rule of its own. One of the four guards of the house: an exception in carrying
out an order or in a callback is logged and counted, and the fleet keeps running.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec

from freehold.core.clock import SYSTEM_CLOCK, Clock
from freehold.core.errors import FreeholdError
from freehold.core.events import ReplicaState, ReplicaStatus, Snapshot
from freehold.core.problems import Problem, nearest_hint
from freehold.engines.base import ExitCause, ExitKind, HttpCheck
from freehold.fleet.decisions import rollout
from freehold.fleet.decisions.decide import NEVER_S, RandomSource, all_stopped, decide, next_due_s
from freehold.fleet.decisions.events import (
    Action,
    Add,
    Answered,
    AskReady,
    ChangeAsked,
    CountersRead,
    Exited,
    Fact,
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
    Stalled,
    Started,
    StopAsked,
    Terminate,
    Unanswered,
)
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan
from freehold.fleet.decisions.publish import build_snapshot
from freehold.fleet.decisions.state import apply, first_view
from freehold.fleet.probe import CounterReading, HttpProber, Prober, ReadinessAnswer
from freehold.fleet.processes.launch_process import (
    EngineEnding,
    EngineExited,
    EngineLaunch,
    EngineStarted,
    Launcher,
    ProcessLauncher,
    Report,
)
from freehold.telemetry.logs import get_logger

_QUEUE_FACTS = 256
"""Facts that wait, besides `_QUEUE_FACTS_PER_REPLICA`; a further request of an operator is rejected."""
_QUEUE_FACTS_PER_REPLICA = 16
"""One incarnation has at most five facts under way: started, ending, exited, one answer, one reading."""
_PASSES_MAX = 32
"""Rounds of orders at one instant. A replica's longest chain is cordon, terminate, kill: more is a bug."""
_MISTAKE_PAUSE_S = 1.0
"""Pause after a bug of Freehold's own, so that a repeated one does not use up the machine."""
_log = get_logger("fleet.run")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything outside the fleet that it uses; tests pass their own."""

    launcher: Launcher
    prober: Prober
    clock: Clock
    rng: RandomSource


def this_machine(settings: FleetSettings) -> World:
    """Return the real ones: child processes, HTTP, the system's clock and random numbers."""
    return World(
        launcher=ProcessLauncher(settings),
        prober=HttpProber(settings),
        clock=SYSTEM_CLOCK,
        rng=random.Random(),  # noqa: S311 (no secret)
    )


class Fleet:
    """A set of replicas kept as planned. All methods are for the event loop's own thread.

    `on_snapshot` is called with each new snapshot, generation 1 first, and must not wait.
    """

    def __init__(
        self,
        plans: Sequence[ReplicaPlan],
        settings: FleetSettings,
        *,
        on_snapshot: Callable[[Snapshot], None],
        world: World | None = None,
    ) -> None:
        ids = [plan.id for plan in plans]
        assert len(set(ids)) == len(ids), f"replica ids repeat: {ids}"
        self.errors_total = 0
        """Exceptions that the guard has caught."""
        self.finished = asyncio.Event()
        """Set when `run` has returned: no process of the fleet is left."""
        self._wanted = tuple(plans)
        self._by_id = {plan.id: plan for plan in plans}
        """The plan of each present replica."""
        self._incarnations: dict[str, int] = {}
        """The last incarnation of replicas that are forgotten."""
        self._world = world or this_machine(settings)
        self._on_snapshot = on_snapshot
        now_s = self._world.clock.monotonic_s()
        self._wall_offset_s = self._world.clock.wall_s() - now_s
        self._view = first_view(plans, settings, now_s)
        self._snapshot = Snapshot(generation=0)
        self._queue: asyncio.Queue[Fact] = asyncio.Queue()  # bounded in `_post`, by the replicas there are
        self._launches: dict[str, EngineLaunch] = {}
        self._questions: dict[str, set[asyncio.Task[None]]] = {plan.id: set() for plan in plans}

    @property
    def snapshot(self) -> Snapshot:
        """Return the latest snapshot; generation 0 before `run`."""
        return self._snapshot

    def statuses(self) -> tuple[ReplicaStatus, ...]:
        """Return the status of each replica, in the user's order."""
        return self._snapshot.replicas

    def request_stop(self, *, drained: bool = False, now: bool = False) -> None:
        """Begin to end everything: cordon, drain, SIGTERM, grace, SIGKILL; `run` returns when all is over.

        `drained`: the caller knows that no request is running, so SIGTERM is sent without waiting.
        `now`: no wait at all (a second Ctrl-C). May be called again with a shorter wait.
        """
        self._post(StopAsked(drained=drained, hurry=now))

    def restart(self, replica_id: str) -> Problem | None:
        """Begin to restart a replica (draining it first if it serves), also out of a crash loop.

        Returns why it is not possible, or None when it has begun; the outcome is in the statuses.
        """
        replica = self._view.find(replica_id)
        if replica is None:
            message = f"there is no replica {replica_id!r}"
            return Problem(where="restart", message=message, hint=nearest_hint(replica_id, self._by_id))
        if self._view.stopping:
            return Problem(where="restart", message="the fleet is stopping")
        if replica.process is not None and replica.state is ReplicaState.CRASH_LOOP:
            return Problem(where="restart", message=replica.reason, hint=replica.hint)
        if not self._post(RestartAsked(id=replica_id)):
            return Problem(
                where="restart", message="too many requests to the fleet are waiting", hint="try again"
            )
        return None

    def stalled(self, replica_id: str, *, pid: int, reason: str) -> bool:
        """Begin to replace the process `pid` of a stalled replica; False: it is another process now, or is ending.

        The caller has observed it for long enough: it must never pass an engine that is only busy. Of a model one
        replica at a time is replaced; the others wait until it is ready again or has failed.
        """
        replica = self._view.find(replica_id)
        if replica is None or replica.process is None or replica.process.pid != pid or replica.stalled:
            return False
        if replica.state not in {ReplicaState.READY, ReplicaState.DRAINING}:
            return False
        _log.error("engine hangs", replica=replica_id, pid=pid, reason=reason)
        return self._post(Stalled(id=replica_id, incarnation=replica.incarnation, reason=reason))

    def proofs(self) -> dict[str, HttpCheck]:
        """Return, by id, the tiny request that proves that a managed replica works."""
        managed = ((name, plan) for name, plan in self._by_id.items() if plan.engine.managed)
        return {name: plan.engine.proof(plan.name_upstream, plan.options) for name, plan in managed}

    def recovered(self, replica_id: str, *, pid: int) -> bool:
        """Withdraw that the process `pid` of a replica is stalled; False: it was not reported, or is already being ended."""
        replica = self._view.find(replica_id)
        if replica is None or not replica.stalled or replica.state is not ReplicaState.READY:
            return False
        if replica.process is None or replica.process.pid != pid:
            return False
        _log.info("engine works again", replica=replica_id, pid=pid)
        return self._post(Recovered(id=replica_id, incarnation=replica.incarnation))

    def change(self, plans: Sequence[ReplicaPlan], settings: FleetSettings) -> bool:
        """Begin to change to other replicas, those that serve last (`rollout`); False: too many requests are waiting.

        If nothing differs, nothing happens. `done` becomes True at the end.
        """
        return self._post(ChangeAsked(plans=tuple(plans), settings=settings))

    @property
    def queue_is_empty(self) -> bool:
        """Return whether no fact and no request is waiting."""
        return self._queue.empty()

    @property
    def done(self) -> bool:
        """Return whether the present replicas are the wanted ones, and no change is waiting."""
        return self.queue_is_empty and rollout.done(self.held(), self._wanted)

    async def run(self) -> None:
        """Keep the replicas as planned until a stop is requested and everything has ended.

        If cancelled, it still ends everything it started (`Launcher.close`) before it returns.
        """
        try:
            self._guarded("first snapshot", self._publish)
            self._guarded("first step", lambda: self._step(None))
            while not all_stopped(self._view):
                await self._turn()
        finally:
            await self._close()
            self.finished.set()

    async def _turn(self) -> None:
        try:
            self._step(await self._next_fact())
        except Exception:  # noqa: BLE001 (guard: a mistake of ours must not leave engines unwatched)
            self.errors_total += 1
            _log.exception("mistake of our own", what="step")
            await asyncio.sleep(_MISTAKE_PAUSE_S)

    async def _next_fact(self) -> Fact | None:
        """Return the next fact, or None when it is time to decide again without one."""
        due_s = next_due_s(self._view)
        wait_s = None if due_s == NEVER_S else max(0.0, due_s - self._world.clock.monotonic_s())
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                return await self._queue.get()
        return None

    def _step(self, fact: Fact | None) -> None:
        now_s = self._world.clock.monotonic_s()
        if isinstance(fact, ChangeAsked):
            self._wanted = fact.plans
        if fact is not None:
            self._view = apply(self._view, fact, now_s)
        for _ in range(_PASSES_MAX):
            actions: Sequence[Action | Move] = decide(self._view, now_s, self._world.rng) or self._moves()
            if not actions:
                break
            for action in actions:
                self._before(action)
                self._view = apply(self._view, action, now_s)
                self._perform(action)
            self._publish()  # in between as well: DRAINING is published before the end is ordered
        else:
            raise AssertionError(f"decide does not come to rest: {actions}")
        self._publish()

    def _publish(self) -> None:
        generation = self._snapshot.generation + 1
        snapshot = build_snapshot(
            self._view,
            list(self._by_id.values()),
            generation=generation,
            wall_offset_s=self._wall_offset_s,
            wanted=self._wanted,
        )
        before = {status.id: status for status in self._snapshot.replicas}
        if msgspec.structs.replace(snapshot, generation=generation - 1) == self._snapshot:
            return
        self._snapshot = snapshot
        for status in snapshot.replicas:
            if status.id not in before or before[status.id].state is not status.state:
                _log.info("replica", replica=status.id, state=str(status.state), reason=status.reason)
        self._guarded("on_snapshot", lambda: self._on_snapshot(snapshot))

    # --- changes --------------------------------------------------------------------------------------------------

    def held(self) -> list[rollout.HeldReplica]:
        """Return the present replicas, those being ended included."""
        return [
            rollout.HeldReplica(
                plan=self._by_id[replica.id],
                state=replica.state,
                leaving=replica.leaving,
                has_process=replica.process is not None,
            )
            for replica in self._view.replicas
        ]

    def _moves(self) -> list[Move]:
        if self._view.stopping:
            return []
        found = rollout.moves(self.held(), self._wanted)
        return [replace(m, base=self._last_incarnation(m.id)) if isinstance(m, Add) else m for m in found]

    def _last_incarnation(self, replica_id: str) -> int:
        replica = self._view.find(replica_id)
        return replica.incarnation if replica else self._incarnations.get(replica_id, 0)

    def _before(self, action: Action | Move) -> None:
        """Update the tables of present replicas."""
        if isinstance(action, Add):
            self._by_id[action.id] = action.plan
            self._questions[action.id] = set()
        elif isinstance(action, Forget):
            self._incarnations[action.id] = self._last_incarnation(action.id)
            self._launches.pop(action.id, None)
            del self._by_id[action.id]
            for question in self._questions.pop(action.id):
                question.cancel()
        if isinstance(action, Add | Leave | Forget):
            _log.info("rollout", replica=action.id, move=type(action).__name__.lower())

    # --- orders ---------------------------------------------------------------------------------------------------

    def _perform(self, action: Action | Move) -> None:
        if isinstance(action, Launch):
            self._launch(action)
        elif isinstance(action, AskReady):
            self._question(action.id, self._ask(action, self._url(action.id)))
        elif isinstance(action, ReadCounters):
            self._question(action.id, self._measure(action, self._url(action.id)))
        elif isinstance(action, Terminate | Kill):
            self._end(action)
        elif isinstance(action, Schedule):
            _log.info("restart due", replica=action.id, delay_s=round(action.delay_s, 3))
        elif isinstance(action, GiveUp):
            _log.error("crash loop", replica=action.id, reason=action.reason, hint=action.hint)

    def _url(self, replica_id: str) -> str:
        replica = self._view.find(replica_id)
        return replica.url if replica else ""

    def _launch(self, order: Launch) -> None:
        for question in self._questions[order.id]:
            question.cancel()
        self._launches.pop(order.id, None)
        try:
            self._launches[order.id] = self._world.launcher.launch(
                self._by_id[order.id], lambda report: self._reported(order, report)
            )
        except FreeholdError as exc:
            self._launch_failed(order, exc.message, exc.hint)
        except Exception as exc:  # noqa: BLE001 (guard: an engine file's mistake is that replica's failure)
            self.errors_total += 1
            _log.exception("mistake of our own", what="launch", replica=order.id)
            self._launch_failed(order, f"{type(exc).__name__}: {exc}", "")

    def _end(self, order: Terminate | Kill) -> None:
        launch = self._launches.get(order.id)
        if launch is None:  # it could not be launched; its exit is in the queue
            return
        if isinstance(order, Kill):
            self._guarded("kill", launch.kill)
        else:
            self._guarded("stop", lambda: launch.stop(order.grace_s))

    def _launch_failed(self, order: Launch, message: str, hint: str) -> None:
        cause = ExitCause(kind=ExitKind.UNKNOWN, summary=f"could not be started: {message}", hint=hint)
        self._post(Exited(id=order.id, incarnation=order.incarnation, cause=cause))

    def _reported(self, order: Launch, report: Report) -> None:
        about = (order.id, order.incarnation)
        if isinstance(report, EngineStarted):
            self._post(
                Started(id=about[0], incarnation=about[1], pid=report.pid, url=report.url, key=report.key)
            )
        elif isinstance(report, EngineEnding):
            cause = self._explain(order.id, report)
            self._post(MainProcessGone(id=about[0], incarnation=about[1], cause=cause))
        else:
            self._post(Exited(id=about[0], incarnation=about[1], cause=self._exit_cause(order.id, report)))

    def _exit_cause(self, replica_id: str, report: EngineExited) -> ExitCause:
        _log.info(
            "engine exited",
            replica=replica_id,
            exit_code=report.code,
            log_dropped_bytes=report.log_dropped_bytes,
            failure=report.failure,
        )
        if report.failure:
            return ExitCause(kind=ExitKind.UNKNOWN, summary=report.failure)
        return self._explain(replica_id, report)

    def _explain(self, replica_id: str, report: EngineEnding | EngineExited) -> ExitCause:
        """Return why an engine ended; by its last lines only if it has never served, since later ones may quote callers."""
        replica = self._view.find(replica_id)
        process = None if replica is None else replica.process
        served = process is not None and process.ready_s is not None
        said = f"`freehold logs {replica_id}` shows what it printed"
        if served and report.code == 0 and not report.asked:  # vLLM ends so when a worker of its own died
            return ExitCause(kind=ExitKind.UNKNOWN, summary="it ended by itself with exit code 0", hint=said)
        try:
            return self._by_id[replica_id].engine.explain_exit(
                report.code, (said,) if served else report.tail
            )
        except Exception:  # noqa: BLE001 (guard: an exit that cannot be explained is still an exit)
            self.errors_total += 1
            _log.exception("mistake of our own", what="explain_exit", replica=replica_id)
            return ExitCause(kind=ExitKind.UNKNOWN, summary=f"exit code {report.code}")

    # --- questions ------------------------------------------------------------------------------------------------

    def _question(self, replica_id: str, asking: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(asking)
        self._questions[replica_id].add(task)
        task.add_done_callback(self._questions[replica_id].discard)

    async def _ask(self, order: AskReady, url: str) -> None:
        mistake = ReadinessAnswer(
            ok=False, reason="could not be checked: a bug of Freehold's own, see the log"
        )
        answer = await self._total(self._ask_own(order.id, url), mistake)
        if answer.ok:
            plan, capacity = self._keyed(order.id), None
            if order.look:
                capacity = await self._total(self._world.prober.capacity(plan, url), None)
            self._post(Answered(id=order.id, incarnation=order.incarnation, capacity=capacity))
        else:
            self._post(
                Unanswered(id=order.id, incarnation=order.incarnation, reason=answer.reason, hint=answer.hint)
            )

    async def _ask_own(self, replica_id: str, url: str) -> ReadinessAnswer:
        """Ask the replica, unless another program listens where its engine was to listen."""
        launch = self._launches.get(replica_id)
        closed = await launch.why_closed() if launch is not None else ""
        if closed:
            return ReadinessAnswer(ok=False, reason=closed)
        return await self._world.prober.ask(self._keyed(replica_id), url)

    def _keyed(self, replica_id: str) -> ReplicaPlan:
        """Return a replica's plan with the key of its present launch."""
        plan, replica = self._by_id[replica_id], self._view.find(replica_id)
        return replace(plan, api_key=replica.key) if replica and replica.key else plan

    async def _measure(self, order: ReadCounters, url: str) -> None:
        reading = await self._total(self._world.prober.measure(self._keyed(order.id), url), CounterReading())
        self._post(
            CountersRead(
                id=order.id,
                incarnation=order.incarnation,
                tokens_total=reading.tokens_total,
                running=reading.running,
                asleep=reading.asleep,
            )
        )

    async def _total(self, asking: Awaitable[_T], otherwise: _T) -> _T:
        try:
            return await asking
        except Exception:  # noqa: BLE001 (guard: a question must always come to an end)
            self.errors_total += 1
            _log.exception("mistake of our own", what="question")
            return otherwise

    # --- bookkeeping ----------------------------------------------------------------------------------------------

    def _post(self, fact: Fact) -> bool:
        """Queue a fact; False when the queue is full, which the facts of replicas alone cannot cause."""
        if self._queue.qsize() >= _QUEUE_FACTS + _QUEUE_FACTS_PER_REPLICA * len(self._by_id):
            _log.error("fact refused: the queue is full", fact=type(fact).__name__)
            return False
        self._queue.put_nowait(fact)
        return True

    def _guarded(self, what: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:  # noqa: BLE001 (guard: see the module's docstring)
            self.errors_total += 1
            _log.exception("mistake of our own", what=what)

    async def _close(self) -> None:
        for questions in self._questions.values():
            for question in questions:
                question.cancel()
        await self._world.launcher.close()
        await self._world.prober.close()
