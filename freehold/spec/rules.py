"""What ties several values of freehold.yaml together, checked on the raw values, so that one mistake hides no other.

A value of the wrong type is passed over here: its own check has spoken. What an engine thinks of its options, and
what exactly a source means, is for the rooms above.
"""

from collections.abc import Collection, Iterator
from typing import TypeGuard
from urllib.parse import urlsplit

from freehold.core.places import Mistake, Path, Tree
from freehold.core.problems import nearest_hint
from freehold.spec import later, shapes
from freehold.spec.explain import dotted
from freehold.spec.rules_adapters import check_adapters
from freehold.spec.shapes import EXTERNAL

_ALL = 1 + 1e-9  # 0.7 + 0.2 + 0.1 is a little more than 1, as floats go.
_MANAGED_NEEDS = ("source", "sha256")
_MANAGED_HAS_NO = ("endpoints", "upstream_model", "api_key_env", "api_key_file")
_EXTERNAL_HAS_NO = ("source", "sha256", "replicas", "gpus", "gpus_shared")


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
    mistakes = [*_names(tree, models), *check_adapters(tree, models), *_reach(tree), *_loops(tree, models)]
    for index, model in models.items():
        mistakes += _engine(tree, ("models", index), model, engines)
        mistakes += _two_keys(tree, ("models", index), model)
        mistakes += _shared_gpus(tree, ("models", index), model)
    return [*mistakes, *_fallbacks(tree, models), *_mesh(tree), *_expected(tree)]


def _mesh(tree: Tree) -> Iterator[Mistake]:
    """Find peers with one name, a node that is its own peer, and peers without a key."""
    health = tree.data.get("health") if isinstance(tree.data, dict) else None
    network = health.get("network") if isinstance(health, dict) else None
    listed = network.get("peers") if isinstance(network, dict) else None
    if not isinstance(network, dict) or not isinstance(listed, list) or not listed:
        return
    path: Path = ("health", "network", "peers")
    if "key_file" not in network:
        message = "health.network.key_file is missing"
        yield Mistake(tree.key_place(path), message, "peers prove themselves with it")
    taken: set[object] = {network.get("node")}
    for index, text in enumerate(listed):
        peer = shapes.parse_peer(text) if isinstance(text, str) else None
        if peer is not None and peer.name in taken:
            place = tree.value_place((*path, index))
            yield Mistake(
                place, f"{dotted((*path, index))}: the name {peer.name!r} is taken", "node names are unique"
            )
        taken.add(peer.name if peer else None)


def _expected(tree: Tree) -> Iterator[Mistake]:
    """Find what is expected of GPUs that are not read, interfaces with impossible names, and ports named twice."""
    health = tree.data.get("health") if isinstance(tree.data, dict) else None
    expect = health.get("expect") if isinstance(health, dict) else None
    if not isinstance(health, dict) or not isinstance(expect, dict):
        return
    path: Path = ("health", "expect")
    for key in ("gpus", "gpu_model", "driver"):
        if key in expect and health.get("gpu") == "off":
            message = f"{dotted((*path, key))} is not compared: health.gpu is off"
            yield Mistake(tree.key_place((*path, key)), message, "write gpu: auto or remove the line")
    links, ports = expect.get("link_mbit_s"), expect.get("rdma_ports")
    for name in links if isinstance(links, dict) else ():
        if why := shapes.interface_mistake(str(name)):
            place = tree.key_place((*path, "link_mbit_s", name))
            yield Mistake(
                place, f"{dotted((*path, 'link_mbit_s'))}: {str(name)[:40]!r} {why}", "for example eth0"
            )
    listed = ports if isinstance(ports, list) else []
    for index, port in enumerate(listed):
        if port in listed[:index]:
            place = tree.value_place((*path, "rdma_ports", index))
            yield Mistake(
                place, f"{dotted((*path, 'rdma_ports', index))} stands here a second time", "remove one"
            )


