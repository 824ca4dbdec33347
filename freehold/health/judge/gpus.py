"""GPUs over a window of views, and the results that every check on GPUs shares: no GPU, not read, unreadable, unsupported, fine.

A check yields what is wrong with one GPU; this module makes one finding per GPU of that and of what could not be read. The rule
that missing data is never HEALTHY is here, once. It knows no threshold.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from freehold.core.findings import Action, Evidence, Finding
from freehold.health.judge import rule_result as result
from freehold.health.judge.rule_result import RuleResult, worst_result
from freehold.health.model.probe import Expected
from freehold.health.model.view import Gpu, Gpus, Reading, State, View

REASONS = {
    "ok": "Nothing wrong was seen in what could be read. Nothing to do.",
    "no_gpu": "There is no NVIDIA GPU here. Nothing to do.",
    "not_read": "The GPUs were not read at all. See the probes driver and gpu_present: the driver or its library does not answer.",
    "unreadable": "A reading that this probe judges by failed. See the probe gpu_present and the kernel log if it lasts.",
    "unsupported": "This card, driver or exporter has none of the readings. Nothing to do.",
}
"""What every GPU probe may answer besides its own reasons."""
_MISSING = Reading(state=State.UNSUPPORTED, detail="not asked")
_SKIPPED = (State.OK, State.UNSUPPORTED)
"""States that do not hide a fault: it was read, or there is nothing to read."""
STALE_S = 60.0
"""How old GPU readings may be and still speak for now: some sweeps' time. Our own choice, as for the kernel's log."""
WHOLE_NODE_LEAST = 2
"""Fewest GPUs of which `all of them` points to the node. By its meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rise:
    """How much a counter rose, and in how many seconds."""

    amount: float
    seconds: float

    @property
    def per_s(self) -> float:
        """Return the rate; 0 where no time passed."""
        return self.amount / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuWindow:
    """One GPU over the window."""

    past: tuple[tuple[float, Gpu], ...]
    """Monotonic seconds and its readings then; the newest last, and at least that."""
    siblings: tuple[Gpu, ...]
    """The node's other GPUs, newest view."""
    source: str
    view: View
    """The newest with GPUs."""
    views: Sequence[View]
    """The whole window."""

    @property
    def gpu(self) -> Gpu:
        """Return its newest readings."""
        return self.past[-1][1]

    @property
    def component(self) -> str:
        """Return `gpu:UUID`, or its PCI address or index where the UUID was never read."""
        return f"gpu:{self.gpu.uuid or self.gpu.pci or self.gpu.index}"

    def reading(self, name: str) -> Reading:
        """Return the newest reading; one that was not asked for is unsupported."""
        return _reading(self.gpu, name)

    def value(self, name: str) -> float | None:
        """Return the newest value, or None where it could not be read or is not a number."""
        return number(self.gpu, name)

    def values(self, name: str) -> list[float]:
        """Return all values of the window that were read."""
        found = (number(gpu, name) for _, gpu in self.past)
        return [value for value in found if value is not None]

    def rise(self, name: str) -> Rise | None:
        """Return how a counter rose over the window; None with fewer than two values. A counter that fell began anew there."""
        points = [(at, value) for at, gpu in self.past if (value := number(gpu, name)) is not None]
        if len(points) < 2:
            return None
        pairs = pairwise(points)
        amount = sum(max(after - before, 0.0) for (_, before), (_, after) in pairs)
        return Rise(amount=amount, seconds=points[-1][0] - points[0][0])

    def evidence(self, name: str, *, baseline: str = "", value: str = "") -> Evidence:
        """Return a reading as evidence, with its unit; `value` replaces it where a change is what was seen."""
        return Evidence(
            what=name,
            value=value or self.shown(name),
            source=self.source,
            at_s=self.view.at_s,
            baseline=baseline,
        )

    def shown(self, name: str) -> str:
        """Return the newest value as text, or its state."""
        reading = self.reading(name)
        if reading.value is None:
            return f"{reading.state.value}: {reading.detail}"
        return f"{reading.value:g}" if isinstance(reading.value, float) else str(reading.value)

    def failed(self, names: Iterable[str]) -> list[str]:
        """Return those of the readings that failed: neither read nor unsupported."""
        return [name for name in names if self.reading(name).state not in _SKIPPED]

    def supported(self, names: Iterable[str]) -> list[str]:
        """Return those of the readings that were read."""
        return [name for name in names if self.reading(name).state is State.OK]


def _reading(gpu: Gpu, name: str) -> Reading:
    reading = gpu.readings.get(name, _MISSING)
    if isinstance(reading.value, float) and not math.isfinite(reading.value):
        return Reading(state=State.UNKNOWN, detail=f"{reading.value} is not a value")
    return reading


def number(gpu: Gpu, name: str) -> float | None:
    """Return a reading's value, or None where it is missing or not a finite number."""
    value = _reading(gpu, name).value
    return value if isinstance(value, int | float) else None


