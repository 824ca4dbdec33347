"""The mesh's datagram: one layout in which a node reports what it sent and what it received.

There are no replies. Each node sends at its own pace, and every datagram carries a *receipt*: which of the
receiver's own datagrams arrived, the last 128 of them bit by bit. So each direction is judged by its receiver, a lost receipt
costs nothing (the next 12 s of them repeat it), and it takes half the packets of an echo. A node cannot be used as an
amplifier, since what arrives never makes it send.

Frames are authenticated by a keyed BLAKE2s of the whole payload but its padding, so packets of strangers and of other
meshes are rejected. They are not encrypted, and a replay by an attacker who can read the wire looks like a
duplicate of the network: it can spoil counts for a moment, but it cannot silence a peer or speak for one that is
dead, as far as this agent has received its numbers (`mesh.stream`). Nothing here knows sockets or clocks.
"""

import hmac
import struct
from collections.abc import Sequence
from hashlib import blake2s

import msgspec

MAGIC = b"FHm1"
"""Freehold, health mesh, layout 1: another layout gets another magic and is ignored by this one."""
RECEIPT_BITS = 128
"""Of 10 a second, 12.8 s: many times the longest that a datagram is late, and 16 bytes."""
REPORTS_MAX = 16
"""Peers that a frame reports losses to: with more of them the worst 16, since a small frame has at most 200 bytes."""
LARGE_EVERY = 10
"""One datagram in ten is as large as the MTU (our own choice), by its number, so that a receiver
knows of one that did not come whether it was large."""
MOST = 0xFFFF
"""Largest number of lost datagrams that a report can say; more reads as this."""
KEY_BYTES_MIN = 16
"""128 bits: not to be guessed."""

_HEAD = struct.Struct("!4sB3xQQQIQ QI16sQI")
_REPORT = struct.Struct("!IH")
_TAG_BYTES = 16
"""128 bits of BLAKE2s (RFC 7693 allows 1 to 32 bytes)."""
SMALL_BYTES_MAX = _HEAD.size + REPORTS_MAX * _REPORT.size + _TAG_BYTES
"""Of a frame with all its reports and no padding."""
_HELD_US_MOST = 0xFFFFFFFF
"""Largest 32-bit number: 71 minutes; longer reads as this."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a node got of another's stream."""

    boot: int = 0
    """Of the stream that it received; 0: nothing received yet."""
    top: int = 0
    """The highest number that came."""
    bits: int = 0
    """Bit i: `top - i` came."""
    echo_ns: int = 0
    """The sender's time in `top`, given back."""
    held_us: int = 0
    """From its arrival at the host to this receipt."""


NOTHING_RECEIVED = Receipt()


class MeshFrame(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One datagram."""

    sender: int
    """`node_id` of it."""
    receiver: int
    boot: int
    """Drawn anew at each start of the sender's agent: its numbers begin again."""
    sequence: int
    sent_ns: int
    """The sender's own monotonic clock; only that node may compare it."""
    receipt: Receipt = NOTHING_RECEIVED
    reports: bytes = b""
    """Of `pack_reports`; read by `unpack_reports` only when needed, since most frames repeat them."""


def node_id(name: str) -> int:
    """Return a node's 64-bit number: the first 8 bytes of BLAKE2s of its name."""
    return int.from_bytes(blake2s(name.encode(), digest_size=8).digest(), "big")


def report_id(node: int) -> int:
    """Return the 32 bits by which a report names a node."""
    return node >> 32


def is_large(sequence: int) -> bool:
    """Return whether the datagram with this number is padded to the path's MTU."""
    return sequence % LARGE_EVERY == LARGE_EVERY - 1


def pack_reports(reports: Sequence[tuple[int, int]]) -> bytes:
    """Return the bytes of up to 16 pairs: (`report_id` of a node, datagrams lost to it within 60 s)."""
    return b"".join([_REPORT.pack(node, min(lost, MOST)) for node, lost in reports[:REPORTS_MAX]])


def unpack_reports(data: bytes) -> list[tuple[int, int]]:
    """Return the pairs."""
    return list(_REPORT.iter_unpack(data))


def encode(frame: MeshFrame, key: bytes, *, size: int = 0) -> bytes:
    """Return the payload, padded with zeros to `size` bytes; never cut."""
    receipt = frame.receipt
    held_us = receipt.held_us
    body = (
        _HEAD.pack(
            MAGIC,
            len(frame.reports) // _REPORT.size,
            frame.sender,
            frame.receiver,
            frame.boot,
            frame.sequence,
            frame.sent_ns,
            receipt.boot,
            receipt.top,
            receipt.bits.to_bytes(16, "big"),
            receipt.echo_ns,
            min(_HELD_US_MOST, held_us),
        )
        + frame.reports
    )
    data = body + _tag(body, key)
    return data.ljust(size, b"\0") if size else data


def decode(data: bytes, key: bytes) -> MeshFrame | None:
    """Return the frame; None for anything that is not one of this mesh's."""
    if len(data) < _HEAD.size + _TAG_BYTES or data[:4] != MAGIC:
        return None
    end = _HEAD.size + data[4] * _REPORT.size
    if data[4] > REPORTS_MAX or not hmac.compare_digest(_tag(data[:end], key), data[end : end + _TAG_BYTES]):
        return None
    _, _, sender, receiver, boot, sequence, sent_ns, of_boot, top, bits, echo_ns, held_us = _HEAD.unpack_from(
        data
    )
    came = int.from_bytes(bits, "big")
    return MeshFrame(
        sender=sender,
        receiver=receiver,
        boot=boot,
        sequence=sequence,
        sent_ns=sent_ns,
        receipt=Receipt(boot=of_boot, top=top, bits=came, echo_ns=echo_ns, held_us=held_us),
        reports=data[_HEAD.size : end],
    )


def _tag(body: bytes, key: bytes) -> bytes:
    return blake2s(body, key=key, digest_size=_TAG_BYTES).digest()
