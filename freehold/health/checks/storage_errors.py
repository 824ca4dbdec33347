"""Whether a disk fails: by the kernel's log, and by the disk's own report (SMART).

A SMART count that never goes back counts by its growth in the window, not by its value; the disk's own `passed` is not
used, because it is also there with an empty spare area. How slow a disk is, `storage_latency` judges; nothing here reads.

SMART readings are looked for in `Volume.smart` by these names (NVM Express base specification, SMART / Health log):
`critical_warning` (bits), `media_errors`, `available_spare_pct`, `available_spare_threshold_pct`, `percentage_used_pct`; of ATA
disks also `reallocated_sectors`, `pending_sectors`, `uncorrectable_sectors`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter

from freehold.core.findings import Action, Evidence, Verdict
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.kernel_window import (
    BLIND_S,
    SILENCE_S,
    event_evidence,
    how_often,
    incidents,
    unread,
)
from freehold.health.judge.rule_result import RuleResult, strongest_result
from freehold.health.judge.series import failed, number
from freehold.health.judge.storage import component_of, past_of
from freehold.health.kernel_log.events import KernelEvent, Kind, read_events
from freehold.health.model.probe import Expected
from freehold.health.model.view import View, Volume

DECLARED = declared(__name__)
WINDOW_S = DECLARED.limit("window_s")
ERRORS_MOST = DECLARED.count("errors")
TIMEOUTS_MOST = DECLARED.count("timeouts")
REPEATED_TIMES = DECLARED.count("repeated_times")
SECTORS_LEAST = DECLARED.count("sectors_least")
USED_WARN_PCT = DECLARED.limit("used_warn_pct")
USED_BAD_PCT = DECLARED.limit("used_bad_pct")

_GROWING = ("media_errors", "reallocated_sectors")
_UNREADABLE = ("pending_sectors", "uncorrectable_sectors")
_WARNING_TEMPERATURE = (
    0b10  # NVMe base specification, Critical Warning bit 1; the others are spare, reliability, read-only
)

_KINDS = frozenset(
    {Kind.DISK_ERROR, Kind.DISK_TIMEOUT, Kind.DISK_GONE, Kind.FILE_SYSTEM_ERROR, Kind.READ_ONLY}
)


def _judge(views: Sequence[View], _expected: Expected) -> Iterable[tuple[str, RuleResult]]:
    """Return the result of each watched volume, and of each other disk that the log names."""
    now = views[-1]
    lines = [line for view in views if view.kernel for line in view.kernel.lines]
    by_device: defaultdict[str, list[KernelEvent]] = defaultdict(list)
    for event in read_events(lines):
        if event.kind in _KINDS and event.at_s > now.at_s - WINDOW_S:
            by_device[event.device].append(event)
    judged = dict(_watched(views, by_device))
    for device, events in by_device.items():
        judged[f"disk:{device}"] = _milder(judge_disk(events))
    if not judged:
        judged["disk"] = _nothing(views)
    return sorted(judged.items(), key=itemgetter(0))


def _watched(
    views: Sequence[View], by_device: defaultdict[str, list[KernelEvent]]
) -> Iterator[tuple[str, RuleResult]]:
    """Judge each watched volume, by its component, and take its events out of `by_device`."""
    for volume in _volumes(views):
        under = (volume.device, *volume.disks)
        mine = [device for device in by_device if any(same_disk(device, disk) for disk in under)]
        events = [event for device in mine for event in by_device.pop(device)]
        found = _smart(past_of(views, volume.path), views[-1].at_s)
        by_log = judge_disk(events)
        worst = strongest_result([by_log, *found], by_log)
        quiet = worst.verdict is Verdict.HEALTHY
        yield component_of(volume), _unread_smart(volume) or _nothing(views) if quiet else worst


def same_disk(event_device: str, volume_device: str) -> bool:
    """Return whether an event's device is the volume's, its whole disk, a partition of it, or its NVMe controller."""
    one, other = (_disk(name.removeprefix("/dev/")) for name in (event_device, volume_device))
    return bool(one and other) and (one == other or _controller(one) == other or one == _controller(other))


def _disk(name: str) -> str:
    """Return the whole disk of a partition: `nvme0n1` of `nvme0n1p2`, `sda` of `sda3`."""
    if match := re.fullmatch(r"((?:nvme\d+(?:c\d+)?n\d+|mmcblk\d+|md\d+|loop\d+))(?:p\d+)?", name):
        return re.sub(r"c\d+n", "n", match[1])
    match = re.fullmatch(r"((?:sd|vd|xvd|hd)[a-z]+)\d*", name)
    return match[1] if match else name


def _controller(name: str) -> str:
    match = re.fullmatch(r"(nvme\d+)n\d+", name)
    return match[1] if match else name


def judge_disk(events: Sequence[KernelEvent]) -> RuleResult:
    """Return the worst result of the kernel's lines on one disk."""
    nothing = result.healthy("no_errors", "no disk error in the window")
    return strongest_result(_judgements(events), nothing)


def _judgements(events: Sequence[KernelEvent]) -> Iterator[RuleResult]:
    kinds: defaultdict[Kind, list[KernelEvent]] = defaultdict(list)
    for event in events:
        kinds[event.kind].append(event)
    if gone := kinds[Kind.DISK_GONE]:
        yield _bad("device_gone", "the kernel gave the disk up", gone, Action.INSPECT_HARDWARE)
    if read_only := kinds[Kind.READ_ONLY]:
        yield _bad("read_only", "the file system made itself read-only", read_only, Action.CORDON)
    if errors := kinds[Kind.DISK_ERROR]:
        yield _errors(errors)
    if timeouts := kinds[Kind.DISK_TIMEOUT]:
        yield _timeouts(timeouts)
    if file_system := kinds[Kind.FILE_SYSTEM_ERROR]:
        yield _file_system(file_system)


