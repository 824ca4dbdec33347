"""Numbers and words on the command line: counts, shares, times, ranges such as `2.10..2.60`, and lists.

Every reader returns the value, or a Problem that names the flag and a form that works; nothing is guessed. It knows no
flag's meaning: functions in lower case with bounds make a reader of their own.
"""

import math
import re
from collections.abc import Callable, Collection
from typing import TypeVar

from freehold.core.problems import Problem, nearest_hint
from freehold.core.spread import Spread
from freehold.core.units import Unreadable, format_count, format_duration, parse_count, parse_duration_s

T = TypeVar("T")
Read = Callable[[str, str], T | Problem]
"""Reads a flag's text: the flag's name and the text give the value, or a problem of that flag."""
Bounds = tuple[float, float]
"""Least and most, both allowed."""
_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,2})?"
_UNITS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6}
"""Of an amount: a server for 310k, a year of engineers for 1.2M."""
_PLAIN = re.compile(_NUMBER)
_RATIO = re.compile(r"([0-9]+(?:\.[0-9]+)?):([0-9]+(?:\.[0-9]+)?)")
_RANGE = re.compile(rf"({_NUMBER})([kKM]?)(?:(?:\.\.|-)({_NUMBER})([kKM]?))?(%?)")


def read_count(flag: str, text: str) -> float | Problem:
    """Return a whole number above 0 for `1500`, `200k`, `900M`, `1.5B`."""
    return _above_nought(flag, text, parse_count(text))


def read_seconds(flag: str, text: str) -> float | Problem:
    """Return seconds above 0 for `500ms`, `2s`."""
    return _above_nought(flag, text, parse_duration_s(text))


def _above_nought(flag: str, text: str, found: float | Unreadable) -> float | Problem:
    if isinstance(found, Unreadable):
        return Problem(where=flag, message=f"{text!r} {found.message}")
    return float(found) if found > 0 else Problem(where=flag, message="must be more than 0")


def read_share(flag: str, text: str) -> float | Problem:
    """Return 0 to 1 for `0.3` or `30%`."""
    return _one(flag, text, read_range(flag, text, most=1.0), hint="one share, for example 30%")


def read_number(flag: str, text: str) -> float | Problem:
    """Return a number of at least 0, or a per cent as its fraction."""
    return _one(flag, text, read_range(flag, text), hint="one number, for example 2.5")


def _one(flag: str, text: str, found: Spread | Problem, *, hint: str) -> float | Problem:
    if isinstance(found, Problem) or found.low == found.high:
        return found if isinstance(found, Problem) else found.mid
    return Problem(where=flag, message=f"{text!r} is a range", hint=hint)


def read_range(flag: str, text: str, *, most: float = math.inf) -> Spread | Problem:
    """Return the spread of `2.10`, `1.80..2.60`, `5%..10%` or `290k..310k`: one number is known exactly, two are its 5 % and 95 %."""
    found = _RANGE.fullmatch(text.strip().replace("_", ""))
    if found is None:
        hint = "a number such as 2.10 or 310k, a range such as 1.80..2.60, or a per cent such as 30%"
        return Problem(where=flag, message=f"{text!r} is not a number or a range", hint=hint)
    scale = 0.01 if found[5] else 1.0
    low = float(found[1]) * _UNITS[found[2]] * scale
    high = float(found[3]) * _UNITS[found[4]] * scale if found[3] else low
    if not math.isfinite(high) or max(low, high) > most:
        hint = f"at most {most:g}" if math.isfinite(most) else "a smaller number"
        return Problem(where=flag, message=f"{text!r} is too large", hint=hint)
    if low > high:
        return Problem(where=flag, message=f"{text!r}: the range is reversed", hint="low..high")
    return Spread.exactly(low) if low == high else Spread.between(low, high)


def _checked(read: Read[T], holds: Callable[[T], bool], wrong: Callable[[str, str], Problem]) -> Read[T]:
    """Return a reader of the same that has a problem with values for which something does not hold."""

    def checked(flag: str, text: str) -> T | Problem:
        found = read(flag, text)
        return found if isinstance(found, Problem) or holds(found) else wrong(flag, text)

    return checked


