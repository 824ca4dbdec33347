import pytest

from freehold.gateway.queue.token_estimate import ANSWER_TOKENS, TokenEstimate
from freehold.gateway.wire.body import read_body
from freehold.gateway.wire.errors import Rejection


def test_a_cost_is_the_prompt_and_the_longest_answer() -> None:
    estimate = TokenEstimate()
    assert estimate.cost_tokens(400, 50) == 150
    assert estimate.cost_tokens(400, 0) == 100 + ANSWER_TOKENS
    assert estimate.cost_tokens(0, 0) >= 1


def test_a_cost_is_never_more_than_the_context() -> None:
    assert TokenEstimate(context_tokens=2048).cost_tokens(10_000_000, 10**9) == 2048


def test_real_usage_corrects_both_sides() -> None:
    estimate = TokenEstimate()
    for _ in range(300):
        estimate.learn(1000, prompt_tokens=500, answer_tokens=20)
    assert estimate.cost_tokens(1000, 0) == pytest.approx(520, rel=0.02)
    estimate.learn(1000, prompt_tokens=0, answer_tokens=0)
    assert estimate.cost_tokens(1000, 100) == pytest.approx(600, rel=0.02)


def test_nonsense_in_usage_cannot_make_a_prompt_free_or_endless() -> None:
    estimate = TokenEstimate()
    for _ in range(1000):
        estimate.learn(10**9, prompt_tokens=1, answer_tokens=1)
    assert estimate.cost_tokens(6400, 1) >= 100
    for _ in range(1000):
        estimate.learn(1, prompt_tokens=10**9, answer_tokens=1)
    assert estimate.cost_tokens(1000, 1) <= 2100


@pytest.mark.parametrize(
    ("limit", "tokens"),
    [
        (b'"max_tokens":16', 16), (b'"max_completion_tokens":17', 17), (b'"max_output_tokens":18', 18),
        (b'"max_tokens":null,"max_completion_tokens":5', 5), (b'"max_tokens":-1', 0), (b'"max_tokens":1.5', 2), (b'"n":1', 0),
        (b'"max_tokens":3,"n":1', 3),
    ],
)  # fmt: skip
def test_the_longest_answer_is_read_where_it_can_be(limit: bytes, tokens: int) -> None:
    asked = read_body(b'{"model":"m",' + limit + b"}")
    assert not isinstance(asked, Rejection)
    assert asked.answer_tokens == tokens
