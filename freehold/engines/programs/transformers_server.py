"""Hugging Face Transformers' `generate` behind a small HTTP server, one request at a time: the yardstick of `freehold bench`.

Run by path with the Python of an environment that has torch and transformers; it imports nothing of Freehold. It deliberately
has no continuous batching, no paged cache and no prefix cache, so that their benefit is a measured number. Other requests wait
in order of arrival. Tools, JSON schemas, log probabilities, stop texts and several choices are refused, not ignored.

Why not `transformers serve` (measured with transformers 5.19.0): its streams end without `[DONE]`, so a cut stream looks
whole; it ignores `max_completion_tokens`, `n` and `response_format` with status 200; it answers 422 to `ignore_eos`, which a
load test needs; it has no counters, no bound on the context, and names the model by its path.

Exit codes: 0 after SIGTERM or SIGINT once it listens, 2 for a wrong flag, 3 for weights that cannot be loaded, 4 for a port in
use, 5 for a device that is not there, 127 when torch or transformers cannot be imported.
"""

import argparse
import copy
import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

EXIT_NO_WEIGHTS, EXIT_NO_PORT, EXIT_NO_DEVICE, EXIT_NO_PACKAGE = 3, 4, 5, 127
"""Source: our own choice, but 127: what a shell reports for a program that is not there."""
_BODY_BYTES_MAX = 16 * 1024 * 1024  # Our own bound, the same as the gateway's default.
_ANSWER_TOKENS = 256  # Of a request without max_tokens: our own choice, since there is one slot.
_REFUSED = (
    "tools", "functions", "response_format", "logprobs", "top_logprobs", "stop", "logit_bias",
    "frequency_penalty", "presence_penalty", "echo", "suffix",
)  # fmt: skip
_INCOMPLETE = "\ufffd"  # What a tokeniser decodes the first bytes of a character to.
_COUNTERS = ("requests_running", "requests_waiting", "prompt_tokens_total", "generated_tokens_total")


class RefusedError(Exception):
    """A request that is answered with an error; `code` as in OpenAI's error bodies."""

    def __init__(
        self, message: str, *, status: int = 400, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class DeviceError(Exception):
    """The device of the flags is not there."""


class ServerCounters:
    """The numbers on /metrics."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = dict.fromkeys(_COUNTERS, 0)

    def add(self, **changes: int) -> None:
        """Add to counters, by name."""
        with self._lock:
            for name, change in changes.items():
                self._numbers[name] += change

    def page(self) -> bytes:
        """Return the counters in the Prometheus text format."""
        with self._lock:
            return "".join(f"transformers:{name} {self._numbers[name]}\n" for name in _COUNTERS).encode()


class LoadedModel:
    """The model in memory; `lock` is its one slot."""

    def __init__(self, flags: argparse.Namespace) -> None:
        import torch  # noqa: PLC0415 -- so that a wrong flag is reported without it, and its absence in our words
        import transformers  # noqa: PLC0415

        self._device = _device(torch, flags.device)
        torch.set_num_threads(flags.threads)
        self._torch, self._transformers = torch, transformers
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(flags.model, local_files_only=True)
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            flags.model, local_files_only=True, dtype=flags.dtype
        )
        self._model.to(self._device).eval()
        limits = (getattr(self._model.config, "max_position_embeddings", 0), flags.max_context)
        self.context_tokens = min(filter(None, limits), default=0)
        version = transformers.__version__
        self.versions = {"version": version, "transformers": version, "torch": torch.__version__}
        self.lock = threading.Lock()

    def encode(self, body: dict[str, Any], *, chat: bool) -> list[int]:
        """Return a request's prompt as tokens; raises RefusedError for an invalid one."""
        if not chat:
            prompt = body.get("prompt")
            if not isinstance(prompt, str):
                raise RefusedError("'prompt' must be a string", param="prompt")
            return list(self.tokenizer(prompt)["input_ids"])
        messages = [
            {"role": str(each.get("role")), "content": _text(each.get("content"))}
            for each in messages_of(body)
        ]
        if getattr(self.tokenizer, "chat_template", None):
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self.tokenizer("\n".join(each["content"] for each in messages))["input_ids"])

    def generate(self, tokens: list[int], body: dict[str, Any], on_token: Callable[[int], bool]) -> None:
        """Generate an answer token by token, until it ends or `on_token` returns False."""
        torch = self._torch
        config = copy.deepcopy(self._model.generation_config)
        temperature, top_p = sampling(body)
        config.do_sample = temperature > 0
        config.temperature, config.top_p = (temperature, top_p) if config.do_sample else (None, None)
        config.top_k = config.max_length = None
        config.max_new_tokens = answer_tokens(body)
        config.pad_token_id = self.tokenizer.eos_token_id
        if body.get("ignore_eos") is True:
            config.eos_token_id = None
        if isinstance(body.get("seed"), int):
            torch.manual_seed(body["seed"])
        ids = torch.tensor([tokens], device=self._device)

        def stops(
            so_far: Any, _scores: Any, **_more: Any
        ) -> Any:  # called with all tokens after each new one
            return torch.full((1,), not on_token(int(so_far[0, -1])), device=so_far.device)

        with torch.inference_mode():
            self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=config,
                stopping_criteria=self._transformers.StoppingCriteriaList([stops]),
            )


