"""What a check declares of itself in the YAML file next to it: what it reads, its limits with their sources, what its reasons mean.

The file is ours: one that is not as it must be raises when the check is imported. Nothing here judges.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from freehold.core.findings import Finding
from freehold.core.own_files import read_own
from freehold.health.judge.gpu_limits import GpuRules
from freehold.health.model.probe import Expected, Part, Probe, Threshold
from freehold.health.model.view import View


class _Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number that a check judges by, and its source: a document, a peer's default, a measurement, or `our own choice` and why."""

    value: float
    source: str


class Declaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One check's YAML file; the fields are those of `Probe`."""

    name: str = ""
    """The file's."""
    summary: str
    reads: tuple[Part, ...]
    newest: tuple[Part, ...] = ()
    window_s: float
    confirm: int = 1
    clear: int = 3
    limits: dict[str, _Limit] = {}
    gpu: GpuRules = GpuRules()
    reasons: dict[str, str]

    def limit(self, name: str) -> float:
        """Return a limit's value."""
        return self.limits[name].value

    def count(self, name: str) -> int:
        """Return the value of a limit that is a whole number."""
        return int(self.limits[name].value)

    def probe(
        self,
        check: Callable[[Sequence[View], Expected], Sequence[Finding]],
        *,
        first: Sequence[Threshold] = (),
        common: Mapping[str, str] | None = None,
    ) -> Probe:
        """Return the check's `PROBE`; `first` are thresholds and `common` reasons that are not in its own file."""
        own = [
            Threshold(name=name, value=each.value, source=each.source) for name, each in self.limits.items()
        ]
        on_readings = [found for limit in self.gpu.limits if (found := limit.threshold()) is not None]
        return Probe(
            name=self.name,
            summary=self.summary,
            reads=self.reads,
            newest=self.newest,
            window_s=self.window_s,
            confirm=self.confirm,
            clear=self.clear,
            thresholds=(*first, *on_readings, *own),
            reasons={**(common or {}), **self.reasons},
            check=check,
        )


def declared(module: str) -> Declaration:
    """Return the declaration in NAME.yaml next to the module (`__name__` of the caller)."""
    package, _, name = module.rpartition(".")
    return msgspec.structs.replace(read_own(package, f"{name}.yaml", Declaration), name=name)
