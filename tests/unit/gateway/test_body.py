"""What is read of a request's body, and that a rewritten body keeps all else."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.wire.body import (
    BodyFields,
    as_stream,
    asking_usage,
    read_body,
    refuse_shapes,
    rewrite,
    with_model,
)
from freehold.gateway.wire.errors import Rejection

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(
    model=NAMES, stream=st.sampled_from([True, False, None]), rest=st.dictionaries(NAMES, JSON, max_size=4)
)
def test_the_deciding_fields_are_read_and_the_rest_is_skipped(
    *, model: str, stream: bool | None, rest: dict[str, object]
) -> None:
    body = json.dumps(rest | {"model": model, "stream": stream}, ensure_ascii=len(model) % 2 == 0).encode()
    assert read_body(body) == BodyFields(model=model, stream=stream)


REFUSED = {
    b"": "invalid_json", b"{": "invalid_json", b"not json": "invalid_json", b"{'model':'a'}": "invalid_json",
    b'{"model":"a"} x': "invalid_json", b'{"model":"a","x":NaN}': "invalid_json", b'\xef\xbb\xbf{"model":"a"}': "invalid_json",
    b'{"model":"\xff"}': "invalid_json", b'{"model":"a","x":"\xff"}': "invalid_json", b'{"model":"a","\xff":1}': "invalid_json",
    b'{"model":"a","x":"\\ud800"}': "invalid_json", b'{"model":"a\x00"}': "invalid_json",
    b"null": "invalid_type", b"[]": "invalid_type", b'"a"': "invalid_type", b"1": "invalid_type",
    b'{"model":1}': "invalid_type", b'{"model":["a"]}': "invalid_type", b'{"model":"a","stream":"true"}': "invalid_type",
    b'{"model":"a","stream":1}': "invalid_type",
    b"{}": "missing_required_parameter", b'{"model":null}': "missing_required_parameter", b'{"model":""}': "missing_required_parameter",
}  # fmt: skip


@pytest.mark.parametrize("body", REFUSED)
def test_a_wrong_body_is_refused_in_words(body: bytes) -> None:
    refusal = read_body(body)
    assert isinstance(refusal, Rejection)
    assert (refusal.error.status, refusal.error.code) == (400, REFUSED[body])
    assert refusal.error.message
    assert not refusal.close


@pytest.mark.parametrize(
    ("body", "param"),
    [(b'{"model":1}', "model"), (b'{"model":"a","stream":"yes"}', "stream"), (b"{}", "model"), (b"[]", None)],
)
def test_a_refusal_names_the_parameter(body: bytes, param: str | None) -> None:
    refusal = read_body(body)
    assert isinstance(refusal, Rejection)
    assert refusal.error.param == param


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"model":"a","max_tokens":"x"}', "'max_tokens' must be a number, not a string."),
        ('{"model":"a","max_tokens":true}', "'max_tokens' must be a number, not a boolean."),
        ('{"model":"a","temperature":[]}', "'temperature' must be a number, not an array."),
        ('{"model":"a","logprobs":{}}', "'logprobs' must be a boolean or a number, not an object."),
        ('{"model":"a","stream":1}', "'stream' must be a boolean, not a number."),
        ('{"model":"a","seed":1e999}', "'seed' is a number outside any range."),
        ('{"model":"a","n":%s}' % ("9" * 9999), "'n' is a number outside any range."),
        ('{"model":"a","stop":5}', "'stop' must be a string or an array, not a number."),
        ('{"model":"a","stop":[5]}', "'stop[0]' must be a string, not a number."),
        ('{"model":"a","logit_bias":5}', "'logit_bias' must be an object or an array, not a number."),
        ("[]", "The body must be an object, not an array."),
        ("null", "The body must be an object, not null."),
    ],
)
def test_a_wrong_type_is_told_in_the_words_of_json(body: str, message: str) -> None:
    refusal = read_body(body.encode())
    assert isinstance(refusal, Rejection)
    assert (refusal.error.message, refusal.error.code) == (message, "invalid_type")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('"tools":[5]', "'tools[0]' must be an object, not a number."),
        ('"tools":{}', "'tools' must be an array, not an object."),
        ('"functions":"f"', "'functions' must be an array, not a string."),
        ('"tool_choice":5', "'tool_choice' must be a string or an object, not a number."),
        ('"response_format":[]', "'response_format' must be a string or an object, not an array."),
    ],
)
def test_a_value_that_no_api_has_is_refused_in_the_same_words_for_all_engines(
    value: str, message: str
) -> None:
    fields = read_body(b'{"model":"a",%b}' % value.encode())
    assert isinstance(fields, BodyFields)
    assert not fields.is_usual()
    refusal = refuse_shapes(fields)
    assert refusal is not None
    assert (refusal.error.message, refusal.error.code) == (message, "invalid_type")


@pytest.mark.parametrize(
    "value",
    [
        '"tools":[{"type":"function"}],"tool_choice":{"type":"any"},"messages": [ {"role":"user"}]',
        '"tools":[],"tool_choice":"auto","response_format":"mp3","stop":["a"],"logit_bias":[[1,false]]',
        '"tools":null,"functions":null,"tool_choice":null,"response_format":null,"messages":null',
        '"response_format":{"type":"text"},"logit_bias":{"1":-100},"stop":"a"',
    ],
)
def test_values_that_some_api_has_are_not_refused(value: str) -> None:
    fields = read_body(b'{"model":"a",%b}' % value.encode())
    assert isinstance(fields, BodyFields)
    assert refuse_shapes(fields) is None


def test_null_means_that_a_parameter_is_not_there() -> None:
    for name in BodyFields.__struct_fields__:
        if name != "model":
            assert isinstance(read_body(f'{{"model":"a","{name}":null}}'.encode()), BodyFields)


@pytest.mark.parametrize("opener", [b"[", b'{"a":'])
def test_huge_nesting_is_refused_not_followed(opener: bytes) -> None:
    refusal = read_body(b'{"model":"a","x":' + opener * 10_000)
    assert isinstance(refusal, Rejection)
    assert refusal.error.code == "invalid_json"


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_read_or_refused_and_what_is_read_can_be_rewritten(body: bytes) -> None:
    read = read_body(body)
    if isinstance(read, BodyFields):
        assert msgspec.json.decode(rewrite(body, {"model": msgspec.Raw(b'"z"')}))["model"] == "z"
    else:
        assert read.error.status == 400


@given(NAMES, st.dictionaries(NAMES, JSON, max_size=4))
def test_a_rewritten_body_keeps_every_other_value(model: str, rest: dict[str, object]) -> None:
    rest = {key: value for key, value in rest.items() if key not in {"model", "stream", "stream_options"}}
    body = json.dumps(rest | {"model": "old", "stream": False}).encode()
    assert json.loads(with_model(body, model)) == rest | {"model": model, "stream": False}
    streamed = json.loads(as_stream(body, with_usage=True))
    assert streamed == rest | {"model": "old", "stream": True, "stream_options": {"include_usage": True}}
    assert json.loads(as_stream(body, with_usage=False)) == rest | {"model": "old", "stream": True}


@pytest.mark.parametrize(
    ("asks", "one"),
    [
        ('"messages":[]', True),
        ('"prompt":"a"', True),
        ('"prompt":[1,2]', True),
        ('"prompt":["a"]', True),
        ('"prompt":"a","n":2', False),
        ('"prompt":["a","b"]', False),
        # What may be empty: llama.cpp answers it 200 and leaves the slot as another caller had it.
        ('"prompt":""', False),
        ('"prompt":[]', False),
        ('"prompt":[""]', False),
        ('"prompt":[[ ]]', False),
        ('"prompt":{"prompt_string":""}', False),
        ('"prompt":null', False),
    ],
)
def test_one_answer_to_one_prompt_that_is_not_empty(asks: str, *, one: bool) -> None:
    fields = read_body(b'{"model":"m",%b}' % asks.encode())
    assert not isinstance(fields, Rejection)
    assert fields.one_answer is one


def test_a_rewritten_body_keeps_the_bytes_of_numbers_and_text() -> None:
    body = b'{"model":"a","t":0.10000000000000000555,"s":"\\u00e9","n":1234567890123456789012,"e":1e400}'
    assert with_model(body, "b") == body.replace(b'"a"', b'"b"')


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("{}", '{"include_usage":true}'),
        ("null", '{"include_usage":true}'),
        ('{"include_usage":false}', '{"include_usage":true}'),
        ('{"include_usage": null, "continuous_usage_stats":true}', '{"include_usage":true}'),
        ('{"x":1e999, "y": 12345678901234567890123}', '{"x":1e999,"y":12345678901234567890123,"include_usage":true}'),
        ('{"include_usage":true}', None),
        ('{"include_usage":"yes"}', None),
        ('{"include_usage":1e999}', None),
        ("[]", None),
        ("1e999", None),
        ('"text"', None),
        ('{"x":' * 3000 + "1" + "}" * 3000, None),
    ],
)  # fmt: skip
def test_usage_is_asked_for_whatever_else_stands_beside_it(options: str, told: str | None) -> None:
    body = f'{{"model":"m","stream_options":{options},"z":1e999}}'.encode()
    read = read_body(body)
    if isinstance(read, Rejection):
        assert options.startswith('{"x":{')  # nested too deeply for anybody
        return
    asking = asking_usage(body, read.stream_options)
    expected = None if told is None else f'{{"model":"m","stream_options":{told},"z":1e999}}'.encode()
    assert asking == expected
