"""What a request will cost, in tokens, before an engine has counted it. Pure.

The cost is the prompt's estimate, from the body's bytes, plus the answer's `max_tokens`. Both sides are corrected per
model from the usage that engines report. No tokenizer is asked: that would cost more than the answer is worth here.
"""

from math import floor

from freehold.gateway.wire.request_tokens import BYTES_PER_TOKEN

ANSWER_TOKENS = 256
"""Tokens of an answer without `max_tokens` until the model's own mean is known. Source: LMSYS-Chat-1M's mean of 215
(Zheng et al., 2023, arXiv:2309.11998), rounded up."""
_BYTES_PER_TOKEN_MIN, _BYTES_PER_TOKEN_MAX = 0.5, 64.0  # No text is outside. Source: our own bound.
_KEPT = 0.98  # Weight of the past per reported usage: about fifty requests. Source: our own choice.


class TokenEstimate:
    """The estimate for one model."""

    __slots__ = ("_answer_tokens", "_bytes_per_token", "context_tokens")

    def __init__(self, *, context_tokens: int = 0) -> None:
        """Take the longest prompt plus answer of the model, tokens; 0 is unknown."""
        self.context_tokens = context_tokens
        self._bytes_per_token = float(BYTES_PER_TOKEN)  # until the model's own figure is known
        self._answer_tokens = float(ANSWER_TOKENS)

    def __repr__(self) -> str:
        return f"<TokenEstimate {self._bytes_per_token:.2f} bytes per token, answers of {self._answer_tokens:.0f}>"

    def cost_tokens(self, body_bytes: int, max_tokens: int) -> int:
        """Return the cost, at least 1 and at most the context; `max_tokens` 0: the request names none."""
        cost = floor(body_bytes / self._bytes_per_token + (max_tokens or self._answer_tokens)) or 1
        return min(cost, self.context_tokens) if self.context_tokens else cost

    def prompt_tokens(self, body_bytes: int) -> int:
        """Return the prompt's part of the cost."""
        return int(body_bytes / self._bytes_per_token)

    def learn(self, body_bytes: int, prompt_tokens: int, answer_tokens: int) -> None:
        """Correct the estimate by what an engine counted for one request."""
        if prompt_tokens > 0:
            seen = body_bytes / prompt_tokens
            if not _BYTES_PER_TOKEN_MIN <= seen <= _BYTES_PER_TOKEN_MAX:
                seen = _BYTES_PER_TOKEN_MIN if seen < _BYTES_PER_TOKEN_MIN else _BYTES_PER_TOKEN_MAX
            self._bytes_per_token += (seen - self._bytes_per_token) * (1 - _KEPT)
        if answer_tokens > 0:
            self._answer_tokens += (answer_tokens - self._answer_tokens) * (1 - _KEPT)
