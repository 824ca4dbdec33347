"""The seams of the gateway: what one part may ask of another without importing it.

Each Protocol is the narrow view of a class in a package above: a client's connection, an engine's connection, what reads an
answer. It names no package but `wire`, holds no state and has no code.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.frame import BodyFrame
from freehold.gateway.wire.headers import AnswerHead
from freehold.gateway.wire.request import Request


class Timer(Protocol):
    """A call that was scheduled."""

    def cancel(self) -> None:
        """Do not make the call."""


class Loop(Protocol):
    """The clock and the timers of the event loop; asyncio's loops are one."""

    def time(self) -> float:
        """Return the loop's time, seconds."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call back once, after `delay` seconds."""


class Client(Protocol):
    """A client's connection, as an exchange sees it. Each answer ends with exactly one call below `head_end`."""

    @property
    def write(self) -> Callable[[bytes], None]:
        """Return what writes bytes to the client."""

    def head_end(self, request: Request, *, close: bool) -> bytes:
        """Return the last lines of an answer's head."""

    def answered(self) -> None:
        """Take the next request: the answer's last byte was written."""

    def answered_whole(self, answer: bytes) -> None:
        """Send a whole answer at the end of this turn of the loop, and take the next request."""

    def reply(self, request: Request, status: int, *, body: bytes, content_type: str = ...) -> None:
        """Send a whole answer with this body, and take the next request."""

    def reject(self, rejection: Rejection, request: Request) -> None:
        """Send an error answer."""

    def close(self) -> None:
        """Send what is written, then close."""

    def abort(self, *, reset: bool = False) -> None:
        """Close at once; the client sees a cut, and with `reset` a connection reset."""


E_contra = TypeVar("E_contra", contravariant=True)


class Alternative(Protocol[E_contra]):
    """The way of one exchange to other providers, asked instead of rejecting it; `fallback.detour` has the class."""

    def start(self, exchange: E_contra) -> bool:
        """Return whether the request was sent elsewhere, or rejected, instead of being started here."""

    def instead_of(self, exchange: E_contra, rejection: Rejection) -> bool:
        """Return whether the request went elsewhere, or came back to be asked again, instead of this rejection."""

    def come_back(self, exchange: E_contra) -> None:
        """Bring a request back from a provider that did not answer it."""


class Sender(Protocol):
    """A connection with bytes that leave at the end of this turn of the loop."""

    unsent: bytes
    """The bytes; empty: they have left, or must not leave any more."""

    @property
    def write(self) -> Callable[[bytes], None]:
        """Return what writes bytes to the peer."""


class SendBatch(Protocol):
    """Collects senders until the end of this turn of the loop."""

    def add(self, sender: Sender) -> None:
        """Send what `sender` has unsent at the end of this turn."""


class Passing(Protocol):
    """What an answer passes on its way to the client; `answers.stream_tap` has the classes."""

    total_bytes: int
    """Bytes of the body so far, framing included."""
    chunks: int
    """Reads that were passed on after one look."""
    last: bytes
    """The last read."""
    keep: Callable[[bytes], object]
    """Remembers each read, in case another engine has to continue the stream."""
    heads: dict[int, bytes] | None
    """How a chunk that needs one look only begins, by its length; None: every whole chunk is such a one."""
    write: Callable[[bytes], None]

    def fast(self, frame: BodyFrame) -> "Passing | None":
        """Return self where the next read of one whole chunk may be passed on after one look."""

    def take(self, data: bytes, frame: BodyFrame) -> tuple[int, bytes]:
        """Return how many bytes of a read belong to the answer, and what goes to the client."""


class AnswerSink(Protocol):
    """Reads an engine's answer: one attempt of an exchange."""

    wants_payload: bool
    """The body is read here (an error, an answer to assemble) instead of being passed on."""
    engine_keeps_alive: bool

    @property
    def passing(self) -> Passing | None:
        """Return what the body passes on its way to the client; None: it is read here."""

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""

    def takes_whole(self, head: AnswerHead) -> bool:
        """Return whether an answer that came whole in one read can go to the client as it is."""

    def on_whole(self, head: AnswerHead, data: bytes) -> None:
        """Take such an answer; its connection is free again."""

    def on_head(self, connection: "EngineConnection", head: AnswerHead) -> None:
        """Take an answer's head."""

    def on_end(self) -> None:
        """Finish: the answer was read to its end."""

    def on_lost(self, connection: "EngineConnection", frame: BodyFrame | None, *, in_order: bool) -> None:
        """Deal with a connection that ended before the answer did; `in_order`: it was closed, not broken."""


class EngineConnection(Protocol):
    """A connection to an engine; `exchange.upstream` has the class."""

    closing: bool
    served: int
    """Answers that were read to their end."""
    frame: BodyFrame | None

    def send(self, sink: AnswerSink, request: bytes, batch: SendBatch) -> None:
        """Send one request at the end of this turn, and give its answer to `sink`."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read again."""

    def abort(self) -> None:
        """Drop the connection at once."""

    def close(self) -> None:
        """Close an idle connection."""
