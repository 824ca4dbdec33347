"""Reload a running stack: read the file, check and compare it, fetch new weights, and only then apply the next blueprint.

The gateway gets its settings in one message and the fleet its replicas in one change; `fleet/decisions/rollout` decides how
replicas are replaced. A reload never ends the stack. If it is rejected, the blueprint before stays in force, and the log
and `freehold status` show why.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import msgspec

from freehold.core.clock import wall_s
from freehold.core.errors import FreeholdError
from freehold.core.events import ReplicaState, ReplicaStatus
from freehold.core.places import dotted
from freehold.core.problems import Problem, nearest_hint
from freehold.fleet.control.state_dir import StateDir
from freehold.fleet.run import Fleet
from freehold.spec.changes import RESTART_HINT, How, SpecChange, compare
from freehold.spec.shapes import EXTERNAL
from freehold.stack.blueprint import Blueprint, write_blueprint
from freehold.stack.config import Config, read_config
from freehold.stack.resolve import Resolved, fetch, resolve_config, with_gpus
from freehold.stack.status import ConfigStatus
from freehold.telemetry.logs import get_logger

LOOK_S = 0.1
"""Interval between two checks of a change's progress. Source: our own choice: a replica takes seconds to start."""
HEARTBEAT_S = 2.0
"""Longest time without a line to the client. Source: our own choice, as for a stop."""

_SETTLED = frozenset({ReplicaState.READY, ReplicaState.ASLEEP})
_MOVING = frozenset(ReplicaState) - _SETTLED - {ReplicaState.CRASH_LOOP}
_BUSY = "the stack is stopping, or too busy"
Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """What a reload needs of the controller."""

    apply: Callable[[Resolved], bool]
    """Give a blueprint to gateway and fleet; False: the fleet's queue is full."""
    in_force: Callable[[], int]
    """Return the generation of the settings that the gateway reports, 0 before its first report."""
    stopping: Callable[[], bool]


def hash_of(blueprint: Blueprint) -> str:
    """Return twelve hexadecimal digits that identify a configuration, defaults and flags included."""
    return sha256(blueprint.spec.model_dump_json().encode()).hexdigest()[:12]


class Reloader:
    """Holds the blueprint in force and replaces it by the next."""

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
        """Read the file again and apply it; yield the lines of the answer."""
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
                        self._note_rejection(line)
                    return
        finally:
            self._busy = False
        if wait and not dry_run:
            async for line in self._wait_settled():
                yield line

    async def _reload(self, *, dry_run: bool) -> AsyncIterator[Line]:
        yield {"reading": self._current.config.name}
        found = await asyncio.to_thread(self._read)
        if isinstance(found, list):
            yield _problem_lines(found)
            return
        draft, changes = found
        lines = [msgspec.to_builtins(each, enc_hook=str) | {"text": str(each)} for each in changes]
        plan = {"changes": lines, "dry_run": dry_run}
        if dry_run:
            yield plan | {"done": True}
            return
        fetching = asyncio.create_task(asyncio.to_thread(fetch, draft))
        async for line in _repeat_until_done(fetching, {"fetching": draft.blueprint.to_fetch}):
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

    def _read(self) -> tuple[Resolved, tuple[SpecChange, ...]] | list[Problem]:
        """Return the next blueprint, still without new weights, and its changes; or every problem."""
        old = self._current
        found = read_config(old.config.path, overrides=old.config.overrides, known=old.config.by_variable)
        if not isinstance(found, Config):
            return found
        compared = compare(old.config.spec, found.spec, found.where)
        problems = [*compared.problems, *_changed_fallback_keys(old.config, found)]
        draft = problems or resolve_config(found, self._state, parent=old)
        if isinstance(draft, list):
            return draft
        return draft, (*compared.changes, *_changed_keys(old.config, found), *_reinstalled(old, draft))

    def _take(self, resolved: Resolved) -> bool:
        """Apply a blueprint; return False if it was not taken, so that the one before stays in force."""
        found = with_gpus(resolved, self._fleet.held())
        if isinstance(found, list) or not self._levers.apply(found):
            return False
        self._current = found
        try:
            write_blueprint(found.blueprint, self._state.path)
        except FreeholdError as exc:
            self._log.error("blueprint_not_written", why=exc.message, doing="the stack keeps it in memory")
        return True

    def _note_rejection(self, line: Line) -> None:
        problems = line.get("problems", ())
        self._refused = "; ".join(f"{p['where']}: {p['message']}" for p in problems) or str(line.get("error"))
        self._log.error("reload_refused", why=self._refused, doing="the configuration before stays in force")

    async def restart(self, name: str, *, wait: bool = True) -> AsyncIterator[Line]:
        """Replace a model's replicas one by one, or start one replica afresh."""
        models = [model.name for model in self._current.config.spec.models]
        replicas = {status.id: status for status in self._fleet.statuses()}
        if name not in models and name not in replicas:
            hint = _replaced_hint(name, replicas.values()) or nearest_hint(name, [*models, *replicas])
            message = f"there is no model and no replica {name!r}"
            problem: Problem | None = Problem(where="NAME", message=message, hint=hint)
        elif any(each.engine == EXTERNAL for each in replicas.values() if name in {each.id, each.model}):
            message = f"{name} is external, so Freehold cannot restart it"
            problem = Problem(where="NAME", message=message, hint="restart it on its own host")
        else:
            problem = self._replace(name) if name in models else self._fleet.restart(name)
        if problem is not None:
            yield _problem_lines([problem])
            return
        yield {"restarting": True}
        if wait:
            again = {name: replicas[name].restarts} if name in replicas and name not in models else {}
            async for line in self._wait_settled(again):
                yield line

    def _replace(self, model: str) -> Problem | None:
        blueprint = self._current.blueprint
        rounds = blueprint.rounds | {model: blueprint.rounds.get(model, 0) + 1}
        again = replace(self._current, blueprint=msgspec.structs.replace(blueprint, rounds=rounds))
        if self._levers.stopping() or not self._take(again):
            return Problem(where="NAME", message=_BUSY, hint="try again")
        return None

    async def _wait_settled(self, again: Mapping[str, int] | None = None) -> AsyncIterator[Line]:
        """Yield the replicas' states when they change, and every HEARTBEAT_S, until the change is complete or has failed.

        `again`: the number of restarts that each of these replicas must exceed.
        """
        sent, quiet_s = None, 0.0
        while not self._levers.stopping():
            states = {status.id: str(status.state) for status in self._fleet.statuses()}
            if states != sent or quiet_s >= HEARTBEAT_S:
                yield {"replicas": states}
                sent, quiet_s = states, 0.0
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
        """Return why the change has failed, or None if it may still succeed."""
        statuses = self._fleet.statuses()
        looping = [status for status in statuses if status.state is ReplicaState.CRASH_LOOP]
        moving = any(status.state in _MOVING and status.engine != EXTERNAL for status in statuses)
        if not looping or moving or not self._fleet.queue_is_empty:
            return None
        why = "; ".join(f"{status.id} cannot be started: {status.reason}" for status in looping)
        return {"error": why, "hint": next((s.hint for s in looping if s.hint), "")}


