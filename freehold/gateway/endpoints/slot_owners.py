"""Which caller's tokens each slot of an engine holds, so that no request uses another caller's prefix cache. Pure.

For engines that take no salt but a slot's number (llama.cpp). A request is pinned to a free slot: to the one that holds its own
conversation, else to the one unused for longest. It may use what the slot holds only where that is its own caller's. It knows one
process's requests: several gateway workers share no such table, so they give it no slots and nothing is used again.
"""

from typing import NamedTuple

_NOBODY = ("", 0)  # Of a slot of which nothing certain is known: what an earlier gateway left there, say.


class SlotStay(NamedTuple):
    """One request's stay in an engine."""

    slot: int
    """Which slot it is pinned to; -1: the engine chooses."""
    reuses: bool
    """The slot holds tokens of its own caller, which it may use again."""
    domain: str
    prefix_key: int


class SlotOwners:
    """The slots of one engine; the one unused for longest is first."""

    __slots__ = ("_free", "_unpinned")

    def __init__(self, slots: int) -> None:
        self._free: dict[int, tuple[str, int]] = dict.fromkeys(range(slots), _NOBODY)
        self._unpinned = 0
        """Requests under way for which the engine chooses: any free slot may be holding their tokens."""

    def __repr__(self) -> str:
        return f"<SlotOwners {self._free}, {self._unpinned} unpinned>"

    def enter(self, domain: str, prefix_key: int, *, pinned: bool) -> SlotStay:
        """Return where a request of this caller goes; `pinned`: it takes one slot, and its path heeds the number."""
        if not pinned or not self._free:
            self._unpinned += 1
            return SlotStay(-1, reuses=False, domain=domain, prefix_key=0)
        own = (domain, prefix_key)
        slot = next((slot for slot, held in self._free.items() if held == own), next(iter(self._free)))
        reuses = self._free.pop(slot)[0] == domain and not self._unpinned
        return SlotStay(slot, reuses, domain, prefix_key)

    def leave(self, stay: SlotStay, *, answered: bool) -> None:
        """Take a slot back; after an unpinned request no free slot is anybody's.

        `answered`: the engine had read the prompt. A request that ended before may have left the slot as another caller had it.
        """
        if stay.slot >= 0:
            own = answered or stay.reuses
            self._free[stay.slot] = (stay.domain, stay.prefix_key) if own else _NOBODY
        else:
            self._unpinned -= 1
            self._free = dict.fromkeys(self._free, _NOBODY)
