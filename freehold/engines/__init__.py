"""The engines Freehold can run or front: the folder is the registry, one file per engine.

A package elsewhere adds one by an entry point in the group `freehold.engines` that names its `Engine` value. One
that cannot be used is a `Problem` in `engine_problems()`, and never stands in the way of the others.
"""

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, Any

from freehold.core.problems import Problem
from freehold.engines.base import Engine

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "freehold.engines"
# What a package in pieces raises while it is imported; anything stranger is its own bug and shows its own traceback.
_LOAD_ERRORS = (
    ImportError,
    AttributeError,
    SyntaxError,
    NameError,
    TypeError,
    ValueError,
    LookupError,
    OSError,
)


def all_engines() -> dict[str, Engine]:
    """Return every usable engine by name: the public modules of this package, then those of other packages."""
    engines, _ = _find()
    return dict(engines)


def engine_problems() -> tuple[Problem, ...]:
    """Return what is wrong with engines of other packages; `where` names the entry point and its package."""
    _, problems = _find()
    return problems


@cache
def _find() -> tuple[dict[str, Engine], tuple[Problem, ...]]:
    engines = {engine.name: engine for engine in _own_engines()}
    problems: list[Problem] = []
    for point in _entry_points():
        answer = _load(point, taken=engines)
        if isinstance(answer, Problem):
            problems.append(answer)
        else:
            engines[answer.name] = answer
    return engines, tuple(problems)


def _own_engines() -> list[Engine]:
    found = (module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    names = [name for name in found if not name.startswith("_") and name != "base"]
    return [importlib.import_module(f"{__name__}.{name}").ENGINE for name in names]


def _entry_points() -> "list[EntryPoint]":
    from importlib.metadata import entry_points  # noqa: PLC0415 -- an engine's child must start fast without it

    return sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (point.name, point.value))


def _load(point: "EntryPoint", *, taken: dict[str, Engine]) -> Engine | Problem:
    where = f"entry point {point.name!r} of package {point.dist.name if point.dist else 'unknown'}"
    try:
        value: Any = point.load()
    except _LOAD_ERRORS as exc:
        return Problem(
            where=where,
            message=f"cannot load {point.value}: {type(exc).__name__}: {exc}",
            hint="repair or uninstall that package",
        )
    if not isinstance(value, Engine):
        return Problem(
            where=where,
            message=f"{point.value} is no freehold.engines.base.Engine but {type(value).__name__}",
        )
    if value.name != point.name:
        return Problem(
            where=where, message=f"the engine calls itself {value.name!r}, its entry point does not"
        )
    if value.name in taken:
        return Problem(where=where, message=f"there is already an engine named {value.name!r}")
    return value
