"""Another configuration for a stack that runs: read, checked whole, compared, and only then taken over.

Nothing is touched before everything that can be wrong was looked at: the file, what cannot change while the stack runs,
the weights of new models. What is taken over goes to the gateway in one message and to the fleet in one wish; how
replicas are replaced is the fleet's business (`fleet.rollout`). It never ends the stack, and a refusal leaves the old
configuration in force, said in the log and in `freehold status`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from freehold.core.clock import wall_s
from freehold.core.errors import FreeholdError
from freehold.core.events import ReplicaState
from freehold.core.problems import Problem, nearest_hint
from freehold.engines import all_engines
from freehold.fleet.gpus.pools import NodeGpus
from freehold.fleet.run import Fleet
from freehold.spec.changes import RESTART_HINT, Change, How, compare
from freehold.spec.explain import dotted
from freehold.spec.shapes import EXTERNAL
from freehold.stack.config import Config, read_config
from freehold.stack.engine_environment import environment_for
from freehold.stack.fetch import fetch_weights
from freehold.stack.gpu_allocation import NOBODY, gpus_for
from freehold.stack.status import ConfigStatus
from freehold.telemetry.logs import get_logger

if TYPE_CHECKING:
    from freehold.stack.controller import Prepared

LOOK_S = 0.1
"""Between two looks at how far a change has got. Source: our own choice; a replica takes seconds."""
HEARTBEAT_S = 2.0
"""Longest silence while something is waited for. Source: our own choice, as for a stop."""

_SETTLED = frozenset({ReplicaState.READY, ReplicaState.ASLEEP})
_MOVING = frozenset(ReplicaState) - _SETTLED - {ReplicaState.CRASH_LOOP}
Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """How a stack is moved; the controller has them."""

    apply: Callable[["Prepared", int, Mapping[str, int]], bool]
    """Tell gateway and fleet: a configuration, its generation, and how often each model's replicas were replaced."""
    lacking: Callable[["Prepared"], list[Problem]]
    """Return why this node has not the GPUs that a configuration wants."""
    in_force: Callable[[], int]
    """Return the generation that the gateway says it goes by."""
    stopping: Callable[[], bool]


def hash_of(config: Config) -> str:
    """Return twelve digits that tell one configuration from another, defaults and overrides included."""
    return sha256(config.spec.model_dump_json().encode()).hexdigest()[:12]


