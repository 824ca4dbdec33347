"""The corrections, the page and the demands on published rows are those that the shipped measurements give."""

import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

import published

from freehold.catalog.rows import DATA
from sizing_box import catalog

ROOT = Path(__file__).parents[3]
MISSED = "published, dense on NVIDIA's data-centre cards, mean absolute error"
"""The one demand that does not hold: others' runs of one model on one H100 are half as fast as its roofline."""


@cache
def seen() -> list[published.Seen]:
    return published.left_out(catalog())


def test_the_shipped_corrections_are_those_of_the_shipped_measurements():
    found = published.fit_corrections(published.cases(catalog()), catalog())
    assert published.corrections_yaml(found) == (DATA / "corrections.yaml").read_text()


def test_published_rows_are_within_the_ranges_that_others_gave():
    assert [bar.name for bar in published.bars(seen()) if not bar.holds] == [MISSED]


def test_the_page_says_what_is_so():
    page = (ROOT / published.PAGE).read_text()
    assert "\n".join(published.tables(seen())) in page
    assert all(each.case.row.id in page for each in seen())


@pytest.mark.parametrize("kind", ["amd", "consumer", "nvidia"])
def test_no_row_is_both_fitted_and_tested(kind: str):
    mine = [each for each in seen() if published.card_words(each) == kind]
    assert len({each.case.row.measured_by for each in mine}) >= 3
    for each in mine:
        used = each.said.correction
        assert used is None or each.case.row.measured_by not in used.source.partition(", ")[2].split(", ")
