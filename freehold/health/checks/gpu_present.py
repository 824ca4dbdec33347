"""Are all the GPUs there, and does each answer?

Three counts are compared: what the node should have, what hangs on the PCI bus, and what the driver shows; and each GPU's name with the
one that it should have. A GPU that is lost or needs a reset shows it in its
readings, and the driver's own recovery action decides for its card. A GPU that cannot be read is UNKNOWN, never healthy and
never broken. Why a GPU left is not judged here: the kernel log shows it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from freehold.catalog.load_xids import recovery_actions
from freehold.core.findings import Action, Evidence, Finding, Verdict
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.gpus import REASONS, GpuWindow, finding_of, gpu_windows, newest_gpus, no_gpus
from freehold.health.judge.rule_result import RuleResult
from freehold.health.model.probe import Expected
from freehold.health.model.view import Gpu, Gpus, State, View

DECLARED = declared(__name__)
_LEAST_ACTION = DECLARED.count("recovery_action_least")

NEEDS = ("recovery_action",)


def _lost(gpu: GpuWindow) -> Iterable[RuleResult]:
    for state, reason, what, action in (
        (State.LOST, "lost", "is lost", Action.CORDON),
        (State.RESET_REQUIRED, "reset_required", "must be reset", Action.RESET_GPU),
    ):
        named = [name for name, reading in gpu.gpu.readings.items() if reading.state is state]
        if named:
            seen = tuple(gpu.evidence(name) for name in named[:2])
            yield result.unhealthy(reason, f"The driver says that the GPU {what}.", action, seen)


def _recovery(gpu: GpuWindow) -> Iterable[RuleResult]:
    wanted = gpu.value("recovery_action")
    if wanted is None or wanted < _LEAST_ACTION:
        return
    known = recovery_actions().get(int(wanted))
    wanted_action = known.name.replace("_", " ") if known else f"code {wanted:g}, which no catalogue knows"
    yield result.unhealthy(
        "recovery_action",
        f"The driver itself asks for: {wanted_action}.",
        known.action if known else Action.DRAIN,
        (gpu.evidence("recovery_action", baseline="0"),),
    )


def _model(gpu: GpuWindow, model: str | None) -> Iterable[RuleResult]:
    """Yield that a GPU is another than expected: its name lacks a word of the expected one."""
    name = gpu.gpu.name
    if not model or not name or _words(model) <= _words(name):
        return
    seen = Evidence(what="name", value=name, source=gpu.source, at_s=gpu.view.at_s, baseline=model)
    yield _odd("other_model", f"This GPU is a {name}, a {model} is expected.", (seen,))


def _words(name: str) -> set[str]:
    """Return the words of a GPU's name: whole ones, so that an A100 is not an A10."""
    return set(re.split(r"[\s_-]+", name.strip().casefold()))


def _needs(gpu: GpuWindow) -> Sequence[str]:
    """Return what must have been read: the recovery action, or where that is not supported anything at all."""
    readings = gpu.gpu.readings
    if gpu.failed(NEEDS) or gpu.supported(NEEDS):
        return NEEDS
    return [name for name, reading in readings.items() if reading.state is State.OK] or list(readings)


def _one(gpu: GpuWindow, expected: Expected) -> Finding:
    faults = [*_lost(gpu), *_recovery(gpu), *_model(gpu, expected.gpu_model)]
    found = finding_of(PROBE.name, gpu, faults=faults, needs=_needs(gpu))
    if found.verdict is Verdict.HEALTHY and expected.gpu_model and not gpu.gpu.name:
        message = f"Its name could not be read, so whether it is a {expected.gpu_model} is not known."
        found = replace(
            found, verdict=Verdict.UNKNOWN, reason="unreadable", message=message, action=Action.WATCH
        )
    return found


def _seen(gpus: Gpus) -> int:
    """Return how many GPUs the driver still shows: one that is lost has only its name left."""
    lost = sum(1 for gpu in gpus.gpus if _is_lost(gpu))
    return len(gpus.gpus) - lost


