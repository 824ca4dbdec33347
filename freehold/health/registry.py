"""The probes that Freehold has: the folder is the registry, one file per probe, its `PROBE` named as the file.

It imports them and runs none.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from freehold.health import checks
from freehold.health.model.probe import Probe


@cache
def all_probes() -> Mapping[str, Probe]:
    """Return every probe by name, sorted by it."""
    names = sorted(
        module.name for module in pkgutil.iter_modules(checks.__path__) if not module.name.startswith("_")
    )
    modules = {name: importlib.import_module(f"{checks.__name__}.{name}") for name in names}
    return MappingProxyType({name: module.PROBE for name, module in modules.items()})
