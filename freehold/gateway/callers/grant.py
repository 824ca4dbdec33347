"""One key in a running gateway, what it still has, and the grant of each of its requests.

A caller stays the same object while its record changes, so that a reload keeps what was used, and a request that is
under way settles with whom it began. Pure: it neither finds callers nor refuses them; that is `callers`.
"""

from math import inf

from freehold.gateway.answers.usage import Usage
from freehold.gateway.callers.cost_reservation import CostReservation
from freehold.gateway.callers.keys import KeyRecord
from freehold.gateway.callers.rate_limits import Allowance
from freehold.gateway.callers.spend import Month
from freehold.gateway.wire.request_tokens import prompt_tokens


class KeyState:
    """One key as this process knows it; it stays the same object while its record changes."""

    __slots__ = (
        "allowance",
        "counts_tokens",
        "ends_s",
        "hash",
        "id",
        "limited",
        "models",
        "record",
        "reserved",
        "reserved_picousd",
        "timeout_s",
    )

    def __init__(self, record: KeyRecord, now_ms: int) -> None:
        self.id = record.id
        """For ledger and logs; never a metric's label."""
        self.reserved = 0
        """Tokens reserved by requests that are under way."""
        self.reserved_picousd = 0
        """The same of their costs."""
        self.allowance = Allowance(record.limits, now_ms)
        self._take(record)

    def __repr__(self) -> str:
        return f"<KeyState {self.id} {self.record.name!r}, {self.allowance.in_flight} under way>"

    def change(self, record: KeyRecord, now_ms: int) -> None:
        """Follow a newer record; what was used stays used."""
        if record.limits != self.record.limits:
            self.allowance.change(record.limits, now_ms)
        self._take(record)

    def _take(self, record: KeyRecord) -> None:
        limits = record.limits
        self.record = record
        self.hash = bytes.fromhex(record.hash)
        self.ends_s = 0.0 if record.revoked_s is not None else record.expires_s or inf
        """Unix seconds from which on it is refused."""
        self.timeout_s = inf if limits.timeout_s is None else limits.timeout_s
        self.models = frozenset(limits.models)
        counted = (limits.tokens_per_minute, limits.monthly_tokens, limits.monthly_microusd)
        self.counts_tokens = any(limit is not None for limit in counted)
        others = (limits.requests_per_minute, limits.concurrency)
        self.limited = self.counts_tokens or any(limit is not None for limit in others)

    def may_use(self, model: str) -> bool:
        """Return whether this key may use a model."""
        return not self.models or model in self.models


class Grant:
    """What one request was given by `Allowance.ask`; corrected when its usage is known, before or after its end."""

    __slots__ = ("_caller", "_charged", "_month", "_reserved", "bill")

    def __init__(self, caller: KeyState, tokens: int, month: Month | None) -> None:
        self._caller = caller
        self.bill: CostReservation | None = None
        """What it is charged in US dollars; None: its key has no budget in them."""
        self._charged = self._reserved = tokens
        self._month = month
        caller.reserved += tokens
        if month is not None:
            month[caller.id] = month.get(caller.id, 0) + tokens

    def __repr__(self) -> str:
        return f"<Grant {self._charged} tokens to {self._caller.id}{', reserved' * bool(self._reserved)}>"

    def settle(self, tokens: int) -> None:
        """Charge what was really used, prompt and answer, in place of what was reserved; called again, correct that."""
        if self._reserved:
            self._free_reserved()
        more, self._charged = tokens - self._charged, tokens
        self._caller.allowance.charge(more)
        if self._month is not None:
            self._month[self._caller.id] += more

    def learn(self, usage: Usage | None, answer_tokens: int | None, body_bytes: int) -> None:
        """Settle by what the engine counted; else, where an answer was cut, by its prompt's size and what came of it.

        Of an answer of which nothing is known, what was reserved stays charged.
        """
        if usage is not None and usage.prompt_tokens is not None:
            self.settle(usage.prompt_tokens + (usage.completion_tokens or 0))
        elif answer_tokens is not None:
            self.settle(min(self._charged, prompt_tokens(body_bytes) + answer_tokens))

    def end(self, status: int, answer_bytes: int, *, asked: bool) -> None:
        """End the request, once: its place is free, and one that got no answer is charged no tokens.

        `asked`: some engine was; a request that only waited here is not counted at all.
        """
        self._caller.allowance.in_flight -= 1
        if not asked:
            self._caller.allowance.give_back_request()
        if self.bill is not None:
            if asked:
                self.bill.end()
            else:
                self.bill.settle(0)
        if not asked or (self._reserved and status >= 400 and status != 499 and not answer_bytes):
            self.settle(0)
        if self._reserved:
            self._free_reserved()

    def _free_reserved(self) -> None:
        self._caller.reserved -= self._reserved
        self._reserved = 0
