"""Whether the node, or the container that the agent is in, runs out of memory, or its memory modules err.

Judged by what tasks waited for (PSI) and by what the kernel killed, not by how much is used: page cache makes every healthy server
look full. Corrected errors are evidence and no verdict; a single one means nothing. Nothing here reads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from freehold.core.findings import Action, Evidence
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.rule_result import RuleResult, worst_result
from freehold.health.judge.series import failed, growth, named
from freehold.health.model.view import Host, View

DECLARED = declared(__name__)
LOW_SHARE = DECLARED.limit("low_share")
BAD_BYTES = DECLARED.count("bad_bytes")
STALLED_WARN_SHARE = DECLARED.limit("stalled_warn_share")
STALLED_BAD_SHARE = DECLARED.limit("stalled_bad_share")
STALLED_LEAST_S = DECLARED.limit("stalled_least_s")


_JUDGED = ("total_bytes", "available_bytes", "limit_available_bytes", "pressure_full_s", "oom_kills")


def _judge(views: Sequence[View], host: Host) -> RuleResult:
    found = [*_errors(views, host), *_kills(views), *_stalled(views), *_left(host)]
    return replace(worst_result(found, _quiet(host)), evidence=tuple(_evidence(host, views[-1].at_s)))


def _quiet(host: Host) -> RuleResult:
    if named(host.memory, "available_bytes") is None:
        return result.unknown("cannot_read", "how much memory is available could not be read")
    if bad := failed(host.memory, _JUDGED):
        return result.unknown("cannot_read", f"could not be read: {', '.join(bad)}")
    return result.healthy("enough", _share(host))


def _grew(views: Sequence[View], pick: Callable[[Host], float | None]) -> tuple[float, float]:
    """Return by how much and in how many seconds; 0 and 0 where too little was read."""
    return growth((view.monotonic_s, pick(view.host) if view.host else None) for view in views) or (0.0, 0.0)


def _errors(views: Sequence[View], host: Host) -> Iterator[RuleResult]:
    count = host.edac.get("ue_count", 0)
    grown, _ = _grew(views, lambda host: host.edac.get("ue_count"))
    if grown:
        message = f"{grown:.0f} uncorrected memory errors just now, {count} since boot"
        yield result.unhealthy("uncorrected_error", message, Action.REPLACE_HARDWARE)
    elif count:
        message = f"{count} uncorrected memory errors since boot"
        yield result.degraded("uncorrected_error_before", message, Action.INSPECT_HARDWARE)


def _kills(views: Sequence[View]) -> Iterator[RuleResult]:
    kills, _ = _grew(views, lambda host: named(host.memory, "oom_kills"))
    if kills:
        message = f"the kernel killed {kills:.0f} processes for want of memory"
        yield result.degraded("oom_kill", message, Action.WATCH)


def _stalled(views: Sequence[View]) -> Iterator[RuleResult]:
    stalled_s, elapsed_s = _grew(views, lambda host: named(host.memory, "pressure_full_s"))
    if elapsed_s < STALLED_LEAST_S:
        return
    share = stalled_s / elapsed_s
    message = f"all tasks waited for memory {share:.0%} of the last {elapsed_s:.0f} s"
    if share >= STALLED_BAD_SHARE:
        yield result.unhealthy("stalled", message, Action.DRAIN)
    elif share >= STALLED_WARN_SHARE:
        yield result.degraded("stalled", message, Action.WATCH)


def _left(host: Host) -> Iterator[RuleResult]:
    for available_name, total_name, of in (_MACHINE, _CGROUP):
        available, total = named(host.memory, available_name), named(host.memory, total_name)
        if available is None or not total:
            continue
        message = f"{available / 1e9:.1f} GB of {total / 1e9:.1f} GB {of} are available"
        if available < BAD_BYTES:
            yield result.unhealthy("almost_gone", message, Action.DRAIN)
        elif available / total < LOW_SHARE:
            yield result.degraded("low", message, Action.FIX_CONFIGURATION)


_MACHINE = ("available_bytes", "total_bytes", "of memory")
_CGROUP = ("limit_available_bytes", "limit_bytes", "that a cgroup (container, service) may use")


def _share(host: Host) -> str:
    available = named(host.memory, "available_bytes") or 0.0
    total = named(host.memory, "total_bytes")
    of = f" of {total / 1e9:.1f} GB" if total else ""
    return f"{available / 1e9:.1f} GB{of} of memory are available"


def _evidence(host: Host, at_s: float) -> Iterator[Evidence]:
    rows = (
        ("available memory", "available_bytes", "/proc/meminfo"),
        ("available below the cgroup's limit", "limit_available_bytes", "/sys/fs/cgroup"),
        ("swap in use", "swap_used_bytes", "/proc/meminfo"),
        ("stalled on memory since boot, all tasks", "pressure_full_s", "/proc/pressure/memory"),
        ("processes killed for want of memory since boot", "oom_kills", "/proc/vmstat"),
    )
    for what, name, source in rows:
        value = named(host.memory, name)
        if value is not None:
            unit = {"bytes": " B", "s": " s"}.get(name.rpartition("_")[2], "")
            yield Evidence(what=what, value=f"{value:.10g}{unit}", source=source, at_s=at_s)
    for name, count in host.edac.items():
        yield Evidence(what=f"memory errors since boot ({name})", value=str(count), source="edac", at_s=at_s)


PROBE = DECLARED.host_probe("memory", _judge)
