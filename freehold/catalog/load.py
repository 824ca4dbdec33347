"""The catalog read: shipped facts, users' files laid over them, every mistake at once, every doubt named.

Shipped files are held to the same checks as users'. A mistake of a user's is a problem, and then there is no catalog;
what is well written and implausible is a doubt, and there is one. Whether a price is old is not judged here (`age`).
"""

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from freehold.catalog.entries import CatalogEntry, admitted, build, lay_over, missing, read_rows
from freehold.catalog.facts import Catalog, Doubt, Fact, GpuFacts
from freehold.catalog.physics import Odd, contradictions, oddities, out_of_line
from freehold.catalog.rows import DATA, parse, shipped
from freehold.catalog.sections import REFERENCES, SECTIONS
from freehold.core.problems import Problem, nearest_hint

MAX_FILE_BYTES = 1024 * 1024
"""Largest file of a user's prices, bytes. Our own bound: all shipped facts together are a fourteenth of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedCatalog:
    """What loading gave: `catalog` is None exactly when there are problems."""

    catalog: Catalog | None
    problems: tuple[Problem, ...]
    """Shipped files first, then users' in their order; in the order of the file."""


@dataclass(frozen=True, slots=True)
class _Built:
    fact: Fact
    entry: CatalogEntry


def load_catalog(*, today: date, overlays: Sequence[Path] = (), shipped_folder: Path = DATA) -> LoadedCatalog:
    """Return the shipped facts with the users' files laid over them in their order, or every mistake.

    `today` is what ages are counted from and the date of users' rows that have none. A user's file has any of the
    sections that `sections.SECTIONS` names. A row with a known id (a rental's is provider, GPU and kind) replaces the
    fields that it has, another is added; `source`, `as_of` and `verified` may be left out there. Never raises for what
    a user can get wrong.
    """
    rows, problems = shipped(shipped_folder)
    entries, wrong = read_rows(rows, user_day=None)
    problems = [*problems, *wrong]
    for path in overlays:
        added, wrong = _read_file(path, today)
        welcome, unwelcome = admitted(entries, added)
        problems += [*wrong, *unwelcome]
        entries = lay_over(entries, welcome)
    problems += [problem for entry in entries for problem in missing(entry)]
    problems += _unknown_references(entries)
    if problems:
        return LoadedCatalog(catalog=None, problems=_in_order(problems))
    return LoadedCatalog(catalog=_catalog(entries, today), problems=())


def _in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return each problem once, file by file and line by line."""
    once = list(dict.fromkeys(problems))
    files = list(dict.fromkeys(_split(each)[0] for each in once))
    return tuple(sorted(once, key=lambda each: (files.index(_split(each)[0]), _split(each)[1:])))


def _split(problem: Problem) -> tuple[str, int, int]:
    name, line, column = [*problem.where.rsplit(":", 2), "", ""][:3]
    return (name, int(line), int(column)) if line.isdigit() and column.isdigit() else (problem.where, 0, 0)


def _read_file(path: Path, today: date) -> tuple[list[CatalogEntry], list[Problem]]:
    text = _text(path)
    if isinstance(text, Problem):
        return [], [text]
    rows, problems = parse(text, str(path))
    entries, wrong = read_rows(rows, user_day=today)
    future = [
        Problem(where=entry.place(field), message=f"{entry.section.name}: {field} {day} lies ahead")
        for entry in entries
        for field in ("as_of", "price_as_of")
        if isinstance(day := entry.values.get(field), date) and day > today
    ]
    return entries, [*problems, *wrong, *future]


def _text(path: Path) -> str | Problem:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = getattr(exc, "strerror", None) or str(exc)
        return Problem(where=str(path), message=f"cannot be read: {reason}")
    if len(content) > MAX_FILE_BYTES:
        return Problem(where=str(path), message="is larger than 1MiB", hint="is it a file of prices?")
    try:
        return content.removeprefix(BOM_UTF8).decode()
    except UnicodeDecodeError as exc:
        return Problem(where=str(path), message=f"is not UTF-8: {exc.reason}", hint="save the file as UTF-8")


def _unknown_references(entries: Iterable[CatalogEntry]) -> list[Problem]:
    listed = list(entries)
    problems = []
    for section, field, target in REFERENCES:
        known = {str(each.values["id"]) for each in listed if each.section.name == target}
        for entry in listed:
            name = entry.values.get(field)
            if entry.section.name == section and name is not None and name not in known:
                message = f"{section}: there is no {field} {name!r} in {target}"
                hint = nearest_hint(str(name), known)
                problems.append(Problem(where=entry.place(field), message=message, hint=hint))
    return problems


def _catalog(entries: Iterable[CatalogEntry], today: date) -> Catalog:
    doubts: list[Doubt] = []
    built = [kept for entry in entries if (kept := _kept(entry, today, doubts))]
    entry_of = {id(each.fact): each.entry for each in built}
    doubts += [_doubt(entry_of[id(fact)], odd) for fact, odd in out_of_line(each.fact for each in built)]
    tables = {
        name: _table(name, [each for each in built if each.entry.section.name == name]) for name in SECTIONS
    }
    return Catalog(today=today, doubts=tuple(doubts), **tables)


def _kept(entry: CatalogEntry, today: date, doubts: list[Doubt]) -> _Built | None:
    """Return the fact of an entry, or of what it was laid over where it is impossible; None where there is neither."""
    fact = build(entry)
    odd = [*oddities(fact), *_against_shipped(fact, entry), *_ahead(fact, today)]
    doubts += [_doubt(entry, each) for each in odd]
    if not any(each.impossible for each in odd):
        return _Built(fact, entry)
    return _kept(entry.under, today, doubts) if entry.under else None


def _against_shipped(fact: Fact, entry: CatalogEntry) -> Iterator[Odd]:
    if isinstance(fact, GpuFacts) and entry.under:
        below = build(entry.under)
        if isinstance(below, GpuFacts):
            yield from contradictions(fact, below)


def _ahead(fact: Fact, today: date) -> Iterator[Odd]:
    if fact.as_of > today:
        message = f"is dated {fact.as_of}, after today ({today}): is this machine's clock right?"
        yield Odd(field="as_of", message=message)


def _doubt(entry: CatalogEntry, odd: Odd) -> Doubt:
    words = " ".join(str(part) for part in entry.key(entry.section.key) if part)
    message = f"{entry.section.name}: {words}: {odd.field}: {odd.message}"
    return Doubt(where=entry.place(odd.field), message=message, dropped=odd.impossible)


def _table(name: str, built: Iterable[_Built]) -> Any:
    section = SECTIONS[name]
    if section.by_id:
        return {str(each.entry.values[section.key[0]]): each.fact for each in built}
    return tuple(each.fact for each in built)
