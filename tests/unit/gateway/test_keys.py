"""What a key looks like, how it is hashed, and what a keys file may say."""

import hashlib
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.callers.keys import (
    KEY_BYTES,
    BadKeysError,
    KeyLimits,
    KeyRecord,
    KeysFile,
    hash_of,
    key_from,
    read_keys,
    why_refused,
    write_keys,
)

RECORD = {"id": "key-1", "name": "ci", "hash": "0" * 64, "created_s": 1}


def file(*records: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"version": 1, "keys": [RECORD | record for record in records], **more}).encode()


@given(st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES))
def test_a_key_is_its_prefix_and_all_its_random_bits(data: bytes):
    key = key_from(data)
    assert re.fullmatch("fh-[a-z2-7]{40}", key)
    assert key_from(data[:-1] + bytes([data[-1] ^ 1])) != key
    assert KEY_BYTES * 8 >= 160


def test_the_hash_is_this_use_of_blake2b_alone():
    key = b"fh-something"
    assert hash_of(key) == hashlib.blake2b(key, digest_size=32, person=b"freehold-key-v1").digest()
    assert hash_of(key) not in {hashlib.blake2b(key, digest_size=32).digest(), hashlib.sha256(key).digest()}
    assert hash_of(key) == hash_of(key)


records = st.builds(
    KeyRecord,
    id=st.from_regex(r"\Akey-[0-9a-f]{8}\Z"),
    name=st.text(min_size=1, max_size=64),
    hash=st.binary(min_size=32, max_size=32).map(bytes.hex),
    created_s=st.integers(0, 2**40),
    expires_s=st.none() | st.integers(0, 2**40),
    revoked_s=st.none() | st.integers(0, 2**40),
    limits=st.builds(
        KeyLimits,
        requests_per_minute=st.none() | st.integers(1, 10**15),
        models=st.lists(st.text(max_size=20), max_size=3).map(tuple),
        priority=st.integers(-20, 19),
    ),
)


@given(st.lists(records, max_size=5, unique_by=(lambda r: r.id, lambda r: r.hash)))
def test_what_is_written_is_read_back(keys: list[KeyRecord]):
    whole = KeysFile(keys=tuple(keys))
    assert read_keys(write_keys(whole)) == whole


BROKEN = {
    "empty": b"",
    "half of it": file({})[:-5],
    "not UTF-8": file({}).replace(b"ci", b"\xff"),
    "a list": b"[]",
    "another version": file({}, version=2),
    "unknown field": file({}, more=1),
    "unknown field of a key": file({"note": "x"}),
    "unknown limit": file({"limits": {"requests_per_second": 1}}),
    "limit of nothing": file({"limits": {"requests_per_minute": 0}}),
    "limit in words": file({"limits": {"requests_per_minute": "many"}}),
    "weight beyond": file({"limits": {"weight": 101}}),
    "priority beyond": file({"limits": {"priority": 20}}),
    "no hash": b'{"version":1,"keys":[{"id":"a","name":"b","created_s":1}]}',
    "short hash": file({"hash": "00"}),
    "a key in place of its hash": file({"hash": "fh-" + "a" * 40}),
    "an id that could be a path": file({"id": "../x"}),
    "the same id twice": file({}, {"hash": "1" * 64}),
    "the same hash twice": file({}, {"id": "key-2"}),
    "nested too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_no_keys_at_all(data: bytes):
    with pytest.raises(BadKeysError) as told:
        read_keys(data)
    assert "a" * 40 not in str(told.value)
    assert str(told.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_keys_or_broken(data: bytes):
    try:
        read_keys(data)
    except BadKeysError:
        return


def test_a_key_ends_at_its_time_and_when_it_is_revoked():
    record = KeyRecord(id="a", name="a", hash="0" * 64, created_s=1, expires_s=100)
    assert why_refused(record, 99.9) == ""
    assert why_refused(record, 100) == "expired"
    revoked = KeyRecord(id="a", name="a", hash="0" * 64, created_s=1, expires_s=100, revoked_s=50)
    assert why_refused(revoked, 10) == "revoked"  # whatever a clock that went back says
