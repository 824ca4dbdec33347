"""The fake engine does what it is told: it answers, counts, and fails in each way, seen from a raw socket."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from freehold.testing.fake_engine import FakeEngine, start_fake_engine
from freehold.testing.fake_faults import CRASH_EXIT_CODE, INSTEAD, MIDWAY
from freehold.testing.fake_settings import FakeSettings
from waiting import wait_until

CHAT = {"model": "fake", "messages": [{"role": "user", "content": "three words here"}]}
W4 = " w0 w1 w2 w3"


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeEngine]:
    """One engine for the tests that leave it as it was."""
    with start_fake_engine(tokens_per_s=0, answer_tokens=4) as engine:
        yield engine


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with start_fake_engine(tokens_per_s=0, answer_tokens=4) as engine:
        yield engine


@contextlib.contextmanager
def sent(
    engine: FakeEngine, body: dict[str, Any], path: str = "/v1/chat/completions"
) -> Iterator[socket.socket]:
    """Send a request and give the socket."""
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as client:
        client.sendall(head.encode() + text)
        yield client


def raw(engine: FakeEngine, body: dict[str, Any], path: str = "/v1/chat/completions") -> bytes:
    """Return all bytes until the engine closes; a reset shows as `RESET` at the end."""
    with sent(engine, body, path) as client:
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        parts.append(b"RESET")
    return b"".join(parts)


def read_until_silence(client: socket.socket) -> bool:
    """Return whether the peer falls silent with the connection open."""
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return True
    return False


def get(engine: FakeEngine, path: str) -> tuple[int, bytes]:
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        answer = read_all(client)
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def openai_client(engine: FakeEngine) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0)


# ----- answers


def test_the_official_client_chats(shared: FakeEngine) -> None:
    answer = openai_client(shared).chat.completions.create(**CHAT)
    assert answer.choices[0].message.content == W4
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        3,
        4,
        7,
    )


def test_the_official_client_streams(shared: FakeEngine) -> None:
    chunks = list(
        openai_client(shared).chat.completions.create(
            **CHAT, stream=True, stream_options={"include_usage": True}, max_tokens=3
        )
    )
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert [text for text in texts if text] == [" w0", " w1", " w2"]
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 3


def test_the_official_client_completes_embeds_and_lists(shared: FakeEngine) -> None:
    client = openai_client(shared)
    assert client.completions.create(model="fake", prompt="hi").choices[0].text == W4
    vectors = client.embeddings.create(model="fake", input=["a", "bc"]).data
    assert len(vectors[0].embedding) == 8
    assert vectors[0].embedding != vectors[1].embedding
    plain = client.embeddings.create(model="fake", input="a", encoding_format="float").data
    assert plain[0].embedding == vectors[0].embedding
    assert [model.id for model in client.models.list().data] == ["fake"]


def test_anthropic_messages(shared: FakeEngine) -> None:
    body = {"model": "fake", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}
    answer = json.loads(raw(shared, body, "/v1/messages").partition(b"\r\n\r\n")[2])
    assert answer["content"] == [{"type": "text", "text": " w0 w1"}]
    assert (answer["stop_reason"], answer["usage"]) == (
        "max_tokens",
        {"input_tokens": 1, "output_tokens": 2},
    )
    stream = raw(shared, {**body, "stream": True}, "/v1/messages").decode()
    events = [line.removeprefix("event: ") for line in stream.splitlines() if line.startswith("event: ")]
    assert events == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta",
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip


def test_an_interrupted_answer_is_continued(engine: FakeEngine) -> None:
    engine.set(answer_tokens=10)
    client = openai_client(engine)
    messages = [*CHAT["messages"], {"role": "assistant", "content": " w0 w1 w2 w3 w4 w5"}]
    answer = client.chat.completions.create(model="fake", messages=messages)
    assert answer.choices[0].message.content == " w6 w7 w8 w9"
    text = client.completions.create(model="fake", prompt="once w7", max_tokens=1)
    assert text.choices[0].text == " w8"
    asked = [{"role": "user", "content": "say w3"}]
    assert (
        client.chat.completions.create(model="fake", messages=asked, max_tokens=1).choices[0].message.content
        == " w0"
    )


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/chat/completions", {"messages": "x"}, "Expected 'messages' to be an array"),
        ("/v1/completions", {"prompt": 5}, "'prompt' must be a string"),
        ("/v1/completions", {"prompt": "x", "max_tokens": "y"}, "max_tokens must be a whole number"),
        ("/v1/embeddings", {"input": 5}, "'input' must be"),
    ],
)
def test_a_wrong_body_is_refused(shared: FakeEngine, path: str, body: dict[str, Any], words: str) -> None:
    answer = raw(shared, body, path)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert words in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_other_paths_are_404(shared: FakeEngine) -> None:
    assert get(shared, "/v1/nothing")[0] == 404


def test_a_long_prompt_is_refused_in_llama_cpps_words(engine: FakeEngine) -> None:
    engine.set(context_tokens=2)
    error = json.loads(raw(engine, CHAT).partition(b"\r\n\r\n")[2])["error"]
    assert error["type"] == "exceed_context_size_error"
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (3, 2)


# ----- pace and counters


def test_speed_and_first_token_are_as_set(engine: FakeEngine) -> None:
    engine.set(tokens_per_s=20, first_token_s=0.3, answer_tokens=5)
    started_s = time.monotonic()
    raw(engine, CHAT)
    assert time.monotonic() - started_s >= 0.5  # 0.3 s, then four gaps of 0.05 s


def test_requests_past_the_slots_wait(engine: FakeEngine) -> None:
    engine.set(fault="hang")
    with contextlib.ExitStack() as clients:
        for _ in range(6):
            clients.enter_context(sent(engine, CHAT))
        stats = wait_until(lambda: (now := engine.stats())["in_flight"] == 6 and now, what="six requests")
        assert (stats["running"], stats["waiting"]) == (FakeSettings().slots, 2)
        text = get(engine, "/metrics")[1].decode()
        assert "llamacpp:requests_deferred 2" in text
        assert "vllm:num_requests_running 4" in text
    wait_until(lambda: engine.stats()["in_flight"] == 0, what="the clients' leaving to be noticed")
    assert engine.stats()["aborted"] == 6


def test_metrics_count_tokens_as_llama_cpp_and_as_vllm(engine: FakeEngine) -> None:
    engine.set(fault="hang_stream", fault_after_tokens=3)
    with sent(engine, {**CHAT, "stream": True}):
        wait_until(lambda: engine.stats()["tokens"] == 3, what="three tokens")
        text = get(engine, "/metrics")[1].decode()
        assert "vllm:generation_tokens_total 3" in text
        assert "llamacpp:n_decode_total 3" in text
        assert "llamacpp:tokens_predicted_total 0" in text


def test_metrics_can_be_missing(engine: FakeEngine) -> None:
    engine.set(metrics="missing")
    assert get(engine, "/metrics")[0] == 501


def test_requests_are_remembered_as_they_came(engine: FakeEngine) -> None:
    raw(engine, CHAT)
    (seen,) = engine.stats()["recent"]
    assert (seen["method"], seen["target"]) == ("POST", "/v1/chat/completions")
    assert ["Connection", "close"] in seen["headers"]
    assert json.loads(seen["body"]) == CHAT


# ----- clients that leave


def test_a_streams_client_that_leaves_is_noticed(engine: FakeEngine) -> None:
    engine.set(tokens_per_s=50, answer_tokens=10_000)
    with sent(engine, {**CHAT, "stream": True}):
        wait_until(lambda: engine.stats()["tokens"] >= 3, what="tokens")
        assert engine.stats()["aborted"] == 0
        left_s = time.monotonic()
    (departure,) = wait_until(lambda: engine.stats()["departures"], what="the departure")
    assert departure["stream"]
    assert 0 <= departure["noticed_s"] - left_s < 5.0
    assert 3 <= departure["tokens"] < 1000
    assert engine.stats()["in_flight"] == 0


@pytest.mark.parametrize("abort_plain", [False, True])
def test_a_plain_answer_runs_to_its_end_unless_told(engine: FakeEngine, abort_plain: bool) -> None:  # noqa: FBT001
    engine.set(tokens_per_s=200, answer_tokens=60, abort_plain=abort_plain)
    with sent(engine, CHAT):
        wait_until(lambda: engine.stats()["tokens"] >= 1, what="tokens")
    (departure,) = wait_until(lambda: engine.stats()["departures"], what="the departure")
    assert (departure["tokens"] == 60) is not abort_plain


def test_a_client_that_does_not_read_stops_the_fake(engine: FakeEngine) -> None:
    engine.set(answer_tokens=10_000_000)
    with sent(engine, {**CHAT, "stream": True}):
        last = -1

        def stands_still() -> bool:
            nonlocal last
            before, last = last, engine.stats()["tokens"]
            return last > 0 and before == last

        wait_until(stands_still, timeout_s=30, what="the fake to wait for its client")


# ----- connections


def test_idle_connections_are_closed(engine: FakeEngine) -> None:
    engine.set(keep_alive_s=0.2)
    with socket.create_connection(("127.0.0.1", engine.port), timeout=5) as client:
        assert client.recv(1) == b""


def test_a_connection_ends_after_its_requests(engine: FakeEngine) -> None:
    engine.set(keep_alive_requests=3)
    with socket.create_connection(("127.0.0.1", engine.port), timeout=5) as client:
        for _ in range(3):
            client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n")
        answers = read_all(client)
    assert answers.count(b"HTTP/1.1 200 ") == 3
    assert answers.count(b"Keep-Alive: timeout=5, max=3") == 2
    assert answers.count(b"Connection: close") == 1


@pytest.mark.parametrize(
    "message",
    [
        b"this is no HTTP\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\nab",
        b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    ],
)
def test_bad_requests_are_counted(engine: FakeEngine, message: bytes) -> None:
    with socket.create_connection(("127.0.0.1", engine.port), timeout=5) as client:
        client.sendall(message)
        assert read_all(client).startswith(b"HTTP/1.1 400 ")
    stats = engine.stats()
    assert (stats["bad_requests"], stats["bad_request_bytes"]) == (1, len(message))
    assert stats["requests"] == 0


# ----- faults


SHOWN: dict[str, Callable[[bytes], bool]] = {
    "close": lambda answer: answer == b"",
    **dict.fromkeys(("status", "status_crash"), lambda answer: answer.startswith(b"HTTP/1.1 503 ")),
    "bad_head": lambda answer: answer.startswith(b"HTTP/1.1 fine"),
    "huge_headers": lambda answer: len(answer.partition(b"\r\n\r\n")[0]) > 1 << 20,
    "two_lengths": lambda answer: answer.count(b"Content-Length") == 2,
    "short_body": lambda answer: b"Content-Length: 1000\r\n" in answer and len(answer) < 500,
    "long_body": lambda answer: b"Content-Length: 2\r\n" in answer and answer.endswith(b'promised"}'),
    **dict.fromkeys(("crash", "late_crash"), lambda answer: answer == b""),
    "close_stream": lambda answer: b" w2" in answer and not answer.endswith(b"0\r\n\r\n"),
    "reset_stream": lambda answer: answer.endswith(b"RESET"),
    "bad_chunk": lambda answer: b"\r\nzz\r\n" in answer,
    "error_event": lambda answer: b'"error"' in answer and b"[DONE]" not in answer,
    "crash_stream": lambda answer: b" w2" in answer and not answer.endswith(b"0\r\n\r\n"),
    "no_done": lambda answer: b" w3" in answer and b"[DONE]" not in answer and answer.endswith(b"0\r\n\r\n"),
}


@pytest.mark.parametrize("fault", sorted(SHOWN))
def test_each_fault_shows_on_the_wire(engine: FakeEngine, fault: str) -> None:
    engine.set(fault=fault, fault_count=1, fault_after_tokens=3)
    answer = raw(engine, {**CHAT, "stream": True})
    assert SHOWN[fault](answer), answer[:300]
    assert b" w3" not in answer or fault == "no_done"
    if "crash" in fault:
        assert engine.process.wait(5) == CRASH_EXIT_CODE
    else:
        assert W4.encode() in raw(engine, CHAT), "one request was to meet the fault"


@pytest.mark.parametrize(("fault", "after"), [("hang", b""), ("hang_stream", b" w2")])
def test_a_hang_lasts_until_the_client_leaves(engine: FakeEngine, fault: str, after: bytes) -> None:
    engine.set(fault=fault)
    with sent(engine, {**CHAT, "stream": True}) as client:
        got = b""
        while after not in got:
            got += client.recv(65536)
        client.settimeout(0.3)
        assert read_until_silence(client), "the connection was closed"
        assert engine.stats()["in_flight"] == 1
    wait_until(lambda: engine.stats()["aborted"] == 1, what="the departure")


def test_every_fault_is_tested() -> None:
    assert {*SHOWN, "hang", "hang_stream"} == {*INSTEAD, *MIDWAY, "no_done"}


def test_a_fault_may_last_for_some_requests(engine: FakeEngine) -> None:
    engine.set(fault="status", fault_status=429, fault_retry_after_s=7, fault_count=2)
    answers = [raw(engine, CHAT) for _ in range(3)]
    assert [answer.split()[1] for answer in answers] == [b"429", b"429", b"200"]
    assert b"Retry-After: 7\r\n" in answers[0]


def test_a_fault_for_all_requests_stays(engine: FakeEngine) -> None:
    engine.set(fault="status", fault_status=500)
    assert {raw(engine, CHAT).split()[1] for _ in range(3)} == {b"500"}
    engine.set(fault="none")
    assert raw(engine, CHAT).split()[1] == b"200"


@pytest.mark.parametrize(
    ("health", "fault", "status"),
    [
        ("honest", "none", 200),
        ("honest", "hang", 503),
        ("lie", "hang", 200),
        ("bad", "none", 503),
    ],
)
def test_health_is_honest_or_not(shared: FakeEngine, health: str, fault: str, status: int) -> None:
    shared.set(health=health, fault=fault)
    try:
        assert get(shared, "/health")[0] == status
    finally:
        shared.set(health="honest", fault="none")


@pytest.mark.parametrize("what", [{"health": "hang"}, {"metrics": "hang"}])
def test_health_and_metrics_can_hang(engine: FakeEngine, what: dict[str, str]) -> None:
    engine.set(**what)
    with socket.create_connection(("127.0.0.1", engine.port), timeout=0.3) as client:
        client.sendall(f"GET /{next(iter(what))} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_it_can_take_its_time_to_get_ready() -> None:
    with start_fake_engine(start_s=0.5, tokens_per_s=0) as engine:
        assert b"Loading model" in raw(engine, CHAT)
        assert get(engine, "/health")[0] == 503
        wait_until(lambda: b" w0" in raw(engine, CHAT), what="it to be ready")
        assert get(engine, "/health")[0] == 200


def test_it_counts_what_comes_while_it_loads_by_path() -> None:
    with start_fake_engine(start_s=600.0) as engine:
        for _ in range(150):  # more than it remembers
            raw(engine, CHAT)
        raw(engine, {"model": "fake", "prompt": "hi"}, "/v1/completions")
        assert engine.stats()["while_loading"] == {"/v1/chat/completions": 150, "/v1/completions": 1}
        engine.set(start_s=0.0)
        raw(engine, CHAT)
        assert engine.stats()["while_loading"]["/v1/chat/completions"] == 150


def test_health_can_be_slow(engine: FakeEngine) -> None:
    engine.set(health_delay_s=0.3)
    started_s = time.monotonic()
    assert get(engine, "/health")[0] == 200
    assert time.monotonic() - started_s >= 0.3


# ----- the process


@pytest.mark.parametrize(
    "changes", [{"nonsense": 1}, {"fault": "odd"}, {"slots": 0}, {"tokens_per_s": "fast"}]
)
def test_impossible_settings_are_refused(shared: FakeEngine, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        shared.set(**changes)


def test_a_wrong_flag_ends_it_with_2() -> None:
    command = [sys.executable, "-P", "-m", "freehold.testing.fake_engine", "--slots=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "slots" in done.stderr


def test_it_can_end_at_once() -> None:
    with pytest.raises(RuntimeError, match="exit code 42"), start_fake_engine(exit_at_start=42):
        pass


def test_sigterm_ends_it_with_0(engine: FakeEngine) -> None:
    engine.process.terminate()
    assert engine.process.wait(5) == 0


def test_it_can_take_its_time_to_end() -> None:
    with start_fake_engine(term_delay_s=0.4) as engine:
        started_s = time.monotonic()
        engine.process.terminate()
        assert engine.process.wait(5) == 0
        assert time.monotonic() - started_s >= 0.4


def test_it_can_ignore_sigterm_but_not_sigkill(engine: FakeEngine) -> None:
    engine.set(ignore_sigterm=True)
    os.kill(engine.pid, signal.SIGTERM)
    assert raw(engine, CHAT).split()[1] == b"200"
    assert engine.process.poll() is None
    engine.kill()
    assert engine.process.returncode == -signal.SIGKILL


def test_it_does_not_outlive_who_started_it() -> None:
    code = (
        "import os\nfrom freehold.testing.fake_engine import start_fake_engine\n"
        "with start_fake_engine() as engine:\n    print(engine.port, flush=True)\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    port = int(done.stdout)

    def gone() -> bool:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return False
        return True

    wait_until(gone, what="the fake to end")


def test_many_clients_at_once(engine: FakeEngine) -> None:
    engine.set(answer_tokens=50)
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(raw(engine, {**CHAT, "stream": True})))
        for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 40
    assert all(answer.endswith(b"0\r\n\r\n") and b" w49" in answer for answer in answers)
    stats = engine.stats()
    assert (stats["requests"], stats["finished"], stats["tokens"]) == (40, 40, 2000)
