"""What is asked and when: a load is a rate, a number of callers or a recorded arrival pattern; asks come from it. Pure.

Every engine is given the same asks: they depend on the seed, the run and the load, never on who answers. A schedule has no
end of its own; whoever drives it stops taking.
"""

import itertools
from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from freehold.bench.analysis.sizes import Recorded, Size, Sizes


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One point of a sweep."""

    kind: Literal["rate", "concurrency", "recorded"]
    value: float
    """Requests/s that come whatever happens to those before (rate), callers that each wait for their answer
    (concurrency), or how many times faster than it was recorded (recorded)."""

    def words(self) -> str:
        """Return it as a person reads it."""
        if self.kind == "rate":
            return f"{self.value:g} req/s"
        if self.kind == "concurrency":
            return f"{self.value:g} caller{'' if self.value == 1 else 's'}"
        return f"recorded x{self.value:g}"

    @property
    def is_open(self) -> bool:
        """Return whether requests come without waiting for others."""
        return self.kind != "concurrency"


class ScheduledRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request that is to be made."""

    number: int
    """From 0, in this schedule."""
    at_s: float | None
    """When it is to be sent, seconds from the start; None: as soon as a caller is free."""
    size: Size


def schedule(load: Load, sizes: Sizes, *, seed: tuple[int, ...]) -> Iterator[ScheduledRequest]:
    """Yield asks without end, the same for the same seed; a recorded pattern ends with its record.

    Arrivals at a rate are a Poisson stream: that is what independent callers are.
    """
    dice = np.random.Generator(np.random.PCG64(list(seed)))
    if load.kind == "recorded":
        assert isinstance(sizes, Recorded), "a recorded load replays recorded sizes"
        for number, (recorded_s, size) in enumerate(zip(sizes.at_s, sizes.sizes, strict=True)):
            yield ScheduledRequest(number=number, at_s=recorded_s / load.value, size=size)
        return
    at_s = 0.0
    for number in itertools.count():
        if load.kind == "rate":
            at_s += float(dice.exponential(1 / load.value))
        yield ScheduledRequest(number=number, at_s=at_s if load.is_open else None, size=sizes.draw(dice))
