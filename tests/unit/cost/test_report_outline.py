"""What a report shows of a plan: which options, break-evens and sources, and in which words."""

from dataclasses import replace

import pytest

from freehold.cost.model.result import TurningPoint
from freehold.cost.report import outline
from freehold.cost.report.clean import clean, cut
from freehold.cost.report.outline import why_weak
from plan_samples import (
    API_ID,
    BUY_ID,
    RENT_ID,
    around,
    crowded,
    lacking,
    never,
    no_rentals,
    only_incomplete,
    owned,
    plan,
)


def ids(options: object) -> list[str]:
    return [option.id for option in options]  # type: ignore[attr-defined]


def test_the_best_three_of_each_kind_in_the_plans_order():
    found = outline.shortlist(crowded())
    kinds = [option.kind for option in found]
    assert kinds.count("rent") == 3
    assert kinds.count("buy") == 3
    assert [option for option in crowded().options if option in found] == list(found)


def test_todays_and_the_advised_are_shown_however_dear_they_are():
    base = plan()
    dear = replace(owned("rent", "dear", 99999.0), id="dear")
    moved = replace(base, options=(*base.options, dear), verdict=replace(base.verdict, option="dear"))
    assert {API_ID, "dear"} <= set(ids(outline.shortlist(moved)))


def test_an_incomplete_option_is_never_in_the_table_but_is_told():
    base = plan()
    cheap = lacking(replace(owned("rent", "cheap", 1.0), id="cheap"), "gpu_rental")
    found = replace(base, options=(cheap, *base.options))
    assert "cheap" not in ids(outline.shortlist(found))
    assert (
        "rent 1 \N{MULTIPLICATION SIGN} h100-sxm, cheap, on-demand (lacking: gpu_rental)"
        in outline.incomplete_text(found)
    )
    assert outline.month_cost(cheap).startswith("at least ")


def test_many_incomplete_ones_are_counted():
    text = outline.incomplete_text(only_incomplete())
    assert text.startswith("11 incomplete")
    assert "and 8 more" in text


def test_a_kind_without_a_price_is_said():
    assert outline.no_options_of(no_rentals()) == ("There is no machine to rent that could serve this.",)
    base = plan()
    unpriced = [
        replace(each, incomplete=("rental",)) if each.kind == "rent" else each for each in base.options
    ]
    assert outline.no_options_of(replace(base, options=tuple(unpriced))) == (
        "No rental can win: none has all its prices and lasts.",
    )
    assert len(outline.no_options_of(only_incomplete())) == 3
    assert outline.no_options_of(plan()) == ()


def test_what_is_left_out_is_counted():
    complete = [option for option in crowded().options if not option.incomplete]
    assert outline.left_out(crowded()).startswith(f"{len(complete) - len(outline.shortlist(crowded()))} more")
    base = plan()
    assert outline.left_out(replace(base, options=base.options[:3])) == ""


def test_the_head_says_traffic_model_and_slo_and_loses_no_key():
    base = plan()
    found = {
        line.label: line.text
        for line in outline.head(
            replace(base, summary={**base.summary, "new_key_s": 0.25, "part_share": 0.5})
        )
    }
    assert found["traffic"].startswith("900M tokens a month, 675M input, 225M output")
    assert found["model"] == "llama-3.1-8b"
    assert "500 ms" in found["SLO"]
    assert found["new key s"] == "250 ms"
    assert found["part share"] == "50%"
    assert found["assumed"].startswith("2 of 3 inputs")
    assert "power, USD per kWh" in found["assumed"]


def test_an_empty_summary_is_no_head():
    assert outline.head(replace(plan(), summary={}, assumptions=())) == ()


def test_break_evens_against_todays_api_come_first():
    base = plan()
    turned = replace(base, break_even=base.break_even[::-1])
    assert outline.chosen_break_evens(turned)[0].against == API_ID


def test_a_break_even_that_never_comes_says_so():
    each = never().break_even[0]
    text = outline.break_even_text(each, {RENT_ID: "R", API_ID: "A"})
    assert (
        text == "R against A: no break-even at a traffic that it can carry. Cheaper today in 4% of the draws."
    )


