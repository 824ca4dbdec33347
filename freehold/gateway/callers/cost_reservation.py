"""What one request is charged to its key's monthly budget in US dollars: a reservation, then its cost. Pure.

A request is charged where it has a price: its model's own, or that of the provider that answered it. The most it can cost
by its model's price is reserved first; a cost that stays unknown is charged as reserved. A provider's price is not known
in advance, so a key can exceed its budget by what its requests under way cost there, and by no more.
"""

from typing import Protocol

from freehold.gateway.callers.rate_limits import Over
from freehold.gateway.callers.spend import Month, usd_place

PICOUSD_PER_MICROUSD = 10**6
"""Source: SI prefixes."""


class HasReservations(Protocol):
    """The key that a request is charged to; `grant.KeyState` is one."""

    id: str
    reserved_picousd: int
    """Reserved by all its requests under way."""


class CostReservation:
    """The charge of one request."""

    __slots__ = ("_charged_picousd", "_key", "_month", "_place", "_reserved_picousd")

    def __init__(self, key: HasReservations, month: Month, *, reserved_picousd: int) -> None:
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


def over_usd(charged_picousd: int, reserved_picousd: int, *, budget_microusd: int) -> Over | None:
    """Return which limit a key breaks that has nothing left of its month, or None; reservations count as charged."""
    budget_picousd = budget_microusd * PICOUSD_PER_MICROUSD
    if charged_picousd < budget_picousd:
        return None
    return Over("usd" if charged_picousd - reserved_picousd >= budget_picousd else "usd_reserved")
