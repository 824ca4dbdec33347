"""Rows that come again are known, over many doublings, and the oldest are forgotten only when told to be."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.ledger.foreign.seen import SeenRows
from freehold.ledger.foreign.spans import Spans


def test_every_row_is_remembered_through_growth():
    seen = SeenRows()
    names = [f"request-{number}" for number in range(100_000)]
    assert not any(seen.again(name) for name in names)
    assert all(seen.again(name) for name in names)
    assert not seen.forgot


def test_at_least_a_generation_is_remembered():
    seen = SeenRows(generation_rows=40_000)
    names = [str(number) for number in range(150_000)]
    assert not any(seen.again(name) for name in names)
    assert seen.forgot
    assert all(seen.again(name) for name in names[-40_000:])


STRETCHES = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60)), max_size=30)


@settings(max_examples=200)
@given(stretches=STRETCHES, holes=STRETCHES)
def test_spans_are_what_their_seconds_are(stretches: list[tuple[int, int]], holes: list[tuple[int, int]]):
    spans = Spans((start, start + length) for start, length in stretches)
    seconds = {s for start, length in stretches for s in range(start, start + length)}
    cut = {s for start, length in holes for s in range(start, start + length)}
    assert spans.total_s() == len(seconds)
    assert spans.within(50, 200).total_s() == len([s for s in seconds if 50 <= s < 200])
    assert spans.without((start, start + length) for start, length in holes).total_s() == len(seconds - cut)
    united = spans.united()
    assert all(one[1] < other[0] for one, other in itertools.pairwise(united))
    if united:
        assert sum(end - start for start, end in spans.holes()) == united[-1][1] - united[0][0] - len(seconds)


def test_spans_by_hour():
    spans = Spans([(1800, 5400), (5400, 5500), (7200 + 10, 7200 + 20), (7200 + 30, 7200 + 40)])
    assert list(spans.by_hour()) == [(0, 1800), (1, 1900), (2, 20)]


def test_many_stretches_out_of_order_are_united():
    spans = Spans((start, start + 1) for start in [*range(0, 60_000, 2), *range(1, 60_000, 2)])
    assert spans.united() == [(0, 60_000)]
