"""A measured month in a terminal and in Markdown: its figures with units, what is unknown as unknown, the answer."""

import io
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from freehold.cost.model.result import Percentiles
from freehold.cost.report.markdown import review_to_markdown as to_markdown
from freehold.cost.report.review_outline import break_even_text, figures, period_rows, trend_text
from freehold.cost.report.review_terminal import show
from freehold.cost.review.review import ReviewResult
from freehold.cost.review.trend import Trend
from review_samples import REVIEWS, hostile, review, unpriced, weeks

every = pytest.mark.parametrize("name", REVIEWS)


def shown(result: ReviewResult, *, columns: int = 100) -> str:
    console = Console(file=io.StringIO(), width=columns)
    show(result, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("columns", [60, 80, 100])
@every
def test_no_line_is_wider_than_the_terminal(name: str, columns: int):
    assert max(map(len, shown(REVIEWS[name](), columns=columns).splitlines())) <= columns


def test_the_figures_have_their_units():
    found = dict(figures(review()))
    assert found["served"] == "4.7B tokens a month"
    assert found["really paid"] == "3.66 (3.11\N{EN DASH}4.37) USD per million tokens"
    assert found["cost"].startswith("17,210 (14,600")
    assert found["utilisation"].startswith("3% (3%\N{EN DASH}4%) of 151B (128B")
    assert found["openai/gpt-6-terra"] == "18,800 USD a month, cheaper in 31% of the draws"
    assert found["break-even"].endswith("tokens a month; your traffic is above it")


def test_what_is_not_known_is_said_and_costs_are_least_figures():
    found = dict(figures(unpriced()))
    assert found["really paid"] == "no token was served"
    assert found["cost"].startswith("at least 17,210")
    assert found["API"] == "none to compare with"
    assert found["trend"] == "unknown: too few whole days"
    assert "what is paid for h100-sxm" in shown(unpriced())


def test_a_break_even_that_never_comes():
    assert break_even_text(REVIEWS["go back"]()) == "at no traffic"
    below = replace(
        review(),
        position="below",
        break_even_tokens_per_month=Percentiles(p10=5e9, p50=6e9, p90=float("inf")),
    )
    assert break_even_text(below) == "at 6B (5B\N{EN DASH}never) tokens a month; your traffic is below it"


def test_the_trend_says_where_from_and_where_to():
    assert trend_text(review()) == "rising, +31% from the first third of the weeks to the last"
    assert trend_text(REVIEWS["days"]()).endswith("of the days to the last")
    falling = replace(review(), trend=replace(weeks(3), direction="falling", change=-0.4))
    assert trend_text(falling).startswith("falling, -40%")
    assert trend_text(replace(review(), trend=Trend(direction="rising", change=None))) == "rising"


def test_the_last_periods_are_shown_with_their_dates():
    rows = period_rows(REVIEWS["days"]())
    assert len(rows) == 8
    assert rows[-1][0] == "2026-11-11"
    assert period_rows(review())[0] == ("2026-10-29", "1.1B", "3%", "3.90", "yes")
    nothing = replace(weeks(1).periods[0], usd_per_million_tokens=None, api_cheaper=None)
    assert period_rows(replace(review(), trend=replace(weeks(1), periods=(nothing,))))[0][3:] == (
        "n/a",
        "n/a",
    )


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("keep", "KEEP IT"),
        ("run out", "USE IT UP, DO NOT REPLACE IT"),
        ("go back", "GO BACK TO THE API"),
        ("unpriced", "UNCLEAR"),
    ],
)
def test_the_answer_stands_last(name: str, answer: str):
    text = shown(REVIEWS[name]())
    assert answer in text.splitlines()
    assert text.index(answer) > text.index("What it is made of")
    assert to_markdown(REVIEWS[name]()).upper().startswith(f"# {answer}\n")


def test_the_dearest_line_comes_first():
    text = shown(review())
    assert text.index("hardware") < text.index("staff") < text.index("host RAM") < text.index("electricity")


@every
def test_markdown_has_whole_tables_and_no_markup_from_outside(name: str):
    tokens = MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(to_markdown(REVIEWS[name]()))
    kinds = {token.type for token in tokens} | {
        child.type for token in tokens for child in token.children or ()
    }
    assert "table_open" in kinds
    assert not kinds & {"html_inline", "html_block", "link_open", "image", "code_inline"}


def test_hostile_texts_are_shown_and_not_obeyed():
    text = shown(hostile(), columns=160)
    assert "[red]x[/red]" in text
    assert "\x1b" not in text


def test_confidence_and_next_command_are_shown():
    sure = replace(
        review(), confidence=0.9, confidence_word="high", next_command="freehold plan --usage x --gpu l4"
    )
    for text in (shown(sure), to_markdown(sure)):
        assert "high: it holds in 90% of the draws" in text
        assert "freehold plan --usage x --gpu l4" in text
    reasoned = replace(sure, confidence_reason="the bounds are far apart.")
    assert "high: the bounds are far apart" in shown(reasoned)
    assert "confidence" not in shown(replace(review(), confidence=None))


def test_a_line_below_a_cent_is_said_to_be_that():
    tiny = Percentiles(p10=0.00002, p50=0.0000705, p90=0.0002)
    assert "failures <0.01" in " ".join(shown(replace(review(), lines={"failures": tiny})).split())
