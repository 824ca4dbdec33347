"""Token counts read from engines' answers, in the shapes of the OpenAI and Anthropic APIs. Pure.

An event or a whole answer is decoded only where its usage is wanted; all other fields are skipped without being built.
A count that is missing, negative or not a whole number is unknown (None), never 0. Prompt tokens include cached ones,
as OpenAI counts; Anthropic's three parts (input, cache read, cache creation) are added up.
"""

import re
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec.structs import astuple

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_TAIL_BYTES = 8 * 1024
"""An answer longer than WHOLE_BYTES_MAX is looked at in its first and last so many bytes. Source: our own choice; a usage
object has some hundred bytes, and what engines put next to it (timings, ids) as many."""
WHOLE_BYTES_MAX = 64 * 1024
"""Longest answer that is decoded whole, bytes. Source: our own choice: some 30 us, and 16,000 tokens of text took its
engine minutes."""
_UNFINISHED = re.compile(rb'"finish_reason"\s*:\s*null')
_USAGE_KEY = re.compile(rb'"usage"\s*:\s*\{')


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What one request used, tokens; None is unknown."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None

    def updated(self, later: "Usage") -> "Usage":
        """Return these counts with those that a later event knew."""
        return Usage(*(a if b is None else b for a, b in zip(astuple(self), astuple(later), strict=True)))


def of_answers(parts: Sequence[Usage], *, choices: int) -> Usage:
    """Return what the answers of one request used together, of which `choices` share each prompt; one that is unknown makes the sum so."""
    prompt, cached, completion = (
        None if None in counts else sum(count or 0 for count in counts)
        for counts in zip(*map(astuple, parts), strict=True)
    )
    # While answers are still to come, those that have are fewer than share a prompt.
    share = min(choices, len(parts))
    prompt, cached = (None if count is None else -(-count // share) for count in (prompt, cached))
    return Usage(prompt, cached, completion)


class _TokenDetails(msgspec.Struct):
    cached_tokens: _Count | None = None


class _Counts(msgspec.Struct):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    total_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None
    prompt_tokens_details: _TokenDetails | None = None
    input_tokens_details: _TokenDetails | None = None

    def usage(self) -> Usage:
        details = self.prompt_tokens_details or self.input_tokens_details
        prompt = self.prompt_tokens
        if prompt is None and self.input_tokens is not None:
            parts = (self.cache_read_input_tokens, self.cache_creation_input_tokens)
            prompt = self.input_tokens + sum(part or 0 for part in parts)
        completion = self.output_tokens if self.completion_tokens is None else self.completion_tokens
        if completion is None and self.total_tokens == prompt and prompt is not None:
            completion = 0  # embeddings and rerank: all tokens are the prompt's
        cached = self.cache_read_input_tokens if details is None else details.cached_tokens
        return Usage(prompt, cached, completion)


class _Inner(msgspec.Struct):
    usage: _Counts | None = None


class AnswerEvent(msgspec.Struct):
    """What the gateway looks at in an answer, or in one event of a stream."""

    type: str = ""
    usage: _Counts | None = None
    choices: msgspec.Raw = msgspec.Raw(b"")
    response: _Inner | None = None
    """Where the Responses API's last event has it."""
    message: _Inner | None = None
    """Where the Messages API's first event has it."""

    def counts(self) -> Usage | None:
        """Return the usage; None: there is none."""
        holder = self.response or self.message or self
        if holder.usage is None:
            return None
        usage = holder.usage.usage()
        # A message that only begins has its prompt counted; what stands there for the answer is no count of it yet.
        return usage if self.type != "message_start" else Usage(usage.prompt_tokens, usage.cached_tokens)

    @property
    def ends_answer(self) -> bool:
        """Return whether the usage is that of a whole answer: text completions have it in an answer's last event."""
        choices = bytes(self.choices)
        return choices != b"" and _UNFINISHED.search(choices) is None

    @property
    def only_usage(self) -> bool:
        """Return whether this is the event that `include_usage` adds: usage, and not one choice."""
        return self.usage is not None and bytes(self.choices).strip(b"[ \t\r\n]") == b"" != bytes(
            self.choices
        )


_EVENT: msgspec.json.Decoder[AnswerEvent] = msgspec.json.Decoder(AnswerEvent)
_WHOLE: msgspec.json.Decoder[_Inner] = msgspec.json.Decoder(_Inner)
_COUNTS: msgspec.json.Decoder[_Counts] = msgspec.json.Decoder(_Counts)
_ANY = msgspec.json.Decoder(msgspec.Raw)


def read_event(data: bytes) -> AnswerEvent | None:
    """Return what counts in an event's JSON or a whole answer; None: it is none that we know."""
    try:
        return _EVENT.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def is_json(data: bytes) -> bool:
    """Return whether an answer is one well-formed JSON text; nothing of it is built."""
    try:
        _ANY.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def whole_usage(data: bytes) -> Usage | None:
    """Return the usage of a whole answer; None: there is none that can be read."""
    if len(data) <= WHOLE_BYTES_MAX:
        try:
            counts = _WHOLE.decode(data).usage
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return None if counts is None else counts.usage()
    return find_usage(data[-_TAIL_BYTES:]) or find_usage(data[:_TAIL_BYTES])


def find_usage(data: bytes) -> Usage | None:
    """Return the last whole usage object in a piece of JSON that is cut at both ends; None: there is none."""
    for found in reversed(list(_USAGE_KEY.finditer(data))):
        end = _object_end(data, found.end() - 1)
        try:
            return _COUNTS.decode(data[found.end() - 1 : end]).usage()
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return None


def _object_end(data: bytes, at: int) -> int:
    """Return where the object that begins at `at` ends; usage objects have no strings with braces."""
    depth = 0
    for brace in re.finditer(rb"[{}]", data[at:]):
        depth += 1 if brace[0] == b"{" else -1
        if depth == 0:
            return at + brace.end()
    return at
