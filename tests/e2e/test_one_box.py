"""The example with the real model, as a client of the official library meets it. One stack for the whole file.

The tests run in the order of the file: the one that kills a replica comes late, the one that ends the stack last.
"""

import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx2
import openai
import psutil
import pytest
from openai.types.chat import ChatCompletion
from prometheus_client.parser import text_string_to_metric_families

from e2e.box import READY_S, Box, Stack, http
from waiting import wait_until

EXAMPLE = Path(__file__).parents[2] / "examples" / "01-one-box" / "freehold.yaml"
MODEL = "smollm2-135m"
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
SAME: Any = {"temperature": 0, "extra_body": {"cache_prompt": False}}
"""What makes two answers of one model the same, on whichever replica."""
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


def long_request(*, stream: bool) -> dict[str, Any]:
    """Return a request that keeps an engine busy for some 20 s unless somebody ends it."""
    return {"model": MODEL, "messages": QUESTION, "max_tokens": 1500, "ignore_eos": True, "stream": stream}


def running(replica: dict[str, Any]) -> float:
    """Return how many requests an engine works on by its own word."""
    page = http().get(f"{replica['url']}/metrics").text
    return float(re.findall(r"^llamacpp:requests_processing (\S+)$", page, re.MULTILINE)[0])


def busy(stack: Stack) -> list[dict[str, Any]]:
    return [replica for replica in stack.replicas() if running(replica)]


def test_the_summary_tells_the_truth(stack: Stack) -> None:
    assert stack.first["ready_s"] < READY_S
    assert [(r["id"], r["state"]) for r in stack.replicas()] == [(f"{MODEL}-{i}", "ready") for i in (0, 1)]
    assert stack.first["status"]["config"] == str(EXAMPLE)


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    model = client.models.retrieve(MODEL)
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "freehold")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


def test_chat_and_the_same_text_as_a_stream(client: openai.OpenAI, stack: Stack) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=120, **SAME)
    text = whole.choices[0].message.content
    assert text
    assert whole.model == MODEL
    stream = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        max_tokens=120,
        stream=True,
        stream_options={"include_usage": True},
        **SAME,
    )
    chunks = iter(stream)
    first = next(chunk for chunk in chunks if chunk.choices[0].delta.content)
    assert busy(stack), "the first words came while the engine was still at work"
    rest = list(chunks)
    parts = [chunk.choices[0].delta.content or "" for chunk in (first, *rest) if chunk.choices]
    assert "".join(parts) == text
    assert len(parts) > 10
    assert rest[-1].usage == whole.usage
    assert [chunk.usage for chunk in rest[:-1]] == [None] * (len(rest) - 1)


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=4, **SAME)
    assert answer.choices[0].text.startswith(" Paris")
    assert answer.usage
    assert answer.usage.completion_tokens == 4
    parts = client.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=4, stream=True, **SAME
    )
    assert "".join(part.choices[0].text for part in parts) == answer.choices[0].text


def test_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=12, temperature=0)
    assert answer.output_text
    events = list(
        client.responses.create(
            model=MODEL, input="Say hello.", max_output_tokens=12, temperature=0, stream=True
        )
    )
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")


def test_embeddings_are_refused_with_the_option_that_would_give_them(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model=MODEL, input="hello")
    assert refused.value.code == "not_supported_by_engine"
    assert "Set `embeddings: true` in its engine_options" in refused.value.message


def test_a_json_schema_is_kept_to(client: openai.OpenAI) -> None:
    schema: Any = {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        max_tokens=60,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema}},
        **SAME,
    )
    assert json.loads(answer.choices[0].message.content or "")["city"] in {"Paris", "Rome"}


def test_tools_reach_the_engine_as_they_were_sent(client: openai.OpenAI, stack: Stack) -> None:
    tool: Any = {
        "type": "function",
        "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}},
    }
    asked: Any = {"messages": QUESTION, "max_tokens": 40, "tools": [tool], "tool_choice": "auto"} | SAME
    ours = client.chat.completions.create(model=MODEL, **asked)
    with http() as transport:
        beside = openai.OpenAI(
            base_url=f"{stack.replicas()[0]['url']}/v1", api_key="none", http_client=transport
        )
        theirs = beside.chat.completions.create(model=MODEL, **asked)
    assert isinstance(ours, ChatCompletion)
    assert ours.choices[0].message.to_dict() == theirs.choices[0].message.to_dict()
    assert ours.usage
    assert ours.usage.total_tokens == theirs.usage.total_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_beyond_the_context(client: openai.OpenAI, *, stream: bool) -> None:
    words: Any = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=MODEL, messages=words, stream=stream)
    assert (refused.value.code, refused.value.type) == ("context_length_exceeded", "invalid_request_error")
    assert "2048 tokens" in refused.value.message


