from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.events import Endpoint, ReplicaState
from freehold.telemetry.redact import (
    DEPTH_MAX,
    ITEMS_MAX,
    REDACTED,
    TEXT_CHARS_MAX,
    clean,
    clean_field,
    clean_text,
)

SECRET = "hunter2-very-secret"


@pytest.mark.parametrize(
    "key",
    [
        "authorization",
        "Authorization",
        "x-api-key",
        "api_key",
        "hf_token",
        "token",
        "Set-Cookie",
        "DB_PASSWORD",
    ],
)
def test_a_secret_key_hides_its_value(key: str) -> None:
    assert clean_field(key, SECRET) == REDACTED


@pytest.mark.parametrize("key", ["max_tokens", "tokens_total", "tokenizer", "key", "keyboard", "passed"])
def test_a_key_that_only_looks_like_one_is_kept(key: str) -> None:
    assert clean_field(key, "5") == "5"


@pytest.mark.parametrize("key", ["prompt", "messages", "input", "content", "body", "Choices"])
def test_what_a_person_wrote_is_withheld(key: str) -> None:
    shown = str(clean_field(key, [{"role": "user", "content": SECRET}]))
    assert shown == "[withheld: list of 1]"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"upstream said 401 for Bearer {SECRET}, giving up",
        f"GET http://user:{SECRET}@10.0.0.1:8000/v1",
        f"GET /v1/models?api_key={SECRET}&x=1",
        f"Endpoint(id='m-0', api_key='{SECRET}')",
        f'{{"password": "{SECRET}"}}',
        f"hf_token={SECRET}",
        f"basic {SECRET}==",
    ],
)
def test_a_secret_of_a_known_shape_is_taken_out_of_a_text(text: str) -> None:
    shown = clean_text(text)
    assert SECRET not in shown
    assert REDACTED in shown


@pytest.mark.parametrize(
    "text",
    ["max_tokens=5, n=1", "http://127.0.0.1:8000/v1", "basically fine", "replica m-0 is ready in 2.1 s"],
)
def test_a_harmless_text_is_unchanged(text: str) -> None:
    assert clean_text(text) == text


def test_structs_dataclasses_and_header_lists_are_searched() -> None:
    @dataclass
    class Login:
        password: str

    endpoint = Endpoint(
        id="m-0",
        model="m",
        url="http://127.0.0.1:1",
        engine="external",
        state=ReplicaState.READY,
        api_key=SECRET,
    )
    headers = [(b"Authorization", b"Bearer " + SECRET.encode()), (b"Host", b"here")]
    shown = clean({"endpoint": endpoint, "login": Login(SECRET), "headers": headers})
    assert SECRET not in repr(shown)
    assert shown["headers"][1] == ["Host", "here"]
    assert shown["endpoint"]["state"] == "ready"


def test_size_and_depth_are_bounded() -> None:
    long_text = clean_text("x" * (TEXT_CHARS_MAX + 7))
    assert long_text.endswith("… [7 more characters]")
    assert len(clean(list(range(ITEMS_MAX + 3)))) == ITEMS_MAX + 1
    assert clean({str(n): n for n in range(ITEMS_MAX + 3)})["more"] == 3
    loop: list[object] = []
    loop.append(loop)
    assert repr(clean(loop)).count("[") == DEPTH_MAX


def test_a_path_is_shown_by_its_repr() -> None:
    assert clean(Path("weights")) == repr(Path("weights"))


JSON_LIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.text(["\ud800", "é"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.binary(), inner),
    max_leaves=8,
)


@settings(max_examples=30)
@given(JSON_LIKE)
def test_whatever_comes_in_the_result_encodes_as_json(value: object) -> None:
    assert msgspec.json.encode(clean(value))
