"""The data file beside an engine file, `ENGINE.toml`: options, texts about flags, keys of requests, phases of a start, exit rules.

TOML, because its literal strings hold regular expressions unchanged and the standard library parses it in a few
milliseconds on every start of `freehold`. Unknown keys are errors. What the data mean stands at the types in `base`; it does
not check that an option's flag exists, which is the contract kit's part.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from freehold.engines.base import Option, Phase
from freehold.engines.shared.exit_rules import ExitRule
from freehold.engines.shared.request_keys import API_KEYS

_ROWS: Mapping[str, Any] = {"options": Option, "phases": Phase, "exits": ExitRule}


class EngineData(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of one data file."""

    options: tuple[Option, ...] = ()
    """The engine's own options, or all of them; those from a flag list are not here."""
    phases: tuple[Phase, ...] = ()
    exits: tuple[ExitRule, ...] = ()
    """In order: the first rule that any line fits counts."""
    help: dict[str, str] = {}
    """By flag of the flag list: what it sets, with its unit."""
    reserved: dict[str, str] = {}
    """As `Engine.reserved`."""
    request_keys: frozenset[str] = frozenset()
    """As `Engine.request_keys`; in the file, the engine's own alone, with blanks between them."""


@cache
def load_engine_data(name: str) -> EngineData:
    """Return `freehold/engines/NAME.toml`; raises OSError or ValueError for a broken package."""
    raw = tomllib.loads(files("freehold.engines").joinpath(f"{name}.toml").read_text("utf-8"))
    for key, row_type in _ROWS.items():
        known = {field.name for field in fields(row_type)}
        for row in raw.get(key, ()):
            if unknown := sorted(row.keys() - known):
                raise ValueError(f"{name}.toml: {key}: unknown keys {', '.join(unknown)}")
    if "request_keys" in raw:
        raw["request_keys"] = API_KEYS.union(raw["request_keys"].split())
    return msgspec.convert(raw, EngineData, dec_hook=_pattern)


def _pattern(kind: type, value: object) -> object:
    """Return a regular expression from a text, or from a list of alternatives."""
    if getattr(kind, "__origin__", kind) is not re.Pattern:
        raise NotImplementedError(f"no value of {kind} is expected")
    return re.compile(value if isinstance(value, str) else "|".join(value))  # type: ignore[arg-type]
