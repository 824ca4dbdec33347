"""Does a GPU's memory lose bits, and can it still repair itself?

Uncorrectable errors and spent repairs are direct verdicts of the card on itself. Corrected errors are everyday; they count only if there are
very many, or far more than on the node's other GPUs. A reading that a card does not have is not zero. The check does
not read XIDs: gpu_xid does, and diagnosis combines them.
"""

from collections.abc import Iterable
from statistics import median

from freehold.core.findings import Action
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.gpus import GpuWindow, gpu_windows
from freehold.health.judge.rule_result import RuleResult

DECLARED = declared(__name__)
PAGES_GROWING = DECLARED.limit("pages_growing")
OUTLIER_FACTOR = DECLARED.limit("outlier_factor")
OUTLIER_LEAST = DECLARED.limit("outlier_least")


_DOUBLE_BIT = "retired_pages_uncorrected"


def _pages_growing(gpu: GpuWindow) -> Iterable[RuleResult]:
    pages, rise = gpu.value(_DOUBLE_BIT), gpu.rise(_DOUBLE_BIT)
    if pages is not None and pages > PAGES_GROWING and rise is not None and rise.amount > 0:
        yield result.unhealthy(
            "pages_growing",
            f"{pages:g} pages are retired for double-bit errors, {rise.amount:g} more within the window.",
            Action.REPLACE_HARDWARE,
            (gpu.evidence(_DOUBLE_BIT),),
        )


def _outlier(gpu: GpuWindow) -> Iterable[RuleResult]:
    rise = gpu.rise("ecc_volatile_corrected")
    if rise is None or rise.amount < OUTLIER_LEAST:
        return
    rises = {one.component: one.rise("ecc_volatile_corrected") for one in gpu_windows(gpu.views)}
    others = [one.amount for name, one in rises.items() if name != gpu.component and one is not None]
    if not others or rise.amount < (usual := median(others)) * OUTLIER_FACTOR:
        return
    shown = f"+{rise.amount:g} in {rise.seconds:.0f} s"
    yield result.degraded(
        "corrected_errors_outlier",
        f"{rise.amount:g} corrected errors in {rise.seconds:.0f} s; the node's other GPUs have {usual:g}.",
        Action.WATCH,
        (gpu.evidence("ecc_volatile_corrected", value=shown, baseline=f"+{usual:g} on the others"),),
    )


PROBE = DECLARED.gpu_probe(DECLARED.past_limits, _pages_growing, _outlier)
