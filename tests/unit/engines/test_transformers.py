"""The yardstick engine's words, and its child's server around a model of the test's own: no torch is needed."""

import argparse
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from freehold.engines.base import ExitKind, Placement, Value
from freehold.engines.programs import transformers_server as child
from freehold.engines.shared.flag_list import load_flags
from freehold.engines.shared.option_check import check_options
from freehold.engines.transformers import ENGINE
from freehold.fleet.environments.lookup import installed_problems
from waiting import wait_until


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:15"])
def test_a_device_is_one_of_few(device: str) -> None:
    assert not check_options(ENGINE, {"device": device}, lambda name: name)


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:x", "CPU", "gpu", "cuda:1,2"])
def test_another_device_is_refused_before_the_start(device: str) -> None:
    (problem,) = check_options(ENGINE, {"device": device}, lambda name: name)
    assert f"not {device!r}" in problem.message
    assert problem.hint


def test_a_gpu_that_is_not_there_is_told_before_weights_are_read() -> None:
    torch: Any = SimpleNamespace(
        __version__="2", cuda=SimpleNamespace(is_available=lambda: True, device_count=lambda: 2)
    )
    assert [child._device(torch, named) for named in ("auto", "cpu", "cuda", "cuda:1")] == [
        "cuda",
        "cpu",
        "cuda",
        "cuda:1",
    ]
    with pytest.raises(child.DeviceError, match=r"there is no cuda:2: this torch .* sees 2 GPUs"):
        child._device(torch, "cuda:2")
    cause = ENGINE.explain_exit(child.EXIT_NO_DEVICE, ("there is no cuda:2",))
    assert (cause.kind, cause.restart) == (ExitKind.BAD_DRIVER, True)


WORDS = ["one ", "two ", "three ", "four "]


class Tokenizer:
    """Token n is the n-th word; 90 and 91 are two halves of one character."""

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        text = "".join(WORDS[number] if number < len(WORDS) else "" for number in ids)
        halves = [number for number in ids if number >= 90]
        return text + ("é" if halves == [90, 91] else "\ufffd" if halves else "")


