"""What one check of this machine found. How it is shown is the command line's business."""

from enum import StrEnum

import msgspec


class CheckResult(StrEnum):
    """What a check found, best first."""

    GOOD = "good"
    UNKNOWN = "unknown"
    WARNING = "warning"
    PROBLEM = "problem"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check's answer."""

    name: str
    found: CheckResult
    said: str
    fix: str = ""
    """What to do; empty where there is nothing to do."""


def check(name: str, found: CheckResult, said: str, fix: str = "") -> Check:
    """Return a check's answer."""
    return Check(name=name, found=found, said=said, fix=fix)
