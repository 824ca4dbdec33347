"""What llama_cpp.py claims of the real server, measured on it: how it ends, what it answers, when it stops work."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from freehold.engines import external
from freehold.engines.base import Capacity, ExitCause, ExitKind, Placement
from freehold.engines.llama_cpp import ENGINE
from freehold.testing.check_running_engine import EngineChild, start_child
from waiting import wait_until

DEADLINE_S = 30.0
Values = int | str | bool | float


def placed(weights: Path, port: int, options: dict[str, Values]) -> Placement:
    return Placement(
        model="smollm2-135m", weights=weights, host="127.0.0.1", port=port, options=options, threads=1
    )


@pytest.fixture
def end_of(free_port: int, tmp_path: Path) -> Callable[..., ExitCause]:
    """Give `end_of(weights, options, wrap)`: run the real child to its end and explain it."""

    def run(weights: Path, options: dict[str, Values] | None = None, wrap: tuple[str, ...] = ()) -> ExitCause:
        assert ENGINE.command is not None
        command = ENGINE.command(placed(weights, free_port, options or {}))
        done = subprocess.run(
            [*wrap, *command.argv],
            env={**os.environ, **command.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        return ENGINE.explain_exit(done.returncode, tuple(done.stdout.splitlines()))

    return run


def first_bytes(weights: Path, to: Path, size_bytes: int) -> Path:
    with weights.open("rb") as whole:
        to.write_bytes(whole.read(size_bytes))
    return to


def memory_of(kib: int) -> tuple[str, ...]:
    """Wrap a command so that it gets this much address space."""
    return ("/bin/sh", "-c", f'ulimit -v {kib}; exec "$@"', "sh")


def test_weights_that_are_not_there(end_of: Callable[..., ExitCause], tmp_path: Path) -> None:
    cause = end_of(tmp_path / "nothing.gguf")
    assert (cause.kind, cause.restart) == (ExitKind.BAD_WEIGHTS, False)
    assert "nothing.gguf" in cause.summary


@pytest.mark.parametrize("size_bytes", [0, 1000, 50_000_000])
def test_weights_that_are_cut(
    end_of: Callable[..., ExitCause], weights_path: Path, tmp_path: Path, size_bytes: int
) -> None:
    cause = end_of(first_bytes(weights_path, tmp_path / "cut.gguf", size_bytes))
    assert (cause.kind, cause.restart) == (ExitKind.BAD_WEIGHTS, False)
    assert "freehold model verify" in cause.hint


def test_weights_that_are_no_gguf(end_of: Callable[..., ExitCause], tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("hello, this is no model\n")
    assert end_of(text).kind == ExitKind.BAD_WEIGHTS


def test_a_port_in_use(end_of: Callable[..., ExitCause], weights_path: Path, free_port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        cause = end_of(weights_path)
    assert (cause.kind, cause.restart) == (ExitKind.PORT_IN_USE, True)
    assert str(free_port) in cause.summary


def test_an_option_that_cannot_be(end_of: Callable[..., ExitCause], weights_path: Path) -> None:
    cause = end_of(weights_path, {"n_batch": 2, "n_parallel": 4})
    assert (cause.kind, cause.restart) == (ExitKind.BAD_OPTION, False)


def test_no_memory_for_the_context(end_of: Callable[..., ExitCause], weights_path: Path) -> None:
    cause = end_of(weights_path, {"n_ctx": 1 << 20, "n_threads_http": 8}, memory_of(4_000_000))
    assert cause.kind == ExitKind.OUT_OF_MEMORY
    assert "n_ctx" in cause.hint


def test_no_memory_for_threads(end_of: Callable[..., ExitCause], weights_path: Path) -> None:
    cause = end_of(weights_path, {}, memory_of(600_000))
    assert cause.kind == ExitKind.OUT_OF_MEMORY
    assert "n_threads_http" in cause.hint


def test_no_xllamacpp(end_of: Callable[..., ExitCause], weights_path: Path, tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('no such wheel here')\n")
    cause = end_of(weights_path, {}, ("env", f"PYTHONPATH={tmp_path}:{os.environ.get('PYTHONPATH', '')}"))
    assert (cause.kind, cause.restart) == (ExitKind.MISSING_PROGRAM, False)
    assert "no such wheel here" in cause.summary


def test_no_server_binary(end_of: Callable[..., ExitCause], weights_path: Path, tmp_path: Path) -> None:
    cause = end_of(weights_path, {"server_binary": str(tmp_path / "llama-server")}, ("env",))
    assert (cause.kind, cause.restart) == (ExitKind.MISSING_PROGRAM, False)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (signal.SIGTERM, ExitKind.STOPPED),
        (signal.SIGINT, ExitKind.STOPPED),
        (signal.SIGKILL, ExitKind.KILLED),
        (signal.SIGSEGV, ExitKind.CRASHED),
        (signal.SIGABRT, ExitKind.CRASHED),
    ],
)
def test_signals(weights_path: Path, free_port: int, number: int, kind: ExitKind) -> None:
    with start_child(ENGINE, placed(weights_path, free_port, {})) as child:
        child.wait_ready()
        child.process.send_signal(number)
        code = child.process.wait(DEADLINE_S)
        cause = ENGINE.explain_exit(code, child.log_lines)
    assert (cause.kind, cause.restart) == (kind, True)


def test_sigterm_while_it_loads_is_prompt(weights_path: Path, free_port: int) -> None:
    """Loading holds Python's lock; a context this large takes many seconds to clear."""
    options: dict[str, Values] = {"n_ctx": 600_000, "n_parallel": 1}
    with start_child(ENGINE, placed(weights_path, free_port, options)) as child:
        wait_until(lambda: answers(child), what="the socket, which is opened before the weights are loaded")
        child.process.terminate()
        assert child.process.wait(2.0) == -signal.SIGTERM
        assert ENGINE.explain_exit(-signal.SIGTERM, child.log_lines).kind == ExitKind.STOPPED


