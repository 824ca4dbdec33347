"""Puts one load on one address and returns what became of every request.

A rate sends on time whatever happens to requests before (open loop), so a slow engine cannot slow the questions down; callers
wait for their answers (closed loop), as a batch does; the window of these begins and ends when one of them asks, so that callers in step
are measured over whole rounds, and is longer than asked for where answers are so slow that not each of them has begun one in it. The load stays on until the last measured request has ended, so that
none of them has an easy end; what is under way then is cancelled and does not count. Requests under way are bounded.
"""

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from freehold.bench.analysis.figures import Window
from freehold.bench.analysis.load import Load, ScheduledRequest
from freehold.bench.analysis.prompts import Scale, prompt
from freehold.bench.analysis.results import Conditions
from freehold.bench.analysis.sample import RequestSample
from freehold.bench.measure.client import BenchTarget, Timing, send
from freehold.core.clock import monotonic_s

UNDER_WAY_MAX = 2048
"""Requests under way at once; one more is not sent and counts as `connect`. Source: our own bound, below the usual
limit of open files (4096)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """How prompts are made."""

    scale: Scale
    shared_words: int = 0
    label: tuple[int, ...] = ()
    """What makes them differ from those of other loads."""

    def of(self, ask: ScheduledRequest) -> str:
        """Return a request's prompt."""
        words = self.scale.words(ask.size.prompt_tokens)
        return prompt(words, label=(*self.label, ask.number), shared_words=self.shared_words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """What became of a load."""

    samples: tuple[RequestSample, ...]
    window: Window


@dataclass(slots=True, kw_only=True)
class Drive:
    """One load under way; `run` may be called once."""

    target: BenchTarget
    asks: Iterator[ScheduledRequest]
    texts: Texts
    conditions: Conditions
    """Of them, how long the load stays on; a full count of measured requests ends the window early."""
    _started_s: float = 0.0
    _since_s: float = 0.0
    _until_s: float = 0.0
    _closing: bool = False
    """The next request of a caller ends the window."""
    _measured: set["asyncio.Task[None]"] = field(default_factory=set)
    _all: set["asyncio.Task[None]"] = field(default_factory=set)
    _samples: list[RequestSample] = field(default_factory=list)

    async def run(self, load: Load) -> Driven:
        """Put the load on, wait for all that is measured, and return everything."""
        self._started_s = monotonic_s()
        if load.is_open:
            self._since_s = self.conditions.warm_up_s
            self._until_s = self.conditions.warm_up_s + self.conditions.duration_s
            feeding = [asyncio.create_task(self._on_time())]
        else:
            self._since_s = self._until_s = math.inf
            feeding = [asyncio.create_task(self._caller()) for _ in range(int(load.value))]
        try:
            await self._window_over(feeding)
            while waiting := [task for task in self._measured if not task.done()]:
                await asyncio.wait(waiting)
        finally:
            await _cancelled([*feeding, *self._all])
        for task in feeding:
            if task.done() and not task.cancelled() and (exc := task.exception()) is not None:
                raise exc
        since_s = self._since_s if math.isfinite(self._since_s) else self.conditions.warm_up_s
        window = Window(since_s=since_s, until_s=self._until_s)
        return Driven(samples=tuple(self._samples), window=window)

    async def _window_over(self, feeding: list["asyncio.Task[None]"]) -> None:
        """Wait for the window's end, which a full count brings forward, or for the end of the asks."""
        asked_s = self.conditions.warm_up_s + self.conditions.duration_s
        while (now_s := self.now()) < self._until_s:
            self._closing = now_s >= asked_s and len(self._measured) >= len(feeding)
            if now_s >= asked_s + self.conditions.timeout_s:  # no request was sent for so long
                self._until_s = now_s
                return
            left_s = max(asked_s - now_s, 0.0) or _LOOK_S
            done, _ = await asyncio.wait(feeding, timeout=min(left_s, _LOOK_S))
            if len(done) == len(feeding):
                self._until_s = max(self.now(), self.conditions.warm_up_s + _LOOK_S)
                return

    def now(self) -> float:
        """Return seconds from the start of the load."""
        return monotonic_s() - self._started_s

    async def _on_time(self) -> None:
        for ask in self.asks:
            assert ask.at_s is not None
            request = self._request(ask)
            if (wait_s := ask.at_s - self.now()) > 0:
                await asyncio.sleep(wait_s)
            self._begin(ask, ask.at_s, request)

    async def _caller(self) -> None:
        for ask in self.asks:
            request = self._request(ask)
            await asyncio.wait([self._begin(ask, self.now(), request)])

    def _request(self, ask: ScheduledRequest) -> bytes:
        """Return a request, made before its time comes: what that takes is the bench's own and no wait for an engine."""
        return self.target.request(self.texts.of(ask), ask.size.answer_tokens)

    def _begin(self, ask: ScheduledRequest, intended_s: float, request: bytes) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._send(ask, intended_s, request))
        self._all.add(task)
        task.add_done_callback(self._all.discard)
        if intended_s >= self.conditions.warm_up_s:
            self._since_s = min(self._since_s, intended_s)
        if self._since_s <= intended_s < self._until_s:
            if self._closing or len(self._measured) == self.conditions.requests:
                self._until_s = intended_s  # this one is the first that does not count
            else:
                self._measured.add(task)
        return task

    async def _send(self, ask: ScheduledRequest, intended_s: float, request: bytes) -> None:
        timing = Timing(now=self.now, intended_s=intended_s, timeout_s=self.conditions.timeout_s)
        if len(self._all) > UNDER_WAY_MAX:
            at_s = self.now()
            self._samples.append(
                RequestSample(
                    ask=ask, intended_s=intended_s, sent_s=at_s, end_s=at_s, fate="connect", detail="too many"
                )
            )
            return
        await send(self.target, ask, request=request, timing=timing, keep=self._samples.append)


_LOOK_S = 0.05
"""Between two looks whether the window is over. Source: our own choice."""


async def _cancelled(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
