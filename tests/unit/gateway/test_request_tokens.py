"""The tokens that a request may take: rough, total, never negative."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.wire import request_tokens
from freehold.gateway.wire.body import read_body
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.request_tokens import ANSWER_TOKENS, TOKEN_BYTES_MAX, refuse_too_long, tokens_asked

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


# A prompt that no tokenizer brings into the context

CONTEXT = 4
MOST = CONTEXT * TOKEN_BYTES_MAX
LONG = "x" * (MOST + 1)
MANY = [{"role": "user", "content": "x" * TOKEN_BYTES_MAX}] * (CONTEXT + 1)
PARTS = [{"type": "text", "text": LONG}]
ANSWERED = [{"type": "tool_result", "content": PARTS}]
PICTURE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + LONG}}]
CHATS = ("/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens")


def too_long(body: dict[str, object], path: str = CHAT) -> bool:
    found = refuse_too_long(json.dumps(body, ensure_ascii=False).encode(), path, CONTEXT)
    assert found is None or (found.error.status, found.error.code) == (400, "context_length_exceeded")
    assert found is None or found.error.n_ctx == CONTEXT
    return found is not None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *((path, {"messages": [{"content": LONG}]}) for path in CHATS),
        *((path, {"messages": MANY}) for path in CHATS),
        *((path, {"messages": [{"content": PARTS}]}) for path in CHATS),
        ("/v1/messages", {"system": PARTS, "messages": []}),
        ("/v1/messages", {"messages": [{"content": ANSWERED}]}),
        ("/v1/responses", {"input": LONG}),
        ("/v1/responses", {"input": "x", "instructions": LONG}),
        ("/v1/responses", {"input": [{"type": "function_call_output", "output": LONG}]}),
        ("/v1/responses", {"input": [{"content": PARTS}], "truncation": "disabled"}),
        ("/v1/completions", {"prompt": LONG, "truncate_prompt_tokens": None}),
        ("/v1/completions", {"prompt": ["x", LONG]}),
    ],
)
def test_a_prompt_beyond_the_context_is_rejected(path: str, body: dict[str, object]):
    assert too_long(body, path)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [{"content": LONG[1:]}], "metadata": {"x": LONG}}),
        (CHAT, {"messages": [{"content": PICTURE}]}),
        (CHAT, {"messages": [{"content": "x", "reasoning_content": LONG}], "tools": [{"text": LONG}]}),
        (CHAT, {"messages": [{"content": LONG}], "truncate_prompt_tokens": -1}),
        ("/v1/messages", {"messages": [{"content": [{"type": "tool_use", "input": {"text": LONG}}]}]}),
        ("/v1/responses", {"input": LONG, "truncation": "auto"}),
        ("/v1/completions", {"prompt": ["x" * TOKEN_BYTES_MAX] * 9}),
        ("/v1/completions", {"prompt": [], "x": LONG}),
        ("/v1/completions", {"prompt": [1] * MOST}),  # an engine counts these at once
        ("/v1/completions", {"prompt": {"prompt_string": 5}, "x": LONG}),
        ("/v1/embeddings", {"input": LONG}),
        ("/v1/rerank", {"query": LONG}),
    ],
)
def test_one_that_may_fit_passes(path: str, body: dict[str, object]):
    assert not too_long(body, path)


@given(texts=st.lists(st.text(), max_size=5), ascii_only=st.booleans())
def test_no_text_counts_more_than_it_has(*, texts: list[str], ascii_only: bool):
    body = json.dumps({"messages": [{"content": text} for text in texts]}, ensure_ascii=ascii_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_tokens, "TOKEN_BYTES_MAX", 1)
        held = max(1, sum(len(text.encode("utf-8", "surrogatepass")) for text in texts))
        assert refuse_too_long(body.encode("utf-8", "surrogatepass"), CHAT, held) is None


@given(text=st.text(st.characters(max_codepoint=127), min_size=2), as_escapes=st.booleans())
def test_plain_text_counts_whole_however_it_is_written(*, text: str, as_escapes: bool):
    written = "".join(f"\\u{ord(each):04x}" for each in text) if as_escapes else json.dumps(text)[1:-1]
    body = f'{{"messages":[{{"content":"{written}"}}]}}'.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_tokens, "TOKEN_BYTES_MAX", 1)
        assert refuse_too_long(body, CHAT, len(text) - 1) is not None