class Reloader:
    """The configuration in force, and the way to another."""

    def __init__(self, prepared: "Prepared", fleet: Fleet, levers: Levers) -> None:
        self.prepared = prepared
        self._fleet = fleet
        self._levers = levers
        self._rounds: dict[str, int] = {}
        self._installed = installed_for(prepared.config)
        self._generation = 1
        self._since_wall_s = wall_s()
        self._refused = ""
        self._busy = False
        self._log = get_logger("reload")

    def status(self) -> ConfigStatus:
        """Return which configuration is in force."""
        return ConfigStatus(
            generation=self._generation,
            hash=hash_of(self.prepared.config),
            since_wall_s=self._since_wall_s,
            refused=self._refused,
        )

    async def reload(self, *, dry_run: bool = False, wait: bool = True) -> AsyncIterator[Line]:
        """Read the file again and go over to it; yield what a client is told, line by line."""
        if self._busy or self._levers.stopping():
            why = "another reload is being prepared" if self._busy else "the stack is stopping"
            yield {"error": why, "hint": "try again" if self._busy else ""}
            return
        self._busy = True
        try:
            async for line in self._reload(dry_run=dry_run):
                yield line
                if "error" in line or "problems" in line:
                    if not dry_run:
                        self._note_refusal(line)
                    return
        finally:
            self._busy = False
        if wait and not dry_run:
            async for line in self._settle():
                yield line

    async def _reload(self, *, dry_run: bool) -> AsyncIterator[Line]:
        yield {"reading": self.prepared.config.name}
        found = await asyncio.to_thread(self._read)
        if isinstance(found, list):
            yield _problem_lines(found)
            return
        config, gpus, changes = found
        installed = installed_for(config)
        plan = {"changes": [_change_line(change) for change in changes], "dry_run": dry_run}
        if dry_run:
            yield plan | {"done": True}
            return
        known = self._weights_known(config)
        fetching = asyncio.create_task(asyncio.to_thread(fetch_weights, config, known=known))
        missing = {name for name, source, *_ in _sources(config) if source} - known.keys()
        async for line in _while(fetching, {"fetching": sorted(missing)}):
            yield line
        try:
            weights = fetching.result()
        except FreeholdError as exc:
            yield {"error": exc.message, "hint": exc.hint}
            return
        prepared = replace(self.prepared, config=config, weights=weights, gpus=gpus)
        # Weights that are built for a number of GPUs are here only now.
        if lacking := self._levers.lacking(prepared):
            yield _problem_lines(lacking)
            return
        if self._levers.stopping() or not self._take(prepared):
            yield {"error": "the stack is stopping, or too busy", "hint": "try again"}
            return
        self._installed = installed
        self._log.info("reloaded", generation=self._generation, changes=[str(change) for change in changes])
        yield plan | {"generation": self._generation}

    def _read(self) -> tuple[Config, NodeGpus, tuple[Change, ...]] | list[Problem]:
        old = self.prepared.config
        known = old.by_variable
        config = read_config(old.path, overrides=old.overrides, known=known)
        if not isinstance(config, Config):
            return config
        found = compare(old.spec, config.spec, config.where)
        problems = [*found.problems, *_other_fallback_keys(old, config)]
        if problems:
            return problems
        rekeyed = [
            Change(how=How.ROLL, what=f"models.{name}.api_key", old="one key", new="another")
            for name, key in config.api_keys.items()
            if old.api_keys.get(name, key) != key
        ]
        gpus = self._gpus(config)
        lacking = self._levers.lacking(replace(self.prepared, config=config, gpus=gpus))
        return lacking or (config, gpus, (*found.changes, *rekeyed, *self._reinstalled(config)))

    def _gpus(self, config: Config) -> NodeGpus:
        """Return the node's GPUs as they are now, unless they are unknown now or were at the start.

        Replicas are not started anew because nvidia-smi answers one time and another time not.
        """
        before, now = self.prepared.gpus, gpus_for(config)
        unknown = before.gpus is None and before != NOBODY
        return before if unknown or now.gpus is None else now

    def _reinstalled(self, config: Config) -> Iterator[Change]:
        """Yield the models whose engine's environment is another one than that of the replicas that run."""
        for name, new in installed_for(config).items():
            old = self._installed.get(name, new)
            if old != new:
                yield Change(how=How.ROLL, what=f"models.{name}.environment", old=old, new=new)

    def _weights_known(self, config: Config) -> dict[str, Path]:
        """Return the weights that are here and verified already, of models that are to have the same."""
        before = set(_sources(self.prepared.config))
        same = {wanted[0] for wanted in _sources(config) if wanted in before}
        return {name: path for name, path in self.prepared.weights.items() if name in same}

    def _take(self, prepared: "Prepared") -> bool:
        if not self._levers.apply(prepared, self._generation + 1, self._rounds):
            return False
        self.prepared, self._refused = prepared, ""
        self._generation += 1
        self._since_wall_s = wall_s()
        return True

    def _note_refusal(self, line: Line) -> None:
        problems = line.get("problems", ())
        told = "; ".join(f"{p['where']}: {p['message']}" for p in problems) or str(line.get("error"))
        self._refused = told
        self._log.error("reload_refused", why=told, doing="going on with the configuration before")

    async def restart(self, name: str, *, wait: bool = True) -> AsyncIterator[Line]:
        """Replace a model's replicas one by one, or start one replica afresh."""
        models = [model.name for model in self.prepared.config.spec.models]
        replicas = {status.id: status for status in self._fleet.statuses()}
        if name not in models and name not in replicas:
            hint = nearest_hint(name, [*models, *replicas])
            message = f"there is no model and no replica {name!r}"
            problem: Problem | None = Problem(where="NAME", message=message, hint=hint)
        elif any(each.engine == EXTERNAL for each in replicas.values() if name in {each.id, each.model}):
            problem = Problem(where="NAME", message=f"somebody else runs {name}: nothing here can restart it")
        else:
            problem = self._replace(name) if name in models else self._fleet.restart(name)
        if problem is not None:
            yield _problem_lines([problem])
            return
        yield {"restarting": True}
        if wait:
            again = {name: replicas[name].restarts} if name in replicas and name not in models else {}
            async for line in self._settle(again):
                yield line

    def _replace(self, model: str) -> Problem | None:
        rounds = self._rounds | {model: self._rounds.get(model, 0) + 1}
        if self._levers.stopping() or not self._levers.apply(self.prepared, self._generation, rounds):
            return Problem(where="NAME", message="the stack is stopping, or too busy", hint="try again")
        self._rounds = rounds
        return None

    async def _settle(self, again: Mapping[str, int] | None = None) -> AsyncIterator[Line]:
        """Yield the states when they change, and every HEARTBEAT_S, until all is as wanted or never will be.

        `again`: replicas that have to be started once more than so often.
        """
        told, quiet_s = None, 0.0
        while not self._levers.stopping():
            states = {status.id: str(status.state) for status in self._fleet.statuses()}
            if states != told or quiet_s >= HEARTBEAT_S:
                yield {"replicas": states}
                told, quiet_s = states, 0.0
            failed = self._failed()
            if failed:
                yield failed
                return
            if self._settled(again or {}):
                yield {"replicas": states, "done": True}
                return
            await asyncio.sleep(LOOK_S)
            quiet_s += LOOK_S
        yield {"error": "the stack is stopping", "hint": ""}

    def _settled(self, again: Mapping[str, int]) -> bool:
        if not self._fleet.done or self._levers.in_force() < self._generation:
            return False
        managed = _managed(self.prepared.config)
        statuses = self._fleet.statuses()
        ready = all(s.state in _SETTLED for s in statuses if s.model in managed)
        return ready and all(s.restarts > again[s.id] for s in statuses if s.id in again)

    def _failed(self) -> Line | None:
        """Return why what is wanted will not come; None: it may."""
        statuses = self._fleet.statuses()
        looping = [status for status in statuses if status.state is ReplicaState.CRASH_LOOP]
        moving = any(status.state in _MOVING and status.engine != EXTERNAL for status in statuses)
        if not looping or moving or not self._fleet.heard:
            return None
        why = "; ".join(f"{status.id} cannot be started: {status.reason}" for status in looping)
        return {"error": why, "hint": next((s.hint for s in looping if s.hint), "")}


