"""The engines' reader against the fake engine: counters, hangs, refusals, the process, and canaries only when idle."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx2
import msgspec
import pytest

from freehold.core.events import ReplicaState
from freehold.engines import all_engines
from freehold.engines.base import HttpCheck
from freehold.health.collectors.engines import EngineOptions, EnginesReader
from freehold.health.collectors.plain_http import fetch
from freehold.health.model.targets import EngineTarget
from freehold.health.model.view import EngineView, State
from freehold.testing.fake_engine_adapter import FAKE_ENGINE
from waiting import until, wait_until

QUICK = EngineOptions(deadline_s=0.5, canary_every_s=0.2, canary_deadline_s=0.5)
ENGINES = {**all_engines(), "fake": FAKE_ENGINE}


@pytest.fixture
def fake(free_port: int) -> Iterator[EngineTarget]:
    command = [
        sys.executable,
        "-m",
        "freehold.testing.fake_engine",
        "--host",
        "127.0.0.1",
        "--port",
        str(free_port),
    ]
    with subprocess.Popen([*command, "--model", "m"], start_new_session=True) as process:
        try:
            url = f"http://127.0.0.1:{free_port}"
            wait_until(lambda: _answers(url), timeout_s=20, what="the fake engine")
            yield EngineTarget(
                replica="m-0", engine="fake", model="m", url=url, pid=process.pid, running=0, progress=0
            )
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _answers(url: str) -> bool:
    with suppress(httpx2.HTTPError):
        return httpx2.get(f"{url}/health", trust_env=False).is_success
    return False


def change(target: EngineTarget, **settings: Any) -> None:
    assert httpx2.post(f"{target.url}/_fake", json=settings, trust_env=False).is_success


def counts(target: EngineTarget) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{target.url}/_fake", trust_env=False).json()["counts"]
    return found


async def one(reader: EnginesReader) -> EngineView:
    (view,) = await reader.read()
    return view


def looked(target: EngineTarget, options: EngineOptions = QUICK) -> EngineView:
    async def main() -> EngineView:
        reader = EnginesReader(options, ENGINES)
        reader.targets = (target,)
        view = await one(reader)
        await reader.close()
        return view

    return asyncio.run(main())


def test_an_idle_engine_is_read_whole(fake: EngineTarget) -> None:
    view = looked(fake)
    assert (view.state, view.running.value, view.pid) == (State.OK, 0, fake.pid)
    assert isinstance(view.tokens_total.value, float)
    assert view.process_state in "SR"
    assert view.cpu_s.state is State.OK


def test_what_does_not_answer_is_hung_and_what_is_not_there_is_absent(fake: EngineTarget) -> None:
    change(fake, metrics="hang")
    view = looked(fake)
    assert (view.state, view.tokens_total.state, view.running.state) == (State.HUNG,) * 3
    change(fake, metrics="missing")
    assert looked(fake).state is State.UNKNOWN
    os.killpg(fake.pid, signal.SIGKILL)
    gone = wait_until(lambda: (view := looked(fake)).process_state in "XZ" and view, timeout_s=5)
    assert gone.state is State.HUNG  # it is not even asked
    elsewhere = EngineTarget(replica="m-0", engine="fake", url=fake.url, running=0)
    assert looked(elsewhere).state is State.ABSENT


def test_a_stopped_engine_is_not_waited_for(fake: EngineTarget) -> None:
    os.killpg(fake.pid, signal.SIGSTOP)
    view = wait_until(lambda: (view := looked(fake)).process_state == "T" and view, timeout_s=5)
    assert view.state is State.HUNG
    assert view.cpu_s.state is State.OK


def test_counters_move_with_the_work(fake: EngineTarget) -> None:
    async def main() -> None:
        reader = EnginesReader(QUICK, ENGINES)
        reader.targets = (fake,)
        first = await one(reader)
        body = b'{"model": "m", "prompt": "x", "max_tokens": 200, "stream": true}'
        asking = asyncio.create_task(fetch(fake.url, "/v1/completions", deadline_s=30, body=body))
        await until(lambda: _works(reader), timeout_s=10)
        view = await one(reader)
        assert float(view.tokens_total.value or 0) > float(first.tokens_total.value or 0)
        assert view.canary_waits_s == 0.0
        asking.cancel()
        await reader.close()

    async def _works(reader: EnginesReader) -> bool:
        return (await one(reader)).running.value == 1

    asyncio.run(main())


def test_a_canary_goes_out_when_idle_and_a_hang_of_it_is_told(fake: EngineTarget) -> None:
    async def sung(reader: EnginesReader, state: State) -> bool:
        return (await one(reader)).canary.state is state

    async def main() -> None:
        reader = EnginesReader(QUICK, ENGINES)
        reader.targets = (fake,)
        await until(lambda: sung(reader, State.OK), timeout_s=10, what="a canary's answer")
        change(fake, fault="hang")
        waited = 0.0

        async def hung() -> bool:
            nonlocal waited
            view = await one(reader)
            waited = max(waited, view.canary_waits_s)
            return view.canary.state is State.HUNG

        await until(hung, timeout_s=10, what="a hung canary")
        assert waited > 0.0
        await reader.close()

    asyncio.run(main())
    assert counts(fake)["requests"] <= 4


def test_the_canary_is_what_shows_this_model_alive(fake: EngineTarget) -> None:
    proof = HttpCheck(method="POST", path="/v1/embeddings", body={"model": "m", "input": "hi"})
    target = msgspec.structs.replace(fake, proof=proof)

    async def main() -> None:
        reader = EnginesReader(QUICK, ENGINES)
        # As it comes to the agent.
        reader.targets = (msgspec.json.decode(msgspec.json.encode(target), type=EngineTarget),)

        async def sung() -> bool:
            return (await one(reader)).canary.state is State.OK

        await until(sung, timeout_s=10, what="a canary's answer")
        await reader.close()

    asyncio.run(main())
    seen = httpx2.get(f"{fake.url}/_fake", trust_env=False).json()["counts"]["recent"]
    assert {each["target"] for each in seen} == {"/v1/embeddings"}


def test_an_engine_that_sleeps_is_not_asked_and_a_canary_that_fell_asleep_with_it_is_forgotten(
    fake: EngineTarget,
) -> None:
    asleep = msgspec.structs.replace(fake, state=ReplicaState.ASLEEP)

    async def main() -> None:
        reader = EnginesReader(QUICK, ENGINES)
        change(fake, sleeping=True)
        reader.targets = (fake,)

        async def hung() -> bool:
            return (await one(reader)).canary.state is State.HUNG

        await until(hung, timeout_s=10, what="a canary that nobody answers")
        reader.targets = (asleep,)
        view = await one(reader)
        assert (view.canary.state, view.canary_waits_s) == (State.UNKNOWN, 0.0)
        change(fake, sleeping=False)
        reader.targets = (fake,)
        assert (await one(reader)).canary.state is State.UNKNOWN
        await reader.close()

    asyncio.run(main())


def test_no_canary_while_the_gateway_has_requests_there_nor_to_an_engine_of_others(
    fake: EngineTarget,
) -> None:
    before = counts(fake)["requests"]

    async def main(target: EngineTarget) -> None:
        reader = EnginesReader(QUICK, ENGINES)
        reader.targets = (target,)
        for _ in range(10):
            await one(reader)
            await asyncio.sleep(0.1)
        await reader.close()

    asyncio.run(
        main(EngineTarget(replica="m-0", engine="fake", model="m", url=fake.url, pid=fake.pid, running=1))
    )
    asyncio.run(main(EngineTarget(replica="x", engine="external", model="m", url=fake.url, running=0)))
    assert counts(fake)["requests"] == before


def test_nonsense_is_a_reading_and_no_exception() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        async def main() -> EngineView:
            loop = asyncio.get_running_loop()

            def answer() -> None:
                client, _ = listener.accept()
                with client:
                    client.recv(1000)
                    client.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")

            serving = loop.run_in_executor(None, answer)
            reader = EnginesReader(QUICK, ENGINES)
            port = listener.getsockname()[1]
            reader.targets = (
                EngineTarget(replica="m-0", engine="fake", url=f"http://127.0.0.1:{port}", running=0),
            )
            view = await one(reader)
            await serving
            return view

        view = asyncio.run(main())
    assert view.state is State.UNKNOWN
    assert "not HTTP" in view.tokens_total.detail
