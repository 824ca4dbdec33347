"""Routing on virtual time: one model's targets that die, fail and come back under a stream of conversations.

The real address book chooses; only the engines and the clock are made up. Bounds are checked at each choice.
"""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.events import Endpoint, ModelEntry, ReplicaState, Snapshot
from freehold.gateway.counters.request_metrics import GatewayMetrics
from freehold.gateway.endpoints.balance import LOAD_MAX
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.queue.admission import QueuedRequest
from freehold.gateway.wire.request import Request
from gateway_rig.directory import still_directory

Health = Callable[[float], bool]


def asks(talk: int, *, worth: bool = True) -> QueuedRequest:
    """Return a request of a conversation."""
    applicant, request = QueuedRequest(), Request()
    request.path = "/v1/chat/completions"
    request.body = b'{"messages":[{"role":"user","content":"%d %b"}]}' % (talk, b"so " * (170 * worth))
    applicant.request = request
    applicant.cost_tokens = 100
    return applicant


@dataclass(kw_only=True)
class World:
    """Targets of four slots each that work half a second on a request; `well[i]` says when target i answers."""

    count: int
    well: dict[int, Health] = field(default_factory=dict)
    now_s: float = 0.0
    taken: list[tuple[float, str]] = field(default_factory=list)
    homes: dict[int, list[str]] = field(default_factory=dict)
    worth: bool = True

    def __post_init__(self) -> None:
        self.meters = GatewayMetrics()
        directory = still_directory(self.meters)
        endpoints = [
            Endpoint(id=f"m-{i}", model="m", url=f"http://127.0.0.1:{i + 1}", engine="llama-cpp",
                     state=ReplicaState.READY, slots=4)
            for i in range(self.count)
        ]  # fmt: skip
        entry = ModelEntry(name="m", engine="llama-cpp", created_s=0)
        directory.apply(Snapshot(generation=1, models=(entry,), endpoints=tuple(endpoints)))
        self.model = directory.models["m"]
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()

    def at(self, when_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when_s, next(self.order), what))

    def run(self) -> None:
        while self.events:
            self.now_s, _, what = heapq.heappop(self.events)
            what()

    def ask(self, talk: int) -> None:
        applicant = asks(talk, worth=self.worth)
        before = {t.id: t.gate.tokens for t in self.model.targets}
        out = {t.id for t in self.model.targets if t.outlier.is_out(self.now_s)}
        target = self.model.take(applicant, self.now_s)
        if target is None:
            return
        assert target.id not in out or len(out) == self.count
        if self.worth and not out:
            self.check_bound(target, before)
        self.taken.append((self.now_s, target.id))
        self.homes.setdefault(talk, []).append(target.id)
        self.at(self.now_s + 0.5, lambda: self.end(applicant, target))

    def check_bound(self, target: UpstreamTarget, before: dict[str, int]) -> None:
        if all(t.gate.in_flight < 4 for t in self.model.targets):
            mean = (sum(before.values()) + 100) / self.count
            prompt = self.model.admission.estimate.prompt_tokens(len(asks(0).request.body))
            assert before[target.id] < LOAD_MAX * mean + prompt

    def end(self, applicant: QueuedRequest, target: UpstreamTarget) -> None:
        target.gate.leave(applicant.cost_tokens, began=False)
        if self.well.get(int(target.id[2:]), lambda _: True)(self.now_s):
            self.model.succeeded(target, self.now_s)
        else:
            self.model.failed(target, "lost", self.now_s)
        if applicant.on_trial:
            applicant.on_trial = target.outlier.trial = False


def poisson(world: World, per_s: float, until_s: float, *, talks: int, seed: int) -> World:
    rng = random.Random(seed)
    at_s = 0.0
    while at_s < until_s:
        at_s += rng.expovariate(per_s)
        world.at(at_s, partial(world.ask, rng.randrange(talks)))
    world.run()
    return world


@given(st.integers(2, 6), st.integers(0, 1000), st.floats(0.5, 6.0))
def test_within_the_bound_and_nobody_starves_at_any_load(count: int, seed: int, load: float) -> None:
    world = poisson(World(count=count), load * count, 20.0, talks=200, seed=seed)
    assert all(target.gate.in_flight == target.gate.tokens == 0 for target in world.model.targets)
    if len(world.taken) > 30 * count:
        assert len(Counter(name for _, name in world.taken)) == count


def test_conversations_stay_where_they_were_at_moderate_load() -> None:
    world = poisson(World(count=4), 8.0, 200.0, talks=60, seed=1)
    stayed = sum(Counter(places).most_common(1)[0][1] for places in world.homes.values())
    assert stayed / len(world.taken) > 0.7
    without = poisson(World(count=4, worth=False), 8.0, 200.0, talks=60, seed=1)
    spread = sum(Counter(places).most_common(1)[0][1] for places in without.homes.values())
    assert spread / len(without.taken) < 0.5


@pytest.mark.parametrize("worth", [True, False])
def test_a_dead_one_gets_a_trial_now_and_then_and_its_work_back_when_it_is_well(*, worth: bool) -> None:
    world = World(count=3, worth=worth, well={0: lambda now_s: not 10 < now_s < 60})
    poisson(world, 12.0, 100.0, talks=100, seed=3)

    def share(start_s: float, end_s: float) -> float:
        part = [name for at_s, name in world.taken if start_s < at_s < end_s]
        return part.count("m-0") / len(part)

    assert share(0, 10) > 0.2
    trials = [at_s for at_s, name in world.taken if name == "m-0" and 11 < at_s < 60]
    assert 4 <= len(trials) <= 12
    assert all(later - sooner > 0.9 for sooner, later in itertools.pairwise(trials))
    assert share(70, 100) > 0.2


def test_when_all_are_dead_all_requests_still_go_somewhere() -> None:
    world = World(count=3, well=dict.fromkeys(range(3), lambda _: False))
    poisson(world, 5.0, 60.0, talks=50, seed=5)
    assert len(world.taken) > 250
