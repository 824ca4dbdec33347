"""What one XID line means on its own: verdict, reason, action and sign, from the one table in catalog/data/health.

The live check (`gpu_xid`) and the diagnosis both read it here. Rows of xids.yaml say it per number, xid_classes.yaml per class; the
registers of XID 74 and the words of NVLink 5 lines are decoded by their own tables. Nothing here counts repetitions or looks at other
lines: the callers do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from freehold.catalog.load_xids import nvlink_bits, xid, xid_classes
from freehold.catalog.xid_facts import Nvlink5Rule, Xid
from freehold.core.findings import Action, Verdict
from freehold.health.kernel_log import nvlink5

_XID_74 = 74
"""NVIDIA's Xid catalogue: NVLINK_ERROR."""
_REGISTERS = 7
"""Of an XID 74 line (NVIDIA's WORKFLOW_NVLINK_ERR)."""
SIGNAL = "nvlink_signal"
_SIGNAL = frozenset({"INVESTIGATE_LINK_SI", "INVESTIGATE_LINK_SI_AND_CABLES"})
_TAKEN_DOWN = frozenset({"INVESTIGATE_SW_USER", "INVESTIGATE_SW_USER_LINK_SI", "INVESTIGATE_HOST"})
_PEER = "INVESTIGATE_PEER_DEVICE"
_SAYS = {
    SIGNAL: "poor signal integrity: reseat, check the cable",
    "nvlink_corrected": "corrected, nothing was lost",
    "nvlink_peer": "the other end of the link went first",
    "nvlink_taken_down": "the link was taken down on purpose",
    "nvlink_program": "the program on it ends, the link stays",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class XidJudgement:
    """One line's meaning."""

    fact: Xid
    verdict: Verdict | None
    """None: by the action that is taken."""
    reason: str
    """One of the check gpu_xid's."""
    action: Action
    repeated: Action
    """When the same device has it again within a day."""
    sign: str
    """What diagnosis takes it for, a name of evidence.yaml; empty: it says nothing of a cause."""
    says: str
    """What the reason means, for a message; empty: the fact's own note says it."""
    words: str = ""
    """What the line's own words mean, for a message."""


def judge_xid(number: int, fields: Mapping[str, str]) -> XidJudgement:
    """Return what a line of that XID means; `fields` as kernel events have them."""
    fact = xid(number)
    if number in nvlink5.NUMBERS:
        return _nvlink5(fact, fields)
    if number == _XID_74 and _is_signal(fields):
        cable = Action.CHECK_CABLE
        return XidJudgement(
            fact=fact, verdict=Verdict.UNHEALTHY, reason=SIGNAL, action=cable, repeated=cable, sign=fact.sign, says=_SAYS[SIGNAL],
        )  # fmt: skip
    rule = xid_classes()[fact.kind]
    action, repeated = fact.action, fact.repeated if rule.verdict is None else fact.action
    if rule.verdict is Verdict.HEALTHY:
        action = repeated = Action.NONE
    elif rule.reason == "unknown_xid":
        action = repeated = Action.WATCH
    return XidJudgement(
        fact=fact, verdict=rule.verdict, reason=rule.reason, action=action, repeated=repeated, sign=fact.sign, says=rule.says,
    )  # fmt: skip


def _is_signal(fields: Mapping[str, str]) -> bool:
    """Return whether the line's registers hold nothing but the bits of poor signal integrity."""
    words = [int(fields.get(f"reg{index}", "0x0"), 16) for index in range(_REGISTERS)]
    held = {
        (index, bit)
        for index, word in enumerate(words)
        for bit in range(word.bit_length())
        if word >> bit & 1
    }
    return bool(held) and held <= _signal_bits()


@cache
def _signal_bits() -> frozenset[tuple[int, int]]:
    rules = [rule for rule in nvlink_bits() if rule.leads_to == "signal_integrity"]
    return frozenset((rule.register, bit) for rule in rules for bit in rule.bits)


# --- NVLink 5: the line's own word Fatal is never softened by the table -----------------------------------------------


def _nvlink5(fact: Xid, fields: Mapping[str, str]) -> XidJudgement:
    rule, words = nvlink5.decode(fact.number, fields)
    fatal, sign = fields.get("severity") == "Fatal", ""
    if rule is not None and (rule.is_fatal or not fatal):
        words = f"{rule.subcode}: NVIDIA says {rule.immediate}, then {rule.investigatory}"
        (verdict, reason, action, repeated), sign = _outcome(rule, fact), _sign(rule)
    elif fields.get("severity") == "Nonfatal":
        verdict, reason, action, repeated = Verdict.DEGRADED, "nvlink_non_fatal", Action.WATCH, Action.WATCH
    else:
        if rule is not None:
            words = f"the line says Fatal, NVIDIA's table calls {rule.subcode} with that status non-fatal"
        verdict, reason, action, repeated = Verdict.UNHEALTHY, "link_xid", fact.action, fact.repeated
    return XidJudgement(
        fact=fact, verdict=verdict, reason=reason, action=action, repeated=repeated, sign=sign or fact.sign,
        says=_SAYS.get(reason, ""), words=words,
    )  # fmt: skip


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
