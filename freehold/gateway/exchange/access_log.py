"""The access log: one JSON line per request that is over, and never a word of what was asked or answered.

The event loop only hands over a tuple of what it knows anyway; a thread of its own makes lines of them, some hundred at
a time, and writes. A disk that is slow or full costs lines, which are counted (`freehold_access_log_dropped_total`),
and never a request's time. Nothing is taken from a request but its id, its path and its key's id: no header, no body,
no query, no address. Probes and scrapes (`/health`, `/metrics` and the like) are not logged while they succeed.
"""

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from freehold.core.clock import wall_s
from freehold.gateway.answers.usage import Usage
from freehold.gateway.exchange.ledger_record import RequestEnd
from freehold.gateway.settings import AccessLogSettings
from freehold.gateway.wire.request import ENGINE_PATHS, Request
from freehold.telemetry.redact import clean_text
from freehold.telemetry.writer import FileTarget, LineWriter

QUEUE_LINES = 8192
"""Lines that wait for the disk at most. Source: our own choice: 4 MB, or two seconds of 4,000 requests a second."""
LINGER_S = 0.2
"""How long the thread lets lines gather, seconds. Source: our own choice: what `freehold logs -f` takes to look again."""
PATH_CHARS_MAX = 200
"""Most of a path that is none of ours, which a client may have made as long as it likes. Source: our own choice."""
CLOSE_S = 1.0
"""How long the end of a gateway waits for the last lines. Source: as long as the log of the process itself."""

# An engine's own codes are shown as they are; these are the gateway's, and say how a request ended.
_ENDS = {
    "timeout": "deadline",
    "draining": "draining",
    "client_stall": "client_stalled",
    "engine_failed": "engine_lost",
    "engine_lost": "engine_lost",
}
_LEAST_S = 0.00005  # Less is nought in the four digits that are shown.
_ENCODER = msgspec.json.Encoder()
_ID_AT = len(b"x-request-id: ")
_CLIENT_LEFT = 499  # Source: nginx's status for it, which the exchange uses.


class AccessEntry(msgspec.Struct, gc=False):
    """What is known of a request that is over; made by position, since one is made for each."""

    wall_s: float
    request: bytes
    """The header line with its id."""
    key: str
    model: str
    endpoint: str
    path: str
    status: int
    code: str
    refused: bool
    """The gateway said no by itself: no engine answered."""
    stream: bool
    wait_s: float
    ttft_s: float | None
    took_s: float
    attempts: int
    sent_bytes: int
    usage: Usage | None = None


