"""Whether a watched volume takes a small write and has it on the disk in time: slow, full, read-only or failing.

A new file of 4 KiB is written and synced every ten seconds: staged weights, logs and the ledger wait for the same. Reads do not
show it: a full disk, a read-only one and one whose journal waits still read well. How fast reads are and what the kernel's log
says, other checks judge; this one reads and writes nothing.
"""

import statistics
from collections.abc import Sequence

from freehold.core.findings import Action, Evidence, Verdict
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.rule_result import RuleResult
from freehold.health.judge.storage import (
    is_elsewhere,
    milliseconds,
    named,
    past_of,
    queue_evidence,
    queue_of,
)
from freehold.health.model.view import State, View, Volume

DECLARED = declared(__name__)
WRITES_LEAST = DECLARED.count("writes_least")
WARN_S = DECLARED.limit("warn_s")
BAD_S = DECLARED.limit("bad_s")
HUNG_S = DECLARED.limit("hung_s")
QUEUE_BUSY = DECLARED.limit("queue_busy_requests")

_FULL = frozenset({"ENOSPC", "EDQUOT"})
_REFUSED = frozenset({"EACCES", "EPERM", "ENOENT", "ENOTDIR", "EISDIR", "EEXIST"})


def _judge(views: Sequence[View], newest: Volume) -> RuleResult:
    if not newest.writing:
        return result.not_applicable("off", f"test writes to {newest.path} are off")
    if newest.write_waits_s >= HUNG_S:
        return _hung(views, newest)
    if newest.write_error:
        return _failed(views, newest)
    past = past_of(views, newest.path)
    writes_s = [took_s for volume in past for took_s in volume.writes_s]
    if newest.write_waits_s >= BAD_S:
        writes_s.append(newest.write_waits_s)  # one that has not ended counts with what it has waited
    if not writes_s and newest.state is State.ABSENT:
        return result.unknown("cannot_write", f"{newest.path} is not there: {newest.detail}")
    if len(writes_s) < WRITES_LEAST:
        message = f"{len(writes_s)} of {WRITES_LEAST} writes to {named(newest)}: too few to judge"
        return result.unknown("learning", message)
    return _timed(views, past, writes_s)


def _timed(views: Sequence[View], past: Sequence[Volume], writes_s: Sequence[float]) -> RuleResult:
    newest, median_s = past[-1], statistics.median(writes_s)
    message = f"a 4 KiB write to {named(newest)} takes {milliseconds(median_s)} to reach the disk"
    evidence = (_write_evidence(views, writes_s), *queue_evidence(past, views[-1].at_s))
    if median_s < WARN_S:
        return result.healthy("as_usual", message, evidence=evidence)
    message = f"{message}, normal is under {milliseconds(WARN_S)}"
    bad = median_s >= BAD_S
    verdict = Verdict.UNHEALTHY if bad else Verdict.DEGRADED
    if is_elsewhere(newest):
        return RuleResult(verdict, "slow_write_elsewhere", message, Action.WATCH, evidence)
    if (queue_of(past) or 0.0) >= QUEUE_BUSY:
        return result.degraded("slow_write_busy", message, Action.WATCH, evidence)
    return RuleResult(verdict, "slow_write", message, Action.DRAIN if bad else Action.WATCH, evidence)


def _write_evidence(views: Sequence[View], writes_s: Sequence[float]) -> Evidence:
    return Evidence(
        what=f"write and fsync of 4 KiB, median of {len(writes_s)}",
        value=f"{milliseconds(statistics.median(writes_s))}, the longest {milliseconds(max(writes_s))}",
        source="own write",
        at_s=views[-1].at_s,
        baseline=f"under {milliseconds(WARN_S)}",
    )


def _seen(views: Sequence[View], what: str, value: str) -> tuple[Evidence, ...]:
    return (Evidence(what=what, value=value, source="own write", at_s=views[-1].at_s, baseline="none"),)


def _hung(views: Sequence[View], newest: Volume) -> RuleResult:
    waits = f"{newest.write_waits_s:.0f} s"
    message = f"a write to {named(newest)} does not end: no answer for {waits}"
    action = Action.FIX_CONFIGURATION if is_elsewhere(newest) else Action.CORDON
    seen = _seen(views, "write without an answer", waits)
    return result.unhealthy("hung_write", message, action, seen)


def _failed(views: Sequence[View], newest: Volume) -> RuleResult:
    error, what = newest.write_error, named(newest)
    seen = _seen(views, "newest write failed", error)
    if error in _FULL:
        how = "no space is left on" if error == "ENOSPC" else "the quota is used up on"
        return result.unhealthy("full", f"{how} {what}", Action.FREE_SPACE, seen)
    if error == "EROFS":
        return _read_only(newest, seen)
    if error in _REFUSED:
        return _cannot(newest)
    return result.unhealthy(
        "write_error", f"a write to {what} failed: {error}", Action.INSPECT_HARDWARE, seen
    )


def _cannot(newest: Volume) -> RuleResult:
    message = f"the agent cannot write to {named(newest)}: {newest.write_error}"
    return result.unknown("cannot_write", message)


def _read_only(newest: Volume, seen: tuple[Evidence, ...]) -> RuleResult:
    what = named(newest)
    if newest.wrote or newest.read_only == "file_system":
        how = "made itself read-only" if newest.read_only == "file_system" else "has become read-only"
        return result.unhealthy("read_only", f"{what} {how}", Action.CORDON, seen)
    if newest.read_only != "mount":
        return _cannot(newest)  # neither is known: a read-only subvolume, or no mount table
    message = f"{what} is mounted read-only"
    return result.not_applicable("mounted_read_only", message, evidence=seen)


PROBE = DECLARED.volume_probe(_judge)
