"""API keys as records: what a key looks like, how it is hashed, and the keys file.

A key is `fh-` and 200 random bits; it is shown once, when it is made, and only its hash is kept. Pure: it reads no file,
no clock and nothing random; `storage.key_store` owns the file, `grant` what a running gateway knows of each key.
"""

import base64
import hashlib
from typing import Annotated, Literal

import msgspec

KEY_BYTES = 25
"""Random bytes of a key: 200 bits, which base32 writes without padding. Source: own choice; 128 bits cannot be guessed
(NIST SP 800-57 part 1, 5.6), and the rest leaves no room for argument."""
KEY_PREFIX = "fh-"
"""How every key begins, so that people and scanners of leaked secrets know one when they see it."""
KEY_CHARS = len(KEY_PREFIX) + KEY_BYTES * 8 // 5
"""Characters of a key: the prefix, and one for five bits."""
KEYS_MAX = 10_000
"""Most keys in one file, revoked ones counted. Source: own bound; reading that many takes about 20 ms."""
NAME_CHARS_MAX = 64
"""Longest name of a key, characters. Source: own bound: it stays on one line of a table."""
PRIORITY_FIRST, PRIORITY_LAST = -20, 19
"""Priorities as nice(1) has them: lower goes first, 0 is usual."""
WEIGHT_MAX = 100
"""Largest weight. Source: own bound; a share a hundred times another's is a limit, not a share."""

# A fast hash is right here: a slow one (argon2, scrypt) makes guessing *passwords* dear, which people choose from a small
# space. 200 random bits cannot be searched at any speed, and a slow hash would let a stranger burn our time per request.
# `person` separates this use from every other of the same function (RFC 7693 2.5), and blake2b has no length extension.
_HASHER = hashlib.blake2b(digest_size=32, person=b"freehold-key-v1")

Positive = Annotated[int, msgspec.Meta(ge=1, le=10**15)]


class BadKeysError(ValueError):
    """A keys file that cannot be used; the text gives the reason and names no path and no key."""


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one key may do; None: this key has no such limit."""

    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    """Prompt and answer together."""
    concurrency: Positive | None = None
    """Requests under way at once."""
    monthly_tokens: Positive | None = None
    """Prompt and answer together, per calendar month in UTC."""
    monthly_microusd: Positive | None = None
    """Millionths of a US dollar per calendar month in UTC, for requests that have a price."""
    models: tuple[str, ...] = ()
    """The models that it may use; empty: all."""
    priority: Annotated[int, msgspec.Meta(ge=PRIORITY_FIRST, le=PRIORITY_LAST)] = 0
    """Whose requests are served first when requests wait: lower first."""
    weight: Annotated[int, msgspec.Meta(ge=1, le=WEIGHT_MAX)] = 1
    """Its share among keys of the same priority when requests wait."""
    fallback: bool = True
    """Whether its requests may be sent to endpoints of others; False: they never leave this stack."""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86400)] | None = None
    """Within which time an answer must be whole if the request sets no timeout; None: `timeouts.total`."""


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One key as the file keeps it: everything but the key."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    """What people and the ledger call it; no secret."""
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARS_MAX)]
    hash: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    """`hash_of` the key, in hexadecimal digits."""
    created_s: int
    """Unix seconds, as the two below."""
    expires_s: int | None = None
    """From then on it is refused; None: never."""
    revoked_s: int | None = None
    """Since when it is refused; None: it is not revoked."""
    ends_requests: bool = False
    """It was revoked at once: its running requests end too."""
    limits: KeyLimits = KeyLimits()


class KeysFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. Unknown fields are refused: a limit that this release does not know must not be lost."""

    version: Literal[1] = 1
    keys: Annotated[tuple[KeyRecord, ...], msgspec.Meta(max_length=KEYS_MAX)] = ()


_DECODER = msgspec.json.Decoder(KeysFile)


def key_from(random_bytes: bytes) -> str:
    """Return the key that KEY_BYTES random bytes make: `fh-` and 40 lower-case letters and digits."""
    assert len(random_bytes) == KEY_BYTES
    return KEY_PREFIX + base64.b32encode(random_bytes).decode("ascii").lower()


def hash_of(key: bytes) -> bytes:
    """Return the 32 bytes that stand for a key; about 0.3 us."""
    hasher = _HASHER.copy()
    hasher.update(key)
    return hasher.digest()


def why_refused(record: KeyRecord, wall_s: float) -> Literal["", "revoked", "expired"]:
    """Return why a key is not accepted at `wall_s` (Unix seconds), or nothing when it is."""
    if record.revoked_s is not None:
        return "revoked"
    return "expired" if record.expires_s is not None and record.expires_s <= wall_s else ""


def read_keys(data: bytes) -> KeysFile:
    """Return the contents of a keys file; raise BadKeysError if it is broken or has a duplicate."""
    try:
        found = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadKeysError(str(exc)) from exc
    for what, values in (("id", [k.id for k in found.keys]), ("hash", [k.hash for k in found.keys])):
        if len(set(values)) != len(values):
            raise BadKeysError(f"two keys have the same {what}")
    return found


def write_keys(file: KeysFile) -> bytes:
    """Return the file's bytes, indented for people."""
    return msgspec.json.format(msgspec.json.encode(file)) + b"\n"
