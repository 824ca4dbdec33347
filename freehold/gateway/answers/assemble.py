"""Put a stream together into the one answer that a client asked for without streaming. Pure.

Some engines notice that a client left only while they stream, so the gateway asks them for a stream always. What is
built here is what the engine would have answered itself: deltas are joined by a general rule (text is appended,
objects are merged, lists are merged by their items' `index`), not by a list of known fields that would go stale.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from freehold.engines.base import ApiError
from freehold.gateway.answers.usage import Usage, of_answers
from freehold.gateway.wire.errors import from_event

Json = dict[str, Any]

# Strings that name something once, so that a second delta repeats them and must not be appended.
_ONCE = frozenset(
    {"role", "id", "type", "object", "model", "finish_reason", "stop_reason", "system_fingerprint"}
)


class Assembler:
    """Collects the payload of an event stream; `result()` gives the whole answer or the error in it."""

    def __init__(
        self,
        take: Callable[[Json, Json], None],
        finish: Callable[[Json], Json | None],
        *,
        choices: int = 0,
    ) -> None:
        self._choices = choices
        self._usages: list[Json] = []
        self._take = take
        self._finish = finish
        self._tail = b""
        self._answer: Json = {}
        self._error: ApiError | None = None
        self.reported = b""
        """The engine's own error event; empty: it sent none."""
        self.broken = False
        """The stream stopped early or cannot be read, which is the engine's fault."""
        self.size_bytes = 0
        self.events = 0
        """Events taken so far: about one a token."""

    def feed(self, data: bytes) -> None:
        """Take payload bytes, cut anywhere."""
        self.size_bytes += len(data)
        lines = (self._tail + data).split(b"\n")
        self._tail = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip())

    def result(self) -> bytes | ApiError:
        """Return the answer's JSON, or the error that the engine put into its stream."""
        if self._error is not None:
            return self._error
        try:
            answer = self._finish(self._answer)
            if answer is not None:
                return msgspec.json.encode(answer)
            return self._break("The engine's answer ended early.")
        except _MISSHAPEN:
            return _broken("The engine sent events of an unknown shape.")

    def _event(self, data: bytes) -> None:
        if data == b"[DONE]" or self._error is not None:
            return
        try:
            event = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            event = None
        if not isinstance(event, dict):
            self._error = self._break("The engine sent a broken event.")
        elif event.get("error") or event.get("type") == "error":
            self.reported = data
            self._error = from_event(data)
        else:
            self.events += 1
            self._take_event(event)

    def _take_event(self, event: Json) -> None:
        try:
            usage, choices = event.get("usage"), event.get("choices")
            ends = choices is not None and all(choice.get("finish_reason") for choice in choices)
            if self._choices and usage and ends:
                self._usages.append(usage)
                event["usage"] = _of_answers(self._usages, choices=self._choices)
            self._take(self._answer, event)
        except _MISSHAPEN:
            self._error = self._break("The engine sent events out of order.")

    def _break(self, message: str) -> ApiError:
        self.broken = True
        return _broken(message)


# What taking a well-formed event apart raises where its shape is not the one that its path has.
_MISSHAPEN = (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError)


def _broken(message: str) -> ApiError:
    return ApiError(status=502, message=message, type="server_error")


def assembler_for(
    path: str, *, choices: int = 0, then: Callable[[Json], Json] | None = None
) -> Assembler | None:
    """Return an assembler for a gateway path's stream, or None where that path does not stream.

    `choices` is how many answers share a prompt, where each answer has a usage of its own; 0: one usage is the whole. `then` changes
    the whole answer; None: it stays as it is.
    """
    shape = _SHAPES.get(path)
    if shape is None:
        return None
    take, finish = shape

    def finish_then(answer: Json) -> Json | None:
        whole = finish(answer)
        return whole if whole is None or then is None else then(whole)

    return Assembler(take, finish_then, choices=choices)


