"""What the words of an NVLink 5 line (XID 144 to 150) say, by NVIDIA's own table: which unit, how bad, what to do, whom to suspect.

The layout changed at driver R575, and the words alone tell which one it is: no value of one means anything in the other (a test goes
through all). The line's own word Fatal is never softened by the table. What is in no row is not guessed: it stays what the XID
says as a whole. The facts stand in catalog/data/health/nvlink5.yaml; what becomes of the GPU is for `judge.xid`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from freehold.catalog.load_xids import nvlink5_rules
from freehold.catalog.xid_facts import Nvlink5Rule, Xid
from freehold.core.findings import Action, Verdict
from freehold.health.kernel_log.events import KernelEvent

NUMBERS = frozenset(range(144, 151))
"""NVIDIA's Xid catalogue: the units of NVLink 5, SAW to MSE."""
_SIGNAL = frozenset({"INVESTIGATE_LINK_SI", "INVESTIGATE_LINK_SI_AND_CABLES"})
_MEANT = frozenset({"INVESTIGATE_SW_USER", "INVESTIGATE_SW_USER_LINK_SI", "INVESTIGATE_HOST"})
_PEER = "INVESTIGATE_PEER_DEVICE"


class Read(NamedTuple):
    """What a line's words say; `rule` None: nothing, and `why` says why."""

    rule: Nvlink5Rule | None
    why: str = ""


class Meaning(NamedTuple):
    """What follows for the GPU."""

    verdict: Verdict
    reason: str
    """One of the probe gpu_xid's."""
    action: Action
    words: str


def read(number: int, fields: Mapping[str, str]) -> Read:
    """Return the row of NVIDIA's table that a line of XID `number` (144 to 150) stands under; `fields` as kernel events have them."""
    try:
        info, status = int(fields["word0"], 16), int(fields["word1"], 16)
    except (KeyError, ValueError):
        return Read(None, "the line has no interrupt information")
    units = [rule for rule in nvlink5_rules()[number] if _is_unit(rule, info)]
    if not units:
        return Read(None, f"NVIDIA's table has no unit for interrupt information {info:#010x}")
    found = [rule for rule in units if _fits(rule, info, status)]
    if not found:
        return Read(
            None, f"NVIDIA's table has no row for {units[0].subcode}, {info:#010x} with status {status:#010x}"
        )
    return Read(found[0])


def _is_unit(rule: Nvlink5Rule, info: int) -> bool:
    return info & 0x3FF == rule.v1 or info & 0x7F == rule.v2


def _fits(rule: Nvlink5Rule, info: int, status: int) -> bool:
    bit = 10 if info & 0x3FF == rule.v1 else 7
    promoted = rule.promoted is None or rule.promoted == bool(info >> bit & 1)
    return promoted and info >> 20 & 0x3F in rule.down and (rule.status is None or status in rule.status)


def meaning(fact: Xid, event: KernelEvent, *, again: bool) -> Meaning:
    """Return what one line means; `again`: the same link has had it before within a day."""
    rule, why = read(fact.number, event.fields)
    fatal = event.fields.get("severity") == "Fatal"
    if rule is not None and (rule.is_fatal or not fatal):
        return _by_rule(rule, fact, again=again)
    if rule is not None:
        why = f"the line says Fatal, NVIDIA's table calls {rule.subcode} with that status non-fatal"
    if event.fields.get("severity") == "Nonfatal":
        return Meaning(Verdict.DEGRADED, "nvlink_non_fatal", Action.WATCH, why)
    return Meaning(Verdict.UNHEALTHY, "link_xid", fact.repeated if again else fact.action, why)


def _by_rule(rule: Nvlink5Rule, fact: Xid, *, again: bool) -> Meaning:
    said = f"{rule.subcode}: NVIDIA says {rule.immediate}, then {rule.investigatory}"
    if rule.immediate == "XID_154_EVAL":
        return Meaning(Verdict.DEGRADED, "nvlink_program", Action.RESTART_ENGINE, said)
    if rule.immediate == "IGNORE":
        return _ignored(rule, said)
    if rule.investigatory in _SIGNAL:
        action = Action.CHECK_CABLE if again else Action.RESET_GPU
        return Meaning(Verdict.UNHEALTHY, "nvlink_signal", action, said)
    if rule.investigatory == _PEER:
        return Meaning(Verdict.UNHEALTHY, "nvlink_peer", Action.RESET_GPU, said)
    if rule.investigatory in _MEANT:
        return Meaning(Verdict.UNHEALTHY, "nvlink_taken_down", Action.RESET_GPU, said)
    action = fact.repeated if again and "HW" in rule.blames else Action.RESET_GPU
    return Meaning(Verdict.UNHEALTHY, "link_xid", action, said)


def _ignored(rule: Nvlink5Rule, said: str) -> Meaning:
    if rule.investigatory == "IGNORE":
        return Meaning(Verdict.HEALTHY, "nvlink_corrected", Action.NONE, said)
    if rule.investigatory in _SIGNAL:
        return Meaning(Verdict.DEGRADED, "nvlink_signal", Action.CHECK_CABLE, said)
    if rule.investigatory in _MEANT:
        return Meaning(Verdict.DEGRADED, "nvlink_taken_down", Action.WATCH, said)
    return Meaning(Verdict.DEGRADED, "nvlink_non_fatal", Action.WATCH, said)


def worst(fact: Xid, events: Sequence[KernelEvent], *, again: bool) -> Meaning:
    """Return the worst of what several lines of one XID mean, of equal ones the newest."""
    order = list(Verdict)
    return max(
        (meaning(fact, event, again=again) for event in reversed(events)),
        key=lambda m: order.index(m.verdict),
    )


def sign_of(number: int, fields: Mapping[str, str]) -> str:
    """Return the sign that a line is in diagnosis; empty: nothing is known of it but its XID."""
    rule, _ = read(number, fields)
    if rule is None or (fields.get("severity") == "Fatal" and not rule.is_fatal):
        return ""
    if rule.immediate == rule.investigatory == "IGNORE":
        return "nvlink_corrected"
    if rule.investigatory == _PEER:
        return "nvlink_peer"
    return {frozenset({"HW"}): "nvlink_hardware", frozenset({"SW"}): "nvlink_software"}.get(rule.blames, "")