class WholeTokenizer:
    """One token: how long the text is."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [len(text)]}


class Model:
    """Says words until it is told to stop; `hold` keeps it before each token."""

    context_tokens = 16
    tokenizer = Tokenizer()
    versions = {"version": "5", "transformers": "5", "torch": "2"}  # noqa: RUF012 - a test's own

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.hold = threading.Event()
        self.hold.set()
        self.fails = False
        self.stopped_after = -1

    def encode(self, body: dict[str, Any], *, chat: bool) -> list[int]:
        return list(
            range(len(body["messages"][0]["content"].split()) if chat else len(body["prompt"].split()))
        )

    def generate(self, tokens: list[int], body: dict[str, Any], on_token: Callable[[int], bool]) -> None:
        if self.fails:
            raise RuntimeError("out of memory")
        for number in range(child.answer_tokens(body)):
            assert self.hold.wait(10)
            if not on_token(number % len(WORDS)):
                self.stopped_after = number + 1
                return


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def client(model: Model) -> Iterator[httpx2.Client]:
    class Handler(child.Handler):
        pass

    Handler.model, Handler.name, Handler.counters = model, "m", child.ServerCounters()  # type: ignore[assignment]
    server = child.Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    with httpx2.Client(
        base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False, timeout=20
    ) as made:
        yield made
    model.hold.set()
    server.shutdown()
    server.server_close()
    thread.join()


def chat(**more: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 6, **more}


def test_a_plain_answer(client: httpx2.Client) -> None:
    answer = client.post("/v1/chat/completions", json=chat()).json()
    assert answer["choices"][0]["message"]["content"] == "one two three four one two "
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}


def test_a_stream_says_the_same(client: httpx2.Client) -> None:
    body = chat(stream=True, stream_options={"include_usage": True})
    lines = [line for line in client.post("/v1/chat/completions", json=body).text.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    pieces = [choice["delta"].get("content") or "" for event in events for choice in event["choices"]]
    assert "".join(pieces) == "one two three four one two "
    assert events[-1]["usage"]["completion_tokens"] == 6
    assert sum(map(bool, pieces)) == 6  # a piece a token


def test_a_completion_and_the_counters(client: httpx2.Client) -> None:
    answer = client.post("/v1/completions", json={"model": "m", "prompt": "hi", "max_tokens": 2}).json()
    assert answer["choices"][0]["text"] == "one two "
    page = client.get("/metrics").text
    assert "transformers:generated_tokens_total 2\n" in page
    assert "transformers:requests_running 0\n" in page


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (chat(max_tokens=14), 400, "context_length_exceeded"),
        (chat(tools=[{}]), 400, "not_supported_by_engine"),
        (chat(n=2), 400, "not_supported_by_engine"),
        (chat(presence_penalty=1), 400, "not_supported_by_engine"),
        (chat(max_tokens=0), 400, None),
        (chat(temperature="hot"), 400, None),
        (chat(temperature=-1), 400, None),
        (chat(top_p=7), 400, None),
        (chat(messages=[{"role": "user", "content": ""}]), 400, None),
        ([], 400, None),
    ],
)
def test_what_is_refused(client: httpx2.Client, body: object, status: int, code: str | None) -> None:
    answer = client.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_nulls_are_as_good_as_nothing(client: httpx2.Client) -> None:
    body = chat(temperature=None, top_p=None, n=None, stop=None, max_completion_tokens=None)
    assert client.post("/v1/chat/completions", json=body).json()["usage"]["completion_tokens"] == 6


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (None, None),
        (["hi"], None),
        ([{"role": "user", "content": 5}], None),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "not_supported_by_engine"),
    ],
)
def test_messages_that_it_cannot_take_are_never_half_read(messages: object, code: str | None) -> None:
    model = child.LoadedModel.__new__(child.LoadedModel)
    model.tokenizer = WholeTokenizer()
    with pytest.raises(child.RefusedError) as refused:
        model.encode({"messages": messages}, chat=True)
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, code, "messages")
    said = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert model.encode({"messages": said}, chat=True) == [2]


def test_a_context_that_is_too_short_is_told_in_openais_words(client: httpx2.Client) -> None:
    answer = client.post("/v1/chat/completions", json=chat(max_tokens=14))
    error = ENGINE.translate_error(answer.status_code, answer.content)
    assert error is not None
    assert error.code == "context_length_exceeded"
    assert ENGINE.translate_error(400, b"{}") is None


def test_no_such_path(client: httpx2.Client) -> None:
    assert client.post("/v1/embeddings", json={}).status_code == 404
    assert client.get("/nothing").status_code == 404
    assert client.get("/v1/models").json()["data"][0]["id"] == "m"
    assert client.get("/version").json()["transformers"] == "5"


def test_what_torch_raises_is_an_error_and_never_a_whole_answer(client: httpx2.Client, model: Model) -> None:
    model.fails = True
    assert client.post("/v1/chat/completions", json=chat()).status_code == 500
    with pytest.raises(httpx2.RemoteProtocolError):
        client.post("/v1/chat/completions", json=chat(stream=True))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_answer(client: httpx2.Client, model: Model, stream: bool) -> None:  # noqa: FBT001
    model.hold.clear()
    with socket.create_connection((client.base_url.host, client.base_url.port)) as asking:
        body = json.dumps(chat(max_tokens=12, stream=stream)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        asking.sendall(head.encode() + body)
        wait_until(
            lambda: "requests_running 1" in client.get("/metrics").text, timeout_s=10, what="it to run"
        )
    model.hold.set()
    wait_until(lambda: "requests_running 0" in client.get("/metrics").text, timeout_s=10, what="it to end")
    assert 0 < model.stopped_after < 12


def test_one_at_a_time(client: httpx2.Client, model: Model) -> None:
    model.hold.clear()
    threads = [
        threading.Thread(target=client.post, args=("/v1/chat/completions",), kwargs={"json": chat()})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    wait_until(
        lambda: "requests_running 1\ntransformers:requests_waiting 2" in client.get("/metrics").text,
        timeout_s=10,
        what="one to run and two to wait",
    )
    model.hold.set()
    for thread in threads:
        thread.join()


def test_a_character_in_two_tokens_is_given_when_it_is_whole():
    text = child.TextPieces(Tokenizer())
    assert [text.add(token) for token in (0, 90, 91)] == ["one ", "", "é"]


def test_a_wrong_flag_ends_it():
    with pytest.raises(SystemExit) as end:
        child.parse(["--host", "h"])
    assert ENGINE.explain_exit(int(end.value.code or 0), ("error: needs",)).kind is ExitKind.BAD_OPTION
    flags = child.parse(["--host", "h", "--model", "m", "--name", "n", "--port", "1"])
    assert isinstance(flags, argparse.Namespace)


@pytest.mark.parametrize(
    ("code", "lines", "kind"),
    [
        (3, ("weights cannot be loaded: x",), ExitKind.BAD_WEIGHTS),
        (4, ("cannot listen",), ExitKind.PORT_IN_USE),
        (127, ("torch and transformers cannot be imported",), ExitKind.MISSING_PROGRAM),
        (1, ("torch.OutOfMemoryError: CUDA out of memory",), ExitKind.OUT_OF_MEMORY),
        (0, (), ExitKind.STOPPED),
        (-9, (), ExitKind.KILLED),
        (1, (), ExitKind.UNKNOWN),
    ],
)
def test_why_it_ended(code: int, lines: tuple[str, ...], kind: ExitKind) -> None:
    assert ENGINE.explain_exit(code, lines).kind is kind


def test_the_environments_python_runs_the_child_alone():
    place = Placement(model="m", weights=Path("/w"), host="h", port=1, options={}, environment=Path("/env"))
    assert ENGINE.command is not None
    argv = ENGINE.command(place).argv
    assert argv[0] == "/env/bin/python"
    assert argv[1] == "-I"  # else the folder of engines would hide the library of that name
    assert Path(argv[2]).is_file()


def test_its_options_are_not_asked_of_vllm_in_whose_environment_it_runs():
    flags = load_flags("vllm-0.32.0.json")
    options: dict[str, Value] = {"threads": 1, "dtype": "float32", "device": "cpu", "max_context_tokens": 64}
    assert installed_problems(ENGINE, options, flags=flags, where=str) == []
    place = Placement(model="m", weights=Path("/w"), host="h", port=1, options=options)
    assert ENGINE.command is not None
    argv = ENGINE.command(place).argv
    assert child.parse(list(argv[3:])).max_context == 64
