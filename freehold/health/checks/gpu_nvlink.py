"""Are a GPU's NVLinks up, and free of errors?

How many links a card uses depends on the board: a card without bridges has none up and is not broken. So a link counts as down when
it was up before in the window, or when other GPUs of the same model have more; a card that has none at all while they do may
lack a bridge, and is only told. It decodes no XID 74 registers: diagnosis does.
"""

from collections.abc import Iterable, Sequence

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.judge.declaration import declared
from freehold.health.judge.gpus import REASONS, Fault, SeenGpu, judge_gpus, number
from freehold.health.model.probe import Expected
from freehold.health.model.view import View

DECLARED = declared(__name__)
ERRORS_LEAST = DECLARED.limit("errors_least")
CRC_PER_S = DECLARED.limit("crc_per_s")

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


PROBE = DECLARED.probe(check, common=REASONS)
