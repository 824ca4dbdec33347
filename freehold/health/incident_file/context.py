"""What is known around an incident, out of an incident file: changes, drift, other nodes, an operator's hand, what came before.

Every text of the context is also kept, to be searched for words. Nothing here says what it means.
"""

import difflib
import re
from collections.abc import Iterator

from freehold.core.findings import Action
from freehold.health.evidence.kernel_signs import Past
from freehold.health.evidence.surroundings import Around
from freehold.health.incident_file.counters import component_of
from freehold.health.incident_file.values import SLIP, Data, Reader, as_map, moment

_WELL = re.compile(r"^(ok|healthy|fine|clean|no|none|unaffected|good|pass(ed)?)\b", re.IGNORECASE)


def around(reader: Reader, value: object, *, path: str, at_s: float) -> Around:
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
        words=tuple(
            f"{key} {text}"
            for key, entry in data.items()
            if key not in {"operator", "other_nodes"}
            for text in _texts(entry)
        ),
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
    for key in ("lock_changed_at", "changed_at", "last_change", "last_change_at"):
        value = data.get(key)
        for what, when in (as_map(value) or {"versions": value}).items():
            yield from _ago(reader, f"{path}.{key}", what=what, when=when, at_s=at_s)
    for key in ("driver", "engine", "config", "configuration"):
        yield from _ago(
            reader, f"{path}.{key}_changed_at", what=key, when=data.get(f"{key}_changed_at"), at_s=at_s
        )


_UNCHANGED = re.compile(r"^(never|no\w*|none|unchanged|unknown|n/?a|-|long ago|)$", re.IGNORECASE)


def _ago(reader: Reader, path: str, *, what: str, when: object, at_s: float) -> Iterator[tuple[str, float]]:
    """Yield how long before the incident something changed; a negative number is that already, `true` is just before."""
    time = moment(when)
    if when is True:
        yield _what_changed(what), 0.0
    elif time is not None:
        yield _what_changed(what), -time if time < 0 else at_s - time
    elif when is not None and when is not False and not _UNCHANGED.match(str(when)):
        reader.problem(path, f"must be a time, not {when!r:.60}", "Unix seconds, or 2026-11-27T10:00:00Z")


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
_AT_WORK = re.compile(
    r"reset|restart|reboot|maint|upgrad|replac|drain|stop|kill|unload|test|inject", re.IGNORECASE
)


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


_SET_HEALTHY = "set_healthy"
_SETS_HEALTHY = re.compile(r"set.?healthy|cleared", re.IGNORECASE)


def boundaries(reader: Reader, data: Data, path: str) -> dict[str, float]:
    """Return when an operator set what healthy: subject, or empty for the node, to Unix seconds."""
    found: dict[str, float] = {}
    for where, value in reader.items(data.get("operator"), f"{path}.operator"):
        entry = as_map(value)
        action = str(entry.get("action", "")) if entry is not None else ""
        if not _SETS_HEALTHY.search(action):
            # Any other words are an act of his; only a slip of this one would be missed.
            if difflib.get_close_matches(action, [_SET_HEALTHY], n=1, cutoff=SLIP):
                reader.problem(
                    f"{where}.action", f"{action!r} is not known", f"did you mean {_SET_HEALTHY!r}?"
                )
        elif entry is not None:
            when = moment(entry.get("at"))
            if when is None:
                reader.problem(f"{where}.at", "an operator's `set healthy` needs its time")
            else:
                found[component_of(str(entry.get("component", "") or entry.get("gpu", "")))] = when
    if (when := reader.time(data, path, "set_healthy_at")) is not None:
        found[""] = when
    return found


def earlier(reader: Reader, value: object, *, path: str, at_s: float) -> list[Past]:
    """Return what was diagnosed before."""
    found: list[Past] = []
    for where, entry in reader.maps(value, path):
        number = reader.number(entry, where, "xid", "number")
        action = reader.text(entry, where, "action")
        if action and action not in set(Action):
            reader.problem(f"{where}.action", f"{action!r} is no action", ", ".join(Action))
        subject = (
            reader.text(entry, where, "subject", "component", "serial", "uuid")
            or f"gpu:{reader.text(entry, where, 'gpu', 'pci')}"
        )
        when = reader.time(entry, where, "at", "at_s")
        found.append(
            Past(
                at_s=at_s - 3600.0 if when is None else when,
                subject=component_of(subject),
                signature=reader.text(entry, where, "signature")
                or (f"xid {number:g}" if number is not None else ""),
                place=reader.text(entry, where, "place"),
                action=action or Action.NONE,
            )
        )
    return found
