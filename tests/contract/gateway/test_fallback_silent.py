"""Fallbacks that fall silent or die half-way: they are left alone, and what they began is forgotten."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from gateway_rig.client import ask
from gateway_rig.engines import STREAM_HEAD, Call, Engine, chunk, delta, healthy
from gateway_rig.fallbacks import HEADER, asked, fallback, no_replica
from gateway_rig.killing import answer as with_usage
from gateway_rig.process import model, running
from waiting import wait_until


async def hung(call: Call) -> None:
    await call.gone.wait()


async def begins_and_hangs(call: Call) -> None:
    call.send(STREAM_HEAD + chunk(delta("a")))
    await call.gone.wait()


HUNG = {
    "no word within the deadline": (hung, "x-freehold-timeout: 1.1\r\n", {}),
    "no word within the first byte's time": (hung, "", {"first_byte_s": 0.5}),
    "silent in the middle": (begins_and_hangs, "", {"between_bytes_s": 0.5}),
}


@pytest.mark.parametrize("how", HUNG)
def test_a_fallback_that_hangs_is_left_alone(tmp_path: Path, cloud: Engine, how: str):
    cloud.answer, header, times = HUNG[how]
    with running(tmp_path, [no_replica()], fallbacks=[fallback(cloud)], **times) as gateway:
        assert asked(gateway, ask(stream=True, extra=header)).header(HEADER) == "cloud"
        assert asked(gateway, ask()).status == 503
        assert gateway.metric("freehold_gateway_fallback_skipped_total", reason="shut") == 1
    assert len(cloud.calls) == 1


def test_a_short_deadline_says_nothing_of_a_fallback(tmp_path: Path, cloud: Engine):
    cloud.answer = hung
    with running(tmp_path, [no_replica()], fallbacks=[fallback(cloud)]) as gateway:
        assert asked(gateway, ask(extra="x-freehold-timeout: 0.2\r\n")).status == 504
        cloud.answer = with_usage
        assert asked(gateway, ask()).status == 200


NOT_PATIENT = "import freehold.gateway.exchange.provider as fallback; fallback._SILENT_S = 0.0"


@pytest.mark.parametrize("reason", ["no_replica", "shadow"])
def test_a_fallback_that_is_left_without_a_word_is_left_alone(
    tmp_path: Path, cloud: Engine, engine: Engine, reason: str
):
    cloud.answer = hung
    shadow = reason == "shadow"
    only = [fallback(cloud, when=[], shadow=1) if shadow else fallback(cloud)]
    models = [model("m", engine) if shadow else no_replica()]
    header = "x-freehold-timeout: 0.2\r\n" if shadow else ""
    with running(tmp_path, models, patch=NOT_PATIENT, fallbacks=only) as gateway:
        with gateway.client() as client:
            client.send(ask(extra=header))
            wait_until(lambda: len(cloud.calls) == 1, timeout_s=5, what="a request there")
            client.leave()
        wait_until(cloud.calls[0].gone.is_set, timeout_s=5, what="its end")
        asked(gateway, ask())
        assert gateway.metric("freehold_gateway_fallback_skipped_total", reason="shut") == 1
    assert len(cloud.calls) == 1


async def dies_after_its_head(call: Call) -> None:
    call.send(STREAM_HEAD)
    await asyncio.sleep(0.1)  # in a read of its own
    call.reset()


async def slow_to_begin(call: Call) -> None:
    with contextlib.suppress(TimeoutError):  # and a gateway that gives it up too soon is seen
        await asyncio.wait_for(call.gone.wait(), 1.5)
    await healthy(call)


def test_half_an_answer_there_is_forgotten_at_home(tmp_path: Path, engine: Engine, cloud: Engine):
    cloud.answer, engine.answer = dies_after_its_head, slow_to_begin
    canary = [fallback(cloud, when=[], share=1)]
    times = {"first_byte_s": 30.0, "between_bytes_s": 0.5}
    with running(tmp_path, [model("m", engine)], fallbacks=canary, **times) as gateway:
        answer = asked(gateway, ask(stream=True))
        assert (answer.status, answer.header(HEADER)) == (200, None)
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert not gateway.logged("endpoint_ejected")
        assert gateway.metric("freehold_gateway_in_flight") == 0
