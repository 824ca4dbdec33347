"""What an answer used, read on its way through: the usage that engines report, or else the chunks that went by.

A stream passes a `StreamTap`. Nearly every read is one more token chunk of a shape that was seen before: its length
gives the head that it must have (size line and the event's first bytes, up to `"choices":[{` or the event's name), one
newline at its end says that it is a single event. So it cannot be the usage chunk nor the last event, and is passed on
unread at no more cost than without a tap. Everything else takes the slow way: events are put together wherever they
are cut; the usage chunk is taken out for clients that did not ask for it; and before the last event is passed on,
`on_last` is called, so that what a client takes for a whole answer is in the ledger before the client has it.

`usage: null` in other chunks, which some engines send to clients that asked for usage, is left: taking it out would mean
to parse every chunk, and clients must cope with it anyway.
"""

import re
from collections.abc import Callable
from dataclasses import replace

from freehold.engines.base import ALL_PATHS
from freehold.gateway.answers.continuation import RestOfStream
from freehold.gateway.answers.stream_log import RESUMED_PATHS, PackBudget, StreamLog, forget
from freehold.gateway.answers.usage import (
    WHOLE_BYTES_MAX,
    Usage,
    find_usage,
    is_json,
    of_answers,
    read_event,
    whole_usage,
)
from freehold.gateway.wire import errors
from freehold.gateway.wire.frame import BodyFrame, EngineGaveUpError
from freehold.gateway.wire.headers import AnswerHead
from freehold.gateway.wire.request import Request

