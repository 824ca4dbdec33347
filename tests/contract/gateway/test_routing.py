"""Where requests go: conversations home, away from engines that hang or fail, back once a trial succeeds."""

import itertools
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from freehold.testing.fake_engine import start_fake_engine
from gateway_rig.client import CHAT, Client, ask, get, post
from gateway_rig.engines import Call, Engine, Engines, healthy, whole
from gateway_rig.process import Gateway, model, running
from waiting import wait_until

STALL_S = 1.0
SLACK_S = 1.5
"""How late a stall is seen (the gateway looks twice a second), with room for a loaded machine."""


def talk(number: int, turns: int = 1) -> bytes:
    """Return a conversation's request that is long enough to have a home."""
    messages = [{"role": "system", "content": "You are kind. " * 50}]
    for turn in range(turns):
        messages.append({"role": "user", "content": f"Question {turn} of {number}"})
        if turn < turns - 1:
            messages.append({"role": "assistant", "content": "An answer. " * 20})
    return post({"model": "m", "messages": messages}, path=CHAT)


async def never(call: Call) -> None:
    await call.gone.wait()


def two(engines: Engines) -> tuple[Engine, Engine]:
    return engines.new(), engines.new()


def test_a_conversation_goes_where_it_was_and_conversations_are_spread(
    engines: Engines, tmp_path: Path
) -> None:
    pair = two(engines)
    with running(tmp_path, [model("m", *pair)]) as gateway, gateway.client() as client:
        homes = []
        for number in range(24):
            for engine in pair:
                engine.calls.clear()
            for turns in (1, 2, 3):
                assert client.ask(talk(number, turns)).status == 200
            homes.append([len(engine.calls) for engine in pair])
        assert all(sorted(counts) == [0, 3] for counts in homes)
        assert 4 <= sum(counts[0] == 3 for counts in homes) <= 20
        assert gateway.metric("freehold_gateway_affinity_total", where="home") == 72


@pytest.mark.parametrize("how", ["affinity off", "short"])
def test_without_a_home_requests_go_round(how: str, engines: Engines, tmp_path: Path) -> None:
    pair = two(engines)
    entry = model("m", *pair) | {"affinity": how != "affinity off"}
    with running(tmp_path, [entry]) as gateway, gateway.client() as client:
        for _ in range(10):
            assert client.ask(ask("m") if how == "short" else talk(1)).status == 200
        assert [len(engine.calls) for engine in pair] == [5, 5]
        assert gateway.metric("freehold_gateway_affinity_total") == 0


def test_a_home_that_has_too_much_to_do_is_passed_over(engines: Engines, tmp_path: Path) -> None:
    pair = two(engines)
    for engine in pair:
        engine.answer = never
    with running(tmp_path, [model("m", *pair, slots=8)]) as gateway, ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(gateway.client()).send(talk(1))
        wait_until(lambda: sum(len(engine.calls) for engine in pair) == 8, what="eight requests to arrive")
        assert sorted(len(engine.calls) for engine in pair) in ([2, 6], [3, 5])
        assert gateway.metric("freehold_gateway_affinity_total", where="away") >= 2


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_hangs_before_its_answer_is_left_within_its_stall(
    engines: Engines, tmp_path: Path, *, stream: bool
) -> None:
    hung, well = two(engines)
    hung.answer = never
    entry = model("m", hung, well) | {"stall_s": STALL_S}
    with running(tmp_path, [entry]) as gateway, gateway.client() as client:
        for _ in range(2):  # without a home they go round
            started_s = time.monotonic()
            assert client.ask(ask("m", stream=stream)).status == 200
            assert time.monotonic() - started_s < STALL_S + SLACK_S
        assert len(hung.calls) == 1
        assert gateway.metric("freehold_gateway_retries_total", reason="stall") == 1
        assert gateway.metric("freehold_gateway_ejections_total", reason="stall") == 1
        assert gateway.metric("freehold_gateway_endpoint_ejected") == 1


def test_the_only_engine_that_hangs_is_a_timeout_at_its_stall(engines: Engines, tmp_path: Path) -> None:
    hung = engines.new()
    hung.answer = never
    with (
        running(tmp_path, [model("m", hung) | {"stall_s": STALL_S}]) as gateway,
        gateway.client() as client,
    ):
        started_s = time.monotonic()
        answer = client.ask(ask("m"))
        assert (answer.status, answer.error["code"]) == (504, "timeout")
        assert STALL_S < time.monotonic() - started_s < STALL_S + SLACK_S


def says(status: int, words: str) -> Callable[[Call], Any]:
    async def answer(call: Call) -> None:
        call.send(whole({"error": {"code": status, "message": words}}, status=status))

    return answer


def test_a_500_goes_to_another_engine(engines: Engines, tmp_path: Path) -> None:
    bad, good = two(engines)
    bad.answer = says(500, "CUDA error: an illegal memory access was encountered")
    with running(tmp_path, [model("m", bad, good)]) as gateway, gateway.client() as client:
        for _ in range(20):
            assert client.ask(ask("m")).status == 200
        assert gateway.metric("freehold_gateway_ejections_total", reason="status") == 1
        health = client.ask(get("/health")).json
        assert (health["status"], health["models"]["m"]["ejected"]) == ("degraded", 1)
        assert len(bad.calls) < 10


