"""Sizes, prompts and arrivals: the same for the same seed, and as long as they are said to be."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.bench.analysis.load import Load, ScheduledRequest, schedule
from freehold.bench.analysis.prompts import Scale, fitted, prompt
from freehold.bench.analysis.published import published
from freehold.bench.analysis.sizes import Fitted, Given, Quantiles, Range, Recorded, Size, Sizes, cut, fit

FIXED = Given(prompt=Range(512, 512), answer=Range(128, 128))
RECORDED = Recorded(
    sizes=(
        Size(prompt_tokens=10, answer_tokens=1),
        Size(prompt_tokens=900, answer_tokens=30),
        Size(prompt_tokens=40, answer_tokens=7),
    ),
    at_s=(0.0, 0.5, 3.0),
)


def first(
    count: int, load: Load, sizes: Sizes = FIXED, seed: tuple[int, ...] = (7,)
) -> list[ScheduledRequest]:
    return list(itertools.islice(schedule(load, sizes, seed=seed), count))


def test_a_rate_is_a_poisson_stream():
    asks = first(4000, Load(kind="rate", value=5.0))
    times = [ask.at_s or 0.0 for ask in asks]
    gaps = np.diff(times)
    assert times == sorted(times)
    assert np.mean(gaps) == pytest.approx(0.2, rel=0.06)
    assert np.std(gaps) == pytest.approx(0.2, rel=0.06)  # an exponential's deviation is its mean


def test_a_seed_gives_the_same_asks_and_another_seed_others():
    load, sizes = (
        Load(kind="rate", value=2.0),
        Given(prompt=Range(1, 10_000), answer=published()["azure-code"].sizes().answer),
    )
    assert first(50, load, sizes) == first(50, load, sizes)
    assert first(50, load, sizes) != first(50, load, sizes, (8,))


def test_callers_have_no_times():
    assert {ask.at_s for ask in first(5, Load(kind="concurrency", value=4))} == {None}


def test_what_was_recorded_is_replayed_and_ends():
    asks = first(10, Load(kind="recorded", value=2.0), RECORDED)
    assert [ask.at_s for ask in asks] == [0.0, 0.25, 1.5]
    assert [ask.size for ask in asks] == list(RECORDED.sizes)


def test_recorded_sizes_at_a_rate_keep_prompt_and_answer_together():
    sizes = {ask.size for ask in first(200, Load(kind="rate", value=1.0), RECORDED)}
    assert sizes == set(RECORDED.sizes)


@pytest.mark.parametrize("name", sorted(published()))
def test_a_published_shape_is_drawn_as_it_was_published(name: str) -> None:
    shape = published()[name]
    dice = np.random.Generator(np.random.PCG64(1))
    drawn = [shape.sizes().draw(dice) for _ in range(20_000)]
    for kind, points in (("prompt_tokens", shape.prompt), ("answer_tokens", shape.answer)):
        values = [getattr(size, kind) for size in drawn]
        for share, tokens in points[:-1]:
            assert np.quantile(values, share) == pytest.approx(tokens, rel=0.08), (kind, share)
        assert max(values) <= points[-1][1]
        assert min(values) >= 1
    assert shape.source


@given(st.integers(1, 50_000), st.integers(1, 50_000), st.integers(2, 8192))
def test_what_is_cut_fits(prompt_tokens: int, answer_tokens: int, context: int) -> None:
    found = cut(Size(prompt_tokens=prompt_tokens, answer_tokens=answer_tokens), context)
    assert found.prompt_tokens + found.answer_tokens <= context
    assert found.prompt_tokens >= 1
    assert found.answer_tokens >= 1
    if prompt_tokens + answer_tokens <= context and answer_tokens <= context // 2:
        assert found == Size(prompt_tokens=prompt_tokens, answer_tokens=answer_tokens)


def test_recorded_sizes_stay_recorded_when_they_are_cut():
    found = fit(RECORDED, 100)
    assert isinstance(found, Recorded)
    assert found.sizes[1] == Size(prompt_tokens=70, answer_tokens=30)
    assert isinstance(fit(FIXED, 100), Fitted)
    assert fit(FIXED, 0) is FIXED
    assert fit(FIXED, 1000) is FIXED  # nothing is cut
    assert fit(RECORDED, 10_000) is RECORDED
    assert "together at most 100" in found.words()


def test_below_the_first_point_its_slope_goes_on():
    shape = Quantiles(((0.5, 100.0), (0.8, 200.0)))
    assert shape.at(0.0) == 100
    assert shape.at(0.8416212) == 200
    assert shape.at(-0.8416212) == 50
    assert shape.at(5.0) == 200


@given(st.integers(1, 400), st.integers(0, 300), st.integers(0, 1000))
def test_a_prompt_has_the_words_that_were_asked_for(words: int, shared: int, label: int) -> None:
    text = prompt(words, label=(label,), shared_words=shared)
    assert len(text.split()) == words


def test_no_two_prompts_begin_alike_unless_they_share():
    texts = [prompt(30, label=(1, number)) for number in range(2000)]
    assert len({tuple(text.split()[:6]) for text in texts}) == 2000
    shared = [prompt(30, label=(1, number), shared_words=20) for number in range(100)]
    assert len({tuple(text.split()[:20]) for text in shared}) == 1
    assert len(set(shared)) == 100


def test_two_prompts_tell_how_words_become_tokens():
    found = fitted((20, 52), (120, 162))
    assert (found.per_word, found.overhead) == (pytest.approx(1.1), pytest.approx(30.0))
    assert found.words(140) == 100
    assert found.words(3) == 1
    assert fitted((20, 0), (120, 0)) == Scale()