class TextPieces:
    """Tokens into text as they come; a piece is returned when its characters are complete."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._from = self._returned = 0

    def add(self, token: int) -> str:
        """Return the text that this token completes, often empty."""
        self._ids.append(token)
        known = self._decode(self._ids[self._from : self._returned])
        now = self._decode(self._ids[self._from :])
        if now.endswith(_INCOMPLETE) or len(now) <= len(known):
            return ""
        self._from, self._returned = self._returned, len(self._ids)
        return now[len(known) :]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _device(torch: Any, named: str) -> str:
    """Return where to compute, before weights are read; raises DeviceError where that is not there."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if named == "auto":
        return "cuda" if gpus else "cpu"
    if named.startswith("cuda") and int(named.partition(":")[2] or 0) >= gpus:
        raise DeviceError(f"there is no {named}: this torch ({torch.__version__}) sees {gpus} GPUs")
    return named


def messages_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a chat's messages; raises RefusedError for anything else."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise RefusedError("'messages' must be an array of objects", param="messages")
    return messages


def _text(content: object) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise RefusedError("a message's 'content' must be a string or an array of parts", param="messages")
    others = {str(part.get("type")) for part in content} - {"text"}
    if others:
        message = f"this engine takes texts only, and no {', '.join(sorted(others))}"
        raise RefusedError(message, code="not_supported_by_engine", param="messages")
    return "".join(str(part.get("text", "")) for part in content)


def sampling(body: dict[str, Any]) -> tuple[float, float]:
    """Return temperature and top_p; raises RefusedError for a value that is not in OpenAI's range."""
    return _number(body, "temperature", most=2.0), _number(body, "top_p", most=1.0)


