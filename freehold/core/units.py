"""Durations, bytes and counts as people write them, and back: `1h30m`, `16MiB`, `900M`.

Every reader is total: it returns the value, or `Unreadable` with the reason in words. A unit is always asked for
where leaving it out would let two people read two things (`10` is no duration, `10M` is no size). Every writer is
exact: what it writes is read back as the same value. Rounding for people's eyes is not done here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
# Fifteen digits before the point: every whole number up to there is exact in a float (2**53 is 9.007e15).
_DURATION_UNITS_US: Mapping[str, int] = {
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
# SI prefixes are powers of 1000, IEC prefixes powers of 1024 (IEC 80000-13:2008, section 4).
_BYTE_UNITS: Mapping[str, int] = {
    "TiB": 1024**4,
    "TB": 1000**4,
    "GiB": 1024**3,
    "GB": 1000**3,
    "MiB": 1024**2,
    "MB": 1000**2,
    "KiB": 1024,
    "kB": 1000,
    "B": 1,
}
_BYTE_SPELLINGS: Mapping[str, int] = {**_BYTE_UNITS, "KB": 1000}
# B and T as in "tokens": billions and trillions; G is the SI word for the same.
_COUNT_UNITS: Mapping[str, int] = {"T": 1000**4, "B": 1000**3, "M": 1000**2, "k": 1000, "": 1}
_COUNT_SPELLINGS: Mapping[str, int] = {**_COUNT_UNITS, "K": 1000, "G": 1000**3}

_DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?Z?)?")
DURATION_PATTERN = rf"^({_NUMBER}(d|h|ms|m|s|us))+$"
"""What a duration looks like, as a regular expression that JSON Schema (ECMA 262) understands too."""
BYTES_PATTERN = rf"^{_NUMBER}({'|'.join(_BYTE_SPELLINGS)})$"
"""What a size in bytes looks like, in the same dialect."""
COUNT_PATTERN = rf"^{_NUMBER}({'|'.join(unit for unit in _COUNT_SPELLINGS if unit)})?$"
"""What a count looks like, in the same dialect."""

_DURATION = re.compile(DURATION_PATTERN.replace("$", r"\Z"))
_DURATION_PART = re.compile(rf"({_NUMBER})(d|h|ms|m|s|us)")
_BYTES = re.compile(rf"({_NUMBER})({'|'.join(_BYTE_SPELLINGS)})\Z")
_COUNT = re.compile(rf"({_NUMBER})({'|'.join(unit for unit in _COUNT_SPELLINGS if unit)})?\Z")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A text that is no such quantity; `message` continues the sentence "X ..." and names a form that works."""

    message: str


def parse_duration_s(text: str) -> float | Unreadable:
    """Return seconds for `20s`, `500ms`, `2m`, `1h30m`, `1.5h`; parts go from the largest unit to the smallest.

    Limits: 15 digits before and 9 after the point of each part; never negative. No unit is `Unreadable`.
    """
    if not _DURATION.match(text):
        return Unreadable("must be a duration such as 500ms, 20s, 2m or 1h30m")
    parts = [(Decimal(number), _DURATION_UNITS_US[unit]) for number, unit in _DURATION_PART.findall(text)]
    sizes = [size for _, size in parts]
    if sizes != sorted(set(sizes), reverse=True):
        return Unreadable("must name each unit once, largest first, as in 1h30m")
    return float(sum((number * size for number, size in parts), Decimal(0)) / 1_000_000)


def format_duration(value_s: float) -> str:
    """Return the shortest exact text for seconds, to the microsecond: `1h30m`, `1.5s`, `200ms`, `0s`.

    Limit: `value_s` is finite and at least 0.
    """
    rest_us = round(value_s * 1_000_000)
    if rest_us < 1_000_000:
        return _small_duration(rest_us)
    text = ""
    for unit in ("d", "h", "m"):
        whole, rest_us = divmod(rest_us, _DURATION_UNITS_US[unit])
        text += f"{whole}{unit}" if whole else ""
    return text + (f"{_decimal(rest_us, 1_000_000)}s" if rest_us else "")


def parse_time_us(text: str, now_s: float) -> int | None:
    """Return Unix microseconds for `2026-11-24`, `2026-11-24T10:00Z` (UTC) or `7d` (that long ago); None: unreadable."""
    if _DATE.fullmatch(text):
        try:
            return int(datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC).timestamp() * 1e6)
        except ValueError:
            return None
    ago_s = parse_duration_s(text)
    return None if isinstance(ago_s, Unreadable) else int((now_s - ago_s) * 1e6)


def _small_duration(value_us: int) -> str:
    if value_us == 0:
        return "0s"
    return f"{value_us}us" if value_us < 1000 else f"{_decimal(value_us, 1000)}ms"


def parse_bytes(text: str) -> int | Unreadable:
    """Return bytes for `64KiB` (1024s), `10MB` (1000s), `1.5GiB`, `512B`, rounded to the nearest whole byte.

    `10M` and `10` are `Unreadable`: the first could be either, the second anything.
    """
    found = _BYTES.match(text)
    if not found:
        return Unreadable("must be a size in bytes such as 64KiB, 16MiB, 1.5GiB or 10MB")
    return round(Decimal(found[1]) * _BYTE_SPELLINGS[found[2]])


def format_bytes(value_bytes: int) -> str:
    """Return an exact text in the largest unit that needs at most three decimals: `16MiB`, `1.5GiB`, `1331B`.

    Limit: `value_bytes` is at least 0.
    """
    return _largest_exact(value_bytes, _BYTE_UNITS)


def parse_count(text: str) -> int | Unreadable:
    """Return a whole number for `1500`, `200k`, `900M`, `1.5B` (10**9; also `G`), `2T` (10**12).

    `0.5` is `Unreadable`: a count is whole.
    """
    found = _COUNT.match(text)
    value = Decimal(found[1]) * _COUNT_SPELLINGS[found[2] or ""] if found else Decimal("0.5")
    if value != value.to_integral_value():
        return Unreadable("must be a whole number such as 1500, 200k, 900M or 1.5B")
    return int(value)


def format_count(value: int) -> str:
    """Return an exact text in the largest unit that needs at most three decimals: `900M`, `1.5B`, `1234567`.

    Limit: `value` is at least 0.
    """
    return _largest_exact(value, _COUNT_UNITS)


def _largest_exact(value: int, units: Mapping[str, int]) -> str:
    for unit, size in units.items():  # from the largest to the smallest
        if value >= size and value * 1000 % size == 0:
            return _decimal(value, size) + unit
    return "0" + list(units)[-1]


def _decimal(value: int, size: int) -> str:
    """Return `value / size` in plain decimal notation, without a trailing zero or point."""
    text = f"{Decimal(value) / size:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
