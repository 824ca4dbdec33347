"""The cost lines: the folder is the registry, one file per line. A line that is added here is in every plan."""

import importlib
import pkgutil
from functools import cache

from freehold.cost.model.cost_line import CostLine


@cache
def all_lines() -> tuple[CostLine, ...]:
    """Return every line, by the alphabet."""
    return tuple(
        importlib.import_module(f"{__name__}.{module.name}").LINE for module in pkgutil.iter_modules(__path__)
    )
