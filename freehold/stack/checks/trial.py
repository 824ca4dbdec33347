"""Start the engine of one configured model, request one token, and end it, for `freehold engine check --with-model`.

The replica runs as in a stack (minder, log, loopback port), but alone and without a gateway. Only the result is kept.
"""

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from freehold.core.clock import monotonic_s
from freehold.core.errors import Permanent
from freehold.core.problems import Problem
from freehold.fleet.control.state_dir import StateDir
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan
from freehold.fleet.probe import HttpProber
from freehold.fleet.processes.launch_process import EngineExited, EngineStarted, ProcessLauncher, Report
from freehold.spec.model import ModelSpec
from freehold.stack.checks.check import Check, CheckResult
from freehold.stack.config import Config, one_replica_of
from freehold.stack.fetch import ShowProgress
from freehold.stack.resolve import fetch, resolve_config
from freehold.stack.status import running_status

_POLL_S = 0.2
"""Interval between two readiness requests. Source: the fleet's `ready_poll_s`."""


def try_model(
    config: Config, model: ModelSpec, *, state: StateDir, show: ShowProgress, note: Callable[[str], object]
) -> Check | list[Problem]:
    """Return the result of a start, or the problems of the configuration here; raise Permanent if its weights cannot be fetched.

    `state` is the state folder of this configuration's stack, whether it runs or not.
    """
    draft = resolve_config(one_replica_of(config, model.name), state)
    resolved = draft if isinstance(draft, list) else fetch(draft, show)
    if isinstance(resolved, list):
        return resolved
    (plan,) = resolved.replicas
    _refuse_taken(plan, state.path)
    note(f"Starting {model.engine} with {model.name}; a GPU takes a minute or more.")
    with tempfile.TemporaryDirectory(prefix="freehold-check-") as folder:
        return asyncio.run(_try(plan, replace(resolved.blueprint.fleet, log_dir=Path(folder))))


def _refuse_taken(plan: ReplicaPlan, state_path: Path) -> None:
    """Raise Permanent if this configuration's stack runs on the same GPUs: a second engine would take their memory."""
    status = running_status(state_path)
    held = {gpu: replica.id for replica in (status.replicas if status else ()) for gpu in replica.gpus or ()}
    if taken := [f"{gpu} ({held[gpu]})" for gpu in plan.gpus or () if gpu in held]:
        raise Permanent(
            f"the running stack uses GPU {', '.join(taken)}",
            hint="run `freehold down` first, or leave only free GPUs visible with CUDA_VISIBLE_DEVICES=…",
        )


async def _try(plan: ReplicaPlan, settings: FleetSettings) -> Check:
    launcher, prober = ProcessLauncher(settings), HttpProber(settings)
    reports: asyncio.Queue[Report] = asyncio.Queue()
    started_s = monotonic_s()
    try:
        launcher.launch(plan, reports.put_nowait)
        async with asyncio.timeout(settings.ready_timeout_s):
            first = await reports.get()
            if isinstance(first, EngineStarted):
                ended, plan = asyncio.create_task(_ended(reports)), replace(plan, api_key=first.key)
                if await _ready(plan, first.url, prober, ended):
                    capacity = await prober.capacity(plan, first.url)
                    ended.cancel()
                    return _good(plan, monotonic_s() - started_s, capacity.kv_tokens if capacity else 0)
                return _bad(plan, await ended)
            return _bad(plan, first if isinstance(first, EngineExited) else await _ended(reports))
    except TimeoutError:
        said = f"{plan.model}: no answer within {settings.ready_timeout_s:g} s (fleet.ready_timeout)"
        return Check(
            name=plan.engine.name,
            found=CheckResult.PROBLEM,
            said=said,
            fix="raise fleet.ready_timeout if the engine was still loading",
        )
    finally:
        await launcher.close()
        await prober.close()


async def _ended(reports: "asyncio.Queue[Report]") -> EngineExited:
    while True:
        report = await reports.get()
        if isinstance(report, EngineExited):
            return report


async def _ready(
    plan: ReplicaPlan, url: str, prober: HttpProber, ended: "asyncio.Task[EngineExited]"
) -> bool:
    """Send readiness requests until one succeeds; return False if the engine ended before."""
    while not ended.done():
        answer = await prober.ask(plan, url)
        if answer.ok:
            return True
        await asyncio.wait({ended}, timeout=_POLL_S)
    return False


def _good(plan: ReplicaPlan, took_s: float, kv_tokens: int) -> Check:
    room = f"; its KV cache holds {kv_tokens} tokens" if kv_tokens else ""
    said = f"{plan.model} answered its first token {took_s:.1f} s after the start{room}"
    return Check(name=plan.engine.name, found=CheckResult.GOOD, said=said)


def _bad(plan: ReplicaPlan, exited: EngineExited) -> Check:
    if exited.failure:
        return Check(name=plan.engine.name, found=CheckResult.PROBLEM, said=f"{plan.model}: {exited.failure}")
    cause = plan.engine.explain_exit(exited.code, exited.tail)
    return Check(
        name=plan.engine.name,
        found=CheckResult.PROBLEM,
        said=f"{plan.model}: {cause.summary}",
        fix=cause.hint,
    )
