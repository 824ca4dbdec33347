"""`freehold plan`: what it takes and prints, quick, with few draws. What it says is tested in the rooms and in e2e."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from freehold.cli import plan
from freehold.cli.main import main
from freehold.core.spread import Spread
from freehold.cost.intake.flags import FlagReader
from freehold.cost.intake.plan_flags import PlanAsk, read_plan_flags
from freehold.cost.intake.plan_traffic import find_traffic

QUICK = ("plan", "--gpu", "h100-sxm,l40s", "--draws", "1000", "--json")


def said(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> Any:
    assert main(list(argv)) == code
    return json.loads(capsys.readouterr().out)


def read(**flags: Any) -> tuple[PlanAsk, FlagReader]:
    reader = FlagReader()
    return read_plan_flags(flags, reader), reader


def test_the_contract(capsys: pytest.CaptureFixture[str]):
    found = said(capsys, *QUICK, "--tokens-per-month", "900M", "--api", "openai/gpt-6.1-terra")
    assert found.keys() >= {"options", "break_even", "rules", "verdict"}
    for option in found["options"]:
        assert option.keys() >= {"kind", "provider", "gpu", "count", "lines", "incomplete"}
        assert (
            option["usd_per_month"]["p10"] <= option["usd_per_month"]["p50"] <= option["usd_per_month"]["p90"]
        )
        assert option["usd_per_million_tokens"].keys() == {"p10", "p50", "p90"}
    assert {option["kind"] for option in found["options"]} == {"api", "rent", "buy"}
    assert {option["gpu"] for option in found["options"]} == {"", "h100-sxm", "l40s"}
    assert all(rule.keys() >= {"claim", "verdict", "computed"} for rule in found["rules"])
    assert found["verdict"]["word"] in {"stay", "rent", "buy", "change-api", "undecided"}


def test_little_traffic_stays_on_the_api(capsys: pytest.CaptureFixture[str]):
    verdict = said(capsys, *QUICK, "--tokens-per-month", "20M", "--api", "groq/llama-3.1-8b-instant")[
        "verdict"
    ]
    assert verdict["word"] == "stay"


def test_much_traffic_on_a_dear_api_leaves_it(capsys: pytest.CaptureFixture[str]):
    found = said(
        capsys,
        *QUICK,
        "--tokens-per-month",
        "40B",
        "--api",
        "anthropic/claude-opus-5-5",
        "--model",
        "qwen2.5-0.5b",  # which no API serves
    )
    assert found["verdict"]["word"] in {"rent", "buy"}


def test_what_a_model_costs_as_an_api_is_compared(capsys: pytest.CaptureFixture[str]):
    found = said(
        capsys, *QUICK[:1], "--gpu", "h200-sxm", *QUICK[3:], "--tokens-per-month", "4B", "--model", "deepseek-v3"
    )  # fmt: skip
    served = {each["model"] for each in found["options"] if each["kind"] == "api" and each["can_win"]}
    assert "deepseek-chat" in served
    assert {each["quant"] for each in found["options"] if each["kind"] == "buy"} == {"fp8"}


def test_a_dearer_quote_never_makes_renting_cheaper(capsys: pytest.CaptureFixture[str]):
    def quoted(usd: str) -> float:
        quote = f"h100-sxm={usd},l40s={usd}"
        found = said(capsys, *QUICK, "--tokens-per-month", "9B", "--rental-usd-per-gpu-hour", quote)
        quotes = [each for each in found["options"] if each["kind"] == "rent" and each["provider"] == "quote"]
        return min(each["usd_per_month"]["p50"] for each in quotes)

    assert quoted("1.00") < quoted("2.00") < quoted("3.00..5.00")


def test_flags_are_read():
    ask, reader = read(
        tokens_per_month="900M", input_output="1:3", peak="4", growth="2%", staff_fte="0.1..0.3", gpu="l4, l40s",
        quant="fp8", set=("residual_fraction=10%",), spares="1", slo_itl="40ms",
    )  # fmt: skip
    assert reader.problems == []
    assert (ask.tokens_per_month, ask.input_share, ask.peak, ask.growth) == (9e8, 0.25, 4, 0.02)
    assert ask.assumptions["staff_fte"].low == 0.1
    assert ask.assumptions["residual_fraction"] == Spread.exactly(0.1)
    assert (ask.gpus, ask.quants, ask.spares, ask.slo_itl_s) == (("l4", "l40s"), ("fp8",), 1, 0.04)


def test_the_mix_follows_the_sizes_and_may_not_be_said_twice():
    ask, _ = read(input_tokens="900", output_tokens="100")
    assert ask.input_share == 0.9
    _, reader = read(input_tokens="900", output_tokens="100", input_output="3:1")
    assert [problem.where for problem in reader.problems] == ["--input-output"]
    for ratio in ("3", "0:0", "a:b"):
        assert read(input_output=ratio)[1].problems


def test_what_nobody_said_of_the_traffic_is_said():
    traffic = find_traffic(read(tokens_per_month="100M")[0], FlagReader())
    assert traffic is not None
    assert traffic.input_tokens_per_month == 75e6
    assert (traffic.input_tokens_per_request, traffic.output_tokens_per_request) == (1500, 500)
    assert len(traffic.assumed) == 3
    told = find_traffic(
        read(tokens_per_month="100M", input_tokens="10", output_tokens="10", peak="2", cached_share="0%")[0],
        FlagReader(),
    )
    assert told is not None
    assert told.assumed == ()


def test_every_mistake_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("gpus:\n  - {id: h100-sxm, tdp_w: hot}\nrental: []\n")
    found = said(
        capsys, *QUICK, "--peak", "x", "--set", "foo=1", "--region", "XX", "--api", "nobody/x", "--model", "lama",
        "--usage", str(tmp_path / "none.csv"), code=2,
    )  # fmt: skip
    where = {problem["where"] for problem in found["problems"]}
    assert where == {"--peak", "--set foo", "--region", "--api", "--model", str(tmp_path / "none.csv")}
    found = said(capsys, *QUICK, "--prices", str(prices), "--tokens-per-month", "5", code=2)
    places = [problem["where"].removeprefix(str(tmp_path)) for problem in found["problems"]]
    assert places == ["/prices.yaml:2:27", "/prices.yaml:3:1"]


def test_the_next_command_says_again_what_was_said(capsys: pytest.CaptureFixture[str]):
    found = said(
        capsys, *QUICK, "--tokens-per-month", "20M", "--peak", "3", "--api", "groq/llama-3.1-8b-instant"
    )
    line = found["verdict"]["next_command"]
    for words in ("--tokens-per-month 20M", "--peak 3", "--gpu l40s"):
        assert words in line


def test_an_api_that_nobody_named_cannot_win(capsys: pytest.CaptureFixture[str]):
    found = said(capsys, *QUICK, "--tokens-per-month", "900M", "--model", "qwen3-32b")
    luna = next(each for each in found["options"] if each["model"] == "gpt-6-luna")
    assert luna["can_win"] is False
    named = said(
        capsys, *QUICK, "--tokens-per-month", "900M", "--model", "qwen3-32b", "--compare", "openai/gpt-6-luna"
    )
    assert next(each for each in named["options"] if each["model"] == "gpt-6-luna")["can_win"] is True


def test_a_model_that_nobody_chose_is_a_doubt(capsys: pytest.CaptureFixture[str]):
    asked = (*QUICK, "--tokens-per-month", "900M", "--api", "openai/gpt-6.1-terra")
    assert any("the model was not chosen" in doubt for doubt in said(capsys, *asked)["verdict"]["doubts"])
    chosen = said(capsys, *asked, "--model", "llama-3.1-8b")["verdict"]["doubts"]
    assert not any("was not chosen" in doubt for doubt in chosen)


# Quotes, bounds and contradictions


def where(found: Any) -> list[str]:
    return [problem["where"] for problem in found["problems"]]


def test_a_quote_says_for_which_gpu_it_is(capsys: pytest.CaptureFixture[str]):
    asked = (*QUICK, "--tokens-per-month", "9B")
    for flag, quote in (("--rental-usd-per-gpu-hour", "2.10"), ("--node-usd", "310k")):
        assert where(said(capsys, *asked, flag, quote, code=2)) == [flag]
    found = said(capsys, *asked, "--rental-usd-per-gpu-hour", "L40S=0.95,b200-sxm=3,none=4", code=2)
    assert where(found) == ["--rental-usd-per-gpu-hour"], "one is not a GPU"
    found = said(capsys, *asked, "--rental-usd-per-gpu-hour", "L40S=0.95,b200-sxm=3")
    assert "the quote for b200-sxm is not used: it is not among --gpu" in found["notes"]
    quoted = {each["gpu"] for each in found["options"] if each["provider"] == "quote"}
    assert quoted == {"l40s"}, "the other GPU costs what the catalog says"


def test_a_quote_for_the_one_gpu_that_is_named(capsys: pytest.CaptureFixture[str]):
    asked = ("plan", "--gpu", "h100-sxm", *QUICK[3:], "--tokens-per-month", "9B")
    found = said(capsys, *asked, "--rental-usd-per-gpu-hour", "2.10", "--node-usd", "310k")
    assert {each["gpu"] for each in found["options"] if each["provider"] == "quote"} == {"h100-sxm"}


@pytest.mark.parametrize(
    "text", ["h100-sxm=", "=2", "h100-sxm=2,2", "h100-sxm=2,H100-SXM=3", "h100-sxm=900", ""]
)
def test_what_is_no_rental_quote_is_a_problem(text: str):
    _, reader = read(rental_usd_per_gpu_hour=text)
    assert [problem.where for problem in reader.problems] == ["--rental-usd-per-gpu-hour"]


WRONG = {
    "tokens_per_month": "10000T",
    "input_tokens": "1B",
    "cached_share": "2",
    "peak": "0.5",
    "slo_ttft_p95": "2d",
    "slo_itl": "5m",
    "spares": "0.5",
    "node_usd": "310",
    "staff_fte": "5000",
    "staff_usd_per_year": "200",
    "power_usd_per_kwh": "12",
    "colo_usd_per_kw_month": "0",
    "pue": "0.9",
    "life_months": "3",
}


def test_numbers_out_of_bounds_are_problems_and_all_at_once():
    assigned = (
        "residual_fraction=3",
        "capital_rate_per_year=8",
        "repair_days=5000",
        "host_ram_usd_per_gb=0..1e9",
    )
    _, reader = read(**WRONG, set=assigned)
    flags = [problem.where.removeprefix("--").replace("-", "_") for problem in reader.problems]
    assert sorted(flags) == sorted([*WRONG, *(f"set {each.partition('=')[0]}" for each in assigned)])


def test_the_same_thing_said_twice_may_not_differ():
    ask, reader = read(life_months="24", set=("life_months=36",))
    assert [str(problem) for problem in reader.problems] == [
        "--set life_months: 36 contradicts --life-months 24 (give it once)"
    ]
    assert ask.assumptions["life_months"] == Spread.exactly(24)
    assert read(set=("repair_days=2", "repair_days=3"))[1].problems
    assert not read(life_months="24", set=("life_months=24",))[1].problems


def test_the_next_command_can_be_run_again(capsys: pytest.CaptureFixture[str]):
    quoted = ("--rental-usd-per-gpu-hour", "h100-sxm=2.10,l40s=0.95")
    asked = (*QUICK, "--tokens-per-month", "20M", "--api", "groq/llama-3.1-8b-instant", *quoted)
    words = shlex.split(said(capsys, *asked)["verdict"]["next_command"])
    assert words[:2] == ["freehold", "plan"]
    said(capsys, *words[1:], "--draws", "1000", "--json")


def ask_and_answer(monkeypatch: pytest.MonkeyPatch, ask: PlanAsk, *answers: str) -> PlanAsk:
    given = iter(answers)
    monkeypatch.setattr("click.prompt", lambda *_args, **_more: next(given))
    return plan._ask_first(ask)


def test_the_question_for_a_quote_asks_for_which_gpu(monkeypatch: pytest.MonkeyPatch):
    asked = ask_and_answer(monkeypatch, PlanAsk(), "2.10", "h100-sxm=2.10", "")
    assert asked.rentals == {"h100-sxm": Spread.exactly(2.1)}, "a number alone is asked again"
    asked = ask_and_answer(monkeypatch, PlanAsk(gpus=("l4",)), "0.4", "")
    assert asked.rentals == {"": Spread.exactly(0.4)}
    asked = ask_and_answer(monkeypatch, PlanAsk(), "", "0.2")
    assert (asked.rentals, asked.assumptions) == ({}, {"staff_fte": Spread.exactly(0.2)})
    asked = ask_and_answer(monkeypatch, PlanAsk(), "h100-sxm=2.10..2.60,l4=0.4", "0.2")
    assert plan._answers(PlanAsk(), asked) == (
        "--rental-usd-per-gpu-hour",
        "h100-sxm=2.1..2.6,l4=0.4",
        "--staff-fte",
        "0.2",
    ), "the next command says again what was answered"


# Where no machine can do it


def test_where_no_gpu_keeps_the_slo_the_api_is_the_answer_and_why_is_said(capsys: pytest.CaptureFixture[str]):
    asked = (
        "--tokens-per-month",
        "900M",
        "--api",
        "groq/llama-3.3-70b-versatile",
        "--model",
        "llama-3.3-70b",
    )
    found = said(capsys, *QUICK, *asked, "--slo-itl", "1ms")
    assert {option["kind"] for option in found["options"]} == {"api"}
    assert found["summary"]["model"] == "llama-3.3-70b"
    assert found["verdict"]["word"] == "stay"
    assert found["notes"][0].startswith(
        "llama-3.3-70b runs within the SLO on none of 2 GPUs; the closest is h100-sxm"
    )
    assert "misses the SLO" in found["notes"][0]
    assert found["notes"][1].startswith("l40s: misses the SLO")


def test_where_the_model_is_too_large_that_is_the_reason(capsys: pytest.CaptureFixture[str]):
    asked = ("--tokens-per-month", "900M", "--model", "deepseek-v3", "--draws", "1000", "--json")
    found = said(capsys, "plan", "--gpu", "l4", *asked)
    assert "deepseek-v3 does not run within the SLO on l4: does not fit 16 x l4" in found["notes"][0]
    served = {option["id"] for option in found["options"] if option["can_win"]}
    assert "api-deepseek-deepseek-chat" in served


def test_a_gpu_that_was_named_and_cannot_do_it_has_its_reason(capsys: pytest.CaptureFixture[str]):
    asked = ("--tokens-per-month", "900M", "--model", "llama-3.3-70b", "--slo-itl", "12ms")
    found = said(capsys, *QUICK, *asked)
    assert {option["gpu"] for option in found["options"]} == {"", "h100-sxm"}
    assert found["summary"]["asked_gpus"] == "h100-sxm, l40s"
    assert found["notes"][0].startswith("llama-3.3-70b does not run within the SLO on l40s: misses the SLO")
