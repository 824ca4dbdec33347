"""A parser made of a recorded flag list: what it refuses, the program of that version refuses too.

It knows what the list knows (names, types, choices, how many values), and no rule between flags.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

from freehold.engines.shared.flag_list import FlagList, ProgramFlag

_TYPES: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str, "json": json.loads}


def flag_parser(flags: FlagList) -> argparse.ArgumentParser:
    """Return a parser of all flags of the list; it takes no abbreviations and ends the process with code 2 as argparse does."""
    parser = argparse.ArgumentParser(prog=flags.program, allow_abbrev=False, add_help=False)
    for flag in flags.flags:
        parser.add_argument(flag.flag, *flag.aliases, **_how(flag))
    return parser


def _how(flag: ProgramFlag) -> dict[str, Any]:
    if flag.type == "bool":
        action = argparse.BooleanOptionalAction if flag.negatable else "store_true"
        return {"action": action, "default": flag.default}
    if flag.type == "list":
        return {
            "type": _TYPES[flag.items],
            "choices": flag.choices or None,
            **({"action": "append"} if flag.repeats else {"nargs": "*"}),
        }
    return {"type": _TYPES[flag.type], "choices": flag.choices or None, "default": flag.default}
