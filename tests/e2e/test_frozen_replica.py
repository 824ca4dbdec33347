"""Two real llama.cpp replicas, one of them frozen: its requests are answered by the other one within its stall limit."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from e2e.box import EXAMPLE, Box, Stack, http
from waiting import wait_until

MODEL = "smollm2-135m"
STALL_S = 3.0
pytestmark = [pytest.mark.real_model, pytest.mark.timeout(180)]


def asked_s(stack: Stack, *, stream: bool) -> float:
    """Return how long a request took, seconds, which must succeed."""
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    started_s = time.monotonic()
    with http() as client:
        answer = client.post(f"{stack.url}/v1/chat/completions", json=body | {"stream": stream})
    assert answer.status_code == 200, answer.text
    assert not stream or answer.text.endswith("data: [DONE]\n\n")
    return time.monotonic() - started_s


def metric(stack: Stack, name: str) -> float:
    with http() as client:
        lines = client.get(f"{stack.url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_a_frozen_replica_is_diverted_from_within_its_stall_limit(box: Box, weights_path: Path) -> None:
    assert weights_path.exists()
    example = EXAMPLE.read_text().replace(
        "engine: llama-cpp", f"engine: llama-cpp\n    stall: {STALL_S:g}s", 1
    )
    with box.foreground("--config", str(box.write(example))) as stack:
        assert [asked_s(stack, stream=True) < STALL_S for _ in range(4)] == [True] * 4
        pid = stack.replicas()[0]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            took_s = [asked_s(stack, stream=number % 2 == 0) for number in range(6)]
            # The gateway looks twice a second; the rest is the other replica's answer on a loaded machine.
            assert STALL_S < max(took_s) < STALL_S + 3
            assert metric(stack, "freehold_gateway_ejections_total") >= 1
            wait_until(
                lambda: "ejected" in stack.replicas()[0]["reason"], timeout_s=10, what="status to tell"
            )
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(
            lambda: asked_s(stack, stream=True) and not metric(stack, "freehold_gateway_endpoint_ejected"),
            timeout_s=30,
            what="the thawed replica to be taken back",
        )
        assert stack.end() == 0
