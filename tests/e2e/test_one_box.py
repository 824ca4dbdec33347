"""The example with the real model, as who runs it meets it: status, metrics, logs, a replica that dies. One stack for the whole file.

The tests run in the order of the file: the one that kills a replica comes late, the one that ends the stack last.
"""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx2
import openai
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.box import EXAMPLE, READY_S, Box, Stack, http, replica_http
from freehold.core.events import socket_path
from waiting import wait_until

MODEL = "smollm2-135m"
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
pytestmark = [pytest.mark.real_model, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, weights_path: Path) -> Iterator[Stack]:
    box = Box(home=tmp_path_factory.mktemp("one-box"))
    try:
        with box.foreground("--config", str(EXAMPLE)) as stack:
            yield stack
    finally:
        box.kill_all()


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with (
        http() as transport,
        openai.OpenAI(
            base_url=f"{stack.url}/v1", api_key="none", max_retries=0, http_client=transport
        ) as client,
    ):
        yield client


@pytest.fixture
def raw(stack: Stack) -> Iterator[httpx2.Client]:
    with http() as client:
        client.base_url = httpx2.URL(stack.url)
        yield client


def running(replica: dict[str, Any]) -> float:
    """Return how many requests an engine works on by its own word."""
    page = replica_http(replica["url"]).get("/metrics").text
    return float(re.findall(r"^llamacpp:requests_processing (\S+)$", page, re.MULTILINE)[0])


def busy(stack: Stack) -> list[dict[str, Any]]:
    return [replica for replica in stack.replicas() if running(replica)]


def test_the_summary_tells_the_truth(stack: Stack) -> None:
    assert stack.first["ready_s"] < READY_S
    assert [(r["id"], r["state"]) for r in stack.replicas()] == [(f"{MODEL}-{i}", "ready") for i in (0, 1)]
    assert stack.first["status"]["config"] == str(EXAMPLE)


def test_health(raw: httpx2.Client) -> None:
    assert [raw.get(path).status_code for path in ("/health", "/livez", "/readyz")] == [200] * 3
    health = raw.get("/health").json()
    assert (health["status"], health["control_plane"]) == ("ok", "connected")
    queue = {"waiting": 0, "tokens": 0, "limit": 8, "overloaded": False}
    assert health["models"][MODEL] == {"ready": 2, "wanted": 2, "ejected": 0, "in_flight": 0, "queue": queue}


