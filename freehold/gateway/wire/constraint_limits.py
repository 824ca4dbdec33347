"""Grammars, schemas, regular expressions and tools that are too large or nested too deeply: found before an engine is asked. Pure.

An engine's own parser of them recurses, and a process that runs out of stack is gone with all its requests. Nothing is
parsed here by a grammar's rules: brackets are counted, so that no dialect's texts or comments can hide one. Whether a
grammar means anything is for the engine to judge.
"""

import re
from operator import attrgetter

import msgspec

from freehold.engines.base import ConstraintLimits
from freehold.gateway.wire.bounds import is_deeper
from freehold.gateway.wire.errors import Rejection, invalid

TEXTS = ("grammar", "regex", "ebnf", "guided_grammar", "guided_regex")
"""Keys whose values are grammars or regular expressions. Source: llama.cpp's `grammar`, SGLang's `regex` and `ebnf`,
vLLM's `guided_*` of earlier versions."""
SCHEMAS = (
    "response_format",
    "json_schema",
    "text",
    "output_config",
    "structured_outputs",
    "guided_json",
    "structural_tag",
)
"""Keys with the format of an answer. Source: OpenAI's chat completions and responses (`text`), Anthropic's messages
(`output_config`), llama.cpp's `json_schema`, vLLM's `structured_outputs`, SGLang's `structural_tag`."""
TOOLS = ("tools", "functions", "tool_choice")
"""Keys with tools, or with which of them. Source: OpenAI's chat completions and responses, Anthropic's messages."""
CONSTRAINTS = (*TEXTS, *SCHEMAS, *TOOLS)
"""All of them."""
COUNTS = {
    "repeat_last_n": 65_536,
    "dry_penalty_last_n": 65_536,
    "n_probs": 100,
    "top_logprobs": 100,
    "logprobs": 100,
}
"""Keys with a number that an engine allocates or answers by, and its largest value. Source: llama.cpp takes 4 to 8 bytes for each
of the last tokens, 3 GB for 800 million; OpenAI's API takes 20 for `top_logprobs`, and 49,000 of them are 5 MB for each token. The
bounds are our own choice."""
_VALUES = attrgetter(*CONSTRAINTS)
_OPENING, _REPEATS = b"([{", b"*+?{"
_PARSED = ("pattern", "regex", "grammar", "ebnf", "json")
"""Keys inside a schema or tool whose texts an engine parses by rules of their own. Source: JSON Schema (`pattern`), vLLM's
`structured_outputs` (`json` may be a text too)."""
_MARKS = tuple(f'"{key}"'.encode() for key in _PARSED)
_PATTERNS = re.compile(b"(?:%b)" % b"|".join(_MARKS) + rb'\s*:\s*("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)


def refuse_constraints(fields: object, limits: ConstraintLimits) -> Rejection | None:
    """Return the 400 for a body whose `fields` (msgspec.Raw by the names of CONSTRAINTS, empty where absent) pass the limits, or None."""
    values = _VALUES(fields)
    for name, raw in zip(CONSTRAINTS, values, strict=True):
        reason = _why_not(name, bytes(raw), limits) if raw else ""
        if reason:
            return _too_much(name, reason)
    return None


def refuse_counts(fields: object) -> Rejection | None:
    """Return the 400 for a body whose `fields` (numbers by the names of COUNTS, None where absent) pass the limits, or None."""
    for name, most in COUNTS.items():
        if (getattr(fields, name) or 0) > most:
            return invalid(f"{name!r} may be at most {most}.", param=name, code="invalid_value")
    return None


def _why_not(name: str, raw: bytes, limits: ConstraintLimits) -> str:
    """Return what about the value of a key is too much; empty: nothing."""
    size = limits.tools_bytes if name in TOOLS else limits.schema_bytes
    if len(raw) > size:
        return f"has {len(raw)} bytes, and this model's engine is sent at most {size}"
    if b"\\u" in raw:  # a bracket or a key may be written as an escape
        try:
            raw = msgspec.json.encode(msgspec.json.decode(raw))
        except (msgspec.DecodeError, RecursionError):
            return "cannot be read"
    if raw.startswith(b'"'):
        return _why_not_text(raw, limits)
    if is_deeper(raw, limits.depth):
        return f"is nested deeper than {limits.depth} arrays and objects"
    texts = _PATTERNS.findall(raw) if any(mark in raw for mark in _MARKS) else ()
    return next(filter(None, (_why_not_text(text, limits) for text in texts)), "")


def _why_not_text(text: bytes, limits: ConstraintLimits) -> str:
    if len(text) > limits.grammar_bytes:
        return f"has a grammar or regular expression of more than {limits.grammar_bytes} bytes"
    if sum(map(text.count, _OPENING)) > limits.groups:
        return f"has a grammar or regular expression with more than {limits.groups} opening brackets"
    if sum(map(text.count, _REPEATS)) > limits.repeats:
        return f"has a grammar or regular expression with more than {limits.repeats} repetitions"
    return ""


def _too_much(name: str, reason: str) -> Rejection:
    message = f"{name!r} {reason}. Send a smaller or flatter one."
    return invalid(message, param=name, code="constraint_too_large")
