"""Large bodies: a thread reads them, so that the loop goes on; what they take of memory is bounded. `benchmarks/bodies.py` has the times."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway_rig.client import Client, get, post
from gateway_rig.engines import Engine
from gateway_rig.large_bodies import KEYS_64000, SHAPES
from gateway_rig.memory import MemoryGateway
from gateway_rig.process import Gateway, model, running

GROWTH_MAX = 4
"""Times the body's bytes that the process may grow."""
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def gateway(the_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Give a gateway with bodies as large as by default, whose model fetches nothing."""
    with running(
        tmp_path_factory.mktemp("large"), [model("m", the_engine) | {"media_urls": False}]
    ) as gateway:
        yield gateway


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryGateway]:
    rig = MemoryGateway(monkeypatch)
    rig.renew()
    yield rig
    rig.close()


def grown_bytes(gateway: Gateway, body: bytes) -> int:
    """Return by how many bytes the process was larger at most than before, while it answered this body."""
    folder = Path(f"/proc/{gateway.process.pid}")
    (folder / "clear_refs").write_text("5")  # the peak starts anew (proc(5))
    before = gateway.rss_bytes()
    send(gateway, body)
    (peak,) = (line for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024 - before


def send(gateway: Gateway, body: bytes) -> int:
    with gateway.client() as client:
        return client.ask(post(body)).status


@pytest.mark.parametrize("name", SHAPES)
def test_a_large_body_takes_a_few_times_its_size(name: str, gateway: Gateway, engine: Engine) -> None:
    del engine
    growth = grown_bytes(gateway, SHAPES[name]) / len(SHAPES[name])
    assert growth <= GROWTH_MAX, f"{growth:.1f} times the body"


def test_the_loop_answers_others_before_a_large_body_is_read(rig: MemoryGateway) -> None:
    body = json.dumps({"model": "?", "messages": ["x" * MIB]})
    large, other = rig.client(), rig.client()

    async def both() -> None:
        large.wire.send(post(body.encode()))
        other.wire.send(get("/livez"))
        assert b" 200 " in other.wire.written
        assert not large.wire.written
        assert rig.gateway.body_memory.held_bytes > MIB  # it keeps its room until it is read
        await rig.gateway.in_thread(lambda: None)  # what is read, is read one after the other

    rig.loop.run_until_complete(both())
    rig.settle(large.wire)
    assert b"model_not_found" in large.wire.written
    assert rig.gateway.body_memory.held_bytes == 0
    large.leave()
    other.leave()


def test_64000_keys_are_rejected_and_reach_no_engine(client: Client, engine: Engine) -> None:
    answer = client.ask(post(KEYS_64000))
    assert (answer.status, answer.error["code"]) == (400, "body_too_complex")
    assert not engine.received


def test_requests_behind_a_large_one_are_answered_after_it(client: Client, engine: Engine) -> None:
    client.send(post(SHAPES["a picture"]) + post(SHAPES["keys"]) + get("/livez"))
    assert [client.read_answer().status for _ in range(3)] == [200, 400, 200]
    assert engine.received.count(b"POST ") == 1


def test_a_client_that_leaves_while_its_body_is_read_asks_no_engine(gateway: Gateway, engine: Engine) -> None:
    with gateway.client() as client:
        client.send(post(SHAPES["quotes in a text"]))
    # Read one after the other: once this one is answered, the one before was read too.
    assert send(gateway, SHAPES["keys"]) == 400
    assert not engine.received


def test_nothing_above_was_a_bug(gateway: Gateway) -> None:
    assert gateway.metric("freehold_bugs_total") == 0
    with contextlib.suppress(ConnectionError):
        assert gateway.metric("freehold_gateway_in_flight") == 0
