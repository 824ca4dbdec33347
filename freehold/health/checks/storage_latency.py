"""Whether a volume answers a small read as fast as it should, and if not, what holds it: the disk, a limit, or a process.

Three witnesses: our own O_DIRECT reads see every cause; PSI sees waits in the block layer, so not those in a user-space file system;
the device's own ticks see only the device. Reads slow and ticks slow: the disk. Ticks flat and PSI up: a cgroup limit or a
neighbour. PSI flat: a user-space file system. The queue tells a disk that is slow under load from
a sick one. How full it is, and what the kernel's log says, other checks judge; this one reads nothing.
"""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from freehold.core.findings import Action, Evidence, Verdict
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.rule_result import RuleResult
from freehold.health.judge.series import number
from freehold.health.judge.storage import (
    median_of,
    milliseconds,
    named,
    past_of,
    queue_evidence,
    queue_of,
)
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


class _Cause(NamedTuple):
    """Why reads are slow: the finding's reason, the text of its message, and what to do when it is slow or very slow."""

    reason: str
    explanation: str
    action: Action
    bad_action: Action


_DISK = _Cause("slow_disk", "the device itself took that long", Action.WATCH, Action.INSPECT_HARDWARE)
_BUSY = _Cause("slow_busy", "the device has a long queue: many requests wait", Action.WATCH, Action.WATCH)
_THROTTLED = _Cause(
    "slow_throttled",
    "a cgroup's blkio limit holds the reads back, the device is quick",
    Action.FIX_CONFIGURATION,
    Action.FIX_CONFIGURATION,
)
_NEIGHBOUR = _Cause(
    "slow_throttled_or_neighbour",
    "the wait is above the device, which is quick: a limit that is not seen from here, or a neighbour",
    Action.FIX_CONFIGURATION,
    Action.FIX_CONFIGURATION,
)
_USER_SPACE = _Cause(
    "slow_user_space",
    "the block layer did not wait: the process or server behind this file system is slow",
    Action.WATCH,
    Action.FIX_CONFIGURATION,
)
_NETWORK = _Cause(
    "slow_network",
    "it is not a disk of this node: the network to its server, or the server, is slow",
    Action.WATCH,
    Action.FIX_CONFIGURATION,
)
_UNCLEAR = _Cause("slow", "the cause is not known", Action.WATCH, Action.DRAIN)


class _Series:
    """One volume through the window."""

    def __init__(self, views: Sequence[View], newest: Volume) -> None:
        self.newest = newest
        self.at_s = views[-1].at_s
        self.all = past_of(views, newest.path)
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
        """Return the reading of each witness."""
        rows = [
            (
                "O_DIRECT read, median",
                milliseconds(statistics.median(self.reads_s)),
                "own read",
                milliseconds(self.usual_s),
            )
        ]
        ticks_s, stalled_s = self.ticks_s(), self.stalled_s()
        if ticks_s is not None:
            rows.append(("device time per read", milliseconds(ticks_s), "/sys/dev/block", ""))
        if stalled_s is not None:
            own = f"own reads waited {milliseconds(sum(self.reads_s))}"
            rows.append(("tasks stalled on I/O", milliseconds(stalled_s), "/proc/pressure/io", own))
        rows += [("blkio limit", limit, "cgroup", "none") for limit in self.newest.limits]
        shown = tuple(
            Evidence(what=what, value=value, source=source, at_s=self.at_s, baseline=baseline)
            for what, value, source, baseline in rows
        )
        return (*shown, *queue_evidence(self.recent, self.at_s))

    def ticks_s(self) -> float | None:
        return median_of(number(volume.device_ticks_s) for volume in self.recent)

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


def _judge(views: Sequence[View], volume: Volume) -> RuleResult:
    series = _Series(views, volume)
    if volume.state is State.HUNG:
        return _hung(series)
    if volume.state not in {State.OK, State.TRANSIENT}:
        message = f"{named(volume)} is not measured: {volume.detail or volume.state}"
        return result.unknown("cannot_read", message)
    if errors := series.errors:
        return _failed(series, errors)
    if len(series.reads_s) < READS_LEAST:
        message = f"{len(series.reads_s)} of {READS_LEAST} reads of {named(volume)}: too few to judge"
        return result.unknown("learning", message)
    median_s = statistics.median(series.reads_s)
    if median_s >= series.warn_s:
        return _slow(series, median_s)
    return _stalls(series) or _quick(series, median_s)


def _hung(series: _Series) -> RuleResult:
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
    return result.unhealthy(reason, message, action, tuple(seen))


def _failed(series: _Series, errors: Sequence[str]) -> RuleResult:
    many = len(errors) >= ERRORS_MOST
    kinds = ", ".join(sorted(set(errors)))
    seen = Evidence(
        what=f"failed reads ({kinds})",
        value=str(len(errors)),
        source="own read",
        at_s=series.at_s,
        baseline="0",
    )
    return RuleResult(
        Verdict.UNHEALTHY if many else Verdict.DEGRADED,
        "read_errors" if many else "read_error",
        f"{len(errors)} of our reads of {named(series.newest)} failed: {kinds}",
        Action.INSPECT_HARDWARE if many else Action.WATCH,
        (seen,),
    )


def _slow(series: _Series, median_s: float) -> RuleResult:
    cause = _cause(series, median_s)
    bad = median_s >= series.bad_s
    message = (
        f"a 4 KiB read of {named(series.newest)} takes {milliseconds(median_s)}, "
        f"normal is under {milliseconds(series.warn_s)}: {cause.explanation}"
    )
    return RuleResult(
        Verdict.UNHEALTHY if bad else Verdict.DEGRADED,
        cause.reason,
        message,
        cause.bad_action if bad else cause.action,
        series.evidence(),
    )


def _cause(series: _Series, median_s: float) -> _Cause:
    if series.newest.network:
        return _NETWORK  # waits for a server are in no PSI that counts disks only, and there is no device
    ticks_s, stalled_s, queue = series.ticks_s(), series.stalled_s(), queue_of(series.recent)
    if ticks_s is not None and ticks_s >= TICKS_SHARE * median_s:
        return _BUSY if queue is not None and queue >= QUEUE_BUSY else _DISK
    if stalled_s is not None and stalled_s < PRESSURE_SHARE * sum(series.reads_s):
        return _USER_SPACE if ticks_s is None else _UNCLEAR
    if ticks_s is not None and stalled_s is not None:
        return _THROTTLED if series.newest.limits else _NEIGHBOUR
    return _USER_SPACE if series.newest.user_space else _UNCLEAR


def _stalls(series: _Series) -> RuleResult | None:
    bad = [
        took_s
        for volume in series.all
        for took_s in volume.reads_s
        if took_s >= (BAD_MOST_S if (number(volume.device_queue) or 0.0) >= QUEUE_OTHERS else series.bad_s)
    ]
    if len(bad) < STALLS_MOST:
        return None
    message = f"{len(bad)} reads of {named(series.newest)} took {milliseconds(min(bad))} or more, the longest {milliseconds(max(bad))}"
    return result.degraded("slow_at_times", message, Action.WATCH, series.evidence())


def _quick(series: _Series, median_s: float) -> RuleResult:
    longest_s = max(series.reads_s)
    message = (
        f"a 4 KiB read of {named(series.newest)} takes {milliseconds(median_s)}, the longest of the last "
        f"{len(series.reads_s)} {milliseconds(longest_s)}"
    )
    return result.healthy("as_usual", message, evidence=series.evidence())


PROBE = DECLARED.volume_probe(_judge)
