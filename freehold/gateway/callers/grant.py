"""One API key in a running gateway, what is left of its limits, and the grant of each of its requests. Pure.

A `KeyState` stays the same object while its record changes, so that a reload keeps what was used, and a request that is
under way settles with the key it began with. It neither finds keys nor rejects requests: `server.authenticate` does.
"""

from hashlib import blake2b
from math import inf

import msgspec

from freehold.gateway.callers.keys import KeyRecord
from freehold.gateway.callers.rate_limits import Allowance, Over, over_limit
from freehold.gateway.callers.spend import Month, usd_place
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.request_tokens import prompt_tokens

PICOUSD_PER_MICROUSD = 10**6
"""Source: SI prefixes."""


class KeyState:
    """One key as this process knows it."""

    __slots__ = ("allowance", "cache_domain", "concurrency", "counts_tokens", "ends_s", "hash",
                 "id", "limited", "may_leave", "models", "priority", "record", "reserved",
                 "reserved_picousd", "timeout_s", "weight")  # fmt: skip

    def __init__(self, record: KeyRecord, now_ms: int) -> None:
        self.id = record.id
        """For ledger and logs; never a metric's label."""
        self.reserved = 0
        """Tokens reserved by requests that are under way."""
        self.reserved_picousd = 0
        """Costs reserved by the same requests."""
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
        # From the key's hash: no other caller can guess it, and every worker makes the same after every restart.
        self.cache_domain = blake2b(self.hash, digest_size=16, person=b"freehold-cache-1").hexdigest()
        self.ends_s = 0.0 if record.revoked_s is not None else record.expires_s or inf
        """Unix seconds from which on it is rejected."""
        self.timeout_s = inf if limits.timeout_s is None else limits.timeout_s
        self.models = frozenset(limits.models)
        self.weight: float = limits.weight
        self.priority: int = limits.priority
        self.concurrency: int | None = limits.concurrency
        self.may_leave = limits.fallback
        counted = (limits.tokens_per_minute, limits.monthly_tokens, limits.monthly_microusd)
        self.counts_tokens = any(limit is not None for limit in counted)
        others = (limits.requests_per_minute, limits.concurrency)
        self.limited = self.counts_tokens or any(limit is not None for limit in others)

    def may_use(self, model: str) -> bool:
        """Return whether this key may use a model."""
        return not self.models or model in self.models

    def grant(self, tokens: int, month: Month | None) -> "Grant":
        """Reserve what `Allowance.ask` gave to one request, also in the month's budget; None: the key has no such budget."""
        self.reserved += tokens
        if month is not None:
            month[self.id] = month.get(self.id, 0) + tokens
        return Grant(self, tokens, tokens, month)

    def over_concurrency(self) -> Rejection:
        """Return the 429 for one request more than this key may have at once."""
        return over_limit(Over("concurrency"), self.record.limits, tokens=0)


class CostReservation:
    """What one request is charged to its key's monthly budget in US dollars: a reservation, then its cost.

    A request is charged where it has a price: its model's own, or that of the provider that answered it. The most it can cost
    by its model's price is reserved first; a cost that stays unknown is charged as reserved. A provider's price is not known
    in advance, so a key can exceed its budget by what its requests under way cost there, and by no more.
    """

    __slots__ = ("_charged_picousd", "_key", "_month", "_place", "_reserved_picousd")

    def __init__(self, key: KeyState, month: Month, *, reserved_picousd: int) -> None:
        self._key = key
        self._month = month
        self._place = usd_place(key.id)
        self._charged_picousd = self._reserved_picousd = reserved_picousd
        key.reserved_picousd += reserved_picousd
        month[self._place] = month.get(self._place, 0) + reserved_picousd

    def __repr__(self) -> str:
        return (
            f"<CostReservation {self._charged_picousd} picousd{', reserved' * bool(self._reserved_picousd)}>"
        )

    def settle(self, cost_picousd: int) -> None:
        """Charge the cost instead of what was charged before, in the month that the request began in."""
        self.end()
        self._month[self._place] += cost_picousd - self._charged_picousd
        self._charged_picousd = cost_picousd

    def end(self) -> None:
        """Close the reservation: what is charged is spent."""
        self._key.reserved_picousd -= self._reserved_picousd
        self._reserved_picousd = 0


class Grant(msgspec.Struct, eq=False, gc=False):
    """What one request was given (`KeyState.grant`); corrected when its usage is known, before or after its end."""

    _key: KeyState
    _charged: int
    _reserved: int
    _month: Month | None
    cost: CostReservation | None = None
    """What it is charged in US dollars; None: its key has no budget in them."""

    def __repr__(self) -> str:
        return f"<Grant {self._charged} tokens to {self._key.id}{', reserved' * bool(self._reserved)}>"

    def settle(self, tokens: int) -> None:
        """Charge the tokens that were really used, prompt and answer; a later call corrects an earlier one."""
        key, month = self._key, self._month
        if self._reserved:
            key.reserved -= self._reserved
            self._reserved = 0
        more, self._charged = tokens - self._charged, tokens
        key.allowance.charge(more)
        if month is not None:
            month[key.id] += more

    def learn(self, used_tokens: int | None, answer_tokens: int | None, body_bytes: int) -> None:
        """Settle by what the engine counted; else, for a cut answer, by the prompt's size and the answer's tokens.

        Where neither is known, the reservation stays charged.
        """
        if used_tokens is not None:
            self.settle(used_tokens)
        elif answer_tokens is not None:
            self.settle(min(self._charged, prompt_tokens(body_bytes) + answer_tokens))

    def pay(self, cost_picousd: int) -> None:
        """Charge this cost to the key's budget in US dollars, if it has one."""
        if self.cost is not None:
            self.cost.settle(cost_picousd)

    def end(self, status: int, answer_bytes: int, *, asked: bool) -> None:
        """End the request, once: its place is free, and without an answer no tokens are charged.

        `asked`: some engine was asked; a request that only waited here is not counted at all.
        """
        self._key.allowance.in_flight -= 1
        if not asked:
            self._key.allowance.give_back_request()
        if self.cost is not None:
            if asked:
                self.cost.end()
            else:
                self.cost.settle(0)
        if not asked or (self._reserved and status >= 400 and status != 499 and not answer_bytes):
            self.settle(0)
        self._key.reserved -= self._reserved
        self._reserved = 0


def over_usd(charged_picousd: int, reserved_picousd: int, *, budget_microusd: int) -> Over | None:
    """Return which limit a key breaks that has nothing left of its month, or None; reservations count as charged."""
    budget_picousd = budget_microusd * PICOUSD_PER_MICROUSD
    if charged_picousd < budget_picousd:
        return None
    return Over("usd" if charged_picousd - reserved_picousd >= budget_picousd else "usd_reserved")
