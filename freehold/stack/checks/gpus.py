"""The checks of `freehold doctor` for GPUs: how many there are, and which replica would get which. Only nvidia-smi reads a GPU."""

from collections.abc import Iterator

from freehold.fleet.control.state_dir import StateDir
from freehold.stack.checks.check import Check, CheckResult
from freehold.stack.config import Config
from freehold.stack.decide.gpu_allocation import allocation_text
from freehold.stack.resolve import NO_REPLICA, resolve_gpus


def gpu_checks(config: Config, state: StateDir) -> Iterator[Check]:
    """Yield the checks; nothing if no replica takes a GPU."""
    resolved = resolve_gpus(config, state)
    if isinstance(resolved, list):
        for problem in resolved:
            said = f"{problem.where}: {problem.message}"
            yield Check(name="gpus", found=CheckResult.PROBLEM, said=said, fix=problem.hint)
        return
    node = resolved.blueprint.node
    if node == NO_REPLICA:
        return
    if node.gpus is None:
        said = f"{node.why}: GPUs are not allocated, each replica sees all of them"
        fix = "install a driver with nvidia-smi in PATH, if this node has NVIDIA GPUs"
        yield Check(name="gpus", found=CheckResult.UNKNOWN, said=said, fix=fix)
        for note in resolved.blueprint.notes:
            yield Check(name="gpus", found=CheckResult.WARNING, said=note, fix=fix)
        return
    hidden = f", {len(node.hidden)} hidden by CUDA_VISIBLE_DEVICES" * bool(node.hidden)
    given = allocation_text(resolved.replicas)
    yield Check(name="gpus", found=CheckResult.GOOD, said=f"{len(node.gpus)} available{hidden}; {given}")
