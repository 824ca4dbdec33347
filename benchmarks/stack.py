"""What the benchmarks of a whole stack share: `freehold up` in a folder of its own, numbers, and bars with verdicts.

It talks to the stack as a user does, through its commands and HTTP; nothing of `freehold` is imported.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BIN = Path(sys.executable).parent
UP_LIMIT_S = 240.0


class CannotMeasureError(Exception):
    """Something outside the measurement is in the way; the message says what."""


@dataclass(kw_only=True)
class Bar:
    """One demand and what came of it."""

    name: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Whether the demand is met."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{'ok' if self.holds else 'MISSED':>7}  {self.name}: {self.value:.3g}{self.unit} ({sign} {self.limit:g}{self.unit})"


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def freehold(
    *words: str | Path, limit_s: float = 60.0, env: dict[str, str] | None = None, core: int | None = None
) -> Any:
    """Run a command of Freehold's to its end and return what it says as JSON."""
    command = [BIN / "freehold", *words, "--json"]
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    done = subprocess.run(
        [*pinned, *command], capture_output=True, text=True, timeout=limit_s, check=False, env=env
    )
    if done.returncode:
        raise CannotMeasureError(f"{' '.join(map(str, command))}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A running stack, for as long as its `with` lasts."""

    folder: Path

    @property
    def where(self) -> tuple[str | Path, ...]:
        """The flags that name it."""
        return ("--config", self.folder / "freehold.yaml", "--state-dir", self.folder / "state")

    def status(self) -> Any:
        """What `freehold status` says."""
        return freehold("status", *self.where)

    @property
    def url(self) -> str:
        """Where the gateway answers, without a path."""
        return str(self.status()["gateway"]["url"]).removesuffix("/v1")

    @property
    def port(self) -> int:
        """The gateway's port."""
        port = urlsplit(self.url).port
        assert port
        return port


@contextmanager
def stack(
    folder: Path, config: str, *, env: dict[str, str] | None = None, core: int | None = None
) -> Iterator[Stack]:
    """Run a stack: `env` is its environment, `core` the one core that all of it shares."""
    (folder / "freehold.yaml").write_text(config)
    one = Stack(folder=folder)
    freehold("up", "--detach", *one.where, limit_s=UP_LIMIT_S, env=env, core=core)
    try:
        yield one
    finally:
        try:
            freehold("down", *one.where, limit_s=UP_LIMIT_S)
        except CannotMeasureError as exc:  # what was measured may have ended it; the verdict stands
            print(f"down: {exc}", file=sys.stderr)