class SharedFields(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The part of a line that many lines have in common; what does not apply is left out."""

    path: str
    status: int
    """As the metrics count it: 499 where the client left, 502 where an answer that had begun was cut."""
    end: str
    """complete, client_left, client_stalled, engine_lost, engine_error, deadline, draining or refused."""
    code: str = ""
    """The error's code."""
    key: str = ""
    """The id of the client's key; never the key."""
    model: str = ""
    endpoint: str = ""
    stream: bool = False


def ending(status: int, code: str, *, refused: bool) -> str:
    """Return in a word how a request ended."""
    if not code:
        return "client_left" if status == _CLIENT_LEFT else "complete" if status < 400 else "engine_error"
    return _ENDS.get(code) or ("refused" if refused else "engine_error")


def render(entry: AccessEntry) -> bytes:
    """Return the line of an entry. Total: a path that is none of ours is cut and cleaned of secrets."""
    if entry.path in ENGINE_PATHS:
        what = _what(entry.path, entry.status, entry.code[:PATH_CHARS_MAX], entry.refused, entry.key, entry.model,
                     entry.endpoint, entry.stream)  # fmt: skip
    else:
        path = clean_text(entry.path[:PATH_CHARS_MAX])
        end = ending(entry.status, entry.code, refused=entry.refused)
        what = _inside(SharedFields(path, entry.status, end, entry.code[:PATH_CHARS_MAX], entry.key))
    whole_s = int(entry.wall_s)
    request_id = entry.request[_ID_AT:-2]
    if _QUOTE in request_id or _BACKSLASH in request_id:
        request_id = _ENCODER.encode(request_id.decode("ascii", "replace"))[1:-1]
    at_ms, usage = int((entry.wall_s - whole_s) * 1000), entry.usage
    if usage is not None and entry.ttft_s is None and entry.wait_s < _LEAST_S:
        prompt, completion, attempts = usage.prompt_tokens, usage.completion_tokens, entry.attempts
        if prompt is not None and completion is not None and attempts and entry.sent_bytes:
            # As most are: the same in one go.
            return _USUAL_LINE % (
                _second(whole_s), at_ms, request_id, what, prompt, completion, entry.took_s, attempts, entry.sent_bytes
            )  # fmt: skip
    return _LINE % (_second(whole_s), at_ms, request_id, what, _figures(entry))


_QUOTE, _BACKSLASH = b'"\\'
_LINE = b'{"at":"%b.%03dZ","id":"%b",%b%b}\n'
_USUAL_LINE = b'{"at":"%b.%03dZ","id":"%b",%b,"prompt_tokens":%d,"completion_tokens":%d,"took_s":%.4f,"attempts":%d,"bytes":%d}\n'


def _figures(entry: AccessEntry) -> bytes:
    """Return the fields that are a line's own; but for the time it took, those that are unknown or nought are left out."""
    usage, said = entry.usage, b""
    if usage is not None:
        if usage.prompt_tokens is not None:
            said = b',"prompt_tokens":%d' % usage.prompt_tokens
        if usage.completion_tokens is not None:
            said += b',"completion_tokens":%d' % usage.completion_tokens
    if entry.wait_s >= _LEAST_S:
        said += b',"wait_s":%.4f' % entry.wait_s
    if entry.ttft_s is not None:
        said += b',"ttft_s":%.4f' % entry.ttft_s
    said += b',"took_s":%.4f' % entry.took_s
    if entry.attempts:
        said += b',"attempts":%d' % entry.attempts
    return said + b',"bytes":%d' % entry.sent_bytes if entry.sent_bytes else said


def _inside(what: SharedFields) -> bytes:
    return _ENCODER.encode(what)[1:-1]


@lru_cache(maxsize=1024)  # its parts are few: our own paths, and names that are configured
def _what(*parts: Any) -> bytes:
    path, status, code, refused, *rest = parts
    return _inside(SharedFields(path, status, ending(status, code, refused=refused), code, *rest))


@lru_cache(maxsize=8)  # many lines have the same second
def _second(wall_s: int) -> bytes:
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


class AccessLog:
    """The access log of one gateway process; switched on, off and over while it runs."""

    def __init__(self, settings: AccessLogSettings) -> None:
        self.settings = settings
        self._lost_before = 0
        self._target: FileTarget | None = None
        self.writer: LineWriter[AccessEntry] | None = None
        """Takes the lines; None: the log is off."""
        self._open()

    def __repr__(self) -> str:
        return f"<AccessLog {self.settings.path or 'off'} {self.writer!r}>"

    @property
    def dropped_total(self) -> int:
        """Return how many lines were lost."""
        return self._lost_before + (self.writer.dropped_total if self.writer else 0)

    def note(self, request: Request, end: RequestEnd, usage: Usage | None) -> None:
        """Take a request that went to an engine, as the ledger gets it; costs about a microsecond."""
        writer = self.writer
        if writer is None:
            return
        writer.offer(
            AccessEntry(
                wall_s(), request.id_line, request.key_id, end.model, end.endpoint,
                request.path, end.status, end.code, False, request.stream,
                end.wait_s, end.ttft_s, end.took_s, end.retries + 1, end.bytes,
                usage,
            )
        )  # fmt: skip

    def refused(
        self, request: Request, *, status: int, code: str, model: str = "", waited_s: float = 0.0
    ) -> None:
        """Take a request that no engine saw; `model` is known where it waited in that model's queue."""
        if self.writer is not None:
            self.writer.offer(
                AccessEntry(
                    wall_s(), request.id_line, request.key_id, model, "", request.path, status, code, True,
                    request.stream, waited_s, None, waited_s, 0, 0,
                )
            )  # fmt: skip

    def answered_here(self, request: Request, status: int, sent_bytes: int) -> None:
        """Take a request that the gateway answered itself, unless it was a probe or a scrape."""
        if self.writer is not None and request.path.startswith("/v1/"):
            self.writer.offer(
                AccessEntry(
                    wall_s(), request.id_line, request.key_id, "", "", request.path, status, "", False,
                    False, 0.0, None, 0.0, 0, sent_bytes,
                )
            )  # fmt: skip

    def change(self, settings: AccessLogSettings) -> None:
        """Go on by other settings; what was taken before is still written."""
        before, self.settings = self.settings, settings
        if settings.path == before.path and self._target is not None:
            self._target.bound(max_bytes=settings.max_bytes, backups=settings.keep)
            return
        if self.writer is not None:
            self.writer.finish()
            self._lost_before += self.writer.dropped_total
        self.writer = self._target = None
        self._open()

    def close(self) -> None:
        """Write what is queued, within CLOSE_S. Blocks, so only at the end."""
        if self.writer is not None:
            self.writer.close(CLOSE_S)

    def _open(self) -> None:
        settings = self.settings
        if settings.path:
            self._target = FileTarget(
                Path(settings.path), max_bytes=settings.max_bytes, backups=settings.keep
            )
            self.writer = LineWriter(
                self._target, queue_records=QUEUE_LINES, render=render, linger_s=LINGER_S
            )
