"""The fleet's rules on virtual time against a world that fails at random; the invariants are checked at every event.

Only `state.apply` and `decide` run, no process, no clock. A failing seed is in the test's name and runs again alone.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from freehold.core.events import ReplicaState as State
from freehold.engines.base import ExitCause, ExitKind
from freehold.fleet.decisions.decide import NEVER_S, all_stopped, decide, next_due_s
from freehold.fleet.decisions.events import (
    Abandon,
    Action,
    Answered,
    AskReady,
    CountersRead,
    Exited,
    Fact,
    GiveUp,
    Kill,
    Launch,
    MainProcessGone,
    ReadCounters,
    RestartAsked,
    Started,
    StopAsked,
    Terminate,
    Unanswered,
)
from freehold.fleet.decisions.plan import FleetSettings
from freehold.fleet.decisions.state import FleetView, Replica, apply

SETTINGS = FleetSettings(log_dir=Path("/nowhere"), ready_timeout_s=120.0)
SLACK_S = 1e-6
HOUR_S = 3600.0
FATES = ("good", "good", "good", "crash", "exit0", "never", "mute", "fail", "port", "final", "silent")
ENDS = ("obeys", "obeys", "slow", "ignores", "minder hangs", "in the kernel")


@dataclass
class Child:
    """A process of the world, with its hidden fate."""

    id: str
    incarnation: int
    fate: str
    end: str
    ready_s: float = NEVER_S
    alive: bool = True
    asked_to_end: bool = False


@dataclass
class SimulatedWorld:
    """Children that do what dice say, facts that arrive late, twice, or about the dead."""

    rng: random.Random
    now_s: float = 0.0
    facts: list[tuple[float, int, Callable[[], Fact | None]]] = field(default_factory=list)
    children: dict[str, list[Child]] = field(default_factory=dict)
    answered: set[tuple[str, int]] = field(default_factory=set)
    launches_s: dict[str, list[float]] = field(default_factory=dict)
    order: Iterator[int] = field(default_factory=itertools.count)
    calm: bool = False
    """Nothing new goes wrong."""

    def later(self, delay_s: float, fact: Callable[[], Fact | None]) -> None:
        heapq.heappush(self.facts, (self.now_s + delay_s, next(self.order), fact))

    def do(self, action: Action) -> None:
        if isinstance(action, Launch):
            self.launch(action)
        elif isinstance(action, AskReady):
            self.ask(action)
        elif isinstance(action, ReadCounters):
            self.measure(action)
        elif isinstance(action, Terminate):
            self.terminate(self.child(action.id, action.incarnation), action.grace_s)
        elif isinstance(action, Kill):
            child = self.child(action.id, action.incarnation)
            delay_s = self.rng.uniform(1, 100) if child.end == "in the kernel" else self.rng.uniform(0, 0.5)
            self.later(delay_s, lambda: self.die(child, code=-9))

    def child(self, replica_id: str, incarnation: int) -> Child:
        return next(c for c in self.children[replica_id] if c.incarnation == incarnation)

    def alive(self, replica_id: str) -> list[Child]:
        return [c for c in self.children.get(replica_id, []) if c.alive]

    def launch(self, order: Launch) -> None:
        assert not self.alive(order.id), f"{order.id} is started while {self.alive(order.id)} lives"
        fate = "good" if self.calm else self.rng.choice(FATES)
        child = Child(order.id, order.incarnation, fate, self.rng.choice(ENDS))
        self.children.setdefault(order.id, []).append(child)
        self.launches_s.setdefault(order.id, []).append(self.now_s)
        if fate in {"fail", "port", "final"}:
            self.later(self.rng.uniform(0, 1), lambda: self.die(child, code=1))
            return
        if fate != "silent":
            started = Started(id=child.id, incarnation=child.incarnation, pid=1, url="http://x")
            self.later(self.rng.uniform(0, 0.2), lambda: started if child.alive else None)
        if fate == "good":
            child.ready_s = self.now_s + self.rng.uniform(0.5, 100)
            if not self.calm and self.rng.random() < 0.8:
                self.later(self.rng.uniform(0, 600), lambda: self.die(child, code=-11))
        elif fate in {"crash", "exit0"}:
            self.later(self.rng.uniform(0.2, 5), lambda: self.die(child, code=0 if fate == "exit0" else 1))

    def die(self, child: Child, *, code: int) -> Fact | None:
        if not child.alive:
            return None
        child.alive = False
        cause = ExitCause(
            kind=ExitKind.PORT_IN_USE if child.fate == "port" else ExitKind.CRASHED,
            summary=f"code {code}",
            restart=child.fate != "final",
        )
        exited = Exited(id=child.id, incarnation=child.incarnation, cause=cause)
        if self.rng.random() < 0.1:  # told twice, and late
            self.later(self.rng.uniform(0, 30), lambda: exited)
        if self.rng.random() < 0.2:
            self.later(0.3, lambda: exited)
            return MainProcessGone(id=child.id, incarnation=child.incarnation, cause=cause)
        return exited

    def terminate(self, child: Child, grace_s: float) -> None:
        delay_s = {"obeys": 0.1, "slow": self.rng.uniform(0, grace_s), "ignores": grace_s}.get(child.end)
        if delay_s is not None:
            self.later(delay_s, lambda: self.die(child, code=-15))

    def ask(self, order: AskReady) -> None:
        child = self.child(order.id, order.incarnation)
        delay_s = 60.0 if child.fate == "mute" else self.rng.uniform(0.001, 3)
        self.later(delay_s, lambda: self.answer(child))
        older = order.incarnation - self.rng.randint(1, 3)
        if self.rng.random() < 0.2:  # a late answer of a process that is long gone
            self.later(self.rng.uniform(0, 10), lambda: Answered(id=order.id, incarnation=older))

    def answer(self, child: Child) -> Fact:
        if child.alive and self.now_s >= child.ready_s:
            self.answered.add((child.id, child.incarnation))
            return Answered(id=child.id, incarnation=child.incarnation)
        return Unanswered(id=child.id, incarnation=child.incarnation, reason="loading")

    def measure(self, order: ReadCounters) -> None:
        total = None if self.rng.random() < 0.2 else self.rng.uniform(0, 1e6)
        measured = CountersRead(
            id=order.id, incarnation=order.incarnation, tokens_total=total, running=self.rng.randint(0, 2)
        )
        self.later(self.rng.uniform(0.001, 2), lambda: measured)


class Simulation:
    """Runs the rules against the world."""

    def __init__(self, seed: int, replicas: int = 3) -> None:
        self.rng = random.Random(seed)
        self.world = SimulatedWorld(self.rng)
        self.view = FleetView(
            settings=SETTINGS, replicas=tuple(Replica(id=f"m-{i}") for i in range(replicas))
        )
        self.seen: set[str] = set()
        self.step(None)

    def step(self, fact: Fact | None) -> None:
        now_s = self.world.now_s
        if fact is not None:
            self.view = apply(self.view, fact, now_s)
        for _ in range(10):
            actions = decide(self.view, now_s, self.rng)
            for action in actions:
                self.seen.add(type(action).__name__)
                self.view = apply(self.view, action, now_s)
                self.world.do(action)
            if not actions:
                break
        self.check()

    def check(self) -> None:
        now_s, due_s = self.world.now_s, next_due_s(self.view)
        assert not decide(self.view, now_s, self.rng), "it does not come to rest"
        assert due_s > now_s, "it would be asked again at once, in vain"
        if due_s < NEVER_S:
            assert not decide(self.view, (now_s + due_s) / 2, self.rng), "it had something to say earlier"
            assert decide(self.view, due_s, self.rng), "it has nothing to say when it is due"
        for replica in self.view.replicas:
            self.check_replica(replica)

    def check_replica(self, replica: Replica) -> None:
        alive = self.world.alive(replica.id)
        assert len(alive) <= 1, f"two processes: {alive}"
        assert not alive or replica.process is not None, f"forgotten: {alive}"
        if replica.state in {State.READY, State.DRAINING}:
            assert (replica.id, replica.incarnation) in self.world.answered, "READY without an answer"
        longest_s = {
            State.STARTING: SETTINGS.ready_timeout_s,
            State.DRAINING: SETTINGS.drain_s,
            State.STOPPING: SETTINGS.stop_grace_s + SETTINGS.kill_margin_s + SETTINGS.abandon_s,
            State.BACKOFF: SETTINGS.backoff_max_s,
        }.get(replica.state, NEVER_S)
        assert self.world.now_s - replica.since_s <= longest_s + SLACK_S, f"stuck in {replica.state}"
        if replica.state is State.CRASH_LOOP:
            assert replica.reason
            assert replica.hint

    def run_until(self, end_s: float) -> None:
        """Let the world go on until `end_s`, or until nothing can happen any more."""
        while True:
            fact_s = self.world.facts[0][0] if self.world.facts else NEVER_S
            next_s = min(fact_s, next_due_s(self.view))
            if next_s > end_s:
                self.world.now_s = min(end_s, max(next_s, self.world.now_s))
                return
            self.world.now_s = next_s
            self.step(heapq.heappop(self.world.facts)[2]() if fact_s <= next_s else None)


@pytest.mark.parametrize("seed", range(24))
def test_no_fault_breaks_an_invariant_and_a_stop_ends_everything(seed: int) -> None:
    simulation = Simulation(seed)
    for _ in range(10):
        simulation.run_until(simulation.world.now_s + simulation.rng.uniform(10, 1200))
        simulation.step(RestartAsked(id=f"m-{simulation.rng.randint(0, 2)}"))
    simulation.step(StopAsked(drained=seed % 2 == 0, hurry=seed % 5 == 0))
    simulation.run_until(simulation.world.now_s + 200)
    assert all_stopped(simulation.view), simulation.view.replicas
    left = [child for i in range(3) for child in simulation.world.alive(f"m-{i}")]
    assert not left, "alive after the stop, and it is not even said"


@pytest.mark.parametrize("seed", range(8))
def test_automatic_restarts_are_bounded(seed: int) -> None:
    simulation = Simulation(seed, replicas=5)
    simulation.run_until(HOUR_S)
    forgiven = SETTINGS.failure_window_s / SETTINGS.stable_s + 1
    bound = forgiven * (SETTINGS.window_failures_max + SETTINGS.port_retries_max)
    for times in simulation.world.launches_s.values():
        busiest = max(sum(1 for t in times if 0 <= t - start < SETTINGS.failure_window_s) for start in times)
        assert busiest <= bound, f"{busiest} starts within {SETTINGS.failure_window_s} s"


@pytest.mark.parametrize("seed", range(8))
def test_when_the_world_calms_down_a_restart_brings_every_replica_back(seed: int) -> None:
    simulation = Simulation(seed)
    simulation.run_until(HOUR_S)
    simulation.world.calm = True
    simulation.run_until(simulation.world.now_s + 400)  # what is left of the old world has died by then
    for replica in simulation.view.replicas:
        if replica.state is not State.READY:
            simulation.step(RestartAsked(id=replica.id))
    simulation.run_until(simulation.world.now_s + 1000)
    assert [r.state for r in simulation.view.replicas] == [State.READY] * 3


def test_the_faults_are_not_too_kind() -> None:
    seen: set[str] = set()
    for seed in range(12):
        simulation = Simulation(seed)
        simulation.run_until(HOUR_S)
        seen |= simulation.seen
    assert seen >= {
        kind.__name__ for kind in (Launch, AskReady, ReadCounters, Terminate, Kill, Abandon, GiveUp)
    }