def _of_answers(usages: list[Json], *, choices: int) -> Json:
    """Return the last usage with the tokens of all answers."""
    parts = [Usage(usage["prompt_tokens"], None, usage["completion_tokens"]) for usage in usages]
    whole = of_answers(parts, choices=choices)
    counts: Json = {"prompt_tokens": whole.prompt_tokens, "completion_tokens": whole.completion_tokens}
    return usages[-1] | counts | {"total_tokens": sum(counts.values())}


def _merge(into: Json, delta: Json) -> None:
    for key, value in delta.items():
        old = into.get(key)
        if isinstance(old, str) and isinstance(value, str) and key not in _ONCE:
            into[key] = old + value
        elif isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            _merge_list(old, value)
        elif value is not None or key not in into:
            into[key] = value


def _merge_list(into: list[Any], delta: list[Any]) -> None:
    for item in delta:
        known = None
        if isinstance(item, dict) and "index" in item:
            known = next((i for i in into if isinstance(i, dict) and i.get("index") == item["index"]), None)
        if known is None:
            into.append(item)
        else:
            _merge(known, item)


# Chat and text completions: chunks with `choices`


def _take_choices(answer: Json, event: Json, *, chat: bool) -> None:
    choices = event.pop("choices", [])
    answer.update(event)
    kept: dict[int, Json] = answer.setdefault("choices", {})
    for choice in choices:
        begun: Json = {"message": {"role": "assistant", "content": None}} if chat else {}
        mine = kept.setdefault(choice.get("index", 0), begun)
        if chat:
            _merge(mine["message"], choice.pop("delta", {}))
        _merge(mine, choice)


def _finish_choices(answer: Json, *, kind: str) -> Json | None:
    kept = answer.get("choices") or {}
    if not kept or any(choice.get("finish_reason") is None for choice in kept.values()):
        return None
    choices = [kept[index] for index in sorted(kept)]
    for choice in choices:
        for call in choice.get("message", {}).get("tool_calls") or ():
            call.pop("index", None)  # a stream's numbering; whole answers have none
    return answer | {"choices": choices, "object": kind}


# Responses: the last event carries the whole answer


def _take_response(answer: Json, event: Json) -> None:
    if event.get("type") in {"response.completed", "response.incomplete", "response.failed"}:
        answer.update(event.get("response") or {})


def _finish_response(answer: Json) -> Json | None:
    return answer or None


# Anthropic messages: typed events


def _take_message(answer: Json, event: Json) -> None:
    kind = event.get("type")
    if kind == "message_start":
        answer.update(event["message"])
    elif kind == "content_block_start":
        answer.setdefault("content", []).append(event["content_block"])
    elif kind == "content_block_delta":
        _take_block_delta(answer["content"][event["index"]], event["delta"])
    elif kind == "content_block_stop":
        _close_block(answer["content"][event["index"]])
    elif kind == "message_delta":
        answer.update(event["delta"])
        answer.setdefault("usage", {}).update(event.get("usage") or {})
    elif kind == "message_stop":
        answer["_stopped"] = True


def _take_block_delta(block: Json, delta: Json) -> None:
    if delta.get("type") == "input_json_delta":
        block["_input"] = block.get("_input", "") + delta.get("partial_json", "")
    else:
        _merge(block, {key: value for key, value in delta.items() if key != "type"})


def _close_block(block: Json) -> None:
    text = block.pop("_input", "")
    if text:
        block["input"] = msgspec.json.decode(text)


def _finish_message(answer: Json) -> Json | None:
    whole = answer.pop("_stopped", False) and not any(
        "_input" in block for block in answer.get("content", ())
    )
    return answer if whole else None


_SHAPES: dict[str, tuple[Callable[[Json, Json], None], Callable[[Json], Json | None]]] = {
    "/v1/chat/completions": (
        partial(_take_choices, chat=True),
        partial(_finish_choices, kind="chat.completion"),
    ),
    "/v1/completions": (
        partial(_take_choices, chat=False),
        partial(_finish_choices, kind="text_completion"),
    ),
    "/v1/responses": (_take_response, _finish_response),
    "/v1/messages": (_take_message, _finish_message),
}
