"""Silence of every kind: an engine inside its answer, a gateway that lives but does nothing; and the kernel's share."""

import asyncio
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from freehold.core.events import ModelEntry, Snapshot
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.exchange.upstream import RECEIVE_BUFFER_BYTES, UpstreamConnection
from freehold.gateway.process.listener import listen
from freehold.gateway.process.worker_process import WorkerProcess
from freehold.gateway.server.client_connection import SEND_BUFFER_BYTES, ClientConnection
from freehold.gateway.server.gateway import Gateway as Service
from freehold.gateway.settings import Settings
from gateway_rig.client import Client, ask, get
from gateway_rig.engines import STREAM_HEAD, Call, Engine, Engines, chunk, delta
from gateway_rig.process import model, running
from waiting import until, wait_until


def test_an_engine_that_falls_silent_inside_its_answer_has_a_limit_of_its_own(
    engine: Engine, tmp_path: Path
) -> None:
    async def one_chunk(call: Call) -> None:
        call.send(STREAM_HEAD + chunk(delta("a")))
        await call.gone.wait()

    engine.answer = one_chunk
    settings = {"first_byte_s": 60.0, "between_bytes_s": 0.5}
    with running(tmp_path, [model("m", engine)], **settings) as gateway, gateway.client() as client:
        started_s = time.monotonic()
        said = client.ask(ask("m", stream=True)).body
        assert time.monotonic() - started_s < 5
        assert b"did not answer in time" in said
        assert b"[DONE]" not in said


class Wire:
    """A transport over a real socket, to see what a connection does to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.write = sock.send

    def get_extra_info(self, name: str) -> object:
        return self.sock if name == "socket" else None

    def set_write_buffer_limits(self, *, high: int, low: int) -> None:
        assert low < high <= SEND_BUFFER_BYTES


def test_what_the_kernel_holds_for_a_slow_client_is_bounded_on_both_sides() -> None:
    async def run() -> None:
        with socket.socket() as client_side, socket.socket() as engine_side:
            client = ClientConnection(Service(Settings()))
            client.connection_made(cast("Any", Wire(client_side)))
            engine = UpstreamConnection(cast("UpstreamTarget", None))
            engine.connection_made(cast("Any", Wire(engine_side)))
            # Linux doubles what it is asked for, to have room for its own books (socket(7)).
            assert client_side.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER_BYTES
            assert engine_side.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * RECEIVE_BUFFER_BYTES

    asyncio.run(run())


def test_a_gateway_that_lives_but_says_nothing_is_replaced_on_the_same_socket(tmp_path: Path) -> None:
    async def run() -> None:
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        link = WorkerProcess(Settings(), listener, stderr_path=tmp_path / "log", silent_s=8.0)
        link.send(Snapshot(generation=1, models=(ModelEntry(name="m", engine="external", created_s=0),)))
        task = asyncio.create_task(link.run())
        await until(lambda: link.stats is not None, what="the first gateway to speak")
        stalled = link.pid
        assert stalled is not None
        os.kill(stalled, signal.SIGSTOP)
        await until(lambda: link.pid not in {None, stalled}, timeout_s=30, what="another gateway")
        assert link.restarts == 1

        def asked() -> int:
            with Client(port) as client:
                return client.ask(get("/livez")).status

        assert await asyncio.to_thread(asked) == 200
        link.stop()
        await asyncio.wait_for(task, 15)

    asyncio.run(run())


def test_an_engine_that_says_nothing_until_its_client_gives_up_comes_last_for_a_while(
    engines: Engines, tmp_path: Path
) -> None:
    async def never(call: Call) -> None:
        await call.gone.wait()

    hung, well = engines.new(), engines.new()
    hung.answer = never
    with running(tmp_path, [model("m", hung, well)]) as gateway:
        while not hung.calls:
            with gateway.client() as client:
                asked_s = time.monotonic()
                client.send(ask("m"))
                wait_until(lambda: hung.calls or well.calls, what="the request to arrive")
                # A client's patience: only its leaving tells the gateway anything.
                wait_until(lambda: well.calls or time.monotonic() - asked_s > 1.3, what="patience to end")  # noqa: B023
            well.calls.clear()
        wait_until(
            lambda: gateway.metric("freehold_gateway_in_flight") == 0, what="the gateway to see it leave"
        )
        statuses = []
        for _ in range(4):
            with gateway.client() as client:
                statuses.append(client.ask(ask("m")).status)
        assert statuses == [200] * 4
        assert len(hung.calls) == 1


def test_a_redirect_is_no_answer(engine: Engine, tmp_path: Path) -> None:
    async def elsewhere(call: Call) -> None:
        call.send(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

    engine.answer = elsewhere
    with running(tmp_path, [model("m", engine)]) as gateway, gateway.client() as client:
        answer = client.ask(ask("m"))
        assert answer.status == 502
        assert "redirect" in answer.error["message"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("null", 403),
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:8000", 200),
        ("http://[::1]", 200),
    ],
)
def test_a_web_page_of_another_host_may_not_use_the_gateway(
    origin: str, status: int, engine: Engine, tmp_path: Path
) -> None:
    with running(tmp_path, [model("m", engine)]) as gateway, gateway.client() as client:
        assert client.ask(ask("m", extra=f"Origin: {origin}\r\n")).status == status
        assert len(engine.calls) == (status == 200)


def test_a_parent_that_was_held_up_does_not_take_the_gateway_for_dead(tmp_path: Path) -> None:
    async def run() -> None:
        link = WorkerProcess(Settings(), listen("127.0.0.1", 0), stderr_path=tmp_path / "log", silent_s=2.0)
        link.send(Snapshot(generation=1, models=(ModelEntry(name="m", engine="external", created_s=0),)))
        task = asyncio.create_task(link.run())
        await until(lambda: link.stats is not None, what="the gateway to speak")
        healthy = link.pid
        assert healthy is not None
        # All stands still, as in a machine that is suspended: longer than a gateway may be silent. This process wakes
        # up first, so that it finds no word of the gateway's.
        os.kill(healthy, signal.SIGSTOP)
        hold_up(4.5)
        told = link.stats
        await asyncio.sleep(0.1)
        os.kill(healthy, signal.SIGCONT)
        await until(lambda: link.stats is not told, what="a word from after the hold-up")
        assert (link.pid, link.restarts) == (healthy, 0)
        link.stop()
        await asyncio.wait_for(task, 15)

    asyncio.run(run())


def hold_up(seconds: float) -> None:
    threading.Event().wait(seconds)
