"""Users' files of prices: laid over the shipped facts, every mistake at once with its place, never an exception."""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freehold.catalog.facts import Catalog, RentalKind, Verified
from freehold.catalog.fields import fields_of
from freehold.catalog.load import MAX_FILE_BYTES, LoadedCatalog, load_catalog
from freehold.catalog.rows import DATA
from freehold.catalog.sections import SECTIONS
from freehold.core.spread import Spread

TODAY = date(2026, 11, 27)


def load(folder: Path, *texts: str) -> LoadedCatalog:
    paths = []
    for index, text in enumerate(texts):
        paths.append(folder / f"p{index}.yaml")
        paths[-1].write_text(text)
    return load_catalog(today=TODAY, overlays=paths)


def good(folder: Path, *texts: str) -> Catalog:
    loaded = load(folder, *texts)
    assert not loaded.problems, loaded.problems
    assert loaded.catalog is not None
    return loaded.catalog


def said(folder: Path, *texts: str) -> list[str]:
    loaded = load(folder, *texts)
    assert loaded.catalog is None
    return [str(problem).replace(f"{folder}/", "") for problem in loaded.problems]


def test_a_rental_of_ones_own_is_added_with_where_it_was_told(tmp_path: Path) -> None:
    catalog = good(tmp_path, "rentals:\n  - {provider: acme, gpu: h100-sxm, usd_per_gpu_hour: 2.1}\n")
    offer = catalog.rentals[-1]
    assert (offer.provider, offer.usd_per_gpu_hour, offer.kind) == ("acme", 2.1, RentalKind.ON_DEMAND)
    assert (offer.source, offer.as_of, offer.verified) == (f"{tmp_path}/p0.yaml:2", TODAY, Verified.USER)
    assert len(catalog.rentals) == 213


def test_a_known_offer_is_replaced_whatever_its_terms(tmp_path: Path) -> None:
    """Akash's H100 stands there twice, by day and source; a user's price is the price."""
    text = "rentals:\n  - {provider: akash, gpu: h100-sxm, usd_per_gpu_hour: 3.2, source: my contract, as_of: 2026-11-01}\n"
    catalog = good(tmp_path, text)
    (mine,) = [each for each in catalog.rentals if each.provider == "akash" and each.gpu == "h100-sxm"]
    assert (mine.usd_per_gpu_hour, mine.source, mine.as_of) == (3.2, "my contract", date(2026, 11, 1))
    assert (mine.terms, mine.note) == (
        "",
        "H100 any form factor",
    )  # of the newest row, not of the ones by count


def test_of_several_rows_the_newest_is_laid_over(tmp_path: Path) -> None:
    (tmp_path / "gpus.yaml").write_text((DATA / "gpus.yaml").read_text())
    row = "  - {provider: a, gpu: l4, usd_per_gpu_hour: 1, kind: spot, source: s, as_of: %s, verified: read, note: %s}\n"
    days = ("2026-01-01", "2026-03-01", "2026-02-01")
    (tmp_path / "rentals.yaml").write_text("rentals:\n" + "".join(row % (day, f"of {day}") for day in days))
    (tmp_path / "mine").write_text("rentals:\n  - {provider: a, gpu: l4, usd_per_gpu_hour: 2, kind: spot}\n")
    catalog = load_catalog(today=TODAY, overlays=[tmp_path / "mine"], shipped_folder=tmp_path).catalog
    assert catalog is not None
    assert [(each.usd_per_gpu_hour, each.note) for each in catalog.rentals] == [(2.0, "of 2026-03-01")]


def test_the_example_of_the_documentation_loads(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "prices.md").read_text()
    catalog = good(tmp_path, page.partition("```yaml\n")[2].partition("```")[0])
    assert catalog.rentals[-1].term_months == 12
    assert catalog.defaults["colo_usd_per_kw_month"].value.high == 220
    assert all(f"`{name}`" in page for name in SECTIONS)


def test_offers_of_one_file_do_not_replace_each_other(tmp_path: Path) -> None:
    row = "  - {provider: lambda, gpu: h100-sxm, usd_per_gpu_hour: %s, terms: %s}\n"
    catalog = good(tmp_path, "rentals:\n" + row % (3.2, "8x") + row % (3.6, "1x"))
    mine = [each for each in catalog.rentals if each.provider == "lambda" and each.gpu == "h100-sxm"]
    assert [(each.usd_per_gpu_hour, each.terms) for each in mine] == [(3.2, "8x"), (3.6, "1x")]


