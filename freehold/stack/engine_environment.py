"""Whether the program of an engine is installed here and has the flags that a freehold.yaml uses. No program is started.

The flags of an installed program stand in the manifest of its environment; `freehold engine check` starts the program.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from freehold.core.problems import Problem
from freehold.engines.base import Engine, Value
from freehold.fleet.environments.lookup import Environment, engines_root, find_for, installed_problems


def environment_of(engine: Engine) -> Environment | None:
    """Return the environment that replicas of this engine run in here, or None if none is installed."""
    return find_for(engine, engines_root(os.environ))


def environment_for(engine: Engine, options: Mapping[str, object]) -> Environment | None:
    """Return the same for replicas with these options; None if an option names the program."""
    own = any(option.program and option.name in options for option in engine.options)
    return None if own else environment_of(engine)


def program_of(engine: Engine, options: Mapping[str, object]) -> Path | None:
    """Return the program that a replica with these options runs, in an environment or in PATH; None: there is none."""
    for option in engine.options:
        if option.program and (named := options.get(option.name)):
            found = shutil.which(str(named))
            return Path(found) if found else None
    environment = environment_of(engine)
    if environment is not None:
        recipe = next(each for each in engine.recipes if each.name == environment.manifest.recipe)
        return environment.path / recipe.program
    found = shutil.which(engine.program) if engine.program else None
    return Path(found) if found else None


def environment_problems(
    engine: Engine, options: Mapping[str, object], *, place: str, where: Callable[[str], str]
) -> list[Problem]:
    """Return the problems of an engine on this machine: its program is missing, or has no flag for an option.

    `place` is the place of the engine in the file, `where(name)` that of an option.
    """
    if not engine.recipes and not engine.program:
        return []
    own = any(option.program and option.name in options for option in engine.options)
    environment = environment_for(engine, options)
    if environment is not None and environment.manifest.flags is not None:
        return installed_problems(engine, _values(options), flags=environment.manifest.flags, where=where)
    if own or environment is not None or program_of(engine, options) is not None:
        return []
    return [Problem(where=place, message=f"{engine.name} is not installed here", hint=how_to_get(engine))]


def how_to_get(engine: Engine) -> str:
    """Return how to install the program of an engine, as text."""
    ways = [f"freehold engine install {recipe.name}" for recipe in engine.recipes]
    ways += [f"name it: engine_options.{option.name}" for option in engine.options if option.program]
    ways += [f"put {engine.program} into PATH"] if engine.program else []
    return ", or ".join(ways)


def _values(options: Mapping[str, object]) -> dict[str, Value]:
    return {name: value for name, value in options.items() if isinstance(value, int | str | bool | float)}