def answers(child: EngineChild) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return child.client.get("/health").status_code > 0
    return False


def test_a_program_under_load_ends_at_once(weights_path: Path, free_port: int) -> None:
    with start_child(ENGINE, placed(weights_path, free_port, {})) as child:
        child.wait_ready()
        with leaving_client(child, stream=True):
            child.process.terminate()
            assert child.process.wait(2.0) == 0


def test_options_show_on_the_running_server(weights_path: Path, free_port: int) -> None:
    options: dict[str, Values] = {
        "n_ctx": 1000,
        "n_parallel": 3,
        "seed": 77,
        "n_threads_http": 17,
        "verbosity": 3,
    }
    with start_child(ENGINE, placed(weights_path, free_port, options)) as child:
        child.wait_ready()
        props = (told := child.client.get("/props")).json()
        slots = child.client.get("/slots").json()
        tasks = len(list(Path(f"/proc/{child.process.pid}/task").iterdir()))
        log = "\n".join(child.log_lines)
    assert props["total_slots"] == len(slots) == 3 == ENGINE.slots(options)
    (page,) = [each for each in external.ENGINE.capacity_pages if each.path == "/props"]
    assert page.read(told.content, "m") == Capacity(slots=3, max_context_tokens=512, kind="llama-cpp")
    assert {slot["n_ctx"] for slot in slots} == {512} == {ENGINE.max_context_tokens(options)}
    assert props["default_generation_settings"]["params"]["seed"] == 77
    assert props["model_alias"] == "smollm2-135m"
    assert props["endpoint_metrics"]
    assert not props["ui"]
    assert tasks >= 17
    assert "launch_slot_" in log  # verbosity 3 tells every request


