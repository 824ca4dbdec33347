"""The readings of a replica's own counters, and the speed that they show. Pure.

It does not read them: `probe` does. What is unknown stays None.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """The readings of a replica's own counters."""

    due_s: float = 0.0
    under_way: bool = False
    asked_s: float = 0.0
    """When the latest reading was requested."""
    readings: tuple[tuple[float, float], ...] = ()
    """(when, generated tokens so far), oldest first, of one unbroken count."""
    running: float | None = None
    """Requests that the engine works on, of the latest reading."""


def with_reading(
    readings: tuple[tuple[float, float], ...], total: float | None, *, window_s: float, now_s: float
) -> tuple[tuple[float, float], ...]:
    """Return the readings with a new one; an unknown or a falling count starts a new row."""
    if total is None:
        return ()
    if readings and total < readings[-1][1]:
        readings = ()
    recent = tuple(r for r in readings if now_s - r[0] <= window_s)
    return (*(recent or readings[-1:]), (now_s, total))


def tokens_per_s(meter: Meter) -> float | None:
    """Return generated tokens per second over the readings held; None before two of them."""
    if len(meter.readings) < 2:
        return None
    (first_s, first), (last_s, last) = meter.readings[0], meter.readings[-1]
    return (last - first) / (last_s - first_s) if last_s > first_s else None
