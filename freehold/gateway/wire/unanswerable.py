"""Requests that no engine of a kind would answer as they were asked: found, so that they can be rejected. Pure.

An engine answers such a request all the same, with text that was not asked for. What it rejects by itself is left to it.
"""

import re

import msgspec

from freehold.engines.base import ForcesTools
from freehold.gateway.wire.body import BodyFields
from freehold.gateway.wire.errors import MESSAGES_PATH, Rejection, invalid

CHAT_PATH = "/v1/chat/completions"
"""Where a call can be worded as a JSON schema (`answers.forced_call`)."""
_RESPONSES_PATH = "/v1/responses"
_NO_MESSAGE = re.compile(rb"\[[ \t\r\n]*\]|null")
_NO_ID = frozenset({b"", b"null", b'""'})
_CHOICES_FREE = ("auto", "none")
_CHOICES_FORCED = ("required", "any")


def refuse_unanswerable(fields: BodyFields, path: str, forces_tools: ForcesTools) -> Rejection | None:
    """Return the 400 for an empty conversation, an answer to be continued by its id, or a call that is not forced; else None."""
    name, asked = "messages", fields.messages
    if path.startswith(_RESPONSES_PATH):
        name, asked = "input", fields.conversation
        if bytes(fields.previous_response_id) not in _NO_ID:
            return _no_earlier_answer()
    if _NO_MESSAGE.fullmatch(asked) or (not asked and path.startswith(MESSAGES_PATH)):
        message = f"The conversation is empty: {name!r} must have at least one message."
        return invalid(message, param=name, code="missing_required_parameter")
    if forces_tools is not ForcesTools.ITSELF and path != CHAT_PATH and must_call(fields):
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


def _no_earlier_answer() -> Rejection:
    message = "No answers are stored here, so none can be continued by its id. Send the whole conversation in 'input'."
    return invalid(message, param="previous_response_id", code="unsupported_parameter")


def _not_forced() -> Rejection:
    message = (
        "This model's engine may answer in text on this path although a tool must be called. Use `tool_choice: auto`, or ask "
        f"on {CHAT_PATH}."
    )
    return invalid(message, param="tool_choice", code="not_supported_by_engine")
