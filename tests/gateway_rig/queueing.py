"""A queue on virtual time: callers, targets with slots, and the queue between them; only the pure parts run.

Bounds are checked after every event. What a request needs is known to the simulated engine only, as in life; the queue
is told estimates, and the truth when it is over.
"""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any

from freehold.gateway.queue.concurrency_limit import ConcurrencyLimit
from freehold.gateway.queue.fair_queue import Claim, Flow
from freehold.gateway.queue.queue import QueueBounds, RequestQueue, TurnedAway

TICK_S = 0.02


@dataclass(eq=False, kw_only=True)
class Asked:
    """One request as its caller and the engine know it."""

    caller: str
    at_s: float
    cost_tokens: int = 32
    really_tokens: int | None = None
    priority: int = 0
    patience_s: float = inf
    deadline_s: float = inf
    flow: Flow["Asked"] | None = None
    claim: Claim["Asked"] | None = None
    started_s: float | None = None
    over_s: float | None = None
    turned: TurnedAway["Asked"] | None = None
    left: bool = False


@dataclass(kw_only=True)
class World:
    """A line in front of targets that each work on `slots` requests at once, at a fixed time per token."""

    bounds: QueueBounds = field(default_factory=QueueBounds)
    slots: tuple[int, ...] = (4,)
    s_per_token: float = 0.015
    weights: dict[str, float] = field(default_factory=dict)
    budget_tokens: int = 0
    now_s: float = 0.0
    all: list[Asked] = field(default_factory=list)
    waiting: dict[Asked, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.line: RequestQueue[Asked] = RequestQueue(self.bounds)
        self.gates = [ConcurrencyLimit(slots=slots, token_budget=self.budget_tokens) for slots in self.slots]
        self.line.places = sum(self.slots)
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order: Iterator[int] = itertools.count()
        self.ticking = False

    def at(self, when_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when_s, next(self.order), what))

    def ask(self, **what: Any) -> Asked:
        asked = Asked(**what)
        self.all.append(asked)
        self.at(asked.at_s, lambda: self.arrive(asked))
        return asked

    def stream(self, caller: str, per_s: float, until_s: float, rng: random.Random, **what: Any) -> None:
        """Let a caller ask as a Poisson stream."""
        at_s = rng.expovariate(per_s)
        while at_s < until_s:
            self.ask(caller=caller, at_s=at_s, **what)
            at_s += rng.expovariate(per_s)

    @property
    def tokens_per_s(self) -> float:
        return sum(self.slots) / self.s_per_token

    def run(self, until_s: float = inf) -> "World":
        while self.events and self.events[0][0] <= until_s:
            self.now_s, _, what = heapq.heappop(self.events)
            what()
            self.start_waiting()
            self.check()
        return self

    # What happens

    def arrive(self, asked: Asked) -> None:
        weight = self.weights.get(asked.caller, 1.0)
        asked.flow = flow = self.line.turns.flow(asked.caller, weight, asked.priority)
        gate = next((g for g in self.gates if g.has_room(asked.cost_tokens)), None)
        if gate and not self.line.waiting:
            self.line.begin(flow, asked.cost_tokens)
            self.work(asked, gate)
            return
        deadline_s = self.now_s + asked.deadline_s
        asked.claim = Claim(
            asked, flow, cost_tokens=asked.cost_tokens, arrived_s=self.now_s, deadline_s=deadline_s
        )
        self.waiting[asked] = None
        self.turn_away(self.line.offer(asked.claim, self.now_s))
        if asked.claim:
            if not self.ticking:
                self.ticking = True
                self.at(self.now_s + TICK_S, self.tick)
            if asked.patience_s < inf:
                self.at(self.now_s + asked.patience_s, lambda: self.leave(asked))

    def tick(self) -> None:
        self.turn_away(self.line.expire(self.now_s))
        self.ticking = bool(self.line.waiting)
        if self.ticking:
            self.at(self.now_s + TICK_S, self.tick)

    def turn_away(self, gone: list[TurnedAway[Asked]]) -> None:
        for turned in gone:
            asked = turned.claim.owner
            assert asked.turned is None
            assert asked.started_s is None
            asked.turned, asked.claim, asked.over_s = turned, None, self.now_s
            del self.waiting[asked]

    def leave(self, asked: Asked) -> None:
        if asked.claim:
            self.line.remove(asked.claim)
            asked.claim, asked.left = None, True
            del self.waiting[asked]

    def work(self, asked: Asked, gate: ConcurrencyLimit) -> None:
        assert not asked.left
        assert gate.enter(asked.cost_tokens)
        asked.started_s, asked.claim = self.now_s, None
        self.waiting.pop(asked, None)
        really = asked.cost_tokens if asked.really_tokens is None else asked.really_tokens
        self.at(self.now_s + really * self.s_per_token, lambda: self.finish(asked, gate))

    def finish(self, asked: Asked, gate: ConcurrencyLimit) -> None:
        assert asked.flow
        assert asked.started_s is not None
        asked.over_s = self.now_s
        gate.leave(asked.cost_tokens, began=False)
        service_s = self.now_s - asked.started_s
        self.line.end(asked.flow, asked.cost_tokens, service_s=service_s, really_tokens=asked.really_tokens)

    def start_waiting(self) -> None:
        while claim := self.line.next():
            gate = next((g for g in self.gates if g.has_room(claim.cost_tokens)), None)
            if gate is None:
                return
            self.line.take(claim, self.now_s)
            self.work(claim.owner, gate)

    # What must always hold

    def check(self) -> None:
        line, bounds = self.line, self.bounds
        waiting = self.waiting
        assert line.waiting == len(waiting)
        assert line.tokens == sum(asked.cost_tokens for asked in waiting)
        assert line.under_way == sum(gate.in_flight for gate in self.gates)
        assert line.waiting <= bounds.max_requests
        assert line.tokens - max((asked.cost_tokens for asked in waiting), default=0) <= bounds.max_tokens
        for gate, slots in zip(self.gates, self.slots, strict=True):
            assert gate.in_flight <= gate.limit <= slots
            assert gate.tokens <= (self.budget_tokens or inf) or gate.in_flight == 1
        if waiting:
            assert self.now_s - next(iter(waiting)).at_s <= bounds.max_wait_s + 2 * TICK_S
        # Work-conserving: nobody waits whose turn it is while there is room for him.
        claim = line.next()
        assert claim is None or not any(gate.has_room(claim.cost_tokens) for gate in self.gates)

    # What came of it

    def served_tokens(self, since_s: float = 0.0) -> Counter[str]:
        """Tokens of answers by caller, of those started since."""
        served: Counter[str] = Counter()
        for asked in self.all:
            if asked.started_s is not None and asked.started_s >= since_s and asked.over_s is not None:
                really = asked.cost_tokens if asked.really_tokens is None else asked.really_tokens
                served[asked.caller] += really
        return served


def jain(shares: list[float]) -> float:
    """Jain's index of fairness: 1 where all are equal, 1/n where one has all."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def reasons(world: World) -> Counter[str]:
    return Counter(asked.turned.reason for asked in world.all if asked.turned)
