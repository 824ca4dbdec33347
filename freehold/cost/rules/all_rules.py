"""Rules of thumb of the field beside what the team's own numbers say about them.

Each is a function from the standing of a plan to a `Rule`, in rules_money and rules_machines. The claims are those
that guides to owning inference repeat; `source` says what the answer rests on. A rule without the numbers to judge
it is unknown, never holding.
"""

from freehold.cost.model.result import Rule
from freehold.cost.pricing.ranking import Ranking
from freehold.cost.rules.machines import MACHINE_RULES
from freehold.cost.rules.money import MONEY_RULES


def rules_of(standing: Ranking) -> tuple[Rule, ...]:
    """Return all rules, those on money first."""
    return tuple(rule(standing) for rule in (*MONEY_RULES, *MACHINE_RULES))