def test_an_output_that_does_not_parse_is_told_and_held_against_nobody(
    engines: Engines, tmp_path: Path
) -> None:
    pair = two(engines)
    for engine in pair:
        engine.answer = says(
            500, "The model produced output that does not match the expected peg-native format"
        )
    with (
        running(tmp_path, [model("m", *pair, engine="llama-cpp", slots=4)]) as gateway,
        gateway.client() as client,
    ):
        for _ in range(20):
            assert client.ask(ask("m")).status == 500
        assert sum(len(engine.calls) for engine in pair) == 20
        assert gateway.metric("freehold_gateway_ejections_total") == 0


def test_a_500_that_is_the_callers_own_mistake_ejects_nobody(engines: Engines, tmp_path: Path) -> None:
    one, two = engines.new(), engines.new()
    one.answer = two.answer = says(
        500, "image input is not supported - hint: you may need to provide the mmproj"
    )
    with running(tmp_path, [model("m", one, two, engine="llama-cpp")]) as gateway, gateway.client() as client:
        for _ in range(12):
            answer = client.ask(ask("m", stream=True))
            assert (answer.status, answer.error["code"]) == (400, "not_supported_by_engine")
        assert gateway.metric("freehold_gateway_ejections_total") == 0
        assert gateway.metric("freehold_gateway_retries_total") == 0
    assert len(one.calls) + len(two.calls) == 12


def test_one_that_fails_every_other_time_is_ejected_and_its_clients_see_nothing(
    engines: Engines, tmp_path: Path
) -> None:
    bad, good = two(engines)
    turn = itertools.count()

    async def by_turns(call: Call) -> None:
        await (healthy if next(turn) % 2 else says(502, "upstream"))(call)

    bad.answer = by_turns
    with running(tmp_path, [model("m", bad, good)]) as gateway, gateway.client() as client:
        deadline_s = time.monotonic() + 30
        while not gateway.metric("freehold_gateway_ejections_total", reason="outlier"):
            assert client.ask(ask("m")).status == 200
            assert time.monotonic() < deadline_s


def test_an_engine_that_came_back_is_found_by_a_trial(engines: Engines, tmp_path: Path) -> None:
    gone, well = two(engines)
    gone.close()
    with running(tmp_path, [model("m", gone, well)]) as gateway, gateway.client() as client:
        for _ in range(4):
            assert client.ask(ask("m")).status == 200
        assert gateway.metric("freehold_gateway_endpoint_ejected") == 1
        gone.open()

        def asked() -> bool:
            assert client.ask(ask("m")).status == 200
            return bool(gone.calls)

        wait_until(asked, what="a trial")
        assert gateway.metric("freehold_gateway_endpoint_ejected") == 0


def test_a_trial_that_says_nothing_of_the_engine_is_not_the_last(engines: Engines, tmp_path: Path) -> None:
    gone, well = two(engines)
    gone.close()
    with running(tmp_path, [model("m", gone, well)]) as gateway, gateway.client() as client:
        for _ in range(4):
            assert client.ask(ask("m")).status == 200

        async def busy(call: Call) -> None:
            gone.answer = healthy
            call.send(whole({"error": {"message": "busy"}}, status=429))

        gone.answer = busy
        gone.open()

        def asked() -> bool:
            assert client.ask(ask("m")).status == 200
            return len(gone.calls) > 1

        wait_until(asked, what="another trial")
        wait_until(lambda: gateway.metric("freehold_gateway_endpoint_ejected") == 0, what="it to be back")


def frozen(gateway: Gateway, client: Client) -> float:
    """Return the longest of ten answers, seconds."""
    longest_s = 0.0
    for _ in range(10):
        started_s = time.monotonic()
        assert client.ask(ask("m", stream=True)).status == 200
        longest_s = max(longest_s, time.monotonic() - started_s)
    return longest_s


def test_a_frozen_process_is_diverted_from_and_taken_back(tmp_path: Path) -> None:
    with ExitStack() as stack:
        fakes = [stack.enter_context(start_fake_engine(answer_tokens=2)) for _ in range(2)]
        entry = {"name": "m", "endpoints": [fake.url for fake in fakes], "slots": 4, "stall_s": STALL_S}
        gateway = stack.enter_context(running(tmp_path, [entry]))
        client = stack.enter_context(gateway.client())
        os.kill(fakes[0].pid, signal.SIGSTOP)
        try:
            assert STALL_S < frozen(gateway, client) < STALL_S + SLACK_S
            assert gateway.metric("freehold_gateway_ejections_total", reason="stall") >= 1
        finally:
            os.kill(fakes[0].pid, signal.SIGCONT)

        def back() -> bool:
            client.ask(ask("m"))
            return gateway.metric("freehold_gateway_endpoint_ejected") == 0

        wait_until(back, timeout_s=20, what="the thawed engine to be taken back")
