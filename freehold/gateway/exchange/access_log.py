"""The access log: one JSON line per request that is over, and never any text of a request or an answer.

The event loop only hands over a tuple of what it knows anyway; a thread of its own makes lines of them, some hundred at
a time, and writes. A disk that is slow or full costs lines, which are counted (`freehold_access_log_dropped_total`),
and never a request's time. Nothing is taken from a request but its id, its path and its key's id: no header, no body,
no query, no address. Probes and scrapes (`/health`, `/metrics` and the like) are not logged while they succeed.
"""

from datetime import UTC, datetime
from functools import lru_cache
from math import floor
from pathlib import Path
from typing import Any

import msgspec

from freehold.core.clock import wall_s
from freehold.gateway.answers.usage import Usage
from freehold.gateway.exchange.ledger_record import CLIENT_LEFT, AnswerTokens, RequestEnd
from freehold.gateway.settings import AccessLogSettings
from freehold.gateway.wire.request import ENGINE_PATHS, ID_NAME, Request
from freehold.ledger.records.record import Outcome
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

# An engine's own codes are shown as they are; these are the gateway's, by how a request ended.
_ENDS = {
    "timeout": "deadline",
    "draining": "draining",
    "client_stall": "client_stalled",
    "engine_failed": "engine_lost",
    "engine_lost": "engine_lost",
}
_LEAST_S = 0.00005  # Less is 0 in the four digits that are shown.
_ENCODER = msgspec.json.Encoder()
_ID_AT = len(ID_NAME)
_FAILED = Outcome.FAILED
_NO_TOKENS = AnswerTokens(None, None, 0)


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
    """Return how a request ended, as a code."""
    if not code:
        return "client_left" if status == CLIENT_LEFT else "complete" if status < 400 else "engine_error"
    return _ENDS.get(code) or ("refused" if refused else "engine_error")


def render(end: RequestEnd) -> bytes:
    """Return the line of a request. Total: a path that is none of ours is cut and cleaned of secrets."""
    refused = end.retries < 0 and end.outcome is _FAILED
    code = end.code and end.code[:PATH_CHARS_MAX]
    if end.path in ENGINE_PATHS:
        fields = _fields(end.path, end.status, code, refused, end.key_id, end.model, end.endpoint, end.stream)
    else:
        path = clean_text(end.path[:PATH_CHARS_MAX])
        how = ending(end.status, end.code, refused=refused)
        fields = _inside(SharedFields(path, end.status, how, code, end.key_id))
    request_id = end.id_line[_ID_AT:-2]
    if _QUOTE in request_id or _BACKSLASH in request_id:
        request_id = _ENCODER.encode(request_id.decode("ascii", "replace"))[1:-1]
    wall_ms, usage, attempts = floor(end.wall_s * 1000), end.tokens.usage, end.retries + 1
    second, ms = _second(wall_ms // 1000), wall_ms % 1000
    if (
        usage is None or usage.prompt_tokens is None or usage.completion_tokens is None
        or end.ttft_s is not None or end.wait_s >= _LEAST_S or not (attempts and end.bytes)
    ):  # fmt: skip
        return _LINE % (second, ms, request_id, fields, _figures(end, usage, attempts))
    return _USUAL_LINE % (
        second, ms, request_id, fields, usage.prompt_tokens, usage.completion_tokens, end.took_s, attempts, end.bytes
    )  # fmt: skip


_QUOTE, _BACKSLASH = b'"\\'
_LINE = b'{"at":"%b.%03dZ","id":"%b",%b%b}\n'
_USUAL_LINE = _LINE.replace(
    b"%b}", b',"prompt_tokens":%d,"completion_tokens":%d,"took_s":%.4f,"attempts":%d,"bytes":%d}'
)


def _figures(end: RequestEnd, usage: Usage | None, attempts: int) -> bytes:
    """Return the fields that are a line's own. Except for the time it took, unknown and zero fields are left out."""
    line = b""
    if usage is not None:
        counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
        line = b"".join(b',"%b":%d' % (k.encode(), v) for k, v in counts.items() if v is not None)
    if end.wait_s >= _LEAST_S:
        line += b',"wait_s":%.4f' % end.wait_s
    if end.ttft_s is not None:
        line += b',"ttft_s":%.4f' % end.ttft_s
    line += b',"took_s":%.4f' % end.took_s
    if attempts:
        line += b',"attempts":%d' % attempts
    return line + b',"bytes":%d' % end.bytes if end.bytes else line


def _inside(fields: SharedFields) -> bytes:
    return _ENCODER.encode(fields)[1:-1]


@lru_cache(maxsize=1024)  # its parts are few: our own paths, and names that are configured
def _fields(*parts: Any) -> bytes:
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
        self.writer: LineWriter[RequestEnd] | None = None
        """Takes the lines; None: the log is off."""
        self._open()

    def __repr__(self) -> str:
        return f"<AccessLog {self.settings.path or 'off'} {self.writer!r}>"

    @property
    def dropped_total(self) -> int:
        """Return how many lines were lost."""
        return self._lost_before + (self.writer.dropped_total if self.writer else 0)

    def refused(
        self, request: Request, *, status: int, code: str, model: str = "", waited_s: float = 0.0
    ) -> None:
        """Take a request that no engine saw; `model` is known where it waited in that model's queue."""
        if self.writer is not None:
            known = request.id_line, request.key_id, request.path, request.stream, model, "", status
            self.writer.offer(
                RequestEnd(wall_s(), *known, _FAILED, 0, None, waited_s, -1, waited_s, code, _NO_TOKENS)
            )

    def answered_here(self, request: Request, status: int, sent_bytes: int) -> None:
        """Take a request that the gateway answered itself, unless it was a probe or a scrape."""
        if self.writer is not None and request.path.startswith("/v1/"):
            known = request.id_line, request.key_id, request.path, request.stream, "", "", status
            self.writer.offer(
                RequestEnd(wall_s(), *known, Outcome.COMPLETE, sent_bytes, None, 0.0, -1, 0.0, "", _NO_TOKENS)
            )

    def change(self, settings: AccessLogSettings) -> None:
        """Use other settings; what was taken before is still written."""
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
