"""Single values of a usage file as numbers and times. Every reader returns a plausible value or raises Unusable.

CSV brings everything as text, JSON brings types; both are read alike. Nothing is rounded, clamped or guessed.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from freehold.ledger.foreign.use import Record, Unusable

TOKENS_MAX = 10**15
"""Most tokens in one row. Source: our own bound: some thousand times what the largest published API serves in a day;
more is a misread column. Sums stay exact in a float (2**53 is 9.007e15) for any month that exists."""
USD_MAX = 10**9
"""Most money in one row, US dollars. Source: our own bound: more is a misread column."""
EARLIEST_S = 1_420_070_400
"""2015-01-01T00:00Z in Unix seconds. Source: our own bound: no LLM API is older; an earlier time is a misread unit."""
_MS_FROM = 10**11  # Unix seconds reach it in the year 5138, Unix milliseconds did in 1973.
_US_FROM = 10**14  # The same for milliseconds and microseconds.
_LARGEST = 1e300  # Beyond every amount; infinity and what is not a number compare as outside.
_OFFSET = re.compile(r"[T ].*[+-]\d\d(?::?\d\d)*\Z")  # ISO 8601, behind a time of day: a date ends alike.
_DATE_DIGITS = 9  # More than a date without dashes has.
_NUMBER_CHARS = 40  # Longer texts are no number of ours; int() itself refuses from 4,300 digits.
_NAME_CHARS = 120  # Most of a model's name that is kept.


def count(record: Record, name: str) -> int:
    """Return a whole number from 0 to TOKENS_MAX; `10.0`, as pandas writes integers, is one."""
    value = record.get(name)
    if type(value) is str:
        value = _number(value, name)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise Unusable(
            f"{name} is missing" if value is None or value == "" else f"{name} is not a whole number"
        )
    if value < 0:
        raise Unusable(f"{name} is negative")
    if value > TOKENS_MAX:
        raise Unusable(f"{name} is implausibly large")
    return value


def optional_count(record: Record, name: str) -> int | None:
    """Return a whole number, or None where the record has none."""
    value = record.get(name)
    return None if value is None or value == "" else count(record, name)


def money(value: Any, name: str) -> float | None:
    """Return US dollars of at least 0, or None where there is no value."""
    if value is None or value == "":
        return None
    found = number(value, name)
    if found < 0:
        raise Unusable(f"{name} is negative")
    if found > USD_MAX:
        raise Unusable(f"{name} is implausibly large")
    return found


def number(value: Any, name: str) -> float:
    """Return a finite number, written or typed."""
    found = _number(value, name) if type(value) is str else value
    # Compared before it is converted: an integer of a thousand digits is no float.
    if type(found) not in {int, float} or not -_LARGEST < found < _LARGEST:
        raise Unusable(f"{name} is not a number")
    return float(found)


def _number(text: str, name: str) -> int | float:
    if not text:
        raise Unusable(f"{name} is missing")
    if len(text) > _NUMBER_CHARS or "_" in text:
        raise Unusable(f"{name} is not a number")
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise Unusable(f"{name} is not a number") from None


def moment_s(record: Record, names: Iterable[str]) -> float:
    """Return the time of the first of these fields that is filled, in Unix seconds.

    Read are Unix seconds, milliseconds and microseconds, and ISO 8601; one without a zone is UTC. Raises Unusable where
    none is filled or readable, or the time lies before EARLIEST_S.
    """
    for name in names:
        value = record.get(name)
        if value is not None and value != "":
            found_s = _iso_s(value, name) if type(value) is str else _unix_s(value, name)
            if found_s < EARLIEST_S:
                raise Unusable(f"{name} lies before 2015")
            return found_s
    raise Unusable("it has no time")


def _iso_s(text: str, name: str) -> float:
    try:
        # Thirteen digits are a date, any letter and a time to Python, and milliseconds to everybody else.
        if text[:_DATE_DIGITS].isdecimal():
            return _unix_s(float(text), name)
        found = datetime.fromisoformat(text)
        # A zone that moves the first or last day of the calendar leaves it: OverflowError.
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Unusable(f"{name} is not a readable time") from None


def lacks_zone(record: Record, names: Iterable[str]) -> bool:
    """Return whether the first of these fields that is filled is a written time without a zone."""
    value = next((record[name] for name in names if record.get(name)), None)
    if type(value) is not str or value[:_DATE_DIGITS].isdecimal() or value[-1:] in {"Z", "z"}:
        return False
    return not _OFFSET.search(value)


def _unix_s(value: Any, name: str) -> float:
    if type(value) not in {int, float} or not 0 <= value < _US_FROM * 1000:
        raise Unusable(f"{name} is not a readable time")
    return float(value / 1e6 if value >= _US_FROM else value / 1e3 if value >= _MS_FROM else value)


def name_of(value: Any) -> str:
    """Return a model's name, cut to what fits a table; empty where there is none."""
    return value[:_NAME_CHARS] if type(value) is str else ""


def part_of(value: Any) -> Record:
    """Return a JSON object, or an empty one where it is something else."""
    return value if type(value) is dict else {}


def cached_within(cached: int | None, whole: int) -> int | None:
    """Return the cached tokens; raises Unusable where they are more than the input tokens that hold them."""
    if cached is not None and cached > whole:
        raise Unusable("more cached than input tokens")
    return cached
