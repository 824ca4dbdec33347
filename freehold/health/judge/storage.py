"""What checks on watched volumes share: the component, the device's queue, and the findings where there is no volume.

A file system over the network, or in user space, has no disk of this node: a finding that names one would send the operator to the
wrong machine. Nothing here reads, or judges a volume.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence

from freehold.core.findings import Evidence, Finding
from freehold.health.judge import rule_result as result
from freehold.health.judge.rule_result import RuleResult
from freehold.health.judge.series import number
from freehold.health.model.view import View, Volume


def judge_volumes(
    probe: str, views: Sequence[View], judge: Callable[[Sequence[View], Volume], RuleResult]
) -> list[Finding]:
    """Return one finding per watched volume, or the one that says why there is none."""
    newest = views[-1].volumes
    if newest is None:
        nothing = result.unknown("not_read", "the volumes were not read")
    elif not newest:
        nothing = result.not_applicable("no_volumes", "no volume is watched")
    else:
        return [judge(views, volume).finding(probe, component_of(volume), views[-1]) for volume in newest]
    return [nothing.finding(probe, "disk", views[-1])]


def past_of(views: Sequence[View], path: str) -> list[Volume]:
    """Return one volume in each view that has it, oldest first."""
    return [volume for view in views for volume in view.volumes or () if volume.path == path]


def component_of(volume: Volume) -> str:
    """Return `disk:PATH`, or `storage:PATH` where another machine or a program answers."""
    return f"{'storage' if is_elsewhere(volume) else 'disk'}:{volume.path}"


def is_elsewhere(volume: Volume) -> bool:
    """Return whether no disk of this node is behind it."""
    return volume.user_space or volume.network


def named(volume: Volume) -> str:
    """Return what it is, for a message: `/srv/models (network storage: nfs4 of 10.0.0.1:/export)`, of a disk the path alone."""
    if not is_elsewhere(volume):
        return volume.path
    what = "network storage" if volume.network else "storage behind a program"
    of = f" of {volume.source}" if volume.source else ""
    return f"{volume.path} ({what}: {volume.file_system}{of})"


def queue_of(volumes: Iterable[Volume]) -> float | None:
    """Return the median of the requests under way at the device; None: not known."""
    return median_of(number(volume.device_queue) for volume in volumes)


def queue_evidence(volumes: Iterable[Volume], at_s: float) -> tuple[Evidence, ...]:
    """Return the device's queue as evidence; empty where it is not known."""
    queue = queue_of(volumes)
    if queue is None:
        return ()
    what = "requests under way at the device, mean"
    return (
        Evidence(what=what, value=f"{queue:.2g}", source="/sys/dev/block", at_s=at_s, baseline="under 1"),
    )


def median_of(values: Iterable[float | None]) -> float | None:
    """Return the median of those that are known; None: none is."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def milliseconds(value_s: float) -> str:
    """Return a short time as text: `0.264 ms`, `1.20 s`."""
    return f"{value_s * 1000:.3g} ms" if value_s < 1 else f"{value_s:.2f} s"
