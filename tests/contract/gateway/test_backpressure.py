"""Clients that do not read, and many that wait: what they may hold in the gateway, and that they slow nobody."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway_rig.client import Client, CutError, ask, get, post
from gateway_rig.engines import STREAM_HEAD, Call, Engine, chunk, healthy, never, streaming_then
from gateway_rig.process import Gateway, model, running
from gateway_rig.tls import Ca, TlsClient, needs_openssl
from waiting import wait_until


@pytest.fixture(scope="module")
def patient(the_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Give a gateway with the limits as they ship."""
    models = [model("m", the_engine)]
    with running(tmp_path_factory.mktemp("patient"), models) as gateway:
        yield gateway
        assert gateway.metric("freehold_bugs_total") == 0


# Clients that do not read

PIECE = chunk(b"data: " + b"x" * 16_370 + b"\n\n")
TOTAL_BYTES = 64 * 1024 * 1024


async def torrent(call: Call) -> None:
    """Send 64 MiB as fast as the gateway takes it."""
    call.send(STREAM_HEAD)
    for _ in range(TOTAL_BYTES // len(PIECE)):
        await call.room()
        if call.gone.is_set():
            return
        call.send(PIECE)
        call.sent_bytes += len(PIECE)
    call.send(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


def test_a_client_that_does_not_read_holds_little_and_slows_nobody(patient: Gateway, engine: Engine) -> None:
    engine.answer = torrent
    with patient.client() as warm:
        warm.send(ask("m", stream=True))
        warm.read_exactly(5_000_000)
    before = patient.rss_bytes()
    with contextlib.ExitStack() as stack:
        engine.calls.clear()
        stuck = [stack.enter_context(patient.client()) for _ in range(8)]
        for client in stuck:
            client.send(ask("m", stream=True))
        wait_until(lambda: len(engine.calls) == 8)
        taken = settled(lambda: sum(call.sent_bytes - call.unsent_bytes() for call in engine.calls))
        engine.answer = healthy
        started_s = time.monotonic()
        with patient.client() as other:
            for _ in range(100):
                assert other.ask(ask("m")).status == 200
        assert (time.monotonic() - started_s) / 100 < 0.05
        # Kernel buffers on the four sockets' ends included, the engine was stopped long before its 64 MiB.
        assert taken / 8 < 8 * 1024 * 1024
        assert (patient.rss_bytes() - before) / 8 < 1_000_000


@needs_openssl
def test_tls_adds_no_buffer_without_a_bound(engine: Engine, tmp_path: Path) -> None:
    ca = Ca(tmp_path / "ca")
    certificate, key = ca.issue("gateway")
    engine.answer = torrent
    with running(
        tmp_path,
        [model("m", engine)],
        new_client=lambda port: TlsClient(port, ca),
        tls={"certificate": certificate, "key": key},
    ) as gateway:
        with gateway.client() as warm:
            warm.send(ask("m", stream=True))
            warm.read_exactly(5_000_000)
        before = gateway.rss_bytes()
        with contextlib.ExitStack() as stack:
            engine.calls.clear()
            stuck = [stack.enter_context(gateway.client()) for _ in range(8)]
            for client in stuck:
                client.send(ask("m", stream=True))
            wait_until(lambda: len(engine.calls) == 8)
            taken = settled(lambda: sum(call.sent_bytes - call.unsent_bytes() for call in engine.calls))
            assert taken / 8 < 8 * 1024 * 1024
            assert (gateway.rss_bytes() - before) / 8 < 1_000_000


def settled(value: Callable[[], int]) -> int:
    """Return a number once it has stopped growing for a while."""
    last, since_s = value(), time.monotonic()

    def still() -> bool:
        nonlocal last, since_s
        now = value()
        if now != last:
            last, since_s = now, time.monotonic()
        return time.monotonic() - since_s > 0.3

    wait_until(still)
    return last


def test_a_paused_stream_goes_on_whole_when_its_client_reads_again(patient: Gateway, engine: Engine) -> None:
    engine.answer = torrent
    with patient.client() as client:
        client.send(ask("m", stream=True))
        wait_until(lambda: engine.calls)
        settled(lambda: engine.calls[0].sent_bytes)
        client.read_head()
        count = 0
        while data := client.read_chunk():
            count += len(data)
        assert count == (len(PIECE) - 8) * (TOTAL_BYTES // len(PIECE)) + len(b"data: [DONE]\n\n")


def test_five_hundred_idle_streams_cost_little_memory(patient: Gateway, engine: Engine) -> None:
    engine.answer = streaming_then(lambda _: None)

    def open_streams(count: int) -> list[Client]:
        clients = [patient.client() for _ in range(count)]
        for client in clients:
            client.send(ask("m", stream=True))
        for client in clients:
            client.read_head()
            client.read_chunk()
        return clients

    warm = open_streams(50)
    before = patient.rss_bytes()
    many = open_streams(500)
    per_stream = (patient.rss_bytes() - before) / 500
    for client in warm + many:
        client.leave()
    assert per_stream <= 15 * 1024
    wait_until(lambda: patient.metric("freehold_gateway_in_flight") == 0)
    wait_until(lambda: not engine.lines, what="every engine connection to be closed")


def test_a_client_that_stalls_for_too_long_is_cut(engine: Engine, tmp_path: Path) -> None:
    engine.answer = torrent
    with running(tmp_path, [model("m", engine)], client_stall_s=0.3) as gateway:
        with gateway.client() as client:
            client.send(ask("m", stream=True))
            wait_until(lambda: engine.calls)
            wait_until(engine.calls[0].gone.is_set, timeout_s=3, what="the engine to be stopped")
            with pytest.raises(CutError):
                client.read_exactly(TOTAL_BYTES)
        assert gateway.metric("freehold_gateway_cut_streams_total", reason="client_stall") == 1


def test_nothing_that_a_client_says_is_logged(patient: Gateway, engine: Engine) -> None:
    secret = "a-secret-of-the-caller"
    with patient.client() as client:
        client.ask(post(f'{{"model":"{secret}"}}'.encode(), extra=f"Authorization: Bearer {secret}\r\n"))
        client.ask(post(secret.encode()))
        client.ask(get(f"/{secret}"))
        engine.answer = never
        client.send(post({"model": "m", "prompt": secret}))
        wait_until(lambda: engine.calls)
    wait_until(engine.calls[0].gone.is_set)
    assert secret not in patient.log_path.read_text()
