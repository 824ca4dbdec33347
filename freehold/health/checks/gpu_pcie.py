"""Has a GPU the PCIe link that it should have, and does the link repeat itself?

A narrow link is always a fault; a slow one only while the card works, for an idle link saves power in generation 1. Replays
are judged by what a healthy link's bit error rate allows. It reads no AER lines: those are in the kernel log.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.judge.gpus import REASONS, Fault, SeenGpu, judge_gpus, number
from freehold.health.model.probe import Expected, Probe, Threshold
from freehold.health.model.view import Gpu, View

REPLAYS_PER_LANE_MINUTE: Mapping[int, float] = {1: 0.15, 2: 0.3, 3: 0.48, 4: 0.96, 5: 1.92, 6: 3.84}
"""By generation, at a bit error rate of 1e-12, times the lanes and rounded up. Source: DCGM's health watch."""
LOADED_PERCENT = 50.0
"""Utilisation from which the link is not resting. Our own choice; DCGM and NVIDIA say `under load`."""
LOADED_LOOKS = 3
"""Looks in a row, so that a link that is just waking is not blamed. Our own choice."""
REPLAY_WINDOW_S = 60.0
"""Least time that a rate per minute is judged over: the rate's own unit."""
NEEDS = (
    "pcie_width",
    "pcie_width_max",
    "pcie_gen",
    "pcie_gen_max",
    "pcie_replays",
    "pcie_fatal_errors",
    "pcie_non_fatal_errors",
)


def replays_allowed_per_minute(generation: int, lanes: int) -> int | None:
    """Return how many replays a minute a healthy link may have, or None for a generation that is not known."""
    per_lane = REPLAYS_PER_LANE_MINUTE.get(generation)
    return None if per_lane is None else math.ceil(per_lane * lanes)


def _narrow(gpu: SeenGpu) -> Iterable[Fault]:
    width, most = gpu.value("pcie_width"), gpu.value("pcie_width_max")
    if width is None or most is None or width >= most:
        return
    yield Fault(
        verdict=Verdict.DEGRADED,
        reason="narrow_link",
        message=f"The PCIe link is x{width:g}, the card and slot can x{most:g}.",
        action=Action.INSPECT_HARDWARE,
        evidence=(gpu.evidence("pcie_width", baseline=f"{most:g}"),),
    )


def _is_slow(gpu: Gpu) -> bool:
    generation, most = number(gpu, "pcie_gen"), number(gpu, "pcie_gen_max")
    busy = number(gpu, "utilisation_percent")
    return (
        generation is not None
        and most is not None
        and busy is not None
        and busy >= LOADED_PERCENT
        and generation < most
    )


def _slow(gpu: SeenGpu) -> Iterable[Fault]:
    looks = [one for _, one in gpu.past][-LOADED_LOOKS:]
    if len(looks) < LOADED_LOOKS or not all(_is_slow(one) for one in looks):
        return
    yield Fault(
        verdict=Verdict.DEGRADED,
        reason="slow_link",
        message=f"Under load the PCIe link is generation {gpu.said('pcie_gen')} of {gpu.said('pcie_gen_max')}.",
        action=Action.INSPECT_HARDWARE,
        evidence=(
            gpu.evidence("pcie_gen", baseline=gpu.said("pcie_gen_max")),
            gpu.evidence("utilisation_percent"),
        ),
    )


def _replays(gpu: SeenGpu) -> Iterable[Fault]:
    rise = gpu.rise("pcie_replays")
    generation, lanes = gpu.value("pcie_gen_max"), gpu.value("pcie_width")
    if rise is None or rise.seconds < REPLAY_WINDOW_S or generation is None or lanes is None:
        return
    allowed = replays_allowed_per_minute(int(generation), int(lanes))
    per_minute = rise.per_s * 60
    if allowed is None or per_minute <= allowed:
        return
    shown = f"+{rise.amount:g} in {rise.seconds:.0f} s"
    yield Fault(
        verdict=Verdict.DEGRADED,
        reason="replays",
        message=f"{per_minute:.0f} PCIe replays a minute; a healthy link of generation {generation:g} x{lanes:g} has at most {allowed}.",
        action=Action.INSPECT_HARDWARE,
        evidence=(gpu.evidence("pcie_replays", value=shown, baseline=f"{allowed} a minute"),),
    )


def _errors(gpu: SeenGpu) -> Iterable[Fault]:
    for name, verdict in (
        ("pcie_fatal_errors", Verdict.UNHEALTHY),
        ("pcie_non_fatal_errors", Verdict.DEGRADED),
    ):
        rise = gpu.rise(name)
        if rise is not None and rise.amount > 0:
            shown = f"+{rise.amount:g} in {rise.seconds:.0f} s"
            yield Fault(
                verdict=verdict,
                reason=name.removeprefix("pcie_"),
                message=f"Uncorrectable PCIe errors: {name.removeprefix('pcie_').replace('_', ' ')} {shown}.",
                action=Action.INSPECT_HARDWARE,
                evidence=(gpu.evidence(name, value=shown, baseline="+0"),),
            )


def _faults(gpu: SeenGpu) -> Iterable[Fault]:
    yield from _errors(gpu)
    yield from _narrow(gpu)
    yield from _slow(gpu)
    yield from _replays(gpu)


def check(views: Sequence[View], expected: Expected) -> Sequence[Finding]:
    """Return one finding per GPU."""
    return judge_gpus("gpu_pcie", views, expected=expected, needs=NEEDS, faults=_faults)


PROBE = Probe(
    name="gpu_pcie",
    summary="Whether each GPU's PCIe link has its width, its speed under load, and few replays.",
    reads=("gpus",),
    window_s=600.0,
    reasons={
        **REASONS,
        "narrow_link": "The link lost lanes. Reseat the card or riser; check the slot.",
        "slow_link": "Under load the link does not reach its generation. Reseat the card or riser; check the BIOS setting.",
        "replays": "The link repeats more than its bit error rate allows. Reseat the card or riser.",
        "fatal_errors": "Fatal PCIe errors were counted. Drain the node and inspect card and slot.",
        "non_fatal_errors": "Uncorrectable PCIe errors were counted. Watch the link; inspect it at the next drain.",
    },
    thresholds=(
        *(
            Threshold(
                name=f"replays_per_lane_minute_gen{generation}",
                value=rate,
                source="DCGM: bit error rate 1e-12",
            )
            for generation, rate in REPLAYS_PER_LANE_MINUTE.items()
        ),
        Threshold(
            name="loaded_percent", value=LOADED_PERCENT, source="our own choice of what `under load` means"
        ),
        Threshold(
            name="loaded_looks", value=LOADED_LOOKS, source="our own choice: a link that wakes takes a moment"
        ),
        Threshold(name="replay_window_s", value=REPLAY_WINDOW_S, source="the unit of DCGM's rate"),
    ),
    check=check,
    confirm=2,
)
