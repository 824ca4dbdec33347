"""What a check declares of itself in the YAML file next to it: what it reads, its limits with their sources, what its reasons mean.

The file is ours: one that is not as it must be raises when the check is imported. Nothing here judges.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import msgspec

from freehold.core.findings import Finding
from freehold.core.own_files import read_own
from freehold.health.judge.gpu_limits import GpuRules, over_limits
from freehold.health.judge.gpus import REASONS, GpuWindow, judge_gpus
from freehold.health.judge.rule_result import RuleResult, unknown
from freehold.health.judge.storage import judge_volumes
from freehold.health.model.probe import Expected, Part, Probe, Threshold
from freehold.health.model.view import Host, View, Volume

Shared = Mapping[str, tuple[float, str]]
"""Thresholds that several checks share, or that the catalog has: value and source by name."""
NONE: Shared = MappingProxyType({})
NO_REASONS: Mapping[str, str] = MappingProxyType({})
Results = Iterable[tuple[str, RuleResult]]
"""Components with what they are."""


class _Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number that a check judges by, and its source: a document, a peer's default, a measurement, or `our own choice` and why."""

    value: float
    source: str


class Declaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One check's YAML file; the fields are those of `Probe`."""

    module: str = ""
    """The module that the file stands next to; its last name is the check's."""
    summary: str
    reads: tuple[Part, ...]
    newest: tuple[Part, ...] = ()
    window_s: float
    confirm: int = 1
    clear: int = 3
    limits: dict[str, _Limit] = {}
    gpu: GpuRules = GpuRules()
    reasons: dict[str, str]

    @property
    def name(self) -> str:
        """Return the check's name."""
        return self.module.rpartition(".")[2]

    def limit(self, name: str) -> float:
        """Return a limit's value."""
        return self.limits[name].value

    def count(self, name: str) -> int:
        """Return the value of a limit that is a whole number."""
        return int(self.limits[name].value)

    def past_limits(self, gpu: GpuWindow) -> Iterator[RuleResult]:
        """Yield one fault per limit of the file that the GPU is past."""
        return over_limits(gpu, self.gpu.limits)

    def gpu_probe(self, *faults: Callable[[GpuWindow], Iterable[RuleResult]], first: Shared = NONE) -> Probe:
        """Return the `PROBE` of a check that yields the faults of one GPU."""

        def check(views: Sequence[View], expected: Expected) -> Sequence[Finding]:
            return judge_gpus(self.name, views, expected=expected, needs=self.gpu.needs, faults=faults)

        return self.probe(check, first=first, common=REASONS)

    def volume_probe(self, judge: Callable[[Sequence[View], Volume], RuleResult]) -> Probe:
        """Return the `PROBE` of a check that judges one watched volume."""
        return self.probe(lambda views, _expected: judge_volumes(self.name, views, judge))

    def host_probe(self, component: str, judge: Callable[[Sequence[View], Host], RuleResult]) -> Probe:
        """Return the `PROBE` of a check that judges the node itself."""

        def judged(views: Sequence[View], _expected: Expected) -> Results:
            host = views[-1].host
            yield component, judge(views, host) if host else unknown("not_read", "the host was not read")

        return self.probe_of(judged)

    def probe_of(
        self, judge: Callable[[Sequence[View], Expected], Results], *, first: Shared = NONE
    ) -> Probe:
        """Return the `PROBE` of a check that gives components with their results, of the time of the newest view."""

        def check(views: Sequence[View], expected: Expected) -> Sequence[Finding]:
            return [each.finding(self.name, part, views[-1]) for part, each in judge(views, expected)]

        return self.probe(check, first=first)

    def probe(
        self,
        check: Callable[[Sequence[View], Expected], Sequence[Finding]],
        *,
        first: Shared = NONE,
        common: Mapping[str, str] = NO_REASONS,
    ) -> Probe:
        """Return the check's `PROBE`; `first` are thresholds (value and source) and `common` reasons that are not in its own file."""
        check.__module__ = self.module
        shared = [Threshold(name=name, value=value, source=why) for name, (value, why) in first.items()]
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
            thresholds=(*shared, *on_readings, *own),
            reasons={**common, **self.reasons},
            check=check,
        )


def declared(module: str) -> Declaration:
    """Return the declaration in NAME.yaml next to the module (`__name__` of the caller)."""
    package, _, name = module.rpartition(".")
    return msgspec.structs.replace(read_own(package, f"{name}.yaml", Declaration), module=module)
