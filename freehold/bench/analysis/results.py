"""What a bench found, as its results file holds it: a published JSON schema with a version. Values only.

It has what a reader needs to judge or repeat a bench: machine, engines with their flags and versions, weights by hash, the
load, every figure of every run. It holds no prompts and no answers.
"""

from typing import Any, Literal

import msgspec

from freehold.bench.analysis.figures import Figures, SloBounds
from freehold.bench.analysis.load import Load
from freehold.core.events import GpuId

VERSION = 1
"""Of the schema; a reader refuses others."""
Through = Literal["direct", "gateway"]
Scalar = int | str | bool | float


class GpuFact(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU of the machine."""

    name: str
    uuid: str = ""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it was measured; empty and None are unknown."""

    cpu: str = ""
    cores: int = 0
    """That the bench and its engines may use."""
    memory_bytes: int | None = None
    kernel: str = ""
    gpus: tuple[GpuFact, ...] = ()
    gpu_driver: str = ""
    load_before: float | None = None
    """Mean runnable processes of the last minute, before anything was started: above none, the machine was shared."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One engine with one set of options."""

    id: str
    """Short and unique in the file: the engine, and the options that differ."""
    model: str
    """The entry of freehold.yaml."""
    engine: str
    options: dict[str, Scalar] = {}
    weights: str = ""
    """The file's or folder's name."""
    weights_sha256: str = ""
    """As freehold.yaml or the store says; empty: neither does."""
    weights_source: str = ""
    """What freehold.yaml must say as `source`, with this hash, for a stack to serve them; empty: what it says already does, or it is not known."""
    weights_format: str = ""
    argv: tuple[str, ...] = ()
    """How it was really started."""
    versions: dict[str, str] = {}
    """By its own word, or by its installed distribution."""
    ready_s: tuple[float, ...] = ()
    """From its start to its first completion, by run."""
    failed: str = ""
    """Why it has no figures, or not all."""
    gpus: tuple[GpuId, ...] | None = None
    """Those that it saw, and whose watts count; empty: none. None: not known, and the watts are of all of the machine."""


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine's processes and the machine used in the window; None: it cannot be read here."""

    cpu_cores: float | None = None
    """Cores that its processes kept busy: CPU seconds per second."""
    memory_peak_bytes: int | None = None
    """Greatest sum over its processes of their proportional share of memory (PSS)."""
    gpu_watts: float | None = None
    """Mean of the candidate's GPUs together; of all of the machine where it is not known which it had."""
    package_watts: float | None = None
    """Mean of all CPU packages together (RAPL), whoever used them."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One load on one candidate in one run."""

    candidate: str
    through: Through
    load: Load
    run: int
    """From 0."""
    figures: Figures
    resources: Resources = Resources()

    @property
    def joules_per_token(self) -> float | None:
        """Return what GPUs and CPU packages drew per output token, those that can be read; None: none, or no token."""
        watts = [
            each for each in (self.resources.gpu_watts, self.resources.package_watts) if each is not None
        ]
        rate = self.figures.output_tokens_per_s
        return sum(watts) / rate if watts and rate else None


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What was the same for all."""

    shape: str
    """In words, with its source."""
    loads: tuple[Load, ...]
    slo: SloBounds
    runs: int
    seed: int
    warm_up_s: float
    duration_s: float
    requests: int | None = None
    """Most measured requests of a load; None: only time bounds it."""
    timeout_s: float
    shared_prefix_tokens: int = 0
    words_per_token: float | None = None
    """By which prompts were made; what they really had is in the figures."""


class BenchFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole bench."""

    version: int
    freehold: str
    """Which version measured."""
    made_at: str
    """UTC, ISO 8601."""
    machine: Machine
    conditions: Conditions
    candidates: tuple[Candidate, ...]
    results: tuple[Result, ...]
    config: str = ""
    """The freehold.yaml that it was made from; empty: the built-in example."""
    interrupted: bool = False
    """True: it was ended before all was measured; loads without all their runs do not count."""
    config_sha256: str = ""
    """Of that file's bytes: `apply` refuses another."""


def schema() -> dict[str, Any]:
    """Return the published JSON schema of a results file."""
    return msgspec.json.schema(BenchFile)
