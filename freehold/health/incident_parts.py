"""The parts of an incident file: counters, findings, engines, what is known around it, and what was diagnosed before.

Each part may be written in more than one form; docs/health-diagnosis.md shows the plain one. Mistakes go to the `Reader`.
"""

import re
from collections.abc import Iterator

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.incident_read import Data, Reader, as_map, moment
from freehold.health.incidents import Change, Number
from freehold.health.kernel_events import pci_key
from freehold.health.signs_changes import plain
from freehold.health.signs_engines import Around, EngineEnd
from freehold.health.signs_events import Past

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
_ENGINE_KEYS = (
    "replica", "name", "id", "engine", "exit_code", "exit", "code", "exit_status", "returncode", "signal", "log_tail", "log",
    "stderr", "logs", "tail", "last_lines", "stderr_tail", "state", "status", "at", "pid", "model", "tokens_before", "tokens_after",
    "running", "exit_text", "health", "progress", "requests_running", "process_state", "restarts", "gpu", "uptime_s", "started_at",
)  # fmt: skip
_SIGNALS = {"SIGHUP": 1, "SIGINT": 2, "SIGILL": 4, "SIGABRT": 6, "SIGBUS": 7, "SIGFPE": 8, "SIGKILL": 9, "SIGSEGV": 11, "SIGTERM": 15}
"""Source: signal(7)."""
_FINDING_KEYS = ("probe", "name", "check", "component", "gpu", "verdict", "status", "state", "health", "reason", "message", "at", "at_s",
                 "evidence", "action", "node", "severity", "value")  # fmt: skip
_VERDICTS = {
    "ok": Verdict.HEALTHY, "pass": Verdict.HEALTHY, "passed": Verdict.HEALTHY, "good": Verdict.HEALTHY, "info": Verdict.HEALTHY,
    "warn": Verdict.DEGRADED, "warning": Verdict.DEGRADED, "degraded": Verdict.DEGRADED, "": Verdict.UNHEALTHY,
    "critical": Verdict.UNHEALTHY, "fail": Verdict.UNHEALTHY, "failed": Verdict.UNHEALTHY, "bad": Verdict.UNHEALTHY,
    "error": Verdict.UNHEALTHY, "fatal": Verdict.UNHEALTHY,
}  # fmt: skip
_WELL = re.compile(r"^(ok|healthy|fine|clean|no|none|unaffected|good|pass(ed)?)\b", re.IGNORECASE)


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
        found.extend(_record(reader, entry, where) if _has_name(entry) else _from_map(reader, entry, where, _component(entry, "")))
    return found


def _has_name(entry: Data) -> bool:
    return any(isinstance(entry.get(key), str) for key in ("name", "counter", "field", "metric"))


def _record(reader: Reader, entry: Data, path: str) -> Iterator[Change]:
    name = reader.text(entry, path, "name", "counter", "field", "metric")
    unit = reader.text(entry, path, "unit")
    full = f"{name}_{unit}" if unit in {"ms", "us", "s"} and not name.endswith(f"_{unit}") else name
    yield _change(reader, entry, path, _component(entry, full), full)


def _change(reader: Reader, entry: Data, path: str, component: str, name: str) -> Change:  # noqa: PLR0913, PLR0917
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
        return max(value)
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
        if key in {"gpu", "component", "index", "uuid", "serial", "pci", "replica", "at", "at_s"} and inner is None:
            continue
        if inner is not None and _is_pair(inner):
            yield _change(reader, inner, where, component or by_name(key), key)
        elif inner is not None:
            yield from _from_map(reader, inner, where, component if key in {"readings", "counters", "nvml_fields"} else component_of(key))
        elif isinstance(value, list) and len(value) == 2 and all(not isinstance(one, dict | list) for one in value):
            before, after = (_value(reader, where, one) for one in value)
            yield Change(component=component or by_name(key), name=key, before=before, after=after, source="incident file")
        else:
            yield Change(component=component or by_name(key), name=key, before=None, after=_value(reader, where, value), source="incident file")


def _is_pair(data: Data) -> bool:
    return bool({"before", "after", "from", "to", "old", "new", "value", "state", "during"} & data.keys())


def findings(reader: Reader, value: object, path: str) -> list[Finding]:
    """Return findings; a verdict that is not given is a bad one, since nobody writes down what is well."""
    found: list[Finding] = []
    for where, entry in reader.maps(value, path):
        reader.unknown(entry, where, _FINDING_KEYS)
        word = reader.text(entry, where, "verdict", "status", "state", "health", "severity").lower()
        verdict = _VERDICTS.get(word) or (Verdict(word) if word in set(Verdict) else None)
        if verdict is None:
            reader.problem(f"{where}.verdict", f"{word!r} is no verdict", "healthy, degraded, unhealthy, unknown or not_applicable")
            continue
        gpu = reader.text(entry, where, "gpu")
        found.append(
            Finding(
                probe=reader.text(entry, where, "probe", "name", "check"),
                component=component_of(reader.text(entry, where, "component") or (f"gpu:{gpu}" if gpu else "")),
                verdict=verdict,
                reason=reader.text(entry, where, "reason"),
                message=reader.text(entry, where, "message"),
                at_s=reader.time(entry, where, "at", "at_s") or 0.0,
            )
        )
    return found


