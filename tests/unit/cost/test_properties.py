"""What holds for any inputs: dearer is never cheaper, lines add up in every draw, what lacks a price never wins."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cost_samples as samples
from freehold.core.spread import Spread
from freehold.cost.model.draw import Draws, Middle
from freehold.cost.model.inputs import OwnAssumptions
from freehold.cost.model.result import Percentiles, PlanResult
from freehold.cost.plan import plan
from freehold.cost.pricing.price import middle_usd, price
from freehold.cost.pricing.ranking import ranking_of
from freehold.sizing.fleet.fleet import round_gpus

CHEAPER_WHEN_MORE = {"residual_fraction", "life_months"}
OWN_NAMES = [field.name for field in fields(OwnAssumptions)]


@pytest.mark.parametrize("name", OWN_NAMES)
@given(factor=st.floats(1.0, 3.0), gpus=st.sampled_from([1, 8, 16]), spare=st.booleans())
def test_a_dearer_input_never_makes_owning_cheaper(name: str, factor: float, gpus: int, *, spare: bool):
    own = samples.own()
    old = getattr(own, name)
    dearer = replace(own, **{name: replace(old, value=old.value.times(factor))})
    offer = samples.bought(samples.fleet(gpus=gpus, replicas=gpus))
    fallback = None if spare else samples.offered()
    before, after = (
        middle_usd(offer, samples.setting(own=each, fallback=fallback)) for each in (own, dearer)
    )
    if name in CHEAPER_WHEN_MORE:
        assert after <= before * (1 + 1e-9)
    else:
        assert after >= before * (1 - 1e-9)


@given(low=st.floats(0.1, 50), more=st.floats(0, 50), tokens=st.floats(1e6, 1e12))
def test_dearer_prices_and_more_tokens_never_cost_less(low: float, more: float, tokens: float):
    setting = samples.setting(traffic=samples.traffic(tokens))
    for make in (
        lambda usd: samples.rented(usd=Spread.exactly(usd)),
        lambda usd: samples.bought(usd=Spread.exactly(usd * 1000)),
        lambda usd: samples.called(samples.offered(samples.api(prices=(usd, usd)))),
    ):
        costs = [middle_usd(make(usd), setting) for usd in (low, low + more)]
        assert costs[1] >= costs[0]
        scaled = [
            middle_usd(make(low), setting, tokens_scale=scale, fleet_scale=scale)
            for scale in (0.1, 1.0, 10.0)
        ]
        assert scaled == sorted(scaled)


@given(
    fewer=st.integers(0, 12),
    more=st.integers(0, 12),
    sold_in=st.sampled_from([1, 8, 72]),
    idle_w=st.sampled_from([80.0, None]),
)
def test_more_spares_are_never_cheaper(fewer: int, more: int, sold_in: int, idle_w: float | None):
    card = samples.gpu(sold_in=sold_in, idle_w=idle_w)
    costs = []
    for spares in (fewer, fewer + more):
        needed = 4 + spares
        gpus, nodes = round_gpus(needed, gpu=card, per_node=8)
        fleet = samples.fleet(card, gpus=gpus, replicas=4, spare_replicas=spares, nodes=nodes)
        one = replace(fleet.sized, ask=replace(fleet.sized.ask, gpus=1))
        inputs = samples.inputs(fleets=(replace(fleet, sized=one),), fallback_api=False, rentals=())
        ranking = ranking_of(replace(inputs, draws=200))
        bought = next(each for each in ranking.options if each.offer.kind == "buy")
        costs.append(bought.usd_per_month)
        assert np.all(bought.priced.case.counts.spare_gpus == spares)
    assert costs[1].p50 >= costs[0].p50 * (1 - 1e-6)
    assert costs[1].p90 >= costs[0].p90 * (1 - 1e-6)


@given(seed=st.integers(0, 2**32 - 1))
def test_lines_add_up_to_the_total_in_every_draw(seed: int):
    draws, setting = Draws(200, seed), samples.setting()
    for offer in (samples.bought(), samples.rented(usd=Spread(2, 3, 4)), samples.called()):
        found = price(offer, setting, draws=draws)
        parts = np.sum([np.broadcast_to(values, (200,)) for values in found.lines.values()], axis=0)
        assert np.allclose(parts, found.total, rtol=1e-5)
        assert all(np.all(values >= 0) for values in found.lines.values())


@given(usd=st.floats(0.001, 0.1))
def test_what_lacks_a_price_never_wins_however_cheap(usd: float):
    unpriced = samples.fleet(samples.gpu(id="h100-nvl", price_new_usd=None, price=None))
    inputs = samples.inputs(
        fleets=(unpriced,),
        rentals=(samples.rental(usd, gpu="another"),),
        own=samples.exact_own(),
        rent=samples.exact_rent(),
        draws=200,
    )
    found = plan(inputs)
    lacking = {each.id: each for each in found.options if each.incomplete}
    assert {each.kind for each in lacking.values()} == {"rent", "buy"}
    assert min(each.usd_per_month.p50 for each in lacking.values()) == 0
    assert found.verdict.option not in lacking
    assert found.verdict.word in {"stay", "change-api"}
    assert not any(each.can_win for each in lacking.values())
    assert [bool(each.incomplete) for each in found.options] == sorted(
        bool(each.incomplete) for each in found.options
    )


def ranges(result: PlanResult) -> list[Percentiles]:
    found = [each.usd_per_month for each in result.options]
    found += [each.usd_per_million_tokens for each in result.options]
    found += [line for each in result.options for line in each.lines.values()]
    found += [each.capital_usd for each in result.options if each.capital_usd]
    for each in result.break_even:
        found += [value for value in (each.tokens_per_month, each.utilisation, each.payback_month) if value]
    return found


def test_every_range_of_a_plan_is_in_order_and_the_seed_decides_it_all():
    first, again, other = (plan(samples.inputs(seed=seed, growth_per_month=0.03)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert all(each.p10 <= each.p50 <= each.p90 for each in ranges(first))
    assert len(ranges(first)) > 30


def test_the_middle_is_what_is_drawn_around():
    setting = samples.setting(own=samples.exact_own(power_usd_per_kwh=(0.1, 0.12, 0.15)))
    fleet = samples.fleet(capacity=Spread.exactly(48_000.0))
    offer = samples.bought(fleet, Spread(25e3, 28e3, 32e3))
    drawn = price(offer, setting, draws=Draws(50_000, 5)).total
    assert float(np.median(drawn)) == pytest.approx(
        float(price(offer, setting, draws=Middle()).total[0]), rel=0.01
    )
