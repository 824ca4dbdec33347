"""Options of a command, made of a table of flags (flags.toml of cost/intake and of bench). It reads no value."""

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from freehold.cost.intake.flags import Flag


class _Renamed(click.Option):
    """An option whose former names still work and are not shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the option as help shows it: by its name of today."""
        shown = copy.copy(self)
        shown.opts = self.opts[:1]
        return super(_Renamed, shown).get_help_record(ctx)


def flag_options(flags: Iterable[Flag]) -> Callable[[Any], Any]:
    """Return a decorator that adds these flags, in their order; texts are read later, all at once."""

    def add(command: Any) -> Any:
        for flag in reversed(list(flags)):
            kind = click.Path(path_type=Path) if flag.reads == "path" else None
            option = click.option(
                flag.name, *flag.former, flag.param, cls=_Renamed, type=kind, metavar=flag.metavar,
                help=flag.help, multiple=flag.several,
            )  # fmt: skip
            command = option(command)
        return command

    return add


def given_flags(flags: Iterable[Flag], given: dict[str, Any]) -> tuple[str, ...]:
    """Return those of these flags that were given with their values, to be pasted again."""
    words: list[str] = []
    for flag in flags:
        value = given.get(flag.param)
        several = value if isinstance(value, tuple) else (value,)
        words += [word for each in several if each not in (None, "") for word in (flag.name, str(each))]
    return tuple(words)