def spread(bounds: Bounds) -> Read[Spread]:
    """Return a reader of one number or a range within these bounds."""
    low, high = bounds
    return _checked(read_range, lambda found: low <= found.low <= found.high <= high, _outside(bounds))


def number(bounds: Bounds) -> Read[float]:
    """Return a reader of one number within these bounds."""
    return _checked(read_number, lambda found: bounds[0] <= found <= bounds[1], _outside(bounds))


def count(most: float) -> Read[float]:
    """Return a reader of a count above 0, such as `900M`, and at most this."""
    return _checked(read_count, lambda found: found <= most, _too_much(format_count(int(most))))


def whole(most: float) -> Read[int]:
    """Return a reader of a whole number of at least 0 and at most this."""
    within = _checked(read_number, lambda found: found <= most, _too_much(format_count(int(most))))

    def read(flag: str, text: str) -> int | Problem:
        found = within(flag, text)
        if isinstance(found, Problem) or found == int(found):
            return found if isinstance(found, Problem) else int(found)
        return Problem(where=flag, message=f"{text!r} must be a whole number")

    return read


def seconds(least: float, most: float) -> Read[float]:
    """Return a reader of a time such as `500ms` within these bounds, seconds; below 0 for the least: 0s is allowed."""
    within = _checked(read_seconds, lambda found: found <= most, _too_much(format_duration(most)))
    return lambda flag, text: 0.0 if least < 0 and parse_duration_s(text) == 0 else within(flag, text)


def above_nought(most: float, *, whole: bool = False) -> Read[float]:
    """Return a reader of a plain number above 0 and at most this."""
    kind = "whole numbers" if whole else "numbers"

    def read(flag: str, text: str) -> float | Problem:
        value = float(text) if _PLAIN.fullmatch(text) else math.nan
        if 0 < value <= most and not (whole and value != int(value)):
            return value
        message = f"{text!r} is not among the {kind} above 0 up to {most:g}"
        return Problem(where=flag, message=message, hint="for example 1,2,4,8")

    return read


def tokens(most: float) -> Read[tuple[int, int]]:
    """Return a reader of `512`, or of `100..900`, as a range of whole numbers of at least 1."""

    def read(flag: str, text: str) -> tuple[int, int] | Problem:
        low_text, _, high_text = text.partition("..")
        found = [read_count(flag, each.strip()) for each in (low_text, high_text or low_text)]
        for each in found:
            if isinstance(each, Problem):
                return each
        low, high = (int(each) for each in found if not isinstance(each, Problem))
        if low <= high <= most:
            return low, high
        hint = f"from less to more, at most {most:,.0f}"
        return Problem(where=flag, message=f"{text!r} is not a range of tokens", hint=hint)

    return read


def read_mix(flag: str, text: str) -> float | Problem:
    """Return the first part's share of both for `3:1`."""
    parts = _RATIO.fullmatch(text.strip())
    total = float(parts[1]) + float(parts[2]) if parts else 0.0
    if parts is None or total == 0:
        return Problem(where=flag, message=f"{text!r} is not a ratio", hint="for example 3:1")
    return float(parts[1]) / total


def _too_much(most: str) -> Callable[[str, str], Problem]:
    return lambda flag, text: Problem(
        where=flag, message=f"{text!r} is too much to work out", hint=f"at most {most}"
    )


def one_of(known: Collection[str]) -> Read[str]:
    """Return a reader of one of these words."""

    def read(flag: str, text: str) -> str | Problem:
        word = text.strip()
        if word in known:
            return word
        return Problem(where=flag, message=f"{word!r} is not known", hint=nearest_hint(word, known))

    return read


def several(read: Read[T]) -> Read[tuple[T, ...]]:
    """Return a reader of values with commas between them; the first that cannot be read is the problem."""

    def read_all(flag: str, text: str) -> tuple[T, ...] | Problem:
        found: list[T] = []
        for word in (part.strip() for part in text.split(",") if part.strip()):
            value = read(flag, word)
            if isinstance(value, Problem):
                return value
            found.append(value)
        return tuple(found)

    return read_all


def _outside(bounds: Bounds) -> Callable[[str, str], Problem]:
    hint = f"from {_shown(bounds[0])} to {_shown(bounds[1])}; is it another unit?"
    return lambda flag, text: Problem(where=flag, message=f"{text!r} is out of bounds", hint=hint)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"