def test_another_kind_of_the_same_provider_stays(tmp_path: Path) -> None:
    catalog = good(
        tmp_path, "rentals:\n  - {provider: coreweave, gpu: l40s, usd_per_gpu_hour: 1.5, kind: spot}\n"
    )
    offers = {
        each.kind: each for each in catalog.rentals if (each.provider, each.gpu) == ("coreweave", "l40s")
    }
    assert offers[RentalKind.SPOT].usd_per_gpu_hour == 1.5
    assert offers[RentalKind.ON_DEMAND].usd_per_gpu_hour == 2.25
    assert offers[RentalKind.ON_DEMAND].verified is Verified.READ


def test_two_terms_of_one_provider_in_one_file_both_count(tmp_path: Path) -> None:
    row = "  - {provider: acme, gpu: h100-sxm, usd_per_gpu_hour: %s, kind: reserved, term_months: %s}\n"
    catalog = good(tmp_path, "rentals:\n" + row % (2.2, 12) + row % (1.9, 36))
    assert [each.term_months for each in catalog.rentals if each.provider == "acme"] == [12, 36]


def test_a_price_alone_leaves_the_card_as_the_vendor_says(tmp_path: Path) -> None:
    gpu = good(tmp_path, "gpus:\n  - id: h100-sxm\n    price_new_usd: [26000, 29000]\n").gpus["h100-sxm"]
    assert gpu.price_new_usd == Spread.between(26000, 29000)
    assert gpu.price is not None
    assert (gpu.price.verified, gpu.price.source) == (Verified.USER, f"{tmp_path}/p0.yaml:2")
    assert (gpu.memory_gb, gpu.verified) == (80, Verified.READ)


def test_a_price_may_be_signed_as_any_row_is(tmp_path: Path) -> None:
    text = "gpus:\n  - {id: h100-sxm, price_new_usd: 26000, source: quote 7, as_of: 2026-11-01}\n"
    gpu = good(tmp_path, text).gpus["h100-sxm"]
    assert gpu.price is not None
    assert (gpu.price.source, gpu.price.as_of, gpu.price.verified) == (
        "quote 7",
        date(2026, 11, 1),
        Verified.USER,
    )
    assert (gpu.as_of, gpu.verified) == (date(2026, 4, 3), Verified.READ)


def test_a_specification_alone_leaves_the_price(tmp_path: Path) -> None:
    gpu = good(tmp_path, "gpus:\n  - {id: h100-sxm, tdp_w: 500}\n").gpus["h100-sxm"]
    assert (gpu.tdp_w, gpu.verified) == (500, Verified.USER)
    assert gpu.price is not None
    assert gpu.price.verified is Verified.SECONDARY


def test_a_card_of_ones_own_needs_what_speed_depends_on(tmp_path: Path) -> None:
    assert said(tmp_path, "gpus:\n  - {id: mine, vendor: x, memory_gb: 48, tdp_w: 300}\n") == [
        "p0.yaml:2:5: gpus: 'mine' has no mem_bw_gb_s (a row that is not known yet must have it: docs/prices.md)",
        "p0.yaml:2:5: gpus: 'mine' has no bf16_dense_tflops (a row that is not known yet must have it: docs/prices.md)",
        "p0.yaml:2:5: gpus: 'mine' has no scale_up_gb_s_per_dir (a row that is not known yet must have it: docs/prices.md)",
    ]


def test_electricity_of_a_region_replaces_all_its_kinds(tmp_path: Path) -> None:
    catalog = good(
        tmp_path,
        "electricity:\n  - {region: US-OH, usd_per_kwh: 0.09}\n  - {region: MOON, usd_per_kwh: 0.3}\n",
    )
    assert [each.usd_per_kwh for each in catalog.electricity if each.region == "US-OH"] == [0.09]
    assert [each.usd_per_kwh for each in catalog.electricity if each.region == "MOON"] == [0.3]
    kind = "electricity:\n  - {region: US-OH, usd_per_kwh: 0.06, kind: industrial}\n"
    both = [each.usd_per_kwh for each in good(tmp_path, kind).electricity if each.region == "US-OH"]
    assert both == [0.1102, 0.06]


