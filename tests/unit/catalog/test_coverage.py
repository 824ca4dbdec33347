"""Which prices are old or missing, and where to look."""

from datetime import date
from pathlib import Path

import pytest

from freehold.catalog.coverage import ON_DEMAND_MIN, PriceCheck, check_prices
from freehold.catalog.facts import Catalog, RentalKind, Verified
from freehold.catalog.load import load_catalog

TODAY = date(2026, 12, 3)
FEW = {"dgx-spark", "gb200-nvl72", "gb300-nvl72", "mi325x", "mi350x", "mi355x"}
"""Cards of which no third price was found: they may only become fewer."""


def catalog_of(*overlays: Path) -> Catalog:
    loaded = load_catalog(today=TODAY, overlays=overlays)
    assert loaded.catalog is not None, loaded.problems
    return loaded.catalog


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return catalog_of()


@pytest.fixture(scope="module")
def found(catalog: Catalog) -> PriceCheck:
    return check_prices(catalog)


def test_no_rental_and_no_purchase_price_is_old_or_from_memory_without_being_named(
    catalog: Catalog, found: PriceCheck
) -> None:
    assert not [each for each in found.stale if each.section == "rentals"]
    assert all(each.verified is Verified.READ for each in catalog.rentals)
    assert all(g.price is None or g.price.verified is not Verified.MEMORY for g in catalog.gpus.values())
    named = {each.name for each in found.stale if each.section == "gpus"}
    assert named == {f"{gpu.id} as bought" for gpu in catalog.gpus.values() if gpu.price}


def test_every_rental_has_an_address_and_a_day(catalog: Catalog) -> None:
    assert all("github.com/" in each.source for each in catalog.rentals)
    assert min(each.as_of for each in catalog.rentals) >= date(2026, 9, 20)


def test_every_gpu_that_is_sold_has_three_prices_or_says_what_it_lacks(found: PriceCheck) -> None:
    few = {each.gpu for each in found.gpus if each.on_demand + each.marketplace < ON_DEMAND_MIN}
    assert few == FEW
    by_name = {each.gpu: each for each in found.gpus}
    assert by_name["h100-sxm"].lacks == ""
    assert by_name["dgx-spark"].lacks == "0 of 3 on-demand prices, no reserved price"
    assert (by_name["dgx-spark"].newest, by_name["l4"].purchase) == ("", "no price known")
    assert {"rtx-3090", "l4", "gb300-nvl72", "mi350x", "rtx-6000-ada"} <= set(by_name)


def test_the_cheap_rtx_pro_6000_is_there(catalog: Catalog) -> None:
    asked = [each for each in catalog.rentals if each.gpu == "rtx-pro-6000-bse"]
    assert min(each.usd_per_gpu_hour for each in asked if each.kind is RentalKind.MARKETPLACE) < 1.7
    assert any(each.kind is RentalKind.RESERVED and each.usd_per_gpu_hour == 1.3 for each in asked)


def test_old_prices_come_oldest_first_and_say_where_to_look(found: PriceCheck) -> None:
    assert found.old == sum(each.old for each in found.stale) > 0
    assert found.stale[0].name == "dgx-h100-2023"
    power = next(each for each in found.stale if each.name == "US-OH commercial")
    assert power.why == "as of 2025-04-30, 582 days old"
    assert "eia.gov" in power.look
    assert not any("measured-power" in each.name for each in found.stale), "watts are no price"
    speed = next(each for each in found.stale if each.section == "speeds")
    assert speed.why == "as of 2026-07-10, 146 days old"
    assert "artificialanalysis.ai" in speed.look


def test_ones_own_prices_are_never_asked_for(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "rentals:\n  - {provider: acme, gpu: l4, usd_per_gpu_hour: 0.5, kind: reserved, term_months: 12}\n"
    )
    (l4,) = [each for each in check_prices(catalog_of(mine)).gpus if each.gpu == "l4"]
    assert (l4.reserved, l4.lacks) == (1, "")
