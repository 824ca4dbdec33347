"""The shipped facts: whole, sourced, dated, without a mistake; and the copy that makes them fast says the same."""

import math
import random
import shutil
import statistics
from datetime import date
from pathlib import Path

import pytest

from freehold.catalog import rows
from freehold.catalog.entries import read_rows
from freehold.catalog.facts import Catalog, Verified
from freehold.catalog.load import load_catalog
from freehold.core.clock import SystemClock
from freehold.core.places import read_tree
from freehold.core.spread import Spread

TODAY = date(2026, 11, 27)
FACTS = Path(__file__).resolve().parents[3].parent / "shared" / "facts"
OWN = "chassis_usd_per_gpu host_ram_usd_per_gb storage_usd_per_tb network_usd_per_node power_usd_per_kwh pue_ratio"
OWN += " host_kw gpu_power_fraction colo_usd_per_kw_month residual_fraction capital_rate_per_year life_months"
OWN += " maintenance_fraction_per_year insurance_fraction_per_year staff_fte staff_usd_per_year"
OWN += " gpu_failures_per_gpu_year repair_days egress_usd_per_gb"
RENT = "rent_staff_fte rent_storage_usd_per_tb_month rent_egress_usd_per_gb"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    loaded = load_catalog(today=TODAY)
    assert not loaded.problems, loaded.problems
    assert loaded.catalog is not None
    return loaded.catalog


def test_every_section_has_all_its_rows(catalog: Catalog) -> None:
    counted = {
        name: len(getattr(catalog, name))
        for name in (
            "gpus",
            "models",
            "links",
            "storage",
            "rentals",
            "apis",
            "electricity",
            "pue",
            "colocation",
        )
    }
    assert counted == {
        "gpus": 23,
        "models": 16,
        "links": 14,
        "storage": 10,
        "rentals": 212,
        "apis": 51,
        "electricity": 25,
        "pue": 3,
        "colocation": 3,
    }
    assert (len(catalog.failures), len(catalog.nodes), len(catalog.published_tco)) == (18, 11, 13)
    assert catalog.calibrations
    assert catalog.engine_ratios


def test_the_only_doubt_is_the_dearest_cloud(catalog: Catalog) -> None:
    (doubt,) = catalog.doubts
    assert "azure-ndv5 h100-sxm" in doubt.message
    assert "3.2 times the median" in doubt.message
    assert not doubt.dropped
    file, line, column = doubt.where.split(":")
    assert file == "freehold/catalog/data/rentals.yaml"
    written = (rows.DATA / "rentals.yaml").read_text().splitlines()[int(line) - 1]
    assert written[int(column) - 1 :].startswith("12.29,")


def test_consumer_cards_are_marked(catalog: Catalog) -> None:
    assert {gpu.id for gpu in catalog.gpus.values() if gpu.consumer} == {"rtx-5090", "rtx-4090", "rtx-3090"}


def test_every_open_model_that_an_api_serves_has_its_prices(catalog: Catalog) -> None:
    behind = {(price.provider, price.model): price.same_as for price in catalog.apis if price.same_as}
    assert behind["together", "Llama-3.3-70B-Instruct-Turbo"] == "llama-3.3-70b"
    assert behind["deepseek", "deepseek-chat"] == "deepseek-v3"
    served = set(behind.values())
    assert set(catalog.models) - served == {"qwen2.5-0.5b"}, "a small test model, which nobody sells"
    assert all(price.open_weights for price in catalog.apis if price.same_as)


def test_how_checkpoints_are_stored_is_known(catalog: Catalog) -> None:
    stored = {facts.id: facts.native_quant for facts in catalog.models.values() if facts.native_quant}
    assert stored == {
        "deepseek-v3": "fp8",
        "kimi-k2": "fp8",
        "minimax-m2.5": "fp8",
        "gpt-oss-20b": "mxfp4",
        "gpt-oss-120b": "mxfp4",
    }


def test_a_price_has_its_own_source_and_date(catalog: Catalog) -> None:
    h100 = catalog.gpus["h100-sxm"]
    assert h100.price_new_usd == Spread(25000, 27500, 40000)
    assert h100.price is not None
    assert (h100.price.as_of, h100.price.verified) == (date(2026, 6, 1), Verified.SECONDARY)
    assert (h100.as_of, h100.verified) == (date(2026, 4, 3), Verified.READ)
    assert catalog.gpus["h100-nvl"].price is None
    assert catalog.gpus["h100-nvl"].fp4_dense_tflops is None