_HELD_BYTES_MAX = 64 * 1024
"""Longest event that is put together, bytes; of a longer one the first and the last are kept. Source: our own bound; a
usage chunk has some hundred bytes, and what is longer is a whole answer in one event, with its usage at the end."""
_NAME_BYTES = 64  # Enough of an event's first line to tell the last event of a stream.
_HEADS_MAX = 32  # Lengths of chunks known per stream: tokens have few, so the rest is rare. Some 4 KiB.
_MARKS = (b'"prompt_tokens"', b'"output_tokens"')  # An event with usage has one of these.
_BORDER = re.compile(rb"\n\n|\r\n\r\n")
_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\{')
_LAST = re.compile(
    rb"^(?:data: ?\[DONE\]|event: ?message_stop\b|event: ?response\.(?:completed|incomplete|failed)\b)",
    re.MULTILINE,
)
_ERROR = re.compile(
    rb"""^(?:event: ?error\b|error:|data: ?\{\s*"(?:error"|(?:object|type)": ?"error"))""", re.MULTILINE
)
"""An error event. Source: as llama.cpp, vLLM and SGLang send it; Anthropic and OpenAI API references, "Streaming"."""
_REMARKABLE = re.compile(rb"%b|%b" % (_LAST.pattern, _ERROR.pattern), re.MULTILINE)
_OVER = re.compile(_REMARKABLE.pattern + rb"""|"(?:finish|stop)_reason": ?"|"choices": ?\[\]""", re.MULTILINE)
"""What the last bytes of a stream have that is over: its last event, an error, a finish, or the usage after it. Some servers
leave `[DONE]` out."""
_PATHS_WITH_END = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"})
"""Where a stream has a last event. Source: OpenAI and Anthropic API references, "Streaming"."""
JSON_PATHS = ALL_PATHS
"""Where an answer that is not a stream is JSON. On others it may be sound or a picture. Source: OpenAI API reference."""
HELD_ANSWER_BYTES_MAX = 1024 * 1024
"""Longest answer, not a stream, that is kept back until it is whole, bytes. Source: our own bound; 256 embeddings of 1,024
numbers have three times as much, and no text has."""
_GAVE_UP = re.compile(rb'data: ?\{"error": ?\{.*"type": ?"InternalServerError"')
"""How a server reports in band that its engine is dead. Source: vLLM 0.32.0, measured by a SIGKILL to its EngineCore."""
_DELTA = re.compile(rb"event: ?[a-z_.]+_delta\r?\n|event: ?response\.output_text\.delta\r?\n")
SILENT_EVENTS = {"/v1/chat/completions": 1, "/v1/messages": 2, "/v1/responses": 4}
"""Events before the first token: the role; message and block start; created, in progress, item and part added.
Source: measured on llama.cpp; OpenAI and Anthropic API references, "Streaming"."""


class Tap:
    """What an answer passes on its way to the client; shared by the connection and its exchange."""

    __slots__ = ("chunks", "heads", "held_bytes", "keep", "last", "total_bytes", "write")

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write
        self.total_bytes = 0
        """Bytes of the body, its framing included."""
        self.held_bytes = 0
        """Bytes of the body that are kept back until it is whole."""
        self.chunks = 0
        """Reads that were passed on after one look."""
        self.last = b""
        """The last read."""
        self.keep: Callable[[bytes], object] = forget
        """Remembers each read that goes to the client, in case another engine has to continue the answer."""
        self.heads: dict[int, bytes] | None = None
        """What a chunk that needs no more than a look begins with, by its length; None: every chunk is such a one."""


class StreamTap(Tap):
    """The tap of one stream that is passed on. `hides`: the client did not ask for the usage chunk."""

    __slots__ = (
        "_heads",
        "_held",
        "_newest",
        "_newest_at",
        "_on_last",
        "_parts",
        "_passed_bytes",
        "_path",
        "_rest",
        "_silent",
        "choices",
        "chunked",
        "ended",
        "events",
        "hides",
        "log",
        "on_error",
        "usage",
    )

    def __init__(
        self, write: Callable[[bytes], None], *, path: str, hides: bool, on_last: Callable[[int], None]
    ) -> None:
        super().__init__(write)
        self._heads: dict[int, bytes] = {}
        self.heads = self._heads
        self.hides = hides
        self.usage: Usage | None = None
        self.choices = 0
        """As in `Request`."""
        self._parts: list[Usage] = []
        self.events = 0
        """Events that took the slow way; `chunks` counts the others."""
        self.ended = False
        """The event came that ends a whole answer."""
        self.chunked = False
        """The client gets the body in chunks, and always whole ones."""
        self.log: StreamLog | None = None
        """What the client received; None: it cannot be continued. With a log, the client gets whole events only."""
        self._rest: RestOfStream | None = None
        self._on_last = on_last
        self.on_error: Callable[[str, bytes], object] = _ignore
        """Is given an engine's own error text, which the client does not get."""
        self._silent = SILENT_EVENTS.get(path, 0)
        self._path = path
        self._held = b""
        self._newest = b""
        """The newest events that were not passed on after one look."""
        self._newest_at = 0
        """How many others had been passed on before them."""
        self._passed_bytes = 0

    def counted(self) -> tuple[Usage | None, int | None, int]:
        """Return the usage, about how many tokens were made, and the chunks."""
        chunks = self.events + self.chunks
        return self.end(), max(0, chunks - self._silent), chunks

    def begin(self, head: AnswerHead, *, http11: bool) -> AnswerHead:
        """Return the head to answer with. It has no length: a chunk may be taken out, or another engine may continue."""
        if head.length_bytes is not None:
            head = _without_length(head)
        self.chunked = head.chunked and http11
        return head

    def keep_all(self, *, chunked: bool) -> None:
        """Keep what goes to the client; `chunked`: the body has no length that another engine could not meet."""
        if chunked:
            self.log = log = StreamLog()
            log.chunked = self.chunked
            self.keep = log.add

    def tidy(self, keeping: PackBudget) -> None:
        """Bound what is kept."""
        if self.log is not None and not self.ended:
            self.log.tidy(self.total_bytes, keeping)
            self.keep = self.log.add

    def go_on(self, rest: RestOfStream) -> None:
        """Take what comes from now on as another engine's: `rest` makes the rest of this answer of it."""
        self._rest = rest
        self._held, self._passed_bytes, self._newest = b"", 0, b""
        self._silent += 1  # the comment that marks the continuation

    def begin_again(self) -> None:
        """Take what comes from now on as yet another engine's: nothing of the one before was passed on."""
        if self._rest is not None:
            self._rest = self._rest.copy()
        self._held, self._passed_bytes, self._newest = b"", 0, b""

    def fast(self, frame: BodyFrame) -> "StreamTap | None":
        """Return self where the next read may take the short way: on a border of chunks and of events."""
        return self if self.chunked and frame.at_border and not self._held and self._rest is None else None

    def at_border(self, frame: BodyFrame) -> bool:
        """Return whether an in-band message may be added now."""
        return self.chunked or frame.at_border or self.log is not None

    def take(self, data: bytes, frame: BodyFrame) -> tuple[int, bytes]:
        """Return how many bytes of a read belong to the answer, and what goes to the client instead of them.

        Raises BadFramingError, and EngineGaveUpError where another engine may be able to continue.
        """
        border, ended = frame.at_border, self.ended
        used, pieces = frame.payload(data)
        payload = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._rest is None:
            self._learn(payload, data)
            out = self._pass(payload)
        else:
            out, border = self._pass(self._rest.feed(payload)), False
        last = self.last_part() if frame.done else None
        whole = last is not None
        out += last or b""
        if self.chunked:
            same = out == payload and border and (frame.at_border or whole)
            out = data[:used] if same else _framed(out, last=whole)
        if self.ended and not ended:
            self._on_last(len(out))
        return used, out

    def last_words(self, events: bytes) -> bytes:
        """Return what the client gets where the gateway itself ends the answer with `events`."""
        ended, out = self.ended, self._pass(events)
        if self.chunked:
            out = _framed(out, last=True)
        if self.ended and not ended:
            self._on_last(len(out))
        return out

    def last_part(self) -> bytes | None:
        """Return what is kept back, where the stream is over, or None where it only stopped, as if its engine had died."""
        newest = self._newest if self.chunks == self._newest_at else self.last
        over = self.ended or self._path not in _PATHS_WITH_END or _OVER.search(newest)
        return self._flush() if over else None

    def end(self) -> Usage | None:
        """Return the usage once no more comes; None: the engine reported none."""
        if self.usage is None and any(mark in self.last for mark in _MARKS):
            self.usage = find_usage(self.last)
        return self.usage

    def _pass(self, payload: bytes) -> bytes:
        """Look at every event that is whole now, and return what may be passed on."""
        data = self._held + payload
        if data:
            self._newest, self._newest_at = data, self.chunks
        if not self._held and _is_unremarkable(payload):
            self.events += payload.count(b"\n\n")
            return payload
        at = data.rfind(b"\n\n") + 2
        if at > 1 and b"\r\n\r\n" not in data and _is_unremarkable(data[:at]):
            self.events += data.count(b"\n\n", 0, at)
            return data[self._passed_bytes : at] + self._hold(data[at:], 0)
        return self._pass_singly(data)

    def _pass_singly(self, data: bytes) -> bytes:
        passed_bytes, at = self._passed_bytes, 0
        out: list[bytes] = []
        for border in _BORDER.finditer(data):
            event = data[at : border.end()]
            if self._event(event) or passed_bytes or not self.hides:
                out.append(event[passed_bytes:] if passed_bytes else self._shown(event))
            at, passed_bytes = border.end(), 0
        out.append(self._hold(data[at:], passed_bytes))
        return b"".join(out)

    def _hold(self, rest: bytes, passed_bytes: int) -> bytes:
        """Keep the beginning of an event until the rest of it comes, and return what of it may be passed on now."""
        out = b""
        # Half of the last event: an error behind it would come too late. What is short may become that, or an error.
        short = len(rest) < _NAME_BYTES
        if not (self.hides or self.log or short or _REMARKABLE.search(rest)) or len(rest) > _HELD_BYTES_MAX:
            out = rest[passed_bytes:]
            if len(rest) > _HELD_BYTES_MAX:
                rest = rest[:_NAME_BYTES] + rest[_NAME_BYTES - _HELD_BYTES_MAX :]
            passed_bytes = len(rest)
        self._held, self._passed_bytes = rest, passed_bytes
        return out

    def _flush(self) -> bytes:
        """Return what is left of a stream that ended without its last blank line."""
        event, self._held = self._held, b""
        if event.strip() and not self._event(event) and not self._passed_bytes and self.hides:
            return b""
        return event[self._passed_bytes :] if self._passed_bytes else self._shown(event)

    def _shown(self, event: bytes) -> bytes:
        """Return an event as the client gets it: without the text of an engine's own failure."""
        if not _ERROR.search(event):
            return event
        text = event.partition(b"data:")[2] or event.partition(b":")[2]
        error = errors.from_event(text)
        if error.status < 500:
            return event
        self.on_error("error_event", text)
        return errors.event(error, self._path)

    def _event(self, event: bytes) -> bool:
        """Look at one event and return whether the client gets it."""
        if event.startswith(b":"):
            return True  # a comment, to keep the connection alive
        if self.log is not None and _GAVE_UP.match(event):
            raise EngineGaveUpError("it reports in its answer that it failed")
        hidden = any(mark in event for mark in _MARKS) and self._read_usage(event)
        if _LAST.match(event) and not self.ended:
            self.end()
            self.ended = True
        elif not hidden:
            self.events += 1
        return not hidden

    def _read_usage(self, event: bytes) -> bool:
        """Read an event's usage and return whether the event is there for nothing else."""
        found = read_event(event.partition(b"data:")[2].strip())
        usage = find_usage(event) if found is None else found.counts()
        if usage is not None and self.choices and found is not None and found.ends_answer:
            self._parts.append(usage)
            self.usage = of_answers(self._parts, choices=self.choices)
        elif usage is not None:
            self.usage = usage if self.usage is None else self.usage.updated(usage)
        return found is not None and found.only_usage and self.hides

    def _learn(self, payload: bytes, data: bytes) -> None:
        """Remember what one whole chunk with one token looks like, so that the next one of its length goes fast."""
        line_bytes = len(data) - len(payload) - 2
        if (
            not self.chunked
            or data[line_bytes - 2 : line_bytes] != b"\r\n"
            or b"\r\n" in data[: line_bytes - 2]
        ):
            return
        start = _CHOICES.search(payload) if payload.startswith(b"data:") else _DELTA.match(payload)
        if (
            start is not None
            and payload.find(b"\n", start.end()) == len(payload) - 2
            and payload.endswith(b"\n\n")
        ):
            if len(self._heads) >= _HEADS_MAX:
                self._heads.clear()
            self._heads[len(data)] = data[: line_bytes + start.end()]


def _ignore(_reason: str, _text: bytes) -> None:
    """Drop an error's text."""


def _framed(payload: bytes, *, last: bool) -> bytes:
    """Return a payload as one chunk; an empty payload is not a chunk, since an empty chunk would be the end."""
    chunk = b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""
    return chunk + (b"0\r\n\r\n" if last else b"")


def _is_unremarkable(payload: bytes) -> bool:
    """Return whether a read is whole events of which none is the last or has a usage; cheap for many events at once."""
    return (
        payload.endswith(b"\n\n")
        and not any(mark in payload for mark in _MARKS)
        and not _REMARKABLE.search(payload)
    )


def _without_length(head: AnswerHead) -> AnswerHead:
    length = b"content-length: %d\r\n" % (head.length_bytes or 0)
    return replace(
        head,
        chunked=True,
        length_bytes=None,
        start=head.start.replace(length, b"transfer-encoding: chunked\r\n"),
        start_unchunked=head.start_unchunked.replace(length, b""),
    )


class WholeTap(Tap):
    """The tap of one answer that is not a stream: kept back until it is whole; a very long one is passed on as it comes."""

    __slots__ = ("_begin", "_end", "_holds", "_on_last", "_out", "_payload", "_unchunk", "usage")

    def __init__(self, write: Callable[[bytes], None], on_last: Callable[[int], None]) -> None:
        super().__init__(write)
        self._holds = True
        self._out: list[bytes] = []
        self._payload: list[bytes] = []
        self.usage: Usage | None = None
        self._on_last = on_last
        self._begin = self._end = b""
        self._unchunk = False

    def begin(self, head: AnswerHead, request: Request) -> AnswerHead:
        """Return the head to answer with: the engine's. An answer that need not be JSON is not kept back."""
        self._unchunk = head.chunked and not request.http11
        self._holds = head.status == 200 and request.path in JSON_PATHS
        return head

    def counted(self) -> tuple[Usage | None, int | None, int]:
        """Return the usage; nothing else is counted of a whole answer."""
        return self.end(), None, 0

    def fast(self, frame: BodyFrame) -> None:
        """Return None: every read is looked at; there are few."""
        del frame

    def take(self, data: bytes, frame: BodyFrame) -> tuple[int, bytes]:
        """Return how many bytes of a read belong to the answer, and what goes to the client now.

        Raises BadFramingError, and EngineGaveUpError for an answer that is not JSON, of which the client has nothing yet.
        """
        used, pieces = frame.payload(data)
        payload = b"".join(pieces)
        out = payload if self._unchunk else data[:used]
        if self._holds:
            out = self._hold(payload, out, is_whole=frame.done)
        else:
            self._note(payload)
        if frame.done:
            self.end()
            self._on_last(len(out))
        return used, out

    def _hold(self, payload: bytes, out: bytes, *, is_whole: bool) -> bytes:
        self._payload.append(payload)
        self._out.append(out)
        self.held_bytes += len(out)
        if self.held_bytes > HELD_ANSWER_BYTES_MAX:
            return self._let_go()
        last = self.last_part() if is_whole else b""
        if last is None:
            raise EngineGaveUpError("its answer is not JSON")
        return last

    def last_part(self) -> bytes | None:
        """Return what is kept back, now that no more comes, or None where that is not JSON."""
        if self._holds and not is_json(b"".join(self._payload)):
            return None
        return self._let_go()

    def _let_go(self) -> bytes:
        for payload in self._payload:
            self._note(payload)
        out = b"".join(self._out)
        self._payload, self._out, self._holds, self.held_bytes = [], [], False, 0
        return out

    def _note(self, payload: bytes) -> None:
        if len(self._begin) + len(payload) <= WHOLE_BYTES_MAX and not self._end:
            self._begin += payload
        else:
            self._end = (self._end + payload)[-WHOLE_BYTES_MAX:]

    def end(self) -> Usage | None:
        """Return the usage once no more comes; None: none can be read."""
        if self.usage is None:
            self.usage = (
                whole_usage(self._begin)
                if not self._end
                else find_usage(self._end) or find_usage(self._begin)
            )
        return self.usage


AnswerTap = StreamTap | WholeTap


def tap_for(
    head: AnswerHead,
    request: Request,
    *,
    write: Callable[[bytes], None],
    on_last: Callable[[int], None],
    on_error: Callable[[str, bytes], object] = _ignore,
) -> tuple[AnswerTap, AnswerHead]:
    """Return the tap for an answer with this head, and the head that the client gets."""
    if not head.event_stream:
        whole = WholeTap(write, on_last=on_last)
        return whole, whole.begin(head, request)
    tap = StreamTap(write, path=request.path, hides=request.hides_usage, on_last=on_last)
    tap.choices, tap.on_error = request.choices, on_error
    head = tap.begin(head, http11=request.http11)
    if request.resumable and request.path in RESUMED_PATHS:
        tap.keep_all(chunked=head.chunked)
    return tap, head
