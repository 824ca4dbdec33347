"""Counters before and after out of an incident file: a list of records, or maps by name, by GPU, or both.

Which component a counter belongs to is said, or known by its name. Values stay as they were written: what they mean is for the signs,
and nothing is judged here.
"""

import re
from collections.abc import Iterator

from freehold.health.evidence.counters import plain
from freehold.health.evidence.incident import Change, Number
from freehold.health.incident_file.values import Data, Reader, as_map
from freehold.health.kernel_log.events import pci_key

CHANGE_KEYS = (
    "gpu", "component", "device", "disk", "volume", "path", "interface", "port", "peer", "replica", "engine", "host",
    "name", "counter", "field", "metric", "before", "from", "old", "baseline", "after", "to", "new", "value", "now",
    "siblings", "others", "peers", "unit", "source", "at", "during", "max", "expected",
)  # fmt: skip
_WHERE = (
    ("gpu", "gpu"), ("disk", "disk"), ("volume", "disk"), ("path", "disk"), ("interface", "link"), ("port", "link"),
    ("peer", "peer"), ("replica", "engine"), ("engine", "engine"), ("host", "host"),
)  # fmt: skip
_KINDS = (
    (r"^(gpu|disk|volume|storage|engine|link|peer|network|host|memory|clock|driver|nic)\b[:_ ]?", ""),
    (r"^GPU-|^\d+$|^[0-9a-f]{4,8}:[0-9a-f]{2}:", "gpu:"),
    (r"^/|^nvme|^sd[a-z]|^md\d|^dm-|^vd[a-z]", "disk:"),
    (r"^(eth|en|ib|mlx|bond|roce)", "link:"),
)
_BY_NAME = (
    (r"^(read_|probe_|device_|io_|psi|pressure_(full|io)|tick|r_?await|free_bytes|avail|inode|media|critical_w|throttled_s|storage|disk)", "disk:"),
    (r"token|iteration|decode_|running_req|requests", "engine:"),
    (r"loss|lost|rtt|carrier|link_downed|symbol|port_|rnr|roce|retrans|packets|ack_timeout|rdma|^sent", "network"),
    (r"ecc|remap|throttl|clock|pcie|nvlink|power|temp|util|recovery|margin|fb_|sram|dram|xid|sm_|retired|violation|brake|therm", "gpu:"),
)  # fmt: skip


def component_of(name: str) -> str:
    """Return a component in our words: `gpu:0`, `disk:/models`, `link:mlx5_0`; what no rule knows stays."""
    if match := re.match(r"^gpu[:_ ]?(.*)$", name, re.IGNORECASE):
        rest = match[1] if not name.startswith("GPU-") else name
        return f"gpu:{pci_key(rest) or rest}"
    for words, prefix in _KINDS:
        if re.search(words, name):
            return f"{prefix}{pci_key(name) or name if prefix == 'gpu:' else name}"
    return name


def changes(reader: Reader, value: object, path: str) -> list[Change]:
    """Return counters before and after, from a list of records or from maps by name, by GPU, or both."""
    data = as_map(value)
    if data is not None:
        return list(_from_map(reader, data, path, ""))
    found: list[Change] = []
    for where, entry in reader.maps(value, path):
        _check_name(reader, entry, where)
        reader.unknown(entry, where, CHANGE_KEYS) if _has_name(entry) else None
        found.extend(
            _record(reader, entry, where)
            if _has_name(entry)
            else _from_map(reader, entry, where, _of_list("", entry))
        )
    return found


_NAMES = ("name", "counter", "field", "metric", "key", "signal")
_BEFORE = ("before", "from", "old", "baseline", "max", "expected")
_AFTER = ("during", "after", "to", "new", "value", "now")


def _has_name(entry: Data) -> bool:
    """Return whether this is one counter, and not a thing with several."""
    named = any(isinstance(entry.get(key), str) for key in _NAMES)
    return named and any(key in entry for key in (*_BEFORE, *_AFTER, "siblings"))


def _check_name(reader: Reader, entry: Data, path: str) -> None:
    """Tell of one counter whose name is no text: what it holds would be missed."""
    if any(key in entry for key in (*_BEFORE, *_AFTER)) and isinstance(entry.get("name", ""), int | float):
        reader.problem(f"{path}.name", f"must be the name of a counter, not {entry['name']!r:.60}")


def _record(reader: Reader, entry: Data, path: str) -> Iterator[Change]:
    name = reader.text(entry, path, *_NAMES)
    unit = reader.text(entry, path, "unit")
    full = f"{name}_{unit}" if unit in {"ms", "us", "s"} and not name.endswith(f"_{unit}") else name
    yield _change(reader, entry, path, component=_component(entry, full), name=full)


def _change(reader: Reader, entry: Data, path: str, *, component: str, name: str) -> Change:
    before, after = reader.pick(entry, path, _BEFORE), reader.pick(entry, path, _AFTER)
    others = reader.pick(entry, path, ("siblings", "others", "peers"))
    now = _value(reader, *after) if after else None
    return Change(
        component=component,
        name=_with_unit(name, now),
        before=_value(reader, *before) if before else None,
        after=now,
        siblings=tuple(_siblings(reader, *others)) if others else (),
        source=reader.text(entry, path, "source") or "incident file",
    )


