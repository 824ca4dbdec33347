"""How many tokens a request may take before an engine has counted them: its prompt by its size, its answer by its limit.

Pure, and deliberately rough: it asks no tokenizer, and the real usage corrects it afterwards (`Grant.settle`). Only what no
tokenizer can bring into the model's context is rejected here.
"""

import msgspec

from freehold.engines.base import TRANSCRIPTIONS
from freehold.engines.shared.api_errors import context_error
from freehold.gateway.wire.errors import Rejection

BYTES_PER_TOKEN = 4
"""Source: OpenAI's help centre, "What are tokens and how to count them?": about four characters of English a token."""
ANSWER_TOKENS = 512
"""Reserved for an answer whose request names no limit. Source: own choice, about a page of text; what an answer takes
beyond it is charged when it is known."""
_FILE_BYTES_PER_TOKEN = 128
"""Of a form with sound. Source: 1,500 tokens for the 30 s of Whisper's window (Radford et al., 2022) of MP3 at 64 kbit/s,
rounded down."""
_ANSWERS_NOTHING = frozenset({"/v1/embeddings", "/v1/rerank"})
TOKEN_BYTES_MAX = 256
"""No token stands for more bytes of a text. Source: twice the longest piece of the vocabularies that were looked at: 128 bytes in
those of GPT-2, cl100k, o200k and Qwen, 81 in SmolLM2's, 78 in Tekken. vLLM has the same check, by the vocabulary of its model
(vllm/renderers/params.py). It does not hold for encoders, whose WordPiece makes one token of any unknown word."""


class _Prompts(msgspec.Struct):
    """Where a body has its prompt, and what lets an engine cut it."""

    prompt: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    conversation: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="input")
    instructions: msgspec.Raw = msgspec.Raw()
    truncate_prompt_tokens: msgspec.Raw = msgspec.Raw()
    truncation: msgspec.Raw = msgspec.Raw()


class _Part(msgspec.Struct):
    """Where a message, a part of one or a tool's answer has its text."""

    content: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()


_PROMPTS, _PART = msgspec.json.Decoder(_Prompts), msgspec.json.Decoder(_Part)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_NOT_CUT = ((b"", b"null"), (b"", b"null", b'"disabled"'))


def prompt_tokens(body_bytes: int) -> int:
    """Return the tokens of a prompt by the size of its request's body, rounded up."""
    return -(-body_bytes // BYTES_PER_TOKEN)


def tokens_asked(body_bytes: int, path: str, max_tokens: int) -> int:
    """Return the tokens that a request may take; `max_tokens` for all its answers, 0: one answer, without a limit."""
    per_token = _FILE_BYTES_PER_TOKEN if path == TRANSCRIPTIONS else BYTES_PER_TOKEN
    prompt = -(-body_bytes // per_token)  # as above; a call less, since every request of a key passes here
    return prompt if path in _ANSWERS_NOTHING else prompt + (max_tokens or ANSWER_TOKENS)


def refuse_too_long(body: bytes, path: str, context_tokens: int) -> Rejection | None:
    """Return the 400 for a body (as `read_body` accepted it) whose texts cannot fit the context, or None.

    An engine would find that out too, after it has worked on the text for seconds. Pictures and sound do not count, nor what a chat
    template may drop (tools, reasoning), nor a prompt that the engine is asked to cut.
    """
    most = context_tokens * TOKEN_BYTES_MAX
    if path in _ANSWERS_NOTHING or path == TRANSCRIPTIONS or len(body) <= most:
        return None
    try:
        found = _prompt_bytes(_PROMPTS.decode(body))
    except RecursionError:
        return None  # just as deep as it may be, which whatever rewrites it finds out
    if found <= most:
        return None
    message = (
        f"This model's maximum context length is {context_tokens} tokens, and the request has {found} bytes of text. "
        f"A token stands for at most {TOKEN_BYTES_MAX}. Shorten the request."
    )
    return Rejection(error=context_error(message, fields={"n_ctx": context_tokens}))


def _prompt_bytes(asked: _Prompts) -> int:
    """Return how many bytes of text one context has to hold at least; 0: the engine may cut them."""
    cuts = zip((asked.truncate_prompt_tokens, asked.truncation), _NOT_CUT, strict=True)
    if any(bytes(value) not in kept for value, kept in cuts):
        return 0
    prompts = _LIST.decode(asked.prompt) if _first(asked.prompt) == b"[" else [asked.prompt]
    conversation = asked.messages, asked.system, asked.conversation, asked.instructions
    # Of several prompts each has a context of its own.
    return max(_text_bytes(*conversation), *(_text_bytes(prompt) for prompt in prompts), 0)


def _first(value: msgspec.Raw) -> bytes:
    return bytes(memoryview(value)[:1])


def _text_bytes(*values: msgspec.Raw) -> int:
    """Return how many bytes the texts in JSON values have at least; escapes are counted and not decoded, which takes memory."""
    found, waiting = 0, [*values]
    while waiting:
        value = waiting.pop()
        first = _first(value)
        if first == b'"':
            found += _unescaped_bytes(bytes(value)) - len(b'""')
        elif first == b"[":
            waiting += _LIST.decode(value)
        elif first == b"{":
            part = _PART.decode(value)
            waiting += (part.content, part.text, part.output)
    return found


def _unescaped_bytes(text: bytes) -> int:
    """Return the bytes of a JSON text, with one byte for each escape: none stands for fewer."""
    if b"\\" not in text:
        return len(text)
    single = text.replace(b"\\\\", b"?")
    return len(single) - single.count(b"\\") - 4 * single.count(b"\\u")
