"""Which rows came before: a set of 64-bit fingerprints in a flat array, sixteen bytes a row.

A set of a million strings takes over 100 MB, this one 16 MB. It is no exact set: two of a million different rows look
alike with a chance of 3 in 100 million. It remembers at least the last GENERATION_ROWS rows, not all of an endless file.
"""

from array import array

GENERATION_ROWS = 2_000_000
"""How many rows are remembered at least. Source: our own bound: two generations of 32 MB at most."""
_FIRST_SLOTS = 1 << 16  # Powers of two, so that a mask finds the slot; twice the rows at least.
_MASK = (1 << 64) - 1


class SeenRows:
    """The fingerprints of the rows so far."""

    def __init__(self, generation_rows: int = GENERATION_ROWS) -> None:
        self.forgot = False
        """Whether the oldest rows are not remembered any more."""
        self._generation_rows = generation_rows
        self._slots = _zeros(_FIRST_SLOTS)
        self._rows = 0
        self._older: array[int] | None = None

    def __repr__(self) -> str:
        return f"<Seen {self._rows} rows>"

    def again(self, identity: str) -> bool:
        """Return whether this came before, and remember it."""
        print_ = hash(identity) & _MASK or 1  # zero marks a free slot
        slots = self._slots
        at = _slot(slots, print_)
        if slots[at] or (self._older is not None and self._older[_slot(self._older, print_)]):
            return True
        slots[at] = print_
        self._rows += 1
        if self._rows * 2 >= len(slots):
            self._grow()
        return False

    def _grow(self) -> None:
        if self._rows >= self._generation_rows:
            self.forgot = self.forgot or self._older is not None
            self._older, self._slots, self._rows = self._slots, _zeros(_FIRST_SLOTS), 0
            return
        old, self._slots = self._slots, _zeros(len(self._slots) * 2)
        for print_ in filter(None, old):
            self._slots[_slot(self._slots, print_)] = print_


def _zeros(slots: int) -> "array[int]":
    return array("Q", bytes(8 * slots))


def _slot(slots: "array[int]", print_: int) -> int:
    """Return where a fingerprint stands, or the free slot where it would."""
    mask = len(slots) - 1
    at = print_ & mask
    while (found := slots[at]) and found != print_:
        at = (at + 1) & mask
    return at
