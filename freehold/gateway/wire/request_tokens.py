"""How many tokens a request may take before an engine has counted them: its prompt by its size, its answer by its limit.

Pure, and deliberately rough: it asks no tokenizer, and the real usage corrects it afterwards (`Grant.settle`).
"""

from freehold.engines.base import TRANSCRIPTIONS

BYTES_PER_TOKEN = 4
"""Source: OpenAI's help centre, "What are tokens and how to count them?": about four characters of English a token."""
ANSWER_TOKENS = 512
"""Reserved for an answer whose request names no limit. Source: own choice, about a page of text; what an answer takes
beyond it is charged when it is known."""
_FILE_BYTES_PER_TOKEN = 128
"""Of a form with sound. Source: 1,500 tokens for the 30 s of Whisper's window (Radford et al., 2022) of MP3 at 64 kbit/s,
rounded down."""
_ANSWERS_NOTHING = frozenset({"/v1/embeddings", "/v1/rerank"})


def prompt_tokens(body_bytes: int) -> int:
    """Return the tokens of a prompt by the size of its request's body, rounded up."""
    return -(-body_bytes // BYTES_PER_TOKEN)


def tokens_asked(body_bytes: int, path: str, max_tokens: int) -> int:
    """Return the tokens that a request may take; `max_tokens` for all its answers, 0: one answer, without a limit."""
    per_token = _FILE_BYTES_PER_TOKEN if path == TRANSCRIPTIONS else BYTES_PER_TOKEN
    prompt = -(-body_bytes // per_token)  # as above; a call less, since every request of a key passes here
    return prompt if path in _ANSWERS_NOTHING else prompt + (max_tokens or ANSWER_TOKENS)
