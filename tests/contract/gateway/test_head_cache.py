"""A gateway that knows its clients' heads answers, refuses and forwards as one that has every request parsed."""

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.exchange import attempt
from freehold.gateway.server.head_cache import HeadCache, KnownHead
from gateway_rig.client import ask
from gateway_rig.engines import ANSWER, STREAM_HEAD, STREAMED, chunk, whole
from gateway_rig.keys import Keys
from gateway_rig.memory import MemoryGateway, Wire
from gateway_rig.spoiling import PIECES, cut, fuzz, spoil

_OWN = re.compile(rb"req-[0-9a-f]+|\r\ndate: [^\r]+|\r\nx-ratelimit-[^\r]+")
"""What differs from one request to the next anyway."""
BITS = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"0", b"-", b"\r\n\r\n", b"\r\nContent-Length: 4", b" \r\n",
     b"\r\nTransfer-Encoding: chunked", b"\r\nConnection: close", b"\r\nX: y", b"\r\n folded", b"a" * 3000]
) | st.binary(max_size=4)  # fmt: skip


class Forgetful(HeadCache):
    """One that knows nothing, so that the parser reads every request."""

    def find(self, data: bytes) -> KnownHead | None:
        del data
        return None


class Twins:
    """Two gateways before engines that answer everything; one of them knows heads, and has met those of this test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], bearer: str) -> None:
        self.rigs = [MemoryGateway(monkeypatch, max_body_bytes=9000, **settings) for _ in range(2)]
        self.rigs[1].gateway.head_cache = Forgetful()
        self._monkeypatch = monkeypatch
        self.kinds = [
            ask("m", extra=bearer),
            ask("m", extra=bearer, stream=True),
            ask("m", extra=bearer, path="/v1/messages").replace(b"Content-Length", b"content-length"),
            ask("none", extra=bearer),
            ask("m", extra=bearer + "X-Request-Id: one\r\n"),
            ask("m", extra=bearer + "Connection: close\r\n"),
            ask("m" * 9500, extra=bearer),
            ask("m"),
        ]
        for rig in self.rigs:
            self.talk(rig, self.kinds * 2)

    def talk(self, rig: MemoryGateway, pieces: list[bytes]) -> tuple[bytes, bytes]:
        """Return what the client was answered and what the engine was asked, but for what is never the same."""
        asked: list[Wire] = []

        def answer(wire: Wire) -> None:
            asked.append(wire)
            wire.on_write = lambda: wire.send(
                STREAM_HEAD + chunk(STREAMED) + b"0\r\n\r\n"
                if wire.written.rpartition(b"POST ")[2].find(b'"stream":true') >= 0
                else whole(ANSWER)
            )

        self._monkeypatch.setattr(attempt, "connect", rig._connect)
        rig.on_connect = answer
        rig.renew()
        client = rig.client()
        for piece in pieces:
            client.send(piece)
        said = client.leave()
        return _OWN.sub(b"", said), _OWN.sub(b"", b"".join(bytes(wire.written) for wire in asked))

    def agree(self, pieces: list[bytes]) -> None:
        first, second = (self.talk(rig, pieces) for rig in self.rigs)
        assert first == second


@pytest.fixture(params=["open", "keys"])
def twins(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Twins]:
    keys = Keys(tmp_path)
    keys.add("caller", requests_per_minute=10**9)
    asked = request.param == "keys"
    twins = Twins(monkeypatch, keys.settings if asked else {}, keys.bearer("caller") if asked else "")
    yield twins
    for rig in twins.rigs:
        rig.close()


def test_heads_are_known_by_then(twins: Twins) -> None:
    for kind, known in zip(twins.kinds, (True, True, True, True, False, False, True, False), strict=True):
        keyless_is_known = kind == twins.kinds[-1] == twins.kinds[0]
        assert (twins.rigs[0].gateway.head_cache.find(kind) is not None) is (known or keyless_is_known)


def test_what_is_known_of_a_head_is_not_whether_it_is_taken(twins: Twins) -> None:
    gateway, asked = twins.rigs[0].gateway, twins.kinds[0]
    client = twins.rigs[0].client()

    def status() -> bytes:
        client.wire.written.clear()
        client.send(asked)
        return bytes(client.wire.written[9:12])

    def callers_are(**change: float | None) -> None:
        assert gateway.authenticator is not None
        for caller in gateway.authenticator._by_id.values():
            caller.change(msgspec.structs.replace(caller.record, **change), 0)

    twins.talk(twins.rigs[0], [asked])
    assert gateway.head_cache.find(asked) is not None
    gateway.retune(msgspec.structs.replace(gateway.context.settings, max_body_bytes=9))
    assert status() == b"413"
    gateway.retune(msgspec.structs.replace(gateway.context.settings, max_body_bytes=9000))
    if gateway.authenticator is not None:
        callers_are(revoked_s=1)
        assert status() == b"401"
        callers_are(revoked_s=None, expires_s=1)
        assert status() == b"401"
        callers_are(expires_s=None)
    gateway.context.draining = True
    assert status() == b"503"
    assert client.wire.closed


@pytest.mark.parametrize(
    "place",
    [
        b"a" * 40,
        b" " * 40,
        b"\r\nTransfer-Encoding: chunked\r\nX: yyyyyyy",
        b"\r\n\r\n" + b"x" * 36,
        b"%d" * 20,
    ],
)
@pytest.mark.parametrize("bearer", ["", "Authorization: Bearer fh-" + "k" * 40 + "\r\n"])
def test_what_stands_in_the_place_of_a_key_is_for_the_parser(twins: Twins, bearer: str, place: bytes) -> None:
    known = ask("m", extra=bearer) if bearer else twins.kinds[0]
    key_at = known.find(b"fh-") + len(b"fh-")
    assert len(place) == 40
    twins.agree([known, known, known[:key_at] + place + known[key_at + 40 :], known])


@fuzz(100)
@given(kinds=st.lists(st.integers(0, 7), min_size=1, max_size=6))
def test_whole_requests_one_after_another(twins: Twins, kinds: list[int]) -> None:
    twins.agree([twins.kinds[kind] for kind in kinds])


@fuzz(400)
@given(kinds=st.lists(st.integers(0, 7), min_size=1, max_size=3), places=PIECES, data=st.data())
def test_spoiled_requests(twins: Twins, kinds: list[int], places: list[int], data: st.DataObject) -> None:
    """The spoiled one comes in one read as well as in pieces, and behind sound ones."""
    spoiled = data.draw(spoil(twins.kinds[kinds[0]], BITS, most=2))
    rest = [twins.kinds[kind] for kind in kinds[1:]]
    twins.agree([*rest, spoiled])
    twins.agree([spoiled, *rest])
    twins.agree(cut(spoiled + b"".join(rest), places))


@pytest.mark.parametrize(
    "written",
    [
        "%d ",
        " %d",
        "+%d",
        "0%d",
        "0000000000%d",
        "-%d",
        "%d,%d",
        "%d.0",
        "0x%d",
        "1_%d",
        "",
        "x",
        "%d\r\n folded",
        "%d\r",
    ],
)
def test_lengths_that_are_not_written_as_the_known_one(twins: Twins, written: str) -> None:
    head, _, body = twins.kinds[0].partition(b"\r\n\r\n")
    length = b"%d" % len(body)
    odd = head.replace(b"Length: " + length, b"Length: " + written.replace("%d", length.decode()).encode())
    twins.agree([odd + b"\r\n\r\n" + body, twins.kinds[0]])
