"""What the words of an NVLink 5 line (XID 144 to 150) mean, by NVIDIA's own table: which unit, how bad, what to do, what to suspect.

The layout changed at driver R575, and the words alone show which one it is: no value of one means anything in the other (a test goes
through all). The line's own word Fatal is never softened by the table. What is in no row is not guessed: it stays what the XID
means as a whole. The facts stand in catalog/data/health/nvlink5.yaml.
"""

from collections.abc import Mapping
from typing import NamedTuple

from freehold.catalog.load_xids import nvlink5_rules
from freehold.catalog.xid_facts import Nvlink5Rule, Xid
from freehold.core.findings import Action, Verdict

NUMBERS = frozenset(range(144, 151))
"""NVIDIA's Xid catalogue: the units of NVLink 5, SAW to MSE."""
_SIGNAL = frozenset({"INVESTIGATE_LINK_SI", "INVESTIGATE_LINK_SI_AND_CABLES"})
_TAKEN_DOWN = frozenset({"INVESTIGATE_SW_USER", "INVESTIGATE_SW_USER_LINK_SI", "INVESTIGATE_HOST"})
_PEER = "INVESTIGATE_PEER_DEVICE"


class DecodedLine(NamedTuple):
    """The row of NVIDIA's table that a line stands under; `rule` None: there is none, for the reason `why`."""

    rule: Nvlink5Rule | None
    why: str = ""


class LinkMeaning(NamedTuple):
    """What follows for the GPU."""

    verdict: Verdict
    reason: str
    """One of the check gpu_xid's."""
    action: Action
    repeated: Action
    """When the same link has it again within a day."""
    sign: str
    """A name of evidence.yaml; empty: nothing is known of the line but its XID."""
    words: str


def decode(number: int, fields: Mapping[str, str]) -> DecodedLine:
    """Return the row of NVIDIA's table that a line of XID `number` (144 to 150) stands under; `fields` as kernel events have them."""
    try:
        info, status = int(fields["word0"], 16), int(fields["word1"], 16)
    except (KeyError, ValueError):
        return DecodedLine(None, "the line has no interrupt information")
    units = [rule for rule in nvlink5_rules()[number] if _is_unit(rule, info)]
    if not units:
        return DecodedLine(None, f"NVIDIA's table has no unit for interrupt information {info:#010x}")
    found = [rule for rule in units if _fits(rule, info, status)]
    if not found:
        return DecodedLine(
            None, f"NVIDIA's table has no row for {units[0].subcode}, {info:#010x} with status {status:#010x}"
        )
    return DecodedLine(found[0])


def _is_unit(rule: Nvlink5Rule, info: int) -> bool:
    return info & 0x3FF == rule.v1 or info & 0x7F == rule.v2


def _fits(rule: Nvlink5Rule, info: int, status: int) -> bool:
    bit = 10 if info & 0x3FF == rule.v1 else 7
    promoted = rule.promoted is None or rule.promoted == bool(info >> bit & 1)
    return promoted and info >> 20 & 0x3F in rule.down and (rule.status is None or status in rule.status)


def meaning(fact: Xid, fields: Mapping[str, str]) -> LinkMeaning:
    """Return what one line means."""
    rule, why = decode(fact.number, fields)
    fatal = fields.get("severity") == "Fatal"
    if rule is not None and (rule.is_fatal or not fatal):
        return _by_rule(rule, fact)
    if rule is not None:
        why = f"the line says Fatal, NVIDIA's table calls {rule.subcode} with that status non-fatal"
    if fields.get("severity") == "Nonfatal":
        return LinkMeaning(Verdict.DEGRADED, "nvlink_non_fatal", Action.WATCH, Action.WATCH, "", why)
    return LinkMeaning(Verdict.UNHEALTHY, "link_xid", fact.action, fact.repeated, "", why)


def _by_rule(rule: Nvlink5Rule, fact: Xid) -> LinkMeaning:
    words = f"{rule.subcode}: NVIDIA says {rule.immediate}, then {rule.investigatory}"
    verdict, reason, action, repeated = _outcome(rule, fact)
    return LinkMeaning(verdict, reason, action, repeated, _sign(rule), words)


def _outcome(rule: Nvlink5Rule, fact: Xid) -> tuple[Verdict, str, Action, Action]:
    if rule.immediate == "XID_154_EVAL":
        return Verdict.DEGRADED, "nvlink_program", Action.RESTART_ENGINE, Action.RESTART_ENGINE
    if rule.immediate == "IGNORE":
        return _ignored(rule)
    if rule.investigatory in _SIGNAL:
        return Verdict.UNHEALTHY, "nvlink_signal", Action.RESET_GPU, Action.CHECK_CABLE
    if rule.investigatory == _PEER:
        return Verdict.UNHEALTHY, "nvlink_peer", Action.RESET_GPU, Action.RESET_GPU
    if rule.investigatory in _TAKEN_DOWN:
        return Verdict.UNHEALTHY, "nvlink_taken_down", Action.RESET_GPU, Action.RESET_GPU
    repeated = fact.repeated if "HW" in rule.blames else Action.RESET_GPU
    return Verdict.UNHEALTHY, "link_xid", Action.RESET_GPU, repeated


def _ignored(rule: Nvlink5Rule) -> tuple[Verdict, str, Action, Action]:
    if rule.investigatory == "IGNORE":
        return Verdict.HEALTHY, "nvlink_corrected", Action.NONE, Action.NONE
    if rule.investigatory in _SIGNAL:
        return Verdict.DEGRADED, "nvlink_signal", Action.CHECK_CABLE, Action.CHECK_CABLE
    reason = "nvlink_taken_down" if rule.investigatory in _TAKEN_DOWN else "nvlink_non_fatal"
    return Verdict.DEGRADED, reason, Action.WATCH, Action.WATCH


def _sign(rule: Nvlink5Rule) -> str:
    if rule.immediate == rule.investigatory == "IGNORE":
        return "nvlink_corrected"
    if rule.investigatory == _PEER:
        return "nvlink_peer"
    return {frozenset({"HW"}): "nvlink_hardware", frozenset({"SW"}): "nvlink_software"}.get(rule.blames, "")
