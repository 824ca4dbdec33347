"""A probe: one question on a node, answered from its views alone. One `PROBE` per file in freehold/health/checks.

A probe is pure: it gets the recent views, newest last, and returns findings; the runner owns loop, jitter, deadlines,
hysteresis and metrics, the readers own the world. Nothing here runs or reads. So a recording replays through the same code. The contract kit
`freehold.testing.check_probe` runs on every file.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from freehold.core.findings import Finding
from freehold.health.model.view import View

Part = Literal["gpus", "kernel", "volumes", "network", "engines", "host"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A number that a probe judges by."""

    name: str
    """Unit last."""
    value: float
    source: str
    """Who says so: a document, a peer's default, a measurement, or `our own choice` and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What this node should have, from the lock or the configuration; None: not configured, so nothing is compared.

    It stands in an agent's settings and in the head of a recording, so new fields have a default.
    """

    gpus: int | None = None
    gpu_model: str | None = None
    """Words that are all in each GPU's name, whatever their case: `H100`, or the whole name."""
    driver_version: str | None = None
    rdma_ports: tuple[str, ...] | None = None
    """`DEVICE` or `DEVICE/PORT`."""
    link_mbit_s: Mapping[str, int] = field(default_factory=dict)
    """By interface."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One probe; its name is its file's, its YAML key's, its command-line word and its metric label."""

    name: str
    summary: str
    """A sentence: what it sees and why that matters."""
    reads: tuple[Part, ...]
    """The parts of a view that it needs; the first one must be in the newest view, or the probe is not asked; without any of them it says UNKNOWN or NOT_APPLICABLE, never HEALTHY."""
    window_s: float
    """How far back it looks."""
    newest: tuple[Part, ...] = ()
    """Those of `reads` of which it wants the newest reading alone: they are not kept for its window."""
    reasons: Mapping[str, str]
    """Every `Finding.reason` that it can give: what it means, and after the first colon or sentence what to do."""
    thresholds: tuple[Threshold, ...]
    check: Callable[[Sequence[View], Expected], Sequence[Finding]]
    """Views of the window, oldest first and at least one; one finding per component, at least one in all."""
    confirm: int = 1
    """Looks in a row that must agree before a worse verdict is believed; direct verdicts say 1. Hysteresis is the runner's."""
    clear: int = 3
    """Looks in a row that must be better before it is believed."""

    def what_to_do(self, reason: str) -> str:
        """Return the instruction in a reason's text, which stands after its first colon or sentence; empty: there is none."""
        _meaning, *rest = re.split(r": |\. ", self.reasons.get(reason, ""), maxsplit=1)
        text = rest[0] if rest else ""
        return "" if text.lower().startswith("nothing to do") else text
