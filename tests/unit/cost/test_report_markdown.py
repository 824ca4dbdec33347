"""A plan as GitHub Markdown, read back with a Markdown parser: its tables are tables, and no text becomes markup."""

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from freehold.cost.report.markdown import to_markdown
from freehold.cost.report.templates import code, escaped
from plan_samples import EVERY, hostile, plan


def tokens(text: str) -> list[Token]:
    return MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(text)


def kinds(text: str) -> set[str]:
    found = tokens(text)
    return {token.type for token in found} | {child.type for token in found for child in token.children or ()}


def plain(text: str) -> str:
    """Return the text that a reader sees."""
    return "".join(
        child.content
        for token in tokens(text)
        for child in token.children or ()
        if child.type in {"text", "code_inline", "text_special"}
    )


def row_lengths(text: str) -> list[list[int]]:
    found: list[list[int]] = []
    for token in tokens(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append(0)
        elif token.type in {"td_open", "th_open"}:
            found[-1][-1] += 1
    return found


@pytest.mark.parametrize("name", EVERY)
def test_every_row_has_the_cells_of_its_head(name: str):
    lengths = row_lengths(to_markdown(EVERY[name]()))
    assert all(len(set(rows)) == 1 and len(rows) > 1 for rows in lengths)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_html_a_link_or_a_picture(name: str):
    assert not kinds(to_markdown(EVERY[name]())) & {
        "html_inline",
        "html_block",
        "link_open",
        "image",
        "hr",
        "blockquote_open",
    }


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "a|b",
        "[x](javascript:alert(1))",
        "![x](http://a/b)",
        "*a* _b_ **c** ~~d~~ `e`",
        "# no heading",
        "1. no list",
        "- no list",
        "--flag",
        "+ no list",
        "12) no list",
        "> no quote",
        "&lt;b&gt;",
        "back\\slash \\| pipe",
        "2.90 (2.47-3.47)",
        "0.4%",
        "1.5 USD",
        "-200",
        "---",
        "===",
    ],
)
def test_an_escaped_text_reads_as_it_was(text: str):
    for shown in (escaped(text), f"- {escaped(text)}"):
        assert plain(shown) == text
        assert not kinds(shown) & {
            "html_inline",
            "html_block",
            "link_open",
            "image",
            "em_open",
            "strong_open",
            "heading_open",
            "code_inline",
            "hr",
            "s_open",
        }
    row = f"| head | other |\n| --- | --- |\n| {escaped(text)} | x |"
    assert row_lengths(row) == [[2, 2]]
    assert plain(row) == f"headother{text}x"


@pytest.mark.parametrize("text", ["plain", "a`b", "``", "` `", "`x", "x`"])
def test_code_may_hold_backticks(text: str):
    assert plain(code(text)) == text


def test_it_says_what_the_terminal_says():
    text = plain(to_markdown(plan()))
    for part in (
        "Stay on the API",
        "93% of the draws",
        "2,613 (2,220\N{EN DASH}3,120)",
        "does not hold",
        "gpu_rental",
        "freehold plan --tokens",
    ):
        assert part in text


def test_the_verdict_stands_first():
    assert to_markdown(plan()).startswith("# Stay on the API\n\n**Stay on openai gpt-6-terra")


def test_hostile_names_reach_the_reader_whole():
    assert "<script>alert(1)</script>|[red]x[/red]" in plain(to_markdown(hostile()))


def test_amounts_are_aligned_to_the_right():
    assert "| --- | ---: | ---: | ---: |" in to_markdown(plan())