def test_only_the_gateway_listens_on_a_port(stack: Stack) -> None:
    listening = {
        process.pid: {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        for process in stack.box.living()
    }
    assert set.union(*listening.values()) == {"127.0.0.1"}
    replicas = stack.replicas()
    assert len(replicas) == 2
    assert not any(listening[replica["pid"]] for replica in replicas)
    folders = [Path(socket_path(replica["url"])).parent for replica in replicas]
    assert [folder.stat().st_mode & 0o777 for folder in folders] == [0o700] * 2


@dataclass(kw_only=True)
class Load:
    """Requests one after the other in some threads, until `stop`."""

    url: str
    threads: int = 3
    answered: int = 0
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._running = [threading.Thread(target=self._ask) for _ in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stopping.set()
        for thread in self._running:
            thread.join()

    def _ask(self) -> None:
        body = {"model": MODEL, "messages": QUESTION, "max_tokens": 12}
        with http() as client:
            while not self._stopping.is_set():
                outcome = self._once(client, body)
                with self._lock:
                    self.answered += not outcome
                    self.failures += [outcome] if outcome else []

    def _once(self, client: httpx2.Client, body: dict[str, Any]) -> str:
        try:
            answer = client.post(f"{self.url}/v1/chat/completions", json=body)
        except httpx2.HTTPError as exc:
            return repr(exc)
        return "" if answer.status_code == 200 and answer.json()["choices"] else answer.text

    def wait_for_more(self, count: int) -> None:
        wanted = self.answered + count
        wait_until(lambda: self.answered >= wanted or self.failures, timeout_s=30, what=f"{count} answers")


def test_a_killed_replica_comes_back_while_requests_go_on(stack: Stack, client: openai.OpenAI) -> None:
    before = {replica["id"]: replica["restarts"] for replica in stack.replicas()}
    stream = iter(
        client.chat.completions.create(
            model=MODEL, messages=QUESTION, stream=True, max_tokens=400, extra_body={"ignore_eos": True}
        )
    )
    received = [next(stream)]
    (victim,) = busy(stack)
    with Load(url=stack.url) as load:
        load.wait_for_more(6)
        psutil.Process(victim["pid"]).kill()
        received.extend(stream)  # the other replica goes on with it
        wait_until(
            lambda: (now := replica_of(stack, victim["id"]))["state"] == "ready" and now["restarts"],
            timeout_s=READY_S,
            what="the replica to come back",
        )
        load.wait_for_more(12)
        wait_until(
            lambda: all((replica["tokens_per_s"] or 0) > 0 for replica in stack.replicas()),
            timeout_s=15,
            what="both replicas to count tokens",
        )
    assert load.failures == []
    assert received[-1].choices[0].finish_reason == "length"
    assert len({part.id for part in received}) == 1
    after = {replica["id"]: replica["restarts"] for replica in stack.replicas()}
    assert after == before | {victim["id"]: before[victim["id"]] + 1}
    assert replica_of(stack, victim["id"])["pid"] != victim["pid"]


def replica_of(stack: Stack, replica_id: str) -> dict[str, Any]:
    return next(replica for replica in stack.replicas() if replica["id"] == replica_id)


def samples(raw: httpx2.Client) -> dict[tuple[str, ...], float]:
    """Return the gateway's metrics: name and label values to value."""
    families = text_string_to_metric_families(raw.get("/metrics").text)
    return {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_agree_with_status(stack: Stack, raw: httpx2.Client) -> None:
    asked = ("freehold_gateway_requests_total", "200", MODEL, "/v1/completions")
    before = samples(raw).get(asked, 0.0)
    for _ in range(3):
        raw.post("/v1/completions", json={"model": MODEL, "prompt": "x", "max_tokens": 1})
    now = samples(raw)
    assert now[asked] == before + 3
    for replica in stack.replicas():
        name = (MODEL, replica["id"])
        assert now["freehold_replica_state", *name, "ready"] == 1
        assert now["freehold_replica_restarts_total", *name] == replica["restarts"]
    assert now["freehold_gateway_in_flight", MODEL] == 0
    assert ("freehold_gateway_cut_streams_total", MODEL, "engine_lost") not in now
    assert now["freehold_gateway_resumed_total", MODEL, "whole"] == 1
    assert ("freehold_gateway_client_aborts_total", MODEL) not in now
    assert not [name for name in now if name[0] == "freehold_bugs_total"]
    counted = ("freehold_gateway_requests_total", "freehold_gateway_refused_total")
    total = sum(value for name, value in now.items() if name[0] in counted)
    wait_until(lambda: stack.box.status()["gateway"]["requests_total"] == total, what="the count in status")


def test_status_in_words_and_in_json_is_what_the_socket_says(stack: Stack) -> None:
    # The gateway tells the controller once a second how many are under way.
    wait_until(lambda: stack.box.status()["gateway"]["in_flight"] == 0)
    words = stack.box.run("status")
    assert words.code == 0
    assert f"{stack.url}/v1   serving, 0 requests under way" in words.out
    for replica in stack.replicas():
        assert re.search(rf"^{replica['id']} +llama-cpp +ready .* {replica['pid']}$", words.out, re.MULTILINE)
    said = stack.box.run("status", "--json").said
    told = stack.box.status()
    for both in (said, told):
        for replica in both["replicas"]:
            replica["tokens_per_s"] = replica["tokens_total"] = None
    assert said == told


def test_a_second_up_on_the_same_state_says_who_runs(stack: Stack) -> None:
    again = stack.box.run("up", "--config", str(EXAMPLE), "--listen", "127.0.0.1:0")
    assert again.code == 1
    assert f"{EXAMPLE} is already up for " in again.err
    assert f"(pid {stack.process.pid})" in again.err


def test_logs(stack: Stack) -> None:
    box = stack.box
    gateway = [json.loads(line) for line in box.run("logs", "gateway", "--raw").out.splitlines()]
    assert "stream_resumes" in [line["event"] for line in gateway]
    controller = box.run("logs", "controller", "-n", "200").out
    assert re.search(r"^\S+Z info +engine exited replica=", controller, re.MULTILINE)
    lines = [json.loads(line) for line in box.run("logs", "--json").out.splitlines()]
    assert {f"{MODEL}-0", f"{MODEL}-1", "gateway", "controller"} <= {line["source"] for line in lines}
    wrong = box.run("logs", "gatway")
    assert wrong.code == 2
    assert "did you mean 'gateway'?" in wrong.err
    prompt = QUESTION[0]["content"]
    assert prompt not in box.run("logs", "-n", "10000").out, "prompts are not logged"


def test_down_ends_everything(stack: Stack) -> None:
    assert stack.end() == 0
    stack.box.assert_nothing_left()
    assert stack.box.run("logs", "controller").code == 0
    assert stack.box.run("status").code == 1