def _number(body: dict[str, Any], name: str, *, most: float) -> float:
    value = 1.0 if body.get(name) is None else body[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise RefusedError(f"{name} must be a number from 0 to {most:g}", param=name)
    return float(value)


def answer_tokens(body: dict[str, Any]) -> int:
    """Return how many tokens an answer may have; raises RefusedError for an invalid number."""
    limits = (body.get("max_completion_tokens"), body.get("max_tokens"), _ANSWER_TOKENS)
    most = next(limit for limit in limits if limit is not None)
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise RefusedError("max_tokens must be a whole number of at least 1", param="max_tokens")
    return most


class Handler(BaseHTTPRequestHandler):
    """One connection; its requests are answered one after the other."""

    protocol_version = "HTTP/1.1"
    model: LoadedModel
    name: str
    counters: ServerCounters

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the library's name
        """Log nothing: neither prompts nor paths belong in the log."""

    def do_GET(self) -> None:
        """Answer the pages."""
        card = {"id": self.name, "object": "model", "created": 0, "owned_by": "transformers"}
        card["max_model_len"] = self.model.context_tokens
        pages: dict[str, object] = {
            "/health": {"status": "ok"},
            "/version": self.model.versions,
            "/v1/models": {"object": "list", "data": [card]},
        }
        if self.path == "/metrics":
            self._send(200, self.counters.page(), "text/plain; version=0.0.4")
        elif self.path in pages:
            self.send_json(200, pages[self.path])
        else:
            self._error(RefusedError(f"there is no {self.path}", status=404))

    def do_POST(self) -> None:
        """Answer completions."""
        try:
            self._answer(self._body(), chat=self.path.endswith("chat/completions"))
        except RefusedError as refused:
            self._error(refused)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _body(self) -> dict[str, Any]:
        size = int(self.headers.get("content-length") or 0)
        if size > _BODY_BYTES_MAX:
            raise RefusedError("the body is too large", status=413)
        # Read in any case: closing a connection with unread bytes resets it, and the answer may be lost.
        text = self.rfile.read(size)
        if self.path not in {"/v1/chat/completions", "/v1/completions"}:
            raise RefusedError(f"there is no {self.path}", status=404)
        try:
            body = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise RefusedError("the body is not JSON") from exc
        if not isinstance(body, dict):
            raise RefusedError("the body is not a JSON object")
        unknown = [name for name in _REFUSED if body.get(name)]
        if unknown or body.get("n") not in (None, 1):
            message = f"this engine does not know {', '.join(unknown) or 'n'}"
            raise RefusedError(message, code="not_supported_by_engine")
        return body

    def _answer(self, body: dict[str, Any], *, chat: bool) -> None:
        sampling(body)
        tokens = self.model.encode(body, chat=chat)
        if not tokens:
            raise RefusedError("the prompt is empty", param="messages" if chat else "prompt")
        most, context = answer_tokens(body), self.model.context_tokens
        if context and len(tokens) + most > context:
            message = f"the maximum context length is {context} tokens, and the prompt has {len(tokens)} and the answer {most}"
            raise RefusedError(message, code="context_length_exceeded")
        self.counters.add(requests_waiting=1)
        with self.model.lock:
            self.counters.add(requests_waiting=-1, requests_running=1, prompt_tokens_total=len(tokens))
            try:
                AnswerWriter(self, body, prompt_tokens=len(tokens), chat=chat).write(tokens)
            finally:
                self.counters.add(requests_running=-1)

    def client_left(self) -> bool:
        """Return whether the client has closed its connection."""
        try:
            readable = select.select([self.connection], [], [], 0)[0]
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        if self.close_connection:  # so that no client sends its next request into it
            self.send_header("connection", "close")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_json(self, status: int, body: object) -> None:
        """Send a JSON answer."""
        self._send(status, json.dumps(body).encode(), "application/json")

    def begin_stream(self) -> None:
        """Send the head of a stream."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def event(self, data: bytes) -> None:
        """Send one event."""
        event = b"data: " + data + b"\n\n"
        self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")

    def end_stream(self) -> None:
        """Send the end of a stream."""
        self.event(b"[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _error(self, refused: RefusedError) -> None:
        kind = "invalid_request_error" if refused.status < 500 else "server_error"
        error = {"message": str(refused), "type": kind, "param": refused.param, "code": refused.code}
        self.close_connection = True
        self.send_json(refused.status, {"error": error})


class AnswerWriter:
    """One answer, streamed or whole."""

    def __init__(self, handler: Handler, body: dict[str, Any], *, prompt_tokens: int, chat: bool) -> None:
        self._handler, self._body, self._chat = handler, body, chat
        self._prompt_tokens, self._made = prompt_tokens, 0
        self._parts: list[str] = []
        self._text = TextPieces(handler.model.tokenizer)
        self._stream = body.get("stream") is True
        kind = ("chat.completion" if chat else "text_completion") + ".chunk" * (self._stream and chat)
        prefix = "chatcmpl" if chat else "cmpl"
        self._head = {
            "id": f"{prefix}-{os.urandom(8).hex()}",
            "object": kind,
            "created": 0,  # Unix time of its making: a yardstick needs no clock
            "model": handler.name,
        }

    def write(self, tokens: list[int]) -> None:
        """Generate the answer and send it."""
        if self._stream:
            self._handler.begin_stream()
            if self._chat:
                self._chunk({"delta": {"role": "assistant", "content": ""}})
        try:
            self._handler.model.generate(tokens, self._body, self._take)
        except RuntimeError as exc:  # what torch raises, out of memory too
            print(f"generate failed: {exc}", file=sys.stderr, flush=True)  # noqa: T201
            if not self._stream:
                raise RefusedError(f"generate failed: {exc}", status=500) from exc
            self._handler.close_connection = True
            return  # a stream without its end is not a whole answer
        self._end()

    def _take(self, token: int) -> bool:
        self._made += 1
        self._handler.counters.add(generated_tokens_total=1)
        piece = self._text.add(token)
        self._parts.append(piece)
        if self._stream and piece:
            try:
                self._chunk({"delta": {"content": piece}} if self._chat else {"text": piece})
            except OSError:
                return False
        return not self._handler.client_left()

    def _chunk(self, content: dict[str, Any], finish: str | None = None) -> None:
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish}
        self._handler.event(json.dumps({**self._head, "choices": [choice]}).encode())

    def _end(self) -> None:
        finish = "length" if self._made >= answer_tokens(self._body) else "stop"
        total = self._prompt_tokens + self._made
        usage = {"prompt_tokens": self._prompt_tokens, "completion_tokens": self._made, "total_tokens": total}
        if not self._stream:
            text = "".join(self._parts)
            content: dict[str, Any] = {"text": text}
            if self._chat:
                content = {"message": {"role": "assistant", "content": text}}
            choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish}
            self._handler.send_json(200, {**self._head, "choices": [choice], "usage": usage})
            return
        self._chunk({"delta": {}} if self._chat else {"text": ""}, finish)
        options = self._body.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage") is True:
            self._handler.event(json.dumps({**self._head, "choices": [], "usage": usage}).encode())
        self._handler.end_stream()


class Server(ThreadingHTTPServer):
    """A thread for each connection: all but one of them wait for the model."""

    daemon_threads = True
    request_queue_size = 1024


class UnixServer(Server):
    """The same on a Unix socket, whose path stands for the host."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        """Bind, without looking the path up as a host's name."""
        TCPServer.server_bind(self)


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the flags; a wrong one ends the process with exit code 2."""
    parser = argparse.ArgumentParser(prog="transformers", allow_abbrev=False)
    for flag in ("--host", "--model", "--name"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-context", type=int, default=0)
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    parser.add_argument("--device", default="auto")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code when it cannot."""
    flags = parse(argv)
    try:
        Handler.model = LoadedModel(flags)
    except DeviceError as exc:
        return _fail(str(exc), EXIT_NO_DEVICE)
    except ImportError as exc:
        return _fail(f"torch and transformers cannot be imported: {exc}", EXIT_NO_PACKAGE)
    except (OSError, ValueError, KeyError, RuntimeError) as exc:  # of from_pretrained, for damaged weights
        return _fail(f"weights cannot be loaded: {type(exc).__name__}: {exc}", EXIT_NO_WEIGHTS)
    Handler.name, Handler.counters = flags.name, ServerCounters()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: os._exit(0))
    on_socket = flags.host.endswith(".sock")
    address = flags.host if on_socket else f"{flags.host}:{flags.port}"
    try:
        listens_at: Any = flags.host if on_socket else (flags.host, flags.port)
        server = (UnixServer if on_socket else Server)(listens_at, Handler)
    except OSError as exc:
        return _fail(f"cannot listen on {address}: {exc}", EXIT_NO_PORT)
    print(f"transformers listens on {address}", flush=True)  # noqa: T201
    server.serve_forever()
    return 0


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr, flush=True)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