def test_a_default_keeps_its_unit(tmp_path: Path) -> None:
    default = good(tmp_path, "defaults:\n  - {name: staff_fte, value: 0.5}\n").defaults["staff_fte"]
    assert default.value == Spread.exactly(0.5)
    assert default.unit.startswith("engineers")
    assert default.verified is Verified.USER


def test_a_later_file_wins(tmp_path: Path) -> None:
    row = "defaults:\n  - {name: staff_fte, value: %s}\n"
    assert good(tmp_path, row % 0.5, row % 0.7).defaults["staff_fte"].value.mid == 0.7


def test_an_api_of_ones_own_is_replaced_alone(tmp_path: Path) -> None:
    catalog = good(tmp_path, "apis:\n  - {provider: openai, model: gpt-5, input_usd_per_m: 1.0}\n")
    prices = {each.model: each.input_usd_per_m for each in catalog.apis if each.provider == "openai"}
    assert prices["gpt-5"] == 1.0
    assert prices["gpt-5.4"] == 2.5
    assert len(catalog.apis) == 51
    assert said(tmp_path, "apis:\n  - {provider: openai, input_usd_per_m: 1.0}\n") == [
        "p0.yaml:2:5: apis: a row has no model"
    ]


EVERY_MISTAKE = """\
rentls: []
rentals:
  - {provider: acme, gpu: h100, usd_per_gpu_hour: 2}
  - {provider: acme, gpu: h100-sxm, usd_per_gpu_hour: two, kind: on_demand}
  - {provider: acme, gpu: h200-sxm, usd_per_hour: 2}
  - 7
gpus: 3
defaults:
  - {name: staff_ftes, value: 1}
  - {name: pue_ratio, value: [1.4, 1.2]}
electricity:
  - {region: X, usd_per_kwh: -0.1, as_of: yesterday}
  - {region: Y, usd_per_kwh: .inf, as_of: 2027-01-01}
  - {region: Z, usd_per_kwh: 0.1}
  - {region: Z, usd_per_kwh: 0.2}
"""


def test_every_mistake_is_named_at_once_with_its_place(tmp_path: Path) -> None:
    at = "p0.yaml"
    assert said(tmp_path, EVERY_MISTAKE) == [
        f"{at}:1:1: there is no section 'rentls' (did you mean 'rentals'?)",
        f"{at}:3:27: rentals: there is no gpu 'h100' in gpus (did you mean 'h100-sxm'?)",
        f"{at}:4:55: rentals: usd_per_gpu_hour 'two' is not a number (write a number without its unit)",
        f"{at}:4:66: rentals: kind 'on_demand' is none of on-demand, reserved, marketplace, spot (did you mean 'on-demand'?)",
        f"{at}:5:5: rentals: 'acme h200-sxm' has no usd_per_gpu_hour (a row that is not known yet must have it: docs/prices.md)",
        f"{at}:5:37: rentals: unknown field 'usd_per_hour' (did you mean 'usd_per_gpu_hour'?)",
        f"{at}:6:5: rentals: a row must be a map of fields (write `- id: …`)",
        f"{at}:7:7: gpus: must be a list of rows (begin each row with `- `)",
        f"{at}:9:12: defaults: there is no 'staff_ftes' (did you mean 'staff_fte'?)",
        f"{at}:10:30: defaults: value is not in ascending order (write [low, high] or [low, middle, high])",
        f"{at}:12:30: electricity: usd_per_kwh -0.1 is below 0",
        f"{at}:12:43: electricity: as_of 'yesterday' is not a date (write it as 2026-11-27)",
        f"{at}:13:30: electricity: usd_per_kwh inf is not a finite number",
        f"{at}:13:43: electricity: as_of 2027-01-01 lies ahead",
        f"{at}:15:5: electricity: 'Z' stands here a second time (the first is at p0.yaml:14:5)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p0.yaml:1:1: has no sections (write, for example, `rentals:` and a list below it)"),
        ("- 1", "p0.yaml:1:1: has no sections (write, for example, `rentals:` and a list below it)"),
        ("a: [", "this is not YAML"),
        ("gpus:\n\t- x", "a tab stands where only spaces may"),
        (
            "price_databases:\n  - {id: mine, version: '1'}",
            "p0.yaml:2:10: price_databases: there is no 'mine'",
        ),
        (
            "apis:\n  - {provider: a, model: b, input_usd_per_m: 1, output_usd_per_m: 2, same_as: llama}",
            "same_as 'llama'",
        ),
        ("rentals:\n  - {gpu: h100-sxm, usd_per_gpu_hour: 2}", "p0.yaml:2:5: rentals: a row has no provider"),
        ("links:\n  - {id: [1], raw_gbit_s: 2}", "p0.yaml:2:10: links: id [1] is not text"),
        ("models:\n  - {id: llama-3.1-8b, layers: 2.5}", "layers 2.5 is not a whole number"),
        ("models:\n  - {id: llama-3.1-8b, extra: {experts: many}}", "extra experts: 'many' is not a number"),
        (
            "models:\n  - {id: llama-3.1-8b, native_quant: q4}",
            "p0.yaml:2:38: models: native_quant 'q4' is none of bf16, fp8",
        ),
        ("gpus:\n  - {id: l4, consumer: maybe}", "consumer 'maybe' is not true or false"),
        ("gpus:\n  - {id: l4, price: 2}", "unknown field 'price'"),
        (
            "gpus:\n  - {id: l4, price_new_usd: [1.0e-200, 1.0e-190]}",
            "price_new_usd 1e-200 is out of all bounds",
        ),
        (
            "gpus:\n  - {id: l4, price_new_usd: [1.0e+200, 1.0e+300]}",
            "price_new_usd 1e+200 is out of all bounds",
        ),
        ("engine_ratios:\n  - {id: trtllm-over-vllm, iqr: 1}", "iqr is not two numbers"),
    ],
)
def test_one_mistake(tmp_path: Path, text: str, message: str) -> None:
    told = said(tmp_path, text)
    assert len(told) == 1, told
    assert message in told[0]


