"""What a row of a usage file says, in one form for all formats, and what a format is.

A format only turns records into items; opening files, counting what is bad and adding up is done elsewhere, once.
Nothing here knows a format's columns.
"""

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import msgspec

Record = dict[str, Any]
"""A row by column name (CSV: every value is text), or a JSON object."""


class Use(msgspec.Struct, frozen=True, gc=False):
    """Tokens that were used at a moment, or within a bucket of time."""

    start_s: float
    """Unix seconds, UTC."""
    end_s: float
    """End of the bucket; a single request: its start."""
    requests: int
    input_tokens: int
    """Cached ones included."""
    cached_tokens: int | None
    """Those of the input tokens that a cache held; None: the row does not say."""
    output_tokens: int
    model: str = ""
    usd: float | None = None
    """What was paid for it; None: the row does not say."""
    identity: str = ""
    """What makes it the same row when it comes again; empty: nothing does."""
    batch: bool = False
    """It could wait a day, at a discount."""


class Paid(msgspec.Struct, frozen=True, gc=False):
    """Money that was paid for a bucket of time, without a word on tokens."""

    start_s: float
    end_s: float
    usd: float
    identity: str = ""


class LeftOut(msgspec.Struct, frozen=True, gc=False):
    """A good row that is no traffic of a model: counted by its reason, and proof that the log was being written."""

    reason: str
    """Continues `12 rows were left out: …`."""
    start_s: float


class Unusable(ValueError):
    """A row that cannot be used; its text says why."""


Item = Use | Paid | LeftOut | Unusable


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFormat:
    """A kind of usage file made of records."""

    name: str
    """The file's name in this folder, and what `--usage-format` calls it."""
    looked_for: str
    """What it is recognised by, in words, for whoever gave a file that is not."""
    recognises: Callable[[AbstractSet[str]], bool]
    """Says from the names of columns, or the keys of the first objects, whether a file is of this kind."""
    read: Callable[[Record], Iterable[Item]]
    """Returns what a record says; raises Unusable where nothing of it can be used."""
    times: tuple[str, ...] = ()
    """Fields of which one is a row's time, where nothing says the zone of those that have none."""