def test_an_unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt-4", messages=QUESTION)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert f"Models served: {MODEL}" in refused.value.message


def test_request_ids(client: openai.OpenAI, raw: httpx2.Client) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=QUESTION, max_tokens=1, extra_headers={"x-request-id": "mine-1"}
    )
    assert answer.headers["x-request-id"] == "mine-1"
    made = {raw.get("/v1/models").headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    assert raw.get("/v1/models", headers={"x-request-id": "no spaces"}).headers["x-request-id"] != "no spaces"


def test_messages_in_anthropics_shape(raw: httpx2.Client) -> None:
    ask = {"model": MODEL, "max_tokens": 8, "temperature": 0, "messages": QUESTION}
    answer = raw.post("/v1/messages", json=ask).json()
    assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "max_tokens")
    assert answer["usage"]["output_tokens"] == 8
    stream = raw.post("/v1/messages", json=ask | {"stream": True})
    assert stream.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: ")]
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")
    text = "".join(event["delta"].get("text", "") for event in events if "delta" in event)
    assert text == answer["content"][0]["text"]


@pytest.mark.parametrize(
    ("change", "status", "kind"),
    [
        ({"model": "claude"}, 404, "not_found_error"),
        ({"model": 5}, 400, "invalid_request_error"),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, 400, "invalid_request_error"),
    ],
)
def test_messages_errors_in_anthropics_shape(
    raw: httpx2.Client, change: dict[str, Any], status: int, kind: str
) -> None:
    answer = raw.post("/v1/messages", json={"model": MODEL, "max_tokens": 8, "messages": QUESTION} | change)
    said = answer.json()
    assert (answer.status_code, said["type"], said["error"]["type"]) == (status, "error", kind)
    assert said["error"]["message"]


def test_health(raw: httpx2.Client) -> None:
    assert [raw.get(path).status_code for path in ("/health", "/livez", "/readyz")] == [200] * 3
    health = raw.get("/health").json()
    assert (health["status"], health["control_plane"]) == ("ok", "connected")
    queue = {"waiting": 0, "tokens": 0, "limit": 8, "overloaded": False}
    assert health["models"][MODEL] == {"ready": 2, "wanted": 2, "ejected": 0, "in_flight": 0, "queue": queue}


def test_a_client_that_leaves_a_stream_frees_the_engine(stack: Stack, raw: httpx2.Client) -> None:
    with raw.stream("POST", "/v1/chat/completions", json=long_request(stream=True)) as stream:
        lines = stream.iter_lines()
        next(lines)
        assert len(busy(stack)) == 1
    wait_until(lambda: not busy(stack), timeout_s=2, what="the engine to stop")


def test_a_client_that_leaves_before_its_answer_frees_the_engine(stack: Stack) -> None:
    body = json.dumps(long_request(stream=False))
    host, port = stack.url.removeprefix("http://").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as client:
        client.sendall((head + body).encode())
        wait_until(lambda: busy(stack), timeout_s=5, what="the engine to begin")
    wait_until(lambda: not busy(stack), timeout_s=2, what="the engine to stop")


def test_everything_listens_on_loopback_only(stack: Stack) -> None:
    listening = {
        process.pid: {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        for process in stack.box.living()
    }
    assert set.union(*listening.values()) == {"127.0.0.1"}
    engines = {replica["pid"] for replica in stack.replicas()}
    assert len(engines) == 2
    assert all(listening[pid] for pid in engines)


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
    assert now["freehold_gateway_client_aborts_total", MODEL] == 2
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
    gateway = [json.loads(line) for line in box.run("logs", "gateway").out.splitlines()]
    assert "stream_resumes" in [line["event"] for line in gateway]
    controller = box.run("logs", "controller", "-n", "200").out
    assert '"event":"engine exited"' in controller
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
