"""What a client has received of its stream, kept so that another replica can continue it if the engine dies. Pure.

While all goes well this costs one list append per read: the bytes that were sent are kept as they are. They are parsed only
when an engine dies. Long logs are packed now and then, outside the stream's own path and within a bound of work; events are
so alike that they pack well. A stream that passes the bounds is no longer kept, so it cannot be continued; nothing else changes for it.
"""

import zlib
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from freehold.gateway.wire.frame import BadFramingError, ChunkedFrame

Json = dict[str, Any]

RESUMED_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Where a stream's text can be given back to an engine as the beginning of its answer."""
PACK_BYTES = 256 * 1024
"""Unpacked bytes of one stream from which they are packed. Source: our own choice: over 1,000 tokens, more than most
answers have."""
PACK_BYTES_FULL = 16 * 1024
"""The same while all streams together keep much. Source: our own choice."""
PACKED_PER_TICK_BYTES = 2 * 1024 * 1024
"""Most that is packed in one tick. Source: our own bound: some 5 ms of work, twice a second."""
ONE_BYTES_MAX = 1024 * 1024
"""Most kept of one stream, packed. Source: our own bound; some 50,000 tokens."""
ALL_BYTES_MAX = 128 * 1024 * 1024
"""Most that is kept in one gateway. Source: our own bound; half of what 10,000 idle connections may take in all."""
forget: Callable[[bytes], object] = deque[bytes](maxlen=0).append
"""Keeps nothing: the cheapest call that does nothing."""
_OWN_BYTES = 512  # What a stream costs in addition to its bytes. Source: our own estimate.

# What a choice may have besides its text without anything being lost when its text alone is given back.
_CHOICE = frozenset({"index", "delta", "text", "finish_reason", "logprobs", "stop_reason", "matched_stop"})
_DELTA = frozenset({"role", "content"})


class _TokenDelta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str


class _TokenChoice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    index: int = 0
    delta: _TokenDelta | None = None
    text: str | None = None
    finish_reason: None = None
    logprobs: None = None
    stop_reason: None = None


class _Token(msgspec.Struct, gc=False):
    choices: tuple[_TokenChoice]


_TOKEN: msgspec.json.Decoder[_Token] = msgspec.json.Decoder(_Token)
"""Reads an event with one token and nothing else, as nearly all are, in a tenth of the time."""


class StreamText:
    """What a client received of its stream, as text."""

    __slots__ = ("finished", "head", "role", "texts", "usage_sent", "why_not")

    def __init__(self) -> None:
        self.head: Json = {}
        """The fields that each event has in addition to its choices: id, model, time."""
        self.role = False
        self.texts: list[str] = []
        """The text, one item for each event: about one a token. An empty one is a token of which no character is whole
        yet, or whose text is held back."""
        self.finished = False
        """The finish reason was sent; at most usage and the end are missing."""
        self.usage_sent = False
        self.why_not = ""
        """Why it cannot be continued, as a code; empty: it can."""

    def __repr__(self) -> str:
        return f"<StreamText {len(self.texts)} tokens{', finished' * self.finished} {self.why_not}>"

    def take(self, events: bytes) -> None:
        """Take whole events, each with its data in one line; other lines mean nothing."""
        if events and not events.endswith((b"\n\n", b"\n\r\n")):
            self.why_not = "part_of_an_event"
        for line in events.split(b"\n"):
            if line.startswith(b"data:"):
                self._line(line[5:])

    def _line(self, data: bytes) -> None:
        if self.head:
            try:
                choice = _TOKEN.decode(data).choices[0]
            except msgspec.DecodeError:
                choice = None
            text = (
                None
                if choice is None or choice.index
                else choice.delta.content
                if choice.delta
                else choice.text
            )
            if text:
                self.texts.append(text)
                return
        self._event(data.strip())

    def _event(self, data: bytes) -> None:
        event = read_json(data)
        if event is None:
            self.why_not = "ended" if data == b"[DONE]" else "no_json"
            return
        choices = event.get("choices")
        if not isinstance(choices, list) or event.get("error"):
            self.why_not = "error"
        elif choices:
            self.head = self.head or {k: event[k] for k in HEAD_KEYS if k in event}
            self._choices(choices)
        else:
            self.usage_sent = self.usage_sent or bool(event.get("usage"))

    def _choices(self, choices: list[Any]) -> None:
        choice = choices[0]
        if len(choices) > 1 or not isinstance(choice, dict) or choice.get("index", 0) != 0:
            self.why_not = "choices"
            return
        delta = choice.get("delta") or {}
        if not isinstance(delta, dict):
            self.why_not = "not_only_text"
            return
        text = delta.get("content") if choice.get("text") is None else choice["text"]
        more = [key for key in choice.keys() - _CHOICE if choice[key]]
        no_text = text is not None and not isinstance(text, str)
        if more or no_text or choice.get("logprobs") or any(delta[key] for key in delta.keys() - _DELTA):
            self.why_not = "not_only_text"
        if no_text:
            text = None
        ends = choice.get("finish_reason") is not None
        if text or (text == "" and "role" not in delta and not ends):
            self.texts.append(text)
        self.role = self.role or "role" in delta
        self.finished = self.finished or ends


