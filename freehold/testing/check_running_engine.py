"""The contract of an engine with its program running: starts the real child and holds it to what its file says.

For a managed engine with weights that this machine can run. It measures nothing but the start and the end, and it
does not supervise: restarts, groups and orphans are the fleet's part. It needs psutil, which Freehold at work does not.
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import httpx2
import psutil

from freehold.core.clock import monotonic_s
from freehold.engines.base import Engine, ExitKind, Placement
from freehold.engines.shared.metrics_page import read_metrics, shows_progress

START_TIMEOUT_S = 120.0
"""Longest wait for a first token, seconds. Source: our own bound, far above the second that a small model takes."""
GRACE_S = 10.0
"""Longest wait after SIGTERM, seconds. Source: our own bound; Docker's default grace is the same."""
# Our own bounds: a slow machine needs seconds for an answer; a look costs a millisecond; a screen of log lines.
_REQUEST_TIMEOUT_S = 60.0
_POLL_S = 0.02
_LOG_TAIL_BYTES = 4000
_LOOPBACK = ("127.", "::1")
_CHAT = [{"role": "user", "content": "Say hello."}]
_TOKENS = 8  # enough for a text, few enough for a slow machine
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How long the start and the end took, seconds."""

    ready_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChild:
    """A running engine program and the means to ask it."""

    engine: Engine
    placement: Placement
    process: "subprocess.Popen[bytes]"
    log: IO[bytes]
    client: httpx2.Client

    @property
    def log_lines(self) -> tuple[str, ...]:
        """The last lines that it printed."""
        self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, self.log.tell() - _LOG_TAIL_BYTES))
        return tuple(self.log.read().decode("utf-8", "replace").splitlines())

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> float:
        """Return after how many seconds the engine's own ready check was answered 2xx."""
        check = self.engine.proof(self.placement.model, self.placement.options)
        started_s = monotonic_s()

        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"it ended with exit code {self.process.returncode}")
            with contextlib.suppress(httpx2.TransportError):
                return self.client.request(check.method, check.path, json=check.body).is_success
            return False

        _wait(ready, "the first completion", timeout_s)
        return monotonic_s() - started_s

    def metrics(self) -> dict[str, float]:
        """Return its counters under our names."""
        assert self.engine.metrics_path is not None
        answer = self.client.get(self.engine.metrics_path)
        page = read_metrics(answer.text, self.engine.metrics) if answer.is_success else {}
        for more in self.engine.more_pages:
            if not shows_progress(page):
                page = {**more.read(self.client.get(more.path).content), **page}
        return page


