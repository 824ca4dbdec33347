"""Whether a user's `engine_options` are what an engine's file says of them: every mistake, with the nearest right word.

It looks at no file and asks no program; that a program or a file that an option names is there is seen elsewhere.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from freehold.core.problems import Problem, nearest_hint
from freehold.engines.base import Engine, Option, OptionType, Value

_PYTHON_TYPES: dict[OptionType, tuple[type, ...]] = {
    "int": (int,),
    "str": (str,),
    "bool": (bool,),
    "float": (int, float),
}


def check_options(
    engine: Engine, options: Mapping[str, object], where: Callable[[str], str]
) -> list[Problem]:
    """Return every mistake in a user's `engine_options`; `where(name)` gives the place of an option."""
    known = {option.name: option for option in engine.options}
    problems: list[Problem] = []
    for name, value in options.items():
        if name in engine.reserved:
            message = f"{name} of {engine.name} cannot be set here"
            problems.append(Problem(where=where(name), message=message, hint=engine.reserved[name]))
        elif name not in known:
            problems.append(
                Problem(
                    where=where(name),
                    message=f"engine {engine.name} has no option {name!r}",
                    hint=nearest_hint(name, known),
                )
            )
        else:
            problems.extend(_check_value(known[name], value, where(name)))
    if not problems and engine.conflicts is not None:
        found = engine.conflicts({name: value for name, value in options.items() if isinstance(value, Value)})
        problems += [Problem(where=where(name), message=said, hint=hint) for name, said, hint in found]
    return problems


def _typed(text: str, option: Option) -> object:
    """Return a value of a list as the number that it must be; what is none stays a text, and is told as such."""
    for type_ in _PYTHON_TYPES[option.type][:1] if option.type in ("int", "float") else ():
        with suppress(ValueError):
            return type_(text)
    return text


def _is_json(text: str, kind: str) -> bool:
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return kind == "any" or isinstance(decoded, dict)


def _check_value(option: Option, value: object, where: str) -> list[Problem]:
    def problem(message: str, hint: str = "") -> list[Problem]:
        return [
            Problem(where=where, message=f"{option.name} {message}, not {value!r}", hint=hint or option.help)
        ]

    wrong_bool = isinstance(value, bool) != (option.type == "bool")
    if wrong_bool or not isinstance(value, _PYTHON_TYPES[option.type]):
        return problem(f"must be of type {option.type}")
    if option.json and not _is_json(str(value), option.json):
        kind = "a JSON object" if option.json == "object" else "JSON"
        return problem(f"must be {kind}", "such as '{\"key\": 1}', as one text in quotes")
    if option.items:
        each = replace(option, type=option.items, items="")
        return [
            found
            for item in split_values(str(value))
            for found in _check_value(each, _typed(item, each), where)
        ]
    if option.choices and str(value) not in option.choices:
        return problem(
            f"must be one of {', '.join(option.choices)}", nearest_hint(str(value), option.choices)
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        if option.minimum is not None and value < option.minimum:
            return problem(f"must be at least {option.minimum:g}")
        if option.maximum is not None and value > option.maximum:
            return problem(f"must be at most {option.maximum:g}")
    return []


def split_values(text: str) -> list[str]:
    """Return the values of a list written as one text, or as JSON; one with a blank in it stands in quotes."""
    if text.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            values = json.loads(text)
            return [one if isinstance(one, str) else json.dumps(one, separators=(",", ":")) for one in values]
    try:
        return shlex.split(text)
    except ValueError:  # a quotation mark without its partner is part of a value
        return text.split()
