"""Read what each sign says of the cause of an incident: weights, tiers, sources. The facts stand in `data/evidence.yaml`.

Nothing here weighs: see `freehold.health.evidence.scoring`. The file is part of the package, so a mistake in it is ours: it raises.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any

import msgspec

from freehold.catalog.load_xids import fact_file, xids
from freehold.core.findings import Action
from freehold.core.own_files import read_own

BY_WORDS, THERMAL = "words", "thermal"
"""Instead of a sign: the finding's words say it, or how many GPUs are hot."""
_FILE = "data/health/evidence.yaml"


class Hypothesis(StrEnum):
    """What may have caused an incident."""

    HARDWARE = "hardware"
    SOFTWARE = "software"
    DRIVER = "driver"
    FACILITY = "facility"
    NETWORK = "network"
    STORAGE = "storage"
    CONFIGURATION = "configuration"
    UNDETERMINED = "undetermined"


class Tier(StrEnum):
    """What goes before in the search for the primary cause, first to last."""

    MEMORY = "memory"
    BUS = "bus"
    FIRMWARE = "firmware"
    DRIVER = "driver"
    LINK = "link"
    STORAGE = "storage"
    NETWORK = "network"
    APP = "app"
    CONFIG = "config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """One kind of thing that can be seen in an incident, and what it says."""

    name: str
    what: str
    """In words, without a value."""
    tier: Tier
    weights: Mapping[Hypothesis, float] = field(compare=False)
    """Log-odds, nats: positive supports, negative speaks against; a hypothesis that is not there: nothing."""
    action: Action
    """The first step when this is the primary cause."""
    source: str
    changes: str
    """What would speak against it, if it were seen next."""
    direct: Hypothesis | None = None
    """It decides alone, without weighing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceTable:
    """The whole table."""

    as_of: str
    signs: Mapping[str, Sign]
    findings: Mapping[tuple[str, str], str]
    """Probe and reason of a bad finding of ours to the name of a sign, `BY_WORDS` or `THERMAL`; empty: deliberately none."""


@cache
def load_evidence() -> EvidenceTable:
    """Return the table. Raises ValueError where the file is not as it must be."""
    data = read_own("freehold.catalog", _FILE, dict[str, Any])
    signs = {row["name"]: msgspec.convert(row, Sign) for row in data["signs"]}
    unknown = {fact.sign for fact in xids().values()} - signs.keys() - {""}
    findings = _findings()
    unknown |= set(findings.values()) - signs.keys() - {"", BY_WORDS, THERMAL}
    if unknown or len(signs) != len(data["signs"]):
        raise ValueError(f"{_FILE}: unknown or double signs {sorted(unknown)}")
    return EvidenceTable(as_of=data["as_of"], signs=signs, findings=findings)


def _findings() -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for probe, reasons, sign, why in fact_file("evidence_findings").rows:
        for reason in reasons.split(","):
            key = (probe, reason.strip())
            if key in found or bool(sign) == bool(why):
                raise ValueError(
                    f"evidence_findings.yaml: {key} stands twice, or has not one of a sign and a reason for none"
                )
            found[key] = sign
    return found
