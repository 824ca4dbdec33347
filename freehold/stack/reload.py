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
from typing import Any

import msgspec

from freehold.core.clock import wall_s
from freehold.core.errors import FreeholdError
from freehold.core.events import ReplicaState
from freehold.core.problems import Problem, nearest_hint
from freehold.fleet.control.state_dir import StateDir
from freehold.fleet.run import Fleet
from freehold.spec.changes import RESTART_HINT, Change, How, compare
from freehold.spec.explain import dotted
from freehold.spec.shapes import EXTERNAL
from freehold.stack.blueprint import Blueprint, write_blueprint
from freehold.stack.config import Config, read_config
from freehold.stack.resolve import Resolved, fetch, resolve_config, with_gpus
from freehold.stack.status import ConfigStatus
from freehold.telemetry.logs import get_logger

LOOK_S = 0.1
"""Between two looks at how far a change has got. Source: our own choice; a replica takes seconds."""
HEARTBEAT_S = 2.0
"""Longest silence while something is waited for. Source: our own choice, as for a stop."""

_SETTLED = frozenset({ReplicaState.READY, ReplicaState.ASLEEP})
_MOVING = frozenset(ReplicaState) - _SETTLED - {ReplicaState.CRASH_LOOP}
_BUSY = "the stack is stopping, or too busy"
Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """How a stack is moved; the controller has them."""

    apply: Callable[[Resolved], bool]
    """Give a blueprint to gateway and fleet; False: the fleet cannot take it now."""
    in_force: Callable[[], int]
    """Return the generation that the gateway reports."""
    stopping: Callable[[], bool]


def hash_of(blueprint: Blueprint) -> str:
    """Return twelve digits that tell one configuration from another, defaults and overrides included."""
    return sha256(blueprint.spec.model_dump_json().encode()).hexdigest()[:12]


class Reloader:
    """The blueprint in force, and the way to the next."""

    def __init__(self, resolved: Resolved, state: StateDir, *, fleet: Fleet, levers: Levers) -> None:
        self._current = resolved
        self._state = state
        self._fleet = fleet
        self._levers = levers
        self._since_wall_s = wall_s()
        self._refused = ""
        self._busy = False
        self._log = get_logger("reload")

    def status(self) -> ConfigStatus:
        """Return which configuration is in force."""
        return ConfigStatus(
            generation=self._current.blueprint.generation,
            hash=hash_of(self._current.blueprint),
            since_wall_s=self._since_wall_s,
            refused=self._refused,
        )

    async def reload(self, *, dry_run: bool = False, wait: bool = True) -> AsyncIterator[Line]:
        """Read the file again and go over to it; yield the answer to a client, line by line."""
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
        yield {"reading": self._current.config.name}
        found = await asyncio.to_thread(self._read)
        if isinstance(found, list):
            yield _problem_lines(found)
            return
        draft, changes = found
        plan = {"changes": [_change_line(change) for change in changes], "dry_run": dry_run}
        if dry_run:
            yield plan | {"done": True}
            return
        fetching = asyncio.create_task(asyncio.to_thread(fetch, draft))
        async for line in _while(fetching, {"fetching": draft.blueprint.to_fetch}):
            yield line
        try:
            complete = fetching.result()
        except FreeholdError as exc:
            yield {"error": exc.message, "hint": exc.hint}
            return
        if isinstance(complete, list):
            yield _problem_lines(complete)
            return
        if self._levers.stopping() or not self._take(complete):
            yield {"error": _BUSY, "hint": "try again"}
            return
        self._refused, self._since_wall_s = "", wall_s()
        generation = complete.blueprint.generation
        self._log.info("reloaded", generation=generation, changes=[str(change) for change in changes])
        yield plan | {"generation": generation}

    def _read(self) -> tuple[Resolved, tuple[Change, ...]] | list[Problem]:
        """Return the next blueprint, still without new weights, and what it changes; or why it cannot come."""
        old = self._current
        found = read_config(old.config.path, overrides=old.config.overrides, known=old.config.by_variable)
        if not isinstance(found, Config):
            return found
        compared = compare(old.config.spec, found.spec, found.where)
        problems = [*compared.problems, *_other_fallback_keys(old.config, found)]
        draft = problems or resolve_config(found, self._state, parent=old)
        if isinstance(draft, list):
            return draft
        return draft, (*compared.changes, *_other_keys(old.config, found), *_reinstalled(old, draft))

    def _take(self, resolved: Resolved) -> bool:
        """Go over to a blueprint; False: the one before stays in force."""
        found = with_gpus(resolved, self._fleet.held())
        if isinstance(found, list) or not self._levers.apply(found):
            return False
        self._current = found
        try:
            write_blueprint(found.blueprint, self._state.path)
        except FreeholdError as exc:
            self._log.error("blueprint_not_written", why=exc.message, doing="the stack has it in memory")
        return True

    def _note_refusal(self, line: Line) -> None:
        problems = line.get("problems", ())
        told = "; ".join(f"{p['where']}: {p['message']}" for p in problems) or str(line.get("error"))
        self._refused = told
        self._log.error("reload_refused", why=told, doing="going on with the configuration before")

    async def restart(self, name: str, *, wait: bool = True) -> AsyncIterator[Line]:
        """Replace a model's replicas one by one, or start one replica afresh."""
        models = [model.name for model in self._current.config.spec.models]
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
        blueprint = self._current.blueprint
        rounds = blueprint.rounds | {model: blueprint.rounds.get(model, 0) + 1}
        again = replace(self._current, blueprint=msgspec.structs.replace(blueprint, rounds=rounds))
        if self._levers.stopping() or not self._take(again):
            return Problem(where="NAME", message=_BUSY, hint="try again")
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
        if not self._fleet.done or self._levers.in_force() < self._current.blueprint.generation:
            return False
        managed = self._current.blueprint.models
        statuses = self._fleet.statuses()
        ready = all(s.state in _SETTLED for s in statuses if s.model in managed)
        return ready and all(s.restarts > again[s.id] for s in statuses if s.id in again)

    def _failed(self) -> Line | None:
        """Return why what is wanted will not come; None: it may."""
        statuses = self._fleet.statuses()
        looping = [status for status in statuses if status.state is ReplicaState.CRASH_LOOP]
        moving = any(status.state in _MOVING and status.engine != EXTERNAL for status in statuses)
        if not looping or moving or not self._fleet.queue_is_empty:
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


def _other_keys(old: Config, new: Config) -> Iterator[Change]:
    """Yield the models whose API key has changed."""
    for name, key in new.api_keys.items():
        if old.api_keys.get(name, key) != key:
            yield Change(how=How.ROLL, what=f"models.{name}.api_key", old="one key", new="another")


def _reinstalled(old: Resolved, new: Resolved) -> Iterator[Change]:
    """Yield the models whose engine's environment is another installation than that of the replicas that run."""
    for name, facts in new.blueprint.models.items():
        before = old.blueprint.models.get(name, facts).environment
        if before != facts.environment:
            was, now = (str(each or "") for each in (before, facts.environment))
            yield Change(how=How.ROLL, what=f"models.{name}.environment", old=was, new=now)


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
