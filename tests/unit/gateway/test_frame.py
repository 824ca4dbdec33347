"""Framing of an engine's answer: whatever the cuts, the same bytes mean the same."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.wire.frame import (
    BadFramingError,
    BodyFrame,
    ChunkedFrame,
    SizedFrame,
    UntilCloseFrame,
    is_one_chunk,
)

EXTENSIONS = st.sampled_from([b"", b";", b";a", b";a=b", b'; a="b c"', b" ;x", b"\t"])
CHUNKS = st.lists(st.tuples(st.binary(min_size=1, max_size=40), EXTENSIONS), max_size=6)
TRAILERS = st.lists(st.sampled_from([b"a: b", b"digest: x=y", b"z:"]), max_size=3)
CUTS = st.lists(st.integers(0, 400), max_size=12)


class Whole:
    """A chunked body with what is true of it: its payload and the offsets where a chunk may follow."""

    def __init__(self, chunks: list[tuple[bytes, bytes]], trailers: list[bytes], *, upper: bool) -> None:
        self.data = b""
        self.borders = set()
        for payload, extension in chunks:
            self.borders.add(len(self.data))
            size = b"%X" % len(payload) if upper else b"%x" % len(payload)
            self.data += size + extension + b"\r\n" + payload + b"\r\n"
        self.borders.add(len(self.data))
        self.data += b"0\r\n" + b"".join(t + b"\r\n" for t in trailers) + b"\r\n"
        self.payload = b"".join(payload for payload, _ in chunks)


WHOLE = st.builds(Whole, CHUNKS, TRAILERS, upper=st.booleans())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


@given(WHOLE, CUTS, st.binary(max_size=5))
def test_a_chunked_body_is_followed_the_same_wherever_it_is_cut(
    whole: Whole, places: list[int], after: bytes
) -> None:
    frame, spliced = ChunkedFrame(), ChunkedFrame()
    offset, payload = 0, b""
    pieces = cut(whole.data, places)
    for number, piece in enumerate(pieces):
        data = piece + (after if number == len(pieces) - 1 else b"")
        used, parts = frame.payload(data)
        assert spliced.feed(data) == used == len(piece)
        offset, payload = offset + used, payload + b"".join(parts)
        assert frame.at_border == spliced.at_border == (offset in whole.borders)
        assert frame.done == spliced.done == (offset == len(whole.data))
    assert payload == whole.payload


@given(WHOLE)
def test_one_read_per_chunk_is_the_fast_path_and_tells_the_same(whole: Whole) -> None:
    frame = ChunkedFrame()
    for piece in cut(whole.data, sorted(whole.borders)):
        assert frame.feed(piece) == len(piece)
        assert frame.done or frame.at_border
    assert frame.done


NEAR_CHUNKED = st.lists(
    st.one_of(
        st.sampled_from([b"\r\n", b"\n", b"\r", b"0", b"1", b"a", b";x", b" ", b"5\r\nhello\r\n", b"0\r\n\r\n", b"0x1"]),
        st.binary(max_size=4),
    ),
    max_size=12,
).map(b"".join)  # fmt: skip


def followed(frame: ChunkedFrame, piece: bytes, *, splicing: bool) -> tuple[object, ...]:
    try:
        used = frame.feed(piece) if splicing else frame.payload(piece)[0]
    except BadFramingError:
        return ("bad",)
    assert 0 <= used <= len(piece)
    return used, frame.done, frame.at_border


@given(NEAR_CHUNKED, CUTS)
def test_garbage_is_refused_or_followed_alike_on_both_paths_and_raises_nothing_else(
    data: bytes, places: list[int]
) -> None:
    fast, slow = ChunkedFrame(), ChunkedFrame()
    for piece in cut(data, places):
        outcome = followed(fast, piece, splicing=True)
        assert outcome == followed(slow, piece, splicing=False)
        if outcome == ("bad",) or fast.done:
            break


@given(WHOLE, st.data())
def test_a_changed_byte_of_the_framing_is_never_read_past_the_end(whole: Whole, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(whole.data) - 1))
    broken = whole.data[:at] + data.draw(st.binary(max_size=2)) + whole.data[at + 1 :]
    fast, slow = ChunkedFrame(), ChunkedFrame()
    assert followed(fast, broken, splicing=True) == followed(slow, broken, splicing=False)


BAD = {
    "sign": b"-1\r\na\r\n", "plus": b"+1\r\na\r\n", "prefix": b"0x1\r\na\r\n", "underscore": b"1_0\r\n", "no digits": b"\r\n",
    "only an extension": b";a\r\n", "not hex": b"g\r\n", "17 digits": b"00000000000000001\r\na\r\n", "inner space": b"1 1\r\n",
    "bare LF after the size": b"1\na\r\n", "bare LF in an extension": b"1;a\nb\r\na\r\n", "bare CR in an extension": b"1;a\rb\r\na\r\n",
    "data too long": b"1\r\nab\r\n", "data ends in LF": b"1\r\na\n", "no CRLF after data": b"1\r\na0\r\n\r\n",
    "bare LF ends the trailer": b"0\r\n\n", "trailer with bare LF": b"0\r\na: b\n\r\n", "endless size line": b"1;" + b"x" * 300,
    "endless trailer line": b"0\r\n" + b"x" * 8200, "endless trailer": b"0\r\n" + b"a: bcdef\r\n" * 1100,
    "vertical tab": b"\x0b1\r\na\r\n", "NUL": b"1\x00\r\na\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_bad_chunked_framing_is_refused(name: str, step: int) -> None:
    pieces = cut(BAD[name], list(range(0, len(BAD[name]), step)))
    for follow in (ChunkedFrame.feed, ChunkedFrame.payload):
        frame = ChunkedFrame()
        with pytest.raises(BadFramingError):
            [follow(frame, piece) for piece in pieces]


def test_a_64_bit_size_is_followed_without_holding_anything() -> None:
    frame = ChunkedFrame()
    assert frame.feed(b"ffffffffffffffff\r\n" + b"x" * 1000) == 1018
    assert not frame.done
    assert not frame.at_border


def test_after_a_failure_the_border_tells_what_was_passed_on_before() -> None:
    frame = ChunkedFrame()
    frame.feed(b"1\r\na\r\n")
    with pytest.raises(BadFramingError):
        frame.feed(b"zz\r\n")
    assert frame.at_border


@given(st.binary(max_size=60), st.integers(0, 60), CUTS)
def test_a_sized_body_ends_exactly_at_its_length(data: bytes, length: int, places: list[int]) -> None:
    frame, offset = SizedFrame(length), 0
    assert frame.done == (length == 0)
    for piece in cut(data, places):
        used, parts = frame.payload(piece)
        assert b"".join(parts) == piece[:used]
        assert used == min(len(piece), max(0, length - offset))
        offset += used
        assert frame.done == (offset == length)
    assert not frame.at_border


@pytest.mark.parametrize("frame", [UntilCloseFrame(), SizedFrame(10)])
def test_only_chunked_bodies_have_a_place_for_a_message(frame: BodyFrame) -> None:
    assert frame.feed(b"abc") == 3
    assert not frame.done
    assert not frame.at_border


def test_until_close_takes_everything_and_never_ends_by_itself() -> None:
    frame = UntilCloseFrame()
    assert frame.payload(b"0\r\n\r\n") == (5, [b"0\r\n\r\n"])
    assert not frame.done


@given(size=st.integers(0, 300), extra=st.binary(max_size=6), cut=st.integers(0, 8))
def test_one_whole_chunk_is_what_feeding_would_take_too(size: int, extra: bytes, cut: int) -> None:
    data = b"%x\r\n%b\r\n" % (size, b"a" * size) + extra
    data = data[: len(data) - cut]
    warm, frame = ChunkedFrame(), ChunkedFrame()
    warm.feed(b"%x\r\n%b\r\n" % (size, b"a" * size))
    if is_one_chunk(data):
        assert frame.feed(data) == len(data)
        assert frame.at_border
        assert not frame.done
        assert data == b"%x\r\n%b\r\n" % (size, b"a" * size)
    else:
        assert size == 0 or extra or cut