def newest_gpus(views: Sequence[View]) -> View:
    """Return the newest view with GPUs, or the newest of all where that is too old to show the present.

    Parts are read at paces of their own, so a view may lack them although they are well.
    """
    last = views[-1]
    found = next((view for view in reversed(views) if view.gpus is not None), last)
    return found if 0 <= last.monotonic_s - found.monotonic_s <= STALE_S else last


def gpu_windows(views: Sequence[View]) -> list[GpuWindow]:
    """Return the newest view's GPUs with their past in the window; after a reboot the past begins anew."""
    newest = newest_gpus(views)
    if newest.gpus is None:
        return []
    past = [view for view in _since_boot(views) if view.gpus is not None]
    return [
        GpuWindow(
            past=tuple((view.monotonic_s, gpu) for view in past for gpu in _same(view.gpus, now)),
            siblings=tuple(gpu for gpu in newest.gpus.gpus if gpu is not now),
            source=newest.gpus.source,
            view=newest,
            views=views,
        )
        for now in newest.gpus.gpus
    ]


def _since_boot(views: Sequence[View]) -> list[View]:
    kept: list[View] = []
    for view in views:
        if kept and view.monotonic_s < kept[-1].monotonic_s:
            kept = []
        kept.append(view)
    return kept


def _same(gpus: Gpus | None, now: Gpu) -> list[Gpu]:
    if gpus is None:
        return []
    if not now.uuid:
        return [gpu for gpu in gpus.gpus if gpu.index == now.index and not gpu.uuid]
    return [gpu for gpu in gpus.gpus if gpu.uuid == now.uuid][:1]


def judge_gpus(
    probe: str,
    views: Sequence[View],
    *,
    expected: Expected,
    needs: Sequence[str],
    faults: Sequence[Callable[[GpuWindow], Iterable[RuleResult]]],
) -> list[Finding]:
    """Return one finding per GPU, or the one that says why there is none.

    `needs` are the readings that the probe judges by: with one of them failed it is UNKNOWN unless a fault is seen in
    the others, with none supported NOT_APPLICABLE.
    """
    seen = gpu_windows(views)
    if not seen:
        return [no_gpus(probe, newest_gpus(views), expected)]
    return [
        finding_of(probe, gpu, faults=[found for each in faults for found in each(gpu)], needs=needs)
        for gpu in seen
    ]


def no_gpus(probe: str, view: View, expected: Expected) -> Finding:
    """Return the finding where no GPU can be judged: NOT_APPLICABLE only where there is none and none is expected."""
    gpus = view.gpus
    if gpus is not None and has_no_gpu(gpus) and not expected.gpus:
        nothing = result.not_applicable("no_gpu", "There is no NVIDIA GPU here.")
    else:
        why = "no collector read them" if gpus is None else gpus.detail or gpus.state.value
        nothing = result.unknown("not_read", f"The GPUs were not read: {why}.")
    return nothing.finding(probe, "gpus", view)


def has_no_gpu(gpus: Gpus) -> bool:
    """Return whether a node has no GPU: none on the bus, and the driver shows none or there is no driver at all.

    A driver that is loaded although its library is not here (a container that was given half) does not count as that.
    """
    loaded = gpus.driver.get("module_version", _MISSING).state is State.OK
    silent = gpus.state is State.OK or (gpus.state is State.ABSENT and not loaded)
    return silent and not gpus.gpus and not gpus.pci_addresses


def finding_of(probe: str, gpu: GpuWindow, *, faults: Sequence[RuleResult], needs: Sequence[str]) -> Finding:
    """Return the one finding on a GPU: its worst fault with the evidence of all, or what could not be read, or that it is fine."""
    top = worst_result(faults, _quiet(gpu, needs))
    if not top.is_bad:
        top = _quiet(gpu, needs)
    rest = [item for other in faults if other is not top for item in other.evidence]
    evidence = tuple(dict.fromkeys((*top.evidence, *rest)))
    return replace(top, evidence=evidence).finding(probe, gpu.component, gpu.view)


def _quiet(gpu: GpuWindow, needs: Sequence[str]) -> RuleResult:
    """Return what a GPU without a fault is: healthy only where all that the check needs was read."""
    if failed := gpu.failed(needs):
        message = f"Could not be read: {', '.join(failed)} ({gpu.shown(failed[0])})."
        evidence = tuple(gpu.evidence(name) for name in failed[:8])
        return result.unknown("unreadable", message, Action.WATCH, evidence)
    if not gpu.supported(needs):
        message = "This card, driver or exporter has none of the readings."
        return result.not_applicable("unsupported", message)
    return result.healthy("ok", "Nothing wrong was seen.")


def whole_node(gpu: GpuWindow, is_so: Callable[[Gpu], bool]) -> bool:
    """Return whether all of the node's GPUs, at least two, are so: then it is the room or the chassis, not the card."""
    gpus = [gpu.gpu, *gpu.siblings]
    return len(gpus) >= WHOLE_NODE_LEAST and all(is_so(one) for one in gpus)
