"""The engines Freehold can run or front: the folder is the registry, one file per engine."""

import importlib
import pkgutil
from functools import cache

from freehold.engines.base import Engine


@cache
def all_engines() -> dict[str, Engine]:
    """Return every engine by name: each public module of this package except `base`, and nothing else."""
    names = [
        m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_") and m.name != "base"
    ]
    found = [importlib.import_module(f"{__name__}.{name}").ENGINE for name in names]
    return {engine.name: engine for engine in found}
