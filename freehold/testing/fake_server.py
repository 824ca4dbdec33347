"""The fake engine itself: routes, slots, pace and counters. What it says is `fake_answers`, how it fails `fake_faults`.

It keeps llama.cpp's habits where a gateway can notice them: idle connections are closed, an answer that is not
streamed runs to its end without its client, `tokens_predicted_total` moves when an answer ends.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec

from freehold.core.clock import monotonic_s
from freehold.testing import fake_answers as answers
from freehold.testing.fake_answers import AnswerJob
from freehold.testing.fake_faults import INSTEAD, MIDWAY, hang
from freehold.testing.fake_http import (
    Connection,
    Departure,
    FakeRequest,
    ServerCounts,
    note_departure,
    remember,
)
from freehold.testing.fake_settings import FakeSettings, Fault, changed

CONTROL_PATH = "/_fake"
Handler = Callable[[Connection, FakeRequest], Awaitable[None]]
"""What answers one path."""


class FakeServer:
    """One fake engine; make a `Connection` with it for every client."""

    def __init__(self, settings: FakeSettings, *, model: str) -> None:
        self.settings = settings
        self.counts = ServerCounts()
        self.model = model
        self._started_s = monotonic_s()
        self._slots = asyncio.Semaphore(settings.slots)
        self._awake = asyncio.Event()
        self._fall_asleep(sleeping=settings.sleeping)
        self.routes: dict[tuple[str, str], Handler] = {
            ("GET", "/health"): self._health,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/embeddings"): self._embeddings,
            ("GET", CONTROL_PATH): self._report,
            ("POST", CONTROL_PATH): self._change,
            ("POST", "/sleep"): self._sleep,
            ("POST", "/wake_up"): self._sleep,
            ("GET", "/is_sleeping"): self._is_sleeping,
        }

    async def handle(self, connection: Connection, request: FakeRequest) -> None:
        """Answer one request."""
        path = request.target.partition("?")[0]
        if request.method == "POST" and path in answers.KINDS:
            await self._complete(connection, request, path)
        elif handler := self.routes.get((request.method, path)):
            await handler(connection, request)
        else:
            self._refuse(connection, 404, "File Not Found", kind="not_found_error")

    def _refuse(
        self, connection: Connection, status: int, message: str, *, kind: str = "invalid_request_error"
    ) -> None:
        connection.respond(status, self.error_body(status, message, kind=kind))

    def error_body(self, status: int, message: str, *, kind: str) -> dict[str, Any]:
        """Return the body of a refusal."""
        return answers.error_body(status, message, kind=kind)

    def _loading(self) -> bool:
        return monotonic_s() - self._started_s < self.settings.start_s

    async def _health(self, connection: Connection, _request: FakeRequest) -> None:
        settings = self.settings
        await asyncio.sleep(settings.health_delay_s)
        if settings.health == "hang":
            await hang()
        ill = self._loading() or settings.fault != "none"
        if settings.health == "bad" or (settings.health == "honest" and ill):
            self._refuse(connection, 503, "Loading model", kind="unavailable_error")
        else:
            connection.respond(200, {"status": "ok"})

    async def _metrics(self, connection: Connection, _request: FakeRequest) -> None:
        if self.settings.metrics == "hang":
            await hang()
        if self.settings.metrics == "missing":
            self._refuse(connection, 501, "no metrics here", kind="not_supported_error")
        else:
            lines = [f"# TYPE {name} {kind}\n{name} {value}" for name, kind, value in _rows(self.counts)]
            awake = float(not self.settings.sleeping)
            lines.append(f'vllm:engine_sleep_state{{engine="0",sleep_state="awake"}} {awake}')
            connection.respond(200, "\n".join(lines) + "\n")

    async def _models(self, connection: Connection, _request: FakeRequest) -> None:
        connection.respond(200, answers.models(self.model))

    async def _embeddings(self, connection: Connection, request: FakeRequest) -> None:
        remember(self.counts, request)
        try:
            connection.respond(200, answers.embeddings(_object(request.body)))
        except ValueError as exc:
            self._refuse(connection, 400, str(exc))

    async def _report(self, connection: Connection, _request: FakeRequest) -> None:
        report = {"counts": self.counts, "settings": self.settings, "model": self.model}
        connection.respond(200, msgspec.to_builtins(report))

    async def _change(self, connection: Connection, request: FakeRequest) -> None:
        try:
            self.settings = changed(self.settings, _object(request.body))
            self._fall_asleep(sleeping=self.settings.sleeping)
        except ValueError as exc:  # msgspec.ValidationError is one
            self._refuse(connection, 400, str(exc))
        else:
            connection.respond(200, msgspec.to_builtins(self.settings))

    def _fall_asleep(self, *, sleeping: bool) -> None:
        if sleeping:
            self._awake.clear()
        else:
            self._awake.set()

    async def _sleep(self, connection: Connection, request: FakeRequest) -> None:
        sleeping = request.target.startswith("/sleep")
        self.settings = changed(self.settings, {"sleeping": sleeping})
        self._fall_asleep(sleeping=sleeping)
        connection.respond(200, {"status": "sleeping" if sleeping else "awake"})

    async def _is_sleeping(self, connection: Connection, _request: FakeRequest) -> None:
        connection.respond(200, {"is_sleeping": self.settings.sleeping})

    async def _complete(self, connection: Connection, request: FakeRequest, path: str) -> None:
        remember(self.counts, request)
        if self._loading():
            early = self.counts.while_loading
            early[path] = early.get(path, 0) + 1
            self._refuse(connection, 503, "Loading model", kind="unavailable_error")
            return
        job = self._read(connection, request, path)
        if job is None:
            return
        fault: Fault = self._take_fault() if self.settings.fault_on.encode() in request.body else "none"
        connection.abortable = job.stream or self.settings.abort_plain or fault in ("hang", "hang_stream")
        with self._watched(connection, job, path):
            async with self._slot():
                self.counts.prompt_tokens += job.prompt_tokens
                await self._answer(connection, job, fault)

    def _read(self, connection: Connection, request: FakeRequest, path: str) -> AnswerJob | None:
        settings = self.settings
        try:
            body = _object(request.body)
            job = answers.read_job(
                answers.KINDS[path],
                body,
                number=self.counts.requests,
                answer_tokens=settings.answer_tokens,
            )
        except ValueError as exc:
            self._refuse(connection, 400, str(exc))
            return None
        if job.prompt_tokens > settings.context_tokens:
            connection.respond(400, self.too_long(job.prompt_tokens, settings.context_tokens))
            return None
        return job

    def too_long(self, prompt: int, limit: int) -> dict[str, Any]:
        """Return the body that refuses a prompt of more tokens than fit."""
        words = f"request ({prompt} tokens) exceeds the available context size ({limit} tokens), try increasing it"
        return answers.error_body(
            400, words, kind="exceed_context_size_error", n_prompt_tokens=prompt, n_ctx=limit
        )

    def _take_fault(self) -> Fault:
        fault, count = self.settings.fault, self.settings.fault_count
        if fault == "none" or count < 0:
            return fault
        next_time = {"fault_count": count - 1} if count > 1 else {"fault": "none", "fault_count": -1}
        self.settings = changed(self.settings, next_time)
        return fault if count else "none"

    @contextmanager
    def _watched(self, connection: Connection, job: AnswerJob, path: str) -> Iterator[None]:
        """Count a request as in flight, and how it ended."""
        counts = self.counts
        before = counts.tokens
        counts.in_flight += 1
        counts.in_flight_max = max(counts.in_flight_max, counts.in_flight)
        try:
            yield
        finally:
            counts.in_flight -= 1
            connection.abortable = True
            if connection.gone:
                made = counts.tokens - before
                note_departure(
                    counts,
                    Departure(path=path, stream=job.stream, tokens=made, noticed_s=monotonic_s()),
                )

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        self.counts.waiting += 1
        try:
            await self._awake.wait()
            await self._slots.acquire()
        finally:
            self.counts.waiting -= 1
        self.counts.running += 1
        try:
            yield
        finally:
            self.counts.running -= 1
            self._slots.release()

    async def _answer(self, connection: Connection, job: AnswerJob, fault: Fault) -> None:
        if fault in INSTEAD:
            await INSTEAD[fault](connection, self.settings)
        elif job.stream:
            await self._stream(connection, job, fault)
        else:
            await self._plain(connection, job, fault)

    async def _plain(self, connection: Connection, job: AnswerJob, fault: Fault) -> None:
        async for made in self._pace(job):
            if fault in MIDWAY and made == self.settings.fault_after_tokens:
                connection.open_stream()  # the wrong kind of answer, and broken as told
                await MIDWAY[fault](connection, self.settings)
                return
        self._finished(job)
        connection.respond(200, answers.whole_answer(job))

    async def _stream(self, connection: Connection, job: AnswerJob, fault: Fault) -> None:
        connection.open_stream()
        if start := answers.opening(job):
            connection.chunk(start)
        async for made in self._pace(job):
            if fault in MIDWAY and made == self.settings.fault_after_tokens:
                await MIDWAY[fault](connection, self.settings)
                return
            connection.chunk(answers.token_event(job, job.first + made))
            await connection.flush()
        self._finished(job)
        if fault != "no_done":
            connection.chunk(answers.closing(job))
        connection.chunk(b"")
        await connection.flush()

    def _finished(self, job: AnswerJob) -> None:
        self.counts.finished += 1
        self.counts.tokens_of_finished += job.end - job.first

    async def _pace(self, job: AnswerJob) -> AsyncIterator[int]:
        """Give the number of tokens already made, before each token, at the set speed."""
        due_s = monotonic_s() + self.settings.first_token_s
        for made in range(job.end - job.first):
            await asyncio.sleep(max(0.0, due_s - monotonic_s()))
            speed = self.settings.tokens_per_s
            due_s += 1 / speed if speed else 0.0
            yield made
            self.counts.tokens += 1
            self.counts.decode_steps += 1


def _object(body: bytes) -> dict[str, Any]:
    """Return a JSON object; raises ValueError with words for the client."""
    value = json.loads(body)  # JSONDecodeError and UnicodeDecodeError are ValueErrors
    if not isinstance(value, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004 -- one kind of error for the caller
    return value


def _rows(counts: ServerCounts) -> list[tuple[str, str, int]]:
    """Return the counters under llama.cpp's and vLLM's names: name, Prometheus type, value."""
    return [
        ("llamacpp:prompt_tokens_total", "counter", counts.prompt_tokens),
        ("llamacpp:tokens_predicted_total", "counter", counts.tokens_of_finished),
        ("llamacpp:n_decode_total", "counter", counts.decode_steps),
        ("llamacpp:requests_processing", "gauge", counts.running),
        ("llamacpp:requests_deferred", "gauge", counts.waiting),
        ("vllm:prompt_tokens_total", "counter", counts.prompt_tokens),
        ("vllm:generation_tokens_total", "counter", counts.tokens),
        ("vllm:num_requests_running", "gauge", counts.running),
        ("vllm:num_requests_waiting", "gauge", counts.waiting),
    ]
