"""A call of a tool that the caller demands, from an engine that may answer in text but keeps a JSON schema. Pure.

The request is worded as one for an answer in the shape of a call: the name is one of the tools' names, the arguments
have that tool's schema. The engine's text is turned into a call again. There is exactly one call in an answer, which
`parallel_tool_calls` allows. A stream comes whole at its end, since half a call is of no use to a client.
"""

from typing import Any

import msgspec

from freehold.gateway.wire.body import rewrite
from freehold.gateway.wire.errors import Rejection, invalid

Json = dict[str, Any]
_OTHER_SHAPES = frozenset({"grammar", "json_schema", "stop"})
"""Keys that would shape the same text, or cut it."""


class _Asked(msgspec.Struct):
    tools: Any = None
    tool_choice: Any = None


class _Call(msgspec.Struct):
    name: str
    arguments: msgspec.Raw


_ASKED = msgspec.json.Decoder(_Asked)
_CALL = msgspec.json.Decoder(_Call)


def worded(data: bytes) -> bytes | Rejection:
    """Return a chat's body (valid JSON, not nested deeper than tools may be) that asks for a call by a schema, or the 400."""
    asked = _ASKED.decode(data)
    tools = _functions(asked.tools)
    names = _names(asked.tool_choice, tools)
    if not names:
        message = "'tool_choice' demands a call, and 'tools' has no function with that name."
        return invalid(message, param="tool_choice", code="invalid_tool_choice")
    calls = {f"call{place}": _call_schema(name, tools[name], place) for place, name in enumerate(names)}
    schema: Json = {"anyOf": [{"$ref": f"#/$defs/{each}"} for each in calls], "$defs": calls}
    shape = {"type": "json_schema", "json_schema": {"name": "call", "schema": schema}}
    changes = {"tool_choice": "none", "response_format": shape}
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in changes.items()}
    return rewrite(data, raw, without=_OTHER_SHAPES)


def _functions(tools: Any) -> dict[str, Json]:
    """Return the schemas of the tools' arguments by their names; what is not a function is left out."""
    found: dict[str, Json] = {}
    for tool in tools if isinstance(tools, list) else []:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            found[function["name"]] = function.get("parameters") or {"type": "object"}
    return found


def _names(choice: Any, tools: dict[str, Json]) -> list[str]:
    """Return the tools of which one must be called. Source: OpenAI API reference, chat completions, `tool_choice`."""
    if not isinstance(choice, dict):
        return list(tools)
    allowed = choice.get("allowed_tools")
    wanted = allowed.get("tools") if isinstance(allowed, dict) else [choice]
    return [name for name in _functions(wanted) if name in tools]


def _call_schema(name: str, parameters: Json, place: int) -> Json:
    root = f"#/$defs/call{place}/properties/arguments"
    properties = {"name": {"const": name}, "arguments": _rooted(parameters, root)}
    return {
        "type": "object",
        "properties": properties,
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _rooted(value: Any, root: str) -> Any:
    """Return a schema whose references to its own root lead to where it stands now."""
    if isinstance(value, list):
        return [_rooted(each, root) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: root + inner[1:]
        if key == "$ref" and isinstance(inner, str) and inner[:1] == "#"
        else _rooted(inner, root)
        for key, inner in value.items()
    }


def as_calls(answer: Json) -> Json:
    """Return a whole chat answer with its texts turned into calls; raises ValueError for a finished text that is not a call.

    A text that the token limit cut is dropped: half a call is not one, and `finish_reason` says `length`.
    """
    for choice in answer["choices"]:
        message = choice["message"]
        text, message["content"] = message.get("content") or "", None
        try:
            call = _CALL.decode(text)
        except msgspec.DecodeError:
            if choice["finish_reason"] == "stop":
                raise ValueError("not a call") from None
            continue
        arguments = msgspec.json.encode(msgspec.json.decode(call.arguments)).decode()
        function = {"name": call.name, "arguments": arguments}
        message["tool_calls"] = [
            {"id": f"call_{answer['id']}_{choice['index']}", "type": "function", "function": function}
        ]
        choice["finish_reason"] = "tool_calls"
    return answer


def as_events(data: bytes, *, hides_usage: bool) -> bytes:
    """Return a whole chat answer with calls as the stream that its client asked for."""
    answer: Json = msgspec.json.decode(data)
    choices, usage = answer.pop("choices"), answer.pop("usage", None)
    head = answer | {"object": "chat.completion.chunk"}
    events = []
    for choice in choices:
        delta = choice["message"]
        for place, call in enumerate(delta.get("tool_calls", ())):
            call["index"] = place
        begun = {"index": choice["index"], "delta": delta, "finish_reason": None}
        events += [
            head | {"choices": [begun]},
            head | {"choices": [begun | {"delta": {}, "finish_reason": choice["finish_reason"]}]},
        ]
    if usage is not None and not hides_usage:
        events.append(head | {"choices": [], "usage": usage})
    return b"".join(b"data: %b\n\n" % msgspec.json.encode(event) for event in events) + b"data: [DONE]\n\n"
