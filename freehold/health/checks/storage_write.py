"""Whether a watched volume takes a small write and has it on the disk in time: slow, full, read-only and failing told apart.

A new file of 4 KiB until fsync has returned, every ten seconds: what a weight that is staged, a log and the ledger wait for. Reads do not
show it: a full disk, a read-only one and one whose journal waits read as well as ever. How fast reads are and what the kernel's log
says is for other probes; this one reads and writes nothing.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from freehold.core.findings import Action, Evidence, Finding, Verdict
from freehold.health.judge.series import number
from freehold.health.judge.storage import component_of, is_elsewhere, named
from freehold.health.model.probe import Expected, Probe, Threshold
from freehold.health.model.view import State, View, Volume

WRITES_LEAST = 6
"""Fewer say nothing of a median; our own choice: a minute's at one in ten seconds."""
WARN_S = 0.5
"""etcd's alert etcdHighFsyncDurations: a 99th percentile of its fsyncs above 0.5 s is a warning; we take the median, which says more."""
BAD_S = 1.0
"""The same alert: above 1 s it is critical."""
HUNG_S = 30.0
"""The kernel's own timeout of NVMe and SCSI commands (nvme_core.io_timeout, scsi eh): a healthy device has answered by then."""
QUEUE_BUSY = 4.0
"""As in storage_latency: requests at the device, mean; our own write is at most a few, so others ask much of it."""
_FULL = frozenset({"ENOSPC", "EDQUOT"})
_REFUSED = frozenset({"EACCES", "EPERM", "ENOENT", "ENOTDIR", "EISDIR", "EEXIST"})

_REASONS = {
    "as_usual": "small writes reach the disk in time",
    "learning": "too few writes yet: wait a minute",
    "not_read": "nobody read the volumes: look at the agent",
    "no_volumes": "no volume is watched: name one under health.storage.path",
    "off": "nobody writes here to see whether it works: health.storage.write is false",
    "cannot_write": "the agent may not write here, or the folder is gone: give it the right to, or set health.storage.write: false",
    "slow_write": "a small write takes long to reach the disk: staging, logs and the ledger wait for it; plan a swap if nobody else writes",
    "slow_write_busy": "small writes wait behind many others at the disk: find who writes so much",
    "slow_write_elsewhere": "the machine or program behind this file system is slow to write: look there, and at the network to it",
    "hung_write": "a write does not end: look at disk, controller and cable, or at what serves the file system",
    "full": "no room is left, or the quota is used up: free space now",
    "read_only": "it could be written and cannot any more, or the file system made itself read-only after an error: take the node out, check it",
    "mounted_read_only": "it is mounted read-only, as a model's volume may be: nothing can be staged here; mount it otherwise if something should be",
    "write_error": "a write failed: what was written lately may be lost; take the node out, look at the disk",
}


@dataclass(frozen=True, slots=True)
class _Judged:
    verdict: Verdict
    reason: str
    message: str
    action: Action = Action.NONE
    evidence: tuple[Evidence, ...] = ()


def check(views: Sequence[View], _expected: Expected) -> Sequence[Finding]:
    """Return one finding per watched volume."""
    newest = views[-1].volumes
    if newest is None:
        return [_finding(views, "disk", _Judged(Verdict.UNKNOWN, "not_read", "the volumes were not read"))]
    if not newest:
        nothing = _Judged(Verdict.NOT_APPLICABLE, "no_volumes", "no volume is watched")
        return [_finding(views, "disk", nothing)]
    return [_finding(views, component_of(volume), _judge(views, volume)) for volume in newest]


def _finding(views: Sequence[View], component: str, judged: _Judged) -> Finding:
    return Finding(
        probe="storage_write",
        component=component,
        verdict=judged.verdict,
        reason=judged.reason,
        message=judged.message,
        action=judged.action,
        evidence=judged.evidence,
        at_s=views[-1].at_s,
        node=views[-1].node,
    )


def _judge(views: Sequence[View], newest: Volume) -> _Judged:
    if not newest.writing:
        return _Judged(Verdict.NOT_APPLICABLE, "off", f"nobody writes to {newest.path}")
    if newest.write_waits_s >= HUNG_S:
        return _hung(views, newest)
    if newest.write_error:
        return _failed(views, newest)
    past = [volume for view in views for volume in view.volumes or () if volume.path == newest.path]
    writes_s = [took_s for volume in past for took_s in volume.writes_s]
    if newest.write_waits_s >= BAD_S:
        writes_s.append(newest.write_waits_s)  # one that has not ended counts with what it has waited
    if not writes_s and newest.state is State.ABSENT:
        return _Judged(Verdict.UNKNOWN, "cannot_write", f"{newest.path} is not there: {newest.detail}")
    if len(writes_s) < WRITES_LEAST:
        message = f"{len(writes_s)} of {WRITES_LEAST} writes to {named(newest)}: too few to judge"
        return _Judged(Verdict.UNKNOWN, "learning", message)
    return _timed(views, past, writes_s)


