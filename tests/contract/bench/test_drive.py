"""The load generator against the fake engine, whose speeds are known: what it measures, and what it must not hide.

Bounds are wide where a busy machine makes things late, and narrow where only counting is at stake.
"""

import asyncio
import os
import signal

import pytest

from freehold.bench.analysis.figures import Figures, SloBounds, figures
from freehold.bench.analysis.load import Load, schedule
from freehold.bench.analysis.prompts import Scale
from freehold.bench.analysis.results import Conditions
from freehold.bench.analysis.sizes import Given, Range
from freehold.bench.measure.client import BenchTarget
from freehold.bench.measure.drive import Drive, Driven, Texts
from freehold.bench.measure.run import measured_scale, settled
from freehold.testing.fake_engine import FakeEngine, start_fake_engine

SIZES = Given(prompt=Range(20, 40), answer=Range(12, 12))
SLO = SloBounds(ttft_s=1.0, itl_s=0.1)
FOUR = Load(kind="concurrency", value=4)


def lasting(duration_s: float = 1.5, *, requests: int | None = None, timeout_s: float = 20.0) -> Conditions:
    return Conditions(
        shape="",
        loads=(),
        slo=SLO,
        runs=1,
        seed=3,
        warm_up_s=0.3,
        duration_s=duration_s,
        requests=requests,
        timeout_s=timeout_s,
    )


def driven(engine: FakeEngine, load: Load, limits: Conditions) -> Driven:
    drive = Drive(
        target=target(engine),
        asks=schedule(load, SIZES, seed=(3,)),
        texts=Texts(scale=Scale(), label=(3,)),
        conditions=limits,
    )
    return asyncio.run(drive.run(load))


def target(engine: FakeEngine) -> BenchTarget:
    return BenchTarget(host="127.0.0.1", port=engine.port, model="fake")


def measured(engine: FakeEngine, load: Load, limits: Conditions) -> Figures:
    found = driven(engine, load, limits)
    return figures(found.samples, found.window, SLO)


def test_speeds_that_are_known_are_measured() -> None:
    with start_fake_engine(tokens_per_s=50, first_token_s=0.1, slots=4, answer_tokens=100) as engine:
        found = measured(engine, FOUR, lasting(3.0))
    assert found.whole == found.requests > 0
    assert (found.wrong_length, found.uncounted, found.errors, found.refused) == (0, 0, {}, 0)
    assert found.answer_tokens == 12
    assert found.prompt_tokens is not None
    assert 20 <= found.prompt_tokens <= 40
    assert found.ttft_s is not None
    assert found.token_s is not None
    # The engine cannot be quicker than it was told to; a busy machine makes it later, not by a multiple in the median.
    assert 0.1 <= found.ttft_s.p50 < 0.5
    assert 0.018 <= found.token_s.p50 < 0.08
    # 4 callers, an answer of 12 tokens each 0.1 + 11/50 s: at most 150 tokens/s.
    assert 40 < found.output_tokens_per_s <= 165
    assert 3.0 < found.in_flight <= 4.01


def test_a_rate_is_kept_whatever_the_engine_does() -> None:
    with start_fake_engine(tokens_per_s=20, slots=1, answer_tokens=100) as engine:
        found = measured(engine, Load(kind="rate", value=20.0), lasting(timeout_s=1.0))
    assert 15 <= found.requests <= 50  # 30 are expected, of which 5 standard deviations are 27
    assert found.errors["timeout"] > found.requests / 2
    assert found.slo_share is not None
    assert found.slo_share < 0.5


def waits_beside_a_stall(engine: FakeEngine, load: Load) -> list[float]:
    """Return the whole latencies of a load beside which the engine stands still for a second."""

    async def stalled() -> Driven:
        drive = Drive(
            target=target(engine),
            asks=schedule(load, SIZES, seed=(3,)),
            texts=Texts(scale=Scale()),
            conditions=lasting(2.5),
        )
        task = asyncio.create_task(drive.run(load))
        await asyncio.sleep(0.8)
        os.kill(engine.pid, signal.SIGSTOP)
        await asyncio.sleep(0.99)
        os.kill(engine.pid, signal.SIGCONT)
        return await task

    found = asyncio.run(stalled())
    inside = [each for each in found.samples if found.window.has(each.intended_s) and each.fate == "whole"]
    return [each.latency_s for each in inside]


def test_a_stall_is_not_omitted() -> None:
    """All who were to come while an engine stood still have waited; a single caller who asks only after his answer sees one wait."""
    # Whole latencies: an engine that stops inside an answer lets nobody wait for its first token.
    with start_fake_engine(tokens_per_s=0, slots=64, answer_tokens=1, first_token_s=0.02) as engine:
        stream = waits_beside_a_stall(engine, Load(kind="rate", value=30.0))
        caller = waits_beside_a_stall(engine, Load(kind="concurrency", value=1))
    # 30 a second came within a second of standing still; in the mean they waited half of it.
    late = [wait for wait in stream if wait > 0.25]
    assert len(late) >= 12
    assert max(stream) >= 0.8
    assert 1 <= sum(wait > 0.6 for wait in caller) < len(late) / 2


