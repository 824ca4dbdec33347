"""A team's usage files as traffic: recognises them, reads them once from end to end, and says all that is wrong.

The formats are one file each in this folder. Memory is bounded, however long a file is. It asks nothing over the network,
and files are never changed.
"""

import contextlib
import itertools
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from freehold.core.clock import wall_s
from freehold.core.errors import FreeholdError
from freehold.core.problems import Problem, nearest_hint
from freehold.ledger.files import own_ledger
from freehold.ledger.files.rows import SNIFF_CHARS, Rows, Shape, shape_of
from freehold.ledger.files.text import Lines, archive
from freehold.ledger.foreign import access_log, litellm, openai_usage
from freehold.ledger.foreign.cells import lacks_zone
from freehold.ledger.foreign.gather import Gathered, TimeWindow
from freehold.ledger.foreign.history import overlap_h, traffic_of
from freehold.ledger.foreign.use import Unusable, UsageFormat
from freehold.ledger.journal import Span
from freehold.sizing.fleet.traffic import BadRow, Traffic

FORMATS: tuple[UsageFormat, ...] = (openai_usage.FORMAT, litellm.FORMAT, access_log.FORMAT)
"""Those made of records, the most particular first."""
FORMAT_NAMES: tuple[str, ...] = (*(format_.name for format_ in FORMATS), own_ledger.NAME)
"""What `--usage-format` takes."""
_SNIFF_ROWS = 20  # Records whose keys are looked at: optional ones are missing in some.
_NAMES_SHOWN = 12  # Of an unknown file: more would hide what was looked for.
_NAME_CHARS = 40
_FAR_US = 2**62  # As freehold.ledger.journal has it: later than any record.


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadUsage:
    """What was found; either traffic, or problems that must be solved first."""

    traffic: Traffic | None
    problems: tuple[Problem, ...] = ()
    format: str = ""
    """Names of the formats that were recognised, with commas."""
    formats: dict[str, str] = field(default_factory=dict)
    """By file."""


def read_usage(
    paths: str | Path | Iterable[str | Path],
    *,
    format: str = "",  # noqa: A002 - what the flag is called
    since_s: float | None = None,
    until_s: float | None = None,
    now_s: float | None = None,
) -> ReadUsage:
    """Return the traffic of usage files, all of them together.

    `format` forces one of FORMAT_NAMES; `since_s` and `until_s` are Unix seconds, the second excluded. Rows later than
    `now_s` (the machine's clock if not given) are bad. Where there is any problem there is no traffic: a part of the
    files would be an answer to another question. Never raises for what stands in a file.
    """
    now_s = wall_s() if now_s is None else now_s
    window = TimeWindow(
        since_s=since_s or 0.0, until_s=float("inf") if until_s is None else until_s, now_s=now_s
    )
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if format and format not in FORMAT_NAMES:
        message = f"{format!r} is not a format of usage files"
        problem = Problem(where="--usage-format", message=message, hint=nearest_hint(format, FORMAT_NAMES))
        return ReadUsage(traffic=None, problems=(problem,))
    reading = _Reading(Gathered(window=window), forced=format)
    for path in dict.fromkeys(files):
        reading.read(path)
    return reading.result()


