"""Where an answer's body ends: the three framings of HTTP/1.1, followed without touching the bytes.

The gateway splices what it reads; it follows the framing only to know the exact end (so that a connection can be
used again), whether a cut fell on a chunk border (so that an error can still be sent in band), and, where an answer
is assembled, the payload inside the chunks. It never searches for an end marker, since text may contain one.
"""

from collections.abc import Mapping
from typing import Protocol

# A chunk-size line is at most 16 hex digits (RFC 9112 7.1 sets no limit; 64-bit sizes need 16) plus extensions.
_SIZE_LINE_BYTES_MAX = 256
# No server we front drops trailer fields; 8 KiB is nginx's default for a header block.
_TRAILER_BYTES_MAX = 8192


class BadFramingError(ValueError):
    """The engine's bytes break HTTP/1.1 framing; the connection cannot be trusted any more."""


class EngineGaveUpError(Exception):
    """The engine reports inside its answer that it failed; what follows is not part of the answer."""


class BodyFrame(Protocol):
    """Follows one body. `done` after the last byte; `at_border` where an in-band message may be added."""

    done: bool
    at_border: bool

    def feed(self, data: bytes) -> int:
        """Return how many bytes of `data` belong to this body; raise BadFramingError on nonsense."""

    def payload(self, data: bytes) -> tuple[int, list[bytes]]:
        """Return like `feed`, and the payload pieces without the framing."""


class SizedFrame:
    """A body of a known length in bytes (`Content-Length`)."""

    __slots__ = ("at_border", "done", "left_bytes")

    def __init__(self, length_bytes: int) -> None:
        self.left_bytes = length_bytes
        self.done = length_bytes == 0
        self.at_border = False

    def feed(self, data: bytes) -> int:
        """Return how many bytes of `data` belong to this body."""
        used = min(len(data), self.left_bytes)
        self.left_bytes -= used
        self.done = self.left_bytes == 0
        return used

    def payload(self, data: bytes) -> tuple[int, list[bytes]]:
        """Return like `feed`, and the bytes themselves."""
        used = self.feed(data)
        return used, [data[:used]]


class UntilCloseFrame:
    """A body that ends when the peer closes (HTTP/1.0 style); whether it is whole cannot be known."""

    __slots__ = ("at_border", "done")

    def __init__(self) -> None:
        self.done = False
        self.at_border = False

    def feed(self, data: bytes) -> int:
        """Return all of `data`: everything until the close belongs to the body."""
        return len(data)

    def payload(self, data: bytes) -> tuple[int, list[bytes]]:
        """Return like `feed`, and the bytes themselves."""
        return len(data), [data]


class ChunkedFrame:
    """A body in chunked transfer coding (RFC 9112 section 7.1)."""

    __slots__ = ("_left_bytes", "_line", "_state", "_trailer_bytes", "at_border", "done")

    # States: the size line of the next chunk; its data and CRLF (`_left_bytes` counts both); the trailer lines.
    _SIZE, _DATA, _TRAILER = 0, 1, 2

    def __init__(self) -> None:
        self._state = self._SIZE
        self._left_bytes = 0
        self._line = b""
        self._trailer_bytes = 0
        self.done = False
        self.at_border = True

    def feed(self, data: bytes) -> int:
        """Return how many bytes of `data` belong to this body; raise BadFramingError on nonsense."""
        return self._walk(data, None)

    def payload(self, data: bytes) -> tuple[int, list[bytes]]:
        """Return like `feed`, and the payload pieces without the framing."""
        pieces: list[bytes] = []
        return self._walk(data, pieces), pieces

    def _walk(self, data: bytes, pieces: list[bytes] | None) -> int:
        at = 0
        while at < len(data) and not self.done:
            in_data = self._state == self._DATA
            at = self._walk_data(data, at, pieces) if in_data else self._walk_line(data, at)
        self.at_border = self._state == self._SIZE and not self._line and not self.done
        return at

    def _walk_data(self, data: bytes, at: int, pieces: list[bytes] | None) -> int:
        take = min(len(data) - at, self._left_bytes)
        payload_end = at + max(0, min(take, self._left_bytes - 2))
        if pieces is not None and payload_end > at:
            pieces.append(data[at:payload_end])
        for i in range(payload_end, at + take):
            # What is left after the payload is CRLF: 2 left means CR is due, 1 left means LF.
            if data[i] != (13 if self._left_bytes - (i - at) == 2 else 10):
                raise BadFramingError("chunk data does not end in CRLF")
        self._left_bytes -= take
        if self._left_bytes == 0:
            self._state = self._SIZE
        return at + take

    def _walk_line(self, data: bytes, at: int) -> int:
        eol = data.find(b"\n", at)
        line = self._line + (data[at:] if eol < 0 else data[at : eol + 1])
        if len(line) > (_SIZE_LINE_BYTES_MAX if self._state == self._SIZE else _TRAILER_BYTES_MAX):
            raise BadFramingError("chunk-size or trailer line too long")
        if eol < 0:
            self._line = line
            return len(data)
        if not line.endswith(b"\r\n"):
            raise BadFramingError("bare LF in chunked framing")
        self._line = b""
        self._end_line(line[:-2])
        return eol + 1

    def _end_line(self, line: bytes) -> None:
        if self._state == self._SIZE:
            size_bytes = _chunk_size(line)
            self._state = self._DATA if size_bytes else self._TRAILER
            self._left_bytes = size_bytes + 2 if size_bytes else 0
            return
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _TRAILER_BYTES_MAX:
            raise BadFramingError("trailer too long")
        self.done = not line


_SIZES_SEEN: dict[bytes, int] = {}
_SIZES_SEEN_MAX = 4096  # A stream's chunks have a few hundred sizes; looking one up is a tenth of reading it.


def is_one_chunk(data: bytes) -> bool:
    """Return whether `data`, read on a chunk border, is exactly one more chunk, as most reads of a token stream are.

    False where that takes more than a look; then the frame must be fed.
    """
    eol = data.find(b"\r\n", 0, 20)
    size_bytes = _SIZES_SEEN.get(data[:eol])
    return size_bytes is not None and eol + size_bytes + 4 == len(data) and data.endswith(b"\r\n")


def is_known_chunk(data: bytes, heads: Mapping[int, bytes]) -> bool:
    """Return whether `data`, read on a chunk border, is exactly one more chunk with one event of a known shape.

    `heads` has, by the length of such a chunk, its size line and the first bytes of its event.
    """
    size_bytes = len(data)
    head = heads.get(size_bytes)
    return (
        head is not None
        and data.startswith(head)
        and data.find(b"\n", len(head)) == size_bytes - 4
        and data.endswith(b"\n\r\n")
    )


def _chunk_size(line: bytes) -> int:
    if b"\r" in line or b"\n" in line:
        raise BadFramingError("bare CR or LF in chunked framing")
    digits = line.partition(b";")[0].strip(b" \t")
    # int() alone would take signs, underscores and 0x; the isalnum test leaves only plain digits to it.
    if not digits.isalnum() or len(digits) > 16 or digits[1:2] in {b"x", b"X"}:
        raise BadFramingError("bad chunk size")
    try:
        size_bytes = int(digits, 16)
    except ValueError as exc:
        raise BadFramingError("bad chunk size") from exc
    if size_bytes and len(_SIZES_SEEN) < _SIZES_SEEN_MAX:
        _SIZES_SEEN[line] = size_bytes
    return size_bytes