def engines(reader: Reader, value: object, path: str) -> tuple[list[EngineEnd], list[Change]]:
    """Return engines' ends and their counters of progress, from a list or a map by replica."""
    data = as_map(value)
    if data is not None and not set(data) & set(_ENGINE_KEYS):
        value = [{"replica": key, **(as_map(entry) or {"state": entry})} for key, entry in data.items()]
    ends: list[EngineEnd] = []
    moved: list[Change] = []
    for index, (where, entry) in enumerate(reader.maps(value, path)):
        reader.unknown(entry, where, _ENGINE_KEYS)
        ends.append(_engine(reader, entry, where, index))
        moved.extend(_progress(reader, entry, where, ends[-1].replica))
    return ends, moved


def _engine(reader: Reader, entry: Data, path: str, index: int) -> EngineEnd:
    log = reader.pick(entry, path, ("log_tail", "log", "stderr", "logs", "tail", "last_lines", "stderr_tail", "exit_text"))
    return EngineEnd(
        replica=reader.text(entry, path, "replica", "name", "id") or str(index),
        engine=reader.text(entry, path, "engine"),
        exit_code=_exit_code(reader, entry, path),
        log_tail=tuple(reader.lines(log[1], log[0])) if log else (),
        state=reader.text(entry, path, "process_state", "state", "status", "health", "progress"),
        at_s=reader.time(entry, path, "at") or 0.0,
    )


def _exit_code(reader: Reader, entry: Data, path: str) -> int | None:
    signal = entry.get("signal")
    if isinstance(signal, str) and signal.upper() in _SIGNALS:
        return -_SIGNALS[signal.upper()]
    number = reader.number(entry, path, "signal")
    if number:
        return -abs(int(number))
    code = reader.number(entry, path, "exit_code", "exit", "code", "exit_status", "returncode")
    return None if code is None else int(code)


def _progress(reader: Reader, entry: Data, path: str, replica: str) -> Iterator[Change]:
    component = f"engine:{replica}"
    before, after = reader.number(entry, path, "tokens_before"), reader.number(entry, path, "tokens_after")
    running = reader.number(entry, path, "running", "requests_running")
    if after is not None:
        yield Change(component=component, name="tokens_total", before=before, after=after, source="engine metrics")
    if running is not None:
        yield Change(component=component, name="running", before=None, after=running, source="engine metrics")


def around(reader: Reader, value: object, path: str, at_s: float) -> Around:
    """Return what is known around an incident; every text in it is also searched for words."""
    data = as_map(value)
    if data is None:
        if value is not None and not isinstance(value, str | list):
            reader.problem(path, "must be an object")
        return Around(words=tuple(_texts(value)))
    return Around(
        changed=dict(_changed(reader, data, path, at_s)),
        drift=tuple(_drift(data)),
        same_on=tuple(_same_on(data)),
        operator=_operator(reader, data, path, at_s),
        follows_workload=reader.flag(data, path, "follows_workload", "moved_with_workload"),
        stays_with_gpu=reader.flag(data, path, "stays_with_gpu", "stayed_with_gpu"),
        words=tuple(f"{key} {text}" for key, entry in data.items() if key not in {"operator", "other_nodes"} for text in _texts(entry)),
    )


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)
    elif (data := as_map(value)) is not None:
        for key, entry in data.items():
            yield from (f"{key} {text}" for text in _texts(entry))


def _changed(reader: Reader, data: Data, path: str, at_s: float) -> Iterator[tuple[str, float]]:
    for key in ("lock_changed_at", "changed_at", "last_change", "changed", "last_change_at"):
        value = data.get(key)
        times = as_map(value) or ({} if value is None else {"versions": value})
        for what, when in times.items():
            time = moment(when)
            if time is None and key != "changed":
                reader.problem(f"{path}.{key}", f"must be a time, not {when!r:.60}", "Unix seconds, or 2026-11-27T10:00:00Z")
            elif time is not None:
                yield _what_changed(what), at_s - time
    for key in ("driver", "engine", "config", "configuration"):
        if (time := moment(data.get(f"{key}_changed_at"))) is not None:
            yield _what_changed(key), at_s - time


