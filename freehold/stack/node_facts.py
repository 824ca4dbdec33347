"""Facts of this node that prebuilt engines depend on: GPU architectures, driver, CUDA, the installed engine's version.

It runs `nvidia-smi`, which comes with every driver, with a deadline, and finds the program's package by its path. It writes
nothing; a fact that cannot be read is unknown. NVML is not used: the readings do not include the compute capability.
"""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from freehold.engines.base import NodeFacts, Value

ASK_S = 20.0
"""Deadline of nvidia-smi. Source: our own choice: without persistence mode it initialises each GPU, some seconds for eight."""
_KILLED_S = 1.0
"""Longest wait for a killed process. Source: our own choice; a process that can end does so in milliseconds."""
_QUERY = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
_HEAD = ("nvidia-smi", "-q", "-d", "COMPUTE")
_ARCHITECTURE = re.compile(r"\d+\.\d+")
_DRIVER = re.compile(r"^Driver Version\s*:\s*(\S+)", re.MULTILINE)
_CUDA = re.compile(r"^CUDA Version\s*:\s*(\d+\.\d+)", re.MULTILINE)


def read_node_facts(options: Mapping[str, Value], *, program: str, distribution: str) -> NodeFacts:
    """Return the facts for an engine with this program, unless the options name another program."""
    rows, head = _output(_QUERY).split(), _output(_HEAD)
    return NodeFacts(
        architectures=tuple(row for row in rows if _ARCHITECTURE.fullmatch(row)),
        driver=_first(_DRIVER, head),
        cuda=_first(_CUDA, head),
        engine_version=installed_version(str(options.get("program", "")) or program, distribution),
    )


def _output(argv: tuple[str, ...]) -> str:
    """Return the output of a program; empty if it is missing, fails, or exceeds its deadline."""
    code, output = printed(argv)
    return output if code == 0 else ""


def printed(argv: tuple[str, ...], *, wait_s: float = ASK_S) -> tuple[int | None, str]:
    """Return a program's exit code and output; None: it is missing, or did not end in time.

    A process that hangs in the driver survives SIGKILL, so it is abandoned.
    """
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )
    except OSError:
        return None, ""
    try:
        output, _ = child.communicate(timeout=wait_s)
    except subprocess.TimeoutExpired:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=_KILLED_S)
        return None, ""
    return child.returncode, output


def _first(words: re.Pattern[str], text: str) -> str:
    found = words.search(text)
    return found[1] if found else ""


def installed_version(program: str, distribution: str) -> str:
    """Return the version of the package that a program in an environment's `bin` belongs to; empty: not found."""
    path = shutil.which(program)
    if path is None:
        return ""
    root = Path(path).resolve().parent.parent
    found = sorted(root.glob(f"lib/python3*/*-packages/{distribution}-*.dist-info"))
    return found[-1].name.removeprefix(f"{distribution}-").removesuffix(".dist-info") if found else ""
