import re
import shlex
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

import cost_samples as samples
from freehold.catalog.facts import RentalKind, Verified
from freehold.core.spread import Spread
from freehold.cost.model.percentiles import cheapest_shares
from freehold.cost.model.result import PlanVerdict, TurningPoint
from freehold.cost.plan import influences_of, plan
from freehold.cost.pricing.ranking import Ranking, ranking_of
from freehold.cost.verdict.verdict import Doubts, sureness, verdict_of
from freehold.sizing.model.words import Engine

EXACT = Spread.exactly
SONNET = (samples.api(),)
GROQ = samples.api("llama-8b-instant", prices=(0.05, 0.08), provider="groq", same_as="llama-3.1-8b")


def fleet_for(tokens: float) -> Any:
    """A fleet that carries the traffic at 2.5 times its mean, on replicas of 6,000 tokens/s."""
    peak = tokens / 2_628_000 * 2.5
    count = max(1, -(-int(peak) // 5000))
    gpus = next((size for size in (1, 2, 4, 8) if size >= count), -(-count // 8) * 8)
    return samples.fleet(gpus=gpus, replicas=count, capacity=EXACT(6000.0 * count), peak_tokens_per_s=peak)


def asked(tokens: float, **changes: Any) -> tuple[Ranking, PlanVerdict]:
    row: dict[str, Any] = {"apis": SONNET, "traffic": samples.traffic(tokens), "fleets": (fleet_for(tokens),)}
    ranking = ranking_of(samples.inputs(**{**row, **changes}))
    return ranking, verdict_of(ranking, influences_of(ranking))


def of_engine(engine: Engine, *, gpus: int, tokens: float = 10e9) -> Any:
    """The fleet for the traffic with another engine, on so many GPUs."""
    found = fleet_for(tokens)
    asked = replace(found.sized.ask, engine=engine)
    return replace(
        found, sized=replace(found.sized, ask=asked), replicas=gpus, gpus=gpus, nodes=-(-gpus // 8)
    )


def test_a_verdict_that_another_engine_would_change_is_undecided():
    few, many, dear = of_engine("vllm", gpus=2), of_engine("sglang", gpus=80), (samples.rental(5.0),)
    _, sure = asked(10e9, rentals=dear, fleets=(few,), by_engine={"vllm": [few], "sglang": [few]})
    assert sure.word == "buy"
    for fleets in ((few,), (many,)):
        _, found = asked(10e9, rentals=dear, fleets=fleets, by_engine={"vllm": [few], "sglang": [many]})
        assert (found.word, found.option, found.confidence_word) == ("undecided", "", "low")
        assert "with vllm buying" in found.headline
        assert "with sglang calling sonnet" in found.headline
        assert found.next_command.startswith("freehold bench --engines vllm,sglang ")
        assert {turn.to for turn in found.would_change_it[:2]} == {"buy", "stay"}


def test_few_tokens_stay_on_the_api():
    _, found = asked(200e6)
    assert (found.word, found.option, found.confidence_word) == ("stay", "api-anthropic-sonnet", "high")
    assert found.confidence == 1.0
    assert "800 USD" in found.headline


def test_many_tokens_buy_and_where_buying_is_dear_they_rent():
    dear = samples.gpu(price_new_usd=EXACT(90_000.0))
    _, bought = asked(10e9, rentals=(samples.rental(5.0),))
    assert bought.word == "buy"
    assert "instead of 40,000 USD" in bought.headline
    fleet = replace(
        fleet_for(10e9),
        sized=replace(fleet_for(10e9).sized, ask=replace(fleet_for(10e9).sized.ask, gpu=dear)),
    )
    _, rented = asked(10e9, fleets=(fleet,))
    assert (rented.word, rented.option) == ("rent", "rent-runpod-h100-sxm-2")


def test_a_cheaper_api_is_a_change_and_another_model_is_told():
    _, same = asked(200e6, apis=(*SONNET, GROQ))
    assert same.word == "change-api"
    assert "another model" not in same.headline + same.text
    luna = samples.api("luna", prices=(0.1, 0.5), provider="openai")
    _, other = asked(200e6, apis=(*SONNET, luna))
    assert other.word == "change-api"
    assert "another model than llama-3.1-8b" in other.headline
    assert "another model" not in other.text
    assert "Test that model on your prompts" in other.text


def test_rivals_of_one_kind_do_not_make_it_undecided():
    alike = tuple(samples.rental(1.5, f"provider-{number}") for number in range(5))
    doubted = tuple(replace(each, verified=Verified.SECONDARY) for each in alike)
    ranking, found = asked(3e9, rentals=doubted)
    assert max(cheapest_shares([each.priced.total for each in ranking.options])) < 0.5
    assert found.word == "rent"
    assert found.confidence > 0.9


def test_two_ways_that_cost_alike_are_undecided():
    tokens = 950e6
    _, found = asked(tokens, rentals=(samples.rental(2.69),))
    assert found.word == "undecided"
    assert found.option == ""
    assert 0.4 < found.confidence < 0.6
    assert found.confidence_word == "low"
    assert found.headline.startswith("Undecided: ")
    assert found.would_change_it


def test_nothing_to_compare_is_undecided_and_says_so():
    _, found = asked(
        1e9, apis=(), rentals=(), fleets=(samples.fleet(samples.gpu(price_new_usd=None)),), paid_today=""
    )
    assert (found.word, found.confidence, found.option) == ("undecided", 0.0, "")
    assert "h100-sxm as bought" in found.text
    assert found.would_change_it[0].what


@pytest.mark.parametrize("kind", ["spot", "consumer"])
def test_what_is_only_listed_never_wins(kind: str):
    fleet = fleet_for(3e9)
    rentals = [samples.rental(9.0)]
    if kind == "spot":
        rentals.append(samples.rental(0.01, "crusoe", kind=RentalKind.SPOT))
    else:
        card = samples.gpu(id="rtx-4090", consumer=True, price_new_usd=EXACT(10.0))
        cheap = samples.fleet(card, gpus=1, replicas=1)
        rentals.append(samples.rental(0.01, gpu="rtx-4090"))
    fleets = (fleet,) if kind == "spot" else (fleet, cheap)
    ranking, found = asked(3e9, fleets=fleets, rentals=tuple(rentals), own=samples.own())
    assert ranking.options[0].offer.warnings
    assert not ranking.options[0].may_win
    assert found.option not in {each.offer.id for each in ranking.options if each.offer.warnings}


def test_old_prices_are_doubted_and_lower_the_word():
    fresh_word = asked(3e9, rentals=(samples.rental(1.5),))[1]
    old = samples.rental(1.5, as_of=date(2026, 3, 1))
    found = asked(3e9, rentals=(old,))[1]
    assert fresh_word.confidence_word == "high"
    assert found.confidence_word in {"medium", "low"}
    for doubted, words in ((("x: old",), ["medium", "low", "low"]), ((), ["high", "medium", "low"])):
        for doubts in (Doubts(prices=doubted), Doubts(asked=doubted)):
            assert [sureness(share, doubts=doubts, compared=True)[0] for share in (0.95, 0.8, 0.65)] == words
    assert not any("per GPU-hour" in doubt for doubt in fresh_word.doubts)
    assert any("runpod" in doubt and "days old" in doubt for doubt in found.doubts)


def test_machines_that_too_few_have_measured_are_never_sure():
    level, reason = sureness(0.99, doubts=Doubts(speed=("no published measurement of X",)), compared=True)
    assert level == "low"
    assert "low until it is measured: no published measurement of X" in reason


def test_a_word_says_which_bound_and_which_doubt_made_it():
    level, reason = sureness(0.698, doubts=Doubts(), compared=True)
    assert (level, reason) == ("low", "cheapest in 69% of the draws, and below 70% is low")
    level, reason = sureness(
        0.95, doubts=Doubts(asked=("half the rows are missing: 5 of 10",)), compared=True
    )
    assert level == "medium"
    assert reason.endswith("one lower, in doubt: half the rows are missing")
    assert sureness(0.95, doubts=Doubts(), compared=False)[0] == "low"


def test_old_prices_are_wider():
    widths = []
    for day in (samples.FRESH, date(2026, 3, 1)):
        ranking, _ = asked(3e9, rentals=(samples.rental(2.0, as_of=day),), rent=samples.exact_rent())
        cost = ranking.options[0].usd_per_month
        widths.append((cost.p90 - cost.p10) / cost.p50)
    assert widths[0] == pytest.approx(0, abs=1e-6)
    assert widths[1] > 0.3


def test_it_asks_first_for_rental_quote_and_staff_where_they_can_change_it():
    _, found = asked(950e6)
    assert [each.rsplit(maxsplit=1)[-1] for each in found.ask_first] == [
        "--rental-usd-per-gpu-hour",
        "--staff-fte",
    ]
    assert "--gpu h100-sxm --rental" in found.ask_first[0]  # a quote is of one GPU
    own, rent = (
        replace(each, staff_fte=replace(each.staff_fte, asked=True))
        for each in (samples.own(), samples.rent())
    )
    _, told = asked(950e6, own=own, rent=rent, quotes={"rental_usd_per_gpu_hour": EXACT(2.0)})
    assert not any("--rental" in each or each.endswith("--staff-fte") for each in told.ask_first)


def test_what_cannot_change_the_verdict_is_not_asked_for():
    for tokens in (1e6, 200e6):
        _, found = asked(tokens)
        assert (found.word, found.ask_first) == ("stay", ())
        assert "No remaining assumption changes the verdict." in found.text


def test_people_are_asked_for_where_they_alone_decide():
    own = samples.own(staff_fte=(0.01, 0.05, 0.3))
    rent = samples.rent(rent_staff_fte=(0.01, 0.05, 0.3))
    _, found = asked(1.2e9, own=own, rent=rent, rentals=(samples.rental(2.69),))
    assert any(each.endswith("--staff-fte") for each in found.ask_first)


def test_it_says_that_no_api_was_compared():
    listed = ("anthropic/sonnet",)
    _, found = asked(10e9, only_listed=listed, paid_today="", rentals=(samples.rental(5.0),))
    assert found.word == "buy"
    assert found.confidence_word == "low"
    assert "No API was compared" in found.headline
    assert "no API was compared" in found.confidence_reason
    assert found.ask_first[0].startswith("an API to compare with: --api")
    assert "--compare anthropic/sonnet" in found.next_command


def test_without_an_api_in_use_nobody_is_told_to_stay():
    _, found = asked(200e6, paid_today="")
    assert found.word == "stay"
    assert found.headline.startswith("An API is cheapest: sonnet of anthropic, 800 USD a month")


def test_another_model_than_the_one_paid_is_doubted_even_where_somebody_named_it():
    luna = samples.api("luna", prices=(0.1, 0.5), provider="openai")
    _, other = asked(200e6, apis=(*SONNET, luna))
    assert other.confidence_word == "medium"
    assert other.doubts[0] == "whether luna can stand for sonnet must be tested on your prompts"
    assert "until the model's answers are tested" in other.confidence_reason
    elsewhere = samples.api("sonnet", prices=(0.1, 0.5), provider="bedrock")
    _, same = asked(200e6, apis=(*SONNET, elsewhere))
    assert (same.word, same.confidence_word, same.doubts) == ("change-api", "high", ())


def test_doubts_are_on_what_the_verdict_rests_on():
    memory = replace(samples.FACT, verified=Verified.MEMORY)
    own = replace(
        samples.own(), residual_fraction=samples.assumed("residual_fraction", (0.05, 0.2, 0.35), memory)
    )
    luna = samples.api("luna", prices=(0.1, 0.5), provider="openai")
    _, between_apis = asked(200e6, apis=(*SONNET, luna), own=own)
    assert not any("residual" in doubt for doubt in between_apis.doubts)
    _, bought = asked(10e9, rentals=(samples.rental(5.0),), own=own)
    assert any("residual" in doubt for doubt in bought.doubts)


def test_a_quote_is_an_option_of_its_own():
    ranking, _ = asked(3e9, quotes={"rental_usd_per_gpu_hour:h100-sxm": EXACT(1.5)})
    quoted = next(each for each in ranking.options if each.offer.provider == "quote")
    assert float(quoted.priced.lines["rental"][0]) == pytest.approx(730 * 1.5 * quoted.offer.fleet.gpus)  # type: ignore[union-attr]


SAID = ("--tokens-per-month", "200M", "--api", "anthropic/sonnet", "--peak", "3")


def flags_of(command: str) -> dict[str, str]:
    words = shlex.split(command)
    return dict(zip(words[2::2], words[3::2], strict=True))


def test_the_next_command_can_be_pasted():
    luna = samples.api("luna", prices=(0.1, 0.5), provider="openai")
    cases = (
        (200e6, {}, "plan"),
        (950e6, {}, "plan"),
        (3e9, {}, "size"),
        (10e9, {"rentals": (samples.rental(5.0),)}, "size"),
        (200e6, {"apis": (*SONNET, luna)}, "plan"),
        (200e6, {"said": (*SAID, "--gpu", "h100-sxm")}, "size"),
    )
    for tokens, changes, verb in cases:
        given: Any = {"said": SAID, **changes}
        found = asked(tokens, **given)[1].next_command
        words = shlex.split(found)
        assert words[:2] == ["freehold", verb]
        flags = words[2::2]
        assert all(flag.startswith("--") for flag in flags)
        assert len(flags) == len(set(flags)) == len(words[3::2])
        assert not any(value.startswith("--") or not value for value in words[3::2])
        assert found != shlex.join(["freehold", "plan", *given["said"]])


def test_the_next_plan_keeps_what_was_said_and_makes_nothing_up():
    said = flags_of(asked(200e6, said=SAID)[1].next_command)
    assert said == {**dict(zip(SAID[::2], SAID[1::2], strict=True)), "--gpu": "h100-sxm"}
    own = replace(samples.own(), staff_fte=replace(samples.assumed("staff_fte", 0.3), asked=True))
    _, found = asked(200e6, own=own, quotes={"rental_usd_per_gpu_hour": EXACT(1.23)})
    said = flags_of(found.next_command)
    assert said["--rental-usd-per-gpu-hour"] == "1.23"
    assert said["--gpu"] == "h100-sxm"
    assert said["--staff-fte"] == "0.3"
    assert said["--api"] == "anthropic/sonnet"
    assert "renting 1 x h100-sxm at your quote" in found.headline


def test_after_a_change_of_api_the_plan_is_made_against_the_new_one():
    luna = samples.api("luna", prices=(0.1, 0.5), provider="openai")
    said = flags_of(asked(200e6, apis=(*SONNET, luna), said=SAID)[1].next_command)
    assert (said["--api"], said["--compare"], said["--peak"]) == ("openai/luna", "anthropic/sonnet", "3")


def test_the_text_adds_to_the_headline():
    for tokens in (200e6, 3e9, 10e9):
        _, found = asked(tokens)
        sentences = re.split(r"(?<=[.]) ", found.headline)
        assert not any(sentence in found.text for sentence in sentences)
        assert len(found.headline) < 160


# ---- what would change it -----------------------------------------------------------------------------------------


SCALES = {"M": 1e6, "B": 1e9, "T": 1e12, "": 1.0}


def thresholds(changes: tuple[TurningPoint, ...]) -> dict[str, tuple[float, str]]:
    found = {}
    for change in changes:
        match = re.match(r"(.*?),? (?:above|below) ([0-9,.]+)([MBT]?)", change.what)
        if match:
            found[match[1]] = (float(match[2].replace(",", "")) * SCALES[match[3]], change.to)
    return found


@pytest.mark.parametrize("tokens", [1e9, 3e9])
def test_beyond_what_is_said_of_price_and_people_the_verdict_is_the_other(tokens: float):
    row: dict[str, Any] = {"rentals": (samples.rental(2.0),), "draws": 8000}
    _, found = asked(tokens, **row)
    known = thresholds(found.would_change_it)
    assert found.word == "rent"
    price, to = known["a rental price of h100-sxm"]
    assert asked(tokens, **{**row, "rentals": (samples.rental(price * 1.03),)})[1].word == to
    assert asked(tokens, **{**row, "rentals": (samples.rental(price * 0.97),)})[1].word != to
    fte, to = known["staffing, rented or bought"]
    for part, holds in ((1.1, True), (0.9, False)):  # shown in hundredths
        people = replace(samples.assumed("staff_fte", fte * part), asked=True)
        own, rent = (replace(each, staff_fte=people) for each in (samples.own(), samples.rent()))
        assert (asked(tokens, **row, own=own, rent=rent)[1].word == to) == holds


@pytest.mark.parametrize(("tokens", "side"), [(200e6, "above"), (3e9, "below")])
def test_beyond_the_traffic_that_is_named_the_verdict_is_the_other(tokens: float, side: str):
    changes = {"rent": exact_rent_inputs()}
    _, found = asked(tokens, **changes)
    named = [change for change in found.would_change_it if f"traffic {side}" in change.what]
    threshold, to = thresholds(tuple(named))["traffic"]
    beyond = threshold * (1.02 if side == "above" else 0.98)
    assert asked(threshold * (0.98 if side == "above" else 1.02), **changes)[1].word != to
    assert asked(beyond, **changes)[1].word == to


def test_a_traffic_that_grows_says_when_it_is_there():
    _, found = asked(200e6, rent=exact_rent_inputs(), growth_per_month=0.05)
    named = next(change.what for change in found.would_change_it if "traffic above" in change.what)
    threshold, _ = thresholds(found.would_change_it)["traffic"]
    month = int(re.search(r"in month (\d+) at your growth", named)[1])  # type: ignore[index]
    assert 200e6 * 1.05 ** (month - 1) < threshold <= 200e6 * 1.05**month * 1.01


def exact_rent_inputs() -> Any:
    return samples.exact_rent(rent_staff_fte=0.1, staff_usd_per_year=220_000.0)


def test_a_rental_price_below_which_renting_wins():
    changes = {"rent": samples.exact_rent(), "own": samples.own(), "apis": (samples.api(prices=(0.5, 2.0)),)}
    _, found = asked(1e9, rentals=(samples.rental(2.69),), **changes)
    assert found.word == "stay"
    price, to = thresholds(found.would_change_it)["a rental price of h100-sxm"]
    assert to == "rent"
    assert asked(1e9, rentals=(samples.rental(price * 0.99),), **changes)[1].word == "rent"
    assert asked(1e9, rentals=(samples.rental(price * 1.01),), **changes)[1].word == "stay"


def test_where_nothing_reasonable_changes_it_what_was_tried_is_told():
    _, found = asked(1e6, apis=(GROQ,), paid_today="groq/llama-8b-instant")
    assert len(found.would_change_it) == 1
    told = found.would_change_it[0]
    assert told.to == "stay"
    assert all(word in told.what for word in ("tried", "rental price", "traffic up to", "engineers"))


def test_incomplete_options_are_told():
    bare = samples.gpu(id="h100-nvl", price_new_usd=None, price=None)
    result = plan(samples.inputs(fleets=(samples.fleet(), samples.fleet(bare))))
    lacking = [each for each in result.options if each.incomplete]
    assert [each.incomplete for each in lacking] == [("rental of h100-nvl",), ("h100-nvl as bought",)] or [
        each.incomplete for each in lacking
    ] == [("h100-nvl as bought",), ("rental of h100-nvl",)]
    assert "2 options lack a price" in result.verdict.text


def test_the_price_at_which_the_next_api_wins_is_told():
    sonnet, rival = samples.api(), samples.api("other", prices=(2.4, 12.0), provider="acme")
    row: dict[str, Any] = {"rentals": (), "draws": 2000}
    _, found = asked(20e6, **row, apis=(sonnet, rival))
    assert found.word == "stay"
    usd, to = thresholds(found.would_change_it)["an API price of other"]
    assert to == "change-api"
    assert usd == pytest.approx(4.0, rel=0.01)  # where sonnet's is


def test_a_billed_price_is_told_as_it_is_billed():
    traffic = samples.traffic(20e6, paid_usd_per_month=40.0)  # the list comes to 80
    ranking, found = asked(20e6, rentals=(), traffic=traffic, fleets=(fleet_for(20e6),))
    told = [change.what for change in found.would_change_it if "an API price of sonnet" in change.what]
    assert found.word == "stay"
    assert ranking.setting.fallback is not None
    assert ranking.setting.fallback.price_ratio == EXACT(0.5)
    assert all("now 2.00" in each for each in told)
    rival = samples.api("other", prices=(2.4, 12.0), provider="acme")
    _, beside = asked(20e6, rentals=(), traffic=traffic, apis=(*SONNET, rival))
    usd, to = thresholds(beside.would_change_it)["an API price of sonnet"]
    assert (usd, to) == (pytest.approx(4.8, rel=0.01), "change-api")


FAST: dict[str, Any] = {
    "ttft_p95_s": 0.9,
    "tokens_per_s": 60.0,
    "speed_source": "a board",
    "speed_as_of": samples.FRESH,
}


@pytest.mark.parametrize(
    ("speed", "said", "word", "begins"),
    [
        (FAST, (), "high", ""),
        ({}, (), "medium", "SLO unknown: no figure is known"),
        (
            {**FAST, "ttft_p95_s": 6.86},
            (),
            "medium",
            "misses the SLO: 95 of 100 first tokens in 6.86 s, 2 s asked (a board, ",
        ),
        ({**FAST, "tokens_per_s": 10.0}, (), "medium", "misses the SLO: 10 tokens/s, 20 asked"),
    ],
)
def test_an_api_is_held_to_the_slo(
    speed: dict[str, Any], said: tuple[str, ...], word: str, begins: str
) -> None:
    api = samples.api(prices=(0.1, 0.5), **speed)
    inputs = samples.inputs(
        apis=(api,), paid_today="anthropic/sonnet", slo_ttft_s=2.0, slo_itl_s=0.05, said=said
    )
    found = plan(inputs)
    assert (found.verdict.word, found.verdict.confidence_word) == ("stay", word)
    (option,) = [each for each in found.options if each.kind == "api"]
    assert any(each.startswith(begins) for each in option.warnings) == bool(begins)


def test_an_api_that_misses_an_slo_that_was_asked_for_is_listed_and_never_wins() -> None:
    slow = samples.api("slow", prices=(0.01, 0.01), **{**FAST, "ttft_p95_s": 30.0})
    both = {"apis": (samples.api(prices=(0.1, 0.5), **FAST), slow), "slo_ttft_s": 2.0, "slo_itl_s": 0.05}
    asked = plan(samples.inputs(**both, said=("--slo-ttft-p95", "2s")))
    assert asked.verdict.option == "api-anthropic-sonnet"
    assert "api-anthropic-slow" in {each.id for each in asked.options}
    assert plan(samples.inputs(**both)).verdict.option == "api-anthropic-slow"
