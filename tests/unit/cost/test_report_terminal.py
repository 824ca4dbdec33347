"""A plan in a terminal: its length, its width, its order, and that no text from outside is obeyed."""

import io
import re

import pytest
from rich.console import Console

from freehold.cost.model.result import PlanResult
from freehold.cost.report.terminal import show
from plan_samples import EVERY, HOSTILE, hostile, plan

COMMAND = re.compile(r"^  next: .*$", re.MULTILINE)


def shown(
    result: PlanResult,
    *,
    columns: int = 100,
    colour: bool = False,
    encoding: str = "utf-8",
    rules: bool = False,
) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    console = Console(
        file=file, width=columns, force_terminal=colour, color_system="truecolor" if colour else None
    )
    show(result, console, rules=rules)
    file.flush()
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
@pytest.mark.parametrize("name", EVERY)
def test_no_line_is_wider_than_the_terminal_but_the_command_to_copy(name: str, columns: int):
    text = COMMAND.sub("", shown(EVERY[name](), columns=columns))
    assert max(map(len, text.splitlines())) <= columns


@pytest.mark.parametrize("name", EVERY)
def test_it_is_at_most_60_lines_long(name: str):
    most = 70 if name in {"crowded", "long names"} else 60  # more, and longer ones, than there are
    assert 10 < len(shown(EVERY[name](), columns=80).splitlines()) <= most


@pytest.mark.parametrize("name", EVERY)
def test_no_line_ends_in_blanks(name: str):
    assert not re.search(r"[ \t]$", shown(EVERY[name]()), re.MULTILINE)


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_a_number_stands_on_one_line(columns: int):
    text = shown(plan(), columns=columns)
    for figure in (
        "2,613 (2,220\N{EN DASH}3,120)",
        "17,210 (14,600\N{EN DASH}20,600)",
        "2.90 (2.47\N{EN DASH}3.47)",
    ):
        assert figure in text


@pytest.mark.parametrize("columns", [80, 100])
def test_the_verdict_is_in_the_first_twelve_lines_and_its_command_follows_it(columns: int):
    lines = shown(plan(), columns=columns).splitlines()
    assert lines.index("STAY ON THE API") < 3
    assert plan().verdict.headline.split(":")[0] in "\n".join(lines[:12])
    assert any(line.strip().startswith("confidence") for line in lines[:12])
    assert lines.index(f"  next: {plan().verdict.next_command}") < lines.index(
        "Options  middle (10th-90th percentile); used: of the capacity within the SLO"
    )


def test_the_verdict_says_how_sure_it_is_and_what_changes_it():
    after = shown(plan())
    assert "93% of the draws" in after
    assert plan().verdict.headline in after
    assert "traffic above 1.31B tokens a month: then rent" in after


def test_the_command_is_one_line_to_copy_however_narrow_the_terminal():
    assert f"  next: {plan().verdict.next_command}" in shown(plan(), columns=60).splitlines()


def test_the_sections_come_in_their_order():
    text = shown(plan(), rules=True)
    titles = (
        "Plan",
        "STAY",
        "Not given yet",
        "What was asked",
        "Options",
        "Break-even",
        "Check before",
        "Rules of thumb",
    )
    places = [text.index(f"\n{title}" if index else title) for index, title in enumerate(titles)]
    assert places == sorted(places)


def test_rules_of_thumb_come_only_if_they_are_asked_for():
    assert "Rules of thumb" not in shown(plan())


def test_only_the_two_first_questions_are_asked():
    text = shown(plan())
    assert "--rental-usd-per-gpu-hour: what" in text
    assert "--staff-fte: how" in text
    assert "? --power-usd-per-kwh" not in text


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("stay", "STAY ON THE API"),
        ("rent", "RENT"),
        ("buy", "BUY"),
        ("change-api", "CHANGE THE API"),
        ("undecided", "UNDECIDED"),
    ],
)
def test_each_answer_is_said(word: str, said: str):
    assert f"\n{said}\n" in shown(EVERY[word]())


def test_markup_is_shown_and_not_obeyed():
    text = shown(hostile(), columns=160)
    assert "<script>alert(1)</script>|[red]x[/red]" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_in_colour_only_our_own_codes_are_sent():
    text = shown(hostile(), columns=160, colour=True)
    assert "\x1b[1m" in text
    assert "\x1b[31m`" not in text
    assert "[red]x[/red]" in re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert HOSTILE not in text


def test_where_only_ascii_can_be_written_it_is():
    text = shown(plan(), encoding="ascii")
    assert "2,613 (2,220-3,120)" in text
    assert "rent 1 x h100-sxm" in text
