"""Rows as typed entries: every field read, unknown ones named, users' rows laid over what was there.

An entry may still lack fields; only what is left after all files is asked for them. Whether values are plausible is
not asked here: see `physics`.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from freehold.catalog.facts import Fact, GpuFacts, Verified
from freehold.catalog.fields import Field, Wrong, fields_of
from freehold.catalog.rows import FactRow
from freehold.catalog.sections import PRICE_FIELDS, SECTIONS, FactSection
from freehold.core.problems import Problem, nearest_hint


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """A row with typed values, and where each was written."""

    section: FactSection
    values: Mapping[str, object]
    places: Mapping[str, str]
    where: str
    under: "CatalogEntry | None" = None
    """What it was laid over: used where this turns out to be impossible."""

    def place(self, field: str) -> str:
        """Return `file:line:column` of a field's value, or of the row where the field is not written."""
        return self.places.get(field, self.where)

    def key(self, fields: Iterable[str]) -> tuple[object, ...]:
        """Return the values of these fields."""
        return tuple(self.values.get(field) for field in fields)


def read_rows(rows: Iterable[FactRow], *, user_day: date | None) -> tuple[list[CatalogEntry], list[Problem]]:
    """Return an entry per row that can be identified, and every wrong or unknown field.

    `user_day` is None for shipped rows; for a user's it is the date that they get: source, date and
    verification may then be left out.
    """
    entries: list[CatalogEntry] = []
    problems: list[Problem] = []
    for row in rows:
        values = _values(row, problems)
        section = SECTIONS[row.section]
        if user_day is not None:
            values = _signed(values, row, user_day)
        values = {**{key: value for key, value in section.fill.items() if key not in values}, **values}
        untold = [key for key in section.key if key not in values and fields_of(section.kind)[key].required]
        if not untold:
            entries.append(CatalogEntry(section=section, values=values, places=row.places, where=row.where))
        problems += [
            Problem(where=row.where, message=f"{section.name}: a row has no {key}")
            for key in untold
            if key not in row.values
        ]
    problems += _doubles(entries)
    return entries, problems


def _values(row: FactRow, problems: list[Problem]) -> dict[str, object]:
    known = _known(SECTIONS[row.section].kind)
    values: dict[str, object] = {}
    for name, raw in row.values.items():
        if name not in known:
            message = f"{row.section}: unknown field {name!r}"
            where = row.keys.get(name, row.place(name))
            problems.append(Problem(where=where, message=message, hint=nearest_hint(name, known)))
            continue
        value = known[name].read(raw)
        if isinstance(value, Wrong):
            where = row.place(name)
            problems.append(
                Problem(where=where, message=f"{row.section}: {name} {value.message}", hint=value.hint)
            )
        else:
            values[name] = value
    return values


def _known(kind: type[Fact]) -> Mapping[str, Field]:
    """Return what a row of this kind may say; a GPU's price is said with its own source and date."""
    fields = fields_of(kind)
    if kind is not GpuFacts:
        return fields
    signed = fields_of(Fact)
    return {name: each for name, each in fields.items() if name != "price"} | {
        f"price_{name}": signed[name] for name in PRICE_FIELDS
    }


def _signed(values: dict[str, object], row: FactRow, user_day: date) -> dict[str, object]:
    """Return a user's values with source, date and verification: of the row, and of a GPU's price.

    In a row that only has a GPU's price, `source`, `as_of` and `verified` are the price's.
    """
    line = row.where.rpartition(":")[0]
    own = {"source": line, "as_of": user_day, "verified": Verified.USER}
    if SECTIONS[row.section].kind is not GpuFacts:
        return own | values
    says_more = any(
        name not in {"id", "note", *PRICE_FIELDS} and not name.startswith("price_") for name in values
    )
    if "price_new_usd" in values:
        signed = (
            own if says_more else own | {name: values.pop(name) for name in PRICE_FIELDS if name in values}
        )
        values = {f"price_{name}": value for name, value in signed.items()} | values
    return own | values if says_more else values


def _doubles(entries: Iterable[CatalogEntry]) -> list[Problem]:
    first: dict[tuple[object, ...], CatalogEntry] = {}
    problems = []
    for entry in entries:
        identity = (entry.section.name, *entry.key(entry.section.identity or entry.section.key))
        before = first.setdefault(identity, entry)
        if before is not entry:
            words = " ".join(str(part) for part in identity[1:] if part)
            message = f"{entry.section.name}: {words!r} stands here a second time"
            problems.append(
                Problem(where=entry.where, message=message, hint=f"the first is at {before.where}")
            )
    return problems


def lay_over(base: list[CatalogEntry], added: Iterable[CatalogEntry]) -> list[CatalogEntry]:
    """Return `base` with a user's rows: fields replaced in the row that has the key (the newest of several), else added."""
    result = list(base)
    for entry in added:
        matching = [each for each in base if _same(each, entry)]
        result = [each for each in result if each not in matching]
        newest = max(matching, key=lambda each: str(each.values.get("as_of")), default=None)
        result.append(_merged(newest, entry) if newest else entry)
    return result


def _same(base: CatalogEntry, entry: CatalogEntry) -> bool:
    return base.section is entry.section and all(
        base.values.get(key) == entry.values[key] for key in entry.section.key if key in entry.values
    )


def _merged(base: CatalogEntry, entry: CatalogEntry) -> CatalogEntry:
    return dataclasses.replace(
        entry,
        values={**base.values, **entry.values},
        places={**base.places, **entry.places},
        under=base,
    )


def admitted(
    base: Iterable[CatalogEntry], added: Iterable[CatalogEntry]
) -> tuple[list[CatalogEntry], list[Problem]]:
    """Return the added rows that may be laid over `base`, and a problem per row that is new where none may be."""
    known: dict[str, list[str]] = {}
    for entry in base:
        known.setdefault(entry.section.name, []).append(str(entry.values[entry.section.key[0]]))
    welcome, problems = [], []
    for entry in added:
        field, names = entry.section.key[0], known.get(entry.section.name, [])
        name = str(entry.values[field])
        if entry.section.closed and name not in names:
            message = f"{entry.section.name}: there is no {name!r}"
            problems.append(
                Problem(where=entry.place(field), message=message, hint=nearest_hint(name, names))
            )
        else:
            welcome.append(entry)
    return welcome, problems


def missing(entry: CatalogEntry) -> list[Problem]:
    """Return a problem per field that the entry must have and has not."""
    section = entry.section
    there = {*entry.values, *entry.places}  # a field that was written wrong is a problem already
    lacking = [name for name, each in fields_of(section.kind).items() if each.required and name not in there]
    names = [str(entry.values[key]) for key in section.key if key in entry.values and key not in section.fill]
    row, hint = (
        " ".join(names),
        "" if entry.under else "a row that is not known yet must have it: docs/prices.md",
    )
    return [
        Problem(where=entry.where, message=f"{section.name}: {row!r} has no {name}", hint=hint)
        for name in lacking
    ]


def build(entry: CatalogEntry) -> Fact:
    """Return the fact of an entry that lacks nothing."""
    fields = fields_of(entry.section.kind)
    values: dict[str, Any] = {name: None for name, each in fields.items() if each.unknown_as_none} | dict(
        entry.values
    )
    if entry.section.kind is GpuFacts:
        signed = {name: values.pop(f"price_{name}", values[name]) for name in PRICE_FIELDS}
        if values.get("price_new_usd") is not None:
            values["price"] = Fact(**signed)
    fact = entry.section.kind(**values)
    assert isinstance(fact, Fact)
    return fact
