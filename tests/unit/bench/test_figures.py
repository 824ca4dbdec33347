"""From samples to figures: every rate and quantile by hand, and what must hold of any."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.bench.analysis.figures import SloBounds, Window, distribution, figures, keeps
from freehold.bench.analysis.load import ScheduledRequest
from freehold.bench.analysis.sample import Fate, RequestSample
from freehold.bench.analysis.sizes import Size
from freehold.core.spread import quantile

SLO = SloBounds(ttft_s=0.5, itl_s=0.1)
WINDOW = Window(since_s=10.0, until_s=20.0)


def sample(
    intended_s: float = 12.0,
    *,
    first_s: float = 0.2,
    gap_s: float = 0.05,
    tokens: int = 5,
    fate: Fate = "whole",
    wanted: int = 5,
) -> RequestSample:
    chunks = tuple(intended_s + first_s + gap_s * place for place in range(tokens))
    return RequestSample(
        ask=ScheduledRequest(number=0, at_s=None, size=Size(prompt_tokens=100, answer_tokens=wanted)),
        intended_s=intended_s,
        sent_s=intended_s + 0.01,
        end_s=chunks[-1] if chunks else intended_s + first_s,
        fate=fate,
        chunk_s=chunks,
        prompt_tokens=100,
        answer_tokens=tokens or None,
        counted=True,
    )


def test_one_whole_answer():
    found = figures([sample()], WINDOW, SLO)
    assert (found.requests, found.whole, found.refused, found.errors) == (1, 1, 0, {})
    assert found.requests_per_s == pytest.approx(0.1)
    assert found.prompt_tokens_per_s == pytest.approx(10.0)
    assert found.output_tokens_per_s == found.goodput_tokens_per_s == pytest.approx(0.5)
    assert found.ttft_s is not None
    assert found.token_s is not None
    assert found.ttft_s.p50 == pytest.approx(0.2)
    assert found.token_s.p50 == pytest.approx(0.05)
    assert found.late_s is not None
    assert found.late_s.most == pytest.approx(0.01)
    assert found.in_flight == pytest.approx((0.4 - 0.01) / 10)


def test_the_warm_up_and_what_comes_after_are_load_and_no_more():
    found = figures([sample(9.99), sample(20.0), sample(10.0)], WINDOW, SLO)
    assert found.requests == 1
    # The first one's tokens came within the window all the same.
    assert found.output_tokens_per_s == found.goodput_tokens_per_s == pytest.approx(1.0)


@pytest.mark.parametrize("round_s", [4.9, 5.2, 6.3, 7.4, 9.9, 11.0])
def test_callers_in_step_give_what_they_give_wherever_the_window_lies(round_s: float):
    """Eight callers ask at once, are answered together and ask again: a batch, as engines make one of them."""
    asked = [round_s * place for place in range(8)]
    asks = [sample(at_s, tokens=40, gap_s=(round_s - 0.2) / 40) for at_s in asked for _ in range(8)]
    found = figures(asks, WINDOW, SloBounds(ttft_s=0.5, itl_s=1.0))
    assert found.goodput_tokens_per_s == pytest.approx(8 * 40 / round_s, rel=0.05)


def test_goodput_needs_both_bounds():
    late, slow = sample(first_s=0.6), sample(gap_s=0.11)
    assert not keeps(late, SLO)
    assert not keeps(slow, SLO)
    assert keeps(sample(tokens=1), SLO)  # one token: no time between tokens
    found = figures([late, slow, sample(), sample(fate="cut")], WINDOW, SLO)
    assert found.slo_share == pytest.approx(0.25)
    assert found.goodput_tokens_per_s == pytest.approx(0.5)


def test_failures_stand_apart_by_kind():
    fates: tuple[Fate, ...] = ("refused", "refused", "cut", "timeout", "http_error", "connect", "cancelled")
    found = figures([sample(fate=fate, tokens=0) for fate in fates], WINDOW, SLO)
    assert (found.requests, found.whole, found.refused) == (6, 0, 2)
    assert found.errors == {"connect": 1, "cut": 1, "http_error": 1, "timeout": 1}
    assert found.token_s is None
    assert found.prompt_tokens is None
    assert found.slo_share == 0.0


def test_who_timed_out_without_a_token_waited_all_that_time():
    found = figures([sample(), sample(fate="timeout", tokens=0, first_s=8.0)], WINDOW, SLO)
    assert found.ttft_s is not None
    assert found.ttft_s.most == pytest.approx(8.0)
    assert found.ttft_s.count == 2


def test_nothing_was_asked():
    found = figures([], WINDOW, SLO)
    assert found.slo_share is None
    assert found.ttft_s is None
    assert found.output_tokens_per_s == 0.0


def test_answers_of_another_length_are_counted():
    assert figures([sample(wanted=6), sample()], WINDOW, SLO).wrong_length == 1


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_is_between_the_ends_and_grows(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = quantile(ordered, share)
    assert ordered[0] <= found <= ordered[-1]
    assert quantile(ordered, 0) <= found * (1 + 1e-12)
    assert quantile(ordered, 0.5) == pytest.approx(
        (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    )


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=50))
def test_a_distribution_leaves_out_what_is_unknown(values: list[float | None]) -> None:
    found = distribution(values)
    known = [value for value in values if value is not None]
    if found is None:
        assert not known
        return
    assert found.count == len(known)
    assert found.p50 <= found.p90 <= found.p95 <= found.p99 <= found.most == max(known)


FATES = st.sampled_from(("whole", "refused", "cut", "timeout", "cancelled"))


@given(
    st.lists(
        st.builds(
            sample,
            st.floats(0, 30),
            first_s=st.floats(0.001, 2),
            gap_s=st.floats(0, 0.3),
            tokens=st.integers(0, 20),
            fate=FATES,
        ),
        max_size=30,
    )
)
def test_what_holds_of_any_load(samples: list[RequestSample]) -> None:
    found = figures(samples, WINDOW, SLO)
    assert found.requests == found.whole + found.refused + sum(found.errors.values())
    assert found.goodput_tokens_per_s >= 0
    assert found.slo_share is None or 0 <= found.slo_share <= 1
    assert found.goodput_tokens_per_s <= found.output_tokens_per_s + 1e-9
