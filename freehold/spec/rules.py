"""What ties several values of freehold.yaml together, checked on the raw values, so that one mistake hides no other.

A value of the wrong type is passed over here: its own check has spoken. What an engine thinks of its options, and
what exactly a source means, is for the rooms above.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import TypeGuard
from urllib.parse import urlsplit

from freehold.core.places import Mistake, Path, Tree, dotted
from freehold.core.problems import nearest_hint
from freehold.spec import shapes
from freehold.spec.rules_adapters import check_adapters, check_keys, check_name, entries
from freehold.spec.shapes import EXTERNAL

_ALL = 1 + 1e-9  # 0.7 + 0.2 + 0.1 is a little more than 1, as floats go.
_MANAGED_NEEDS = ("source", "sha256")
_MANAGED_HAS_NO = ("endpoints", "upstream_model", "api_key_env", "api_key_file")
_EXTERNAL_HAS_NO = ("source", "sha256", "replicas", "gpus", "gpus_shared")


def check_rules(tree: Tree, engines: Collection[str]) -> list[Mistake]:
    """Return every mistake between values; `engines` are the names that `engine` may have."""
    if not isinstance(tree.data, dict):
        return []
    models = {
        index: model for index, model in enumerate(entries(tree.data, "models")) if isinstance(model, dict)
    }
    mistakes = [*_names(tree, models), *check_adapters(tree, models), *_reach(tree), *_loops(tree, models)]
    for index, model in models.items():
        mistakes += _engine(tree, ("models", index), model, engines)
        mistakes += _two_keys(tree, ("models", index), model)
        mistakes += _shared_gpus(tree, ("models", index), model)
    return [*mistakes, *_fallbacks(tree, models), *_mesh(tree), *_expected(tree)]


def _section(tree: Tree, *keys: str | int) -> Mapping[str, object]:
    """Return the map below these keys; empty where there is none."""
    found = tree.data
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _mesh(tree: Tree) -> Iterator[Mistake]:
    """Find peers with one name, a node that is its own peer, and peers without a key."""
    network = _section(tree, "health", "network")
    listed = entries(network, "peers")
    path: Path = ("health", "network", "peers")
    if listed and "key_file" not in network:
        message = "health.network.key_file is missing"
        yield Mistake(tree.key_place(path), message, "peers prove themselves with it")
    node = network.get("node")
    taken = {node} if isinstance(node, str) else set()
    for index, text in enumerate(listed):
        peer = shapes.parse_peer(text) if isinstance(text, str) else None
        if peer is None:
            continue
        if peer.name in taken:
            yield tree.at_value((*path, index), f": the name {peer.name!r} is taken", "node names are unique")
        taken.add(peer.name)


def _expected(tree: Tree) -> Iterator[Mistake]:
    """Find what is expected of GPUs that are not read, interfaces with impossible names, and ports named twice."""
    expect = _section(tree, "health", "expect")
    path: Path = ("health", "expect")
    for key in ("gpus", "gpu_model", "driver"):
        if key in expect and _section(tree, "health").get("gpu") == "off":
            message = " is not compared: health.gpu is off"
            yield tree.at_key((*path, key), message, "write gpu: auto or remove the line")
    for name in _section(tree, *path, "link_mbit_s"):
        if why := shapes.interface_mistake(str(name)):
            place = tree.key_place((*path, "link_mbit_s", name))
            message = f"{dotted((*path, 'link_mbit_s'))}: {str(name)[:40]!r} {why}"
            yield Mistake(place, message, "for example eth0")
    listed = entries(expect, "rdma_ports")
    for index, port in enumerate(listed):
        if port in listed[:index]:
            yield tree.at_value((*path, "rdma_ports", index), " stands here a second time", "remove one")


def _fallbacks(tree: Tree, models: dict[int, dict[str, object]]) -> Iterator[Mistake]:
    """Find fallbacks with the same name, for models that are not here, that are this gateway, or are never asked."""
    listed = entries(_section(tree), "fallback")
    first: dict[str, Path] = {}
    known = [name for model in models.values() if isinstance(name := model.get("name"), str)]
    for index, fallback in enumerate(listed):
        path: Path = ("fallback", index)
        if not isinstance(fallback, dict):
            continue
        yield from check_name(tree, path, entry=fallback, taken=first)
        yield from _two_keys(tree, path, fallback)
        yield from _reachable(tree, path, fallback)
        yield from _known_models(tree, path, fallback, known)
    yield from _shares(tree, listed, known)


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
                message = f": {taken[name]:g} of the requests of {name} would go to fallbacks"
                yield tree.at_value(("fallback", index, "share"), message, "lower the shares to 1 together")
                return


def _is_share(share: object) -> TypeGuard[float]:
    return isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1


def _reachable(tree: Tree, path: Path, fallback: dict[str, object]) -> Iterator[Mistake]:
    url = fallback.get("url")
    if isinstance(url, str) and not shapes.endpoint_mistake(url) and _is_own(tree, url):
        yield tree.at_value((*path, "url"), " is this gateway itself", "name another server")
    if fallback.get("when") == [] and not fallback.get("share") and not fallback.get("shadow"):
        place = tree.key_place((*path, "when"))
        yield Mistake(
            place, f"{dotted(path)} is never asked", "list a reason in when, or set share or shadow"
        )


def _known_models(
    tree: Tree, path: Path, fallback: dict[str, object], known: Collection[str]
) -> Iterator[Mistake]:
    for at, name in enumerate(entries(fallback, "models")):
        if isinstance(name, str) and name not in known:
            message = f": there is no model {name!r} in this file"
            yield tree.at_value((*path, "models", at), message, nearest_hint(name, known))


def _engine(tree: Tree, path: Path, model: dict[str, object], engines: Collection[str]) -> Iterator[Mistake]:
    engine = model.get("engine")
    if not isinstance(engine, str):
        return
    if engine not in engines:
        message = f": there is no engine {engine!r}"
        yield tree.at_value((*path, "engine"), message, nearest_hint(engine, engines))
        return
    external = engine == EXTERNAL
    missing = [key for key in (("endpoints",) if external else _MANAGED_NEEDS) if model.get(key, []) == []]
    extra = [key for key in (_EXTERNAL_HAS_NO if external else _MANAGED_HAS_NO) if key in model]
    yield from check_keys(tree, path, missing=missing, extra=extra, engine=engine)


def _shared_gpus(tree: Tree, path: Path, model: dict[str, object]) -> Iterator[Mistake]:
    if model.get("gpus_shared") is True and not isinstance(model.get("gpus"), list):
        place = tree.key_place((*path, "gpus_shared"))
        yield Mistake(place, f"{dotted(path)} shares GPUs that it does not name", "name them: gpus: [0]")


def _two_keys(tree: Tree, path: Path, entry: dict[str, object]) -> Iterator[Mistake]:
    if "api_key_env" in entry and "api_key_file" in entry:
        place = tree.key_place((*path, "api_key_file"))
        yield Mistake(place, f"{dotted(path)} has two keys", "write api_key_env or api_key_file")


def _names(tree: Tree, models: dict[int, dict[str, object]]) -> Iterator[Mistake]:
    taken: dict[str, Path] = {}
    for index, model in models.items():
        for mistake in check_name(tree, ("models", index), entry=model, taken=taken):
            first = models[int(taken[str(model["name"]).casefold()][1])]
            same = "" if first["name"] == model["name"] else " but for capitals"
            yield replace(mistake, message=mistake.message + same)


def _listen(tree: Tree) -> shapes.Listen | None:
    listen = _section(tree, "gateway").get("listen")
    return shapes.parse_listen(listen) if isinstance(listen, str) else None


def _reach(tree: Tree) -> Iterator[Mistake]:
    """Refuse an address that others can reach while no key is required, and keys that are not required."""
    listen, gateway = _listen(tree), _section(tree, "gateway")
    if gateway.get("auth") == "keys":
        return
    if listen and not listen.loopback:
        message = f": {listen.host} is not a loopback address, and auth: none is refused there"
        yield tree.at_value(("gateway", "listen"), message, "write auth: keys, or listen on 127.0.0.1")
    if "keys_file" in gateway:
        message = " is only read with auth: keys"
        yield tree.at_key(("gateway", "keys_file"), message, "write auth: keys or remove the line")
    tls = gateway.get("tls")
    if isinstance(tls, dict) and "client_ca" in tls:
        message = " is only read with auth: keys"
        yield tree.at_key(("gateway", "tls", "client_ca"), message, "write auth: keys or remove the line")


def _loops(tree: Tree, models: dict[int, dict[str, object]]) -> Iterator[Mistake]:
    """Find endpoints written twice, and endpoints that are this gateway itself."""
    for index, model in models.items():
        seen: set[str] = set()
        for at, url in enumerate(entries(model, "endpoints")):
            path: Path = ("models", index, "endpoints", at)
            if not isinstance(url, str) or shapes.endpoint_mistake(url):
                continue
            if url.rstrip("/") in seen:
                yield tree.at_value(path, " stands here a second time", "remove one")
            elif _is_own(tree, url):
                yield tree.at_value(path, " is this gateway itself", "name the server behind")
            seen.add(url.rstrip("/"))


def _is_own(tree: Tree, url: str) -> bool:
    """Return whether a URL leads to the address that this gateway listens on."""
    listen = _listen(tree) or shapes.Listen("127.0.0.1", 8000)
    parts = urlsplit(url)
    return parts.port == listen.port and listen.loopback and shapes.is_loopback(parts.hostname or "")
