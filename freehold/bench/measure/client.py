"""One streamed chat completion over HTTP/1.1, timed piece by piece; a connection each, no retries, no proxies.

It reads with httptools and decodes events with msgspec, a few microseconds per token, so that what is measured is the
engine. It keeps no texts. Only plain HTTP to an address is spoken: engines under test are on this machine.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import httptools
import msgspec

from freehold.bench.analysis.load import ScheduledRequest
from freehold.bench.analysis.sample import Fate, RequestSample
from freehold.gateway.exchange.upstream import connect_unix

_DETAIL_CHARS = 200
"""Of an error's words, what is kept: a line."""
_BODY_BYTES = 64 * 1024
"""Of an error's body, what is read."""
_REFUSALS = frozenset({429, 503})
"""Statuses that say no for want of capacity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchTarget:
    """Where requests go."""

    host: str
    port: int
    model: str
    """As the engine or gateway knows it."""
    path: str = "/v1/chat/completions"
    socket: str = ""
    """Path of a Unix socket to reach it by; empty: `host` and `port`."""

    def request(self, text: str, answer_tokens: int) -> bytes:
        """Return a request for exactly so many tokens, greedy and streamed with usage.

        `ignore_eos` is llama.cpp's, vLLM's and SGLang's word, `min_tokens` vLLM's and TensorRT-LLM's; others ignore both.
        """
        body = msgspec.json.encode(
            {
                "model": self.model,
                "messages": [{"role": "user", "content": text}],
                "max_tokens": answer_tokens,
                "min_tokens": answer_tokens,
                "ignore_eos": True,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        return head.encode() + body


class _StreamDelta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _StreamChoice(msgspec.Struct):
    delta: _StreamDelta | None = None


class _StreamUsage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Event(msgspec.Struct):
    choices: tuple[_StreamChoice, ...] = ()
    usage: _StreamUsage | None = None
    error: msgspec.Raw | None = None


_EVENTS = msgspec.json.Decoder(_Event)


@dataclass(slots=True)
class _AnswerReader(asyncio.Protocol):
    """The answer as it comes."""

    now: Callable[[], float]
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = 0
    chunk_s: list[float] = field(default_factory=list)
    usage: _StreamUsage = field(default_factory=_StreamUsage)
    done: bool = False
    error: str = ""
    whole: bool = False
    """The HTTP message ended as it should."""
    _parser: httptools.HttpResponseParser = field(init=False)
    _rest: bytes = b""

    def __post_init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self.error = self.error or f"no HTTP: {exc}"
            self.closed.set()

    def on_headers_complete(self) -> None:
        """Note the status."""
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Take events out of the stream, or keep an error's words."""
        if self.status != 200:
            self._rest = (self._rest + body)[:_BODY_BYTES]
            return
        *lines, self._rest = (self._rest + body).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip())

    def _event(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        try:
            event = _EVENTS.decode(data)
        except msgspec.MsgspecError as exc:
            self.error = f"no event: {exc}"
            return
        if event.error is not None:
            self.error = bytes(event.error).decode("utf-8", "replace")
        if event.usage is not None:
            self.usage = event.usage
        if any(
            choice.delta and (choice.delta.content or choice.delta.reasoning_content)
            for choice in event.choices
        ):
            self.chunk_s.append(self.now())

    def on_message_complete(self) -> None:
        """Note the end."""
        self.whole = True
        self.closed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that nothing more comes."""
        del exc
        self.closed.set()

    def fate(self) -> Fate:
        """Return how it ended."""
        if self.status in _REFUSALS:
            return "refused"
        if self.status and self.status != 200:
            return "http_error"
        if self.error:
            return "error_event"
        return "whole" if self.whole and self.done else "cut"

    def detail(self) -> str:
        """Return an error's words on a line."""
        words = self.error or (self._rest.decode("utf-8", "replace") if self.status not in {0, 200} else "")
        return " ".join(words.split())[:_DETAIL_CHARS]


async def send(
    target: BenchTarget,
    ask: ScheduledRequest,
    *,
    request: bytes,
    timing: "Timing",
    keep: Callable[[RequestSample], object],
) -> None:
    """Make one request and give what became of it to `keep`, also when the task is cancelled in the middle."""
    reader = _AnswerReader(timing.now)
    sent_s = timing.now()
    fate: Fate | None = None

    def sample() -> RequestSample:
        counted = reader.usage.completion_tokens is not None
        return RequestSample(
            ask=ask,
            intended_s=timing.intended_s,
            sent_s=sent_s,
            end_s=timing.now(),
            fate=fate or reader.fate(),
            chunk_s=tuple(reader.chunk_s),
            prompt_tokens=reader.usage.prompt_tokens,
            answer_tokens=reader.usage.completion_tokens if counted else len(reader.chunk_s) or None,
            counted=counted,
            detail=reader.detail(),
        )

    transport: asyncio.Transport | None = None
    try:
        async with asyncio.timeout(max(0.0, timing.intended_s + timing.timeout_s - sent_s)):
            loop = asyncio.get_running_loop()
            if target.socket:
                sock = await connect_unix(target.socket)
                transport, _ = await loop.create_unix_connection(lambda: reader, sock=sock)
            else:
                transport, _ = await loop.create_connection(lambda: reader, target.host, target.port)
            transport.write(request)
            await reader.closed.wait()
    except TimeoutError:
        fate = "timeout"
    except OSError as exc:
        fate, reader.error = "connect", str(exc)
    except asyncio.CancelledError:
        fate = "cancelled"
        raise
    finally:
        if transport is not None:
            transport.abort()
        keep(sample())


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One request's clock and bounds, seconds from the start of the load."""

    now: Callable[[], float]
    intended_s: float
    timeout_s: float
    """From when it was meant to be sent to its end."""
