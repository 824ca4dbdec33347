"""The tokens that each key has used in a calendar month, and their cost: what monthly budgets are compared with.

Two months are kept, so that a clock that jumps over a month's end and back finds its figures again. Pure; `storage` saves it.
It is not a ledger: it knows keys with a budget only, and no prices.
"""

from datetime import UTC, datetime

import msgspec

Month = dict[str, int]
"""Tokens by key id, and pico-dollars by `usd_place` of it."""
_MONTHS_KEPT = 2  # The present one and the one before it, be it one that a wrong clock believed in.


def usd_place(key_id: str) -> str:
    """Return under which name a key's costs stand in a month: no key id has a colon."""
    return f"usd:{key_id}"


class SpendingFile(msgspec.Struct, frozen=True, kw_only=True):
    """Spending as it is kept on disk."""

    version: int = 1
    months: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)


_DECODER = msgspec.json.Decoder(SpendingFile)


class Spending:
    """The tokens used per key, this month and the one before."""

    PERIOD = "%Y-%m"
    """How a period is named, which also sets its length."""

    def __init__(self, data: bytes = b"") -> None:
        """Begin with what was saved; `data` that cannot be read raises msgspec.DecodeError."""
        self.months: dict[str, Month] = _DECODER.decode(data).months if data else {}
        """All that is known, by the month's name."""
        self.month: Month = {}
        """The present month's figures; a request settles in the month that it began in."""

    def __repr__(self) -> str:
        return f"<Spending {sorted(self.months)}>"

    def enter(self, wall_s: float) -> None:
        """Make the month of `wall_s` (Unix seconds, UTC) the present one."""
        name = datetime.fromtimestamp(wall_s, UTC).strftime(self.PERIOD)
        if self.months.get(name) is not self.month:
            self.month = self.months.pop(name, {})
            # Kept in the order in which they were last the present one, so that a wrong clock pushes out no true month.
            latest = list(self.months.items())[1 - _MONTHS_KEPT :]
            self.months = {**dict(latest), name: self.month}

    def add(self, other: "Spending") -> None:
        """Count what was spent elsewhere as well."""
        for name, month in other.months.items():
            mine = self.months.setdefault(name, {})
            for key_id, tokens in month.items():
                mine[key_id] = mine.get(key_id, 0) + tokens
        self.months = dict(sorted(self.months.items())[-_MONTHS_KEPT:])

    def parts(self, count: int) -> list["Spending"]:
        """Return the same in so many equal parts, which together are the whole."""
        parts = [Spending() for _ in range(count)]
        for number, part in enumerate(parts):
            for name, month in self.months.items():
                part.months[name] = {key: (spent + number) // count for key, spent in month.items()}
        return parts

    def saved(self) -> bytes:
        """Return what to keep on disk."""
        return msgspec.json.encode(SpendingFile(months=self.months))


class Daily(Spending):
    """What fallbacks have cost, today and the day before: pico-dollars by fallback name."""

    PERIOD = "%Y-%m-%d"
