"""What ties a model's adapters to the rest of freehold.yaml, checked on the raw values.

It does not know which engines take adapters, nor of what kind: that is for the rooms above.
"""

from collections.abc import Iterable, Iterator, Mapping

from freehold.core.places import Mistake, Path, Tree
from freehold.spec.explain import at_key, at_value
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
        yield from check_name(tree, path, adapter, taken)
        if not isinstance(engine, str):
            continue
        if engine == EXTERNAL:
            yield from has_no(tree, path, adapter, _FETCHED, engine=engine)
        else:
            yield from needs(tree, path, [key for key in _FETCHED if key not in adapter], engine=engine)
            yield from has_no(tree, path, adapter, ("upstream_name",), engine=engine)


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
    tree: Tree, path: Path, entry: Mapping[str, object], taken: dict[str, Path]
) -> Iterator[Mistake]:
    """Find a name that an earlier entry has; `taken` holds names without regard to case, and where they stand."""
    name = entry.get("name")
    if not isinstance(name, str):
        return
    own = (*path, "name")
    first = taken.setdefault(name.casefold(), own)
    if first != own:
        yield at_value(tree, own, f" {name!r} is taken", f"the first is at {tree.value_place(first)}")


def needs(tree: Tree, path: Path, missing: Iterable[str], *, engine: str) -> Iterator[Mistake]:
    """Give a mistake for each missing key that the engine needs."""
    for key in missing:
        yield at_value(tree, (*path, key), " is missing", f"engine {engine} needs it")


def has_no(
    tree: Tree, path: Path, entry: Mapping[str, object], keys: Iterable[str], *, engine: str
) -> Iterator[Mistake]:
    """Find the keys that are not for this engine."""
    for key in keys:
        if key in entry:
            yield at_key(tree, (*path, key), f" is not for engine {engine}", "remove the line")
