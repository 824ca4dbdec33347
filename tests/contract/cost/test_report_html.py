"""The HTML report as a document: well formed, self-contained, readable without eyes, and deaf to hostile names."""

import itertools
import re
from collections import Counter
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from freehold.cost.report.html import to_html
from freehold.cost.report.plots import plots
from freehold.cost.report.templates import linked
from plan_samples import EVERY, HOSTILE, hostile, no_rentals, only_incomplete, plan

VOID = {"meta", "link", "br", "hr", "img", "input"}
ADDRESSES = {"href", "src", "srcset", "action", "data", "poster", "xlink:href", "formaction", "background"}


class Document(HTMLParser):
    """Every tag with its attributes and its text; `faults` holds what is not closed as it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.faults: list[str] = []
        self.feed(text)
        self.close()
        self.faults += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: to_html(make()) for name, make in EVERY.items()}


@pytest.fixture(scope="module")
def documents(pages: dict[str, str]) -> dict[str, Document]:
    return {name: Document(page) for name, page in pages.items()}


every_page = pytest.mark.parametrize("name", EVERY)


@every_page
def test_every_tag_is_closed(documents: dict[str, Document], name: str):
    assert documents[name].faults == []


@every_page
def test_nothing_is_fetched_and_nothing_runs(
    pages: dict[str, str], documents: dict[str, Document], name: str
):
    tags = documents[name].tags
    assert not {tag for tag, _ in tags} & {
        "script",
        "iframe",
        "object",
        "embed",
        "img",
        "image",
        "base",
        "form",
        "foreignobject",
    }
    assert not [attrs for _, attrs in tags if any(key.startswith("on") for key in attrs)]
    outside = [
        (tag, value)
        for tag, attrs in tags
        for key, value in attrs.items()
        if key in ADDRESSES and tag != "a" and not value.startswith(("#", "data:,"))
    ]
    assert outside == []
    assert not re.search(r"@import|url\((?!#)", pages[name])


@every_page
def test_ids_are_unique_and_what_refers_to_them_finds_them(
    pages: dict[str, str], documents: dict[str, Document], name: str
):
    ids = Counter(attrs["id"] for _, attrs in documents[name].tags if "id" in attrs)
    assert [each for each, count in ids.items() if count > 1] == []
    wanted = {attrs["aria-labelledby"] for _, attrs in documents[name].tags if "aria-labelledby" in attrs}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", pages[name])) | set(
        re.findall(r'xlink:href="#([^"]+)"', pages[name])
    )
    assert wanted - set(ids) == set()


@every_page
def test_headings_go_down_one_step_at_a_time(documents: dict[str, Document], name: str):
    levels = [int(tag[1]) for tag, _ in documents[name].tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@every_page
def test_figures_have_words_and_a_table(documents: dict[str, Document], name: str):
    found = documents[name]
    drawings = found.named("svg")
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 40 for attrs in drawings)
    assert len(drawings) == len(found.named("figure")) == len(found.named("figcaption"))
    regions = [attrs for attrs in found.named("div") if attrs.get("class") == "scroll"]
    assert len(regions) == len(drawings)
    assert all(attrs["tabindex"] == "0" and attrs["aria-label"] for attrs in regions)


@every_page
def test_head_cells_say_what_they_head(documents: dict[str, Document], name: str):
    assert all(attrs.get("scope") in {"col", "row"} for attrs in documents[name].named("th"))


def test_language_viewport_and_title(documents: dict[str, Document]):
    found = documents["stay"]
    assert found.named("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in found.named("meta")
    assert "Stay on the API: Freehold plan of 2026-11-27" in found.text


def test_the_verdict_stands_before_everything_else(documents: dict[str, Document]):
    text = documents["stay"].text
    body = text[text.index("Stay on the API Stay on openai") :]
    places = [
        body.index(part)
        for part in (
            "Stay on openai gpt-6-terra",
            "Confidence",
            "What would change it",
            "What was asked",
            "Options",
            "Sources",
        )
    ]
    assert places == sorted(places)


def test_hostile_names_are_shown_and_are_no_tags(documents: dict[str, Document], pages: dict[str, str]):
    assert "<script" not in pages["hostile"].lower()
    assert '$x_{$<script>alert(1)</script>|[red]x[/red]\ufffd[31m`*_\ufffd&"' in documents["hostile"].text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", pages["hostile"])
    assert HOSTILE not in pages["hostile"]


def test_only_web_addresses_become_links():
    text = 'see https://a.example/x?y="1"&z=<b>, javascript:alert(1), ftp://b.example and http://c.example'
    found = Document(str(linked(text)))
    assert [attrs["href"] for attrs in found.named("a")] == ["https://a.example/x?y=", "http://c.example"]
    assert "".join(found.texts) == text


def test_the_same_plan_is_the_same_page(pages: dict[str, str]):
    assert to_html(plan()) == pages["stay"]
    assert to_html(hostile()) == pages["hostile"]


def test_every_plot_that_has_data_is_there():
    names = [plot.name for plot in plots(plan())]
    assert names == ["break-even", "stack", "tornado", "over-rental-usd-per-gpu-hour", "over-staff-fte"]
    assert plots(only_incomplete()) == ()
    assert all("runpod" not in plot.svg for plot in plots(no_rentals()))


def test_the_tables_under_the_plots_hold_the_plots_figures():
    by_name = {plot.name: plot.table for plot in plots(plan())}
    assert by_name["tornado"].rows[0] == ("rental", "1.7\N{EN DASH}4 USD per GPU-hour", "-200", "1,920", "no")
    stack = {row[0]: dict(zip(by_name["stack"].head, row, strict=True)) for row in by_name["stack"].rows}
    assert stack["API openai gpt-6-terra"]["API tokens"] == "1,800"
    assert stack["API openai gpt-6-terra"]["GPUs"] == ""
    assert by_name["break-even"].rows[0][0] == "100M"


def test_plots_take_their_colours_from_the_page():
    for plot in plots(plan()):
        assert "var(--ink" in plot.svg
        assert not set(re.findall(r"(?<!, )#[0-9a-f]{6}", plot.svg)) - {"#000000", "#ffffff"}, plot.name


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_enough_in_light_dark_and_print():
    style = (files("freehold.cost.report") / "plan.css").read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{([^}]*)\}", style)
    ]
    assert len(themes) == 3
    for theme in themes:
        for name in ("ink", "muted", "accent", "warn", "link"):
            assert min(contrast(theme[name], theme[ground]) for ground in ("paper", "panel")) >= 4.5, (
                name,
                theme,
            )
        for index in range(8):
            assert contrast(theme[f"s{index}"], theme["paper"]) >= 3, (index, theme)
