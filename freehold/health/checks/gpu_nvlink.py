"""Are a GPU's NVLinks up, and free of errors?

How many links a card uses depends on the board: a card without bridges has none up and is not broken. So a link counts as down when
it was up before in the window, or when other GPUs of the same model have more; a card that has none at all while they do may
lack a bridge, and is only told. It decodes no XID 74 registers: diagnosis does.
"""

from collections.abc import Iterable, Sequence

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.judge.gpus import REASONS, Fault, SeenGpu, judge_gpus, number
from freehold.health.model.probe import Expected, Probe, Threshold
from freehold.health.model.view import View

ERRORS_LEAST = 1.0
"""Replays or recoveries within the window. Source: DCGM's health watch warns on any."""
CRC_PER_S = 100.0
"""CRC errors a second. Source: DCGM's health watch."""
NEEDS = (
    "nvlink_up",
    "nvlink_replay_errors",
    "nvlink_recovery_errors",
    "nvlink_crc_errors",
    "nvlink_link_recoveries",
    "nvlink_failed_recoveries",
)


def _down(gpu: SeenGpu) -> Iterable[Fault]:
    up, before = gpu.value("nvlink_up"), max(gpu.values("nvlink_up"), default=0.0)
    usual = max([before, *_others(gpu)])
    if up is None or up >= usual:
        return
    shown = (gpu.evidence("nvlink_up", baseline=f"{usual:g}"), gpu.evidence("nvlink_down"))
    if before == 0:
        message = f"No NVLink is up where other GPUs of its kind have {usual:g}: it has no bridge, or all of them are down."
        yield Fault(
            verdict=Verdict.DEGRADED,
            reason="no_links",
            message=message,
            action=Action.CHECK_CABLE,
            evidence=shown,
        )
        return
    yield Fault(
        verdict=Verdict.UNHEALTHY,
        reason="link_down",
        message=f"{up:g} NVLinks are up where {usual:g} were or the other GPUs have; down: {gpu.said('nvlink_down')}.",
        action=Action.INSPECT_HARDWARE,
        evidence=shown,
    )


def _others(gpu: SeenGpu) -> list[float]:
    """Return how many links are up on the node's other GPUs of the same model; another model has another number of them."""
    same = (other for other in gpu.siblings if other.name == gpu.gpu.name)
    return [value for other in same if (value := number(other, "nvlink_up")) is not None]


def _errors(gpu: SeenGpu) -> Iterable[Fault]:
    for name, verdict in (
        ("nvlink_failed_recoveries", Verdict.UNHEALTHY),
        ("nvlink_recovery_errors", Verdict.DEGRADED),
        ("nvlink_replay_errors", Verdict.DEGRADED),
        ("nvlink_link_recoveries", Verdict.DEGRADED),
    ):
        rise = gpu.rise(name)
        if rise is not None and rise.amount >= ERRORS_LEAST:
            yield _fault(gpu, name, verdict, f"+{rise.amount:g} in {rise.seconds:.0f} s")


def _crc(gpu: SeenGpu) -> Iterable[Fault]:
    rise = gpu.rise("nvlink_crc_errors")
    if rise is not None and rise.per_s >= CRC_PER_S:
        yield _fault(gpu, "nvlink_crc_errors", Verdict.DEGRADED, f"{rise.per_s:.0f} a second")


def _fault(gpu: SeenGpu, name: str, verdict: Verdict, shown: str) -> Fault:
    reason = name.removeprefix("nvlink_")
    return Fault(
        verdict=verdict,
        reason=reason,
        message=f"NVLink {reason.replace('_', ' ')}: {shown}.",
        action=Action.CHECK_CABLE if verdict is Verdict.DEGRADED else Action.INSPECT_HARDWARE,
        evidence=(gpu.evidence(name, value=shown, baseline="+0"),),
    )


def _faults(gpu: SeenGpu) -> Iterable[Fault]:
    yield from _down(gpu)
    yield from _errors(gpu)
    yield from _crc(gpu)


def check(views: Sequence[View], expected: Expected) -> Sequence[Finding]:
    """Return one finding per GPU."""
    return judge_gpus("gpu_nvlink", views, expected=expected, needs=NEEDS, faults=_faults)


PROBE = Probe(
    name="gpu_nvlink",
    summary="Whether each GPU's NVLinks are up and free of errors.",
    reads=("gpus",),
    window_s=3600.0,
    reasons={
        **REASONS,
        "link_down": "An NVLink is down that was up, or that the other GPUs have. Drain the node, reset its GPUs, then inspect card and bridge.",
        "no_links": "Other GPUs of this model have NVLinks and this one has none. Look for its bridge; on a board without bridges drain the node and reset its GPUs.",
        "failed_recoveries": "A link could not recover. Drain the node and inspect card, bridge or switch.",
        "recovery_errors": "A link had to recover. Watch it; reseat bridge or cable if it repeats.",
        "replay_errors": "A link repeated packets. Watch it; reseat bridge or cable if it repeats.",
        "link_recoveries": "A link went down and recovered. Watch it; reseat bridge or cable if it repeats.",
        "crc_errors": "A link has very many CRC errors. Reseat bridge or cable.",
    },
    thresholds=(
        Threshold(name="errors_least", value=ERRORS_LEAST, source="DCGM: any replay or recovery warns"),
        Threshold(name="crc_per_s", value=CRC_PER_S, source="DCGM: 100 CRC errors a second"),
    ),
    check=check,
)