@contextlib.contextmanager
def leaving_client(child: EngineChild, *, stream: bool) -> Iterator[None]:
    """Ask for 400 tokens, wait until some are made, and leave when the block ends."""
    body = json.dumps({"prompt": "Once", "max_tokens": 400, "ignore_eos": True, "stream": stream}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    before = child.metrics()["decode_steps_total"]
    with socket.create_connection(("127.0.0.1", child.placement.port)) as client:
        client.sendall(head.encode() + body)
        wait_until(
            lambda: child.metrics()["decode_steps_total"] > before + 10, timeout_s=DEADLINE_S, what="tokens"
        )
        yield


def test_only_a_stream_stops_when_its_client_leaves(weights_path: Path, free_port: int) -> None:
    """The reason for `stream_to_abort`; and tokens are counted late, decodes at once."""
    made: dict[bool, float] = {}
    with start_child(ENGINE, placed(weights_path, free_port, {})) as child:
        child.wait_ready()
        for stream in (True, False):
            before = child.metrics()
            with leaving_client(child, stream=stream):
                running = child.metrics()
                assert running["generated_tokens_total"] == before["generated_tokens_total"]
                assert running["running_requests"] == 1
            wait_until(lambda: child.metrics()["running_requests"] == 0, timeout_s=50, what="it to stop")
            made[stream] = child.metrics()["generated_tokens_total"] - before["generated_tokens_total"]
    assert made[False] == 400
    assert made[True] < 200
    assert ENGINE.stream_to_abort


def test_metrics_answer_while_many_wait(weights_path: Path, free_port: int) -> None:
    """With the server's own number of HTTP threads, eight waiting requests silence it."""
    body = json.dumps({"prompt": "Once", "max_tokens": 400, "ignore_eos": True, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n"
    options: dict[str, Values] = {"n_parallel": 1, "n_ctx": 1024}
    with (
        start_child(ENGINE, placed(weights_path, free_port, options)) as child,
        contextlib.ExitStack() as all_,
    ):
        child.wait_ready()
        for _ in range(40):
            client = all_.enter_context(socket.create_connection(("127.0.0.1", free_port)))
            client.sendall(head.encode() + body)
        wait_until(lambda: child.metrics()["waiting_requests"] >= 39, timeout_s=4, what="39 waiting requests")


def refusal(child: EngineChild, path: str, request: dict[str, object]) -> tuple[int, str | None, str]:
    answer = child.client.post(path, json={"model": "smollm2-135m", **request})
    error = ENGINE.translate_error(answer.status_code, answer.content)
    assert error is not None, answer.text
    return error.status, error.code, error.message


def test_without_embeddings_the_refusal_says_how_to_get_them(weights_path: Path, free_port: int) -> None:
    with start_child(ENGINE, placed(weights_path, free_port, {})) as child:
        child.wait_ready()
        status, code, message = refusal(child, "/v1/embeddings", {"input": "hi"})
        assert (status, code) == (400, "not_supported_by_engine")
        assert "embeddings: true" in message
        status, code, message = refusal(child, "/v1/rerank", {"query": "a", "documents": ["b"]})
        assert (status, code) == (400, "not_supported_by_engine")
        assert "pooling: rank" in message
        for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses"):
            long: dict[str, object] = {
                "messages": [{"role": "user", "content": "word " * 3000}],
                "max_tokens": 1,
            }
            request: dict[str, object] = {"input": "word " * 3000} if path.endswith("responses") else long
            assert refusal(child, path, request)[:2] == (400, "context_length_exceeded"), path


def test_with_embeddings_completions_still_work(weights_path: Path, free_port: int) -> None:
    options: dict[str, Values] = {"embeddings": True, "pooling": "mean", "n_ubatch": 128}
    with start_child(ENGINE, placed(weights_path, free_port, options)) as child:
        child.wait_ready()
        vectors = child.client.post("/v1/embeddings", json={"input": ["hi", "you"]}).json()["data"]
        assert [len(vector["embedding"]) for vector in vectors] == [576, 576]
        assert refusal(child, "/v1/embeddings", {"input": "word " * 200})[1] == "context_length_exceeded"
        chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        assert child.client.post("/v1/chat/completions", json=chat).status_code == 200


def test_a_text_has_one_embedding_whatever_is_asked_with_it(weights_path: Path, free_port: int) -> None:
    texts = [
        "The cat sleeps on the sofa.",
        "Interest rates rose.",
        "The sea is wide. " * 40,
        "And deep. " * 70,
    ]
    with start_child(
        ENGINE, placed(weights_path, free_port, {"embeddings": True, "pooling": "mean"})
    ) as child:
        child.wait_ready()

        def ask(*inputs: str) -> list[list[float]]:
            answer = child.client.post("/v1/embeddings", json={"input": list(inputs)}).json()
            return [row["embedding"] for row in answer["data"]]

        for one, together in zip([ask(text)[0] for text in texts], ask(*texts), strict=True):
            # Both have the length 1, so that this is the cosine.
            assert sum(a * b for a, b in zip(one, together, strict=True)) > 0.999


def test_embeddings_without_a_pooling_say_so(weights_path: Path, free_port: int) -> None:
    with start_child(ENGINE, placed(weights_path, free_port, {"embeddings": True})) as child:
        child.wait_ready()
        assert "pooling: mean" in refusal(child, "/v1/embeddings", {"input": "hi"})[2]


def logged_tokens(child: EngineChild) -> str:
    child.log.seek(0)
    log = child.log.read().decode("utf-8", "replace")
    return "".join(re.findall(r"next token: +\d+ '(.*?)'", log, re.DOTALL))


@pytest.mark.parametrize(("verbosity", "told"), [(4, False), (5, True)])
def test_only_debugging_logs_what_was_said(
    weights_path: Path, free_port: int, *, verbosity: int, told: bool
) -> None:
    with start_child(ENGINE, placed(weights_path, free_port, {"verbosity": verbosity})) as child:
        child.wait_ready()
        request = {"prompt": "zebracrossing", "max_tokens": 4, "temperature": 0, "ignore_eos": True}
        said = child.client.post("/v1/completions", json=request).json()["choices"][0]["text"]
        if told:  # its log is written by a thread of its own
            wait_until(lambda: said in logged_tokens(child), what="the last token in the log")
        logged = logged_tokens(child)
        child.log.seek(0)
        log = child.log.read().decode("utf-8", "replace")
    assert "zebracrossing" not in log
    assert (said in logged) is told
    assert bool(logged) is told


def test_no_web_page_may_read_an_answer(weights_path: Path, free_port: int) -> None:
    with start_child(ENGINE, placed(weights_path, free_port, {})) as child:
        child.wait_ready()
        answer = child.client.get("/v1/models", headers={"Origin": "http://evil.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == f"http://127.0.0.1:{free_port}"


def test_the_child_imports_little() -> None:
    """Its start is part of every replica's start: no client library, no asyncio, no metadata scan."""
    code = "import sys, freehold.engines.programs.xllamacpp_server as c; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {
        "asyncio",
        "importlib.metadata",
        "msgspec",
        "pydantic",
        "httpx2",
        "subprocess",
        "xllamacpp",
    }
