"""Every reason that may ask for something says what: an instruction, which `freehold doctor` prints behind `do:`."""

import pytest

from freehold.health.registry import all_probes

WELL = frozenset(
    [
        "none",
        "right",
        "enough",
        "no_xid",
        "no_gpu",
        "up",
        "no_interfaces",
        "not_used",
        "ok",
        "active",
        "no_ports",
        "no_errors",
        "as_usual",
    ]
)
"""Reasons of findings that ask for nothing."""
VERBS = frozenset(
    [
        "ask",
        "check",
        "compare",
        "cordon",
        "correct",
        "do",
        "drain",
        "end",
        "enlarge",
        "find",
        "fix",
        "free",
        "give",
        "inspect",
        "install",
        "leave",
        "let",
        "lift",
        "look",
        "lower",
        "make",
        "mend",
        "mount",
        "name",
        "plan",
        "raise",
        "reboot",
        "remove",
        "replace",
        "reseat",
        "reset",
        "restart",
        "see",
        "set",
        "start",
        "switch",
        "take",
        "try",
        "update",
        "verify",
        "wait",
        "watch",
    ]
)
REASONS = [(name, reason) for name, probe in all_probes().items() for reason in probe.reasons]


@pytest.mark.parametrize(("name", "reason"), REASONS, ids=[".".join(each) for each in REASONS])
def test_a_reason_says_what_to_do(name: str, reason: str) -> None:
    probe = all_probes()[name]
    todo = probe.what_to_do(reason)
    if reason in WELL or "nothing to do" in probe.reasons[reason].lower():
        assert todo == ""
    else:
        first = (todo.split() or [""])[0]
        assert first.strip(",.;").lower() in VERBS, probe.reasons[reason]
