"""The key of a conversation: a number that stays the same while it grows, for `balance.Ring`. Pure.

Engines keep what they computed of a prompt, so a conversation's next turn is cheap where its last one was. Each turn
sends all turns before it, so what names a conversation is what its first turn began with: the system prompt and the
first message of the user. Nothing is parsed: two short pieces of the raw body are hashed. A wrong guess costs a cache
hit and nothing else, so odd bodies need no care.
"""

from zlib import crc32

WORTH_BYTES = 512
"""A conversation shorter than this has no home. Source: our own choice: 128 tokens at four bytes each, eight of vLLM's
blocks of 16; computing them takes some 10 ms on a GPU, less than a busier replica costs."""
_PIECE_BYTES = 256
"""Bytes hashed of the beginning, and as many of the user's first message. Source: our own choice, so that a key costs
about a microsecond: names, dates and questions that tell conversations apart come within that."""
_LOOK_BYTES = 64 * 1024
"""How far the user's first message is looked for. Source: our own bound: 16000 tokens of system prompt."""

_TEXT = b'"prompt"'
_STARTS: dict[str, bytes] = {
    "/v1/chat/completions": b'"messages"',
    "/v1/messages": b'"messages"',
    "/v1/completions": _TEXT,
    "/v1/responses": b'"input"',
}
"""Where a prompt begins, by path. Embeddings and rerankings continue nothing, so they have no home."""
_SCATTER = 0x9E3779B1
"""Spreads keys that differ in few bits. Source: Knuth's multiplicative hashing, the prime next to 2**32 over the golden
ratio."""


def key_of(path: str, body: bytes) -> int:
    """Return the key of a request's conversation, 32 bits; 0: it has none.

    The same in every process and after a restart. A text completion is named by how its prompt begins, a chat also by
    how the user's first message begins, up to its first `}` at most, which no later turn changes.
    """
    name = _STARTS.get(path)
    start = body.find(name) if name is not None else -1
    if start < 0 or len(body) - start < WORTH_BYTES:
        return 0
    user = -1 if name == _TEXT else body.find(b'"user"', start, start + _LOOK_BYTES)
    if user < 0:
        return crc32(body[start : start + WORTH_BYTES]) * _SCATTER & 0xFFFFFFFF or 1
    end = user + _PIECE_BYTES
    brace = body.find(b"}", user, end)
    if brace >= 0:
        end = brace
    begun = min(end, start + _PIECE_BYTES)
    return crc32(body[user:end], crc32(body[start:begun])) * _SCATTER & 0xFFFFFFFF or 1