def _other_fallback_keys(old: Config, new: Config) -> list[Problem]:
    """Return a problem for each fallback whose key changed: the gateway goes by the one that it began with."""
    changed = [
        ("fallback", index, "api_key_file")
        for index, each in enumerate(new.spec.fallback)
        if old.fallback_keys.get(each.name, "") != new.fallback_keys.get(each.name, "")
        and each in old.spec.fallback  # another entry is refused as a whole
    ]
    message = "{}: another key cannot be taken over while the stack runs"
    return [
        Problem(where=new.where(path), message=message.format(dotted(path)), hint=RESTART_HINT)
        for path in changed
    ]


def _sources(config: Config) -> Iterator[tuple[str, str, str, str]]:
    """Give the name of each model and adapter with where it comes from and which engine loads it."""
    for model in config.spec.models:
        for each in model.named:
            yield each.name, each.source, each.sha256, model.engine


def installed_for(config: Config) -> dict[str, str]:
    """Return for each model that Freehold runs which environment its engine has on this machine, in words; empty: none."""
    found = {
        model.name: environment_for(all_engines()[model.engine], model.engine_options)
        for model in config.spec.models
        if model.managed
    }
    return {
        name: f"{each.path.name} of {each.manifest.made_at} ({each.mark})" if each else ""
        for name, each in found.items()
    }


def _managed(config: Config) -> set[str]:
    return {model.name for model in config.spec.models if model.managed}


async def _while(task: "asyncio.Task[Any]", line: Line) -> AsyncIterator[Line]:
    """Yield `line` now and every HEARTBEAT_S until the task is done."""
    yield line
    while not task.done():
        await asyncio.wait({task}, timeout=HEARTBEAT_S)
        yield line


def _problem_lines(problems: list[Problem]) -> Line:
    return {"problems": [{"where": p.where, "message": p.message, "hint": p.hint} for p in problems]}


def _change_line(change: Change) -> Line:
    return {**msgspec.to_builtins(change, enc_hook=str), "text": str(change)}
