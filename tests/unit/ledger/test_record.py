"""Frames: whatever is torn is recognised, whatever is whole is found, wherever the bytes are cut."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from freehold.ledger.records.record import HEAD_BYTES, MAGIC, Basis, LedgerRecord, Outcome, frame, read_frames


def record(seq: int = 1, **more: object) -> LedgerRecord:
    told = {
        "run": 2**62 - 1, "seq": seq, "time_us": 1_795_485_060_000_000, "request_id": f"req-{seq}", "key_id": "",
        "model": "m", "path": "/v1/chat/completions", "endpoint": "m-0", "status": 200,
        "outcome": Outcome.COMPLETE, "basis": Basis.MEASURED, "stream": True, "prompt_tokens": 31,
        "completion_tokens": 5,
    }  # fmt: skip
    return LedgerRecord(**(told | more))


ALPHABET = 'az0-"€\xf5\x1d\n'
records = st.builds(
    record,
    st.integers(1, 2**40),
    request_id=st.text(ALPHABET, max_size=128),
    model=st.text(ALPHABET, max_size=63),
    prompt_tokens=st.none() | st.integers(0, 2**53),
    completion_tokens=st.none() | st.integers(0, 2**53),
    outcome=st.sampled_from(Outcome),
    basis=st.sampled_from(Basis),
    cost_usd=st.none() | st.just("0.0000123"),
)


@given(st.lists(records, max_size=5))
def test_what_was_written_is_read(written: list[LedgerRecord]) -> None:
    data = b"".join(map(frame, written))
    found = read_frames(data)
    assert found.records == written
    assert (found.used_bytes, found.torn_bytes) == (len(data), 0)


@given(st.lists(records, min_size=1, max_size=4), st.data())
def test_a_torn_end_costs_only_the_last_record(written: list[LedgerRecord], data: st.DataObject) -> None:
    frames = list(map(frame, written))
    cut = data.draw(st.integers(1, len(frames[-1])))
    found = read_frames(b"".join(frames)[:-cut])
    assert found.records == written[:-1]
    assert found.used_bytes == sum(map(len, frames[:-1]))


@given(records, records, st.binary(max_size=40))
def test_nonsense_in_between_is_skipped_and_counted(
    first: LedgerRecord, second: LedgerRecord, nonsense: bytes
) -> None:
    # The nonsense may by chance swallow what follows only if it claims to be a frame of its own with a right CRC.
    found = read_frames(frame(first) + nonsense + frame(second))
    assert found.records == [first, second]
    assert found.torn_bytes == len(nonsense)


@given(records, st.data())
def test_a_flipped_bit_is_noticed(written: LedgerRecord, data: st.DataObject) -> None:
    raw = bytearray(frame(written))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    assert read_frames(bytes(raw)).records == []


def test_a_frame_of_something_else_is_no_record() -> None:
    alien = msgspec.msgpack.encode({"not": "a record"})
    good = frame(record())
    raw = good[:HEAD_BYTES].replace(good[2:4], len(alien).to_bytes(2, "little")) + alien
    assert raw.startswith(MAGIC)
    assert read_frames(raw + good).records == [record()]


def test_a_record_is_small() -> None:
    assert (
        len(
            frame(
                record(request_id="req-0123456789abcdef-1a", model="smollm2-135m", endpoint="smollm2-135m-0")
            )
        )
        < 160
    )


def test_a_spool_of_an_older_release_is_read() -> None:
    fields = msgspec.structs.astuple(record())[:-3]  # without what came last
    payload = msgspec.msgpack.encode(fields)
    import struct  # noqa: PLC0415
    import zlib  # noqa: PLC0415

    old = struct.pack("<2sHI", MAGIC, len(payload), zlib.crc32(payload)) + payload
    assert read_frames(old).records == [record()]
