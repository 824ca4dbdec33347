import pytest

from freehold.gateway.body import read_body
from freehold.gateway.estimate import ANSWER_TOKENS, Estimate, read_usage
from freehold.gateway.refuse import Refusal


def test_a_cost_is_the_prompt_and_the_longest_answer() -> None:
    estimate = Estimate()
    assert estimate.cost_tokens(400, 50) == 150
    assert estimate.cost_tokens(400, 0) == 100 + ANSWER_TOKENS
    assert estimate.cost_tokens(0, 0) >= 1


def test_a_cost_is_never_more_than_the_context() -> None:
    assert Estimate(context_tokens=2048).cost_tokens(10_000_000, 10**9) == 2048


def test_real_usage_corrects_both_sides() -> None:
    estimate = Estimate()
    for _ in range(300):
        estimate.learn(1000, prompt_tokens=500, answer_tokens=20)
    assert estimate.cost_tokens(1000, 0) == pytest.approx(520, rel=0.02)
    estimate.learn(1000, prompt_tokens=0, answer_tokens=0)
    assert estimate.cost_tokens(1000, 100) == pytest.approx(600, rel=0.02)


def test_nonsense_in_usage_cannot_make_a_prompt_free_or_endless() -> None:
    estimate = Estimate()
    for _ in range(1000):
        estimate.learn(10**9, prompt_tokens=1, answer_tokens=1)
    assert estimate.cost_tokens(6400, 1) >= 100
    for _ in range(1000):
        estimate.learn(1, prompt_tokens=10**9, answer_tokens=1)
    assert estimate.cost_tokens(1000, 1) <= 2100


@pytest.mark.parametrize(
    ("tail", "usage"),
    [
        (b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}', (7, 5)),
        (b'"usage": {"completion_tokens": 5, "prompt_tokens": 7}, "timings": {"prompt_n": 1}}', (7, 5)),
        (b'{"usage":{"input_tokens":7,"output_tokens":5}}', (7, 5)),
        (b'data: {"usage":{"prompt_tokens":7,"completion_tokens":5}}\n\ndata: [DONE]\n\n', (7, 5)),
        (b'{"data":[],"usage":{"prompt_tokens":7,"total_tokens":7}}', (7, 0)),
        (b'{"text":"x","usage":{"prompt_tokens":7,"completion_tokens":5}}' + b" " * 1900, (7, 5)),
        (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n', None),
        (rb'{"content":"\"prompt_tokens\": 999, \"completion_tokens\": 9"}', None),
        (b"", None),
    ],
)
def test_usage_is_found_at_the_end_of_an_answer(tail: bytes, usage: tuple[int, int] | None) -> None:
    assert read_usage(b"x" * 5000 + tail) == usage


@pytest.mark.parametrize(
    ("limit", "tokens"),
    [
        (b'"max_tokens":16', 16), (b'"max_completion_tokens":17', 17), (b'"max_output_tokens":18', 18),
        (b'"max_tokens":null,"max_completion_tokens":5', 5), (b'"max_tokens":-1', 0), (b'"max_tokens":"16"', 0),
        (b'"max_tokens":[1]', 0), (b'"max_tokens":1.5', 0), (b'"n":1', 0),
    ],
)  # fmt: skip
def test_the_longest_answer_is_read_where_it_can_be(limit: bytes, tokens: int) -> None:
    asked = read_body(b'{"model":"m",' + limit + b"}")
    assert not isinstance(asked, Refusal)
    assert asked.answer_tokens == tokens
