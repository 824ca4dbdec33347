"""Rules of thumb of the field beside what the team's own numbers say about them.

Each is a function from the ranking of a plan to a `Rule`, in money.py and machines.py. The claims are those
that guides to owning inference repeat; `source` says what the answer rests on. A rule without the numbers to judge
it is unknown, never holding.
"""

from freehold.cost.model.result import Rule
from freehold.cost.pricing.ranking import Ranking
from freehold.cost.rules.machines import MACHINE_RULES
from freehold.cost.rules.money import MONEY_RULES


def rules_of(ranking: Ranking) -> tuple[Rule, ...]:
    """Return all rules, those on money first."""
    return tuple(rule(ranking) for rule in (*MONEY_RULES, *MACHINE_RULES))
