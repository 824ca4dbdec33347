"""The installed genai-prices and what we rely on: our rows agree with it, its traps are met, its version has a day."""

import importlib.metadata
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from freehold.catalog import look
from freehold.catalog.ask_genai_prices import RequestSize, api_price, known_names, price_usd, stamp
from freehold.catalog.facts import ApiPrice, Catalog
from freehold.catalog.load import load_catalog
from freehold.core.problems import Problem

TODAY = date(2026, 11, 27)
PEAK = datetime(2026, 11, 27, 3, 0, tzinfo=UTC)
OFF = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
SMALL = RequestSize(input_tokens=1000, output_tokens=1000)


def shipped() -> Catalog:
    catalog = load_catalog(today=TODAY).catalog
    assert catalog is not None
    return catalog


CATALOG = shipped()
ROWS = {f"{row.provider}/{row.model}": row for row in CATALOG.apis}


def asked(row: ApiPrice) -> str:
    return row.ask_as or row.model


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_shipped_row_is_what_the_database_says_for_a_small_request(name: str) -> None:
    """By the hour: ours is the dearest, at 03:00 UTC on a weekday."""
    row = ROWS[name]
    found = price_usd(row.provider, asked(row), request=SMALL, at=PEAK)
    assert found is not None
    assert float(found.input_usd) * 1000 == pytest.approx(row.input_usd_per_m)
    assert float(found.output_usd) * 1000 == pytest.approx(row.output_usd_per_m)
    effective = api_price(row.provider, asked(row), request=SMALL, today=TODAY)
    assert effective is not None
    assert effective.by_hour == row.by_hour
    if not row.by_hour:
        assert effective.cached_input_usd_per_m == pytest.approx(row.cached_input_usd_per_m)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_the_size_to_which_a_row_holds_is_where_the_database_changes(name: str) -> None:
    row = ROWS[name]

    def per_token(tokens: int) -> Decimal:
        found = price_usd(
            row.provider, asked(row), request=RequestSize(input_tokens=tokens, output_tokens=1), at=PEAK
        )
        assert found is not None
        return found.input_usd / tokens

    edge = row.flat_to_input_tokens
    assert per_token(1000) == per_token(edge or 2_000_000)
    if edge:
        assert per_token(edge + 1) > per_token(edge)


def test_a_million_tokens_in_one_request_is_another_price_than_a_thousand_requests() -> None:
    for model, input_times, output_times in (
        ("anthropic/claude-sonnet-4-5", 2, 1.5),
        ("google/gemini-2.5-pro", 2, 1.5),
        ("openai/gpt-5.4", 2, 1.5),
    ):
        provider, _, name = model.partition("/")
        small = api_price(
            provider, name, request=RequestSize(input_tokens=1000, output_tokens=1000), today=TODAY
        )
        whole = api_price(
            provider, name, request=RequestSize(input_tokens=1_000_000, output_tokens=1000), today=TODAY
        )
        assert small is not None
        assert whole is not None
        assert whole.input_usd_per_m == pytest.approx(small.input_usd_per_m * input_times)
        assert whole.output_usd_per_m == pytest.approx(small.output_usd_per_m * output_times)


def test_deepseek_is_the_mean_over_the_day() -> None:
    """Seven hours at the full price, seventeen at half: 0.30 x 24.17 / 24."""
    peak = price_usd("deepseek", "deepseek-v4-flash", request=SMALL, at=PEAK)
    off = price_usd("deepseek", "deepseek-v4-flash", request=SMALL, at=OFF)
    assert peak is not None
    assert off is not None
    assert peak.usd == 2 * off.usd == Decimal("0.0015")
    row = look.api(CATALOG, "deepseek-v4-flash", request=SMALL)
    assert isinstance(row, ApiPrice)
    assert row.by_hour
    assert row.input_usd_per_m == pytest.approx(0.30 * (7 + 17 / 2) / 24)
    assert (row.open_weights, row.two_sources_agree) == (True, False)
    assert "mean over the hours" in row.note


def test_a_long_request_is_priced_at_its_tier() -> None:
    long = RequestSize(input_tokens=150_000, output_tokens=300)
    row = look.api(CATALOG, "claude-haiku-5-5", request=long)
    assert isinstance(row, ApiPrice)
    assert (row.input_usd_per_m, row.output_usd_per_m) == (0.5, 2.5)  # 0.1 and 0.5 up to 100,000
    short = look.api(CATALOG, "claude-haiku-5-5", request=SMALL)
    assert isinstance(short, ApiPrice)
    assert short.input_usd_per_m == 0.1


def test_cached_tokens_are_priced_as_such() -> None:
    held = price_usd(
        "openai",
        "gpt-5",
        request=RequestSize(input_tokens=1000, output_tokens=0, cached_tokens=800),
        at=OFF,
    )
    assert held is not None
    assert held.input_usd == Decimal(200) * Decimal("1.25e-6") + Decimal(800) * Decimal("0.125e-6")
    assert held.output_usd == 0


def test_what_is_unknown_is_none_and_then_a_problem_with_the_nearest() -> None:
    assert price_usd("openai", "gpt-6-lunar", request=SMALL, at=OFF) is None
    assert price_usd("nobody", "gpt-5", request=SMALL, at=OFF) is None
    assert api_price("", "no-such-model", request=SMALL, today=TODAY) is None
    told = {
        name: look.api(CATALOG, name)
        for name in ("gpt-6-lunar", "openai/gpt-5.4-nini", "nobody/gpt-5", "x/", "/", "")
    }
    assert all(isinstance(each, Problem) for each in told.values())
    assert told["gpt-6-lunar"].hint == "did you mean 'openai/gpt-6-luna'?"
    assert told["openai/gpt-5.4-nini"].hint == "did you mean 'openai/gpt-5.4-mini'?"
    assert "'openai/gpt-5'" in told["nobody/gpt-5"].hint
    assert told["x/"].hint.startswith("known: anthropic/")


def test_a_model_beyond_our_rows_comes_from_the_database() -> None:
    row = look.api(CATALOG, "openai/gpt-4o", request=SMALL)
    assert isinstance(row, ApiPrice)
    assert (row.provider, row.model, row.input_usd_per_m, row.output_usd_per_m) == (
        "openai",
        "gpt-4o",
        2.5,
        10,
    )
    alone = look.api(CATALOG, "gpt-4o", request=SMALL)
    assert isinstance(alone, ApiPrice)
    assert alone.provider == "openai"  # and not Azure, which serves it too
    assert len(known_names()) > 2000


def test_a_name_that_was_stretched_is_said() -> None:
    row = api_price("google", "gemini-2.5-prox", request=SMALL, today=TODAY)
    assert row is not None
    assert "'gemini-2.5-prox' was taken for 'gemini-2.5-pro'" in row.note


def test_the_pinned_version_is_the_one_whose_day_we_know() -> None:
    source, as_of = stamp()
    database = CATALOG.price_databases["genai-prices"]
    assert importlib.metadata.version("genai-prices") == database.version, (
        "look up its day: data/price_databases.yaml"
    )
    assert (source, as_of) == (f"genai-prices {database.version}", database.as_of)
    row = api_price("openai", "gpt-5", request=SMALL, today=date(2026, 11, 1))
    assert row is not None
    assert row.as_of == date(2026, 11, 1)  # never ahead of today


@pytest.mark.parametrize("module", ["look", "load", "ask_genai_prices"])
def test_importing_the_catalog_does_not_import_the_database(module: str) -> None:
    code = f"import sys, freehold.catalog.{module}; print([m for m in ('genai_prices', 'pydantic', 'httpx2') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
