"""How many tokens a request may take before anybody has counted them: its prompt by its size, its answer by its limit.

Pure, and deliberately rough: it asks no tokenizer, and what was really used corrects it afterwards (`Grant.settle`).
"""

import msgspec

BYTES_PER_TOKEN = 4
"""Source: OpenAI's help centre, "What are tokens and how to count them?": about four characters of English a token."""
ANSWER_TOKENS = 512
"""Reserved for an answer whose request names no limit. Source: own choice, about a page of text; what an answer takes
beyond it is charged when it is known."""
_ANSWERS_NOTHING = frozenset({"/v1/embeddings", "/v1/rerank"})
_MOST = 10**12  # More than this is no limit but a number; it keeps sums in reach of plain integers.


class _Limit(msgspec.Struct):
    """How long an answer may be, in the words of each API."""

    max_tokens: int | None = None  # chat and text completions; Anthropic's messages
    max_completion_tokens: int | None = None  # chat completions, newer
    max_output_tokens: int | None = None  # responses
    n: int | None = None


_DECODER = msgspec.json.Decoder(_Limit)


def prompt_tokens(body_bytes: int) -> int:
    """Return the tokens of a prompt by the size of its request's body, rounded up."""
    return -(-body_bytes // BYTES_PER_TOKEN)


def tokens_asked(body: bytes, path: str) -> int:
    """Return the tokens that a request (its JSON body, its path) may take; total for every body."""
    prompt = prompt_tokens(len(body))
    if path in _ANSWERS_NOTHING:
        return prompt
    try:
        limit = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return prompt + ANSWER_TOKENS  # the engine will say what is wrong with it
    asked = limit.max_completion_tokens or limit.max_tokens or limit.max_output_tokens or ANSWER_TOKENS
    answer = asked if asked > 0 else ANSWER_TOKENS
    return prompt + min(_MOST, answer) * min(_MOST, max(1, limit.n or 1))