class _Reading:
    """Files being read one after another into one history."""

    def __init__(self, gathered: Gathered, *, forced: str) -> None:
        self.gathered = gathered
        self.problems: list[Problem] = []
        self.formats: dict[str, str] = {}
        self._forced = forced

    def read(self, path: Path) -> None:
        """Read a file; whatever is wrong with it becomes a problem."""
        try:
            fault = self._read(path)
        except OSError as exc:
            fault = Problem(where=str(path), message=f"cannot be read: {exc.strerror or exc}")
        except FreeholdError as exc:
            fault = Problem(where=str(path), message=f"is not a readable ledger: {exc}", hint=exc.hint)
        if fault is not None:
            self.problems.append(fault)

    def _read(self, path: Path) -> Problem | None:
        if not path.is_file():
            words = "is not a file with rows" if path.exists() else "there is no such file"
            return Problem(where=str(path), message=words)
        with path.open("rb") as file:
            head = file.read(len(own_ledger.MAGIC))
        is_ledger = head.startswith(own_ledger.MAGIC)
        if is_ledger and self._forced in {"", own_ledger.NAME}:
            return self._read_ledger(path)
        if is_ledger or self._forced == own_ledger.NAME:
            words = f"is an SQLite file, not {self._forced}" if is_ledger else "is not a ledger of Freehold"
            return Problem(
                where=str(path), message=words, hint=f"{own_ledger.NAME} is {own_ledger.LOOKED_FOR}"
            )
        if packed := archive(head):
            return Problem(
                where=str(path), message=f"is {packed}", hint="unpack it first; gzip is read as it is"
            )
        sample, fault = _sample(path)
        if not sample.strip():
            return Problem(where=str(path), message=fault or "is empty")
        return self._read_text(path, shape_of(sample))

    def _read_ledger(self, path: Path) -> Problem | None:
        self.formats[str(path)] = own_ledger.NAME
        gathered, window = self.gathered, self.gathered.window
        span = Span(since_us=int(window.since_s * 1e6), until_us=int(min(window.until_s * 1e6, _FAR_US)))
        uses, notes, ends = own_ledger.read_ledger(path, span)
        if not uses:
            hint = "look at the time that was asked for"
            return Problem(where=str(path), message="no tokens are recorded in it", hint=hint)
        gathered.where = f"{path}[{{}}]".format
        for index, use in enumerate(uses):
            gathered.take(use, index)
        gathered.notes += notes
        gathered.first_s, gathered.last_s = ends
        gathered.end_file()
        return None

    def _read_text(self, path: Path, shape: Shape) -> Problem | None:
        names = _names(path, shape)
        format_ = self._recognise(names)
        if format_ is None:
            return _unknown(path, names)
        self.formats[str(path)] = format_.name
        accepted, bad = self.gathered.accepted_rows, self.gathered.bad_rows_total
        with _open(path) as lines:
            rows = Rows(lines, shape)
            self._take_all(rows, format_, path)
        self.gathered.end_file()
        if self.gathered.accepted_rows > accepted:
            return None
        return _useless(path, format_, self.gathered.bad_rows_total - bad, self.gathered.bad_rows)

    def _take_all(self, rows: Rows, format_: UsageFormat, path: Path) -> None:
        take, read, name, times = self.gathered.take, format_.read, str(path), format_.times
        self.gathered.where = lambda number: name + rows.where(number)
        for number, record in rows:
            if isinstance(record, Unusable):
                take(record, number)
                continue
            if times and lacks_zone(record, times):
                self.gathered.notes.append("Times without a zone are taken for UTC.")
                times = ()
            try:
                for item in read(record):
                    take(item, number)
            except Unusable as exc:
                take(exc, number)
        if rows.has_more:
            self.gathered.notes.append(f"{name} ends with a page that announces more pages.")

    def _recognise(self, names: AbstractSet[str]) -> UsageFormat | None:
        found = (
            each
            for each in FORMATS
            if each.name == self._forced or (not self._forced and each.recognises(names))
        )
        return next(found, None)

    def result(self) -> ReadUsage:
        """Return what was found in all the files."""
        words = ", ".join(dict.fromkeys(self.formats.values()))
        problems = [*self.problems, *self._faults()]
        if problems:
            return ReadUsage(traffic=None, problems=tuple(problems), format=words, formats=self.formats)
        traffic = traffic_of(self.gathered, self._source())
        return ReadUsage(traffic=traffic, format=words, formats=self.formats)

    def _faults(self) -> list[Problem]:
        """Return what is wrong with all the files together."""
        if not self.formats or self.problems:
            return []
        where, gathered = ", ".join(self.formats), self.gathered
        if not gathered.total.tokens:
            return [_no_tokens(where, gathered)]
        doubled_h = overlap_h(gathered)
        if doubled_h:
            both = "hour" if round(doubled_h) <= 1 else f"{doubled_h:,.0f} hours"
            message = f"usage by days and usage by hours cover the same {both}, which would count twice"
            return [Problem(where=where, message=message, hint="give only the finer one")]
        return []

    def _source(self) -> str:
        names = ", ".join(f"{Path(path).name} ({name})" for path, name in self.formats.items())
        return f"{names}, {self.gathered.rows_total:,} rows"


def _no_tokens(where: str, gathered: Gathered) -> Problem:
    if gathered.invoiced_usd:
        hint = "give the usage export beside it"
        return Problem(where=where, message="has what was paid and no tokens", hint=hint)
    if gathered.outside_rows:
        hint = f"{gathered.outside_rows:,} rows lie outside of it"
        return Problem(where=where, message="has no usage in the time that was asked for", hint=hint)
    left = "; ".join(
        f"{count:,} rows were left out: {reason}" for reason, count in gathered.left_out.most_common()
    )
    return Problem(where=where, message="has no tokens in it", hint=left)


def _open(path: Path) -> contextlib.closing[Lines]:
    return contextlib.closing(Lines(path))


def _sample(path: Path) -> tuple[str, str]:
    """Return how a file begins, and why it cannot be read on, where it cannot."""
    with _open(path) as lines:
        return lines.read(SNIFF_CHARS), lines.cut_off


def _names(path: Path, shape: Shape) -> set[str]:
    """Return the names of columns, or the keys of the first records."""
    names: set[str] = set()
    with _open(path) as lines:
        rows = Rows(lines, shape)
        for _, record in itertools.islice(rows, _SNIFF_ROWS):
            if not isinstance(record, Unusable):
                names |= record.keys()
        return names | set(rows.columns)


def _unknown(path: Path, names: AbstractSet[str]) -> Problem:
    found = (
        ", ".join(repr(name[:_NAME_CHARS]) for name in sorted(names)[:_NAMES_SHOWN]) or "no columns or keys"
    )
    looked_for = "; ".join(f"{each.name}: {each.looked_for}" for each in FORMATS)
    return Problem(
        where=str(path),
        message=f"is not a known usage file: it has {found}",
        hint=f"looked for {looked_for}; {own_ledger.NAME}: {own_ledger.LOOKED_FOR}",
    )


def _useless(path: Path, format_: UsageFormat, bad: int, shown: Sequence[BadRow]) -> Problem:
    if not bad:
        return Problem(where=str(path), message=f"has no rows ({format_.name})")
    first = next((row for row in shown if row.where.startswith(str(path))), None)
    why = f", the first at {first.where}: {first.reason}" if first else ""
    return Problem(where=str(path), message=f"none of its {bad:,} rows can be used ({format_.name}){why}")
