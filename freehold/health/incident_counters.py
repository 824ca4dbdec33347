"""Counters before and after out of an incident file: a list of records, or maps by name, by GPU, or both.

Which component a counter belongs to is said, or known by its name. Values stay as they were written: what they mean is for the signs,
and nothing is judged here.
"""

import re
from collections.abc import Iterator

from freehold.health.incident_read import Data, Reader, as_map
from freehold.health.incidents import Change, Number
from freehold.health.kernel_events import pci_key
from freehold.health.signs_changes import plain

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
        reader.unknown(entry, where, CHANGE_KEYS) if _has_name(entry) else None
        found.extend(
            _record(reader, entry, where)
            if _has_name(entry)
            else _from_map(reader, entry, where, _component(entry, ""))
        )
    return found


def _has_name(entry: Data) -> bool:
    return any(isinstance(entry.get(key), str) for key in ("name", "counter", "field", "metric"))


def _record(reader: Reader, entry: Data, path: str) -> Iterator[Change]:
    name = reader.text(entry, path, "name", "counter", "field", "metric")
    unit = reader.text(entry, path, "unit")
    full = f"{name}_{unit}" if unit in {"ms", "us", "s"} and not name.endswith(f"_{unit}") else name
    yield _change(reader, entry, path, component=_component(entry, full), name=full)


def _change(reader: Reader, entry: Data, path: str, *, component: str, name: str) -> Change:
    before = reader.pick(entry, path, ("before", "from", "old", "baseline", "max", "expected"))
    after = reader.pick(entry, path, ("during", "after", "to", "new", "value", "now"))
    others = reader.pick(entry, path, ("siblings", "others", "peers"))
    return Change(
        component=component,
        name=name,
        before=_value(reader, *before) if before else None,
        after=_value(reader, *after) if after else None,
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


def _from_map(reader: Reader, data: Data, path: str, component: str) -> Iterator[Change]:
    for key, value in data.items():
        where, inner = f"{path}.{key}", as_map(value)
        if (
            key in {"gpu", "component", "index", "uuid", "serial", "pci", "replica", "at", "at_s"}
            and inner is None
        ):
            continue
        if inner is not None and _is_pair(inner):
            yield _change(reader, inner, where, component=component or by_name(key), name=key)
        elif inner is not None:
            yield from _from_map(
                reader,
                inner,
                where,
                component if key in {"readings", "counters", "nvml_fields"} else component_of(key),
            )
        elif (
            isinstance(value, list)
            and len(value) == 2
            and all(not isinstance(one, dict | list) for one in value)
        ):
            before, after = (_value(reader, where, one) for one in value)
            yield Change(
                component=component or by_name(key),
                name=key,
                before=before,
                after=after,
                source="incident file",
            )
        else:
            yield Change(
                component=component or by_name(key),
                name=key,
                before=None,
                after=_value(reader, where, value),
                source="incident file",
            )


def _is_pair(data: Data) -> bool:
    return bool({"before", "after", "from", "to", "old", "new", "value", "state", "during"} & data.keys())
