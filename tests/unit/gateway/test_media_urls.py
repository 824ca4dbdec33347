import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.wire.media_urls import refuse_addresses

PICTURE = "data:image/png;base64,AAAA"


def chat(*parts: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": list(parts)}]}).encode()


def image(url: object) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url}}


REFUSED = {
    "chat": chat(image("http://169.254.169.254/latest/meta-data")),
    "chat, shorter": chat({"type": "image_url", "image_url": "http://127.0.0.1:8080/"}),
    "a file": chat(image("file:///etc/passwd")),
    "without a scheme": chat(image("//host/x.png")),
    "the second of two": chat(image(PICTURE), image("https://host/x.png")),
    "a blank before data:": chat(image(" data:image/png;base64,AAAA")),
    "video": chat({"type": "video_url", "video_url": {"url": "https://host/x.mp4"}}),
    "responses": json.dumps(
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://h/x"}]}]}
    ).encode(),
    "messages": chat({"type": "image", "source": {"type": "url", "url": "https://host/x.png"}}),
    "beside a number that no decoder has room for": chat(image("http://h/"))[:-1] + b', "seed": 1e999}',
    "embeddings of SGLang": json.dumps({"input": [{"text": "x", "image": "http://h/x.png"}]}).encode(),
    "a file without a scheme": json.dumps({"input": [{"image": "/etc/x.png"}]}).encode(),
    "beside a tool's arguments": chat({"type": "tool_use", "input": {}, "source": {"url": "http://h/"}}),
    "in a tool's result": chat({"type": "tool_result", "content": [{"source": {"url": "http://h/"}}]}),
    "capitals": chat({"type": "image_url", "imageURL": "http://h/"}),
    "blanks before the colon": b'{"messages":[{"url"\t\r\n : \n"http://h/"}]}',
    "not quite data:": chat(image("data"), image("data.example/x")),
    "a scheme in escapes": chat(image("http://h/")).replace(b"http", b"\\u0068ttp"),
    "bare, in escapes": b'{"input":[{"\\u0069\\u006d\\u0061\\u0067\\u0065" : "http://h/"}]}',
    "written in escapes": chat(image("http://h/"))
    .replace(b"image_url", b"image_\\u0075rl")
    .replace(b'"url"', b'"\\u0075\\u0072\\u006c"'),
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_what_an_engine_would_fetch_is_refused(body: bytes) -> None:
    refusal = refuse_addresses(body)
    assert refusal is not None
    assert (refusal.error.status, refusal.error.code) == (400, "media_url_refused")


@pytest.mark.parametrize(
    "body",
    [
        chat(image(PICTURE), image(PICTURE.replace("data", "DATA"))),
        chat({"type": "text", "text": "what is at http://host/url?"}),
        json.dumps({"messages": [{"role": "user", "content": "see the url http://host"}]}).encode(),
        json.dumps({"messages": [], "tools": [{"function": {"parameters": {"url": "x"}}}]}).encode(),
        chat({"type": "output_text", "annotations": [{"type": "url_citation", "url": "https://h"}]}),
        b'{"model": "m", "messages": [{"content": "url", "seed": 1e999}]}',
        b'{"messages": null, "input": 7, "prompt": "url"}',
        chat({"type": "tool_use", "id": "1", "name": "fetch", "input": {"url": "https://host/page"}}),
        json.dumps({"input": [{"image": PICTURE}, {"text": "image"}]}).encode(),
    ],
)
def test_what_is_no_address_to_fetch_passes(body: bytes) -> None:
    assert refuse_addresses(body) is None


def test_what_even_python_cannot_read_is_a_400() -> None:
    refusal = refuse_addresses(
        b'{"messages": [{"url": "http://h"}], "seed": 1e999, "n": ' + b"1" * 5000 + b"}"
    )
    assert refusal is not None
    assert (refusal.error.status, refusal.error.code) == (400, "invalid_json")


def test_nesting_beyond_the_decoder_is_a_400() -> None:
    refusal = refuse_addresses(b'{"url":"http://h","x":' + b'{"a":' * 5000 + b"1" + b"}" * 5001)
    assert refusal is not None
    assert refusal.error.code == "invalid_json"


_JSON = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8) | st.just(PICTURE),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["url", "image_url", "text", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(_JSON, st.booleans())
def test_an_address_is_found_wherever_it_is_and_nothing_else_is(content: object, planted: bool) -> None:  # noqa: FBT001
    body = {"model": "m", "messages": [content, *([image("http://h/")] if planted else [])]}
    found = refuse_addresses(msgspec.json.encode(body))
    assert found is not None if planted else found is None or "url" in json.dumps(content)
