"""Whether a watched volume has room left, in bytes and in inodes, and when it will be full at the rate it fills.

A rate counts only when both halves of the window fill, so that one download is not a forecast. How fast or sound the
disk is, other checks judge; nothing here reads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from freehold.core.findings import Action, Evidence
from freehold.core.units import format_duration
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.rule_result import RuleResult, worst_result
from freehold.health.judge.series import failed, number
from freehold.health.judge.storage import past_of
from freehold.health.model.view import State, View, Volume

DECLARED = declared(__name__)
WARN_SHARE = DECLARED.limit("warn_free_share")
WARN_BYTES = DECLARED.limit("warn_free_bytes")
BAD_SHARE = DECLARED.limit("bad_free_share")
BAD_BYTES = DECLARED.limit("bad_free_bytes")
FULL_BYTES = DECLARED.limit("full_bytes")
WARN_INODES_SHARE = DECLARED.limit("warn_inodes_share")
BAD_INODES_SHARE = DECLARED.limit("bad_inodes_share")
FULL_WITHIN_S = DECLARED.limit("full_within_s")
RATE_WINDOW_LEAST_S = DECLARED.limit("rate_window_least_s")


def _judge(views: Sequence[View], volume: Volume) -> RuleResult:
    total, free = number(volume.total_bytes), number(volume.free_bytes)
    if not total or free is None:
        why = volume.free_bytes.detail or volume.detail or volume.free_bytes.state
        return result.unknown("cannot_read", f"{volume.path} does not say how full it is: {why}")
    space = _bytes(volume.path, total, free)
    found = worst_result([space, *_inodes(volume), *_filling(views, volume.path)], space)
    share = Evidence(
        what="free space",
        value=f"{free / 1e9:.1f} GB ({free / total:.0%})",
        source="statvfs",
        at_s=views[-1].at_s,
        baseline=f"{total / 1e9:.1f} GB in all",
    )
    return replace(found, action=Action.FREE_SPACE if found.is_bad else Action.NONE, evidence=(share,))


def _bytes(path: str, total: float, free: float) -> RuleResult:
    share = free / total
    message = f"{path}: {free / 1e9:.1f} GB of {total / 1e9:.1f} GB are free ({share:.0%})"
    if free < FULL_BYTES or (share < BAD_SHARE and free < BAD_BYTES):
        return result.unhealthy("almost_full", message)
    if share < WARN_SHARE and free < WARN_BYTES:
        return result.degraded("low", message)
    return result.healthy("enough", message)


def _inodes(volume: Volume) -> Iterator[RuleResult]:
    total, free = number(volume.total_inodes), number(volume.free_inodes)
    rows = {"total_inodes": volume.total_inodes, "free_inodes": volume.free_inodes}
    bad = failed(rows, rows.keys())
    if bad:
        yield result.unknown("cannot_read", f"{volume.path}: could not be read: {', '.join(bad)}")
    if bad or not total or free is None:
        return
    message = f"{volume.path}: {free:.0f} of {total:.0f} inodes are free"
    if free / total < BAD_INODES_SHARE:
        yield result.unhealthy("inodes_almost_gone", message)
    elif free / total < WARN_INODES_SHARE:
        yield result.degraded("inodes_low", message)


def _filling(views: Sequence[View], path: str) -> Iterator[RuleResult]:
    """Yield when it is full at the slower of the rates of the window's halves."""
    points = [
        (view.monotonic_s, free)
        for view in views
        for volume in past_of([view], path)
        if volume.state is not State.HUNG
        if (free := number(volume.free_bytes)) is not None
    ]
    if len(points) < 3 or points[-1][0] - points[0][0] < RATE_WINDOW_LEAST_S:
        return
    middle_s = (points[0][0] + points[-1][0]) / 2
    middle = min(points[1:-1], key=lambda point: abs(point[0] - middle_s))
    rate = min(_rate(points[0], middle), _rate(middle, points[-1]))
    left_s = points[-1][1] / rate if rate > 0 else float("inf")
    if left_s > FULL_WITHIN_S:
        return
    message = f"{path} fills by {rate / 1e6:.1f} MB/s and is full in {format_duration(round(left_s, -1))}"
    yield result.degraded("filling", message)


def _rate(earlier: tuple[float, float], later: tuple[float, float]) -> float:
    """Return by how many bytes per second it fills; negative: it empties."""
    return (earlier[1] - later[1]) / max(later[0] - earlier[0], 1e-9)


PROBE = DECLARED.volume_probe(_judge)
