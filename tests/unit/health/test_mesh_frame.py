"""A frame comes back as it was, and nothing that was not made with the key is one."""

from hypothesis import given
from hypothesis import strategies as st

from freehold.health.mesh.frame import (
    MOST,
    REPORTS_MAX,
    SMALL_BYTES_MAX,
    MeshFrame,
    Receipt,
    decode,
    encode,
    is_large,
    node_id,
    pack_reports,
    unpack_reports,
)

KEY = b"k" * 32
U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
RECEIPTS = st.builds(Receipt, boot=U64, top=U32, bits=st.integers(0, 2**128 - 1), echo_ns=U64, held_us=U32)
FRAMES = st.builds(
    MeshFrame,
    sender=U64,
    receiver=U64,
    boot=U64,
    sequence=U32,
    sent_ns=U64,
    receipt=RECEIPTS,
    reports=st.lists(st.tuples(U32, st.integers(0, MOST)), max_size=REPORTS_MAX).map(pack_reports),
)
PLAIN = MeshFrame(sender=1, receiver=2, boot=3, sequence=4, sent_ns=5)


@given(FRAMES, st.integers(0, 1472))
def test_a_frame_comes_back_as_it_was(frame: MeshFrame, size: int) -> None:
    data = encode(frame, KEY, size=size)
    assert decode(data, KEY) == frame
    assert len(data) == max(size, len(encode(frame, KEY)))
    assert 64 <= len(encode(frame, KEY)) <= SMALL_BYTES_MAX <= 200


@given(st.binary(max_size=300))
def test_noise_is_no_frame(data: bytes) -> None:
    assert decode(data, KEY) is None


@given(FRAMES, st.data())
def test_one_changed_byte_is_no_frame(frame: MeshFrame, data: st.DataObject) -> None:
    whole = encode(frame, KEY)
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    assert decode(changed, KEY) in {None, frame}  # the three spare bytes of the head are covered as well
    assert decode(changed, KEY) is None


@given(FRAMES, st.integers(0, 400))
def test_a_cut_frame_is_none(frame: MeshFrame, length: int) -> None:
    whole = encode(frame, KEY)
    if length < len(whole):
        assert decode(whole[:length], KEY) is None


def test_another_mesh_is_not_taken() -> None:
    assert decode(encode(PLAIN, KEY), b"x" * 32) is None


def test_numbers_too_large_for_their_field_are_capped_and_reports_beyond_16_left_out() -> None:
    many = tuple((index, 70_000) for index in range(20))
    frame = MeshFrame(
        sender=1,
        receiver=2,
        boot=3,
        sequence=4,
        sent_ns=5,
        receipt=Receipt(held_us=2**40),
        reports=pack_reports(many),
    )
    back = decode(encode(frame, KEY), KEY)
    assert back
    assert back.receipt.held_us == 2**32 - 1
    assert unpack_reports(back.reports) == [(index, MOST) for index in range(REPORTS_MAX)]


def test_one_in_ten_is_large_and_names_give_stable_ids() -> None:
    assert sum(map(is_large, range(1000))) == 100
    assert node_id("a") == node_id("a") != node_id("b")
