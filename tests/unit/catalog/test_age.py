"""Age and doubtful sources widen prices; physics does not age."""

import dataclasses
import math
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.catalog import age
from freehold.catalog.age import age_factor, doubtful, priced, volatility_per_year
from freehold.catalog.facts import Catalog, Fact, RentalKind, RentalPrice, Verified
from freehold.catalog.load import load_catalog
from freehold.core.spread import Spread

TODAY = date(2026, 11, 27)


def rental(days: int, verified: Verified = Verified.READ) -> RentalPrice:
    as_of = TODAY - timedelta(days=days)
    return RentalPrice(
        provider="p",
        gpu="g",
        usd_per_gpu_hour=2.0,
        kind=RentalKind.ON_DEMAND,
        source="s",
        as_of=as_of,
        verified=verified,
    )


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    found = load_catalog(today=TODAY).catalog
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("days", "factor"), [(-5, 1), (0, 1), (90, 1), (91, 1.026), (90 + 365, 1.648), (5000, 6.2)]
)
def test_a_price_stands_for_90_days_and_then_wanders(days: int, factor: float) -> None:
    told = age_factor(TODAY - timedelta(days=days), TODAY, per_year=age.RENTAL_PER_YEAR)
    assert told == pytest.approx(factor, rel=0.01)


def test_what_rentals_did_is_within_the_range() -> None:
    """RunPod's H100 3.29 to 3.99 in 12 weeks; one-year reserved 1.70 to 2.35 in five months: counted past the 90 days."""
    twelve_weeks = age_factor(TODAY - timedelta(days=90 + 84), TODAY, per_year=age.RENTAL_PER_YEAR)
    five_months = age_factor(TODAY - timedelta(days=90 + 152), TODAY, per_year=age.RENTAL_PER_YEAR)
    assert 3.99 / 3.29 < twelve_weeks < 1.5
    assert pytest.approx(five_months, rel=0.02) == 2.35 / 1.70


def test_a_fresh_price_that_was_read_is_exact() -> None:
    assert priced(rental(20), 2.0, TODAY) == Spread.exactly(2.0)
    assert priced(rental(20, Verified.USER), 2.0, TODAY) == Spread.exactly(2.0)
    assert doubtful(rental(20), TODAY) == ""


@given(days=st.integers(0, 4000), more=st.integers(1, 1000))
def test_older_is_never_narrower(days: int, more: int) -> None:
    young, old = (priced(rental(each), 2.0, TODAY) for each in (days, days + more))
    assert old.low <= young.low <= young.mid == old.mid == 2.0 <= young.high <= old.high
    assert days + more <= 90 or old.high > old.mid


def test_second_hand_is_wider_and_memory_wider_still() -> None:
    read, second, memory = (
        priced(rental(10, each), 2.0, TODAY) for each in (Verified.READ, Verified.SECONDARY, Verified.MEMORY)
    )
    assert read.high < second.high < memory.high
    assert second.high == pytest.approx(2 * math.exp(0.15))


def test_a_range_that_says_so_already_is_not_widened_twice() -> None:
    wide = Spread(1.0, 2.0, 4.0)
    assert priced(rental(10, Verified.MEMORY), wide, TODAY) == Spread(1.0, 2.0, 4.0)
    skew = priced(rental(10, Verified.MEMORY), Spread(1.9, 2.0, 4.0), TODAY)
    assert (skew.high, skew.low) == (4.0, pytest.approx(2 * math.exp(-0.3)))


def test_nothing_stays_nothing() -> None:
    assert priced(rental(1000), 0.0, TODAY) == Spread.exactly(0)
    assert priced(rental(1000), Spread(0, 1, 2), TODAY).low == 0


def test_physics_and_rates_do_not_age(catalog: Catalog) -> None:
    far = date(2040, 1, 1)
    physics = [
        *catalog.gpus.values(),
        *catalog.models.values(),
        *catalog.links.values(),
        *catalog.storage.values(),
        *catalog.failures,
        *catalog.calibrations.values(),
        *catalog.pue.values(),
    ]
    assert all(volatility_per_year(fact) == 0 for fact in physics)
    link = catalog.links["10gbe"]
    assert priced(link, link.effective_gb_s_per_dir, far) == Spread.exactly(1.17)
    assert catalog.gpus["a100-sxm-80"].verified is Verified.READ
    assert doubtful(catalog.gpus["a100-sxm-80"], far) == ""


def test_prices_wander_by_their_kind(catalog: Catalog) -> None:
    h100 = catalog.gpus["h100-sxm"].price
    assert h100 is not None
    assert (
        volatility_per_year(catalog.rentals[0])
        > volatility_per_year(h100)
        > volatility_per_year(catalog.electricity[0])
    )
    assert volatility_per_year(catalog.defaults["host_ram_usd_per_gb"]) == age.MEMORY_PER_YEAR
    assert volatility_per_year(catalog.nodes["ddr5-rdimm"]) == age.MEMORY_PER_YEAR
    assert volatility_per_year(catalog.nodes["dgx-h100-2023"]) == age.HARDWARE_PER_YEAR
    assert volatility_per_year(catalog.defaults["life_months"]) == 0
    assert volatility_per_year(catalog.defaults["chassis_usd_per_gpu"]) == age.HARDWARE_PER_YEAR
    assert volatility_per_year(catalog.defaults["power_usd_per_kwh"]) == age.UTILITY_PER_YEAR


def test_a_default_ages_but_its_range_already_says_that_it_is_a_guess(catalog: Catalog) -> None:
    guess = catalog.defaults["storage_usd_per_tb"]
    assert priced(guess, guess.value, TODAY) == guess.value
    old = dataclasses.replace(guess, as_of=date(2024, 1, 1))
    assert priced(old, old.value, TODAY).high > guess.value.high
    years = catalog.defaults["life_months"]
    assert priced(years, years.value, date(2040, 1, 1)) == years.value


@pytest.mark.parametrize(
    ("days", "verified", "words"),
    [
        (193, Verified.SECONDARY, "as of 2026-05-18, 193 days old, quoted second-hand"),
        (193, Verified.READ, "as of 2026-05-18, 193 days old"),
        (10, Verified.MEMORY, "as of 2026-11-17, from memory, not looked up"),
        (90, Verified.RAN, ""),
        (91, Verified.USER, "as of 2026-08-28, 91 days old"),
    ],
)
def test_a_doubtful_fact_says_why(days: int, verified: Verified, words: str) -> None:
    assert doubtful(rental(days, verified), TODAY) == words


def test_a_plain_fact_counts_as_a_price_of_hardware() -> None:
    fact = Fact(source="s", as_of=date(2025, 1, 1), verified=Verified.READ)
    assert priced(fact, 100, TODAY).high == pytest.approx(100 * age_factor(fact.as_of, TODAY))


def test_a_price_on_which_databases_disagree_is_wider_and_says_so(catalog: Catalog) -> None:
    together = next(each for each in catalog.apis if each.model == "Llama-3.3-70B-Instruct-Turbo")
    assert priced(together, 0.88, TODAY).high == pytest.approx(1.04, rel=0.01)
    assert doubtful(together, TODAY) == "as of 2026-11-23, two databases disagree"
    told = dataclasses.replace(together, verified=Verified.USER)
    assert priced(told, 0.88, TODAY) == Spread.exactly(0.88)
    assert doubtful(told, TODAY) == ""
