"""Limits on readings of a GPU, as the YAML file next to a check declares them, and the faults of a GPU that is past one.

A reading that a GPU does not have is past no limit. Nothing here knows a number: each is in a file, with its source.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from freehold.core.findings import Action, Verdict
from freehold.health.judge.gpus import GpuWindow
from freehold.health.judge.rule_result import RuleResult
from freehold.health.model.probe import Threshold


class GpuLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One limit, and what a GPU that is past it gets; exactly one of `least`, `above` and `below` is given."""

    reading: str
    plus: str | None = None
    """Another reading that is added to it, where the GPU has it."""
    of: Literal["value", "rise", "per_s"] = "value"
    """The newest value, its rise over the window, or that rise a second."""
    least: float | str | None = None
    """From here on it is a fault; a text names another reading of the same GPU."""
    above: float | str | None = None
    below: float | str | None = None
    times: float = 1.0
    """The limit is this many times another reading."""
    verdict: Verdict
    reason: str
    message: str
    """`{shown}` is the value as evidence has it, `{limit}` the limit."""
    action: Action
    source: str

    @property
    def bound(self) -> float | str:
        """Return the one bound that is given."""
        return next(bound for bound in (self.least, self.above, self.below) if bound is not None)

    def is_passed(self, value: float, limit: float) -> bool:
        """Return whether the value is a fault."""
        if self.least is not None:
            return value >= limit
        return value > limit if self.above is not None else value < limit * self.times

    def threshold(self) -> Threshold | None:
        """Return the limit's number as a threshold; None: another reading is the limit."""
        if not isinstance(self.bound, str):
            side = "least" if self.least is not None else "above" if self.above is not None else "below"
            unit = "per_s" if self.of == "per_s" else side
            return Threshold(
                name=f"{self.reason if self.plus else self.reading}_{unit}",
                value=self.bound,
                source=self.source,
            )
        return (
            Threshold(name=f"{self.reason}_share", value=self.times, source=self.source)
            if self.times != 1
            else None
        )


class GpuRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a check on GPUs declares besides its own limits."""

    needs: tuple[str, ...] = ()
    """The readings that it judges by: with one of them failed it cannot say that a GPU is healthy."""
    limits: tuple[GpuLimit, ...] = ()


def over_limits(gpu: GpuWindow, limits: Iterable[GpuLimit]) -> Iterator[RuleResult]:
    """Yield one fault per limit that the GPU is past."""
    for limit in limits:
        bound = gpu.value(limit.bound) if isinstance(limit.bound, str) else limit.bound
        seen = _seen(gpu, limit)
        if bound is None or seen is None or not limit.is_passed(seen[0], bound):
            continue
        value, shown = seen
        message = limit.message.format(shown=shown or f"{value:g}", limit=f"{bound:g}")
        names = (limit.reading, limit.plus) if limit.plus else (limit.reading,)
        baseline = "+0" if shown else f"{bound:g}" if limit.below is not None else f"below {bound:g}"
        evidence = tuple(gpu.evidence(name, value=shown, baseline=baseline) for name in names)
        yield RuleResult(limit.verdict, limit.reason, message, limit.action, evidence)


def _seen(gpu: GpuWindow, limit: GpuLimit) -> tuple[float, str] | None:
    """Return what is compared with the limit, and how it is shown (empty: as the reading); None: it was not read."""
    if limit.of == "value":
        parts = [gpu.value(name) for name in (limit.reading, limit.plus) if name]
        known = [part for part in parts if part is not None]
        return (sum(known), "") if known else None
    rise = gpu.rise(limit.reading)
    if rise is None:
        return None
    if limit.of == "per_s":
        return rise.per_s, f"{rise.per_s:.0f} a second"
    return rise.amount, f"+{rise.amount:g} in {rise.seconds:.0f} s"
