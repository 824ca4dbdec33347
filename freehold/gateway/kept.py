"""What a client has of its stream, kept so that another replica can go on with it should the engine die. Pure.

While all goes well this costs one list append per read: the bytes that went out are kept as they are, and nobody looks
at them. Only what grows long is read now and then, beside the stream, and kept as its text alone, which is some fifty
times shorter. What passes the bounds is no longer kept, so that its stream cannot be continued; it goes on as ever.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from freehold.gateway.frame import BadFramingError, ChunkedFrame

Json = dict[str, Any]

RESUMED_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Where a stream's text can be given back to an engine as the beginning of its answer."""
FOLD_BYTES = 64 * 1024
"""Unread bytes of one stream from which they are reduced to their text. Source: our own choice: some 250 tokens, more
than most answers have, and a third of a millisecond to read."""
TEXT_CHARS_MAX = 1024 * 1024
"""Longest text kept of one stream. Source: our own bound; a quarter of a million tokens."""
ALL_BYTES_MAX = 128 * 1024 * 1024
"""Most that is kept in one gateway. Source: our own bound; half of what 10,000 idle connections may take in all."""
_FRAMING_CHARS = 512  # What a stream costs beside its text, for the sum. Source: our own estimate.

# What a choice may have besides its text without anything being lost when its text alone is given back.
_CHOICE = frozenset({"index", "delta", "text", "finish_reason", "logprobs", "stop_reason", "matched_stop"})
_DELTA = frozenset({"role", "content"})


class Heard:
    """What was said to a client so far."""

    __slots__ = ("chars", "error", "finished", "head", "role", "texts", "usage_told", "why_not")

    def __init__(self) -> None:
        self.head: Json = {}
        """What each event has beside its choices: id, model, time."""
        self.role = False
        self.texts: list[str] = []
        """The text, one item for each event that had some: about one a token."""
        self.chars = 0
        self.finished = False
        """The reason why it ended was told; at most usage and the end are missing."""
        self.usage_told = False
        self.why_not = ""
        """Why it cannot be continued, in a word; empty: it can."""

    def __repr__(self) -> str:
        return f"<Heard {len(self.texts)} tokens{', finished' * self.finished} {self.why_not}>"

    def take(self, events: bytes) -> None:
        """Take whole events."""
        if events and not events.endswith((b"\n\n", b"\n\r\n")):
            self.why_not = "part_of_an_event"
        for line in events.split(b"\n"):
            if line.startswith(b"data:"):
                self._event(line[5:].strip())

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
            self.usage_told = self.usage_told or bool(event.get("usage"))

    def _choices(self, choices: list[Any]) -> None:
        choice = choices[0]
        if len(choices) > 1 or not isinstance(choice, dict) or choice.get("index", 0) != 0:
            self.why_not = "choices"
            return
        delta = choice.get("delta") or {}
        text = choice.get("text") or delta.get("content")
        more = [key for key in choice.keys() - _CHOICE if choice[key]]
        if more or choice.get("logprobs") or any(delta[key] for key in delta.keys() - _DELTA):
            self.why_not = "not_only_text"
        self.role = self.role or "role" in delta
        self.finished = self.finished or choice.get("finish_reason") is not None
        if text:
            self.texts.append(text)
            self.chars += len(text)


HEAD_KEYS = ("id", "object", "created", "model", "system_fingerprint")
"""The fields of an event that are the same in all events of one answer. Source: OpenAI API reference, chunk object."""


def read_json(data: bytes) -> Json | None:
    """Return a JSON object; None: it is none."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class Kept:
    """What one client has of its stream. `chunked`: it is kept in whole chunks, as it was sent."""

    __slots__ = ("_heard", "_pieces", "_read_bytes", "add", "chunked")

    def __init__(self) -> None:
        self._pieces: list[bytes] | None = []
        self.add: Callable[[bytes], object] = self._pieces.append
        """Keep what was sent just now; nothing but an append."""
        self.chunked = False
        self._heard = Heard()
        self._read_bytes = 0

    def __repr__(self) -> str:
        return f"<Kept {self._heard!r}, {len(self._pieces or ())} unread>"

    def heard(self) -> Heard:
        """Return what the client was told, all read."""
        pieces = self._pieces
        if pieces is None:
            self._heard.why_not = "too_long"
        elif pieces:
            data = b"".join(pieces)
            pieces.clear()
            self._heard.take(_without_chunks(data) if self.chunked else data)
        return self._heard

    def tidy(self, passed_bytes: int, keeping: "Keeping") -> None:
        """Read what has become long, and give up what is too long; `passed_bytes`: all that was sent so far."""
        if self._pieces is None:
            return
        unread_bytes = passed_bytes - self._read_bytes
        if unread_bytes > (0 if keeping.full else FOLD_BYTES):
            self.heard()
            self._read_bytes, unread_bytes = passed_bytes, 0
        kept = unread_bytes + self._heard.chars + _FRAMING_CHARS
        if self._heard.chars > TEXT_CHARS_MAX or not keeping.count(kept):
            self._pieces, self._heard, self.add = None, Heard(), _drop


class Keeping:
    """How much all streams of a gateway keep, counted anew at each tick."""

    __slots__ = ("_before", "_now")

    def __init__(self) -> None:
        self._before = self._now = 0

    def __repr__(self) -> str:
        return f"<Keeping {self._before} bytes>"

    @property
    def full(self) -> bool:
        """Return whether more than half was kept at the last tick, so that all is to be made short."""
        return self._before > ALL_BYTES_MAX // 2

    def turn(self) -> None:
        """Begin to count anew."""
        self._before, self._now = self._now, 0

    def count(self, size_bytes: int) -> bool:
        """Count one stream and return whether there is room for it."""
        self._now += size_bytes
        return self._now <= ALL_BYTES_MAX


def _drop(_data: bytes) -> None:
    """Keep nothing."""


def _without_chunks(data: bytes) -> bytes:
    try:
        return b"".join(ChunkedFrame().payload(data)[1])
    except BadFramingError:  # cannot be: the gateway made or checked these chunks
        return b"?"
