"""What a report says of the rows of a usage file that could not be used: how many, and where the first ones are.

It judges no row: that is done where files are read.
"""

from collections.abc import Iterator

from freehold.sizing.fleet.traffic import Traffic

SHOWN = 5
"""Rows that are named. Our own choice: a wrong column shows in the first ones, and a note stays a sentence."""


def rows_left_out(traffic: Traffic) -> Iterator[str]:
    """Yield the sentence, if any row was left out."""
    if not traffic.bad_rows_total:
        return
    shown = [f"{row.where} ({row.reason})" for row in traffic.bad_rows[:SHOWN]]
    more = traffic.bad_rows_total - len(shown)
    where = ", ".join([*shown, *([f"{more:,} more"] if more else [])])
    yield f"{traffic.bad_rows_total:,} of {traffic.rows_total:,} rows could not be used: {where}"
