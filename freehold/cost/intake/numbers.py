"""Numbers on the command line of `plan`, `size` and `review`: counts, shares, times, and ranges such as `2.10..2.60`.

Every reader returns the value, or a Problem that names the flag and a form that works; nothing is guessed. It knows no
flag's meaning.
"""

import math
import re
from collections.abc import Callable
from typing import TypeVar

from freehold.core.problems import Problem
from freehold.core.spread import Spread
from freehold.core.units import Unreadable, parse_count, parse_duration_s

T = TypeVar("T")
_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,2})?"
_UNITS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6}
"""Of an amount: a server for 310k, a year of engineers for 1.2M."""
_RANGE = re.compile(rf"({_NUMBER})([kKM]?)(?:(?:\.\.|-)({_NUMBER})([kKM]?))?(%?)")


def read_count(flag: str, text: str) -> float | Problem:
    """Return a whole number above 0 for `1500`, `200k`, `900M`, `1.5B`."""
    found = parse_count(text)
    if isinstance(found, Unreadable):
        return Problem(where=flag, message=f"{text!r} {found.message}")
    if found == 0:
        return Problem(where=flag, message="must be more than 0")
    return float(found)


def read_seconds(flag: str, text: str) -> float | Problem:
    """Return seconds above 0 for `500ms`, `2s`."""
    found = parse_duration_s(text)
    if isinstance(found, Unreadable):
        return Problem(where=flag, message=f"{text!r} {found.message}")
    if found <= 0:
        return Problem(where=flag, message="must be more than 0")
    return found


def read_share(flag: str, text: str) -> float | Problem:
    """Return 0 to 1 for `0.3` or `30%`."""
    found = read_range(flag, text, most=1.0)
    if isinstance(found, Problem):
        return found
    if found.low != found.high:
        return Problem(where=flag, message=f"{text!r}: one share, not a range", hint="for example 30%")
    return found.mid


def read_number(flag: str, text: str) -> float | Problem:
    """Return a number of at least 0, or a per cent as its fraction."""
    found = read_range(flag, text)
    if isinstance(found, Problem):
        return found
    if found.low != found.high:
        return Problem(where=flag, message=f"{text!r}: one number, not a range", hint="for example 2.5")
    return found.mid


def read_range(flag: str, text: str, *, most: float = math.inf) -> Spread | Problem:
    """Return the spread of `2.10`, `1.80..2.60`, `5%..10%` or `290k..310k`: one number is known exactly, two are its 5 % and 95 %."""
    found = _RANGE.fullmatch(text.strip().replace("_", ""))
    if found is None:
        hint = "a number such as 2.10 or 310k, a range such as 1.80..2.60, or a per cent such as 30%"
        return Problem(where=flag, message=f"{text!r} is no number or range", hint=hint)
    scale = 0.01 if found[5] else 1.0
    low = float(found[1]) * _UNITS[found[2]] * scale
    high = float(found[3]) * _UNITS[found[4]] * scale if found[3] else low
    if not math.isfinite(high) or max(low, high) > most:
        hint = f"at most {most:g}" if math.isfinite(most) else "a smaller number"
        return Problem(where=flag, message=f"{text!r} is too large", hint=hint)
    if low > high:
        return Problem(where=flag, message=f"{text!r}: the first is above the second", hint="low..high")
    return Spread.exactly(low) if low == high else Spread.between(low, high)


class Reader:
    """Reads flags one after the other and keeps every problem."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def __repr__(self) -> str:
        return f"<Reader {len(self.problems)} problems>"

    def take(self, read: Callable[[str, str], T | Problem], flag: str, text: str | None) -> T | None:
        """Return the flag's value; None where it was not given or cannot be read."""
        if text is None:
            return None
        found = read(flag, text)
        if isinstance(found, Problem):
            self.problems.append(found)
            return None
        return found

    def wrong(self, flag: str, message: str, hint: str = "") -> None:
        """Note a problem."""
        self.problems.append(Problem(where=flag, message=message, hint=hint))