HEAD_KEYS = ("id", "object", "created", "model", "system_fingerprint")
"""The fields of an event that are the same in all events of one answer. Source: OpenAI API reference, chunk object."""


def read_json(data: bytes) -> Json | None:
    """Return a JSON object; None: it is none."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class StreamLog:
    """What one client has of its stream. `chunked`: it is kept in whole chunks, as it was sent."""

    __slots__ = ("_packed", "_pieces", "_seen_bytes", "add", "chunked")

    def __init__(self) -> None:
        self._pieces: list[bytes] | None = []
        self.add: Callable[[bytes], object] = self._pieces.append
        """Keep what was sent just now; nothing but an append."""
        self.chunked = False
        self._packed: tuple[bytes, ...] = ()
        self._seen_bytes = 0

    def __repr__(self) -> str:
        return f"<StreamLog {len(self._packed)} packs, {len(self._pieces or ())} reads>"

    def text(self) -> StreamText:
        """Return what the client received, as text."""
        text = StreamText()
        if self._pieces is None:
            text.why_not = "too_long"
            return text
        data = b"".join([*map(zlib.decompress, self._packed), *self._pieces])
        text.take(data)
        if text.why_not and self.chunked:
            # Mostly chunks begin and end where events do, so that their sizes are lines of their own; not always.
            text = StreamText()
            text.take(_without_chunks(data))
        return text

    def tidy(self, passed_bytes: int, keeping: "PackBudget") -> None:
        """Pack what has become long, and give up what is too long; `passed_bytes`: all that was sent so far."""
        if self._pieces is None:
            return
        loose_bytes = passed_bytes - self._seen_bytes
        if keeping.may_pack(loose_bytes):
            self._packed = (*self._packed, zlib.compress(b"".join(self._pieces), 1))
            self._pieces.clear()
            self._seen_bytes, loose_bytes = passed_bytes, 0
        packed_bytes = sum(map(len, self._packed))
        if packed_bytes > ONE_BYTES_MAX or not keeping.count(loose_bytes + packed_bytes + _OWN_BYTES):
            self._pieces, self._packed, self.add = None, (), forget


class PackBudget:
    """How much all streams of a gateway keep, counted again at each tick."""

    __slots__ = ("_before_bytes", "_now_bytes", "_packed_bytes")

    def __init__(self) -> None:
        self._before_bytes = self._now_bytes = self._packed_bytes = 0

    def __repr__(self) -> str:
        return f"<PackBudget {self._before_bytes} bytes>"

    def turn(self) -> None:
        """Start the next count."""
        self._before_bytes, self._now_bytes, self._packed_bytes = self._now_bytes, 0, 0

    def may_pack(self, loose_bytes: int) -> bool:
        """Return whether a stream with so much unpacked is to be packed now, and count that work."""
        full = self._before_bytes > ALL_BYTES_MAX // 2
        if loose_bytes <= (PACK_BYTES_FULL if full else PACK_BYTES):
            return False
        if self._packed_bytes and self._packed_bytes + loose_bytes > PACKED_PER_TICK_BYTES:
            return False
        self._packed_bytes += loose_bytes
        return True

    def count(self, size_bytes: int) -> bool:
        """Count one stream and return whether there is room for it."""
        self._now_bytes += size_bytes
        return self._now_bytes <= ALL_BYTES_MAX


def _without_chunks(data: bytes) -> bytes:
    try:
        return b"".join(ChunkedFrame().payload(data)[1])
    except BadFramingError:  # cannot be: the gateway made or checked these chunks
        return b"?"
