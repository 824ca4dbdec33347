"""The tokens that a request may take: rough, total, never negative."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.wire.body import read_body
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.request_tokens import ANSWER_TOKENS, tokens_asked

CHAT = "/v1/chat/completions"


def asked(path: str = CHAT, **body: object) -> int:
    """Return the answer's part alone."""
    data = json.dumps({"model": "m", **body}).encode()
    read = read_body(data)
    assert not isinstance(read, Rejection)
    return tokens_asked(len(data), path, read.answer_tokens) - -(-len(data) // 4)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({}, ANSWER_TOKENS),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 8}, 8),
        ({"max_completion_tokens": 8, "max_tokens": 7}, 8),
        ({"max_completion_tokens": 1, "max_tokens": 100_000}, 100_000),
        ({"max_tokens": 1, "n_predict": 9}, 9),
        ({"max_tokens": 1, "max_output_tokens": None}, 1),
        ({"max_output_tokens": 9}, 9),
        ({"max_tokens": 7, "n": 3}, 21),
        ({"max_tokens": None}, ANSWER_TOKENS),
        ({"max_tokens": -1}, ANSWER_TOKENS),  # llama.cpp: as many as there is room for
        ({"max_tokens": 0}, ANSWER_TOKENS),
        ({"max_tokens": 7.5}, 8),
        ({"max_tokens": 7, "n": -2}, 7),
        ({"max_tokens": 7, "n": 2.5}, 21),
        ({"max_tokens": 10**12, "n": 10**12}, 10**12),
        ({"max_tokens": 2**60}, 10**12),
        ({"max_tokens": 1e300}, 10**12),
        ({"max_tokens": 7, "best_of": 20}, 140),
        ({"max_tokens": 7, "best_of": 20, "n": 30}, 210),
        ({"n": 3}, 3 * ANSWER_TOKENS),
        ({"prompt": "one", "max_tokens": 7}, 7),
        ({"prompt": [], "max_tokens": 7}, 7),
        ({"prompt": ["a"] * 100, "max_tokens": 7}, 700),
        ({"prompt": ["a"] * 100, "max_tokens": 7, "n": 2}, 1400),
        ({"prompt": ["a"] * 100}, 100 * ANSWER_TOKENS),
        ({"prompt": [1] * 100, "max_tokens": 7}, 7),
        ({"prompt": [[1, 2], [3]], "max_tokens": 7}, 14),
        ({"prompt": [1, [2], "x"], "max_tokens": 7}, 21),  # each a prompt, to llama.cpp
        ({"tools": [{"max_tokens": 7}]}, ANSWER_TOKENS),
    ],
)
def test_the_answer_is_what_its_limit_allows(body: dict[str, object], answer: int):
    assert asked(**body) == answer


def test_embeddings_have_no_answer():
    assert asked("/v1/embeddings", input="x", max_tokens=9) == asked("/v1/rerank", query="x") == 0


@given(st.integers(0, 10**9), st.integers(0, 10**12))
def test_any_body_has_a_size(body_bytes: int, max_tokens: int):
    assert tokens_asked(body_bytes, CHAT, max_tokens) >= -(-body_bytes // 4) + max_tokens
