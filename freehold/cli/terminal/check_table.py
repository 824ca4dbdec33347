"""How `doctor` and `engine check` show their checks: a row each, with what to do below it. It checks nothing."""

from collections.abc import Iterable

from freehold.cli.terminal.output import show_lines, styled
from freehold.cli.terminal.table import Row, table, terminal_columns
from freehold.stack.checks.check import Check, CheckResult

_COLOURS = {
    CheckResult.GOOD: "green",
    CheckResult.WARNING: "yellow",
    CheckResult.PROBLEM: "red",
    CheckResult.UNKNOWN: "magenta",
}


def show_checks(checks: Iterable[Check]) -> None:
    """Print each check, and what to do where it is not good."""
    rows = [
        Row(
            (styled(each.found, colour=_COLOURS[each.found]), each.name, each.said),
            [f"do: {each.fix}"] if each.fix and each.found is not CheckResult.GOOD else [],
        )
        for each in checks
    ]
    show_lines(table(rows, terminal_columns()))
