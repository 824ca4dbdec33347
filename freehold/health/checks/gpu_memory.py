"""Does a GPU's memory lose bits, and can it still repair itself?

Uncorrectable errors and spent repairs are direct verdicts of the card on itself. Corrected errors are everyday; only very many, or far
more than the node's other GPUs have, say anything, and then early. A reading that a card does not have is no zero. It does
not read XIDs: gpu_xid does, and diagnosis puts them together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.judge.declaration import declared
from freehold.health.judge.gpus import REASONS, Fault, SeenGpu, judge_gpus, seen_gpus
from freehold.health.model.probe import Expected, Threshold
from freehold.health.model.view import View

DECLARED = declared(__name__)
PAGES_GROWING = DECLARED.limit("pages_growing")
OUTLIER_FACTOR = DECLARED.limit("outlier_factor")
OUTLIER_LEAST = DECLARED.limit("outlier_least")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """A reading, and from which value on it means what."""

    reading: str
    least: float
    verdict: Verdict
    reason: str
    words: str
    action: Action
    source: str


_LIMITS = (
    _Limit(
        reading="row_remap_failure",
        least=1,
        verdict=Verdict.UNHEALTHY,
        reason="row_remap_failure",
        words="a row could not be remapped: no spare is left for it",
        action=Action.REPLACE_HARDWARE,
        source="NVIDIA, GPU memory error management: the failure flag means RMA after field diagnostics; DCGM, gpud",
    ),
    _Limit(
        reading="sram_threshold_exceeded",
        least=1,
        verdict=Verdict.UNHEALTHY,
        reason="sram_threshold_exceeded",
        words="the driver says that its SRAM errors exceed the threshold",
        action=Action.REPLACE_HARDWARE,
        source="NVIDIA: the driver's own RMA threshold (nvmlEccSramErrorStatus.bThresholdExceeded)",
    ),
    _Limit(
        reading="ecc_sram_volatile_uncorrected",
        least=1,
        verdict=Verdict.UNHEALTHY,
        reason="uncorrectable_sram",
        words="uncorrectable errors in SRAM, which nothing remaps",
        action=Action.INSPECT_HARDWARE,
        source="AzNHC: any uncorrectable SRAM error fails the node",
    ),
    _Limit(
        reading="ecc_volatile_uncorrected",
        least=1,
        verdict=Verdict.UNHEALTHY,
        reason="uncorrectable_ecc",
        words="uncorrectable memory errors since the driver was loaded",
        action=Action.RESET_GPU,
        source="Meta GCM: any volatile uncorrectable error is critical",
    ),
    _Limit(
        reading="retired_pages",
        least=63,
        verdict=Verdict.UNHEALTHY,
        reason="too_many_retired_pages",
        words="retired memory pages, all that the card has room for",
        action=Action.REPLACE_HARDWARE,
        source="DCGM: 63 and more retired pages fail (cards up to Volta)",
    ),
    _Limit(
        reading="row_remap_pending",
        least=1,
        verdict=Verdict.DEGRADED,
        reason="row_remap_pending",
        words="a row waits to be remapped; the fault is contained until the next reset",
        action=Action.RESET_GPU,
        source="NVIDIA, GPU memory error management: a reset applies the remapping, the GPU stays usable until then",
    ),
    _Limit(
        reading="retired_pages_pending",
        least=1,
        verdict=Verdict.DEGRADED,
        reason="page_retirement_pending",
        words="a page waits to be retired at the next reset",
        action=Action.RESET_GPU,
        source="NVIDIA, dynamic page retirement: takes effect at the next driver load",
    ),
    _Limit(
        reading="row_remap_uncorrected",
        least=512,
        verdict=Verdict.DEGRADED,
        reason="many_remapped_rows",
        words="rows remapped for uncorrectable errors",
        action=Action.INSPECT_HARDWARE,
        source="DCGM and AzNHC: 512 uncorrectable remappings are a case for triage",
    ),
    _Limit(
        reading="row_remap_banks_none",
        least=1,
        verdict=Verdict.DEGRADED,
        reason="no_spare_rows",
        words="memory banks without a spare row: their next fault cannot be repaired",
        action=Action.WATCH,
        source="NVIDIA, GPU memory error management: row remapper histogram, availability none",
    ),
    _Limit(
        reading="ecc_dram_volatile_corrected",
        least=2e7,
        verdict=Verdict.DEGRADED,
        reason="many_corrected_errors",
        words="corrected DRAM errors since the driver was loaded",
        action=Action.WATCH,
        source="AzNHC: more than 2e7 corrected DRAM errors (Meta GCM: 5e7)",
    ),
    _Limit(
        reading="ecc_sram_volatile_corrected",
        least=1e4,
        verdict=Verdict.DEGRADED,
        reason="many_corrected_errors",
        words="corrected SRAM errors since the driver was loaded",
        action=Action.WATCH,
        source="AzNHC: more than 1e4 corrected SRAM errors",
    ),
)
_PAGES = ("retired_pages_corrected", "retired_pages_uncorrected")
NEEDS = (
    "ecc_mode",
    "ecc_volatile_uncorrected",
    "ecc_volatile_corrected",
    *(
        limit.reading
        for limit in _LIMITS
        if limit.reading not in {"retired_pages", "ecc_volatile_uncorrected"}
    ),
    *_PAGES,
)


def _value(gpu: SeenGpu, name: str) -> float | None:
    if name != "retired_pages":
        return gpu.value(name)
    pages = [value for part in _PAGES if (value := gpu.value(part)) is not None]
    return sum(pages) if pages else None


def _over_limits(gpu: SeenGpu) -> Iterable[Fault]:
    for limit in _LIMITS:
        value = _value(gpu, limit.reading)
        if value is not None and value >= limit.least:
            names = _PAGES if limit.reading == "retired_pages" else (limit.reading,)
            yield Fault(
                verdict=limit.verdict,
                reason=limit.reason,
                message=f"{value:g}: {limit.words}.",
                action=limit.action,
                evidence=tuple(gpu.evidence(name, baseline=f"below {limit.least:g}") for name in names),
            )


def _pages_growing(gpu: SeenGpu) -> Iterable[Fault]:
    pages, rise = gpu.value(_PAGES[1]), gpu.rise(_PAGES[1])
    if pages is not None and pages > PAGES_GROWING and rise is not None and rise.amount > 0:
        yield Fault(
            verdict=Verdict.UNHEALTHY,
            reason="pages_growing",
            message=f"{pages:g} pages are retired for double-bit errors, {rise.amount:g} more within the window.",
            action=Action.REPLACE_HARDWARE,
            evidence=(gpu.evidence(_PAGES[1]),),
        )


def _ecc_off(gpu: SeenGpu) -> Iterable[Fault]:
    if gpu.value("ecc_mode") == 0:
        yield Fault(
            verdict=Verdict.DEGRADED,
            reason="ecc_off",
            message="The card has ECC and it is switched off: wrong bits would go unseen.",
            action=Action.FIX_CONFIGURATION,
            evidence=(gpu.evidence("ecc_mode", baseline="1"),),
        )


def _outlier(gpu: SeenGpu, others: Sequence[float]) -> Iterable[Fault]:
    rise = gpu.rise("ecc_volatile_corrected")
    if rise is None or rise.amount < OUTLIER_LEAST or not others:
        return
    usual = median(others)
    if rise.amount < usual * OUTLIER_FACTOR:
        return
    shown = f"+{rise.amount:g} in {rise.seconds:.0f} s"
    yield Fault(
        verdict=Verdict.DEGRADED,
        reason="corrected_errors_outlier",
        message=f"{rise.amount:g} corrected errors in {rise.seconds:.0f} s; the node's other GPUs have {usual:g}.",
        action=Action.WATCH,
        evidence=(gpu.evidence("ecc_volatile_corrected", value=shown, baseline=f"+{usual:g} on the others"),),
    )


def check(views: Sequence[View], expected: Expected) -> Sequence[Finding]:
    """Return one finding per GPU."""
    rises = {gpu.component: gpu.rise("ecc_volatile_corrected") for gpu in seen_gpus(views)}

    def faults(gpu: SeenGpu) -> Iterable[Fault]:
        others = [rise.amount for name, rise in rises.items() if name != gpu.component and rise is not None]
        yield from _over_limits(gpu)
        yield from _pages_growing(gpu)
        yield from _ecc_off(gpu)
        yield from _outlier(gpu, others)

    return judge_gpus("gpu_memory", views, expected=expected, needs=NEEDS, faults=faults)


PROBE = DECLARED.probe(
    check,
    first=(
        *(
            Threshold(name=f"{limit.reading}_least", value=limit.least, source=limit.source)
            for limit in _LIMITS
        ),
    ),
    common=REASONS,
)
