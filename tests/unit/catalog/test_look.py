"""Looking up by the names that people type."""

import sys
from datetime import date
from pathlib import Path

import pytest

from freehold.catalog import look
from freehold.catalog.ask_genai_prices import RequestSize
from freehold.catalog.facts import ApiPrice, Catalog, Verified
from freehold.catalog.load import load_catalog
from freehold.core.problems import Problem

TODAY = date(2026, 11, 27)
SMALL = RequestSize(input_tokens=2000, output_tokens=300)


def load(*overlays: Path) -> Catalog:
    catalog = load_catalog(today=TODAY, overlays=overlays).catalog
    assert catalog is not None
    return catalog


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load()


def test_names_are_found_in_any_case(catalog: Catalog) -> None:
    assert look.gpu(catalog, "H100-SXM") is catalog.gpus["h100-sxm"]
    assert look.model(catalog, "meta-llama/llama-3.1-8b-instruct") is catalog.models["llama-3.1-8b"]
    assert look.link(catalog, "10GbE") is catalog.links["10gbe"]
    assert look.storage(catalog, "nvme-gen4") is catalog.storage["nvme-gen4"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            lambda c: look.gpu(c, "h100-smx", where="--gpu"),
            "--gpu: there is no GPU 'h100-smx' (did you mean 'h100-sxm'?)",
        ),
        (
            lambda c: look.model(c, "llama-3.1-9b"),
            "--model: there is no model 'llama-3.1-9b' (did you mean 'llama-3.1-8b'?)",
        ),
        (lambda c: look.link(c, "11gbe"), "--network: there is no link '11gbe' (did you mean '1gbe'?)"),
        (
            lambda c: look.electricity_for(c, "us-o"),
            "--region: there is no region 'us-o' (did you mean 'US-OH'?)",
        ),
    ],
)
def test_what_is_not_there_names_the_nearest(catalog: Catalog, found: object, words: str) -> None:
    assert str(found(catalog)) == words


def test_of_each_offer_the_newest_counts_cheapest_first(catalog: Catalog) -> None:
    offers = look.rentals_for(catalog, "h100-sxm")
    assert [each.usd_per_gpu_hour for each in offers] == sorted(each.usd_per_gpu_hour for each in offers)
    keys = [(each.provider, each.kind, each.term_months) for each in offers]
    assert len(keys) == len(set(keys))
    (akash,) = [each for each in offers if each.provider == "akash"]
    assert (akash.usd_per_gpu_hour, akash.as_of) == (2.58, date(2026, 10, 24))  # 2.71 is of September
    assert look.rentals_for(catalog, "h100-nvl")[0].provider == "azure"
    assert look.rentals_for(catalog, "dgx-spark") == ()


@pytest.mark.parametrize("name", ["gaudi-3", "TPU-v6e", "trainium2", "VR200-nvl144"])
def test_an_accelerator_that_nobody_measured_is_refused_in_plain_words(catalog: Catalog, name: str) -> None:
    found = look.gpu(catalog, name)
    assert isinstance(found, Problem)
    assert "no published measurement" in found.message
    assert "--measured" in found.hint


def test_electricity_is_commercial_unless_a_user_told_it(catalog: Catalog, tmp_path: Path) -> None:
    found = look.electricity_for(catalog, "us-oh")
    assert not isinstance(found, Problem)
    assert (found.usd_per_kwh, found.kind) == (0.1102, "commercial")
    path = tmp_path / "p.yaml"
    path.write_text("electricity:\n  - {region: US-OH, usd_per_kwh: 0.06, kind: industrial}\n")
    told = look.electricity_for(load(path), "US-OH")
    assert not isinstance(told, Problem)
    assert told.usd_per_kwh == 0.06


def test_rates_and_defaults(catalog: Catalog) -> None:
    assert sum(rate.count or 0 for rate in catalog.failures if rate.group == "gpu") == 268
    assert sum(rate.count or 0 for rate in catalog.failures) == 419
    assert look.default(catalog, "staff_fte").value.mid == 0.25
    with pytest.raises(AssertionError):
        look.default(catalog, "stuff")


def test_apis_that_serve_the_same_open_model(catalog: Catalog) -> None:
    assert [each.provider for each in look.same_model_apis(catalog, "gpt-oss-120b")] == [
        "groq",
        "together",
        "fireworks",
        "cerebras",
    ]
    assert look.same_model_apis(catalog, "qwen2.5-0.5b") == ()


@pytest.mark.parametrize("name", ["openai/gpt-6-luna", "gpt-6-luna", "GPT-6-Luna"])
def test_a_shipped_api_is_found_without_asking_anybody(catalog: Catalog, name: str) -> None:
    row = look.api(catalog, name, request=SMALL)
    assert isinstance(row, ApiPrice)
    assert (row.provider, row.input_usd_per_m, row.two_sources_agree) == ("openai", 0.1, True)


def test_a_model_that_several_serve_must_be_named_whole(catalog: Catalog) -> None:
    told = look.api(catalog, "gpt-oss-120b")
    assert str(told) == (
        "--api: 'gpt-oss-120b' is served by several (name one: groq/openai/gpt-oss-120b, together/openai/gpt-oss-120b, "
        "fireworks/gpt-oss-120b, cerebras/gpt-oss-120b)"
    )
    found = look.api(catalog, "groq/openai/gpt-oss-120b")
    assert isinstance(found, ApiPrice)
    assert found.cached_input_usd_per_m == 0.075


def test_a_users_price_stands_at_any_size(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("apis:\n  - {provider: anthropic, model: claude-sonnet-4-5, input_usd_per_m: 2.0}\n")
    row = look.api(
        load(path), "claude-sonnet-4-5", request=RequestSize(input_tokens=500_000, output_tokens=10)
    )
    assert isinstance(row, ApiPrice)
    assert (row.input_usd_per_m, row.verified) == (2.0, Verified.USER)


def test_the_database_is_not_imported_for_shipped_prices() -> None:
    assert (
        "freehold.catalog.ask_genai_prices" in sys.modules
    )  # imported above; it does not import its package
    source = Path(look.__file__).with_name("ask_genai_prices.py").read_text()
    assert "\nfrom genai_prices" not in source
    assert "\nimport genai_prices" not in source
