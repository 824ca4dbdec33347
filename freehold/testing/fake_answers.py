"""What the fake engine says, in the words of the OpenAI and Anthropic APIs. Pure: requests in, bytes out.

Token k of any answer is ` w<k>`, so that a client can check that every chunk came, once and in order. A prompt, or a
last assistant message, that ends with ` w<k>` is continued at k + 1, as a real model goes on with its own text. It does not know of
tools, images, several choices or log probabilities.
"""

import base64
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["chat", "text", "messages"]
KINDS: Mapping[str, Kind] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text",
    "/v1/messages": "messages",
}
_CONTINUED = re.compile(r"\bw(\d+)$")
_CREATED_S = 1_700_000_000  # any fixed Unix time: answers are to be the same in every run
_STOP_WORDS = {"stop": "end_turn", "length": "max_tokens"}
_VECTOR_SIZE = 8  # our own choice: small enough to read in a failing test


def token(index: int) -> str:
    """Return token number `index`, from 0."""
    return f" w{index}"


def text_of(first: int, end: int) -> str:
    """Return tokens `first` to `end - 1` as one text."""
    return "".join(token(index) for index in range(first, end))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerJob:
    """One completion to make: what the client asked for and which tokens it will get."""

    kind: Kind
    id: str
    model: str
    stream: bool
    include_usage: bool
    prompt_tokens: int
    first: int
    """Index of its first token."""
    end: int
    """One past its last token."""
    finish: Literal["stop", "length"]

    @property
    def usage(self) -> dict[str, int]:
        """Token counts in the API's own names."""
        made = self.end - self.first
        if self.kind == "messages":
            return {"input_tokens": self.prompt_tokens, "output_tokens": made}
        total = self.prompt_tokens + made
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": made, "total_tokens": total}


def read_job(kind: Kind, body: Mapping[str, Any], *, number: int, answer_tokens: int) -> AnswerJob:
    """Return the job a request body asks for; raises ValueError with words for the client."""
    texts = _prompt_texts(kind, body)
    first = _next_index(texts[-1]) if _continues(kind, body) else 0
    whole = max(answer_tokens, first)
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise ValueError("max_tokens must be a whole number")
    end = whole if limit is None else min(whole, first + limit)
    options = body.get("stream_options")
    return AnswerJob(
        kind=kind,
        id=f"{kind}-{number}",
        model=str(body.get("model", "")),
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        prompt_tokens=sum(len(text.split()) for text in texts),
        first=first,
        end=end,
        finish="length" if end < whole else "stop",
    )


def _prompt_texts(kind: Kind, body: Mapping[str, Any]) -> list[str]:
    if kind == "text":
        prompt = body.get("prompt")
        if not isinstance(prompt, str):
            raise ValueError("'prompt' must be a string")
        return [prompt]
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError("Expected 'messages' to be an array")
    return [_message_text(message.get("content")) for message in messages]


def _continues(kind: Kind, body: Mapping[str, Any]) -> bool:
    """Return whether the request asks to go on with the model's own text: a prompt, or a last assistant message."""
    return kind == "text" or bool(body["messages"] and body["messages"][-1].get("role") == "assistant")


