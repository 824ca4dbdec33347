"""What became of one request: times on one clock, tokens by the engine's own count, and how it ended. Values only.

Times are seconds from the start of the load. A request's latency counts from when it was meant to be sent, not from when it
was: what waits in front of a slow engine is part of what a caller sees.
"""

from typing import Literal

import msgspec

from freehold.bench.analysis.load import ScheduledRequest

Fate = Literal["whole", "refused", "http_error", "error_event", "cut", "timeout", "connect", "cancelled"]
"""whole: it ended as it should; refused: 429 or 503; http_error: another status; error_event: an error in the stream;
cut: the stream ended without its end; timeout: no end in time; connect: no connection; cancelled: the bench ended it."""


class RequestSample(msgspec.Struct, frozen=True, kw_only=True):
    """One request."""

    ask: ScheduledRequest
    intended_s: float
    """When it was to be sent."""
    sent_s: float
    """When it was: later than intended means that the bench itself was late."""
    end_s: float
    fate: Fate
    chunk_s: tuple[float, ...] = ()
    """When each piece of the answer came."""
    prompt_tokens: int | None = None
    """By the engine's usage; None: it reported none."""
    answer_tokens: int | None = None
    """By the engine's usage, else the pieces that came; None: nothing came."""
    counted: bool = False
    """True: the answer's tokens are the engine's count."""
    detail: str = ""
    """What an error said, at most a line."""

    @property
    def ttft_s(self) -> float | None:
        """Return intended start to first piece; None: none came."""
        return self.chunk_s[0] - self.intended_s if self.chunk_s else None

    @property
    def token_s(self) -> float | None:
        """Return the mean time between two tokens; None: there are not two."""
        if len(self.chunk_s) < 2 or not self.answer_tokens or self.answer_tokens < 2:
            return None
        return (self.chunk_s[-1] - self.chunk_s[0]) / (self.answer_tokens - 1)

    @property
    def latency_s(self) -> float:
        """Return intended start to end."""
        return self.end_s - self.intended_s

    def tokens_between(self, since_s: float, until_s: float) -> float:
        """Return the answer's tokens that came in that time: each piece carries as many as another."""
        if not self.chunk_s or not self.answer_tokens:
            return 0.0
        within = sum(since_s <= at_s < until_s for at_s in self.chunk_s)
        return self.answer_tokens * within / len(self.chunk_s)
