"""What `freehold doctor` says of GPUs: how many can be had, and which replica would get which. No GPU is read but by nvidia-smi."""

from collections.abc import Iterator

from freehold.stack.checks.machine import Check, Found
from freehold.stack.config import Config
from freehold.stack.controller import plans_for
from freehold.stack.gpu_allocation import NOBODY, given_gpus, gpu_problems, gpus_for, unseen, words_of
from freehold.stack.prebuilt_engines import local_folders


def gpu_checks(config: Config) -> Iterator[Check]:
    """Give what is to be said; nothing where no replica takes a GPU."""
    node = gpus_for(config)
    if node == NOBODY:
        return
    if node.gpus is None:
        said = f"{node.why}: no replica is given GPUs of its own, each sees all that there are"
        fix = "a driver with nvidia-smi in PATH, where this node has NVIDIA GPUs"
        yield Check(name="gpus", found=Found.UNKNOWN, said=said, fix=fix)
        yield from (
            Check(name="gpus", found=Found.WARNING, said=each, fix=fix) for each in unseen(config, node)
        )
        return
    plans = plans_for(config, local_folders(config))
    problems = gpu_problems(config, plans, node)
    for problem in problems:
        said = f"{problem.where}: {problem.message}"
        yield Check(name="gpus", found=Found.PROBLEM, said=said, fix=problem.hint)
    if not problems:
        hidden = f", {len(node.hidden)} are hidden by CUDA_VISIBLE_DEVICES" * bool(node.hidden)
        given = words_of(given_gpus(config, plans, node=node))
        yield Check(name="gpus", found=Found.GOOD, said=f"{len(node.gpus)} can be had{hidden}; {given}")
