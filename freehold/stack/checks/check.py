"""What one check of this machine found. It deliberately prints nothing: that is the command line's business."""

from enum import StrEnum

import msgspec


class CheckResult(StrEnum):
    """What a check found, best first."""

    GOOD = "good"
    UNKNOWN = "unknown"
    WARNING = "warning"
    PROBLEM = "problem"


class Check(msgspec.Struct, frozen=True):
    """One check's answer."""

    name: str
    found: CheckResult
    said: str
    fix: str = ""
    """What to do; empty where there is nothing to do."""