def test_what_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    big, latin = tmp_path / "big", tmp_path / "latin"
    big.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    latin.write_bytes(b"gpus: \xff")
    loaded = load_catalog(today=TODAY, overlays=[tmp_path / "none", tmp_path, big, latin, Path("a\0b")])
    told = [problem.message for problem in loaded.problems]
    assert told[0].startswith("cannot be read: No such file")
    assert told[1].startswith("cannot be read: Is a directory")
    assert told[2] == "is larger than 1MiB"
    assert told[3].startswith("is not UTF-8")
    assert told[4].startswith("cannot be read")


# Any text at all.

words = st.sampled_from(
    [*SECTIONS, "id", "provider", "gpu", "h100-sxm", "value", "as_of", "[1, 2]", "2026-01-01", "-1"]
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["h100-sxm", "lambda"]),
)
fields = sorted({name for section in SECTIONS.values() for name in section.kind.__dataclass_fields__})
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
files = st.dictionaries(
    st.sampled_from([*SECTIONS, "other"]),
    st.lists(st.dictionaries(st.sampled_from([*fields, "x"]), plain, max_size=6), max_size=3),
    max_size=4,
)


def check(folder: Path, text: str) -> None:
    path = folder / "any.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    loaded = load_catalog(today=TODAY, overlays=[path])
    assert (loaded.catalog is None) == bool(loaded.problems)
    assert all(problem.where.startswith(str(path)) for problem in loaded.problems)
    assert all(problem.message for problem in loaded.problems)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(
    text=st.text(max_size=80)
    | st.lists(words | st.sampled_from(["\n", ": ", "- ", "{", "}"]), max_size=20).map("".join)
)
def test_any_text_gives_problems_or_a_catalog(tmp_path: Path, text: str) -> None:
    check(tmp_path, text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(content=files)
def test_any_rows_give_problems_or_a_catalog(tmp_path: Path, content: dict[str, object]) -> None:
    check(tmp_path, yaml_of(content))


def yaml_of(value: object) -> str:
    """Return flow YAML of plain values."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{yaml_of(str(key))}: {yaml_of(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(yaml_of(each) for each in value) + "]"
    if isinstance(value, str):
        return "'" + "".join(each for each in value if each.isprintable()).replace("'", "''") + "'"
    return (
        {None: "null", True: "true", False: "false"}.get(value, repr(value))
        if isinstance(value, bool | None)
        else repr(value)
    )


def test_the_documentation_lists_what_a_new_row_must_have() -> None:
    text = (Path(__file__).parents[3] / "docs" / "prices.md").read_text()
    for name in ("rentals", "gpus", "apis", "models", "electricity"):
        section = SECTIONS[name]
        (row,) = (line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        known = {*section.key, "source", "as_of", "verified"}
        required = {key for key, field in fields_of(section.kind).items() if field.required} - known
        assert all(f"`{key}`" in row for key in required), name
