"""A real llama.cpp that somebody else runs, behind the gateway: its engine file's habits apply although the engine is external."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from e2e.box import Stack, http, serving
from freehold.engines.base import Placement
from freehold.engines.llama_cpp import ENGINE
from freehold.testing.check_running_engine import EngineChild, start_child
from waiting import wait_until

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(180)]
MODEL = "smollm2-135m"
CONFIG = """
version: 1
models:
  - name: {model}
    engine: external
    endpoints: ["http://127.0.0.1:{port}"]
"""
TOKENS = 900


@pytest.fixture(scope="module")
def server(weights_path: Path) -> Iterator[EngineChild]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options: dict[str, int | str | bool | float] = {"n_ctx": 4096, "n_parallel": 4}
    placement = Placement(
        model=MODEL, weights=weights_path, host="127.0.0.1", port=port, options=options, threads=1
    )
    with start_child(ENGINE, placement) as child:
        child.wait_ready()
        yield child


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, server: EngineChild) -> Iterator[Stack]:
    text = CONFIG.format(model=MODEL, port=server.placement.port)
    with serving(tmp_path_factory.mktemp("by-hand"), text) as stack:
        yield stack


@contextlib.contextmanager
def asking(stack: Stack, server: EngineChild) -> Iterator[None]:
    """Ask for a long answer that is not a stream, and leave when the block ends."""
    text = {"model": MODEL, "prompt": "Once", "max_tokens": TOKENS, "ignore_eos": True}
    body = json.dumps(text).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    before = server.metrics()["decode_steps_total"]
    with socket.create_connection(("127.0.0.1", urlsplit(stack.url).port or 0)) as client:
        client.sendall(head.encode() + body)
        wait_until(lambda: server.metrics()["decode_steps_total"] > before + 10, timeout_s=30, what="tokens")
        yield


def test_a_plain_request_ends_with_its_client(stack: Stack, server: EngineChild) -> None:
    before = server.metrics()["decode_steps_total"]
    with asking(stack, server):
        pass
    wait_until(lambda: server.metrics()["running_requests"] == 0, timeout_s=60, what="it to stop")
    assert server.metrics()["decode_steps_total"] - before < TOKENS / 2


def test_several_answers_are_one_whole_answer_with_their_usage(stack: Stack, server: EngineChild) -> None:
    assert server.process.poll() is None
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 8, "n": 2, "ignore_eos": True}
    with http(60.0) as client:
        answer = client.post(f"{stack.url}/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["choices"]) == 2
    assert answer.json()["usage"]["completion_tokens"] == 16