def test_a_break_even_has_tokens_use_and_payback():
    bought = next(each for each in plan().break_even if each.option == BUY_ID)
    text = outline.break_even_text(bought, {})
    assert "above 8.6B (6.1B\N{EN DASH}never) tokens a month" in text
    assert "33% (28%\N{EN DASH}39%) of its capacity" in text
    assert "Pays back in month 28 (20\N{EN DASH}never)." in text


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("a: b (2026-11-01, read)", ""),
        ("a: b (2026-11-01, memory)", "from memory"),
        ("a: b (2026-11-01, secondary)", "quoted second-hand"),
        ("a: b (2026-08-29, read)", ""),
        ("a: b (2026-08-28, read)", "91 days old"),
        ("a: b (2026-01-01, secondary)", "quoted second-hand, 330 days old"),
        ("a (2020-01-01, memory): b (2026-11-01, read)", ""),
        ("a: b (2026-11-01)", ""),
        ("a: b", ""),
        ("a: b (2026-02-31, read)", ""),
    ],
)
def test_what_makes_a_source_weak(source: str, why: str):
    assert why_weak(source, "2026-11-27") == why


def test_weak_sources_are_cut_and_counted():
    base = plan()
    doubts = tuple(f"doubt {number}" for number in range(12))
    weak, more = outline.weak_sources(replace(base, verdict=replace(base.verdict, doubts=doubts)))
    assert [each.text for each in weak] == list(doubts[:8])
    assert more == 6  # four doubts, and two sources of the options


def test_what_a_doubt_tells_no_source_repeats():
    base = plan()
    doubt = "host power: as of 2026-11-02, from memory, not looked up"
    weak, _ = outline.weak_sources(replace(base, verdict=replace(base.verdict, doubts=(doubt,))))
    assert [each.text for each in weak if each.text.startswith("host power")] == [doubt]


def test_confidence_says_what_it_rests_on():
    verdict = plan().verdict
    assert (
        outline.confidence_text(verdict)
        == "high: cheapest in 93% of the draws, but facts that it rests on are in doubt"
    )
    assert outline.confidence_text(replace(verdict, doubts=())) == "high: cheapest in 93% of the draws"


def test_names_of_inputs():
    assert outline.named("power_usd_per_kwh") == "power, USD per kWh"
    assert outline.topic("staff_fte") == "staff"
    assert outline.topic("gpu_failures_per_gpu_year") == "GPU failures"
    assert outline.named("something") == "something"


def test_an_assumption_keeps_what_it_does_not_know():
    row = outline.assumption(
        {"name": "staff_fte", "low": 0.1, "mid": 0.2, "high": 0.3, "source": "us", "as_of": "2026-01-01"}
    )
    assert (row.name, row.value) == ("staff, full-time engineers", "0.1 / 0.2 / 0.3")
    assert row.source == "us (2026-01-01)"


def test_cleaning_takes_what_a_terminal_or_a_page_would_obey():
    assert clean("a\x1b[31mb\u202ec\r\nd\te\x00") == "a\ufffd[31mb\ufffdc d e\ufffd"


def test_cutting_ends_at_a_word():
    assert cut("one two three", 20) == "one two three"
    assert cut("one two three four", 12) == "one two…"
    assert cut("One, two three. Four five six", 20) == "One, two three. …"
    assert len(cut("x" * 50, 12)) == 11


def test_what_is_only_listed_is_counted_and_takes_no_place():
    base = plan()
    spot = replace(owned("rent", "spot", 100.0), id="spot", can_win=False, warnings=("can be taken back",))
    found = replace(base, options=(spot, *base.options))
    assert "spot" not in ids(outline.shortlist(found))
    assert outline.shortlist(found) == outline.shortlist(base)
    assert "1 are only listed and cannot win" in outline.left_out(found)
    assert len(outline.no_options_of(replace(base, options=(spot,)))) == 3


def test_warnings_are_footnotes_told_once():
    first = replace(owned("rent", "a", 1.0), warnings=("slow", "far\n away"))
    second = replace(owned("rent", "b", 1.0), warnings=("far away",))
    third = owned("rent", "c", 1.0)
    notes = outline.footnotes((first, second, third))
    assert notes == ("slow", "far away")
    assert [outline.marks(each, notes) for each in (first, second, third)] == [" [1][2]", " [2]", ""]


def test_a_break_even_beyond_the_capacity_says_what_it_would_take():
    each = replace(plan().break_even[1], tokens_per_month=None, utilisation=around(1.6), payback_month=None)
    text = outline.break_even_text(each, {})
    assert "no break-even at a traffic that it can carry, which would be 160% (136%" in text


def test_empty_and_zero_entries_of_the_summary_are_not_shown():
    found = outline.head(
        replace(
            plan(),
            summary={
                "model": "",
                "tokens_per_month": 0.0,
                "growth_per_month": 0.0,
                "draws": 100000,
                "seed": 1,
            },
        )
    )
    assert [(line.label, line.text) for line in found[:2]] == [
        ("traffic", "0 tokens a month"),
        ("plan", "100,000 draws, seed 1"),
    ]
    assert len(found) == 3