def _is_lost(gpu: Gpu) -> bool:
    states = {reading.state for reading in gpu.readings.values()}
    return State.LOST in states and State.OK not in states


def _most_before(views: Sequence[View]) -> int:
    return max((max(_seen(view.gpus), view.gpus.most) for view in views if view.gpus is not None), default=0)


def _count_fault(views: Sequence[View], gpus: Gpus, expected: Expected) -> RuleResult | None:
    seen, on_bus = _seen(gpus), len(gpus.pci_addresses)
    evidence = _counts(newest_gpus(views), gpus, expected)
    if expected.gpus is not None and seen < expected.gpus:
        return _bad(
            "missing", f"{seen} of {expected.gpus} GPUs are there; {on_bus} are on the PCI bus.", evidence
        )
    if seen < (before := _most_before(views)):
        return _bad("gone", f"{seen} GPUs are there, {before} were.", evidence)
    if 0 < on_bus < seen:
        return _bad("off_the_bus", f"The driver shows {seen} GPUs, the PCI bus only {on_bus}.", evidence)
    if expected.gpus is not None and seen > expected.gpus:
        return _odd("more_than_expected", f"{seen} GPUs are there, {expected.gpus} are expected.", evidence)
    if expected.gpus is None and seen < on_bus:
        message = f"{on_bus} GPUs are on the PCI bus, the driver shows {seen}: some failed, or this container is given fewer."
        return _odd("not_in_driver", message, evidence)
    return None


def _bad(reason: str, message: str, evidence: tuple[Evidence, ...]) -> RuleResult:
    return result.unhealthy(reason, message, Action.CORDON, evidence)


def _odd(reason: str, message: str, evidence: tuple[Evidence, ...]) -> RuleResult:
    return result.degraded(reason, message, Action.FIX_CONFIGURATION, evidence)


def _counts(view: View, gpus: Gpus, expected: Expected) -> tuple[Evidence, ...]:
    baseline = "" if expected.gpus is None else str(expected.gpus)
    rows = [("GPUs in the driver", str(_seen(gpus)), gpus.source)]
    if gpus.pci_addresses:
        rows.append(("GPUs on the PCI bus", str(len(gpus.pci_addresses)), "/sys/bus/pci/devices"))
    return tuple(
        Evidence(what=what, value=value, source=source, at_s=view.at_s, baseline=baseline)
        for what, value, source in rows
    )


def _count(views: Sequence[View], expected: Expected) -> Finding:
    """Return the finding on the number of GPUs; what the library could not report is UNKNOWN."""
    view = newest_gpus(views)
    gpus = view.gpus
    if gpus is None or gpus.state not in (State.OK, State.ABSENT):
        return _not_read(view, gpus)
    if gpus.state is State.ABSENT and gpus.pci_addresses and not expected.gpus:
        message = (
            f"{len(gpus.pci_addresses)} NVIDIA GPUs are on the PCI bus and no driver answers: {gpus.detail}."
        )
        found = result.unknown("no_driver", message)
    elif not gpus.gpus and not gpus.pci_addresses and not expected.gpus and not _most_before(views):
        return no_gpus(PROBE.name, view, expected)
    else:
        found = _count_fault(views, gpus, expected) or result.healthy("ok", f"{_seen(gpus)} GPUs are there.")
    return found.finding(PROBE.name, "gpus", view)


def _not_read(view: View, gpus: Gpus | None) -> Finding:
    if gpus is None or gpus.state is not State.HUNG:
        return no_gpus(PROBE.name, view, Expected(gpus=1))
    evidence = (Evidence(what="NVML call", value=gpus.detail, source=gpus.source, at_s=view.at_s),)
    message = f"Reading the GPUs hangs: {gpus.detail}."
    return result.unknown("hung", message, Action.WATCH, evidence).finding(PROBE.name, "gpus", view)


def check(views: Sequence[View], expected: Expected) -> Sequence[Finding]:
    """Return one finding on the count, and one per GPU that the newest view names."""
    return [_count(views, expected), *(_one(gpu, expected) for gpu in gpu_windows(views))]


PROBE = DECLARED.probe(check, common=REASONS)
