"""The GPUs of this node as nvidia-smi lists them, without those that the user's own CUDA_VISIBLE_DEVICES hides.

nvidia-smi comes with every driver. It runs with a deadline and is abandoned if it hangs in the driver. What it does not
report is unknown. No counters are read here; the agent reads them.
"""

import re
import shutil
from collections.abc import Iterator, Mapping

from freehold.core.events import GpuId
from freehold.fleet.gpus.pools import NodeGpu, NodeGpus, visible_to_user
from freehold.stack.node_facts import ASK_S, printed

VARIABLE = "CUDA_VISIBLE_DEVICES"
_ASK = ("--query-gpu=index,uuid,mig.mode.current,memory.total,name", "--format=csv,noheader,nounits")
_LIST = ("-L",)
_ROW = re.compile(r"(\d{1,4}), ([^,]*), ([^,]*), ([^,]*), (.*)")
_GPU_LINE = re.compile(r"GPU (\d{1,4}): ")
_INSTANCE_LINE = re.compile(r"\s+MIG (\S+)\s.*\(UUID: (MIG-[^)]+)\)")


def node_gpus(env: Mapping[str, str], *, wait_s: float = ASK_S) -> NodeGpus:
    """Return the GPUs that this environment allows; takes at most `wait_s`, twice that with divided GPUs."""
    program = shutil.which("nvidia-smi", path=env.get("PATH"))
    if program is None:
        return NodeGpus(why="nvidia-smi is not installed here")
    code, output = printed((program, *_ASK), wait_s=wait_s)
    # If one GPU is lost, nvidia-smi lists the others and fails.
    rows = [found for line in output.splitlines() if (found := _ROW.fullmatch(line.strip()))]
    if code is None:
        return NodeGpus(why=f"nvidia-smi did not answer within {wait_s:g} s")
    if not rows:
        return NodeGpus(why=f"nvidia-smi reported no GPU (exit code {code})")
    divided = {int(row[1]) for row in rows if row[3] == "Enabled"}
    instances = list(_instances(printed((program, *_LIST), wait_s=wait_s)[1])) if divided else []
    return visible_to_user(list(_gpus(rows, divided, instances)), env.get(VARIABLE))


def _gpus(
    rows: list[re.Match[str]], divided: set[int], instances: list[tuple[int, str, str]]
) -> Iterator[NodeGpu]:
    """Yield whole GPUs, and the instances of divided GPUs: a divided GPU cannot be used itself."""
    for row in sorted(rows, key=lambda row: int(row[1])):
        index, uuid = int(row[1]), row[2] if row[2].startswith("GPU-") else ""
        if index in divided:
            for number, kind, instance in instances:
                if number == index:
                    yield NodeGpu(id=GpuId(index=index, uuid=instance), kind=kind, whole=uuid)
        else:
            yield NodeGpu(id=GpuId(index=index, uuid=uuid), kind=f"{row[5]}, {row[4]} MiB")


def _instances(output: str) -> Iterator[tuple[int, str, str]]:
    """Yield GPU number, kind and UUID of each instance that `nvidia-smi -L` lists."""
    index = -1
    for line in output.splitlines():
        if gpu := _GPU_LINE.match(line):
            index = int(gpu[1])
        elif (instance := _INSTANCE_LINE.match(line)) and index >= 0:
            yield index, instance[1], instance[2]
