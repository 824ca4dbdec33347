"""What leaves at the end of a turn: nothing overtakes it, it is in the ledger before, and nobody gets another's."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from freehold.gateway.answers.price import Price
from freehold.gateway.settings import FallbackSettings
from freehold.ledger.drainer import waiting_records
from freehold.ledger.spool import make_folder
from gateway_rig.client import ask, get
from gateway_rig.engines import ANSWER, STREAM_HEAD, STREAMED, chunk, whole
from gateway_rig.memory import MemoryGateway, Wire

CLOUD = FallbackSettings(
    name="cloud",
    url="http://127.0.0.1:2/v1",
    price=Price(input_picousd=1, cached_picousd=1, output_picousd=1),
    budget_picousd_per_day=10**12,
    shadow=1.0,
)
STREAM = STREAM_HEAD + chunk(STREAMED) + b"0\r\n\r\n"
ENDS = (whole(ANSWER).rpartition(b"\r\n\r\n")[2], b"[DONE]")
"""With what an answer of an engine is whole for its client."""


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    make_folder(tmp_path / "spool")
    return tmp_path / "spool"


@pytest.fixture
def rig(
    monkeypatch: pytest.MonkeyPatch, spool: Path, request: pytest.FixtureRequest
) -> Iterator[MemoryGateway]:
    rig = MemoryGateway(monkeypatch, spool_path=str(spool), fallbacks=getattr(request, "param", ()))
    rig.renew()
    yield rig
    rig.close()


def in_one_turn(rig: MemoryGateway, *things: Callable[[], object], wires: list[Wire]) -> None:
    """Let several things happen before the loop turns, then all that follows from them."""

    async def happen() -> None:
        for thing in things:
            thing()

    rig.loop.run_until_complete(happen())
    rig.settle(*wires)


def answer_all(wire: Wire) -> None:
    """Let an engine answer all that it is asked on this connection."""
    read_bytes = 0

    def answer() -> None:
        nonlocal read_bytes
        asked, read_bytes = bytes(wire.written[read_bytes:]), len(wire.written)
        for each in asked.split(b"POST ")[1:]:
            wire.send(STREAM if b'"stream": true' in each else whole(ANSWER))

    wire.on_write = answer


def test_no_answer_leaves_before_its_record(rig: MemoryGateway, spool: Path) -> None:
    rig.on_connect = answer_all
    clients = [rig.client() for _ in range(6)]
    wires = [client.wire for client in clients]
    early: list[int] = []

    def ended() -> int:
        return sum(wire.written.count(end) for wire in wires for end in ENDS)

    for client in clients:

        def write(data: bytes, wire: Wire = client.wire) -> None:
            wire.write(data)
            if ended() > len(waiting_records(spool)):
                early.append(ended())

        client.connection.write = write
    dice = random.Random(1)
    kinds = [ask(), ask() * 3, ask(stream=True) + ask(), get("/livez"), ask("none") + ask()]
    for _ in range(30):
        things = [lambda w=wire: w.send(dice.choice(kinds)) for wire in wires]
        in_one_turn(rig, *things, wires=wires)
    assert ended() == len(waiting_records(spool)) > 200
    assert not early


def test_who_half_closes_behind_his_answer_has_it(rig: MemoryGateway, spool: Path) -> None:
    client = rig.client()
    client.send(ask())
    (engine,) = rig.engine_wires
    in_one_turn(rig, lambda: engine.send(whole(ANSWER)), client.wire.end, wires=[client.wire])
    assert [record.outcome for record in waiting_records(spool)] == ["complete"]
    assert client.wire.written.endswith(ENDS[0])


def test_an_engine_that_speaks_before_it_is_asked_is_not_taken_for_an_answer(rig: MemoryGateway) -> None:
    rig.on_connect = answer_all
    client = rig.client()
    client.send(ask())
    (engine,) = rig.engine_wires
    client.wire.written.clear()
    stale = whole({"meant for": "nobody"})
    in_one_turn(rig, lambda: client.wire.send(ask()), lambda: engine.send(stale), wires=[client.wire])
    assert client.wire.written.endswith(ENDS[0]), "it was asked anew, on another connection"
    assert b"nobody" not in client.wire.written
    assert engine.closed
    assert [wire.written.count(b"POST ") for wire in rig.engine_wires] == [1, 1]


@pytest.mark.parametrize("rig", [(CLOUD,)], indirect=True)
def test_a_copys_record_is_written_when_its_answer_has_come(rig: MemoryGateway, spool: Path) -> None:
    client = rig.client()
    client.send(ask())
    (cloud,) = (wire for wire in rig.engine_wires if b"127.0.0.1:2" in wire.written)
    in_one_turn(rig, lambda: cloud.send(whole(ANSWER)), wires=[client.wire])
    assert [record.endpoint for record in waiting_records(spool)] == ["shadow/cloud"]