def test_options_that_differ_only_in_what_runs_on_them_take_one_place():
    base = plan()
    rented = next(option for option in base.options if option.id == RENT_ID)
    twin = replace(rented, id="twin", engine="sglang")
    found = replace(base, options=(rented, twin, *(o for o in base.options if o.id != RENT_ID)))
    assert "twin" not in ids(outline.shortlist(found))
    advised = replace(found, verdict=replace(base.verdict, option="twin"))
    assert "twin" in ids(outline.shortlist(advised))


def test_a_change_that_changes_nothing_leads_nowhere():
    verdict = plan("stay").verdict
    assert (
        outline.change_text(TurningPoint(what="nothing that was tried", to="stay"), verdict)
        == "nothing that was tried"
    )
    assert (
        outline.change_text(TurningPoint(what="a quote", to="change-api"), verdict)
        == "a quote: then change the API"
    )
    assert (
        outline.change_text(TurningPoint(what="a price", to="a verdict"), verdict)
        == "a price: then a verdict"
    )


def test_what_was_asked_for_by_name_has_its_row():
    base = plan()
    dear = [replace(owned("rent", "runpod", 90_000.0, gpu="l4", count=56), id="dear")]
    shut = [replace(owned("buy", "colocation", 99_000.0, gpu="l4", count=56), id="never", can_win=False)]
    gap = [lacking(replace(owned("rent", "nobody", 1.0, gpu="l40"), id="gap"), "rental of l40")]
    quote = [replace(owned("rent", "quote", 95_000.0, gpu="b200"), id="quote")]
    options = (*base.options, *dear, *shut, *gap, *quote)
    found = {each.id for each in outline.shortlist(replace(base, options=options))}
    assert {"dear", "never", "gap", "quote"} & found == {"quote"}, "nobody asked for the others"
    asked = replace(base, options=options, summary=base.summary | {"asked_gpus": "l4, l40"})
    assert {"dear", "never", "gap", "quote"} <= {each.id for each in outline.shortlist(asked)}
    assert outline.why_listed(dear[0]) == ""
    assert outline.why_listed(shut[0]) == " (cannot win)"
    assert (
        outline.option_name(gap[0]) + outline.why_listed(gap[0])
        == "rent 1 \N{MULTIPLICATION SIGN} l40, no price known, on-demand (cannot win)"
    )
    assert (
        outline.why_listed(replace(gap[0], provider="colocation"))
        == " (cannot win: no price of rental of l40)"
    )


def test_a_name_says_nothing_twice():
    option = replace(owned("buy", "colocation", 1.0), terms="colocation, quoted server")
    assert outline.option_name(option).endswith("colocation, quoted server")
    assert outline.option_name(option).count("colocation") == 1


def test_options_that_read_alike_lack_their_price_once():
    base = plan()
    twice = [
        replace(lacking(owned("rent", "nobody", 1.0), "rental"), id=f"gap-{index}") for index in range(3)
    ]
    text = outline.incomplete_text(replace(base, options=tuple(twice)))
    assert text.count("lacking") == 1
    assert text.startswith("3 incomplete")


def test_every_report_shows_the_same_break_evens():
    base = plan()
    more = replace(base, break_even=base.break_even * 3)
    assert len(outline.chosen_break_evens(more)) == 4
    assert outline.more_break_evens(more) == "5 more in --json."
    assert outline.more_break_evens(replace(base, break_even=base.break_even[:1])) == ""


def test_a_break_even_and_the_tornado_name_what_they_are_of():
    base = plan()
    each = replace(base.break_even[0], gpus=2)
    assert outline.break_even_use(each).endswith("of 2 GPUs")
    assert outline.break_even_use(replace(each, gpus=1)).endswith("of 1 GPU")
    named = replace(base, tornado_option=RENT_ID, tornado_against=API_ID)
    assert outline.tornado_of(named).startswith(
        "rent 1 \N{MULTIPLICATION SIGN} h100-sxm, runpod, on-demand minus API openai"
    )
    assert outline.tornado_of(replace(named, tornado_against="")).startswith("what rent 1")


def test_the_reason_of_a_confidence_stands_for_it():
    verdict = replace(plan().verdict, confidence_reason="cheapest in 63% of the draws, and below 70% is low.")
    assert outline.confidence_text(verdict) == "high: cheapest in 63% of the draws, and below 70% is low"