def _timed(views: Sequence[View], past: Sequence[Volume], writes_s: Sequence[float]) -> _Judged:
    newest, median_s = past[-1], statistics.median(writes_s)
    message = f"a 4 KiB write to {named(newest)} takes {_ms(median_s)} to reach the disk"
    evidence = (_write_evidence(views, writes_s), *_queue_evidence(views, past))
    if median_s < WARN_S:
        return _Judged(Verdict.HEALTHY, "as_usual", message, evidence=evidence)
    message = f"{message}, normal is under {_ms(WARN_S)}"
    bad = median_s >= BAD_S
    verdict = Verdict.UNHEALTHY if bad else Verdict.DEGRADED
    if is_elsewhere(newest):
        return _Judged(verdict, "slow_write_elsewhere", message, Action.WATCH, evidence)
    if (_queue(past) or 0.0) >= QUEUE_BUSY:
        return _Judged(Verdict.DEGRADED, "slow_write_busy", message, Action.WATCH, evidence)
    return _Judged(verdict, "slow_write", message, Action.DRAIN if bad else Action.WATCH, evidence)


def _queue(past: Sequence[Volume]) -> float | None:
    known = [value for volume in past if (value := number(volume.device_queue)) is not None]
    return statistics.median(known) if known else None


def _queue_evidence(views: Sequence[View], past: Sequence[Volume]) -> tuple[Evidence, ...]:
    queue = _queue(past)
    if queue is None:
        return ()
    what, at_s = "requests under way at the device, mean", views[-1].at_s
    return (
        Evidence(what=what, value=f"{queue:.2g}", source="/sys/dev/block", at_s=at_s, baseline="under 1"),
    )


def _write_evidence(views: Sequence[View], writes_s: Sequence[float]) -> Evidence:
    return Evidence(
        what=f"write and fsync of 4 KiB, median of {len(writes_s)}",
        value=f"{_ms(statistics.median(writes_s))}, the longest {_ms(max(writes_s))}",
        source="own write",
        at_s=views[-1].at_s,
        baseline=f"under {_ms(WARN_S)}",
    )


def _seen(views: Sequence[View], what: str, value: str) -> tuple[Evidence, ...]:
    return (Evidence(what=what, value=value, source="own write", at_s=views[-1].at_s, baseline="none"),)


def _hung(views: Sequence[View], newest: Volume) -> _Judged:
    waits = f"{newest.write_waits_s:.0f} s"
    message = f"a write to {named(newest)} does not end: no answer for {waits}"
    action = Action.FIX_CONFIGURATION if is_elsewhere(newest) else Action.CORDON
    seen = _seen(views, "write without an answer", waits)
    return _Judged(Verdict.UNHEALTHY, "hung_write", message, action, seen)


def _failed(views: Sequence[View], newest: Volume) -> _Judged:
    error, what = newest.write_error, named(newest)
    seen = _seen(views, "newest write failed", error)
    if error in _FULL:
        how = "no space is left on" if error == "ENOSPC" else "the quota is used up on"
        return _Judged(Verdict.UNHEALTHY, "full", f"{how} {what}", Action.FREE_SPACE, seen)
    if error == "EROFS":
        return _read_only(newest, seen)
    if error in _REFUSED:
        return _cannot(newest)
    return _Judged(
        Verdict.UNHEALTHY,
        "write_error",
        f"a write to {what} failed: {error}",
        Action.INSPECT_HARDWARE,
        seen,
    )


def _cannot(newest: Volume) -> _Judged:
    message = f"the agent cannot write to {named(newest)}: {newest.write_error}"
    return _Judged(Verdict.UNKNOWN, "cannot_write", message)


def _read_only(newest: Volume, seen: tuple[Evidence, ...]) -> _Judged:
    what = named(newest)
    if newest.wrote or newest.read_only == "file_system":
        how = "made itself read-only" if newest.read_only == "file_system" else "has become read-only"
        return _Judged(Verdict.UNHEALTHY, "read_only", f"{what} {how}", Action.CORDON, seen)
    if newest.read_only != "mount":
        return _cannot(newest)  # neither was told: a read-only subvolume, or no mount table
    message = f"{what} is mounted read-only"
    return _Judged(Verdict.NOT_APPLICABLE, "mounted_read_only", message, evidence=seen)


def _ms(value_s: float) -> str:
    return f"{value_s * 1000:.3g} ms" if value_s < 1 else f"{value_s:.2f} s"


PROBE = Probe(
    name="storage_write",
    summary="Sees a volume that takes small writes slowly, not at all, is full or has become read-only; reads would not show it.",
    reads=("volumes",),
    window_s=120.0,
    reasons=_REASONS,
    thresholds=(
        Threshold(
            name="writes_least", value=WRITES_LEAST, source="our own choice: a minute's at one in ten seconds"
        ),
        Threshold(
            name="warn_s", value=WARN_S, source="etcd mixin, etcdHighFsyncDurations: warning above 0.5 s"
        ),
        Threshold(name="bad_s", value=BAD_S, source="etcd mixin, etcdHighFsyncDurations: critical above 1 s"),
        Threshold(name="hung_s", value=HUNG_S, source="the kernel's NVMe and SCSI timeout, 30 s"),
        Threshold(
            name="queue_busy_requests", value=QUEUE_BUSY, source="our own choice, as in storage_latency"
        ),
    ),
    check=check,
    confirm=2,
)
