"""The row of NVIDIA's own table that the words of an NVLink 5 line (XID 144 to 150) stand under: which unit, how bad, what to do.

The layout changed at driver R575, and the words alone show which one it is: no value of one means anything in the other (a test goes
through all). What is in no row is not guessed. The facts stand in catalog/data/health/nvlink5.yaml.
"""

from collections.abc import Mapping
from typing import NamedTuple

from freehold.catalog.load_xids import nvlink5_rules
from freehold.catalog.xid_facts import Nvlink5Rule

NUMBERS = frozenset(range(144, 151))
"""NVIDIA's Xid catalogue: the units of NVLink 5, SAW to MSE."""


class DecodedLine(NamedTuple):
    """The row of NVIDIA's table that a line stands under; `rule` None: there is none, for the reason `why`."""

    rule: Nvlink5Rule | None
    why: str = ""


def decode(number: int, fields: Mapping[str, str]) -> DecodedLine:
    """Return the row of NVIDIA's table that a line of XID `number` (144 to 150) stands under; `fields` as kernel events have them."""
    try:
        info, status = int(fields["word0"], 16), int(fields["word1"], 16)
    except (KeyError, ValueError):
        return DecodedLine(None, "the line has no interrupt information")
    units = [rule for rule in nvlink5_rules()[number] if info & 0x3FF == rule.v1 or info & 0x7F == rule.v2]
    if not units:
        return DecodedLine(None, f"NVIDIA's table has no unit for interrupt information {info:#010x}")
    found = [rule for rule in units if _fits(rule, info, status)]
    if not found:
        return DecodedLine(
            None, f"NVIDIA's table has no row for {units[0].subcode}, {info:#010x} with status {status:#010x}"
        )
    return DecodedLine(found[0])


def _fits(rule: Nvlink5Rule, info: int, status: int) -> bool:
    bit = 10 if info & 0x3FF == rule.v1 else 7
    promoted = rule.promoted is None or rule.promoted == bool(info >> bit & 1)
    return promoted and info >> 20 & 0x3F in rule.down and (rule.status is None or status in rule.status)
