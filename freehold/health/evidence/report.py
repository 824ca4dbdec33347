"""The signs as evidence that people and scripts read: one entry per sign and component, with value, baseline and source.

Where sources contradict each other on an XID, both sides are shown. Nothing here weighs or decides.
"""

from collections.abc import Iterable, Sequence

from freehold.catalog.load_xids import xid
from freehold.core.findings import Evidence
from freehold.health.evidence.scoring import RECOVERY, SeenSign


def changes(items: Sequence[SeenSign]) -> str:
    """Return what would speak against these signs."""
    return "; ".join(dict.fromkeys(item.sign.changes for item in items))


_EVIDENCE_MOST = 30
"""Entries of evidence that are shown. Source: our own choice: what a person reads."""


def evidence(items: Sequence[SeenSign]) -> tuple[Evidence, ...]:
    """Return evidence, one entry per sign and component however often it was seen, strongest first as they come."""
    groups: dict[tuple[str, str, int | None], list[SeenSign]] = {}
    for item in items:
        groups.setdefault((item.sign.name, item.component, item.number), []).append(item)
    return tuple(
        _evidence(min(group, key=lambda i: i.at_s), len(group))
        for group in list(groups.values())[:_EVIDENCE_MOST]
    )


def _evidence(item: SeenSign, times: int) -> Evidence:
    what = f"{item.sign.what} ({item.component})" if item.component else item.sign.what
    return Evidence(
        what=what, value=(item.value or "seen") + (f" ({times} times)" if times > 1 else ""), source=f"{item.source}; rule: {item.sign.source}",
        at_s=item.at_s, baseline=item.baseline,
    )  # fmt: skip


def disagreement(seen: Iterable[SeenSign]) -> tuple[Evidence, ...]:
    """Return, for each XID that sources contradict each other on, what they say."""
    numbers = sorted(
        {item.number for item in seen if item.number is not None and item.sign.name not in RECOVERY}
    )
    facts = [xid(number) for number in numbers]
    return tuple(
        Evidence(
            what=f"sources disagree on XID {fact.number}",
            value=fact.disagreement,
            source="catalog, xids.yaml",
            at_s=0.0,
        )
        for fact in facts
        if fact.disputed
    )
