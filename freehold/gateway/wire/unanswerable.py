"""Requests that an engine would not answer as they were asked: found, so that they can be rejected or worded otherwise. Pure.

An engine answers such a request all the same, with text that was not asked for. What it rejects by itself is left to it.
"""

import re
from typing import Any

import msgspec

from freehold.engines.base import Engine, ForcesTools
from freehold.gateway.wire.body import BodyFields, rewrite
from freehold.gateway.wire.errors import MESSAGES_PATH, Rejection, invalid

CHAT_PATH = "/v1/chat/completions"
"""Where a call can be worded as a JSON schema (`answers.forced_call`)."""
_RESPONSES_PATH = "/v1/responses"
_NO_MESSAGE = re.compile(rb"\[[ \t\r\n]*\]|null")
_NO_ID = frozenset({b"", b"null", b'""'})
_FORMATS = ("json_schema", "json_object")
"""Source: OpenAI API reference, responses, `text.format`; Anthropic API reference, messages, `output_config.format`."""
_CHOICES_FREE = ("auto", "none")
_CHOICES_FORCED = ("required", "any")


def refuse_unanswerable(fields: BodyFields, path: str, engine: Engine) -> Rejection | None:
    """Return the 400 for an empty conversation, an answer to be continued by its id, a call or format that is not kept; else None."""
    name, asked = "messages", fields.messages
    if path.startswith(_RESPONSES_PATH):
        name, asked = "input", fields.conversation
        if bytes(fields.previous_response_id) not in _NO_ID:
            return _no_earlier_answer()
    if _NO_MESSAGE.fullmatch(asked) or (not asked and path.startswith(MESSAGES_PATH)):
        message = f"The conversation is empty: {name!r} must have at least one message."
        return invalid(message, param=name, code="missing_required_parameter")
    if path == MESSAGES_PATH and path in engine.drops_format and _format(fields.output_config):
        return _format_dropped()
    if engine.forces_tools is not ForcesTools.ITSELF and path != CHAT_PATH and must_call(fields):
        return _not_forced()
    return None


def must_call(fields: BodyFields) -> bool:
    """Return whether the answer must call a tool: by OpenAI's or Anthropic's word, or by an object that names tools."""
    if not fields.tool_choice:
        return False
    try:
        choice = msgspec.json.decode(fields.tool_choice)
    except (msgspec.DecodeError, RecursionError):
        return False  # not a choice at all, which is for the engine to judge
    if isinstance(choice, dict):
        return choice.get("type") not in _CHOICES_FREE
    return choice in _CHOICES_FORCED


class _Text(msgspec.Struct):
    text: msgspec.Raw = msgspec.Raw(b"")


_TEXT = msgspec.json.Decoder(_Text)


def with_response_format(data: bytes) -> bytes:
    """Return a response's body (valid JSON) that has its `text.format` also where chat completions have it, if it has one."""
    format_ = _format(_TEXT.decode(data).text)
    if format_ is None:
        return data
    kind, rest = format_["type"], {name: value for name, value in format_.items() if name != "type"}
    moved = {"type": kind, kind: rest} if kind == "json_schema" else format_
    return rewrite(data, {"response_format": msgspec.Raw(msgspec.json.encode(moved))})


def _format(options: msgspec.Raw) -> dict[str, Any] | None:
    """Return the format in the options of an answer's text; None: plain text, or not a format at all."""
    try:
        asked = msgspec.json.decode(options) if options else None
    except (msgspec.DecodeError, RecursionError):
        return None
    format_ = asked.get("format") if isinstance(asked, dict) else None
    shaped = isinstance(format_, dict) and format_.get("type") in _FORMATS
    return format_ if shaped else None


def _no_earlier_answer() -> Rejection:
    message = "No answers are stored here, so none can be continued by its id. Send the whole conversation in 'input'."
    return invalid(message, param="previous_response_id", code="unsupported_parameter")


def _format_dropped() -> Rejection:
    message = f"This model's engine drops `output_config.format` on this path. Ask with `response_format` on {CHAT_PATH}."
    return invalid(message, param="output_config", code="not_supported_by_engine")


def _not_forced() -> Rejection:
    message = (
        "This model's engine may answer in text on this path although a tool must be called. Use `tool_choice: auto`, or ask "
        f"on {CHAT_PATH}."
    )
    return invalid(message, param="tool_choice", code="not_supported_by_engine")
