"""A flood of refusals: what one costs the gateway, and how soon it is there, for a full queue (503) and a key's limit (429)."""

import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from processes import API_KEY, run_client
from stack import Bar, CannotMeasureError

from holding.asking import ask, health
from holding.ground import LOAD_CORE, Ground, ground, write_keys

QUEUE_MAX = 64
FLOOD = 16
TURNS, TURN_S = 3, 1.5
FULL_LIMIT_S = 10.0
# One slot and a queue that nobody leaves in time.
CONFIG = f"""\
version: 1
models:
  - name: m
    engine: external
    endpoints: ["http://127.0.0.1:{{port}}"]
    engine_options: {{{{slots: 1}}}}
gateway:
  listen: 127.0.0.1:0
  auth: keys
  keys_file: keys.json
  queue: {{{{max_requests: {QUEUE_MAX}, max_wait: 10m, overload_wait: 10m}}}}
"""
_BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"bench:chunks=1;hold=1"}]}'
_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n"
)
REQUEST = _HEAD % (API_KEY.encode(), len(_BODY)) + _BODY


@contextmanager
def full(stage: Ground) -> Iterator[None]:
    """Hold the slot with a stream that does not end, and all places of the queue."""
    held: list[socket.socket] = []
    try:
        for _ in range(1 + QUEUE_MAX):
            held.append(socket.create_connection(("127.0.0.1", stage.port), timeout=10))
            held[-1].sendall(REQUEST)
        _wait("the queue to be full", lambda: _waiting(stage) == QUEUE_MAX)
        yield
        if _waiting(stage) != QUEUE_MAX:
            raise CannotMeasureError("the queue did not stay full")
    finally:
        for each in held:
            each.close()


def _waiting(stage: Ground) -> int:
    return int(health(stage.port)["models"]["m"]["queue"]["waiting"])


def _wait(what: str, condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + FULL_LIMIT_S
    while not condition():
        if time.monotonic() > end_s:
            raise CannotMeasureError(f"waited {FULL_LIMIT_S:g} s in vain for {what}")
        time.sleep(0.02)


def flood(stage: Ground, *, conns: int) -> dict[str, float]:
    """Ask and be refused for some turns; CPU and waits in microseconds, medians of the turns."""
    reports: list[dict[str, Any]] = []
    for _ in range(TURNS):
        load = {"conns": conns, "secs": TURN_S, "warm_ms": 250, "cpu": stage.gateway_pid}
        reports.append(run_client("load", LOAD_CORE, port=stage.port, prompt="bench:bytes=1024", **load))
    return summary(reports)


def summary(reports: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over turns in which everything was refused, and something was."""
    if not all(each["window_requests"] and each["refused"] == each["started"] for each in reports):
        raise CannotMeasureError(f"not everything was refused: {reports}")
    rows = [
        {
            "cpu_us": each["cpu_sched_ns"] / each["window_requests"] / 1e3,
            "per_s": each["window_requests"] / each["window_s"],
            "p50_us": each["wait_us_p50"],
            "p99_us": each["wait_us_p99"],
        }
        for each in reports
    ]
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def bars(kind: str, alone: dict[str, float], flooded: dict[str, float]) -> list[Bar]:
    print(f"  {kind}: {flooded['per_s']:.0f} refusals/s, {flooded['cpu_us']:.0f} us CPU each; one at a time: p50 "
          f"{alone['p50_us']:.0f} us, p99 {alone['p99_us']:.0f}; {FLOOD} at a time: p50 {flooded['p50_us']:.0f}, "
          f"p99 {flooded['p99_us']:.0f}")  # fmt: skip
    cpu_ms = max(alone["cpu_us"], flooded["cpu_us"]) / 1e3
    return [
        Bar(name=f"CPU time of a refusal, {kind}", value=cpu_ms, limit=1, unit=" ms"),
        Bar(name=f"p50 of a refusal alone, {kind}", value=alone["p50_us"] / 1e3, limit=1, unit=" ms"),
        Bar(name=f"p50 in a flood, {kind}", value=flooded["p50_us"] / 1e3, limit=5, unit=" ms"),
        Bar(name=f"p99 in a flood, {kind}", value=flooded["p99_us"] / 1e3, limit=50, unit=" ms"),
    ]


def measure() -> list[Bar]:
    with ground(config=CONFIG) as stage:
        with full(stage):
            found = bars("503", flood(stage, conns=1), flood(stage, conns=FLOOD))
        write_keys(stage.stack.folder, requests_per_minute=1)
        _wait("the key's limit to be in force", lambda: ask(stage.port).status == 429)
        return found + bars("429", flood(stage, conns=1), flood(stage, conns=FLOOD))
