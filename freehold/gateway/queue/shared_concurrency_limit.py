"""The room at one target when several workers send there: as `concurrency_limit`, but counted over all of them.

A worker looks at the sum, then adds itself to it; another may do the same in between. So a target may have up to one
request per other worker more than its limit, never further, and by as many requests more tokens than its budget. A
cost beyond _COST_MOST is published as that. Each worker learns from its own first bytes. It does not decide which worker is next; `worker_fairness` does.
"""

from freehold.gateway.counters.shared_counters import CounterRow
from freehold.gateway.queue.concurrency_limit import ConcurrencyLimit

_IN_FLIGHT, _TOKENS, _AWAITED = 0, 1, 2
_COST_MOST = 2 * 10**12
"""Most tokens of one request that are published. Source: twice what a body can ask for (`body`); 64 workers' 20,000 requests of
that are less than 2^63, so that what is added can always be taken back."""


class SharedConcurrencyLimit(ConcurrencyLimit):
    """The room at one target that other workers fill too."""

    __slots__ = ("_row",)

    def __init__(self, row: CounterRow, *, slots: int, token_budget: int = 0) -> None:
        """Take the target's row, its slots (0: unknown) and the tokens that fit at once (0: unknown)."""
        super().__init__(slots=slots, token_budget=token_budget)
        self._row = row

    def present(self) -> int:
        """Return the requests under way at the target, all workers' together."""
        return self._row.total(_IN_FLIGHT)

    def has_room(self, cost_tokens: int) -> bool:
        """Return whether a request of that cost may start here now; an idle target takes any."""
        row = self._row
        in_flight = row.total(_IN_FLIGHT)
        if in_flight >= self.limit and (self.known or in_flight >= self._most or row.total(_AWAITED)):
            return False
        return not self.token_budget or not in_flight or row.total(_TOKENS) + cost_tokens <= self.token_budget

    def enter(self, cost_tokens: int) -> bool:
        """Return whether a request may start here now, and count it for everybody to see if so."""
        if not super().enter(cost_tokens):
            return False
        self._publish(1, cost_tokens, awaited=1)
        return True

    def leave(self, cost_tokens: int, *, began: bool, whole_s: float | None = None) -> None:
        """Count the same request out."""
        super().leave(cost_tokens, began=began, whole_s=whole_s)
        self._publish(-1, -cost_tokens, awaited=-(not began))

    def first_byte(self, seconds: float, *, streamed: bool = True) -> None:
        """Learn from the first byte of an answer's body, `seconds` after its request was sent."""
        self._row.add(_AWAITED, -1)
        super().first_byte(seconds, streamed=streamed)

    def retire(self) -> None:
        """Let the row go when what is under way has ended."""
        self._row.release()

    def _publish(self, requests: int, tokens: int, *, awaited: int) -> None:
        # As three times `Row.add`; calls less, since every request passes here twice.
        own, at = self._row.own, self._row.at + 1
        if not -_COST_MOST <= tokens <= _COST_MOST:
            tokens = _COST_MOST * requests
        own[at + _IN_FLIGHT] += requests
        own[at + _TOKENS] += tokens
        if awaited:
            own[at + _AWAITED] += awaited
