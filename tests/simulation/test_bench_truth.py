"""The load generator on virtual time, against an engine whose every token comes at a known moment: what it measures is exact.

No time passes, so that nothing here depends on how busy the machine is: the client, the driver and the figures are the real ones, and
only the network and the clock are made.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from freehold.bench.analysis.figures import Figures, SloBounds, figures
from freehold.bench.analysis.load import Load, schedule
from freehold.bench.analysis.prompts import Scale
from freehold.bench.analysis.results import Conditions
from freehold.bench.analysis.sample import RequestSample
from freehold.bench.analysis.sizes import Given, Range
from freehold.bench.measure.client import BenchTarget
from freehold.bench.measure.drive import Drive, Texts
from virtual_time import VirtualLoop

TOKENS, FIRST_S, TOKEN_S = 12, 0.1, 0.02
ANSWER_S = FIRST_S + (TOKENS - 1) * TOKEN_S
SIZES = Given(prompt=Range(20, 20), answer=Range(TOKENS, TOKENS))
FOUR = Load(kind="concurrency", value=4)
SLO = SloBounds(ttft_s=1.0, itl_s=0.1)
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
TOKEN = b'data: {"choices":[{"delta":{"content":" w"}}]}\n\n'
END = b'data: {"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":%d}}\n\ndata: [DONE]\n\n' % TOKENS


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@dataclass(eq=False)
class Answer(asyncio.Transport):
    """One connection: a request, and its answer token by token once it has a slot."""

    engine: "Engine"
    protocol: asyncio.Protocol
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        body = bytes(data).partition(b"\r\n\r\n")[2]
        assert msgspec.json.decode(body)["max_tokens"] == TOKENS
        self.engine.take(self)

    def begin(self) -> None:
        loop = asyncio.get_running_loop()
        for number in range(TOKENS):
            said = chunk(TOKEN) if number else HEAD + chunk(TOKEN)
            if number == TOKENS - 1:
                said += chunk(END) + b"0\r\n\r\n"
            self.timers.append(loop.call_later(FIRST_S + number * TOKEN_S, self.say, number, said))

    def say(self, number: int, said: bytes) -> None:
        if number == TOKENS - 1:
            self.engine.free(self)
        self.protocol.data_received(said)

    def abort(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.engine.free(self)


@dataclass
class Engine:
    """So many requests at once, the others wait in their order."""

    slots: int
    working: set[Answer] = field(default_factory=set)
    waiting: deque[Answer] = field(default_factory=deque)

    async def connect(self, make: Callable[[], asyncio.Protocol], *_: Any) -> tuple[Answer, asyncio.Protocol]:
        protocol = make()
        return Answer(self, protocol), protocol

    def take(self, answer: Answer) -> None:
        self.waiting.append(answer)
        self.fill()

    def free(self, answer: Answer) -> None:
        if answer in self.waiting:
            self.waiting.remove(answer)
        self.working.discard(answer)
        self.fill()

    def fill(self) -> None:
        while self.waiting and len(self.working) < self.slots:
            answer = self.waiting.popleft()
            self.working.add(answer)
            answer.begin()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualLoop]:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        made = runner.get_loop()
        assert isinstance(made, VirtualLoop)
        monkeypatch.setattr("freehold.bench.measure.drive.monotonic_s", made.time)
        yield made


def measured(
    loop: VirtualLoop,
    load: Load,
    *,
    slots: int,
    duration_s: float,
    warm_up_s: float = 10 * ANSWER_S,
    requests: int | None = None,
) -> tuple[Figures, list[RequestSample]]:
    loop.create_connection = Engine(slots).connect  # type: ignore[method-assign, assignment]
    conditions = Conditions(
        shape="",
        loads=(),
        slo=SLO,
        runs=1,
        seed=3,
        warm_up_s=warm_up_s,
        duration_s=duration_s,
        requests=requests,
        timeout_s=1000.0,
    )
    asks = schedule(load, SIZES, seed=(3,))
    drive = Drive(
        target=BenchTarget(host="h", port=1, model="m"),
        asks=asks,
        texts=Texts(scale=Scale()),
        conditions=conditions,
    )
    found = loop.run_until_complete(drive.run(load))
    inside = [each for each in found.samples if found.window.has(each.intended_s)]
    return figures(found.samples, found.window, SLO), sorted(inside, key=lambda each: each.intended_s)


def exactly(value: float) -> Any:
    return pytest.approx(value, rel=1e-6)


def test_callers_with_a_slot_each(loop: VirtualLoop) -> None:
    found, samples = measured(loop, FOUR, slots=4, duration_s=50 * ANSWER_S)
    assert found.whole == found.requests == len(samples) == 4 * 50
    assert found.ttft_s is not None
    assert found.token_s is not None
    assert found.itl_s is not None
    assert found.latency_s is not None
    assert (found.ttft_s.p50, found.ttft_s.p95, found.ttft_s.most) == tuple(map(exactly, (FIRST_S,) * 3))
    assert (found.token_s.p50, found.token_s.most, found.itl_s.p50, found.itl_s.most) == tuple(
        map(exactly, (TOKEN_S,) * 4)
    )
    assert found.latency_s.mean == exactly(ANSWER_S)
    assert found.output_tokens_per_s == exactly(4 * TOKENS / ANSWER_S)
    assert found.goodput_tokens_per_s == found.output_tokens_per_s
    assert found.in_flight == exactly(4)
    assert (found.slo_share, found.errors, found.wrong_length, found.uncounted) == (1.0, {}, 0, 0)


def test_what_waits_for_a_slot_is_in_the_time_to_first_token(loop: VirtualLoop) -> None:
    found, _ = measured(loop, FOUR, slots=1, duration_s=200 * ANSWER_S)
    assert found.ttft_s is not None
    assert found.ttft_s.p50 == exactly(3 * ANSWER_S + FIRST_S)
    assert found.output_tokens_per_s == exactly(TOKENS / ANSWER_S)
    assert found.goodput_tokens_per_s == 0  # 1.06 s are more than the SLO's 1 s


@pytest.mark.parametrize("phase", [0.0, 0.13, 0.37, 0.5, 0.9])
@pytest.mark.parametrize("requests", [None, 16])
def test_callers_in_step_are_measured_over_whole_rounds(
    loop: VirtualLoop, phase: float, requests: int | None
) -> None:
    """Tokens come in the last two thirds of a round: a window that began or ended in it would have too many or too few of them."""
    found, samples = measured(
        loop, FOUR, slots=4, duration_s=3.3 * ANSWER_S, warm_up_s=(1 + phase) * ANSWER_S, requests=requests
    )
    assert len(samples) in {12, 16}
    assert found.output_tokens_per_s == exactly(4 * TOKENS / ANSWER_S)
    assert found.window_s == exactly(len(samples) / 4 * ANSWER_S)


@pytest.mark.parametrize("per_s", [1.0, 2.5])
def test_a_stream_before_one_slot_waits_as_long_as_arithmetic_says(loop: VirtualLoop, per_s: float) -> None:
    """Lindley's recursion: who comes next waits what is left of the wait and work before him."""
    load = Load(kind="rate", value=per_s)
    found, samples = measured(loop, load, slots=1, duration_s=300.0, warm_up_s=0.0)
    wait_s, waits = 0.0, [0.0]
    for before, after in itertools.pairwise(samples):
        wait_s = max(0.0, wait_s + ANSWER_S - (after.intended_s - before.intended_s))
        waits.append(wait_s)
    assert len(samples) > 250 * per_s
    assert [each.ttft_s for each in samples] == [exactly(wait + FIRST_S) for wait in waits]
    assert max(waits) > ANSWER_S  # there was a queue
    assert found.late_s is not None
    assert found.late_s.most == pytest.approx(0, abs=1e-9)
    answered = found.output_tokens_per_s / TOKENS
    assert answered == pytest.approx(len(samples) / 300.0, rel=0.02)
