"""Text as records, with the line or place each came from: CSV, a JSON object a line, or one large JSON document.

Nothing is loaded whole: a document is read value by value. What cannot be read is given as Unusable, and reading goes on
behind it; a quote that is never closed costs its own row and not the rest of the file. It does not know what the
records mean.
"""

import contextlib
import csv
import json
import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from freehold.ledger.files.text import LINE_CHARS_MAX, Lines
from freehold.ledger.foreign.use import Record, Unusable

Shape = Literal["csv", "jsonl", "json"]
Row = tuple[int, Record | Unusable]
"""Number of the line (of the value, in a document: from 0), and the record."""
SNIFF_CHARS = 64 * 1024
"""What is looked at to recognise the shape. Source: our own choice: a header line and some rows fit."""
_SHAPE_LINES = 20  # Looked at to distinguish JSON lines from a document: the first one may be broken.
_CHUNK_CHARS = 256 * 1024  # Of a document, read at once.
_DECODER = json.JSONDecoder()
_PAGE = re.compile(
    r'\{\s*(?:"[^"\\]{0,200}"\s*:\s*(?:"[^"\\]{0,2000}"|[-+\w.]{1,200})\s*,\s*){0,40}"(?:data|logs)"\s*:\s*\['
)
"""The beginning of an object that holds the rows in a list, as APIs page: only plain values stand before the list."""
_TAIL = re.compile(r'[\s,\]}]*(?:"[^"\\]{0,200}"\s*:\s*(?:"[^"\\]{0,5000}"|[-+\w.]{1,200})[\s,\]}]*){0,40}\Z')
_NEXT = re.compile(r"\}\s*,\s*(?=\{)|\n\s*(?=\{)")  # Where a record may begin behind a broken one.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_MORE = re.compile(r'"has_more"\s*:\s*true')


class Rows:
    """The records of a file; to be iterated once."""

    def __init__(self, lines: Lines, shape: Shape) -> None:
        self.shape = shape
        self.columns: list[str] = []
        """Of CSV."""
        self.has_more = False
        """The last page of the file says that there are more."""
        self._lines = lines
        self._index = 0

    def __repr__(self) -> str:
        return f"<Rows {self.shape} of {self._lines!r}>"

    def __iter__(self) -> Iterator[Row]:
        if self.shape == "csv":
            with _long_cells():
                yield from self._csv()
        else:
            yield from self._jsonl() if self.shape == "jsonl" else self._json()
        if self._lines.cut_off:
            yield self._index or self._lines.number, Unusable(self._lines.cut_off)

    def where(self, number: int) -> str:
        """Return a row's place behind the file's name."""
        return f"[{number}]" if self.shape == "json" else f":{number}"

    def _csv(self) -> Iterator[Row]:
        held: list[str] = []
        lines = iter(self._lines)
        first = next(lines, "")
        mark = delimiter(first)
        self.columns = [cell.strip() for cell in next(csv.reader([first], delimiter=mark), [])]
        reader = csv.reader(_holding(lines, held), delimiter=mark, strict=True)
        width = len(self.columns)
        while (cells := _next_cells(reader)) is not None:
            if len(cells) == width:
                yield self._lines.number, dict(zip(self.columns, cells, strict=True))
            elif len(held) > 1 or not held[0].isspace():
                yield from self._mend(held, mark)
            held.clear()

    def _mend(self, held: list[str], mark: str) -> Iterator[Row]:
        """Read the lines that a broken row was made of one by one: a quote that is not closed swallows whole rows."""
        first = self._lines.number - len(held) + 1
        for number, line in enumerate(held, first):
            last = number == self._lines.number and not self._lines.ends_with_newline
            if not line.isspace():
                yield number, self._one_line(line, mark, last=last)

    def _one_line(self, line: str, mark: str, *, last: bool) -> Record | Unusable:
        cells = _next_cells(csv.reader([line], delimiter=mark, strict=True))
        if not cells:
            return Unusable("its quotes do not match")
        width = len(self.columns)
        if len(cells) > width and not any(cells[width:]):
            del cells[width:]
        if len(cells) != width:
            cut = ": the last line is cut off" if last else ""
            return Unusable(f"{len(cells)} cells where the header has {width}{cut}")
        return dict(zip(self.columns, cells, strict=True))

    def _jsonl(self) -> Iterator[Row]:
        for line in self._lines:
            if not line.isspace():
                yield from self._expand(self._lines.number, self._one_object(line))

    def _one_object(self, line: str) -> Record | Unusable:
        try:
            value = msgspec.json.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return Unusable(
                "no JSON" if self._lines.ends_with_newline else "no JSON: the last line is cut off"
            )
        return value if type(value) is dict else Unusable("no JSON object")

    def _json(self) -> Iterator[Row]:
        document = _Document(self._lines)
        more = True
        while more:
            more = document.find_value()
            if document.junk:
                yield self._index, Unusable("text that is not JSON")
                document.junk = False
            for _, record in self._expand(0, document.value()) if more else ():
                yield self._index, record
                self._index += 1
        self.has_more = self.has_more or document.has_more
        if document.is_open and not self._lines.cut_off:
            yield self._index, Unusable("the file ends before its list does: it is cut off")

    def _expand(self, number: int, record: Record | Unusable) -> Iterator[Row]:
        """Give the rows of a page one by one."""
        if type(record) is dict and type(record.get("data")) is list and _is_page(record):
            self.has_more = record.get("has_more") is True
            for each in record["data"]:
                yield number, each if type(each) is dict else Unusable("no JSON object")
        else:
            yield number, record


