"""Requests that look for another target, and what a tick clears away: the real queue, targets and loop."""

import asyncio
from math import inf
from typing import Any

import msgspec

from freehold.core.events import AdapterAsk, Endpoint, ModelEntry, ReplicaState, Snapshot
from freehold.gateway.endpoints.model import ServedModel
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.queue.admission import Admission, QueuedRequest
from freehold.gateway.queue.fair_queue import Claim
from freehold.gateway.server.gateway import Gateway
from freehold.gateway.settings import Settings
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.request import Request
from waiting import until


def snapshot(count: int) -> Snapshot:
    endpoints = tuple(
        Endpoint(id=f"m-{i}", model="m", url=f"http://127.0.0.1:{i + 1}", engine="external",
                 state=ReplicaState.READY, slots=1)
        for i in range(count)
    )  # fmt: skip
    entry = ModelEntry(name="m", engine="external", created_s=0, affinity=False)
    return Snapshot(generation=1, models=(entry,), endpoints=endpoints)


def model_of(gateway: Gateway, count: int = 2) -> ServedModel:
    gateway.apply(snapshot(count))
    return gateway.directory.models["m"]


class Looking(QueuedRequest):
    """A request that was started once and looks for another target; its end frees the place that somebody has."""

    def __init__(self, admission: Admission, frees: UpstreamTarget) -> None:
        self.admission, self.frees, self.started = admission, frees, False
        self.request, self.cost_tokens = Request(), 10
        self.tried = frozenset({target for target in admission.model.targets if target is not frees})
        self.flow = admission.line.turns.flow("", 1.0, 0)
        admission.line.begin(self.flow, self.cost_tokens)

    def no_other_target(self) -> None:
        self.frees.gate.leave(1, began=False)
        self.admission.end(self, service_s=None)  # type: ignore[arg-type]

    def proceed(self, target: UpstreamTarget) -> None:
        assert target is self.frees
        self.started = True


def test_the_end_of_one_whose_time_is_over_starts_another_whose_time_is_over() -> None:
    async def run() -> None:
        model = model_of(Gateway(Settings(queue_max_wait_s=0.1)))
        failures: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context))
        admission, full = model.admission, model.targets[0]
        assert full.gate.enter(1)
        first, second = Looking(admission, full), Looking(admission, full)
        for each in (first, second):
            assert admission.enter_again(each, loop.time()) is None  # type: ignore[arg-type]
        await until(lambda: second.started or failures)
        assert not failures
        assert not first.started
        assert full.gate.tokens == second.cost_tokens

    asyncio.run(run())


class Waiting(QueuedRequest):
    """A request that waits for its first start."""

    def __init__(self, adapter: str = "") -> None:
        self.request, self.deadline_s = Request(), inf
        self.request.adapter, self.refusal, self.target = adapter, None, None

    def turn_away(self, refusal: Rejection) -> None:
        self.refusal = refusal

    def proceed(self, target: UpstreamTarget) -> None:
        self.target = target


def test_who_waits_for_an_adapter_that_nobody_has_any_more_is_told_and_holds_nobody_up() -> None:
    async def run() -> None:
        gateway = Gateway(Settings(queue_max_wait_s=60.0))
        ask = AdapterAsk(name="tone", keys="{}")
        before, after = (snapshot(count) for count in (1, 2))
        old = msgspec.structs.replace(before.endpoints[0], adapters=(ask,))
        entry = msgspec.structs.replace(before.models[0], adapters=("tone",))
        gateway.apply(msgspec.structs.replace(before, models=(entry,), endpoints=(old,)))
        model, now_s = gateway.directory.models["m"], gateway.context.now_s()
        assert model.targets[0].gate.enter(1)  # the only place is taken
        tone, plain = Waiting("tone"), Waiting()
        assert [model.admission.enter(each, now_s) for each in (tone, plain)] == [None, None]  # type: ignore[arg-type]
        gateway.apply(msgspec.structs.replace(after, generation=2))
        assert tone.refusal is not None
        assert tone.refusal.error.message.startswith("No replica of tone is ready any more.")
        assert plain.target in model.targets

    asyncio.run(run())


def test_a_place_is_taken_for_what_a_request_costs() -> None:
    async def run() -> None:
        for count in (1, 2):
            model = model_of(Gateway(Settings()), count)
            applicant = QueuedRequest()
            applicant.request, applicant.cost_tokens = Request(), 10
            target = model.take(applicant, 0.0)
            assert target is not None
            assert target.gate.tokens == 10

    asyncio.run(run())


def test_a_tick_forgets_callers_who_are_gone_and_an_overload_that_is_over() -> None:
    async def run() -> None:
        gateway = Gateway(Settings(queue_max_wait_s=60.0))
        line, now_s = model_of(gateway).admission.line, gateway.context.now_s() - 60.0
        flow = line.turns.flow("caller", 1.0, 0)
        for _ in range(4):  # so that it is known how much goes
            line.begin(flow, 10)
            line.end(flow, 10, service_s=10.0, really_tokens=None)
        for at in range(40):
            claim: Claim[Any] = Claim(None, flow, cost_tokens=10, arrived_s=now_s, deadline_s=inf)
            line.offer(claim, now_s + at * 0.1)
        assert line.overloaded
        while (waits := line.next()) is not None:
            line.remove(waits)
        assert line.overloaded
        assert len(line.turns._flows) == 1
        await until(lambda: not line.overloaded and not len(line.turns._flows), what="the next tick")

    asyncio.run(run())
