"""Add up what the signs say: for each hypothesis what supports it, what speaks against it, and how sure that makes us.

Weights are log-odds. A hypothesis stands against the strongest rival or against "we do not know", whichever is stronger, and a
rival is measured by what supports it alone: so evidence against a hypothesis can never make it surer, whatever else it speaks
against. Nothing here knows XIDs or counters.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from freehold.catalog.load_evidence import EvidenceTable, Hypothesis, Sign

NOT_KNOWN = 1.0
"""What a hypothesis must outweigh, nats, even without a rival. Source: our own choice, set on the tuning corpus."""
FLOOR = 0.6
"""Below this confidence we say that we do not know. Source: our own choice: wrong hardware verdicts cost most."""
CEILING = 0.99
"""No sum of rules is a certainty. Source: our own choice."""


RECOVERY = frozenset({"recovery_action", "recovery_follows"})
"""Signs whose number is a recovery action and no XID. Source: catalog/data/health/evidence.yaml."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSign:
    """A sign that was seen: where, with what value."""

    sign: Sign
    component: str = ""
    value: str = ""
    source: str = ""
    at_s: float = 0.0
    baseline: str = ""
    number: int | None = None
    """The XID or recovery action that it comes from."""
    place: str = ""
    """Where on the component: `gpc 1, tpc 2`; part of its signature."""

    def order(self) -> tuple[str, str, float, str, int, str]:
        """Return what signs are sorted by, so that the order they came in does not matter."""
        return (self.sign.name, self.component, self.at_s, self.value, self.number or 0, self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One hypothesis, weighed."""

    hypothesis: Hypothesis
    support: float
    against: float
    confidence: float
    """0 to 0.99."""

    @property
    def net(self) -> float:
        """Return support less what speaks against it."""
        return self.support - self.against


def weigh(seen: Iterable[SeenSign]) -> list[Score]:
    """Return every hypothesis that anything supports, surest first; equal ones in the order of the words' table."""
    signs = {
        item.sign.name: item.sign for item in seen
    }.values()  # a sign counts once, however often it was seen
    support = {h: _sum(signs, h, positive=True) for h in Hypothesis}
    against = {h: _sum(signs, h, positive=False) for h in Hypothesis}
    scores = [_score(h, support, against) for h in Hypothesis if support[h] > 0]
    return sorted(scores, key=lambda score: (-score.confidence, -score.net))


def _sum(signs: Iterable[Sign], hypothesis: Hypothesis, *, positive: bool) -> float:
    weights = sorted(sign.weights.get(hypothesis, 0.0) for sign in signs)
    return math.fsum(abs(weight) for weight in weights if (weight > 0) == positive)


def _score(
    hypothesis: Hypothesis, support: dict[Hypothesis, float], against: dict[Hypothesis, float]
) -> Score:
    rival = max(NOT_KNOWN, *(support[other] for other in support if other != hypothesis))
    odds = support[hypothesis] - against[hypothesis] - rival
    return Score(
        hypothesis=hypothesis,
        support=support[hypothesis],
        against=against[hypothesis],
        confidence=min(CEILING, 1 / (1 + math.exp(-max(-50.0, min(50.0, odds))))),
    )


def speaks_for(seen: Sequence[SeenSign], hypothesis: Hypothesis) -> list[SeenSign]:
    """Return what supports a hypothesis, strongest first."""
    return _told(seen, hypothesis, 1)


def speaks_against(seen: Sequence[SeenSign], hypothesis: Hypothesis) -> list[SeenSign]:
    """Return what speaks against a hypothesis, strongest first: what lowers it, then what supports its rivals more than it."""
    lowers = _told(seen, hypothesis, -1)
    rivals = [item for item in seen if _prefers_another(item.sign, hypothesis) and item not in lowers]
    return lowers + sorted(rivals, key=lambda item: (-max(item.sign.weights.values()), item.order()))


def _told(seen: Sequence[SeenSign], hypothesis: Hypothesis, way: int) -> list[SeenSign]:
    chosen = [item for item in seen if item.sign.weights.get(hypothesis, 0.0) * way > 0]
    return sorted(chosen, key=lambda item: (-abs(item.sign.weights[hypothesis]), item.order()))


def _prefers_another(sign: Sign, hypothesis: Hypothesis) -> bool:
    own = sign.weights.get(hypothesis, 0.0)
    return any(weight > max(own, 0.0) for other, weight in sign.weights.items() if other != hypothesis)


def see(table: EvidenceTable, name: str, **what: object) -> SeenSign:
    """Return a sign of the table as seen. Raises KeyError for a name that is not there: that is our own mistake."""
    return SeenSign(sign=table.signs[name], **what)  # type: ignore[arg-type]
