"""The node that guides speak of, and machines that rules name: figures of one rule do not depend on what else is planned."""

import cost_samples as samples
from freehold.core.spread import Spread
from freehold.cost.model.result import Rule
from freehold.cost.model.rounding import amount
from freehold.cost.pricing.ranking import Ranking, ranking_of
from freehold.cost.rules.all_rules import rules_of

EXACT = Spread.exactly


def rule(ranking: Ranking, start: str) -> Rule:
    return next(each for each in rules_of(ranking) if each.claim.startswith(start))


def ranking(**changes: object) -> Ranking:
    return ranking_of(samples.inputs(**changes))


def test_the_node_of_the_guides_is_the_same_in_every_plan():
    claims = ("Infrastructure", "An 8-GPU node", "12-15 kW", "Colocation", "Power costs more")
    other = samples.gpu(id="b200-sxm", price_new_usd=EXACT(45_000.0), tdp_w=1000.0)
    catalog = samples.catalog(gpus={"h100-sxm": samples.gpu()})
    plans = [
        ranking(fleets=fleets, catalog=catalog, traffic=samples.traffic(tokens))
        for fleets, tokens in (
            ((samples.fleet(),), 10e9),
            ((samples.fleet(other, gpus=16, replicas=4),), 300e9),
            ((samples.fleet(gpus=1, replicas=1),), 1e9),
        )
    ]
    for claim in claims:
        said = {rule(each, claim).computed for each in plans}
        assert len(said) == 1, said
        assert "h100-sxm" in said.pop()


def test_what_owning_costs_over_three_years_is_of_machines_that_are_shown():
    found = ranking(fleets=(samples.fleet(gpus=16, replicas=16),))
    bought = found.best("buy")
    assert bought
    said = rule(found, "Hardware is written off").computed
    assert "16 x h100-sxm as bought cost" in said
    assert f"The options show {amount(bought.usd_per_month.p50)}, over 36 months" in said
    assert said.count(amount(bought.usd_per_month.p50)) == 2
