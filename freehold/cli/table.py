"""Tables and paragraphs for people: aligned columns where they fit, wrapped between words where they do not.

Off a terminal the width is None and a line is as long as it must be, so that `grep` and `cut` work. A cell may carry terminal
codes: they have a length but no width. Nothing is printed here. Nothing is cut: a word wider than the terminal stays whole.
"""

import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import click

from freehold.cli.output import styled

_GAP = "  "
_INDENT = 4  # Columns before a line below a row, and before a continued paragraph.
TEXT_LEAST = 24
"""Columns that the last column needs to be wrapped in; with less, each row becomes a block. Source: our own choice, as for
the names of `plan`: three or four words a line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its cells, of which the last may be a sentence without terminal codes, and the lines below it."""

    cells: Sequence[str]
    below: Sequence[str] = ()


def terminal_columns() -> int | None:
    """Return the terminal's width; None: the output is not a terminal, so a line may have any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or os.environ.get("COLUMNS") else None


def paragraph(text: str, columns: int | None, *, indent: int = 0, hanging: int | None = None) -> list[str]:
    """Return a text wrapped between words; lines after the first are indented by `hanging`, or by `indent` and four more."""
    first = " " * indent
    if columns is None:
        return [first + text]
    after = " " * (indent + _INDENT if hanging is None else hanging)
    return textwrap.wrap(
        text,
        columns,
        initial_indent=first,
        subsequent_indent=after,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def table(
    rows: Sequence[Row],
    columns: int | None,
    *,
    heads: Sequence[str] = (),
    numbers: Collection[str] = (),
) -> list[str]:
    """Return the lines of a table; columns whose head is among `numbers` are aligned to the right.

    Too wide for the terminal, the last column is wrapped; where that leaves too little, or it holds numbers, each row
    becomes a block of one line per cell.
    """
    every = [Row(heads), *rows] if heads else list(rows)
    widths = [max(map(_width, column)) for column in zip(*(row.cells for row in every), strict=True)]
    room = None if columns is None else columns - sum(widths[:-1]) - len(_GAP) * (len(widths) - 1)
    right = {place for place, head in enumerate(heads) if head in numbers}
    if room is not None and widths and widths[-1] > room and (room < TEXT_LEAST or len(widths) - 1 in right):
        return _blocks(rows, columns, heads)
    lines = []
    for place, row in enumerate(every):
        found = _aligned(row.cells, widths, room, right)
        lines += [styled(line, bold=True) for line in found] if heads and place == 0 else found
        lines += _below(row, columns)
    return lines


def _width(cell: str) -> int:
    return len(click.unstyle(cell))


def _aligned(
    cells: Sequence[str], widths: Sequence[int], room: int | None, right: Collection[int]
) -> list[str]:
    *front, last = cells
    padded = []
    for place, (cell, width) in enumerate(zip(front, widths, strict=False)):
        blank = " " * (width - _width(cell))
        padded.append(blank + cell if place in right else cell + blank)
    if len(cells) - 1 in right:
        last = last.rjust(widths[-1])
    if room is None or _width(last) <= room:
        return [_GAP.join([*padded, last]).rstrip()]
    first, *more = paragraph(last, room, hanging=0)
    hang = " " * (sum(widths[:-1]) + len(_GAP) * len(padded))
    return [_GAP.join([*padded, first]), *(hang + line for line in more)]


def _blocks(rows: Sequence[Row], columns: int | None, heads: Sequence[str]) -> list[str]:
    """Return a line per cell that has something, or a paragraph per row where the columns have no heads; then only the first cell may be styled."""
    lines = []
    width = max(map(len, heads), default=0)
    for row in rows:
        if not heads:
            plain = click.unstyle(row.cells[0])
            first, *more = paragraph(_GAP.join(filter(None, [plain, *row.cells[1:]])), columns)
            lines += [first.replace(plain, row.cells[0], 1), *more]
        else:
            lines.append(styled(row.cells[0], bold=True))
            facts = zip(heads[1:], row.cells[1:], strict=True)
            lines += [f"  {head.ljust(width)}  {cell}" for head, cell in facts if cell]
        lines += _below(row, columns)
    return lines


def _below(row: Row, columns: int | None) -> list[str]:
    return [line for text in row.below for line in paragraph(text, columns, indent=_INDENT, hanging=_INDENT)]
