"""From one freehold.yaml to another while the stack runs: what changes, how, and what cannot. Pure.

Every setting is either changed in place, or reached by replacing replicas, or cannot change without an end and a new
start; what has no rule is among the last. It says nothing about secrets: they are not in the file.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from freehold.core.places import dotted
from freehold.core.problems import Problem
from freehold.spec.model import ModelSpec, Spec

LIVE = (
    ("gateway", "queue"),
    ("gateway", "timeouts"),
    ("gateway", "max_body"),
    ("gateway", "upload_memory"),
    ("gateway", "drain_grace"),
    ("gateway", "access_log"),
    ("fleet", "ready_timeout"),
    ("fleet", "stop_grace"),
    ("roles",),
)
"""What the running processes take over as it is; all that lies under these keys as well."""
LIVE_IN_MODEL = frozenset({("stall",), ("affinity",), ("resume",), ("media_urls",), ("allow_keys",)})
"""Keys of a model that the gateway takes over, while its replicas stay as they are."""
RESTART_HINT = "freehold down, then freehold up, changes it; or put the old value back"
_NOTHING = (None, "", ())

Where = Callable[[tuple[str | int, ...]], str]
"""From the way to a key to where it stands: `file:line:column`."""


class How(StrEnum):
    """What a change takes."""

    LIVE = "live"  # taken over as it is
    ADD = "add"  # a model that was not there: its replicas are started
    REMOVE = "remove"  # a model that is to go: new requests get 404, its streams finish
    SCALE = "scale"  # replicas are started or drained
    ROLL = "roll"  # each replica is replaced by a new one, which is ready before the old one goes


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecChange:
    """One thing that differs."""

    how: How
    what: str
    """The key, as `gateway.queue.max_requests` or `models.NAME.replicas`, or the model, as `models.NAME`."""
    old: Any = None
    new: Any = None

    def __str__(self) -> str:
        """Return the change in a line."""
        name = self.what.partition(".")[2]
        if self.how is How.ADD:
            return f"+ model {name}"
        if self.how is How.REMOVE:
            return f"- model {name}: no new requests, its streams finish"
        rolling = " (its replicas are replaced one by one)" if self.how is How.ROLL else ""
        return f"~ {self.what}: {_shown(self.old)} -> {_shown(self.new)}{rolling}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What differs between two specs."""

    changes: tuple[SpecChange, ...]
    problems: tuple[Problem, ...]
    """What cannot change while the stack runs; where there is one, nothing may be done."""


def compare(old: Spec, new: Spec, where: Where) -> Changes:
    """Return all that differs; `where` says where a key of the new file stands."""
    changes: list[SpecChange] = list(_models(old, new))
    problems: list[Problem] = []
    for path, was, now in _differing(old.model_dump(exclude={"models"}), new.model_dump(exclude={"models"})):
        if was in _NOTHING and now in _NOTHING:
            continue  # what a section that comes or goes leaves empty
        if any(path[: len(live)] == live for live in LIVE):
            changes.append(SpecChange(how=How.LIVE, what=dotted(path), old=was, new=now))
        else:
            message = f"{dotted(path)} cannot change from {_shown(was)} to {_shown(now)} while the stack runs"
            problems.append(Problem(where=where(path), message=message, hint=RESTART_HINT))
    return Changes(changes=tuple(changes), problems=tuple(problems))


def _models(old: Spec, new: Spec) -> Iterator[SpecChange]:
    before = {model.name: model for model in old.models}
    after = {model.name: model for model in new.models}
    for name in dict.fromkeys([*before, *after]):
        if name not in after:
            yield SpecChange(how=How.REMOVE, what=f"models.{name}")
        elif name not in before:
            yield SpecChange(how=How.ADD, what=f"models.{name}")
        else:
            yield from _model(before[name], after[name])


def _model(old: ModelSpec, new: ModelSpec) -> Iterator[SpecChange]:
    for path, was, now in _differing(old.model_dump(), new.model_dump()):
        yield SpecChange(how=_how(path), what=f"models.{old.name}.{dotted(path)}", old=was, new=now)


def _how(path: tuple[str, ...]) -> How:
    if path in LIVE_IN_MODEL or path[0] == "price":
        return How.LIVE
    return How.SCALE if path in {("replicas",), ("endpoints",)} else How.ROLL


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield the way to each value that differs, what it was and what it is; None where one has no such key."""
    before, after = _leaves(old), _leaves(new)
    for path in dict.fromkeys([*before, *after]):
        if before.get(path) != after.get(path):
            yield path, before.get(path), after.get(path)


def _leaves(value: Mapping[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return every value that is not a map by the way to it."""
    found: dict[tuple[str, ...], Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            found |= _leaves(inner, (*above, key))
        else:
            found[*above, key] = inner
    return found


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "nothing"
    if isinstance(value, tuple | list):
        return ", ".join(map(_shown, value)) or "nothing"
    if isinstance(value, Mapping):  # an entry of a list, such as an adapter
        digits = str(value.get("sha256", ""))[:12]
        return f"{value.get('name', '?')}" + (f" ({digits})" if digits else "")
    return str(value)