def _fallbacks(tree: Tree, models: dict[int, dict[str, object]]) -> Iterator[Mistake]:
    """Find fallbacks with the same name, for models that are not here, that are this gateway, or are never asked."""
    assert isinstance(tree.data, dict)
    listed = tree.data.get("fallback")
    first: dict[str, int] = {}
    known = [name for model in models.values() if isinstance(name := model.get("name"), str)]
    for index, fallback in enumerate(listed if isinstance(listed, list) else []):
        path: Path = ("fallback", index)
        if not isinstance(fallback, dict):
            continue
        name = fallback.get("name")
        if isinstance(name, str) and first.setdefault(name.casefold(), index) != index:
            earlier = tree.value_place(("fallback", first[name.casefold()], "name"))
            place = tree.value_place((*path, "name"))
            yield Mistake(place, f"{dotted((*path, 'name'))} {name!r} is taken", f"the first is at {earlier}")
        yield from _two_keys(tree, path, fallback)
        yield from _reachable(tree, path, fallback)
        yield from _known_models(tree, path, fallback, known)
    yield from _shares(tree, listed if isinstance(listed, list) else [], known)


def _shares(tree: Tree, listed: list[object], known: Collection[str]) -> Iterator[Mistake]:
    """Find the first fallback whose share, with those before it, is more than all requests of a model."""
    taken = dict.fromkeys(known, 0.0)
    for index, fallback in enumerate(listed):
        share = fallback.get("share") if isinstance(fallback, dict) else None
        if not isinstance(fallback, dict) or not _is_share(share):
            continue
        models = fallback.get("models") or known
        named = {name for name in models if isinstance(name, str)} if isinstance(models, list) else ()
        for name in sorted(named):
            taken[name] = taken.get(name, 0.0) + share
            if taken[name] > _ALL:
                path: Path = ("fallback", index, "share")
                message = f"{dotted(path)}: {taken[name]:g} of the requests of {name} would go to fallbacks"
                yield Mistake(tree.value_place(path), message, "lower the shares to 1 together")
                return


def _is_share(share: object) -> TypeGuard[float]:
    return isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1


def _reachable(tree: Tree, path: Path, fallback: dict[str, object]) -> Iterator[Mistake]:
    url = fallback.get("url")
    listen = _listen(tree) or shapes.Listen("127.0.0.1", 8000)
    if isinstance(url, str) and not shapes.endpoint_mistake(url) and _same(url, listen):
        place = tree.value_place((*path, "url"))
        yield Mistake(place, f"{dotted((*path, 'url'))} is this gateway itself", "name another server")
    if fallback.get("when") == [] and not fallback.get("share") and not fallback.get("shadow"):
        place = tree.key_place((*path, "when"))
        yield Mistake(
            place, f"{dotted(path)} is never asked", "list a reason in when, or set share or shadow"
        )


def _known_models(
    tree: Tree, path: Path, fallback: dict[str, object], known: Collection[str]
) -> Iterator[Mistake]:
    models = fallback.get("models")
    for at, name in enumerate(models if isinstance(models, list) else []):
        if isinstance(name, str) and name not in known:
            place = tree.value_place((*path, "models", at))
            message = f"{dotted((*path, 'models', at))}: there is no model {name!r} in this file"
            yield Mistake(place, message, nearest_hint(name, known))


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


def _shared_gpus(tree: Tree, path: Path, model: dict[str, object]) -> Iterator[Mistake]:
    if model.get("gpus_shared") is True and not isinstance(model.get("gpus"), list):
        place = tree.key_place((*path, "gpus_shared"))
        yield Mistake(place, f"{dotted(path)} shares GPUs that it does not name", "name them: gpus: [0]")


def _two_keys(tree: Tree, path: Path, entry: dict[str, object]) -> Iterator[Mistake]:
    if "api_key_env" in entry and "api_key_file" in entry:
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
    """Refuse an address that others can reach while no key is required, and keys that are not required."""
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