def test_every_assumption_of_the_cost_model_has_a_default(catalog: Catalog) -> None:
    assert set(catalog.defaults) == {*OWN.split(), *RENT.split()}
    assert all(default.unit for default in catalog.defaults.values())
    guessed = [each for each in catalog.defaults.values() if each.source.startswith("our ")]
    assert guessed
    assert all(each.verified is Verified.MEMORY for each in guessed)


def test_a_server_of_eight_h100_costs_what_quotes_say(catalog: Catalog) -> None:
    """Research: 240,000 to 384,000 USD around 300,000; quotes 250,000-400,000 (2026)."""
    d = {name: each.value for name, each in catalog.defaults.items()}
    price = catalog.gpus["h100-sxm"].price_new_usd
    assert price is not None
    rng = random.Random(1)

    def draw(spread: Spread) -> float:
        z = rng.gauss(0, 1)
        arm = math.log((spread.high if z > 0 else spread.low) / spread.mid)
        return spread.mid * math.exp(abs(z) / 1.645 * arm)

    def server(value: object) -> float:
        gpus, ram, disk = 8, 1000, 15
        return (
            gpus * (value(price) + value(d["chassis_usd_per_gpu"]))
            + ram * value(d["host_ram_usd_per_gb"])
            + disk * value(d["storage_usd_per_tb"])
            + value(d["network_usd_per_node"])
        )

    middle = server(lambda spread: spread.mid)
    assert middle == pytest.approx(301_250)
    assert 1.3 < middle / (8 * price.mid) < 1.6
    deciles = statistics.quantiles((server(draw) for _ in range(5_000)), n=10)
    assert deciles[0] > 240_000
    assert deciles[-1] < 395_000


