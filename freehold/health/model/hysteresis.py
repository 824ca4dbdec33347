"""Hysteresis of findings: a worse verdict settles after `confirm` looks that agree, a better one after `clear`. Pure.

Each component of each probe is settled by itself. What could not be read is said at once where nothing bad was known, and
clears nothing where something was: a GPU that cannot be read any more is not well again. A verdict that no look has given
for a while is stale: UNKNOWN, and forgotten after that. It knows no clock, no probe's reasons and no view.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.model.probe import Probe

UNCONFIRMED = "unconfirmed"
"""The reason of what looks bad and has not been seen often enough; no probe may use it."""
STALE = "stale"
"""The reason of what was not looked at for too long."""
STALE_LOOKS = 3
"""Looks of a probe that a component may be missing from, or that may fail, before its verdict is stale. Source: our
own choice; the same as `clear`'s default: one look may go wrong, three do not by chance."""
FORGET_LOOKS = 30
"""Looks after which a component that is never mentioned again is forgotten: a replica that was taken away. Source: our own
choice; five minutes at one look in 10 s."""
_ORDER = {verdict: index for index, verdict in enumerate(Verdict)}
_CALM = frozenset({Verdict.NOT_APPLICABLE, Verdict.HEALTHY, Verdict.UNKNOWN})

Key = tuple[str, str]
"""Probe and component."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledState:
    """The settled state of one component."""

    believed: Finding
    since_s: float
    """Unix seconds since when the verdict is this one."""
    looks: tuple[Finding, ...] = ()
    """Newest looks in a row that differ from the believed verdict in one direction, oldest first."""
    missed: int = 0
    """Looks in a row in which it was not mentioned."""


def settle(held: SettledState | None, look: Finding, *, probe: Probe, now_s: float) -> SettledState:
    """Return the state after one more look."""
    if held is None:
        return _first(look, probe, now_s)
    before = held.believed
    if before.verdict in _CALM:
        return _from_calm(held, look, probe, now_s)
    if look.verdict is Verdict.UNKNOWN:
        return replace(held, believed=_unread(before, look), missed=0)
    if look.verdict is before.verdict:
        return SettledState(believed=look, since_s=held.since_s)
    worse = _is_worse(look, before)
    same_way = all(_is_worse(past, before) == worse for past in held.looks)
    looks = (*(held.looks if same_way else ()), look)
    if len(looks) < (probe.confirm if worse else probe.clear):
        return SettledState(believed=_readable(before), since_s=held.since_s, looks=looks)
    choose = min if worse else max
    return SettledState(believed=_latest(looks, choose(_ranks(looks))), since_s=now_s)


def settle_all(
    held: Mapping[Key, SettledState], looks: Iterable[Finding], *, probe: Probe, now_s: float
) -> dict[Key, SettledState]:
    """Return the state of every component after one run of `probe`; those of other probes stay as they are."""
    fresh = dict(held)
    seen: set[Key] = set()
    for look in looks:
        key = (probe.name, look.component)
        seen.add(key)
        fresh[key] = settle(held.get(key), look, probe=probe, now_s=now_s)
    for key, was in held.items():
        if key[0] == probe.name and key not in seen:
            _miss(fresh, key, was, now_s)
    return fresh


def _miss(fresh: dict[Key, SettledState], key: Key, was: SettledState, now_s: float) -> None:
    missed = was.missed + 1
    if missed >= FORGET_LOOKS:
        del fresh[key]
        return
    fresh[key] = replace(was, missed=missed, looks=())
    if missed >= STALE_LOOKS and was.believed.reason != STALE:
        fresh[key] = SettledState(believed=_stale(was.believed), since_s=now_s, missed=missed)


def _first(look: Finding, probe: Probe, now_s: float) -> SettledState:
    if look.verdict in _CALM or probe.confirm <= 1:
        return SettledState(believed=look, since_s=now_s)
    return SettledState(believed=_unconfirmed(look, 1, probe.confirm), since_s=now_s, looks=(look,))


def _from_calm(held: SettledState, look: Finding, probe: Probe, now_s: float) -> SettledState:
    """Continue from a verdict that is not bad: only a bad one needs more looks than one."""
    if look.verdict in _CALM:
        same = look.verdict is held.believed.verdict
        # What cannot be read speaks for nothing: looks that were bad before it stay.
        looks = held.looks if look.verdict is Verdict.UNKNOWN else ()
        return SettledState(believed=look, since_s=held.since_s if same else now_s, looks=looks)
    looks = (*held.looks, look)
    if len(looks) >= probe.confirm:
        return SettledState(believed=_latest(looks, min(_ranks(looks))), since_s=now_s)
    unsure = held.believed
    if unsure.verdict is Verdict.UNKNOWN:
        unsure = _unconfirmed(look, len(looks), probe.confirm)
    return SettledState(believed=unsure, since_s=held.since_s, looks=looks)


def _is_worse(look: Finding, than: Finding) -> bool:
    return _ORDER[look.verdict] > _ORDER[than.verdict]


def _ranks(looks: Iterable[Finding]) -> list[int]:
    return [_ORDER[look.verdict] for look in looks]


def _latest(looks: tuple[Finding, ...], rank: int) -> Finding:
    return next(look for look in reversed(looks) if _ORDER[look.verdict] == rank)


def _unconfirmed(look: Finding, seen: int, needed: int) -> Finding:
    message = f"{look.message} (seen {seen} of {needed} times: not confirmed)"
    return replace(look, verdict=Verdict.UNKNOWN, reason=UNCONFIRMED, message=message, action=Action.WATCH)


_CANNOT_READ = "; now it cannot be read: "


def _unread(before: Finding, look: Finding) -> Finding:
    return replace(before, message=f"{_readable(before).message}{_CANNOT_READ}{look.message}")


def _readable(before: Finding) -> Finding:
    return replace(before, message=before.message.partition(_CANNOT_READ)[0])


def _stale(before: Finding) -> Finding:
    message = f"not checked recently; the last verdict was {before.verdict}: {before.message}"
    return replace(before, verdict=Verdict.UNKNOWN, reason=STALE, message=message, action=Action.NONE)
