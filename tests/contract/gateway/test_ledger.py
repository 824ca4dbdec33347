"""Every request that went to an engine stands in the ledger once, with what the engine said or what was delivered."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from freehold.ledger.drainer import waiting_records
from freehold.ledger.records.record import Basis, LedgerRecord, Outcome
from freehold.ledger.spool import make_folder, segments
from gateway_rig.client import CHAT, Client, ask, get, post
from gateway_rig.engines import (
    ANSWER,
    STREAM_HEAD,
    Answering,
    Call,
    Engine,
    Engines,
    chunk,
    delta,
    event,
    whole,
)
from gateway_rig.killing import DONE, USAGE, USAGE_EVENT, kill_many
from gateway_rig.killing import answer as as_vllm
from gateway_rig.process import Gateway, model, running
from waiting import remove_at_once, wait_until

MESSAGES, RESPONSES, TEXT = "/v1/messages", "/v1/responses", "/v1/completions"


@pytest.fixture(scope="module")
def engine(engines: Engines) -> Engine:
    return engines.new()


@pytest.fixture(scope="module")
def llama(engines: Engines) -> Engine:
    return engines.new()


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, engines: Engines, engine: Engine, llama: Engine, spool: Path
) -> Iterator[Gateway]:
    models = [model("m", engine), model("l", llama, engine="llama-cpp"), model("two", engine, engines.new())]
    with running(tmp_path_factory.mktemp("gateway"), models, spool_path=str(spool)) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Gateway, engine: Engine, llama: Engine) -> Iterator[Client]:
    engine.reset()
    llama.reset()
    with gateway.client() as client:
        yield client


def sending(*parts: bytes, head: bytes = STREAM_HEAD) -> Answering:
    async def answer(call: Call) -> None:
        call.send(head)
        for part in parts:
            call.send(part)

    return answer


def last(spool: Path, seq: int = -1) -> LedgerRecord:
    return sorted(waiting_records(spool), key=lambda record: record.seq)[seq]


def known(record: LedgerRecord) -> tuple[Any, ...]:
    return record.outcome, record.basis, record.prompt_tokens, record.cached_tokens, record.completion_tokens


# Hiding what the caller did not ask for


def test_a_caller_who_did_not_ask_gets_what_the_engine_sends_without_being_asked(
    client: Client, engine: Engine
) -> None:
    engine.answer = as_vllm
    client.send(ask("m", stream=True))
    through = client.read_answer()
    assert engine.calls[0].json["stream_options"] == {"include_usage": True}
    with Client(engine.port) as direct:
        answer = direct.ask(ask("m", stream=True))
    assert engine.calls[1].json.get("stream_options") is None
    assert through.body == answer.body
    assert b"usage" not in answer.body


def test_a_caller_who_asked_gets_all_of_it(client: Client, engine: Engine) -> None:
    engine.answer = as_vllm
    asked = {"model": "m", "messages": [1], "stream": True, "stream_options": {"include_usage": True}}
    body = client.ask(post(asked)).body
    assert engine.calls[0].json == asked
    assert body == b"".join((delta("a"), delta("b"), delta("", "stop"), USAGE_EVENT, DONE))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("how", ["chunked", "sized", "until close"])
def test_hiding_holds_for_every_framing(client: Client, engine: Engine, how: str, version: str) -> None:
    payload = delta("a") + USAGE_EVENT + DONE
    kind = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    raw = {
        "chunked": STREAM_HEAD + chunk(payload) + b"0\r\n\r\n",
        "sized": kind + b"content-length: %d\r\n\r\n" % len(payload) + payload,
        "until close": kind + b"\r\n" + payload,
    }[how]

    async def answer(call: Call) -> None:
        call.send(raw)
        if how == "until close":
            call.end()

    engine.answer = answer
    client.send(ask("m", stream=True, version=version))
    assert client.read_answer().body == delta("a") + DONE


def test_the_official_client_sees_no_usage_and_no_empty_chunk(gateway: Gateway, engine: Engine) -> None:
    engine.reset()
    engine.answer = as_vllm
    said: Any = [{"role": "user", "content": "hi"}]
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as api:
        chunks = list(api.chat.completions.create(model="m", messages=said, stream=True))
        assert all(each.choices and each.usage is None for each in chunks)
        options: Any = {"include_usage": True}
        chunks = list(
            api.chat.completions.create(model="m", messages=said, stream=True, stream_options=options)
        )
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 2


# What is written down


def test_a_stream(client: Client, engine: Engine, spool: Path) -> None:
    engine.answer = as_vllm
    client.ask(ask("m", stream=True, extra="X-Request-Id: mine\r\n"))
    record = last(spool)
    assert known(record) == (Outcome.COMPLETE, Basis.MEASURED, 3, None, 2)
    assert (record.request_id, record.model, record.path, record.endpoint) == ("mine", "m", CHAT, "m-0")
    assert (record.status, record.stream, record.retries, record.key_id, record.cost_usd) == (
        200,
        True,
        0,
        "",
        None,
    )
    assert record.ttft_us is not None
    assert record.bytes > len(STREAM_HEAD)
    assert abs(record.time_us / 1e6 - time.time()) < 60


def test_a_whole_answer(client: Client, engine: Engine, spool: Path) -> None:
    engine.answer = as_vllm
    client.ask(ask("m"))
    assert known(last(spool)) == (Outcome.COMPLETE, Basis.MEASURED, 3, None, 2)
    assert last(spool).stream is False


def test_an_answer_that_was_put_together(client: Client, llama: Engine, spool: Path) -> None:
    llama.answer = as_vllm
    assert client.ask(ask("l")).json["usage"] == USAGE
    assert known(last(spool)) == (Outcome.COMPLETE, Basis.MEASURED, 3, None, 2)


OTHERS: dict[str, tuple[str, bytes, tuple[Any, ...]]] = {
    "messages": (MESSAGES, whole({"usage": {"input_tokens": 1, "cache_read_input_tokens": 30, "output_tokens": 2}}), (31, 30, 2)),
    "responses": (RESPONSES, whole({"usage": {"input_tokens": 3, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}}}), (3, 1, 2)),
    "embeddings": ("/v1/embeddings", whole({"data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}}), (8, None, 0)),
    "rerank": ("/v1/rerank", whole({"results": [], "usage": {"prompt_tokens": 9, "total_tokens": 9}}), (9, None, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_paths(name: str, client: Client, engine: Engine, spool: Path) -> None:
    path, answer, tokens = OTHERS[name]
    engine.answer = sending(head=answer)
    assert client.ask(ask("m", path=path)).status == 200
    assert known(last(spool)) == (Outcome.COMPLETE, Basis.MEASURED, *tokens)


def test_an_answer_without_usage_is_not_given_one(client: Client, engine: Engine, spool: Path) -> None:
    engine.answer = sending(head=whole(ANSWER))
    client.ask(ask("m"))
    assert known(last(spool)) == (Outcome.COMPLETE, Basis.UNKNOWN, None, None, None)
    engine.answer = sending(*map(chunk, (delta(""), delta("a"), delta("b"), DONE)), b"0\r\n\r\n")
    client.ask(ask("m", stream=True))
    assert known(last(spool)) == (Outcome.COMPLETE, Basis.ESTIMATED, None, None, 2)


async def _cut(call: Call) -> None:
    call.send(STREAM_HEAD + b"".join(map(chunk, (delta(""), *[delta("a")] * 5))))
    call.end()


async def _quiet(call: Call) -> None:
    call.send(STREAM_HEAD + b"".join(map(chunk, (delta(""), *[delta("a")] * 5))))
    await call.gone.wait()


async def _error_in_band(call: Call) -> None:
    call.send(
        STREAM_HEAD
        + chunk(delta(""))
        + chunk(delta("a"))
        + chunk(event({"error": {"message": "no"}}))
        + b"0\r\n\r\n"
    )


def test_a_cut_stream_is_recorded_with_what_was_delivered(
    client: Client, engine: Engine, spool: Path
) -> None:
    engine.answer = _cut
    assert b"not complete" in client.ask(ask("m", stream=True)).body
    record = last(spool)
    assert known(record) == (Outcome.CUT, Basis.ESTIMATED, None, None, 5)
    assert (record.status, record.chunks) == (502, 6)


def test_a_stream_that_its_client_left(client: Client, engine: Engine, spool: Path) -> None:
    engine.answer = _quiet
    before = len(waiting_records(spool))
    client.send(ask("m", stream=True))
    wait_until(lambda: client.everything_now().count(b'"content"') == 5, what="the tokens")
    client.leave()
    wait_until(lambda: len(waiting_records(spool)) > before, what="the record")
    assert known(last(spool)) == (Outcome.ABANDONED, Basis.ESTIMATED, None, None, 5)
    assert last(spool).status == 499


async def _whole_but_open(call: Call) -> None:
    call.send(STREAM_HEAD + chunk(delta("a")) + chunk(delta("", "stop")) + chunk(USAGE_EVENT) + chunk(DONE))
    await call.gone.wait()  # the end of the framing never comes


def test_who_leaves_after_the_last_event_has_left_nothing(
    gateway: Gateway, client: Client, engine: Engine, spool: Path
) -> None:
    engine.answer = _whole_but_open
    before = gateway.metric("freehold_gateway_client_aborts_total", model="m")
    whole_before = gateway.metric(
        "freehold_gateway_requests_total", model="m", path="/v1/chat/completions", code="200"
    )
    client.send(ask("m", stream=True))
    client.read_until(b"[DONE]")
    client.leave()
    wait_until(
        lambda: (
            gateway.metric(
                "freehold_gateway_requests_total", model="m", path="/v1/chat/completions", code="200"
            )
            == whole_before + 1
        ),
        what="the request to be counted as whole",
    )
    assert last(spool).outcome is Outcome.COMPLETE
    assert gateway.metric("freehold_gateway_client_aborts_total", model="m") == before


async def _whole_but_cut(call: Call) -> None:
    call.send(STREAM_HEAD + chunk(delta("a")) + chunk(delta("", "stop")) + chunk(DONE))
    await call.room()
    call.end()


def test_an_engine_that_dies_after_the_last_event_has_said_all(
    gateway: Gateway, client: Client, engine: Engine, spool: Path
) -> None:
    engine.answer = _whole_but_cut
    before = gateway.metric("freehold_gateway_cut_streams_total", model="m")
    for _ in range(2):  # the connection goes on
        body = client.ask(ask("m", stream=True)).body
        assert body == delta("a") + delta("", "stop") + DONE
        assert (last(spool).outcome, last(spool).status) == (Outcome.COMPLETE, 200)
    assert gateway.metric("freehold_gateway_cut_streams_total", model="m") == before


def test_an_error_in_band_is_no_whole_answer(client: Client, engine: Engine, spool: Path) -> None:
    engine.answer = _error_in_band
    before = len(waiting_records(spool))
    client.ask(ask("m", stream=True))
    wait_until(lambda: len(waiting_records(spool)) > before, what="the record")
    assert last(spool).outcome is Outcome.CUT


def test_an_engine_that_refuses_and_one_that_dies(client: Client, engine: Engine, spool: Path) -> None:
    engine.answer = sending(head=whole({"error": {"message": "too long"}}, status=400))
    assert client.ask(ask("m")).status == 400
    assert known(last(spool)) == (Outcome.FAILED, Basis.NONE, None, None, None)

    async def dies(call: Call) -> None:
        call.end()

    engine.answer = dies
    assert client.ask(ask("m")).status == 503
    assert (last(spool).outcome, last(spool).status) == (Outcome.FAILED, 503)
    assert client.ask(ask("two")).status == 200
    assert last(spool).retries in {0, 1}


def test_what_no_engine_saw_is_not_in_the_ledger(client: Client, spool: Path) -> None:
    before = len(waiting_records(spool))
    assert client.ask(ask("unknown")).status == 404
    assert client.ask(post({"messages": []})).status == 400
    assert len(waiting_records(spool)) == before


# Health


def test_health_and_metrics_tell_how_the_ledger_is(
    gateway: Gateway, client: Client, engine: Engine, spool: Path
) -> None:
    engine.answer = as_vllm
    client.ask(ask("m"))
    told = client.ask(get("/health")).json["ledger"]
    assert told["status"] == "ok"
    assert told["spool_bytes"] > 0
    assert gateway.metric("freehold_ledger_records_total") == len(waiting_records(spool))
    assert gateway.metric("freehold_ledger_spool_bytes") == told["spool_bytes"]
    assert gateway.metric("freehold_ledger_lag_seconds") > 0


def _latencies_s(client: Client, count: int) -> list[float]:
    took = []
    for _ in range(count):
        started_s = time.perf_counter()
        assert client.ask(ask("m")).status == 200
        took.append(time.perf_counter() - started_s)
    return took


def test_a_full_spool_costs_records_and_no_time(tmp_path: Path, engine: Engine) -> None:
    spool = tmp_path / "spool"
    make_folder(spool)
    engine.reset()
    engine.answer = as_vllm
    with running(tmp_path, [model("m", engine)], spool_path=str(spool), spool_max_bytes=20_000) as gateway:
        with gateway.client() as client:
            early = _latencies_s(client, 50)
            wait_until(
                lambda: client.ask(ask("m")) and gateway.metric("freehold_ledger_dropped_total"),
                what="a full spool",
            )
            late = _latencies_s(client, 50)
            told = client.ask(get("/health")).json
        assert told["status"] == "ok", "it serves on"
        assert told["ledger"]["status"] == "dropping"
        assert "not drained" in told["ledger"]["error"]
        assert statistics.median(late) < 3 * statistics.median(early) + 0.002
        assert sum(each.path.stat().st_size for each in segments(spool)) <= 20_000


@pytest.mark.parametrize("at_once", [True, False], ids=["on its end", "on its tick"])
def test_a_spool_that_is_removed_is_written_again(tmp_path: Path, engine: Engine, *, at_once: bool) -> None:
    spool = tmp_path / "freehold-1" / "spool"
    make_folder(spool)
    engine.reset()
    engine.answer = as_vllm
    with (
        running(tmp_path, [model("m", engine)], spool_path=str(spool)) as gateway,
        gateway.client() as client,
    ):
        for _ in range(3):
            assert client.ask(ask("m")).status == 200
        remove_at_once(spool.parent)
        assert client.ask(ask("m")).status == 200
        if at_once:
            gateway.stop()
        else:
            wait_until(lambda: waiting_records(spool), what="the spool to be there again")
            assert client.ask(ask("m")).status == 200
            told = client.ask(get("/health")).json["ledger"]
            assert (told["status"], told["removed"], told["dropped"]) == ("ok", 1, 0)
            assert gateway.metric("freehold_ledger_spool_removed_total") == 1
        assert [row["removed"] for row in gateway.logged("spool_removed")] == [1]
        assert [record.seq for record in waiting_records(spool)] == [1, 2, 3, 4] + [5] * (not at_once)


def test_a_removed_spool_that_cannot_be_made_again_is_told(tmp_path: Path, engine: Engine) -> None:
    spool = tmp_path / "freehold-1" / "spool"
    make_folder(spool)
    engine.reset()
    engine.answer = as_vllm
    with (
        running(tmp_path, [model("m", engine)], spool_path=str(spool)) as gateway,
        gateway.client() as client,
    ):
        assert client.ask(ask("m")).status == 200
        remove_at_once(spool.parent)
        spool.parent.write_text("in the way")
        wait_until(lambda: client.ask(get("/health")).json["ledger"]["status"] == "removed")
        assert client.ask(ask("m")).status == 200
        assert "cannot be made" in client.ask(get("/health")).json["ledger"]["error"]
        assert len(gateway.logged("spool_removed")) == 1
        spool.parent.unlink()
        wait_until(lambda: client.ask(get("/health")).json["ledger"]["status"] == "ok")
        assert [record.seq for record in waiting_records(spool)] == [1, 2]


@pytest.mark.timeout(120)
def test_killed_gateways_lose_no_answer_that_a_client_had_and_count_none_twice(tmp_path: Path) -> None:
    verdict = kill_many(tmp_path, runs=20, seed=7)
    assert verdict.ended > 100, verdict
    assert (verdict.missing, verdict.doubled) == (0, 0), verdict
    assert verdict.recorded >= verdict.ended
