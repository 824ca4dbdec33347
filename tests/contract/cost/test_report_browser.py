"""The HTML report in a real browser: no complaint, no request, nothing wider than the window, on desk, phone and paper."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import CHROMIUM, OVERFLOW, Page, chromium
from freehold.cost.report.html import to_html
from plan_samples import EVERY

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (Debian: apt install chromium)"
)
OPEN_ALL = "document.querySelectorAll('details').forEach(each => { each.open = true })"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
PLOT_INK = "getComputedStyle(document.querySelector('figure svg text')).fill"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    found = {name: folder / f"{name.replace(' ', '-')}.html" for name in EVERY}
    for name, path in found.items():
        path.write_text(to_html(EVERY[name]()), encoding="utf-8")
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", EVERY)
def test_it_fits_and_is_quiet(page: Page, reports: dict[str, Path], name: str, width: int, theme: str):
    page.open(reports[name], width=width, dark=theme == "dark")
    page.evaluate(OPEN_ALL)
    measured = page.evaluate(OVERFLOW)
    assert page.complaints == []
    assert page.asked == [reports[name].as_uri()]
    assert measured["beyond"] == []
    assert measured["wanted"] <= measured["width"] == width
    assert measured["squeezed"] == []


def test_light_and_dark_differ_also_in_the_plots(page: Page, reports: dict[str, Path]):
    page.open(reports["stay"], width=1280)
    light = (page.evaluate(BACKGROUND), page.evaluate(PLOT_INK))
    page.open(reports["stay"], width=1280, dark=True)
    dark = (page.evaluate(BACKGROUND), page.evaluate(PLOT_INK))
    assert light == ("rgb(255, 255, 255)", "rgb(27, 31, 36)")
    assert dark == ("rgb(18, 22, 27)", "rgb(230, 234, 239)")


def test_it_prints_on_a4(page: Page, reports: dict[str, Path], tmp_path: Path):
    page.open(reports["stay"], width=1280, dark=True)
    page.pdf(tmp_path / "plan.pdf")
    printed = (tmp_path / "plan.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert b"/MediaBox [0 0 594.95996 841.91998]" in printed


def test_the_measure_finds_what_is_too_wide_and_what_is_squeezed(page: Page, tmp_path: Path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!DOCTYPE html><meta name="viewport" content="width=device-width"><body><div style="width:3000px">wide</div>'
        '<p style="width:9px;overflow-wrap:anywhere">one letter on each of the lines</p><script>console.log("said")</script>'
    )
    page.open(bad, width=390)
    measured = page.evaluate(OVERFLOW)
    assert measured["beyond"] == ["DIV: wide"]
    assert measured["squeezed"] == ["P: one letter on each of the lines"]
    assert "said" in page.complaints[0]