@contextlib.contextmanager
def start_child(engine: Engine, placement: Placement) -> Iterator[EngineChild]:
    """Run an engine's command until the block ends, then kill what is left of it.

    Raises AssertionError of the block with the child's last lines added.
    """
    assert engine.command is not None, "only managed engines can be run"
    host = f"[{placement.host}]" if ":" in placement.host else placement.host
    with (
        tempfile.TemporaryFile() as log,
        tempfile.TemporaryDirectory() as folder,
        httpx2.Client(
            base_url=f"http://{host}:{placement.port}",
            timeout=_REQUEST_TIMEOUT_S,
            trust_env=False,
            # A connection each: servers close kept ones when they like (llama.cpp after 100 requests).
            limits=httpx2.Limits(max_keepalive_connections=0),
        ) as client,
    ):
        command = engine.command(placement).in_folder(folder)
        for name, text in command.files.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        for name, target in command.links.items():
            Path(folder, name).symlink_to(target)
        process = subprocess.Popen(
            command.argv,
            env={**os.environ, **command.env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        child = EngineChild(engine=engine, placement=placement, process=process, log=log, client=client)
        try:
            yield child
        except AssertionError as exc:
            exc.add_note("last lines of the engine:\n" + "\n".join(child.log_lines))
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def check_running_engine(engine: Engine, placement: Placement) -> Run:
    """Run the engine and check all that its file promises; raises AssertionError that says what did not hold."""
    with start_child(engine, placement) as child:
        ready_s = child.wait_ready()
        _check_models(child)
        _check_answers(child)
        _check_counters(child)
        _check_too_long(child)
        _check_loopback(child)
        return Run(ready_s=ready_s, end_s=_check_end(child))


def _check_models(child: EngineChild) -> None:
    listed = [model["id"] for model in child.client.get("/v1/models").json()["data"]]
    assert child.placement.model in listed, f"/v1/models lists {listed}, not {child.placement.model}"


def _check_answers(child: EngineChild) -> None:
    """Ask once plainly and once as a stream; at temperature 0 both are the same text."""
    request = {
        "model": child.placement.model,
        "messages": _CHAT,
        "max_tokens": _TOKENS,
        "temperature": 0,
    }
    plain = child.client.post("/v1/chat/completions", json=request)
    assert plain.status_code == 200, f"a plain chat is answered {plain.status_code}: {plain.text[:300]}"
    answer = plain.json()
    _check_usage(answer["usage"])
    streamed, usage = read_stream(child.client, request)
    _check_usage(usage)
    said = answer["choices"][0]["message"]["content"]
    assert said, "a plain chat gives no text"
    assert streamed == said, f"streamed {streamed!r}, plain {said!r}"


def read_stream(client: httpx2.Client, request: dict[str, object]) -> tuple[str, dict[str, int]]:
    """Return text and usage of a streamed chat that ended with `[DONE]`; raises AssertionError for any other end."""
    body = {**request, "stream": True, "stream_options": {"include_usage": True}}
    events: list[str] = []
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200, f"a stream is answered {response.status_code}"
        kind = response.headers["content-type"]
        assert kind.startswith("text/event-stream"), f"a stream is of type {kind}"
        events.extend(
            line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")
        )
    assert events, "a stream brings no event"
    assert events[-1] == "[DONE]", f"a stream ends with {events[-1]!r}, not [DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    usages: list[dict[str, int]] = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert usages, "include_usage brings no usage"
    return "".join(delta.get("content") or "" for delta in deltas), usages[-1]


def _check_usage(usage: dict[str, int]) -> None:
    assert usage["prompt_tokens"] > 0, f"usage {usage} counts no prompt"
    assert 0 < usage["completion_tokens"] <= _TOKENS, f"usage {usage} exceeds max_tokens"
    total = usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["total_tokens"] == total, f"usage {usage} does not add up"


def _check_counters(child: EngineChild) -> None:
    """Every counter moves with an answer, and a running request is seen while it runs."""
    before = child.metrics()
    missing = {metric.name for metric in child.engine.metrics} - before.keys()
    assert not missing, f"/metrics does not show {sorted(missing)}"
    with _request_in_background(child):
        _wait(lambda: child.metrics()["running_requests"] >= 1, "running_requests to rise")
    _wait(lambda: child.metrics()["running_requests"] == 0, "running_requests to fall")
    after = child.metrics()
    for name in ("generated_tokens_total", "prompt_tokens_total", "decode_steps_total"):
        if name in after:
            assert after[name] > before[name], f"{name} did not move from {before[name]}"


@contextlib.contextmanager
def _request_in_background(child: EngineChild) -> Iterator[None]:
    request: dict[str, Any] = {"model": child.placement.model, "prompt": "Once upon a time", "max_tokens": 64}
    thread = threading.Thread(
        target=child.client.post, args=("/v1/completions",), kwargs={"json": {**request, "ignore_eos": True}}
    )
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _check_too_long(child: EngineChild) -> None:
    limit = child.engine.max_context_tokens(child.placement.options)
    if not limit:
        return
    request = {"model": child.placement.model, "prompt": "word " * (limit + 100), "max_tokens": 1}
    answer = child.client.post("/v1/completions", json=request)
    error = child.engine.translate_error(answer.status_code, answer.content)
    assert error is not None, f"a prompt past {limit} tokens is not recognised: {answer.text[:300]}"
    assert (error.status, error.code) == (400, "context_length_exceeded"), f"it is told as {error}"


def _check_loopback(child: EngineChild) -> None:
    process = psutil.Process(child.process.pid)
    for member in (process, *process.children(recursive=True)):
        for connection in member.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                address = connection.laddr.ip
                assert address.startswith(_LOOPBACK), f"it listens on {address}:{connection.laddr.port}"


def _check_end(child: EngineChild) -> float:
    """Send SIGTERM; return after how many seconds the program was gone."""
    child.process.terminate()
    started_s = monotonic_s()
    try:
        code = child.process.wait(GRACE_S)
    except subprocess.TimeoutExpired as exc:
        raise AssertionError(f"it does not end within {GRACE_S:g} s of SIGTERM") from exc
    took_s = monotonic_s() - started_s
    cause = child.engine.explain_exit(code, child.log_lines)
    assert cause.kind == ExitKind.STOPPED, f"its end after SIGTERM (code {code}) is explained as {cause}"
    return took_s


def _wait(condition: Callable[[], T], what: str, timeout_s: float = _REQUEST_TIMEOUT_S) -> T:
    deadline_s = monotonic_s() + timeout_s
    pause = threading.Event()
    while not (value := condition()):
        assert monotonic_s() < deadline_s, f"waited {timeout_s:g} s in vain for {what}"
        pause.wait(_POLL_S)
    return value
