"""Flags as data: a table says what each is called, how its text is read and what help says; all problems come at once.

The command line makes options of the table and passes what was given; a reader makes records of it. Nothing here knows what a flag
means.
"""

import tomllib
from collections.abc import Callable, Collection, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar, get_args

import msgspec

from freehold.core.problems import Problem
from freehold.cost.intake import numbers
from freehold.cost.intake.numbers import Bounds, Read
from freehold.cost.intake.rental_quotes import read_rentals
from freehold.sizing.model.words import Churn, Engine, Prefer, Quant

T = TypeVar("T")
ENGINES: tuple[str, ...] = get_args(Engine)
QUANTS: tuple[str, ...] = get_args(Quant)
SITES = ("colocation", "on-premises")
_WORDS: dict[str, Collection[str]] = {
    "engines": ENGINES,
    "quants": QUANTS,
    "sites": SITES,
    "prefers": [word for word in get_args(Prefer) if word],
    "churns": [word for word in get_args(Churn) if word],
    "kv_bits": ("8", "16"),
    "through": ("direct", "gateway", "both"),
}


class Flag(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One flag of the command line, as a table of flags has it."""

    metavar: str
    help: str
    reads: str = "text"
    """One of `READERS`."""
    least: float = 0.0
    most: float = 0.0
    among: str = ""
    """Which words it may be."""
    field: str = ""
    """Of the record that it fills; empty: named as the flag."""
    several: bool = False
    """Whether it can be given again; its value is then a tuple."""
    former: tuple[str, ...] = ()
    """Names that it had before: they still work, and help does not show them."""
    name: str = ""

    @property
    def param(self) -> str:
        """Return the name by which the command line passes it."""
        return self.name.removeprefix("--").replace("-", "_")

    @property
    def fills(self) -> str:
        """Return the field that it fills."""
        return self.field or self.param


READERS: dict[str, Callable[[Flag], Read[Any]]] = {
    "text": lambda _: lambda _name, text: text.strip(),
    "given": lambda _: lambda _name, text: text,
    "path": lambda _: lambda _name, path: path,
    "count": lambda flag: numbers.count(flag.most),
    "whole": lambda flag: numbers.whole(flag.most),
    "seconds": lambda flag: numbers.seconds(flag.least, flag.most),
    "share": lambda _: numbers.read_share,
    "number": lambda flag: numbers.number((flag.least, flag.most)),
    "numbers": lambda flag: numbers.several(numbers.above_nought(flag.most)),
    "wholes": lambda flag: numbers.several(numbers.above_nought(flag.most, whole=True)),
    "spread": lambda flag: numbers.spread((flag.least, flag.most)),
    "tokens": lambda flag: numbers.tokens(flag.most),
    "assumption": lambda flag: numbers.spread(assumption_bounds(flag.fills)),
    "word": lambda flag: numbers.one_of(_WORDS[flag.among]),
    "words": lambda flag: numbers.several(numbers.one_of(_WORDS[flag.among])),
    "names": lambda _: numbers.several(lambda _name, text: text),
    "mix": lambda _: numbers.read_mix,
    "rentals": lambda _: read_rentals,
}
"""How a flag's text is read: each makes a reader for a flag with its bounds."""


@cache
def _tables(package: str) -> dict[str, Any]:
    return tomllib.loads((files(package) / "flags.toml").read_text(encoding="utf-8"))


def flags_in(*sections: str, package: str = __package__) -> dict[str, Flag]:
    """Return the flags of these sections of a package's table by their names; a later row changes what it names of an earlier one."""
    rows: dict[str, dict[str, Any]] = {}
    for section in sections:
        for name, row in _tables(package)[section].items():
            rows[name] = {**rows.get(name, {}), **row}
    found = {}
    for name, row in rows.items():
        about = row["help"].replace("{among}", ", ".join(_WORDS.get(row.get("among", ""), ())))
        found[name] = msgspec.convert({**row, "name": name, "help": about}, Flag)
    return found


def own_flags(section: str, *, without: Collection[str]) -> dict[str, Flag]:
    """Return the flags that a section names, but for some that it shares with [plan]."""
    names = _tables(__package__)[section].keys() - without
    return {name: flag for name, flag in flags_in("plan", section).items() if name in names}


def assumption_bounds(name: str) -> Bounds:
    """Return between what an assumption must lie; what is a fraction by its name is between 0 and 1."""
    bounds = _tables(__package__)["bounds"]
    low, high = bounds.get(name) or bounds["fraction" if "_fraction" in name else "usd"]
    return low, high


class FlagReader:
    """Reads flags and keeps every problem."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def __repr__(self) -> str:
        return f"<FlagReader {len(self.problems)} problems>"

    def take(self, read: Read[T], name: str, said: str | None) -> T | None:
        """Return the flag's value; None where it was not given or cannot be read."""
        if said is None:
            return None
        found = read(name, said)
        if isinstance(found, Problem):
            self.problems.append(found)
            return None
        return found

    def wrong(self, where: str, message: str, hint: str = "") -> None:
        """Note a problem."""
        self.problems.append(Problem(where=where, message=message, hint=hint))

    def fields(self, flags: Mapping[str, Flag], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was given of these flags by the fields that they fill, as far as it can be read.

        `given` is what the command line passes, by the flags' parameter names.
        """
        found: dict[str, Any] = {}
        for name, flag in flags.items():
            said = given.get(flag.param)
            values = (said or ()) if flag.several else (said,)
            read = [self.take(READERS[flag.reads](flag), name, value) for value in values]
            kept = [value for value in read if value is not None]
            if kept:
                found[flag.fills] = tuple(kept) if flag.several else kept[0]
        return found
