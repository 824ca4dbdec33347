"""The flags of a named version of a program, as data: what may be set, how it is checked and how it is written down.

`flags/PROGRAM-VERSION.json` was taken from the program's own parser. A user writes a flag under its own name with `_`
for `-`, so that what stands in the program's documentation can be written down in freehold.yaml. It starts nothing and
asks no program: what an installed program of another version knows is found out elsewhere.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec

from freehold.engines.base import Option, OptionType, Value
from freehold.engines.shared.option_check import split_values

FlagType = Literal["int", "float", "str", "bool", "json", "list"]
_OPTION_TYPES: dict[FlagType, OptionType] = {
    "int": "int",
    "float": "float",
    "str": "str",
    "bool": "bool",
    "json": "str",
    "list": "str",
}
_FORMS = {
    "json": "a mapping, or JSON as one text",
    "list": "a list, or one text with blanks between the values",
}


class ProgramFlag(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One flag of a program."""

    flag: str
    """As the program writes it: `--max-num-seqs`."""
    type: FlagType
    """`list`: several values; `json`: one text that is JSON."""
    items: Literal["int", "float", "str"] = "str"
    """Of a list: what each value is."""
    choices: tuple[str | int, ...] = ()
    default: int | float | str | bool | list[int | float | str | bool] | dict[str, object] | None = None
    """None: none, or worked out by the program when it starts."""
    negatable: bool = False
    """Of a bool: there is `--no-max-…` as well; else its absence is False."""
    repeats: bool = False
    """Of a list: the flag is given once per value, not once with all of them behind it."""
    aliases: tuple[str, ...] = ()
    """Other spellings of the flag; in freehold.yaml it has one name, and these are told where it stands."""

    @property
    def name(self) -> str:
        """Return the option's name in freehold.yaml: `max_num_seqs`."""
        return option_name(self.flag)

    @property
    def names(self) -> tuple[str, ...]:
        """Return what all its spellings are called in freehold.yaml, its own first."""
        return (self.name, *map(option_name, self.aliases))


class FlagList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All flags of one version of one program."""

    program: str
    """Such as `vllm serve`."""
    version: str
    source: str
    """Where the list was taken from, and how."""
    flags: tuple[ProgramFlag, ...]
    file_keys: tuple[str, ...] = ()
    """Top-level keys of the file of settings that the program reads besides; empty: it reads none, or they are not recorded."""

    def with_new(self, other: "FlagList") -> "FlagList":
        """Return this with the flags and keys of a newer version that it does not have, by any of their spellings."""
        known = {flag.name for flag in self.flags}
        new = tuple(flag for flag in other.flags if known.isdisjoint(flag.names))
        keys = (*self.file_keys, *(key for key in other.file_keys if key not in self.file_keys))
        return msgspec.structs.replace(self, flags=(*self.flags, *new), file_keys=keys)


def option_name(flag: str) -> str:
    """Return what a flag is called in freehold.yaml: `max_num_seqs` for `--max-num-seqs`."""
    return flag.lstrip("-").replace("-", "_").lower()


@cache
def load_flags(file: str) -> FlagList:
    """Return the list in `freehold/engines/flags/<file>`; raises OSError or msgspec.DecodeError for a broken package."""
    text = files("freehold.engines").joinpath("flags", file).read_bytes()
    return msgspec.json.decode(text, type=FlagList)


def to_options(
    flags: Iterable[ProgramFlag], *, helps: Mapping[str, str], reserved: Iterable[str] = ()
) -> tuple[Option, ...]:
    """Return the flags as options, but for those whose names are reserved; `helps` says in our words what some set."""
    left_out = frozenset(reserved)
    return tuple(_to_option(flag, helps.get(flag.name, "")) for flag in flags if flag.name not in left_out)


def other_names(flags: Iterable[ProgramFlag]) -> dict[str, str]:
    """Return for each other spelling of a flag what to write instead, as `Engine.reserved` wants it."""
    return {option_name(alias): f"write {flag.name}" for flag in flags for alias in flag.aliases}


def _to_option(flag: ProgramFlag, said: str) -> Option:
    known = flag.default is not None and not isinstance(flag.default, list | dict)
    usual = f"; the program's own default: {flag.default}" if known else ""
    form = f" ({_FORMS[flag.type]})" if flag.type in _FORMS else ""
    return Option(
        name=flag.name,
        type=_OPTION_TYPES[flag.type],
        help=f"{said or 'see the documentation of ' + flag.flag}{form}{usual}",
        choices=tuple(map(str, flag.choices)) if flag.type in ("str", "int", "list") else (),
        items=flag.items if flag.type == "list" and (flag.items != "str" or flag.choices) else "",
        json="any" if flag.type == "json" else "",
        flag=flag.flag,
    )


def render_flags(flags: Iterable[ProgramFlag], options: Mapping[str, Value]) -> list[str]:
    """Return the words of the command line that set these options, in the order of the list.

    Options that are no flags of the list are left out: they are the engine file's own.
    """
    words: list[str] = []
    for flag in flags:
        if flag.name in options:
            words += _words(flag, options[flag.name])
    return words


def _words(flag: ProgramFlag, value: Value) -> list[str]:
    if flag.type == "bool":
        no = f"--no-{flag.flag.lstrip('-')}"
        return [flag.flag] if value else [no] if flag.negatable else []
    if flag.type != "list":
        return [f"{flag.flag}={value}"]  # one word: a value may begin with a `-`
    values = split_values(str(value))
    return [f"{flag.flag}={each}" for each in values] if flag.repeats else [flag.flag, *values]
