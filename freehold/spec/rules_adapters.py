"""What ties a model's adapters to the rest of freehold.yaml, checked on the raw values.

It does not know which engines take adapters, nor of what kind: that is for the rooms above.
"""

from collections.abc import Iterator, Mapping

from freehold.core.places import Mistake, Path, Tree
from freehold.spec.explain import dotted
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
        yield from _name(tree, path, adapter, taken)
        if not isinstance(engine, str):
            continue
        if engine == EXTERNAL:
            yield from _has_no(tree, path, adapter, _FETCHED, engine=engine)
        else:
            yield from _needs(tree, path, adapter, engine)
            yield from _has_no(tree, path, adapter, ("upstream_name",), engine=engine)


def _adapters(models: Mapping[int, dict[str, object]]) -> Iterator[tuple[Path, dict[str, object], object]]:
    for index, model in models.items():
        listed = model.get("adapters")
        for at, adapter in enumerate(listed if isinstance(listed, list) else []):
            if isinstance(adapter, dict):
                yield ("models", index, "adapters", at), adapter, model.get("engine")


def _name(tree: Tree, path: Path, adapter: dict[str, object], taken: dict[str, Path]) -> Iterator[Mistake]:
    name = adapter.get("name")
    if not isinstance(name, str):
        return
    own = (*path, "name")
    first = taken.setdefault(name.casefold(), own)
    if first != own:
        message = f"{dotted(own)} {name!r} is taken"
        yield Mistake(tree.value_place(own), message, f"the first is at {tree.value_place(first)}")


def _needs(tree: Tree, path: Path, adapter: dict[str, object], engine: str) -> Iterator[Mistake]:
    for key in _FETCHED:
        if key not in adapter:
            yield Mistake(
                tree.value_place(path), f"{dotted((*path, key))} is missing", f"engine {engine} needs it"
            )


def _has_no(
    tree: Tree, path: Path, adapter: dict[str, object], keys: tuple[str, ...], *, engine: str
) -> Iterator[Mistake]:
    for key in keys:
        if key in adapter:
            place = tree.key_place((*path, key))
            yield Mistake(place, f"{dotted((*path, key))} is not for engine {engine}", "remove the line")
