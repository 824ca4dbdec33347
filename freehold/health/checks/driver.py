"""Is one NVIDIA driver at work here: the running one, the one on disk and the expected one?

A library of another version than the kernel module fails every CUDA program. That is software, however broken the GPUs look. A newer
one on disk works until the next reboot or restart. A program that brings a library of its own (a container's) is refused alone:
only the kernel's log shows it. The check compares versions; it does not judge which is good.
"""

from collections.abc import Sequence
from dataclasses import replace

from freehold.core.findings import Action, Evidence, Finding, Verdict
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.gpus import newest_gpus
from freehold.health.judge.rule_result import RuleResult
from freehold.health.judge.series import failed
from freehold.health.kernel_log.events import KernelEvent, Kind, read_events
from freehold.health.model.probe import Expected
from freehold.health.model.view import Gpus, Reading, State, View

DECLARED = declared(__name__)
WINDOW_S = DECLARED.limit("window_s")

_PLACES = {
    "driver_version": "nvml",
    "module_version": "/sys/module/nvidia",
    "disk_version": "libraries on disk",
}


def _text(gpus: Gpus, name: str) -> str:
    value = gpus.driver.get(name, Reading(state=State.UNKNOWN)).value
    return "" if value is None else str(value)


def _evidence(view: View, gpus: Gpus, locked: str) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(what=name, value=_text(gpus, name), source=place, at_s=view.at_s, baseline=locked)
        for name, place in _PLACES.items()
        if _text(gpus, name)
    )


def _absent(gpus: Gpus, expected: Expected) -> RuleResult | None:
    """Return what there is to say where the library did not answer; None where it did."""
    if gpus.state is State.MISMATCH:
        message = f"The NVML library and the kernel module differ ({_text(gpus, 'disk_version') or '?'} on disk, {_text(gpus, 'module_version') or '?'} runs): no CUDA program will start."
        return result.unhealthy("mismatch", message, Action.REBOOT)
    wanted = bool(expected.driver_version or expected.gpus)
    if gpus.state is State.ABSENT and not _text(gpus, "module_version"):
        if not gpus.pci_addresses and not wanted:
            return result.not_applicable("no_gpu", "There is no NVIDIA GPU and no driver here.")
        message = f"No NVIDIA driver is loaded: {gpus.detail}."
        verdict = Verdict.UNHEALTHY if wanted else Verdict.UNKNOWN
        return RuleResult(verdict, "not_loaded", message, Action.FIX_CONFIGURATION)
    if gpus.state is not State.OK:
        return result.unknown("not_read", f"The driver was not read: {gpus.detail}.", Action.WATCH)
    return None


def _compared(gpus: Gpus, expected: Expected) -> RuleResult:
    library, module, disk = (_text(gpus, name) for name in _PLACES)
    running = module or library
    if library and module and library != module:
        message = f"The library is {library}, the kernel module {module}."
        return result.unhealthy("mismatch", message, Action.REBOOT)
    if not running:
        return _unread(gpus)
    if expected.driver_version and running != expected.driver_version:
        message = f"Driver {running} runs, {expected.driver_version} is expected."
        return result.degraded("not_as_locked", message, Action.FIX_CONFIGURATION)
    if disk and running not in disk.split(","):
        message = f"Driver {running} runs, {disk} is on disk: the next restart of a program or of the node changes it."
        return result.degraded("pending_upgrade", message, Action.REBOOT)
    return _read_all(gpus) or result.healthy("ok", f"Driver {running} runs.")


def _unread(gpus: Gpus) -> RuleResult:
    if not gpus.gpus and not gpus.pci_addresses:
        return result.not_applicable("no_gpu", "There is no NVIDIA GPU here.")
    unread = gpus.driver.get("driver_version", Reading(state=State.UNKNOWN, detail="not asked"))
    message = f"The driver's version could not be read: {unread.state.value} {unread.detail}".rstrip() + "."
    return result.unknown("unreadable", message, Action.WATCH)


def _read_all(gpus: Gpus) -> RuleResult | None:
    """Return what hides a mismatch: a version that is there and failed to be read."""
    bad = failed(gpus.driver, _PLACES)
    if not bad:
        return None
    message = f"Could not be read: {', '.join(bad)} ({gpus.driver[bad[0]].state.value})."
    return result.unknown("unreadable", message, Action.WATCH)


def _refused(views: Sequence[View]) -> list[KernelEvent]:
    """Return the kernel's lines on programs that the driver refused, since it was loaded last."""
    lines = [
        line
        for view in views
        for line in (view.kernel.lines if view.kernel else ())
        if line.text.startswith("NVRM:") and line.at_s > views[-1].at_s - WINDOW_S
    ]
    refused: list[KernelEvent] = []
    for event in read_events(lines):
        if event.kind is Kind.DRIVER_LOADED:
            refused.clear()
        elif event.kind is Kind.API_MISMATCH:
            refused.append(event)
    return refused


def _with_refused(found: RuleResult, refused: Sequence[KernelEvent]) -> RuleResult:
    """Return the result with the refused programs as evidence; they are its reason where nothing else is wrong."""
    fields = refused[-1].fields
    program = f"{fields['name']} (pid {fields.get('pid', '?')})" if "name" in fields else "a program"
    client, module = fields.get("client", "another version"), fields.get("module", "another one")
    seen = Evidence(
        what="programs refused by the driver",
        value=f"{len(refused)}, the last {program} with {client}",
        source="kernel log",
        at_s=refused[-1].at_s,
        baseline=fields.get("module", ""),
    )
    if not found.is_bad:
        message = f"The driver refused {program}: its library is {client}, the kernel module {module}."
        found = result.degraded("client_mismatch", message, Action.FIX_CONFIGURATION, found.evidence)
    return replace(found, evidence=(*found.evidence, seen))


def check(views: Sequence[View], expected: Expected) -> Sequence[Finding]:
    """Return one finding on the driver."""
    view = newest_gpus(views)
    gpus, refused = view.gpus, _refused(views)
    if gpus is None:
        found = result.unknown("not_read", "The driver was not read.")
    else:
        found = _absent(gpus, expected) or _compared(gpus, expected)
        found = replace(found, evidence=_evidence(view, gpus, expected.driver_version or ""))
    if refused:
        found = _with_refused(found, refused)
    return [replace(found.finding(PROBE.name, "driver", view), at_s=view.at_s)]


PROBE = DECLARED.probe(check)