def shape_of(sample: str) -> Shape:
    """Return how a file is written that begins like this."""
    text = sample.lstrip()
    if text.startswith("["):
        return "json"
    if not text.startswith("{"):
        return "csv"
    lines = [line.rstrip() for line in text.split("\n")[:_SHAPE_LINES]]
    # Where objects lie inside a document they are indented, or a comma follows them.
    whole = [line for line in lines if line.startswith("{") and line.endswith("}")]
    return "jsonl" if lines[0] in whole or len(whole) > 1 else "json"


def delimiter(header: str) -> str:
    """Return what the columns of this header are divided by: a comma, a semicolon or a tab."""
    return max(",;\t", key=header.count)


def _is_page(record: Record) -> bool:
    return record.get("object") == "page" or "total_pages" in record


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    """Let a CSV cell be as long as a line: prompts may be logged in full."""
    before = csv.field_size_limit(LINE_CHARS_MAX)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _holding(lines: Iterator[str], held: list[str]) -> Iterator[str]:
    for line in lines:
        held.append(line)
        yield line


def _next_cells(reader: "Iterator[list[str]]") -> list[str] | None:
    """Return the cells of the next row, none of them where it is no CSV; None: there are no more rows."""
    try:
        return next(reader, None)
    except csv.Error:
        return []


class _Document:
    """A JSON document of which a bounded part is held."""

    def __init__(self, lines: Lines) -> None:
        self.junk = False
        self.has_more = False
        self.broken = False
        """A value was no JSON, so that brackets do not count any more."""
        self._open = 0
        self._lines = lines
        self._text = ""
        self._at = 0
        self._ended = False

    @property
    def is_open(self) -> bool:
        """Return whether the text ended inside of a list or page."""
        return self._open > 0 and not self.broken

    def find_value(self) -> bool:
        """Go to where the next record begins, past brackets and the heads and tails of pages; False: there is none."""
        while True:
            self._fill(SNIFF_CHARS)
            begin = self._next_open()
            self._judge(self._text[self._at : begin])
            self._at = begin
            if begin >= len(self._text):
                if self._ended:
                    return False
            elif self._text[begin] == "[":
                self._at += 1
                self._open += 1
            elif page := _PAGE.match(self._text, begin):
                self._at = page.end()
                self._open += 2
            else:
                return True

    def _next_open(self) -> int:
        found = [at for at in (self._text.find("{", self._at), self._text.find("[", self._at)) if at >= 0]
        return min(found, default=len(self._text))

    def _judge(self, between: str) -> None:
        closed = _STRING.sub("", between)
        self._open = max(0, self._open - closed.count("]") - closed.count("}"))
        if not between.strip(",]} \t\r\n"):
            return
        self.junk = self.junk or not _TAIL.match(between)
        self.has_more = bool(_MORE.search(between))

    def value(self) -> Record | Unusable:
        """Return the object that begins here, and go behind it."""
        wanted = _CHUNK_CHARS
        while True:
            try:
                value, self._at = _DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError):
                wanted *= 2
                if self._ended or wanted > LINE_CHARS_MAX:
                    self.broken = True
                    return Unusable(
                        "no JSON" if self._skip_broken() else "no JSON from here to the end of the file"
                    )
                self._fill(wanted)
            else:
                return value if type(value) is dict else Unusable("no JSON object")

    def _skip_broken(self) -> bool:
        """Go to where the next record may begin, and return whether there is such a place in what is held."""
        found = _NEXT.search(self._text, self._at + 1)
        self._at = found.end() if found else len(self._text)
        return found is not None

    def _fill(self, wanted: int) -> None:
        """Hold at least so many characters behind this place, if there are as many."""
        missing = wanted - (len(self._text) - self._at)
        if missing <= 0 or self._ended:
            return
        more = self._lines.read(max(missing, _CHUNK_CHARS))
        self._ended = not more
        self._text, self._at = self._text[self._at :] + more, 0
