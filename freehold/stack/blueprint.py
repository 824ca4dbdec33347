"""The blueprint: all that a stack is to run, decided once, as one frozen value that can be written down and read again.

It holds no secret and no open file: API keys stay in memory (`resolve.Resolved`). It decides nothing and starts nothing.
A reload makes the next generation, whose `parent` is the id of the blueprint before.
"""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from freehold.core.errors import Permanent
from freehold.core.whole_file import replace_file
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan
from freehold.fleet.gpus.pools import NodeGpus
from freehold.gateway.settings import Settings
from freehold.health.agent.messages import HealthSettings
from freehold.spec.model import Spec
from freehold.spec.section import Section
from freehold.stack.decide.replicas import GivenGpus, LocalModel, planned_replicas

FILE_NAME = "blueprint.json"
"""The blueprint in force, in the state folder."""
_MAKE_NEW = "freehold up"


class Blueprint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One decided stack."""

    generation: int
    """Counts from 1, the blueprint that the stack was started with."""
    parent: str
    """Id of the blueprint before; empty: there is none."""
    config: Path | None
    """The file that it was made from; None: the built-in example."""
    overrides: dict[str, Any]
    """Values of flags that replace those of the file, by dotted key."""
    spec: Spec
    """The file's content with all its defaults."""
    cores: int
    """CPU cores that its replicas share."""
    models: dict[str, LocalModel]
    """What this machine has for each managed model, by name."""
    node: NodeGpus
    """The GPUs of this node."""
    gpus: dict[str, GivenGpus]
    """The GPUs of each managed replica, by its id."""
    fleet: FleetSettings
    gateway: Settings
    """Without the API keys of fallbacks."""
    agent: HealthSettings
    rounds: dict[str, int] = {}
    """How often `freehold restart` has replaced all replicas of a model, by its name."""
    notes: tuple[str, ...] = ()
    """Warnings that do not stop a start."""

    @property
    def id(self) -> str:
        """Return twelve digits of the content's hash; generation and parent do not count."""
        content = msgspec.structs.replace(self, generation=0, parent="")
        return sha256(encode(content)).hexdigest()[:12]

    @property
    def weights(self) -> dict[str, Path]:
        """Return the verified weights that are here, by the name of their model or adapter."""
        found = {name: facts.weights for name, facts in self.models.items() if facts.weights is not None}
        return found | {
            name: each.path for facts in self.models.values() for name, each in facts.adapters.items()
        }

    @property
    def to_fetch(self) -> list[str]:
        """Return the names of models and adapters whose weights must be fetched, or made, before an engine starts."""
        here = self.weights
        named = (each for model in self.spec.models if model.managed for each in model.named)
        return sorted(each.name for each in named if each.source and each.name not in here)

    def replicas(self, api_keys: Mapping[str, str]) -> list[ReplicaPlan]:
        """Return every replica with its GPUs; `api_keys` are by model name."""
        plans = planned_replicas(self.spec, self.models, cores=self.cores, api_keys=api_keys)
        given = ((plan, self.gpus.get(plan.id, GivenGpus())) for plan in plans)
        return [
            replace(plan, gpus=each.gpus, gpus_shared=each.shared, round=self.rounds.get(plan.model, 0))
            for plan, each in given
        ]


def encode(blueprint: Blueprint) -> bytes:
    """Return a blueprint as JSON, the same bytes for the same content."""
    return msgspec.json.encode(blueprint, enc_hook=_plain, order="deterministic")


def decode(content: bytes) -> Blueprint:
    """Return the blueprint that `encode` wrote; raises Permanent for anything else, such as another version's."""
    try:
        return msgspec.json.decode(content, type=Blueprint, dec_hook=_typed)
    except (msgspec.ValidationError, ValidationError) as exc:
        raise Permanent(f"written by another version of Freehold: {exc}", hint=_MAKE_NEW) from exc
    except msgspec.DecodeError as exc:
        raise Permanent(f"damaged: {exc}", hint=_MAKE_NEW) from exc


def write_blueprint(blueprint: Blueprint, state_path: Path) -> None:
    """Write the blueprint into the state folder, whole or not at all; raises Permanent."""
    path = state_path / FILE_NAME
    try:
        replace_file(path, encode(blueprint))
    except OSError as exc:
        raise Permanent(f"cannot write {path}: {exc.strerror}") from exc


def read_blueprint(state_path: Path) -> Blueprint:
    """Return the blueprint of a state folder; raises Permanent if it cannot be read."""
    path = state_path / FILE_NAME
    try:
        return decode(path.read_bytes())
    except OSError as exc:
        raise Permanent(f"cannot read {path}: {exc.strerror}", hint=_MAKE_NEW) from exc
    except Permanent as exc:
        raise Permanent(f"cannot use {path}: {exc}", hint=_MAKE_NEW) from exc


def _plain(value: Any) -> Any:
    return _written(value) if isinstance(value, Spec) else str(value)


def _written(section: Section) -> dict[str, Any]:
    """Return a section as its file could have it: with the defaults, but without an absent value, which no file can name.

    What the file says itself stays, also where it is empty: an empty list can mean something else than no list.
    """
    plain = section.model_dump(mode="json")
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            plain[name] = _written(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            plain[name] = [_written(each) for each in value]
        elif name not in section.model_fields_set and value in (None, "", ()):
            del plain[name]
    return plain


def _typed(kind: type, value: Any) -> Any:
    return Spec.model_validate(value) if kind is Spec else kind(value)
