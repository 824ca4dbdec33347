"""The access log: one line per request, no secret and no prompt in it, and nobody waits for its disk."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gateway_rig.client import ask, get, post
from gateway_rig.engines import STREAM_HEAD, Call, Engine, chunk, delta
from gateway_rig.process import model, running
from waiting import wait_until

QUEUE_LINES = 5
"""Lowered, so that a few requests fill it."""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def logged(path: Path, count: int) -> list[dict[str, Any]]:
    """Wait for so many lines and return them."""
    wait_until(lambda: len(lines(path)) >= count, what=f"{count} lines in the access log")
    return lines(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def test_a_request_is_one_line_with_what_it_took(engine: Engine, tmp_path: Path, path: Path) -> None:
    with (
        running(tmp_path, [model("m", engine)], access_log={"path": str(path)}) as gateway,
        gateway.client() as client,
    ):
        answer = client.ask(ask("m"))
        assert answer.status == 200
        (line,) = logged(path, 1)
    assert line["id"] == answer.header("x-request-id")
    assert line["at"].endswith("Z")
    assert len(line["at"]) == len("2026-11-24T10:00:00.000Z")
    assert (line["path"], line["status"], line["end"]) == ("/v1/chat/completions", 200, "complete")
    assert (line["model"], line["endpoint"], line["attempts"]) == ("m", "m-0", 1)
    assert line["bytes"] == len(answer.body)
    assert 0 <= line["took_s"] < 10  # uvloop's clock counts milliseconds
    assert not {"code", "key", "stream", "ttft_s"} & set(line)


def test_a_stream_that_is_cut_and_a_client_that_leaves_say_so(
    engine: Engine, tmp_path: Path, path: Path
) -> None:
    async def one_word(call: Call) -> None:
        call.send(STREAM_HEAD + chunk(delta("a")))
        if len(engine.calls) == 1:
            call.reset()
        else:
            await call.gone.wait()

    engine.answer = one_word
    with running(tmp_path, [model("m", engine)], access_log={"path": str(path)}) as gateway:
        for leaves in (False, True):
            with gateway.client() as client:
                client.send(ask("m", stream=True))
                client.read_head()
                client.read_chunk()
                if not leaves:
                    client.read_until(
                        b'"error"'
                    )  # who leaves at the first word may be gone before the engine is
        cut, left = logged(path, 2)
    assert (cut["end"], cut["status"], cut["code"], cut["stream"]) == (
        "engine_lost",
        502,
        "engine_lost",
        True,
    )
    assert (left["end"], left["status"]) == ("client_left", 499)
    assert left["ttft_s"] <= left["took_s"]


def test_a_client_that_leaves_the_queue_says_so(engine: Engine, tmp_path: Path, path: Path) -> None:
    async def never(call: Call) -> None:
        await call.gone.wait()

    engine.answer = never
    with (
        running(tmp_path, [model("m", engine, slots=1)], access_log={"path": str(path)}) as gateway,
        gateway.client() as first,
        gateway.client() as second,
    ):
        first.send(ask("m"))
        wait_until(lambda: len(engine.calls) == 1)
        second.send(ask("m"))
        wait_until(lambda: gateway.metric("freehold_gateway_queue_requests", model="m") == 1)
        second.leave()
        (line,) = logged(path, 1)
    assert (line["end"], line["status"], line.get("endpoint")) == ("client_left", 499, None)
    assert line["wait_s"] > 0


def test_what_is_refused_says_why_and_probes_are_not_logged(
    engine: Engine, tmp_path: Path, path: Path
) -> None:
    with (
        running(tmp_path, [model("m", engine)], access_log={"path": str(path)}) as gateway,
        gateway.client() as client,
    ):
        assert client.ask(get("/health")).status == 200
        assert client.ask(get("/metrics")).status == 200
        assert client.ask(get("/v1/models")).status == 200
        assert client.ask(ask("no-such-model")).status == 404
        assert client.ask(get("/wp-admin/sk-abcdefghijklmnopqrstuvwxyz?password=hunter2")).status == 404
        listed, unknown, astray = logged(path, 3)
    assert (listed["path"], listed["end"]) == ("/v1/models", "complete")
    assert (unknown["end"], unknown["code"], unknown.get("model")) == ("refused", "model_not_found", None)
    assert (astray["end"], astray["path"]) == ("refused", "/wp-admin/[redacted]")


def test_no_secret_and_no_word_of_a_prompt_or_an_answer_is_in_it(
    engine: Engine, tmp_path: Path, path: Path
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "PROMPT-WORDS"}], "user": "USER-WORDS"}
    secrets = (
        "Authorization: Bearer sk-KEYWORDS\r\nx-api-key: KEYWORDS\r\n"
        "Cookie: KEYWORDS=1\r\ntraceparent: KEYWORDS\r\n"
    )
    with (
        running(tmp_path, [model("m", engine)], access_log={"path": str(path)}) as gateway,
        gateway.client() as client,
    ):
        path_and_query = "/v1/chat/completions?api_key=KEYWORDS"
        answer = client.ask(post(body, path=path_and_query, extra=secrets))
        assert answer.status == 200
        bad = client.ask(post(b'{"PROMPT-WORDS"', extra=secrets))
        assert bad.status == 400
        logged(path, 2)
        said = answer.json["choices"][0]["message"]["content"]
        assert len(said) > 1
        text = path.read_text()
    for word in ("PROMPT-WORDS", "USER-WORDS", "KEYWORDS", "messages", f'"{said}"'):
        assert word not in text, word
    assert (path.stat().st_mode & 0o777) == 0o600


def test_a_disk_that_takes_nothing_costs_lines_that_are_counted_and_no_request(
    engine: Engine, tmp_path: Path, path: Path
) -> None:
    os.mkfifo(path)  # whoever opens it to write waits for a reader, who never comes
    patch = f"import freehold.gateway.exchange.access_log as access; access.QUEUE_LINES = {QUEUE_LINES}; access.CLOSE_S = 0.1"
    with (
        running(tmp_path, [model("m", engine)], patch=patch, access_log={"path": str(path)}) as gateway,
        gateway.client() as client,
    ):
        for _ in range(300):
            assert client.ask(ask("m")).status == 200
        # Besides the queue there is what the thread had taken when it came to the disk: a batch at most.
        assert gateway.metric("freehold_access_log_dropped_total") >= 300 - 256 - QUEUE_LINES
        assert gateway.metric("freehold_gateway_requests_total", model="m") == 300


def test_it_is_rotated_within_its_bound(engine: Engine, tmp_path: Path, path: Path) -> None:
    settings = {"path": str(path), "max_bytes": 1500, "keep": 2}
    with running(tmp_path, [model("m", engine)], access_log=settings) as gateway, gateway.client() as client:
        for _ in range(5):
            answers = [client.ask(ask("m")) for _ in range(4)]  # some 1000 bytes
            last = answers[-1].header("x-request-id")
            wait_until(lambda last=last: [line["id"] for line in lines(path)][-1:] == [last])
            assert path.stat().st_size <= 1500
    assert sorted(file.name for file in tmp_path.glob("access*")) == [
        *("access.log", "access.log.1", "access.log.2")
    ]


def test_without_a_path_there_is_none(engine: Engine, tmp_path: Path) -> None:
    with running(tmp_path, [model("m", engine)]) as gateway, gateway.client() as client:
        assert client.ask(ask("m")).status == 200
        assert gateway.metric("freehold_access_log_dropped_total") == 0
    assert not list(tmp_path.glob("access*"))


def test_a_stop_writes_what_is_queued(engine: Engine, tmp_path: Path, path: Path) -> None:
    with running(tmp_path, [model("m", engine)], access_log={"path": str(path)}) as gateway:
        with gateway.client() as client:
            for _ in range(40):
                client.ask(ask("m"))
        gateway.terminate()
        assert gateway.process.wait(5) == 0
        assert len(lines(path)) == 40
