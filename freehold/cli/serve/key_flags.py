"""The flags of `freehold key create` read into a record: every mistake among them is found before anything is written.

It looks at the flags, the configured models and the names that are taken; it makes no key and touches no file.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from freehold.core import units
from freehold.core.problems import Problem, nearest_hint
from freehold.cost.intake.flags import FlagReader
from freehold.cost.intake.numbers import Read
from freehold.gateway.callers.keys import NAME_CHARS_MAX, PRIORITY_FIRST, PRIORITY_LAST, WEIGHT_MAX, KeyLimits

_LONGEST_S = 10 * 366 * 24 * 3600
"""A key lives at most ten years from now. Source: own choice: a longer one is a slip of the keyboard."""

_LONGEST_TIMEOUT_S = 24 * 3600  # Source: our own bound, as of `gateway.timeouts`.


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a new key is to be."""

    name: str
    limits: KeyLimits
    expires_s: int | None


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags that say what a key may do."""
    for name, metavar, text in reversed(_OPTIONS):
        command = click.option(name, metavar=metavar, help=text)(command)
    return command


_OPTIONS = (
    ("--rpm", "COUNT", "Requests a minute, for example 60."),
    ("--tpm", "COUNT", "Tokens a minute, prompt and answer together, for example 40k."),
    ("--concurrency", "COUNT", "Requests under way at once."),
    ("--monthly-tokens", "COUNT", "Tokens a calendar month (UTC), for example 50M."),
    (
        "--monthly-usd",
        "AMOUNT",
        "US dollars a calendar month (UTC), for requests that have a price, for example 12.50.",
    ),
    (
        "--fallback",
        "allow|never",
        "Whether its requests may go to fallbacks outside of this stack [default: allow].",
    ),
    ("--models", "A,B", "The models that the key may use [default: all]."),
    (
        "--priority",
        "NUMBER",
        "Whose requests are served first when requests wait: lower first, -20 to 19 [default: 0].",
    ),
    ("--weight", "COUNT", f"Share beside other keys of the same priority, 1 to {WEIGHT_MAX} [default: 1]."),
    (
        "--timeout",
        "TIME",
        "Within which time an answer must be whole where a request does not say, for example 30s.",
    ),
    ("--expires", "WHEN", "For how long it is good, for example 90d, or until which day (UTC), 2027-01-31."),
)


def read_flags(
    name: str,
    flags: Mapping[str, str | None],
    *,
    models: Collection[str],
    taken: Collection[str],
    wall_s: float,
) -> Wanted | list[Problem]:
    """Return the wanted key, or every problem. `flags` are as they were written, by name; None: not given."""
    reader = FlagReader()
    reader.problems += _name_problems(name, taken)
    readers: dict[str, tuple[str, Read[Any]]] = {
        "requests_per_minute": ("rpm", _count),
        "tokens_per_minute": ("tpm", _count),
        "concurrency": ("concurrency", _count),
        "monthly_tokens": ("monthly_tokens", _count),
        "weight": ("weight", _count),
        "models": ("models", lambda flag, text: _models(flag, text, models)),
        "monthly_microusd": ("monthly_usd", _microusd),
        "fallback": ("fallback", _fallback),
        "priority": ("priority", _priority),
        "timeout_s": ("timeout", _timeout),
        "expires_s": ("expires", lambda flag, text: _expiry(flag, text, wall_s)),
    }
    limits = {
        field: reader.take(read, f"--{flag.replace('_', '-')}", flags[flag])
        for field, (flag, read) in readers.items()
    }
    if reader.problems:
        return reader.problems
    expires_s = limits.pop("expires_s")
    given = {field: value for field, value in limits.items() if value is not None}
    return Wanted(name=name, limits=msgspec.convert(given, KeyLimits), expires_s=expires_s)


def _name_problems(name: str, taken: Collection[str]) -> Iterator[Problem]:
    if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > NAME_CHARS_MAX:
        yield Problem(
            where="NAME",
            message=f"must be 1 to {NAME_CHARS_MAX} visible characters",
            hint="name the person or program that will use the key",
        )
    elif name in taken:
        yield Problem(
            where="NAME",
            message=f"there is a key {name!r}",
            hint="revoke that one first, or choose another name",
        )


def _count(flag: str, text: str) -> int | Problem:
    most = WEIGHT_MAX if flag == "--weight" else 10**12
    number = units.parse_count(text)
    if isinstance(number, units.Unreadable):
        return Problem(where=flag, message=number.message)
    if not 1 <= number <= most:
        return Problem(
            where=flag, message=f"must be between 1 and {units.format_count(most)}, not {text}",
            hint="leave the flag out for no limit" if flag != "--weight" else "",
        )  # fmt: skip
    return number


def _microusd(flag: str, text: str) -> int | Problem:
    """Return millionths of a dollar for dollars with at most six places."""
    found = re.fullmatch(r"([0-9]{1,9})(?:\.([0-9]{1,6}))?", text)
    amount = int(found[1]) * 10**6 + int((found[2] or "").ljust(6, "0")) if found else 0
    if amount:
        return amount
    return Problem(
        where=flag,
        message=f"must be US dollars above 0 with at most six places, not {text!r}",
        hint="leave the flag out for no limit",
    )


def _fallback(flag: str, text: str) -> bool | Problem:
    if text in {"allow", "never"}:
        return text == "allow"
    return Problem(where=flag, message=f"must be allow or never, not {text!r}")


def _models(flag: str, text: str, known: Collection[str]) -> list[str] | Problem:
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in known:
            return Problem(where=flag, message=f"there is no model {name!r}", hint=nearest_hint(name, known))
    return names


def _priority(flag: str, text: str) -> int | Problem:
    if re.fullmatch(r"[+-]?[0-9]{1,3}", text) and PRIORITY_FIRST <= int(text) <= PRIORITY_LAST:
        return int(text)
    return Problem(
        where=flag,
        message=f"must be a whole number from {PRIORITY_FIRST} to {PRIORITY_LAST}, not {text!r}",
        hint="lower is served first, 0 is usual",
    )


def _timeout(flag: str, text: str) -> float | Problem:
    value_s = units.parse_duration_s(text)
    if isinstance(value_s, units.Unreadable):
        return Problem(where=flag, message=value_s.message)
    if not 0 < value_s <= _LONGEST_TIMEOUT_S:
        return Problem(where=flag, message=f"must be above 0 and at most 24h, not {text}")
    return value_s


def _expiry(flag: str, text: str, wall_s: float) -> int | Problem:
    """Return Unix seconds for a duration from now or a day."""
    value_s = units.parse_duration_s(text)
    end_s = _day_s(text) if isinstance(value_s, units.Unreadable) else wall_s + value_s
    if end_s is None:
        return Problem(where=flag, message="must be a duration such as 12h or 90d, or a day as 2027-01-31")
    if not wall_s < end_s <= wall_s + _LONGEST_S:
        return Problem(where=flag, message="must lie in the next ten years", hint="leave it out for never")
    return int(end_s)


def _day_s(text: str) -> float | None:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