@pytest.mark.parametrize("path", sorted(rows.DATA.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_parsed_copy_says_what_the_yaml_says(path: Path) -> None:
    assert rows.copies().get(path.name) == rows.copied(path), "run: python -m freehold.catalog.rows"


def test_the_parsed_copy_has_no_other_files() -> None:
    assert set(rows.copies()) == {path.name for path in rows.DATA.glob("*.yaml")}


def test_the_shipped_facts_load_quickly() -> None:
    clock = SystemClock()
    took = []
    for _ in range(3):
        start = clock.monotonic_s()
        load_catalog(today=TODAY)
        took.append(clock.monotonic_s() - start)
    assert min(took) < 0.15


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("pue.yaml", "links.yaml"):
        shutil.copy(rows.DATA / name, tmp_path)
    rows.write_copy(tmp_path)
    return tmp_path


def values_of(folder: Path) -> list[object]:
    found, problems = rows.shipped(folder)
    assert not problems
    return [row.values.get("pue") for row in found if row.section == "pue"]


def test_an_edited_file_counts_although_the_copy_is_stale(folder: Path) -> None:
    assert values_of(folder) == [1.58, 1.3, 1.15]
    path = folder / "pue.yaml"
    path.write_text(path.read_text().replace("pue: 1.3\n", "pue: 1.4\n"))
    assert values_of(folder) == [1.58, 1.4, 1.15]


@pytest.mark.parametrize("copy", [b"", b"{}", b"[1]", b'{"pue.yaml": {"sha256": 1}}', None])
def test_a_broken_or_missing_copy_costs_only_time(folder: Path, copy: bytes | None) -> None:
    (folder / rows.PARSED).unlink()
    if copy is not None:
        (folder / rows.PARSED).write_bytes(copy)
    assert values_of(folder) == [1.58, 1.3, 1.15]


def test_shipped_files_are_held_to_the_same_checks(folder: Path) -> None:
    text = "pue:\n  - id: a\n    pue: 1.2\n    source: s\n  - id: b\n    peu: 1.2\n    source: s\n    as_of: 2026-01-01\n"
    (folder / "pue.yaml").write_text(text + "    verified: raed\n")
    problems = load_catalog(today=TODAY, shipped_folder=folder).problems
    said = [
        str(problem).replace(" (a row that is not known yet must have it: docs/prices.md)", "")
        for problem in problems
    ]
    at = f"{rows.SHIPPED_NAME}/pue.yaml"
    assert said == [
        f"{at}:2:5: pue: 'a' has no as_of",
        f"{at}:2:5: pue: 'a' has no verified",
        f"{at}:5:5: pue: 'b' has no pue",
        f"{at}:6:5: pue: unknown field 'peu' (did you mean 'pue'?)",
        f"{at}:9:15: pue: verified 'raed' is none of ran, read, secondary, memory, user (did you mean 'read'?)",
    ]


def test_a_clock_that_is_behind_does_not_stop_it() -> None:
    loaded = load_catalog(today=date(2026, 1, 1))
    assert loaded.catalog is not None
    assert any("is this machine's clock right?" in doubt.message for doubt in loaded.catalog.doubts)
    assert loaded.catalog.gpus


# What the facts were taken from, where it is at hand: every value carries over.

FILES = {
    "gpus.yaml": {"gpus": "gpus", "published_tco": "published_tco", "nodes": "nodes"},
    "models.yaml": {"models": "models"},
    "links.yaml": {"links": "links"},
    "storage.yaml": {"storage": "storage"},
    "api_prices.yaml": {"api_prices": "apis"},
    "power_prices.yaml": {"electricity": "electricity", "pue": "pue", "colocation": "colocation"},
    "failure_rates.yaml": {"llama3_table": "failures", "other": "figures"},
    "calibration.yaml": {"engine_ratio": "engine_ratios"},
}
ELSEWHERE = {
    **{("gpus", name): "marked apart" for name in ("price_as_of",)},
    **{
        ("gpus", name): "from memory there: not shipped"
        for name in ("price_new_usd", "price_verified", "price_source")
    },
    ("nodes", "psu"): "in the note",
    ("nodes", "fraction_of_tdp_batch1"): "fraction",
    ("nodes", "fraction_of_tdp_saturated"): "fraction",
    ("failures", "share"): "count over all counts",
    ("figures", "rate_per_gpu_year"): "in the note",
    ("figures", "rate_per_8gpu_node_year"): "in the note",
    ("rentals", "kind"): "kind, term_months and terms",
}
RENAMED = {("figures", "value"): "value"}


def carried(section: str, row: dict[str, object], ours: dict[str, object]) -> list[str]:
    """Return the fields of a source row that ours does not have with the same value."""
    lost = []
    for name, value in row.items():
        if (section, name) in ELSEWHERE or name in {"note", "source"} or value is None:
            continue
        extra = ours.get("extra")
        mine = ours.get(name, extra.get(name) if isinstance(extra, dict) else None)
        if name in {"as_of", "price_as_of"} and not str(value)[-2:].isdigit():
            continue  # a date in words: ours is one that can be counted from, and the note says so
        if isinstance(value, list) and isinstance(mine, list):
            same = [float(value[0]), float(value[-1])] == [float(mine[0]), float(mine[-1])]
        elif isinstance(value, list):
            same = len(set(value)) == 1 and mine == value[0]
        elif isinstance(value, int | float) and isinstance(mine, int | float):
            same = math.isclose(value, mine)
        else:
            same = str(value) == str(mine)
        if not same:
            lost.append(f"{name}: {value!r} is {mine!r}")
    return lost


@pytest.mark.skipif(not FACTS.is_dir(), reason="the collected facts are not at hand")
@pytest.mark.parametrize("file", sorted(FILES))
def test_every_collected_fact_carries_over(file: str) -> None:
    theirs = read_tree((FACTS / file).read_text(), file).data
    found, _ = rows.shipped()
    for theirs_name, section in FILES[file].items():
        ours = [dict(row.values) for row in found if row.section == section]
        assert len(ours) >= len(theirs[theirs_name])
        for index, row in enumerate(theirs[theirs_name]):
            assert not carried(section, row, ours[index]), (section, row)


@pytest.mark.skipif(not FACTS.is_dir(), reason="the collected facts are not at hand")
def test_the_measured_errors_of_predictors_carry_over() -> None:
    theirs = read_tree((FACTS / "calibration.yaml").read_text(), "c").data["calibration"]
    entries, _ = read_rows(rows.shipped()[0], user_day=None)
    figures = {
        str(entry.values["id"]): entry.values["value"] for entry in entries if entry.section.name == "figures"
    }
    for row in theirs:
        if "hbm_efficiency" not in row:
            assert figures[f"{row['id']}-error"] == Spread.exactly(row["heldout_mape"])
