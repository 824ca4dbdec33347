"""What one XID line means on its own: verdict, reason, action and sign, from the one table in catalog/data/health.

The live check (`gpu_xid`) and the diagnosis both read it here. Rows of xids.yaml say it per number, xid_classes.yaml per class; the
registers of XID 74 and the words of NVLink 5 lines are decoded by their own tables. Nothing here counts repetitions or looks at other
lines: the callers do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from freehold.catalog.load_xids import nvlink_bits, xid, xid_classes
from freehold.catalog.xid_facts import Xid
from freehold.core.findings import Action, Verdict
from freehold.health.kernel_log import nvlink5

_XID_74 = 74
"""NVIDIA's Xid catalogue: NVLINK_ERROR."""
_REGISTERS = 7
"""Of an XID 74 line (NVIDIA's WORKFLOW_NVLINK_ERR)."""
SIGNAL = "nvlink_signal"
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
        link = nvlink5.meaning(fact, fields)
        return XidJudgement(
            fact=fact, verdict=link.verdict, reason=link.reason, action=link.action, repeated=link.repeated,
            sign=link.sign or fact.sign, says=_SAYS.get(link.reason, ""), words=link.words,
        )  # fmt: skip
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
