"""Keys of conversations: the same while one grows, different between two, none where there is nothing to gain."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.endpoints.prefix_key import WORTH_BYTES, key_of

CHAT = "/v1/chat/completions"
ANSWER = {"role": "assistant", "content": "An answer that is long enough. " * 30}


def message(role: str, content: Any, *, role_last: bool = False) -> dict[str, Any]:
    return {"content": content, "role": role} if role_last else {"role": role, "content": content}


def chat(*messages: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [*messages], **more}).encode()


@given(
    system=st.text(max_size=2000),
    question=st.text(max_size=1000),
    role_last=st.booleans(),
    in_parts=st.booleans(),
    role=st.sampled_from(["system", "developer"]),
)
def test_a_conversation_keeps_its_key_while_it_grows(
    *,
    system: str,
    question: str,
    role_last: bool,
    in_parts: bool,
    role: str,
) -> None:
    asked: Any = [{"type": "text", "text": question}] if in_parts else question
    begun = [
        message(role, system, role_last=role_last),
        message("user", asked, role_last=role_last),
        ANSWER,
        message("user", "and then?"),
    ]
    second = key_of(CHAT, chat(*begun, max_tokens=8))
    third = key_of(CHAT, chat(*begun, ANSWER, message("user", "and " * 300), stream=True))
    first = key_of(CHAT, chat(*begun[:2], max_tokens=8))
    assert second == third != 0
    assert first in {0, second}


def test_only_a_conversation_worth_it_has_a_key() -> None:
    short = chat(message("user", "x"))
    assert key_of(CHAT, short) == 0
    start = short.index(b'"messages"')
    padded = short + b" " * (WORTH_BYTES - len(short) + start)
    assert key_of(CHAT, padded[:-1]) == 0
    assert key_of(CHAT, padded) != 0


LONG = "You are helpful. " * 200


@pytest.mark.parametrize(
    "other",
    [
        [message("system", LONG), message("user", "Why is the sky red?")],
        [message("system", "Do not. " + LONG), message("user", "Why is the sky blue?")],
        [message("user", LONG), ANSWER, message("user", "Why is the sky blue?")],
    ],
)
def test_conversations_differ_by_system_prompt_and_first_question(other: list[dict[str, Any]]) -> None:
    one = chat(message("system", LONG), message("user", "Why is the sky blue?"))
    assert key_of(CHAT, one) != key_of(CHAT, chat(*other))


def test_each_path_has_its_own_place_to_begin() -> None:
    def body(field: str, text: str) -> bytes:
        return json.dumps({"model": "m", field: text, "max_tokens": 9}).encode()

    for path, field in [("/v1/completions", "prompt"), ("/v1/responses", "input")]:
        assert key_of(path, body(field, LONG)) == key_of(path, body(field, LONG + "and more")) != 0
        assert key_of(path, body(field, LONG)) != key_of(path, body(field, "Now " + LONG))
        assert key_of(path, body("other", LONG)) == 0
    for path in ("/v1/embeddings", "/v1/rerank", "/anything"):
        assert key_of(path, body("input", LONG)) == 0


@given(st.binary(max_size=3000), st.sampled_from([CHAT, "/v1/completions", "/v1/responses", "/v1/messages"]))
def test_any_bytes_have_a_key_of_32_bits(data: bytes, path: str) -> None:
    assert 0 <= key_of(path, b'{"messages":"prompt""input"' + data) < 2**32


def test_keys_of_conversations_that_differ_in_a_number_spread() -> None:
    keys = [
        key_of(CHAT, chat(message("system", LONG), message("user", f"Question {n}"))) for n in range(1000)
    ]
    assert len(set(keys)) == 1000
    tenths = [sum(key * 10 >> 32 == tenth for key in keys) for tenth in range(10)]
    assert min(tenths) > 60
    assert max(tenths) < 150
