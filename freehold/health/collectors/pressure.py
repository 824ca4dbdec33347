"""Pressure stall information: how long tasks have waited for a resource, as the kernel counts it since boot.

Source: kernel Documentation/accounting/psi.rst. `some`: at least one task waited; `full`: all that were not idle did. Waits in
user-space file systems are not in it (their readers sleep, state S). Only read here, never judged.
"""

import re
from pathlib import Path

from freehold.health.model.view import Reading, State

_TOTAL = re.compile(r"^(some|full) .*total=(\d+)", re.MULTILINE)


def pressure_s(resource: str, root: Path) -> dict[str, Reading]:
    """Return `some` and `full`, seconds stalled since boot, of `io` or `memory`; UNSUPPORTED without PSI."""
    try:
        text = (root / "proc/pressure" / resource).read_text()
    except OSError as exc:
        # ENOENT: built without PSI; EOPNOTSUPP: switched off at boot (psi=0)
        missing = Reading(state=State.UNSUPPORTED, detail=f"no pressure stall information: {exc.strerror}")
        return {"some": missing, "full": missing}
    found = {kind: Reading(value=int(total) / 1e6) for kind, total in _TOTAL.findall(text)}
    unread = Reading(state=State.UNKNOWN, detail="not in the kernel's file")
    return {"some": found.get("some", unread), "full": found.get("full", unread)}


def grown(before: Reading | None, now: Reading) -> Reading:
    """Return how much a count grew between two looks; TRANSIENT on the first look and where it went back."""
    if not isinstance(now.value, int | float):
        return now
    if before is None or not isinstance(before.value, int | float) or now.value < before.value:
        return Reading(state=State.TRANSIENT, detail="first look")
    return Reading(value=now.value - before.value)
