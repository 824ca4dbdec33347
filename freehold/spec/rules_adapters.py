"""What ties a model's adapters to the rest of freehold.yaml, checked on the raw values.

It does not know which engines take adapters, nor of what kind: that is for the rooms above.
"""

from collections.abc import Iterable, Iterator, Mapping

from freehold.core.places import Mistake, Path, Tree
from freehold.spec.shapes import EXTERNAL

_FETCHED = ("source", "sha256")


def check_adapters(tree: Tree, models: Mapping[int, dict[str, object]]) -> Iterator[Mistake]:
    """Find adapters whose names are taken, or that lack what their engine needs."""
    taken: dict[str, Path] = {
        str(model["name"]).casefold(): ("models", index, "name")
        for index, model in models.items()
        if "name" in model
    }
    for path, adapter, engine in _adapters(models):
        yield from check_name(tree, path, entry=adapter, taken=taken)
        if isinstance(engine, str):
            external = engine == EXTERNAL
            missing = [key for key in _FETCHED if key not in adapter and not external]
            extra = [key for key in (_FETCHED if external else ("upstream_name",)) if key in adapter]
            yield from check_keys(tree, path, missing=missing, extra=extra, engine=engine)


def _adapters(models: Mapping[int, dict[str, object]]) -> Iterator[tuple[Path, dict[str, object], object]]:
    for index, model in models.items():
        for at, adapter in enumerate(entries(model, "adapters")):
            if isinstance(adapter, dict):
                yield ("models", index, "adapters", at), adapter, model.get("engine")


def entries(section: Mapping[str, object], key: str) -> list[object]:
    """Return the list at a key; empty where there is none."""
    found = section.get(key)
    return found if isinstance(found, list) else []


def check_name(
    tree: Tree, path: Path, *, entry: Mapping[str, object], taken: dict[str, Path]
) -> Iterator[Mistake]:
    """Find a name that an earlier entry has; `taken` holds names without regard to case, and where they stand."""
    name = entry.get("name")
    if not isinstance(name, str):
        return
    own = (*path, "name")
    first = taken.setdefault(name.casefold(), own)
    if first != own:
        yield tree.at_value(own, f" {name!r} is taken", f"the first is at {tree.value_place(first)}")


def check_keys(
    tree: Tree, path: Path, *, missing: Iterable[str], extra: Iterable[str], engine: str
) -> Iterator[Mistake]:
    """Give a mistake for each missing key that the engine needs, and for each extra key that is not for it."""
    for key in missing:
        yield tree.at_value((*path, key), " is missing", f"engine {engine} needs it")
    for key in extra:
        yield tree.at_key((*path, key), f" is not for engine {engine}", "remove the line")
