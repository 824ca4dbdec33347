"""What admission and routing cost a request, and continuation a chunk, inside the gateway: its own code, without sockets.

Admission cannot be switched off, and a list append is far below what turns against each other can show, so both are
measured here as time per call: the real queue, limits and router of one model are entered and left as `Exchange` does,
with requests as the load client sends them. `python benchmarks/gateway/inside.py` prints JSON, microseconds of CPU each;
`run.py --only parts` runs it on the gateways' core. It does not measure parsing, sockets or the engine's answer.
"""

import asyncio
import json
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable

from freehold.core.events import Endpoint, ModelEntry, ReplicaState, Snapshot
from freehold.gateway.answers.stream_log import StreamLog
from freehold.gateway.endpoints.model import ServedModel
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.queue.admission import QueuedRequest
from freehold.gateway.server.gateway import Gateway
from freehold.gateway.settings import Settings
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.request import Request

TIMES, LAPS = 10_000, 7
IN_FLIGHT, WAITING, CALLERS = 32, 64, 8
TEXT = "Answer in one paragraph, name your sources, and say so when you do not know. " * 10
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": TEXT}], "max_tokens": 512}).encode()
CHUNK = b"db\r\n" + b"x" * 219 + b"\r\n"


class Asking(QueuedRequest):
    """A request as the queue sees it, which only notes what becomes of it."""

    deadline_s = float("inf")
    target: UpstreamTarget | None = None
    refusal: Rejection | None = None

    def __init__(self, number: int) -> None:
        self.request = request = Request()
        request.path, request.body, request.max_tokens = "/v1/chat/completions", BODY, 512
        self.caller = f"caller-{number % CALLERS}"

    def proceed(self, target: UpstreamTarget) -> None:
        """Take the place that came free."""
        self.target = target

    def turn_away(self, refusal: Rejection) -> None:
        """Take the refusal."""
        self.refusal = refusal


class Queue:
    """One model's queue and those who are in it, in the order of their coming."""

    def __init__(self, *, replicas: int, slots: int, waiting_max: int = 4096) -> None:
        now = asyncio.get_running_loop().time
        self._now_s: Callable[[], float] = now
        gateway = Gateway(Settings(queue_max_requests=waiting_max))
        gateway.apply(_snapshot(replicas, slots))
        self.model: ServedModel = gateway.directory.models["m"]
        self.inside: deque[Asking] = deque()
        self._number = 0

    def enter(self) -> Asking:
        """Let one more come."""
        self._number += 1
        asking = Asking(self._number)
        target = self.model.admission.enter(asking, self._now_s())  # type: ignore[arg-type]
        if target is not None:
            asking.target = target
        self.inside.append(asking)
        return asking

    def leave(self) -> None:
        """Let the first one that was started be over."""
        asking = self.inside.popleft()
        while asking.target is None:
            self.inside.append(asking)
            asking = self.inside.popleft()
        asking.target.gate.first_byte(0.001)
        asking.target.gate.leave(asking.cost_tokens, began=True)
        self.model.admission.learn(asking, 200, 100)  # type: ignore[arg-type]
        self.model.admission.end(asking, service_s=0.001)  # type: ignore[arg-type]


def _snapshot(replicas: int, slots: int) -> Snapshot:
    endpoints = tuple(
        Endpoint(id=f"m-{i}", model="m", url=f"http://127.0.0.1:{i + 1}", engine="external",
                 state=ReplicaState.READY, slots=slots)
        for i in range(replicas)
    )  # fmt: skip
    return Snapshot(
        generation=1,
        models=(ModelEntry(name="m", engine="external", created_s=0),),
        endpoints=endpoints,
    )


def each_us(what: Callable[[], object], *, beside: Callable[[], object] | None = None) -> float:
    """CPU microseconds of one call, median of some laps, less those of what is no part of it."""
    laps = [_lap_us(what) - (0.0 if beside is None else _lap_us(beside)) for _ in range(LAPS)]
    return statistics.median(laps)


def _lap_us(what: Callable[[], object]) -> float:
    started_ns = time.process_time_ns()
    for _ in range(TIMES):
        what()
    return (time.process_time_ns() - started_ns) / TIMES / 1000


def through(queue: Queue, *, inside: int, waits: bool) -> float:
    """Each that comes is started, at once or when another one is over; `inside` are there at any time."""
    for _ in range(inside):
        queue.enter()

    def one() -> None:
        queue.enter()
        queue.leave()

    assert bool(queue.model.admission.line.waiting) is waits
    took_us = each_us(one, beside=lambda: Asking(1))
    assert all(asking.refusal is None for asking in queue.inside)
    assert bool(queue.model.admission.line.waiting) is waits
    return took_us


def refused() -> float:
    """Each that comes is refused: all slots are taken, and the queue is full of eight callers' requests."""
    queue = Queue(replicas=1, slots=1, waiting_max=WAITING)
    for _ in range(1 + WAITING):
        assert queue.enter().refusal is None

    def one() -> None:
        queue.enter()
        if queue.inside.pop().refusal is None:
            raise AssertionError("a full queue took one more")

    return each_us(one, beside=lambda: Asking(1))


def kept() -> float:
    """A chunk is kept so that another engine could go on; a stream of 100 chunks each."""
    keeping = [StreamLog()]
    count = [0]

    def begin() -> None:
        count[0] += 1
        if not count[0] % 100:
            keeping[0] = StreamLog()

    def keep() -> None:
        begin()
        keeping[0].add(CHUNK)

    return each_us(keep, beside=begin)


async def measure() -> dict[str, float]:
    one, four = Queue(replicas=1, slots=4096), Queue(replicas=4, slots=1024)
    full = Queue(replicas=1, slots=4)
    return {
        "request: admitted and routed at once, one replica": through(one, inside=IN_FLIGHT, waits=False),
        "request: the same, four replicas with prefix affinity": through(four, inside=IN_FLIGHT, waits=False),
        f"request: admitted after a wait, {WAITING} wait": through(full, inside=4 + WAITING, waits=True),
        f"request: refused by a full queue, {WAITING} wait": refused(),
        "chunk: kept for a continuation": kept(),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(measure())) + "\n")
