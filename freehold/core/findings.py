"""What a probe says of a node, and what diagnosis makes of it: the words that health, fleet and commands share.

No data is UNKNOWN, never HEALTHY: whoever adds findings up uses `worst`, which keeps that apart. Nothing here reads
or decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """One answer on one component, best first."""

    NOT_APPLICABLE = "not_applicable"  # there is no such thing here
    HEALTHY = "healthy"
    UNKNOWN = "unknown"  # it could not be read
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class Action(StrEnum):
    """What to do, gentlest first."""

    NONE = "none"
    WATCH = "watch"
    FIX_CONFIGURATION = "fix_configuration"
    FREE_SPACE = "free_space"
    RESTART_ENGINE = "restart_engine"
    DRAIN = "drain"  # at the next quiet hour
    RESET_GPU = "reset_gpu"  # after a drain
    REBOOT = "reboot"  # after a drain
    CHECK_CABLE = "check_cable"
    CHECK_FACILITY = "check_facility"  # power, cooling
    CORDON = "cordon"
    INSPECT_HARDWARE = "inspect_hardware"
    REPLACE_HARDWARE = "replace_hardware"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One thing that was seen."""

    what: str
    """In words, without the value: `row remap failure`."""
    value: str
    """With its unit: `1`, `82 ms`."""
    source: str
    """Where it was read: `nvml`, `kernel log`, `/proc/pressure/io`, `engine metrics`."""
    at_s: float
    """Unix seconds."""
    baseline: str = ""
    """What is normal, or what it was before; empty: nothing to compare with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One probe's answer on one component of one node."""

    probe: str
    component: str
    """`gpu:UUID`, `disk:/path`, `storage:/path` (of another machine or a program), `peer:NAME`, `link:eth0`, `engine:REPLICA`, `driver`, `memory`, `clock`."""
    verdict: Verdict
    reason: str
    """A stable word for scripts and metrics, from the probe's own list: `row_remap_failure`."""
    message: str
    """A sentence for people, with the figures."""
    action: Action = Action.NONE
    evidence: tuple[Evidence, ...] = ()
    at_s: float = 0.0
    """Unix seconds of the reading that decided it."""
    node: str = ""


_ORDER = {verdict: index for index, verdict in enumerate(Verdict)}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of them; of none at all UNKNOWN. NOT_APPLICABLE counts only where there is nothing else."""
    return max(verdicts, key=_ORDER.__getitem__, default=Verdict.UNKNOWN)
