"""The queue in the real gateway process: who waits, who is refused and how fast, and that engines never get too much."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from freehold.core.events import Endpoint, ModelEntry, ReplicaState, Snapshot
from freehold.gateway.process.listener import listen
from freehold.gateway.process.worker_process import WorkerProcess
from freehold.gateway.settings import Settings
from freehold.testing.fake_engine import FakeEngine, start_fake_engine
from gateway_rig.client import Client, ask, get, post
from gateway_rig.engines import ANSWER, STREAM_HEAD, Call, Engine, Engines, Held, chunk, delta
from gateway_rig.process import Gateway, model, running
from waiting import until, wait_until

SLOTS = 2


@pytest.fixture(scope="module")
def gateway(the_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    models = [
        model("m", the_engine, slots=SLOTS),
        model("cpp", the_engine, engine="llama-cpp", slots=SLOTS),
        model("kv", the_engine, slots=8, kv_tokens=1000),
        model("wide", the_engine, slots=8),
    ]
    with running(
        tmp_path_factory.mktemp("queue"), models, queue_max_requests=4, queue_max_wait_s=30
    ) as gateway:
        yield gateway
        assert gateway.metric("freehold_bugs_total") == 0
        assert gateway.metric("freehold_gateway_queue_requests") == 0
        assert gateway.metric("freehold_gateway_queue_tokens") == 0
        assert gateway.metric("freehold_gateway_in_flight") == 0


@contextlib.contextmanager
def clients(gateway: Gateway, count: int) -> Iterator[list[Client]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(gateway.client()) for _ in range(count)]


def has_come(gateway: Gateway, name: str, count: int) -> bool:
    """Return whether so many requests are under way or wait."""
    return gateway.metric("freehold_gateway_in_flight", model=name) + waiting(gateway, name) == count


def waiting(gateway: Gateway, name: str = "m") -> float:
    return gateway.metric("freehold_gateway_queue_requests", model=name)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ["m", "cpp"])
def test_an_engine_gets_no_more_than_its_slots_and_who_waits_is_served_in_order(
    name: str, gateway: Gateway, engine: Engine, *, stream: bool
) -> None:
    held = Held(engine)
    with clients(gateway, 6) as asking:
        for number, client in enumerate(asking):
            client.send(ask(name, stream=stream, extra=f"x-request-id: r{number}\r\n"))
            wait_until(partial(has_come, gateway, name, number + 1))
        assert len(engine.calls) == SLOTS
        with gateway.client() as other:
            seen = other.ask(get("/health")).json["models"][name]
        assert seen["in_flight"] == SLOTS
        assert seen["queue"]["waiting"] == 4
        assert seen["queue"]["tokens"] > 0
        held.release()
        assert [client.read_answer().status for client in asking] == [200] * 6
    assert [call.header("x-request-id") for call in engine.calls] == [f"r{number}" for number in range(6)]
    assert gateway.metric("freehold_gateway_queue_wait_seconds_count", model=name) >= 4


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(gateway: Gateway, engine: Engine) -> None:
    held = Held(engine)
    before = gateway.metric("freehold_gateway_queue_refused_total", reason="queue_full")
    with clients(gateway, 6) as asking, gateway.client() as other:
        for client in asking:
            client.send(ask("m"))
        wait_until(lambda: waiting(gateway) == 4)
        took_s = []
        for _ in range(50):
            started_s = time.monotonic()
            answer = other.ask(ask("m"))
            took_s.append(time.monotonic() - started_s)
            assert (answer.status, answer.error["code"]) == (503, "engine_overloaded")
            assert 1 <= int(answer.header("retry-after") or 0) <= 60
        assert sorted(took_s)[25] < 0.005
        held.release()
        for client in asking:
            assert client.read_answer().json == ANSWER
    assert gateway.metric("freehold_gateway_queue_refused_total", reason="queue_full") == before + 50


def test_what_is_under_way_takes_no_place_in_the_queue(gateway: Gateway, engine: Engine) -> None:
    held = Held(engine)
    with clients(gateway, 13) as asking:
        for client in asking[:12]:
            client.send(ask("wide"))
        wait_until(lambda: len(engine.calls) == 8)
        wait_until(partial(has_come, gateway, "wide", 12))
        assert asking[12].ask(ask("wide")).status == 503
        held.release()
        assert [client.read_answer().status for client in asking[:12]] == [200] * 12


@pytest.mark.parametrize("way", ["leave", "close"])
def test_who_leaves_the_queue_never_reaches_an_engine(way: str, gateway: Gateway, engine: Engine) -> None:
    held = Held(engine)
    with clients(gateway, 5) as asking:
        for number, client in enumerate(asking):
            client.send(ask("m", extra=f"x-request-id: r{number}\r\n"))
            wait_until(partial(has_come, gateway, "m", number + 1))
        getattr(asking[3], way)()
        wait_until(lambda: waiting(gateway) == 2)
        held.release()
        for number in (0, 1, 2, 4):
            assert asking[number].read_answer().status == 200
    assert [call.header("x-request-id") for call in engine.calls] == ["r0", "r1", "r2", "r4"]


# Time


def test_a_wait_ends_when_its_time_is_over(engine: Engine, tmp_path: Path) -> None:
    held = Held(engine)
    with running(tmp_path, [model("m", engine, slots=1)], queue_max_wait_s=0.4) as gateway:
        with clients(gateway, 2) as (first, second):
            first.send(ask("m"))
            wait_until(lambda: engine.calls)
            started_s = time.monotonic()
            refused = second.ask(ask("m"))
            assert 0.4 <= time.monotonic() - started_s < 0.6
            assert (refused.status, refused.error["code"]) == (503, "engine_overloaded")
            assert "waited 0.4" in refused.error["message"]
            held.release()
            assert first.read_answer().status == 200
            assert second.ask(ask("m")).status == 200
        assert gateway.metric("freehold_gateway_queue_refused_total", reason="waited_too_long") == 1


def test_a_callers_own_timeout_ends_its_wait(gateway: Gateway, engine: Engine) -> None:
    held = Held(engine)
    with clients(gateway, 3) as asking:
        for client in asking[:2]:
            client.send(ask("m"))
        wait_until(lambda: len(engine.calls) == SLOTS)
        started_s = time.monotonic()
        answer = asking[2].ask(ask("m", extra="X-Freehold-Timeout: 0.3\r\n"))
        assert time.monotonic() - started_s < 0.5
        assert (answer.status, answer.error["code"]) == (504, "timeout")
        held.release()
        for client in asking[:2]:
            assert client.read_answer().status == 200


@pytest.mark.parametrize("name", ["m", "cpp"])
def test_an_answer_that_is_not_there_by_the_timeout_is_ended(
    name: str, gateway: Gateway, engine: Engine
) -> None:
    async def begins(call: Call) -> None:
        call.send(STREAM_HEAD + chunk(delta("a")))
        await call.gone.wait()

    engine.answer = begins
    with gateway.client() as client:
        client.send(ask(name, stream=True, extra="x-freehold-timeout: 0.2\r\n"))
        client.read_head()
        assert client.read_chunk() == delta("a")
        assert b"within the request's timeout" in client.read_chunk()
        assert client.read_chunk() == b""
    wait_until(engine.calls[0].gone.is_set)


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf", ""])
def test_a_timeout_that_is_no_number_of_seconds_is_said(value: str, gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = client.ask(ask("m", extra=f"x-freehold-timeout: {value}\r\n"))
        assert (answer.status, answer.error["code"]) == (400, "invalid_header")


# Failing targets


def test_a_retry_waits_for_room_on_another_replica(engines: Engines, tmp_path: Path) -> None:
    good, bad = engines.new(), engines.new()
    held, dying = Held(good), Held(bad)

    async def dies(call: Call) -> None:
        await dying.go_on.wait()
        call.reset()

    bad.answer = dies
    with running(tmp_path, [model("m", good, bad, slots=1)]) as gateway:
        with clients(gateway, 2) as asking:
            for client in asking:
                client.send(ask("m"))
            wait_until(lambda: good.calls and bad.calls)
            dying.release()
            wait_until(lambda: gateway.metric("freehold_gateway_retries_total") == 1)
            assert len(good.calls) == 1
            held.release()
            assert [client.read_answer().status for client in asking] == [200, 200]
        assert len(good.calls) == 2
        assert gateway.metric("freehold_gateway_retries_total") == 1


def named(name: str) -> bytes:
    return post({"model": "m", "messages": [1], "user": name})


@contextlib.contextmanager
def retrying(engines: Engines, folder: Path) -> Iterator[tuple[Gateway, Held, Client]]:
    """Give a request that waits for room at a replica that is held, since the other one died under it."""
    good, bad = engines.new(), engines.new()
    held, dying = Held(good), Held(bad)

    async def dies(call: Call) -> None:
        await dying.go_on.wait()
        call.reset()

    bad.answer = dies
    with running(folder, [model("m", good, bad, slots=1)]) as gateway, gateway.client() as first:
        first.send(named("first"))
        wait_until(lambda: good.calls or bad.calls)
        with gateway.client() as second:
            second.send(named("second"))
            wait_until(lambda: good.calls and bad.calls)
            retried, kept = (second, first) if bad.calls[0].json["user"] == "second" else (first, second)
            with gateway.client() as queued:
                queued.send(named("queued"))
                wait_until(lambda: waiting(gateway) == 1)
                dying.release()
                wait_until(lambda: gateway.metric("freehold_gateway_retries_total") == 1)
                yield gateway, held, retried
                assert [client.read_answer().status for client in (kept, queued)] == [200, 200]
        assert gateway.metric("freehold_gateway_in_flight") == 0


def test_a_retry_goes_before_what_waits_in_the_queue(engines: Engines, tmp_path: Path) -> None:
    with retrying(engines, tmp_path) as (_, held, client):
        held.release()
        assert client.read_answer().status == 200
        assert [call.json["user"] == "queued" for call in held.engine.calls[1:]] in ([False, True], [False])


def test_a_retry_whose_client_left_is_not_started(engines: Engines, tmp_path: Path) -> None:
    with retrying(engines, tmp_path) as (gateway, held, client):
        client.leave()
        wait_until(lambda: gateway.metric("freehold_gateway_requests_total", code="499") == 1)
        held.release()
        wait_until(lambda: gateway.metric("freehold_gateway_in_flight") == 0)
        assert [call.json["user"] == "queued" for call in held.engine.calls] == [False, True]


def test_while_a_healthy_replica_is_full_a_suspected_one_is_not_asked(
    engines: Engines, tmp_path: Path
) -> None:
    good, bad = engines.new(), engines.new()
    bad.close()
    with running(tmp_path, [model("m", good, bad, slots=1)]) as gateway:
        with gateway.client() as client:
            for _ in range(2):  # one of them meets the dead one and is tried elsewhere
                assert client.ask(ask("m")).status == 200
        held = Held(good)
        with clients(gateway, 2) as asking:
            for client in asking:
                client.send(ask("m"))
            wait_until(lambda: waiting(gateway) == 1)
            held.release()
            assert [client.read_answer().status for client in asking] == [200, 200]
        assert gateway.metric("freehold_gateway_retries_total") == 1


def test_a_retry_that_finds_no_room_in_time_is_refused(engines: Engines, tmp_path: Path) -> None:
    good, bad = engines.new(), engines.new()
    held = Held(good)

    async def dies(call: Call) -> None:
        call.reset()

    bad.answer = dies
    with running(tmp_path, [model("m", good, bad, slots=1)], queue_max_wait_s=0.3) as gateway:
        with clients(gateway, 2) as asking:
            for client in asking:
                client.send(ask("m"))
            wait_until(lambda: gateway.metric("freehold_gateway_retries_total") == 1)
            wait_until(lambda: gateway.metric("freehold_gateway_requests_total", code="503") == 1)
            held.release()
            assert sorted(client.read_answer().status for client in asking) == [200, 503]
        assert gateway.metric("freehold_gateway_in_flight") == 0


def test_when_the_last_replica_goes_nobody_waits_on(engine: Engine, tmp_path: Path) -> None:
    held = Held(engine)
    entry = ModelEntry(name="m", engine="external", created_s=7)
    where = Endpoint(
        id="m-0", model="m", url=engine.url, engine="external", state=ReplicaState.READY, slots=1
    )

    async def run() -> None:
        listener = listen("127.0.0.1", 0)
        link = WorkerProcess(Settings(), listener, stderr_path=tmp_path / "log")
        task = asyncio.create_task(link.run())
        link.send(Snapshot(generation=1, models=(entry,), endpoints=(where,)))
        first, second = (asyncio.create_task(told(listener.getsockname()[1])) for _ in range(2))
        await until(lambda: link.stats is not None and link.stats.in_flight == 2)
        link.send(Snapshot(generation=2, models=(entry,)))
        await until(lambda: first.done() or second.done())
        held.release()
        assert sorted([await first, await second]) == [(200, None), (503, "model_not_ready")]
        link.stop()
        await asyncio.wait_for(task, 10)

    asyncio.run(run())


async def told(port: int) -> tuple[int, str | None]:
    def run() -> tuple[int, str | None]:
        with Client(port) as client:
            while (answer := client.ask(ask("m"))).status == 404:
                pass  # the gateway has no snapshot yet
            return answer.status, answer.error["code"] if answer.status >= 400 else None

    return await asyncio.to_thread(run)


# Drain


def test_a_drain_serves_who_waits(engine: Engine, tmp_path: Path) -> None:
    held = Held(engine)
    with running(tmp_path, [model("m", engine, slots=1)]) as gateway, clients(gateway, 3) as asking:
        for client in asking:
            client.send(ask("m"))
        wait_until(lambda: waiting(gateway) == 2)
        gateway.terminate()
        wait_until(lambda: gateway.logged("draining"))
        held.release()
        assert [client.read_answer().status for client in asking] == [200] * 3


def test_a_drain_whose_grace_is_over_refuses_who_waits(engine: Engine, tmp_path: Path) -> None:
    Held(engine)
    with (
        running(tmp_path, [model("m", engine, slots=1)], drain_grace_s=0.2) as gateway,
        clients(gateway, 3) as asking,
    ):
        for client in asking:
            client.send(ask("m"))
        wait_until(lambda: waiting(gateway) == 2)
        gateway.terminate()
        answers = [client.read_answer() for client in asking]
        assert {(answer.status, answer.error["code"]) for answer in answers} == {(503, "draining")}


# Overload, in front of the fake engine: four slots, answers of 8 tokens in 80 ms, so 50 a second


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeEngine, Gateway]]:
    with start_fake_engine(slots=4, tokens_per_s=100, answer_tokens=8, keep_alive_requests=0) as fake:
        models = [{"name": "fake", "endpoints": [fake.url], "engine": "llama-cpp", "slots": 4}]
        with running(tmp_path_factory.mktemp("busy"), models) as gateway:
            yield fake, gateway
            assert gateway.metric("freehold_bugs_total") == 0


async def once(port: int, took: list[tuple[int, float]]) -> None:
    started_s = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "stream": True}
    writer.write(post(body, extra="Connection: close\r\n"))
    status = int((await reader.readline()).split()[1])
    await reader.read()
    writer.close()
    took.append((status, time.monotonic() - started_s))


async def steady(port: int, per_s: float, seconds: float) -> list[tuple[int, float]]:
    """Let callers come evenly, whatever happens to those before them."""
    took: list[tuple[int, float]] = []
    started_s, tasks = time.monotonic(), []
    for number in range(int(per_s * seconds)):
        await asyncio.sleep(started_s + number / per_s - time.monotonic())
        tasks.append(asyncio.create_task(once(port, took)))
    await asyncio.gather(*tasks)
    return took


def test_below_capacity_nobody_is_refused(busy: tuple[FakeEngine, Gateway]) -> None:
    took = asyncio.run(steady(busy[1].port, 25, 1.5))
    assert {status for status, _ in took} == {200}


def test_in_an_overload_the_engine_stays_full_the_rest_is_refused_and_soon_all_is_quick_again(
    busy: tuple[FakeEngine, Gateway],
) -> None:
    _, gateway = busy
    took = asyncio.run(steady(gateway.port, 150, 4))
    served = [took_s for status, took_s in took if status == 200]
    assert {status for status, _ in took} == {200, 503}
    assert len(served) > 0.7 * 50 * 4  # the machine that the tests run on has others to serve
    assert max(served) < 3.0
    assert gateway.metric("freehold_gateway_queue_refused_total", reason="wait_too_long") > 0
    wait_until(lambda: waiting(gateway, "fake") == 0, timeout_s=2)
    ((status, took_s),) = asyncio.run(steady(gateway.port, 1, 1))
    assert status == 200
    assert took_s < 0.5


def test_an_engine_is_given_no_more_than_its_kv_cache_holds(gateway: Gateway, engine: Engine) -> None:
    held = Held(engine)
    with clients(gateway, 4) as asking:
        for number, client in enumerate(asking):
            client.send(post({"model": "kv", "messages": [1], "max_tokens": 400}))
            wait_until(partial(has_come, gateway, "kv", number + 1))
        # Two answers of 400 tokens fit into 1,000; a third would not, although six slots are free.
        assert len(engine.calls) == 2
        assert waiting(gateway, "kv") == 2
        held.release()
        assert [client.read_answer().status for client in asking] == [200] * 4


def test_a_request_for_more_than_the_kv_cache_holds_goes_alone(gateway: Gateway, engine: Engine) -> None:
    with gateway.client() as client:
        assert client.ask(post({"model": "kv", "messages": [1], "max_tokens": 5000})).status == 200
