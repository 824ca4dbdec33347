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
        slots, mask = self._slots, len(self._slots) - 1
        at = print_ & mask
        while found := slots[at]:
            if found == print_:
                return True
            at = (at + 1) & mask
        if self._older is not None and _has(self._older, print_):
            return True
        slots[at] = print_
        self._rows += 1
        if self._rows * 2 > mask:
            self._grow()
        return False

    def _grow(self) -> None:
        if self._rows >= self._generation_rows:
            self.forgot = self.forgot or self._older is not None
            self._older, self._slots, self._rows = self._slots, _zeros(_FIRST_SLOTS), 0
            return
        old, self._slots = self._slots, _zeros(len(self._slots) * 2)
        slots, mask = self._slots, len(self._slots) - 1
        for print_ in filter(None, old):
            at = print_ & mask
            while slots[at]:
                at = (at + 1) & mask
            slots[at] = print_


def _zeros(slots: int) -> "array[int]":
    return array("Q", bytes(8 * slots))


def _has(slots: "array[int]", print_: int) -> bool:
    mask = len(slots) - 1
    at = print_ & mask
    while found := slots[at]:
        if found == print_:
            return True
        at = (at + 1) & mask
    return False