def _message_text(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _next_index(text: str) -> int:
    match = _CONTINUED.search(text)
    return int(match.group(1)) + 1 if match else 0


def whole_answer(job: AnswerJob) -> dict[str, Any]:
    """Return the body of an answer that is not streamed."""
    text = text_of(job.first, job.end)
    if job.kind == "messages":
        return {
            **_message(job),
            "content": [{"type": "text", "text": text}],
            "stop_reason": _STOP_WORDS[job.finish],
            "usage": job.usage,
        }
    said: dict[str, Any] = (
        {"text": text} if job.kind == "text" else {"message": {"role": "assistant", "content": text}}
    )
    return {**_head(job, _object(job)), "choices": [_choice(said, job.finish)], "usage": job.usage}


def opening(job: AnswerJob) -> bytes:
    """Return the events before the first token; empty for plain completions."""
    if job.kind == "text":
        return b""
    if job.kind == "chat":
        return _data(_chunk(job, _choice({"delta": {"role": "assistant", "content": None}}, None)))
    start = {**_message(job), "content": [], "stop_reason": None, "usage": {**job.usage, "output_tokens": 0}}
    return _event("message_start", message=start) + _event(
        "content_block_start", index=0, content_block={"type": "text", "text": ""}
    )


def token_event(job: AnswerJob, index: int) -> bytes:
    """Return the event that carries one token."""
    text = token(index)
    if job.kind == "messages":
        return _event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
    said: dict[str, Any] = {"text": text} if job.kind == "text" else {"delta": {"content": text}}
    return _data(_chunk(job, _choice(said, None)))


def closing(job: AnswerJob) -> bytes:
    """Return the events after the last token: finish reason, usage when asked for, `[DONE]`."""
    if job.kind == "messages":
        stop = {"stop_reason": _STOP_WORDS[job.finish], "stop_sequence": None}
        return (
            _event("content_block_stop", index=0)
            + _event("message_delta", delta=stop, usage=job.usage)
            + _event("message_stop")
        )
    said: dict[str, Any] = {"text": ""} if job.kind == "text" else {"delta": {}}
    events = _data(_chunk(job, _choice(said, job.finish)))
    if job.include_usage:
        events += _data({**_chunk(job), "usage": job.usage})
    return events + b"data: [DONE]\n\n"


def error_event(message: str) -> bytes:
    """Return an error in the middle of a stream, as vLLM and llama.cpp send it."""
    return _data({"error": {"code": 500, "message": message, "type": "server_error"}})


def error_body(status: int, message: str, *, kind: str, **more: int) -> dict[str, Any]:
    """Return an error body as llama.cpp writes it: `code` is the HTTP status as a number."""
    return {"error": {"code": status, "message": message, "type": kind, **more}}


def embeddings(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return one small vector per input, as numbers or base64; raises ValueError with words for the client."""
    given = body.get("input")
    inputs: list[Any] = given if isinstance(given, list) else [given]
    if not inputs or not all(isinstance(each, str) for each in inputs):
        raise ValueError("'input' must be a string or an array of strings")
    packed = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(text, packed=packed)}
        for index, text in enumerate(inputs)
    ]
    words = sum(len(text.split()) for text in inputs)
    usage = {"prompt_tokens": words, "total_tokens": words}
    return {"object": "list", "model": str(body.get("model", "")), "data": data, "usage": usage}


def _vector(text: str, *, packed: bool) -> list[float] | str:
    numbers = [((len(text) + 1) * (place + 1) % 17) / 16 for place in range(_VECTOR_SIZE)]
    if not packed:
        return numbers
    return base64.b64encode(struct.pack(f"<{_VECTOR_SIZE}f", *numbers)).decode()


def models(name: str) -> dict[str, Any]:
    """Return the list of the one model served."""
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": _CREATED_S, "owned_by": "fake"}],
    }


def _object(job: AnswerJob) -> str:
    return "text_completion" if job.kind == "text" else "chat.completion"


def _head(job: AnswerJob, kind: str) -> dict[str, Any]:
    return {"id": job.id, "object": kind, "created": _CREATED_S, "model": job.model}


def _chunk(job: AnswerJob, *choices: dict[str, Any]) -> dict[str, Any]:
    kind = _object(job) if job.kind == "text" else f"{_object(job)}.chunk"
    return {**_head(job, kind), "choices": list(choices)}


def _choice(said: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": 0, **said, "logprobs": None, "finish_reason": finish}


def _message(job: AnswerJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "type": "message",
        "role": "assistant",
        "model": job.model,
        "stop_sequence": None,
    }


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\n".encode() + _data({"type": kind, **fields})
