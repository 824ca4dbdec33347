"""Engines on Unix sockets: asked as over TCP, kept, and waited for while their queue of connections is full."""

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.core.events import socket_url
from freehold.gateway.exchange.upstream import connect_unix
from gateway_rig.client import Client, ask
from gateway_rig.engines import ANSWER, STREAMED, Engine, Engines
from gateway_rig.process import Gateway, model, running
from waiting import wait_until


@pytest.fixture(scope="module")
def gateway(
    engines: Engines, the_engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Give a gateway whose model `m` is on a Unix socket, `here` where nobody listens too, and `gone` only there."""
    folder = tmp_path_factory.mktemp("gateway")
    path = str(folder / "engine.sock")
    opening = engines.loop.create_unix_server(the_engine.line, path)
    asyncio.run_coroutine_threadsafe(opening, engines.loop).result()
    here, missing = socket_url(path), socket_url(str(folder / "missing.sock"))
    urls = {"m": [here], "here": [missing, here], "gone": [missing]}
    models = [{**model(name), "endpoints": endpoints} for name, endpoints in urls.items()]
    with running(folder, models) as gateway:
        yield gateway


def test_requests_and_streams_pass_over_one_connection(client: Client, engine: Engine) -> None:
    assert client.ask(ask("m")).json == ANSWER
    assert client.ask(ask("m", stream=True)).body == STREAMED
    assert engine.connections == 1
    assert [call.header("host") for call in engine.calls] == ["localhost"] * 2
    assert [call.path for call in engine.calls] == ["/v1/chat/completions"] * 2


def test_where_nobody_listens_another_replica_is_asked(client: Client, engine: Engine) -> None:
    assert [client.ask(ask("here")).status for _ in range(8)] == [200] * 8
    assert len(engine.calls) == 8
    answer = client.ask(ask("gone"))
    assert answer.status in {502, 503}
    assert "sock" not in json.dumps(answer.error), "where engines listen is no caller's business"


def test_an_engine_learns_that_its_client_left(gateway: Gateway, engine: Engine) -> None:
    async def never(call: object) -> None:
        await asyncio.Event().wait()

    engine.answer = never
    with gateway.client() as client:
        client.send(ask("m", stream=True))
        wait_until(lambda: engine.calls, what="the request")
        client.leave()
        wait_until(engine.calls[0].gone.is_set, what="the engine's connection to close")


def test_a_full_queue_of_connections_is_waited_for(tmp_path: Path) -> None:
    """connect(2) on a Unix socket fails with EAGAIN then, where TCP would wait."""
    path = str(tmp_path / "full.sock")

    async def run() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(0)
            with await connect_unix(path):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await connect_unix(path)
                waiting = asyncio.create_task(connect_unix(path))
                await asyncio.sleep(0)
                assert not waiting.done()
                listener.accept()[0].close()
                (await waiting).close()

    asyncio.run(run())
