"""What the environment and the flags say, laid over what the file says: flag > `FREEHOLD_*` > file > default.

A variable's name is `FREEHOLD_` and the path of its key in capitals with `__` between the levels:
`FREEHOLD_GATEWAY__LISTEN`, `FREEHOLD_GATEWAY__QUEUE__MAX_REQUESTS`, `FREEHOLD_FLEET__STOP_GRACE`; `FREEHOLD_LISTEN` is
short for the first. Every single value outside `models` has one; lists and models stand in the file alone. A variable
that is empty counts as not set. Every other `FREEHOLD_` name with `__` in it is a mistake. So is one without `__` that
is nearly a name that means something (`OTHERS` are read elsewhere); what is far from all of them is left alone, since
others write such names too: Kubernetes gives every container `FREEHOLD_PORT`, `FREEHOLD_SERVICE_HOST` and so on where a
service is called freehold.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Any, get_args

from pydantic import BaseModel

from freehold.core.places import Mistake, Place, Tree
from freehold.core.problems import nearest_hint
from freehold.spec.fields import LATER, QuantityText
from freehold.spec.later import is_later
from freehold.spec.model import Spec

PREFIX = "FREEHOLD_"
LEVEL = "__"
ALIASES: Mapping[str, tuple[str, ...]] = {"FREEHOLD_LISTEN": ("gateway", "listen")}
"""Short names of variables."""
OTHERS = frozenset(
    {"FREEHOLD_CACHE_DIR", "FREEHOLD_CONFIG", "FREEHOLD_LAUNCH", "FREEHOLD_LOG_LEVEL", "FREEHOLD_STATE_DIR"}
)
"""Variables that are no configuration: what the command line, the logs and the fleet read."""
_NEARLY = 0.75  # Of difflib's ratio, after the prefix: two letters swapped or missing, no other word. Our own choice.


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A value from outside the file: the way to its key, and the variable or flag that brought it."""

    path: tuple[str, ...]
    value: object
    source: str


def variable(path: tuple[str, ...]) -> str:
    """Return the environment variable of a key, for example `FREEHOLD_GATEWAY__LISTEN`."""
    return PREFIX + LEVEL.join(path).upper()


def flag(path: tuple[str, ...]) -> str:
    """Return the command-line flag of a key: its last word, for example `--max-requests`."""
    return "--" + path[-1].replace("_", "-")


def from_environment(env: Mapping[str, str]) -> tuple[list[Setting], list[Mistake]]:
    """Return what `env` sets, and a mistake for every variable that means to set something and does not."""
    settings: list[Setting] = []
    mistakes: list[Mistake] = []
    known = _variables()
    for name, text in sorted(env.items()):
        if not name.startswith(PREFIX) or not text:
            continue
        if name in known:
            path = known[name]
            settings.append(Setting(path=path, value=_read(text, path), source=name))
        elif LEVEL in name:
            mistakes.append(_unknown(name, known))
        elif name not in OTHERS and (meant := _nearly(name, [*known, *OTHERS])):
            mistakes.append(Mistake(Place(0, 0, name), "unknown variable", f"did you mean {meant!r}?"))
    return settings, mistakes + _contradictions(settings)


def from_flags(overrides: Mapping[str, object]) -> list[Setting]:
    """Return what flags set, keyed by dotted path (`gateway.listen`); None is a flag that was not given."""
    return [
        Setting(path=path, value=_read(value, path), source=flag(path))
        for dotted, value in overrides.items()
        if value is not None and (path := tuple(dotted.split(".")))
    ]


def lay_over(tree: Tree, settings: list[Setting]) -> None:
    """Write `settings` over the values of `tree`, later ones over earlier ones, with their sources as places.

    Where the file has no map to write into, its own mistake is left to stand.
    """
    for setting in settings:
        place = Place(0, 0, setting.source)
        section = tree.data
        for end, key in enumerate(setting.path[:-1], start=1):
            if isinstance(section, dict) and key not in section:
                section[key] = {}
                tree.keys[setting.path[:end]] = tree.values[setting.path[:end]] = place
            section = section.get(key) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section[setting.path[-1]] = setting.value
            tree.keys[setting.path] = tree.values[setting.path] = place


@cache
def _variables() -> dict[str, tuple[str, ...]]:
    return {variable(path): path for path, _ in _leaves(Spec, ())} | dict(ALIASES)


@cache
def _whole_numbers() -> frozenset[tuple[str, ...]]:
    return frozenset(path for path, whole in _leaves(Spec, ()) if whole)


def _leaves(section: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield every key below a section that holds one value, and whether that is a plain whole number."""
    for key, info in section.model_fields.items():
        kind = _without_none(info.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _leaves(kind, (*path, key))
        elif path and kind in {int, float, str}:
            measured = any(isinstance(note, QuantityText) for note in info.metadata)
            yield (*path, key), kind is int and not measured


def _without_none(kind: Any) -> Any:
    """Return `int` for `int | None`: a key without a default takes one value all the same."""
    kinds = [each for each in get_args(kind) if each is not type(None)]
    return kinds[0] if isinstance(kind, UnionType) and len(kinds) == 1 else kind


def _read(value: object, path: tuple[str, ...]) -> object:
    """Return a text as the number that its key takes; what is not a number is left for the key's own check."""
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18
    return int(str(value)) if digits and path in _whole_numbers() else value


def _unknown(name: str, known: Mapping[str, tuple[str, ...]]) -> Mistake:
    path = tuple(name.removeprefix(PREFIX).lower().split(LEVEL))
    place = Place(0, 0, name)
    if path[0] in {"models", "fallback"}:
        return Mistake(place, f"{path[0]} cannot be set from the environment", "write them in freehold.yaml")
    if is_later(path):
        return Mistake(place, f"{'.'.join(path)} {LATER}", "unset the variable")
    return Mistake(place, "unknown variable", nearest_hint(name, known))


def _nearly(name: str, known: Iterable[str]) -> str:
    """Return the name that was probably meant; empty: this one is not ours."""
    words = [each.removeprefix(PREFIX) for each in known]
    near = get_close_matches(name.removeprefix(PREFIX), words, n=1, cutoff=_NEARLY)
    return PREFIX + near[0] if near else ""


def _contradictions(settings: list[Setting]) -> list[Mistake]:
    found = {setting.source: setting for setting in settings}
    return [
        Mistake(Place(0, 0, short), f"differs from {variable(path)}, which sets the same", "set one of them")
        for short, path in ALIASES.items()
        if short in found and variable(path) in found and found[short].value != found[variable(path)].value
    ]
