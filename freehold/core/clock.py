"""The only importer of `time`: monotonic seconds for intervals, wall seconds for people.

Pure modules take `now_s` as a value; running modules take a `Clock`, so that a test can bring its own.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Where a running module gets its time from."""

    def monotonic_s(self) -> float:
        """Return seconds that never go back; only differences mean anything."""
        ...

    def wall_s(self) -> float:
        """Return seconds since the Unix epoch; may jump."""
        ...


class SystemClock:
    """The machine's clock."""

    monotonic_s = staticmethod(time.monotonic)
    wall_s = staticmethod(time.time)


def slept_s() -> float:
    """Return the seconds that this machine has slept since boot: the monotonic clock stands still meanwhile, the wall clock does not.

    To a millisecond, since the two clocks are read one after the other. Source: clock_gettime(2), CLOCK_BOOTTIME.
    """
    return round(time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic(), 3)


SYSTEM_CLOCK = SystemClock()
monotonic_s = time.monotonic
wall_s = time.time
