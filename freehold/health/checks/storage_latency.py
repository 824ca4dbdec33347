"""Whether a volume answers a small read as fast as it should, and if not, who keeps it: the disk, a limit, or a process.

Three witnesses: our own O_DIRECT reads see every cause; PSI sees waits in the block layer, so not those in a user-space file system;
the device's own ticks see only the device. Reads slow and ticks slow: the disk. Ticks flat and PSI up: a cgroup limit or a
neighbour. PSI flat: a user-space file system. A disk that is slow because much is asked of it is told from a
sick one by its queue. How full it is, and what the kernel's log says, is for other probes; this one reads nothing.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from freehold.core.findings import Action, Evidence, Finding, Verdict
from freehold.health.judge.declaration import declared
from freehold.health.judge.series import number
from freehold.health.judge.storage import component_of, named
from freehold.health.model.probe import Expected
from freehold.health.model.view import State, View, Volume

DECLARED = declared(__name__)
READS_LEAST = DECLARED.count("reads_least")
WARN_TIMES = DECLARED.limit("warn_times_usual")
BAD_TIMES = DECLARED.limit("bad_times_usual")
WARN_LEAST_S = DECLARED.limit("warn_least_s")
BAD_LEAST_S = DECLARED.limit("bad_least_s")
BAD_MOST_S = DECLARED.limit("bad_most_s")
USUAL_MOST_S = DECLARED.limit("usual_most_s")
USUAL_MOST_ROTATIONAL_S = DECLARED.limit("usual_most_rotational_s")
STALLS_MOST = DECLARED.count("stalls_most_count")
ERRORS_MOST = DECLARED.count("errors_most_count")
TICKS_SHARE = DECLARED.limit("ticks_share")
PRESSURE_SHARE = DECLARED.limit("pressure_share")
QUEUE_OTHERS = DECLARED.limit("queue_others_requests")
QUEUE_BUSY = DECLARED.limit("queue_busy_requests")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cause:
    reason: str
    words: str
    action: Action
    bad_action: Action


_DISK = _Cause(
    reason="slow_disk",
    words="the device itself took that long",
    action=Action.WATCH,
    bad_action=Action.INSPECT_HARDWARE,
)
_BUSY = _Cause(
    reason="slow_busy",
    words="the device has a long queue: much is asked of it",
    action=Action.WATCH,
    bad_action=Action.WATCH,
)
_THROTTLED = _Cause(
    reason="slow_throttled",
    words="a cgroup's blkio limit holds the reads back, the device is quick",
    action=Action.FIX_CONFIGURATION,
    bad_action=Action.FIX_CONFIGURATION,
)
_NEIGHBOUR = _Cause(
    reason="slow_throttled_or_neighbour",
    words="the wait is above the device, which is quick: a limit that is not seen from here, or a neighbour",
    action=Action.FIX_CONFIGURATION,
    bad_action=Action.FIX_CONFIGURATION,
)
_USER_SPACE = _Cause(
    reason="slow_user_space",
    words="the block layer did not wait: the process or server behind this file system is slow",
    action=Action.WATCH,
    bad_action=Action.FIX_CONFIGURATION,
)
_NETWORK = _Cause(
    reason="slow_network",
    words="it is no disk of this node: the network to its server, or the server, is slow",
    action=Action.WATCH,
    bad_action=Action.FIX_CONFIGURATION,
)
_UNCLEAR = _Cause(
    reason="slow",
    words="what keeps it could not be told",
    action=Action.WATCH,
    bad_action=Action.DRAIN,
)


def check(views: Sequence[View], _expected: Expected) -> Sequence[Finding]:
    """Return one finding per watched volume."""
    newest = views[-1].volumes
    if newest is None:
        return [_finding(views, "disk", _Judged(Verdict.UNKNOWN, "not_read", "the volumes were not read"))]
    if not newest:
        return [
            _finding(views, "disk", _Judged(Verdict.NOT_APPLICABLE, "no_volumes", "no volume is watched"))
        ]
    return [_finding(views, component_of(volume), _judge(_Series(views, volume))) for volume in newest]


@dataclass(frozen=True, slots=True)
class _Judged:
    verdict: Verdict
    reason: str
    message: str
    action: Action = Action.NONE
    evidence: tuple[Evidence, ...] = ()


def _finding(views: Sequence[View], component: str, judged: _Judged) -> Finding:
    return Finding(
        probe="storage_latency",
        component=component,
        verdict=judged.verdict,
        reason=judged.reason,
        message=judged.message,
        action=judged.action,
        evidence=judged.evidence,
        at_s=views[-1].at_s,
        node=views[-1].node,
    )


class _Series:
    """One volume through the window."""

    def __init__(self, views: Sequence[View], newest: Volume) -> None:
        self.newest = newest
        self.at_s = views[-1].at_s
        self.all = [volume for view in views for volume in view.volumes or () if volume.path == newest.path]
        self.recent = _recent(self.all)
        self.reads_s = [took_s for volume in self.recent for took_s in volume.reads_s][-READS_LEAST:]
        usual_s = number(newest.usual_read_s)
        rotational = newest.rotational is not False
        most_s = USUAL_MOST_ROTATIONAL_S if rotational else USUAL_MOST_S
        self.usual_s = most_s if usual_s is None else min(usual_s, most_s)
        self.warn_s = max(WARN_TIMES * self.usual_s, WARN_LEAST_S)
        self.bad_s = min(max(BAD_TIMES * self.usual_s, BAD_LEAST_S), BAD_MOST_S)

    @property
    def errors(self) -> list[str]:
        return [error for volume in self.all for error in volume.errors]

    def evidence(self) -> tuple[Evidence, ...]:
        """Return what each witness said."""
        rows = [
            ("O_DIRECT read, median", _ms(statistics.median(self.reads_s)), "own read", _ms(self.usual_s))
        ]
        ticks_s, stalled_s = self.ticks_s(), self.stalled_s()
        if ticks_s is not None:
            rows.append(("device time per read", _ms(ticks_s), "/sys/dev/block", ""))
        if stalled_s is not None:
            own = f"own reads waited {_ms(sum(self.reads_s))}"
            rows.append(("tasks stalled on I/O", _ms(stalled_s), "/proc/pressure/io", own))
        rows += [("blkio limit", limit, "cgroup", "none") for limit in self.newest.limits]
        if (queue := self.queue()) is not None:
            rows.append(
                ("requests under way at the device, mean", f"{queue:.2g}", "/sys/dev/block", "under 1")
            )
        return tuple(
            Evidence(what=what, value=value, source=source, at_s=self.at_s, baseline=baseline)
            for what, value, source, baseline in rows
        )

    def ticks_s(self) -> float | None:
        return _middle([number(volume.device_ticks_s) for volume in self.recent])

    def queue(self) -> float | None:
        return _middle([number(volume.device_queue) for volume in self.recent])

    def stalled_s(self) -> float | None:
        seen = [number(volume.pressure_some_s) for volume in self.recent]
        known = [value for value in seen if value is not None]
        return sum(known) if known else None


def _recent(volumes: Sequence[Volume]) -> list[Volume]:
    """Return the newest that hold enough reads for a median, all where there are too few."""
    found: list[Volume] = []
    for volume in reversed(volumes):
        found.append(volume)
        if sum(len(each.reads_s) for each in found) >= READS_LEAST:
            break
    return found[::-1]


def _middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _judge(series: _Series) -> _Judged:
    volume = series.newest
    if volume.state is State.HUNG:
        return _hung(series)
    if volume.state not in {State.OK, State.TRANSIENT}:
        message = f"{named(volume)} is not measured: {volume.detail or volume.state}"
        return _Judged(Verdict.UNKNOWN, "cannot_read", message)
    if errors := series.errors:
        return _failed(series, errors)
    if len(series.reads_s) < READS_LEAST:
        return _few(series)
    median_s = statistics.median(series.reads_s)
    if median_s >= series.warn_s:
        return _slow(series, median_s)
    return _stalls(series) or _quick(series, median_s)


def _hung(series: _Series) -> _Judged:
    volume = series.newest
    at_device = number(volume.device_in_flight)
    seen = [Evidence(what="read without an answer", value=volume.detail, source="own read", at_s=series.at_s)]
    if at_device is not None:
        value = f"{at_device:g}"
        seen.append(
            Evidence(what="requests at the device", value=value, source="/sys/dev/block", at_s=series.at_s)
        )
    reason, action = "hung", Action.CORDON
    if not at_device and volume.network:
        reason, action = "hung_network", Action.FIX_CONFIGURATION
    elif not at_device and volume.user_space:
        reason, action = "hung_user_space", Action.FIX_CONFIGURATION
    elif at_device == 0 and volume.limits:
        reason, action = "hung_throttled", Action.FIX_CONFIGURATION
    message = f"a read of {named(volume)} does not end: {volume.detail}"
    return _Judged(Verdict.UNHEALTHY, reason, message, action, tuple(seen))


def _failed(series: _Series, errors: Sequence[str]) -> _Judged:
    many = len(errors) >= ERRORS_MOST
    kinds = ", ".join(sorted(set(errors)))
    seen = Evidence(
        what=f"failed reads ({kinds})",
        value=str(len(errors)),
        source="own read",
        at_s=series.at_s,
        baseline="0",
    )
    return _Judged(
        Verdict.UNHEALTHY if many else Verdict.DEGRADED,
        "read_errors" if many else "read_error",
        f"{len(errors)} of our reads of {named(series.newest)} failed: {kinds}",
        Action.INSPECT_HARDWARE if many else Action.WATCH,
        (seen,),
    )


def _few(series: _Series) -> _Judged:
    message = f"{len(series.reads_s)} of {READS_LEAST} reads of {named(series.newest)}: too few to judge"
    return _Judged(Verdict.UNKNOWN, "learning", message)


def _slow(series: _Series, median_s: float) -> _Judged:
    cause = _cause(series, median_s)
    bad = median_s >= series.bad_s
    message = (
        f"a 4 KiB read of {named(series.newest)} takes {_ms(median_s)}, "
        f"normal is under {_ms(series.warn_s)}: {cause.words}"
    )
    return _Judged(
        Verdict.UNHEALTHY if bad else Verdict.DEGRADED,
        cause.reason,
        message,
        cause.bad_action if bad else cause.action,
        series.evidence(),
    )


def _cause(series: _Series, median_s: float) -> _Cause:
    if series.newest.network:
        return _NETWORK  # waits for a server are in no PSI that counts disks only, and there is no device
    ticks_s, stalled_s, queue = series.ticks_s(), series.stalled_s(), series.queue()
    if ticks_s is not None and ticks_s >= TICKS_SHARE * median_s:
        return _BUSY if queue is not None and queue >= QUEUE_BUSY else _DISK
    if stalled_s is not None and stalled_s < PRESSURE_SHARE * sum(series.reads_s):
        return _USER_SPACE if ticks_s is None else _UNCLEAR
    if ticks_s is not None and stalled_s is not None:
        return _THROTTLED if series.newest.limits else _NEIGHBOUR
    return _USER_SPACE if series.newest.user_space else _UNCLEAR


def _stalls(series: _Series) -> _Judged | None:
    bad = [
        took_s
        for volume in series.all
        for took_s in volume.reads_s
        if took_s >= (BAD_MOST_S if (number(volume.device_queue) or 0.0) >= QUEUE_OTHERS else series.bad_s)
    ]
    if len(bad) < STALLS_MOST:
        return None
    message = f"{len(bad)} reads of {named(series.newest)} took {_ms(min(bad))} or more, the longest {_ms(max(bad))}"
    return _Judged(Verdict.DEGRADED, "slow_at_times", message, Action.WATCH, series.evidence())


def _quick(series: _Series, median_s: float) -> _Judged:
    longest_s = max(series.reads_s)
    message = (
        f"a 4 KiB read of {named(series.newest)} takes {_ms(median_s)}, the longest of the last "
        f"{len(series.reads_s)} {_ms(longest_s)}"
    )
    return _Judged(Verdict.HEALTHY, "as_usual", message, evidence=series.evidence())


def _ms(value_s: float) -> str:
    return f"{value_s * 1000:.3g} ms" if value_s < 1 else f"{value_s:.2f} s"


PROBE = DECLARED.probe(check)
