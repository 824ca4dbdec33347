"""A request that makes engines crash, in a whole stack: it ends one engine, its caller not the last one, others notice nothing."""

import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from e2e.box import EXAMPLE, Box, Stack, http
from waiting import wait_until

KEYS = "gateway: {auth: keys, keys_file: keys.json}\n"
DEADLY = "end the engine"


def ask(client: httpx2.Client, stack: Stack, text: str, **more: Any) -> httpx2.Response:
    body = {"model": "fake", "messages": [{"role": "user", "content": text}], "max_tokens": 4} | more
    return client.post(f"{stack.url}/v1/chat/completions", json=body)


class Others:
    """Other callers, who go on asking in threads of their own."""

    def __init__(self, stack: Stack, key: str = "") -> None:
        self.statuses: Counter[int] = Counter()
        self.ready_min = 99
        self._stack = stack
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._over = threading.Event()

    @contextlib.contextmanager
    def asking(self, callers: int) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(callers)]
        threads.append(threading.Thread(target=self._watch))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _ask(self, number: int) -> None:
        with http() as client:
            client.headers.update(self._headers)
            while not self._over.is_set():
                stream = number % 2 == 0
                answer = ask(client, self._stack, f"hi from {number}", stream=stream)
                whole = answer.status_code == 200 and (not stream or answer.text.endswith("data: [DONE]\n\n"))
                self.statuses[answer.status_code if whole or answer.status_code != 200 else 0] += 1

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            ready = sum(replica["state"] == "ready" for replica in self._stack.replicas())
            self.ready_min = min(self.ready_min, ready)


def engines_ended(stack: Stack) -> int:
    return sum(int(replica["restarts"]) for replica in stack.replicas())


def deadly_engines(box: Box, more: str = "", **fault: object) -> None:
    options = {"fault": "crash"} | fault
    box.fake_config(replicas=3, fault_on=f'"{DEADLY}"', health="lie", tokens_per_s=100, more=more, **options)


@pytest.mark.parametrize(
    "fault",
    [{"fault": "crash"}, {"fault": "status_crash", "fault_status": 500}],
    ids=["without an answer", "after a 500"],
)
def test_one_deadly_request_ends_one_engine_and_is_then_rejected(box: Box, fault: dict[str, object]) -> None:
    deadly_engines(box, **fault)
    with box.foreground() as stack, http() as client:
        others = Others(stack)
        with others.asking(6):
            time_for_some(others)
            first = ask(client, stack, "hi", grammar=DEADLY)
            assert (first.status_code, first.json()["error"]["code"]) == (502, "engine_crashed")
            wait_until(lambda: engines_ended(stack) == 1, timeout_s=20, what="the engine's restart")
            for _ in range(5):
                again = ask(client, stack, "hi", grammar=DEADLY)
                assert (again.status_code, again.json()["error"]["code"]) == (400, "request_quarantined")
            time_for_some(others)
        assert engines_ended(stack) == 1
        assert others.ready_min == 2
        assert list(others.statuses) == [200], others.statuses
        assert stack.end() == 0


@pytest.mark.parametrize(
    ("more", "ended_most"),
    [({"grammar": DEADLY}, 1), ({"user": DEADLY}, 2)],
    ids=["with a grammar", "that can be resumed"],
)
def test_a_deadly_stream_that_has_begun_ends_no_more_engines(
    box: Box, more: dict[str, object], ended_most: int
) -> None:
    """Requests beside it are retried before it; one that looks like them is retried once."""
    deadly_engines(box, fault="crash_stream", fault_after_tokens=3, answer_tokens=50)
    with box.foreground() as stack, http() as client:
        others = Others(stack)
        with others.asking(6):
            time_for_some(others)
            first = ask(client, stack, "hi", stream=True, max_tokens=50, **more)
            assert first.status_code == 200
            assert '"error"' in first.text
            assert "[DONE]" not in first.text
            wait_until(lambda: engines_ended(stack) >= 1, timeout_s=20, what="the engine's restart")
            for _ in range(5):
                again = ask(client, stack, "hi", stream=True, max_tokens=50, **more)
                assert (again.status_code, again.json()["error"]["code"]) == (400, "request_quarantined")
            time_for_some(others)
        assert engines_ended(stack) <= ended_most
        assert others.ready_min >= 1
        assert list(others.statuses) == [200], others.statuses
        assert stack.end() == 0