def _changed_fallback_keys(old: Config, new: Config) -> list[Problem]:
    """Return a problem for each fallback whose key changed: the gateway keeps the key that it was started with."""
    changed = [
        ("fallback", index, "api_key_file")
        for index, each in enumerate(new.spec.fallback)
        if old.fallback_keys.get(each.name, "") != new.fallback_keys.get(each.name, "")
        and each in old.spec.fallback  # a changed entry is rejected as a whole
    ]
    message = "{}: the key cannot change while the stack runs"
    return [
        Problem(where=new.where(path), message=message.format(dotted(path)), hint=RESTART_HINT)
        for path in changed
    ]


def _changed_keys(old: Config, new: Config) -> Iterator[SpecChange]:
    """Yield a change for each model whose API key differs."""
    for name, key in new.api_keys.items():
        if old.api_keys.get(name, key) != key:
            yield SpecChange(how=How.ROLL, what=f"models.{name}.api_key", old="one key", new="another")


def _reinstalled(old: Resolved, new: Resolved) -> Iterator[SpecChange]:
    """Yield a change for each model whose engine was installed again since its replicas started."""
    for name, facts in new.blueprint.models.items():
        before = old.blueprint.models.get(name, facts).environment
        if before != facts.environment:
            was, now = (str(each or "") for each in (before, facts.environment))
            yield SpecChange(how=How.ROLL, what=f"models.{name}.environment", old=was, new=now)


async def _repeat_until_done(task: "asyncio.Task[Any]", line: Line) -> AsyncIterator[Line]:
    """Yield `line` now and every HEARTBEAT_S until the task is done."""
    yield line
    while not task.done():
        await asyncio.wait({task}, timeout=HEARTBEAT_S)
        yield line


def _replaced_hint(name: str, replicas: Iterable[ReplicaStatus]) -> str:
    """Return which replicas a model has now, where a name is that of an earlier one; empty: the name is another mistake."""
    model, _, number = name.rpartition("-")
    now = [each.id for each in replicas if each.model == model] if number.isdecimal() else []
    if not now:
        return ""
    return f"the replicas of {model} are {', '.join(now)}; a reload or restart replaces replicas by new ones"


def _problem_lines(problems: list[Problem]) -> Line:
    return {"problems": [{"where": p.where, "message": p.message, "hint": p.hint} for p in problems]}