def _what_changed(word: str) -> str:
    if re.search(r"driver|cuda|nvidia|kernel", word, re.IGNORECASE):
        return "driver"
    if re.search(r"engine|vllm|llama|sglang|image|model|package", word, re.IGNORECASE):
        return "engine"
    return "configuration" if re.search(r"conf|option|setting|yaml", word, re.IGNORECASE) else "versions"


def _drift(data: Data) -> Iterator[str]:
    drift = data.get("drift") or data.get("lock_drift")
    if isinstance(drift, bool):
        yield "the machine differs from the lock"
    elif isinstance(drift, str) and not _WELL.match(drift):
        yield drift
    elif isinstance(drift, list):
        yield from (str(one) for one in drift)
    elif (differs := as_map(drift)) is not None:
        yield from (f"{key}: {value}" for key, value in differs.items())
    locked, running = as_map(data.get("lock") or data.get("locked")), as_map(data.get("running"))
    for key in sorted((locked or {}).keys() & (running or {}).keys()):
        if locked and running and locked[key] != running[key]:
            yield f"{key}: locked {locked[key]}, running {running[key]}"


def _same_on(data: Data) -> Iterator[str]:
    others = data.get("other_nodes") or data.get("same_on_nodes") or data.get("other_nodes_affected")
    if isinstance(others, bool):
        return
    if isinstance(others, int | float) and others > 0:
        yield f"{others:g} nodes"
    elif isinstance(others, str) and not _WELL.match(others):
        yield others
    elif isinstance(others, list):
        yield from (name for entry in others if (name := _affected(entry)))
    elif (named := as_map(others)) is not None:
        yield from (key for key, entry in named.items() if _is_ill(entry))


def _affected(entry: object) -> str:
    data = as_map(entry)
    if data is None:
        return str(entry)
    ill = [value for key, value in data.items() if key not in {"node", "name", "at"}]
    return str(data.get("node") or data.get("name") or "a node") if not ill or any(map(_is_ill, ill)) else ""


def _is_ill(value: object) -> bool:
    if isinstance(value, str):
        return bool(value) and not _WELL.match(value)
    if (data := as_map(value)) is not None:
        return any(map(_is_ill, data.values()))
    return bool(value)


_OPERATOR_S = 900.0
"""Events this long after an operator's hand may be his. Source: our own choice: a reset or restart takes minutes."""
_AT_WORK = re.compile(r"reset|restart|reboot|maint|upgrad|replac|drain|stop|kill|unload|test|inject", re.IGNORECASE)


def _operator(reader: Reader, data: Data, path: str, at_s: float) -> str:
    """Return what an operator did in the quarter of an hour before the incident's end; an act without a time counts."""
    for where, value in reader.items(data.get("operator"), f"{path}.operator"):
        entry = as_map(value) or {"action": value}
        words = " ".join(str(one) for key, one in entry.items() if key not in {"at", "by", "who", "name"})
        when = moment(entry.get("at"))
        if entry.get("at") is not None and when is None:
            reader.problem(f"{where}.at", "must be a time")
        if _AT_WORK.search(words) and (when is None or -_OPERATOR_S <= at_s - when <= _OPERATOR_S):
            return words
    return ""


def boundaries(reader: Reader, data: Data, path: str) -> dict[str, float]:
    """Return when an operator set what healthy: subject, or empty for the node, to Unix seconds."""
    found: dict[str, float] = {}
    for where, value in reader.items(data.get("operator"), f"{path}.operator"):
        entry = as_map(value)
        if entry is not None and re.search(r"set.?healthy|cleared", str(entry.get("action", "")), re.IGNORECASE):
            when = moment(entry.get("at"))
            if when is None:
                reader.problem(f"{where}.at", "an operator's `set healthy` needs its time")
            else:
                found[component_of(str(entry.get("component", "") or entry.get("gpu", "")))] = when
    if (when := reader.time(data, path, "set_healthy_at")) is not None:
        found[""] = when
    return found


def history(reader: Reader, value: object, path: str, at_s: float) -> list[Past]:
    """Return what was diagnosed before."""
    found: list[Past] = []
    for where, entry in reader.maps(value, path):
        number = reader.number(entry, where, "xid", "number")
        action = reader.text(entry, where, "action")
        if action and action not in set(Action):
            reader.problem(f"{where}.action", f"{action!r} is no action", ", ".join(Action))
        subject = reader.text(entry, where, "subject", "component", "serial", "uuid") or f"gpu:{reader.text(entry, where, 'gpu', 'pci')}"
        when = reader.time(entry, where, "at", "at_s")
        found.append(
            Past(
                at_s=at_s - 3600.0 if when is None else when,
                subject=component_of(subject),
                signature=reader.text(entry, where, "signature") or (f"xid {number:g}" if number is not None else ""),
                place=reader.text(entry, where, "place"),
                action=action or Action.NONE,
            )
        )
    return found