def _errors(events: list[KernelEvent]) -> RuleResult:
    times = incidents(events)
    many = len(events) >= ERRORS_MOST or times >= REPEATED_TIMES
    message = f"{len(events)} failed reads or writes, {how_often(times)}"
    medium = [event for event in events if event.fields.get("what") in {"medium", "hardware"}]
    if medium:
        return _bad(
            "medium_error",
            f"the disk names its own medium or hardware: {message}",
            medium,
            Action.REPLACE_HARDWARE,
        )
    if many:
        return _bad("io_errors", message, events, Action.INSPECT_HARDWARE)
    return _mild("io_error", message, events, Action.WATCH)


def _timeouts(events: list[KernelEvent]) -> RuleResult:
    message = f"{len(events)} NVMe commands timed out, {how_often(incidents(events))}"
    if len(events) >= TIMEOUTS_MOST:
        return _bad("timeouts", message, events, Action.INSPECT_HARDWARE)
    return _mild("timeout", message, events, Action.WATCH)


def _file_system(events: list[KernelEvent]) -> RuleResult:
    message = f"the file system found {len(events)} errors in itself"
    if any("shut down" in event.text for event in events):
        return _bad("file_system_error", f"{message} and shut down", events, Action.CORDON)
    return _mild("file_system_error", message, events, Action.DRAIN)


def _bad(reason: str, message: str, events: list[KernelEvent], action: Action) -> RuleResult:
    return result.unhealthy(reason, message, action, event_evidence(events))


def _mild(reason: str, message: str, events: list[KernelEvent], action: Action) -> RuleResult:
    return result.degraded(reason, message, action, event_evidence(events))


def _milder(judged: RuleResult) -> RuleResult:
    """Return the same of a disk that holds no model: it is worth a look, not an outage."""
    return replace(
        judged,
        verdict=min(judged.verdict, Verdict.DEGRADED, key=list(Verdict).index),
        message=f"{judged.message} (no watched volume is on it)",
        action=Action.WATCH,
    )


def _smart(volumes: Sequence[Volume], at_s: float) -> Iterator[RuleResult]:
    newest = _numbers(volumes[-1])
    for reason, name, normal, action in _smart_faults(newest, volumes):
        counter, value = name.replace("_", " "), f"{newest[name]:g}"
        seen = Evidence(what=counter, value=value, source="SMART", at_s=at_s, baseline=normal)
        verdict = Verdict.UNHEALTHY if reason in _BAD_SMART else Verdict.DEGRADED
        yield RuleResult(verdict, reason, f"SMART {counter} {value}, normal {normal}", action, (seen,))


_SmartFaults = Iterator[tuple[str, str, str, Action]]
"""Reason, reading, what is normal, what to do."""
_BAD_SMART = frozenset({"smart_warning", "smart_spare"})


def _smart_faults(newest: Mapping[str, float], volumes: Sequence[Volume]) -> _SmartFaults:
    warning = int(newest.get("critical_warning", 0))
    if warning & ~_WARNING_TEMPERATURE:
        yield "smart_warning", "critical_warning", "0", Action.REPLACE_HARDWARE
    if warning & _WARNING_TEMPERATURE:
        yield "smart_temperature", "critical_warning", "0", Action.CHECK_FACILITY
    least = newest.get("available_spare_threshold_pct")
    if least is not None and newest.get("available_spare_pct", least) < least:
        yield "smart_spare", "available_spare_pct", f"at least {least:g}", Action.REPLACE_HARDWARE
    for name in _GROWING:
        counts = [found[name] for found in map(_numbers, volumes) if name in found]
        if name in newest and newest[name] > counts[0]:
            yield "smart_media_errors", name, f"{counts[0]:g}", Action.DRAIN
    for name in _UNREADABLE:
        if newest.get(name, 0.0) >= SECTORS_LEAST:
            yield "smart_sectors", name, "0", Action.DRAIN
    used = newest.get("percentage_used_pct", 0.0)
    if used > USED_BAD_PCT:
        yield "smart_worn", "percentage_used_pct", f"at most {USED_BAD_PCT:g}", Action.DRAIN
    elif used > USED_WARN_PCT:
        yield "smart_wearing", "percentage_used_pct", f"at most {USED_WARN_PCT:g}", Action.WATCH


def _numbers(volume: Volume) -> Mapping[str, float]:
    read = ((name, number(reading)) for name, reading in volume.smart.items())
    return {name: value for name, value in read if value is not None}


def _unread_smart(volume: Volume) -> RuleResult | None:
    """Return why a silent disk is not called healthy: it has SMART, and that could not be read."""
    bad = failed(volume.smart, volume.smart)
    if not bad:
        return None
    reading = volume.smart[bad[0]]
    message = f"SMART could not be read: {reading.state} {reading.detail}".rstrip()
    return result.unknown("smart_not_read", message)


def _nothing(views: Sequence[View]) -> RuleResult:
    """Return the result for a disk without errors: healthy only if the log was read."""
    if (why := unread(views)) is not None:
        return why
    if not _volumes(views):
        return result.unknown("no_volumes", "which volumes matter was not read")
    return judge_disk(())


def _volumes(views: Sequence[View]) -> tuple[Volume, ...]:
    return next((view.volumes for view in reversed(views) if view.volumes), ())


PROBE = DECLARED.probe_of(
    _judge,
    first={
        "incident_silence_s": (SILENCE_S, "NVIDIA Fleet Intelligence: 3 min"),
        "blind_s": (BLIND_S, "our own choice: ten minutes after records were lost"),
    },
)