def test_an_engine_that_is_killed_loses_no_request(box: Box) -> None:
    """The signal came from outside, so none of the requests is the cause: all of them move to other engines at once."""
    box.fake_config(replicas=2, first_token_s=0.3, tokens_per_s=100)
    with box.foreground() as stack:
        others = Others(stack)
        with others.asking(8):
            time_for_some(others)
            os.kill(int(stack.replicas()[0]["pid"]), signal.SIGKILL)
            wait_until(lambda: engines_ended(stack) == 1, timeout_s=20, what="the engine's restart")
            time_for_some(others)
        assert list(others.statuses) == [200], others.statuses
        assert stack.end() == 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("gateway", "shaped"),
    [(KEYS, True), ("", True), ("", False)],
    ids=["of a key", "without keys", "small and without keys"],
)
def test_twenty_deadly_requests_leave_one_engine_to_the_others(
    box: Box, gateway: str, *, shaped: bool
) -> None:
    """Each body differs from the others by a number."""
    deadly_engines(box, gateway)
    keys = {"anna": "", "mallory": ""}
    if gateway:
        keys = {name: str(box.run("key", "create", name, "--json").said["key"]) for name in keys}
    with box.foreground() as stack, http(60.0) as mallory:
        if gateway:
            mallory.headers["authorization"] = f"Bearer {keys['mallory']}"
        others = Others(stack, keys["anna"])
        with others.asking(4):
            for number in range(20):
                more = {"grammar": DEADLY} if shaped else {"user": DEADLY}
                answer = ask(mallory, stack, "hi", seed=number, **more)
                assert answer.status_code in {502, 503}, answer.text
                threading.Event().wait(0.9)
        assert others.ready_min >= 1
        assert list(others.statuses) == [200], others.statuses
        assert others.statuses[200] > 100
        assert stack.end() == 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "gateway", [KEYS, "", "gateway: {workers: 2}\n"], ids=["of a key", "without keys", "two workers"]
)
def test_deadly_requests_whose_clients_leave_before_the_crash_leave_one_engine_to_the_others(
    box: Box, gateway: str
) -> None:
    deadly_engines(box, gateway, fault="late_crash")
    with attacked(box, gateway) as (stack, mallory, others):
        for number in range(20):
            with contextlib.suppress(httpx2.TimeoutException):
                ask(mallory, stack, "hi", seed=number, grammar=DEADLY)
            threading.Event().wait(0.9)
        assert others.ready_min >= 1
        assert list(others.statuses) == [200], others.statuses


@contextlib.contextmanager
def attacked(box: Box, gateway: str) -> Iterator[tuple[Stack, httpx2.Client, Others]]:
    """Run a stack with four other callers and one client that leaves after 0.1 s."""
    keys = {"anna": "", "mallory": ""}
    if "keys" in gateway:
        keys = {name: str(box.run("key", "create", name, "--json").said["key"]) for name in keys}
    with box.foreground() as stack, http(0.1) as mallory:
        if keys["mallory"]:
            mallory.headers["authorization"] = f"Bearer {keys['mallory']}"
        others = Others(stack, keys["anna"])
        with others.asking(4):
            yield stack, mallory, others
        assert others.statuses[200] > 100
        assert stack.end() == 0


def test_all_workers_reject_what_one_has_blocked(box: Box) -> None:
    """New connections go to the worker that has fewer of them."""
    deadly_engines(box, "gateway: {workers: 2}\n")
    with box.foreground() as stack, contextlib.ExitStack() as clients:
        first = ask(clients.enter_context(http()), stack, "hi", grammar=DEADLY)
        assert (first.status_code, first.json()["error"]["code"]) == (502, "engine_crashed")
        for _ in range(8):
            again = ask(clients.enter_context(http()), stack, "hi", grammar=DEADLY)
            assert (again.status_code, again.json()["error"]["code"]) == (400, "request_quarantined")
        wait_until(lambda: all_ready(stack), timeout_s=20, what="the engine's restart")
        assert engines_ended(stack) == 1
        assert stack.end() == 0


def all_ready(stack: Stack) -> bool:
    return all(replica["state"] == "ready" for replica in stack.replicas())


def time_for_some(others: Others) -> None:
    before = others.statuses[200]
    wait_until(lambda: others.statuses[200] > before + 20, timeout_s=20, what="answers to the other callers")


@pytest.mark.real_model
@pytest.mark.timeout(180)
def test_a_real_engine_that_crashes_ends_its_request(box: Box, weights_path: Path) -> None:
    """A signal stands for the crash: whichever request makes today's llama.cpp crash, tomorrow's will survive."""
    assert weights_path.exists()
    lines = [
        line for line in EXAMPLE.read_text().splitlines() if line.strip().startswith(("source:", "sha256:"))
    ]
    text = ["version: 1", "models:", "  - name: smol", *lines, "    engine: llama-cpp", "    replicas: 3",
            "    engine_options: {n_ctx: 4096, n_parallel: 1}", ""]  # fmt: skip
    prompt = "one two three " * 1200
    with box.foreground("--config", str(box.write("\n".join(text)))) as stack, http(60.0) as client:
        answers: list[httpx2.Response] = []
        thread = threading.Thread(
            target=lambda: answers.append(ask(client, stack, prompt, model="smol", max_tokens=1))
        )
        thread.start()
        victim = wait_until(lambda: working(stack), timeout_s=20, what="an engine at work")
        os.kill(victim, signal.SIGSEGV)
        thread.join()
        assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (502, "engine_crashed")
        again = ask(client, stack, prompt, model="smol", max_tokens=1)
        assert again.json()["error"]["code"] == "request_quarantined"
        assert ask(client, stack, "hi", model="smol").status_code == 200
        assert engines_ended(stack) <= 1
        assert stack.end() == 0


def working(stack: Stack) -> int | None:
    """Return the pid of the engine that computes; None: none does."""
    engines = [psutil.Process(int(replica["pid"])) for replica in stack.replicas()]
    before = [engine.cpu_times().user for engine in engines]
    threading.Event().wait(0.2)
    busy = [
        engine for engine, was in zip(engines, before, strict=True) if engine.cpu_times().user > was + 0.08
    ]
    return busy[0].pid if len(busy) == 1 else None
