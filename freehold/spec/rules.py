"""What ties several values of freehold.yaml together, checked on the raw values, so that one mistake hides no other.

A value of the wrong type is passed over here: its own check has spoken. What an engine thinks of its options, and
what exactly a source means, is for the rooms above.
"""

from collections.abc import Collection, Iterator
from urllib.parse import urlsplit

from freehold.spec import later, shapes
from freehold.spec.explain import dotted
from freehold.spec.places import Mistake, Path, Tree
from freehold.spec.problems import nearest_hint
from freehold.spec.shapes import EXTERNAL

_MANAGED_NEEDS = ("source", "sha256")
_MANAGED_HAS_NO = ("endpoints", "upstream_model", "api_key_env", "api_key_file")
_EXTERNAL_HAS_NO = ("source", "sha256", "replicas")


def check_rules(tree: Tree, engines: Collection[str]) -> list[Mistake]:
    """Return every mistake between values; `engines` are the names that `engine` may have."""
    if not isinstance(tree.data, dict):
        return []
    listed = tree.data.get("models")
    models = {
        index: model
        for index, model in enumerate(listed if isinstance(listed, list) else [])
        if isinstance(model, dict)
    }
    mistakes = [*_names(tree, models), *_reach(tree), *_loops(tree, models)]
    for index, model in models.items():
        mistakes += _engine(tree, ("models", index), model, engines)
    return mistakes


def _engine(tree: Tree, path: Path, model: dict[str, object], engines: Collection[str]) -> Iterator[Mistake]:
    engine = model.get("engine")
    if not isinstance(engine, str):
        return
    if engine not in engines:
        yield _unknown_engine(tree, (*path, "engine"), engine, engines)
    elif engine == EXTERNAL:
        yield from _needs(tree, path, model, ("endpoints",))
        yield from _has_no(tree, path, model, _EXTERNAL_HAS_NO)
    else:
        yield from _needs(tree, path, model, _MANAGED_NEEDS)
        yield from _has_no(tree, path, model, _MANAGED_HAS_NO)
    if "api_key_env" in model and "api_key_file" in model:
        yield Mistake(
            tree.key_place((*path, "api_key_file")),
            f"{dotted(path)} has two keys",
            "write api_key_env or api_key_file",
        )


def _unknown_engine(tree: Tree, path: Path, engine: str, engines: Collection[str]) -> Mistake:
    place = tree.value_place(path)
    if engine in later.LATER_ENGINES:
        return Mistake(
            place, f"{dotted(path)}: {engine} {later.LATER}", "known: " + ", ".join(sorted(engines))
        )
    return Mistake(place, f"{dotted(path)}: there is no engine {engine!r}", nearest_hint(engine, engines))


def _needs(tree: Tree, path: Path, model: dict[str, object], keys: tuple[str, ...]) -> Iterator[Mistake]:
    for key in keys:
        if key not in model or model[key] == []:
            place = tree.value_place((*path, key) if key in model else path)
            yield Mistake(place, f"{dotted((*path, key))} is missing", f"engine {model['engine']} needs it")


def _has_no(tree: Tree, path: Path, model: dict[str, object], keys: tuple[str, ...]) -> Iterator[Mistake]:
    for key in keys:
        if key in model:
            place = tree.key_place((*path, key))
            yield Mistake(
                place, f"{dotted((*path, key))} is not for engine {model['engine']}", "remove the line"
            )


def _names(tree: Tree, models: dict[int, dict[str, object]]) -> Iterator[Mistake]:
    first: dict[str, int] = {}
    for index, model in models.items():
        name = model.get("name")
        if isinstance(name, str) and first.setdefault(name.casefold(), index) != index:
            earlier = tree.value_place(("models", first[name.casefold()], "name"))
            place = tree.value_place(("models", index, "name"))
            same = "" if models[first[name.casefold()]].get("name") == name else " but for capitals"
            yield Mistake(
                place, f"models[{index}].name {name!r} is taken{same}", f"the first is at {earlier}"
            )


def _gateway(tree: Tree) -> dict[str, object]:
    gateway = tree.data.get("gateway") if isinstance(tree.data, dict) else None
    return gateway if isinstance(gateway, dict) else {}


def _listen(tree: Tree) -> shapes.Listen | None:
    listen = _gateway(tree).get("listen")
    return shapes.parse_listen(listen) if isinstance(listen, str) else None


def _reach(tree: Tree) -> Iterator[Mistake]:
    """Refuse an address that others can reach while nobody is asked for a key, and keys that nobody asks for."""
    listen, gateway = _listen(tree), _gateway(tree)
    if gateway.get("auth") == "keys":
        return
    if listen and not listen.loopback:
        yield Mistake(
            tree.value_place(("gateway", "listen")),
            f"gateway.listen: {listen.host} is not a loopback address, and auth: none is refused there",
            "write auth: keys, or listen on 127.0.0.1",
        )
    if "keys_file" in gateway:
        yield Mistake(
            tree.key_place(("gateway", "keys_file")),
            "gateway.keys_file is only read with auth: keys",
            "write auth: keys or remove the line",
        )


def _loops(tree: Tree, models: dict[int, dict[str, object]]) -> Iterator[Mistake]:
    """Find endpoints written twice, and endpoints that are this gateway itself."""
    listen = _listen(tree) or shapes.Listen("127.0.0.1", 8000)
    for index, model in models.items():
        endpoints = model.get("endpoints")
        seen: set[str] = set()
        for at, url in enumerate(endpoints if isinstance(endpoints, list) else []):
            path: Path = ("models", index, "endpoints", at)
            if not isinstance(url, str) or shapes.endpoint_mistake(url):
                continue
            if url.rstrip("/") in seen:
                yield Mistake(
                    tree.value_place(path), f"{dotted(path)} stands here a second time", "remove one"
                )
            elif _same(url, listen):
                yield Mistake(
                    tree.value_place(path), f"{dotted(path)} is this gateway itself", "name the server behind"
                )
            seen.add(url.rstrip("/"))


def _same(url: str, listen: shapes.Listen) -> bool:
    parts = urlsplit(url)
    return parts.port == listen.port and listen.loopback and shapes.is_loopback(parts.hostname or "")
