"""How a rule of thumb is made of a function that judges a plan's ranking. No rule itself stands here."""

import tomllib
from collections.abc import Callable
from functools import wraps
from importlib.resources import files
from typing import Literal

from freehold.cost.model.result import Rule
from freehold.cost.pricing.ranking import Ranking

Judgement = Literal["holds", "does not hold", "depends", "unknown"]
Judged = tuple[Judgement, str] | tuple[Judgement, str, str]
"""The verdict, what was computed, and the source where it depends on the plan."""


_CLAIMS = tomllib.loads((files(__package__) / "rules.toml").read_text(encoding="utf-8"))


def judged(judge: Callable[[Ranking], Judged]) -> Callable[[Ranking], Rule]:
    """Return the rule that rules.toml has under the function's name; one without the numbers to judge it has no source."""
    about = _CLAIMS[judge.__name__]

    @wraps(judge)
    def rule(ranking: Ranking) -> Rule:
        verdict, computed, *own = judge(ranking)
        source = own[0] if own else "" if verdict == "unknown" else about.get("source", "")
        return Rule(claim=about["claim"], verdict=verdict, computed=computed, source=source)

    return rule


def unknown(why: str) -> Judged:
    """Return the verdict of a rule that cannot be judged."""
    return "unknown", why


def graded(*, holds: bool, depends: bool) -> Judgement:
    """Return the verdict of two conditions, the stricter first."""
    return "holds" if holds else "depends" if depends else "does not hold"
