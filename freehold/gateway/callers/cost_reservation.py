"""What one request is charged to its key's monthly budget in US dollars: a reservation, then its cost. Pure.

A request is charged where it has a price: its model's own, or that of the fallback that answered it. What it may cost by
its model's price is reserved before; a cost that stays unknown is charged as reserved. A fallback's price is not known
before, so a key can go over its budget by what its requests under way cost there, and by no more.
"""

from typing import TYPE_CHECKING

from freehold.gateway.callers.rate_limits import Over
from freehold.gateway.callers.spend import Month, usd_place

if TYPE_CHECKING:
    from freehold.gateway.callers.grant import KeyState

PICOUSD_PER_MICROUSD = 10**6
"""Source: SI prefixes."""


class CostReservation:
    """The charge of one request."""

    __slots__ = ("_caller", "_charged_picousd", "_month", "_place", "_reserved_picousd")

    def __init__(self, caller: "KeyState", month: Month, *, reserved_picousd: int) -> None:
        self._caller = caller
        self._month = month
        self._place = usd_place(caller.id)
        self._charged_picousd = self._reserved_picousd = reserved_picousd
        caller.reserved_picousd += reserved_picousd
        month[self._place] = month.get(self._place, 0) + reserved_picousd

    def __repr__(self) -> str:
        return (
            f"<CostReservation {self._charged_picousd} picousd{', reserved' * bool(self._reserved_picousd)}>"
        )

    def settle(self, cost_picousd: int) -> None:
        """Charge what it cost in place of what was charged before; a request settles in the month that it began in."""
        self.end()
        self._month[self._place] += cost_picousd - self._charged_picousd
        self._charged_picousd = cost_picousd

    def end(self) -> None:
        """Let what is charged stand: it is reserved no longer, it is spent."""
        self._caller.reserved_picousd -= self._reserved_picousd
        self._reserved_picousd = 0


def over_usd(charged_picousd: int, reserved_picousd: int, *, budget_microusd: int) -> Over | None:
    """Return what is in the way of a key with no dollar of its month left, or None; what is reserved is charged too."""
    budget_picousd = budget_microusd * PICOUSD_PER_MICROUSD
    if charged_picousd < budget_picousd:
        return None
    return Over("usd" if charged_picousd - reserved_picousd >= budget_picousd else "usd_reserved")
