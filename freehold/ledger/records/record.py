"""One request as the ledger knows it, and its frame in a spool. Pure.

A frame is a magic, the payload's length and CRC-32, and the payload (MessagePack, fields by position). So what a killed
process left half written, or what a bad write tore, is recognised and never taken for a record. A record holds no
prompt, no answer and no secret. What a request costs is worked out in the gateway, which knows the prices.
"""

import struct
import zlib
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

MAGIC = b"\xf5\x1d"
"""First bytes of a frame. Source: our own; 0xF5 is never part of UTF-8, so no text inside a record looks like it."""
_HEAD = struct.Struct("<2sHI")  # magic, length of the payload, CRC-32 of the payload; little-endian
HEAD_BYTES = _HEAD.size
PAYLOAD_BYTES_MAX = 0xFFFF
"""Longest payload: the length has 16 bits. A record has about 150 bytes, and under 1 KiB with the longest names."""


class Basis(StrEnum):
    """Where a record's token counts come from."""

    MEASURED = "measured"  # the engine's own usage
    ESTIMATED = (
        "estimated"  # no usage came; completion tokens are the chunks delivered, the prompt is unknown
    )
    UNKNOWN = "unknown"  # an answer of which nothing is known
    NONE = "none"  # no answer was made: nothing to count


class Outcome(StrEnum):
    """How a request ended."""

    COMPLETE = "complete"  # its whole answer was passed on
    CUT = "cut"  # the engine or the gateway ended it half-way
    ABANDONED = "abandoned"  # its client left
    FAILED = "failed"  # it got an error instead of an answer


class LedgerRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request that was sent to an engine. New fields go to the end, with a default: old spools stay readable."""

    run: int
    """Random number of the gateway process, 62 bits; with `seq` the record's identity."""
    seq: int
    """Counts the records of that process, from 1."""
    time_us: int
    """When the answer ended, Unix microseconds by the wall clock."""
    request_id: str
    key_id: str
    """Which API key asked; empty: no key was needed."""
    model: str
    path: str
    endpoint: str
    """The endpoint that answered last; empty: none was reached."""
    status: int
    """HTTP status; 499: the client left; 502 after a 200: the answer was cut."""
    outcome: Outcome
    basis: Basis
    stream: bool
    prompt_tokens: int | None = None
    """Tokens of the prompt, cached ones included; None: unknown."""
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    """Tokens of the answer; what they rest on says `basis`; None: unknown."""
    chunks: int = 0
    """Events of a stream that were passed on."""
    bytes: int = 0
    """Bytes of the answer's body that were passed on, framing included."""
    ttft_us: int | None = None
    duration_us: int = 0
    retries: int = 0
    cost_usd: str | None = None
    """What it cost, with exactly twelve places (see `money`); empty: it has a price, but its usage is not known; None: it
    has no price."""
    lost: int = 0
    """Records that were dropped since the one before, because the spool was full or could not be written."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(LedgerRecord)


def frame(record: LedgerRecord) -> bytes:
    """Return the bytes that stand for a record in a spool."""
    payload = _ENCODER.encode(record)
    return _HEAD.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload


@dataclass(slots=True)
class Frames:
    """What was found in a piece of a spool."""

    records: list[LedgerRecord] = field(default_factory=list)
    used_bytes: int = 0
    """Bytes up to the end of the last whole record: reading goes on there."""
    torn_bytes: int = 0
    """Bytes before that which were no record: skipped."""


def read_frames(data: bytes) -> Frames:
    """Return the whole records in `data`, which begins at a record's border.

    What follows the last whole record is not judged: it may be torn, or not all written yet.
    """
    found = Frames()
    at = 0
    while 0 <= at < len(data):
        record, end = _read_one(data, at)
        if record is None:
            at = data.find(MAGIC, at + 1)
            continue
        found.records.append(record)
        found.torn_bytes += at - found.used_bytes
        found.used_bytes = at = end
    return found


def _read_one(data: bytes, at: int) -> tuple[LedgerRecord | None, int]:
    """Return the record whose frame begins at `at` and where it ends, or None."""
    if len(data) - at < HEAD_BYTES:
        return None, at
    magic, size_bytes, crc = _HEAD.unpack_from(data, at)
    start = at + HEAD_BYTES
    payload = data[start : start + size_bytes]
    if magic != MAGIC or len(payload) != size_bytes or zlib.crc32(payload) != crc:
        return None, at
    try:
        return _DECODER.decode(payload), start + size_bytes
    except msgspec.MsgspecError:
        return None, at
