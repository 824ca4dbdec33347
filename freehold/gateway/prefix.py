"""The key of a conversation: a number that stays the same while it grows, for `route.Ring`. Pure.

Engines keep what they computed of a prompt, so a conversation's next turn is cheap where its last one was. Each turn
sends all turns before it, so what names a conversation is what its first turn began with: the system prompt and the
first message of the user. Nothing is parsed: two short pieces of the raw body are hashed. A wrong guess costs a cache
hit and nothing else, so odd bodies need no care.
"""

from zlib import crc32

WORTH_BYTES = 512
"""A conversation shorter than this has no home. Source: our own choice: 128 tokens at four bytes each, eight of vLLM's
blocks of 16; computing them takes some 10 ms on a GPU, less than a busier replica costs."""
_PIECE_BYTES = 512
"""Bytes hashed of the beginning, and as many of the user's first message. Source: our own choice, so that a key costs
about a microsecond: names, dates and questions that tell conversations apart come within that."""
_LOOK_BYTES = 64 * 1024
"""How far the user's first message is looked for. Source: our own bound: 16000 tokens of system prompt."""

_STARTS: dict[str, bytes] = {
    "/v1/chat/completions": b'"messages"',
    "/v1/messages": b'"messages"',
    "/v1/completions": b'"prompt"',
    "/v1/responses": b'"input"',
}
"""Where a prompt begins, by path. Embeddings and rerankings continue nothing, so they have no home."""
_SCATTER = 0x9E3779B1
"""Spreads keys that differ in few bits. Source: Knuth's multiplicative hashing, the prime next to 2**32 over the golden
ratio."""


def key_of(path: str, body: bytes) -> int:
    """Return the key of a request's conversation, 32 bits; 0: it has none.

    The same in every process and after a restart. A text completion is named by its prompt's first `WORTH_BYTES`; a
    chat also by the start of the user's first message, up to its first `}`, which later turns do not change.
    """
    name = _STARTS.get(path)
    start = body.find(name) if name is not None else -1
    if start < 0 or len(body) - start < WORTH_BYTES:
        return 0
    end = start + _PIECE_BYTES
    user = body.find(b'"user"', start, start + _LOOK_BYTES)
    if user < 0:
        return crc32(body[start:end]) * _SCATTER & 0xFFFFFFFF or 1
    user_end = body.find(b"}", user, user + _PIECE_BYTES)
    if user_end < 0:
        user_end = user + _PIECE_BYTES
    key = crc32(body[start : min(end, user_end)])
    if user_end > end:
        key = crc32(body[max(user, end) : user_end], key)
    return key * _SCATTER & 0xFFFFFFFF or 1
