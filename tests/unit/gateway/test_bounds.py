"""What a body may hold: structure is bounded, texts and pictures are not."""

from random import Random

import pytest

from freehold.gateway.wire.bounds import (
    CONTAINERS_MAX,
    DEPTH_MAX,
    ELEMENTS_MAX,
    KEYS_MAX,
    LOOK_BYTES,
    is_deeper,
    too_complex,
)


def keys(count: int, *, more: str = "0") -> bytes:
    return b'{"model":"m",' + b",".join(b'"k%d":%b' % (i, more.encode()) for i in range(count - 1)) + b"}"


ALLOWED = {
    "as many keys as may be": keys(KEYS_MAX),
    "many objects of some keys": b'{"messages":['
    + b",".join([b'{"role":"user","content":"x"}'] * 10_000)
    + b"]}",
    "nested objects of some keys": keys(KEYS_MAX, more='{"a":1,"b":[{"c":2}]}'),
    "signs in a text": b'{"x":"' + b"{[:,]}" * 100_000 + b'"}',
    "signs in a text with quotes": b'{"x":"' + b'{\\"a\\":[1,\\\\\\"2\\"]}' * 50_000 + b'"}',
    "a text that ends in a backslash": b'{"x":"'
    + b":" * 4 * KEYS_MAX
    + b'\\\\","y":['
    + b"1," * 1000
    + b"1]}",
    "backslashes": b'{"x":"' + b"\\\\" * 1_100_000 + b":" * 5000 + b'"}',
    "a quote behind backslashes": b'{"x":"' + b"\\\\" * 300_000 + b'\\"' + b"{[:" * 5000 + b'"}',
    "as deep as may be": b"[" * DEPTH_MAX + b" " * LOOK_BYTES + b"]" * DEPTH_MAX,
    "a picture": b'{"x":"data:image/png;base64,' + b"QUJD" * 100_000 + b'"}',
    "a prompt of numbers": b'{"prompt":[' + b"1234," * 200_000 + b"1]}",
    "not JSON": b'"' * (LOOK_BYTES + 1),
    "closed more often than opened": b"}" * 100 + b",".join([keys(2000, more='""')] * 3),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_a_request_may_need_passes(name: str) -> None:
    assert len(ALLOWED[name]) > LOOK_BYTES
    assert too_complex(ALLOWED[name]) is None


REFUSED = {
    "64,000 keys": (keys(64_000), "keys in one object"),
    "one key too many": (keys(KEYS_MAX + 1), "keys in one object"),
    "many keys inside": (b'{"a":[{"b":{}},' + keys(KEYS_MAX + 1, more='{"c":[]}') + b"]}", "keys in one object"),
    "keys beside a text": (b'{"x":"\\\\\\"{","y":' + keys(KEYS_MAX + 1) + b"}", "keys in one object"),
    "arrays": (b"[" + b"[]," * (CONTAINERS_MAX + 1) + b"1]", "arrays and objects"),
    "objects": (b"[" + b"{}," * (CONTAINERS_MAX + 1) + b"1]", "arrays and objects"),
    "many opened": (b"[" * (CONTAINERS_MAX + 1), "arrays and objects"),
    "elements": (b"[" + b"1," * (ELEMENTS_MAX + 1) + b"1]", "elements"),
    "strings": (b"[" + b'"",' * (ELEMENTS_MAX + 1) + b"1]", "elements"),
    "behind a run of backslashes": (b'{"x":"' + b"\\\\" * 300_000 + b'","y":' + keys(KEYS_MAX + 1) + b"}", "keys in one object"),
    "nested": (b"[" * (DEPTH_MAX + 1) + b" " * LOOK_BYTES + b"]" * (DEPTH_MAX + 1), "arrays and objects in each other"),
    "arrays and objects in turn": (b'{"a":"}}","b":' + b'[{"c":' * 1001 + b'"]"' + b"}]" * 1001 + b" " * LOOK_BYTES + b"}", "arrays and objects in each other"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_more_structure_is_refused(name: str) -> None:
    body, what = REFUSED[name]
    rejection = too_complex(body)
    assert rejection is not None
    assert (rejection.error.status, rejection.error.code) == (400, "body_too_complex")
    assert rejection.error.message.endswith(f"{what}.")


def test_no_bound_can_be_passed_below_the_size_that_is_looked_at() -> None:
    assert LOOK_BYTES // len(b'"":0,') < KEYS_MAX
    assert min(CONTAINERS_MAX, ELEMENTS_MAX) > LOOK_BYTES // 2


def test_texts_hide_no_bracket_and_make_none_wherever_a_piece_ends() -> None:
    random = Random(7)
    for _ in range(60):
        outside = [bytes(random.choices(b"{}", k=20)) for _ in range(30)]
        inner = [b"\\\\", b'\\"', b"{", b"}", b"a" * random.choice([1, 20_000])]
        texts = [b"".join(random.choices(inner, k=random.choice([0, 9, 40]))) for _ in outside]
        body = b"".join(b'%b"%b"' % both for both in zip(outside, texts, strict=True))
        depth = pairs_in_each_other(b"".join(outside))
        assert (is_deeper(body, depth), is_deeper(body, depth - 1)) == (False, True)


def pairs_in_each_other(left: bytes) -> int:
    """Return how often pairs of brackets can be taken away."""
    turns = 0
    while b"{}" in left:
        left, turns = left.replace(b"{}", b""), turns + 1
    return turns
