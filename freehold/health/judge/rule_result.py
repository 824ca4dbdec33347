"""The result of one rule on one component: a verdict with its reason, message, action and evidence; and the worst of several.

Nothing here knows what an event or a reading means: the checks do.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from freehold.core.findings import Action, Evidence, Finding, Verdict
from freehold.health.model.view import View

_VERDICTS = list(Verdict)
_ACTIONS = list(Action)


@dataclass(frozen=True, slots=True)
class RuleResult:
    """A verdict on one component, with the evidence that led to it."""

    verdict: Verdict
    reason: str
    message: str
    action: Action = Action.NONE
    evidence: tuple[Evidence, ...] = ()
    """Oldest first."""

    @property
    def is_bad(self) -> bool:
        """Return whether something is wrong."""
        return self.verdict in {Verdict.DEGRADED, Verdict.UNHEALTHY}

    def finding(self, probe: str, component: str, view: View) -> Finding:
        """Return it as a probe's finding: of the time of its last evidence, or of the view where it has none."""
        return Finding(
            probe=probe,
            component=component,
            verdict=self.verdict,
            reason=self.reason,
            message=self.message,
            action=self.action,
            evidence=self.evidence,
            at_s=self.evidence[-1].at_s if self.evidence else view.at_s,
            node=view.node,
        )


unknown = partial(RuleResult, Verdict.UNKNOWN)
not_applicable = partial(RuleResult, Verdict.NOT_APPLICABLE)
healthy = partial(RuleResult, Verdict.HEALTHY)
degraded = partial(RuleResult, Verdict.DEGRADED)
unhealthy = partial(RuleResult, Verdict.UNHEALTHY)


def missing(names: Iterable[str]) -> Iterator[tuple[str, RuleResult]]:
    """Yield the component and result of each link that should be here and is not."""
    for name in sorted(names):
        yield (
            f"link:{name}",
            unhealthy("missing", f"{name} should be here and is not", Action.INSPECT_HARDWARE),
        )


def worst_result(results: Iterable[RuleResult], default: RuleResult) -> RuleResult:
    """Return the result with the worst verdict, of equal ones the first; without any the default."""
    return max(results, key=lambda each: _VERDICTS.index(each.verdict), default=default)


def strongest_result(results: Iterable[RuleResult], default: RuleResult) -> RuleResult:
    """Return the result with the worst verdict, of equal ones the one with the strongest action; without any the default."""
    return max(
        results,
        key=lambda each: (_VERDICTS.index(each.verdict), _ACTIONS.index(each.action)),
        default=default,
    )