def _siblings(reader: Reader, path: str, value: object) -> Iterator[tuple[Number, Number]]:
    data = as_map(value)
    if data is not None and ("after" in data or "before" in data):
        value = [data]
    elif data is not None:
        value = list(data.values())
    for where, entry in reader.items(value, path):
        pair = as_map(entry)
        if pair is not None:
            yield _value(reader, where, pair.get("before")), _value(reader, where, pair.get("after"))
        elif isinstance(entry, list) and len(entry) == 2:
            yield _value(reader, where, entry[0]), _value(reader, where, entry[1])
        else:
            yield None, _value(reader, where, entry)


def _value(reader: Reader, path: str, value: object) -> Number:
    if isinstance(value, bool):
        return float(value)
    if value is None or isinstance(value, str | int | float):
        return value
    inner = as_map(value)
    if inner is not None and ("value" in inner or "state" in inner):  # a Reading
        state = inner.get("state")
        return str(state) if state not in {None, "ok"} else _value(reader, path, inner.get("value"))
    if isinstance(value, list) and value and all(isinstance(one, int | float) for one in value):
        return max(float(one) for one in value)
    reader.problem(path, f"must be a number or a text, not {value!r:.60}")
    return None


def _component(entry: Data, name: str) -> str:
    named = entry.get("component") or entry.get("device")
    if isinstance(named, str | int):
        return component_of(str(named))
    for key, prefix in _WHERE:
        if isinstance(entry.get(key), str | int):
            own = str(entry[key])
            return component_of(own) if own.startswith(prefix) else f"{prefix}:{pci_key(own) or own}"
    return by_name(name)


def by_name(name: str) -> str:
    """Return what a counter that names no component must belong to."""
    return next((component for words, component in _BY_NAME if re.search(words, plain(name))), "host")


def _with_unit(name: str, value: Number) -> str:
    """Return the name with the unit that stands with its value: `82 ms` makes it `…_ms`."""
    unit = re.search(r"\d\s*(ms|us|µs)$", value) if isinstance(value, str) else None
    word = {"µs": "us"}.get(unit[1], unit[1]) if unit else ""
    return f"{name}_{word}" if word and not re.search(r"_(ms|us|s)$", name) else name


_LABELS = frozenset(
    {
        "gpu",
        "component",
        "index",
        "uuid",
        "serial",
        "pci",
        "replica",
        "at",
        "at_s",
        "device",
        "path",
        "name",
        "interface",
        "model",
    }
)
_INNER = frozenset(
    {
        "readings",
        "counters",
        "nvml_fields",
        "metrics",
        "peers",
        "interfaces",
        "ports",
        "gpus",
        "rdma",
        "volumes",
    }
)


def _from_map(reader: Reader, data: Data, path: str, component: str) -> Iterator[Change]:
    before, after = (as_map(next((data[k] for k in keys if k in data), None)) for keys in (_BEFORE, _AFTER))
    if before is not None or after is not None:
        yield from _two_maps(reader, before or {}, after or {}, path=path, component=component)
        return
    for key, value in data.items():
        if key not in _LABELS or isinstance(value, dict | list):
            yield from _entry(reader, key, value, path=f"{path}.{key}", component=component)


def _two_maps(reader: Reader, before: Data, after: Data, *, path: str, component: str) -> Iterator[Change]:
    """Yield the changes of two snapshots; each may hold further maps, by GPU for example."""
    for key, value in after.items():
        old, now = as_map(before.get(key)), as_map(value)
        if now is not None and not _is_pair(now):
            inner = component if key in _INNER else component_of(key)
            yield from _two_maps(reader, old or {}, now, path=f"{path}.{key}", component=inner)
        else:
            pair = {"before": before.get(key), "after": value}
            yield _change(reader, pair, f"{path}.{key}", component=component or by_name(key), name=key)


def _entry(reader: Reader, key: str, value: object, *, path: str, component: str) -> Iterator[Change]:
    inner, own = as_map(value), component or by_name(key)
    if inner is not None and _is_pair(inner) and not any(as_map(inner.get(k)) for k in (*_BEFORE, *_AFTER)):
        yield _change(reader, inner, path, component=own, name=key)
    elif inner is not None:
        yield from _from_map(reader, inner, path, component if key in _INNER else component_of(key))
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for where, entry in reader.maps(value, path):
            found = (
                _record(reader, entry, where)
                if _has_name(entry)
                else _from_map(reader, entry, where, _of_list(key, entry))
            )
            yield from found
    elif isinstance(value, list) and len(value) == 2 and not any(isinstance(one, list) for one in value):
        yield _change(reader, {"before": value[0], "after": value[1]}, path, component=own, name=key)
    elif isinstance(value, list) and not all(isinstance(one, int | float) for one in value):
        reader.ignored.append(path)
    else:
        yield _change(reader, {"after": value}, path, component=own, name=key)


def _of_list(key: str, entry: Data) -> str:
    """Return what an entry of a list such as `peers` or `interfaces` is about."""
    kind = {
        "peers": "peer",
        "interfaces": "link",
        "ports": "link",
        "rdma": "link",
        "gpus": "gpu",
        "volumes": "disk",
    }.get(key)
    name = entry.get("name", entry.get("device", entry.get("index", entry.get("path"))))
    return f"{kind}:{name}" if kind and isinstance(name, str | int) else _component(entry, "")


def _is_pair(data: Data) -> bool:
    return bool({"before", "after", "from", "to", "old", "new", "value", "state", "during"} & data.keys())
