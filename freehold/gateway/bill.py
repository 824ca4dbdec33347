"""What one request is charged to its key's monthly budget in US dollars: a reservation, then its cost. Pure.

A request is charged where it has a price: its model's own, or that of the fallback that answered it. What it may cost by
its model's price is reserved before; a cost that stays unknown is charged as reserved. A fallback's price is not known
before, so a key can go over its budget by what its requests under way cost there, and by no more.
"""

from freehold.gateway.spending import Month, usd_place

PICOUSD_PER_MICROUSD = 10**6
"""Source: SI prefixes."""


class Bill:
    """The charge of one request."""

    __slots__ = ("_charged_picousd", "_month", "_place")

    def __init__(self, month: Month, key_id: str, *, reserved_picousd: int) -> None:
        self._month = month
        self._place = usd_place(key_id)
        self._charged_picousd = reserved_picousd
        month[self._place] = month.get(self._place, 0) + reserved_picousd

    def __repr__(self) -> str:
        return f"<Bill {self._charged_picousd} picousd>"

    def settle(self, cost_picousd: int) -> None:
        """Charge what it cost in place of what was charged before; a request settles in the month that it began in."""
        self._month[self._place] += cost_picousd - self._charged_picousd
        self._charged_picousd = cost_picousd


def is_spent(month: Month, key_id: str, budget_microusd: int) -> bool:
    """Return whether a key has no dollar of its month left."""
    return month.get(usd_place(key_id), 0) >= budget_microusd * PICOUSD_PER_MICROUSD
