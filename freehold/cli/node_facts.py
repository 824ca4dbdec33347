"""What this node has for engines that were built for one: GPU architectures, driver, CUDA, the installed engine's version.

It asks `nvidia-smi`, which comes with every driver, under a deadline, and looks for the program's own package beside it. It
writes nothing; what cannot be found out stays unknown. Why no NVML: its compute capability is not among the readings.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from freehold.engines.base import NodeFacts, Value

ASK_S = 20.0
"""Longest wait for nvidia-smi. Source: our own choice: without persistence mode it wakes each GPU, some seconds for eight."""
_QUERY = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
_HEAD = ("nvidia-smi", "-q", "-d", "COMPUTE")
_ARCHITECTURE = re.compile(r"\d+\.\d+")
_DRIVER = re.compile(r"^Driver Version\s*:\s*(\S+)", re.MULTILINE)
_CUDA = re.compile(r"^CUDA Version\s*:\s*(\d+\.\d+)", re.MULTILINE)


def read_node_facts(options: Mapping[str, Value], *, program: str, distribution: str) -> NodeFacts:
    """Return the facts for an engine whose program is `program` unless the options name another."""
    rows, head = _said(_QUERY).split(), _said(_HEAD)
    return NodeFacts(
        architectures=tuple(row for row in rows if _ARCHITECTURE.fullmatch(row)),
        driver=_first(_DRIVER, head),
        cuda=_first(_CUDA, head),
        engine_version=installed_version(str(options.get("program", "")) or program, distribution),
    )


def _said(argv: tuple[str, ...]) -> str:
    """Return what a program printed; empty where it is not there, fails, or takes too long."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


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