def test_latency_counts_from_when_a_request_was_meant_to_be_sent() -> None:
    """A generator that is held up itself does not make the engine look quicker: the wait is in the latency and told."""

    async def held_up(engine: FakeEngine) -> Driven:
        load = Load(kind="rate", value=20.0)
        asks = schedule(load, SIZES, seed=(3,))
        drive = Drive(target=target(engine), asks=asks, texts=Texts(scale=Scale()), conditions=lasting())
        task = asyncio.create_task(drive.run(load))
        await asyncio.sleep(0.6)
        blocked_until = asyncio.get_running_loop().time() + 0.5
        while asyncio.get_running_loop().time() < blocked_until:
            pass  # the whole event loop stands still
        return await task

    with start_fake_engine(tokens_per_s=0, slots=64, answer_tokens=100) as engine:
        found = asyncio.run(held_up(engine))
    late = [each for each in found.samples if each.sent_s - each.intended_s > 0.2]
    assert late
    for each in late:
        assert each.ttft_s is not None
        assert each.ttft_s >= each.sent_s - each.intended_s


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("close_stream", "cut"),
        ("no_done", "cut"),
        ("error_event", "error_event"),
        ("close", "cut"),
        ("bad_head", "error_event"),
        ("hang", "timeout"),
        ("hang_stream", "timeout"),
    ],
)
def test_errors_stand_apart_by_kind(fault: str, kind: str) -> None:
    with start_fake_engine(tokens_per_s=0, slots=16, answer_tokens=100, fault=fault) as engine:
        found = measured(
            engine, Load(kind="rate", value=20.0), lasting(0.5, timeout_s=0.6 if kind == "timeout" else 20.0)
        )
    assert found.whole == 0
    assert found.errors == {kind: found.requests}
    assert found.goodput_tokens_per_s == 0


def test_refusals_stand_apart_from_errors() -> None:
    with start_fake_engine(tokens_per_s=0, fault="status", fault_status=503) as engine:
        found = measured(engine, Load(kind="rate", value=20.0), lasting(0.5))
        engine.set(fault_status=500)
        failed = measured(engine, Load(kind="rate", value=20.0), lasting(0.5))
    assert (found.refused, found.errors) == (found.requests, {})
    assert (failed.refused, failed.errors) == (0, {"http_error": failed.requests})


def test_nobody_listens(free_port: int) -> None:
    drive = Drive(
        target=BenchTarget(host="127.0.0.1", port=free_port, model="fake"),
        asks=schedule(Load(kind="rate", value=20.0), SIZES, seed=(3,)),
        texts=Texts(scale=Scale()),
        conditions=lasting(0.5),
    )
    found = asyncio.run(drive.run(Load(kind="rate", value=20.0)))
    assert {each.fate for each in found.samples if found.window.has(each.intended_s)} == {"connect"}


def test_a_count_bounds_a_load() -> None:
    with start_fake_engine(tokens_per_s=0, slots=16, answer_tokens=100) as engine:
        found = driven(engine, FOUR, lasting(60.0, requests=40))
    inside = [each for each in found.samples if found.window.has(each.intended_s)]
    assert len([each for each in inside if each.fate != "cancelled"]) == 40
    assert found.window.length_s < 30


def test_the_load_stays_on_until_the_last_measured_request_has_ended() -> None:
    with start_fake_engine(tokens_per_s=10, slots=4, answer_tokens=100) as engine:
        found = driven(engine, FOUR, lasting(0.5))
    inside = [each for each in found.samples if found.window.has(each.intended_s)]
    assert inside
    assert all(each.fate == "whole" for each in inside)
    cancelled = [each for each in found.samples if each.fate == "cancelled"]
    assert all(not found.window.has(each.intended_s) for each in cancelled)


def test_the_sizes_asked_for_are_the_same_for_everybody() -> None:
    sizes = []
    for tokens_per_s in (0, 100):
        with start_fake_engine(tokens_per_s=tokens_per_s, slots=16, answer_tokens=100) as engine:
            found = driven(engine, FOUR, lasting(0.5))
        sizes.append([each.ask.size for each in sorted(found.samples, key=lambda each: each.ask.number)])
    shared = min(map(len, sizes))
    assert shared > 3
    assert sizes[0][:shared] == sizes[1][:shared]


def test_how_words_become_tokens_is_asked_of_the_engine() -> None:
    async def asked(engine: FakeEngine) -> Scale:
        await settled(target(engine))
        return await measured_scale(target(engine))

    with start_fake_engine(tokens_per_s=0, answer_tokens=100) as engine:
        assert asyncio.run(asked(engine)) == Scale(per_word=1.0, overhead=0.0)
