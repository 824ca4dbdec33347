"""Files that somebody spoilt: the keys file is read or refused in words, and the spool gives up what can still be read."""

import contextlib
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.callers.keys import (
    BadKeysError,
    KeyLimits,
    KeyRecord,
    KeysFile,
    hash_of,
    read_keys,
    write_keys,
)
from freehold.ledger.drainer import Drainer, spool_state, waiting_records
from freehold.ledger.journal import JOURNAL_NAME
from freehold.ledger.records.record import Basis, LedgerRecord, Outcome, frame
from freehold.ledger.spool import make_folder, segments
from gateway_rig.spoiling import fuzz, spoil

KEYS = write_keys(
    KeysFile(
        keys=tuple(
            KeyRecord(
                id=f"k{number}",
                name=f"key {number}",
                hash=hash_of(b"%d" % number).hex(),
                created_s=1,
                limits=KeyLimits(requests_per_minute=60, models=("m",)),
            )
            for number in range(3)
        )
    )
)
KEY_BITS = st.sampled_from(
    [b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"-1", b"1e999", b"9" * 40, b"\xff", b"\0", b"\\u0000",
     b'"limits"', b'"version":2', b"[" * 3000]
) | st.binary(max_size=8)  # fmt: skip


def record(number: int) -> LedgerRecord:
    return LedgerRecord(
        7, number, 1, f"id-{number}", "key", "m", "/v1/chat/completions", "m-0", 200, Outcome.COMPLETE, Basis.MEASURED,
        True, 3, None, 2, 4, 100, 1000, 2000, 0, None, 0,
    )  # fmt: skip


FRAMES = tuple(frame(record(number)) for number in range(4))


@fuzz(400)
@given(data=spoil(KEYS, KEY_BITS))
def test_a_spoilt_keys_file_is_read_or_refused_in_words(data: bytes) -> None:
    with contextlib.suppress(BadKeysError):
        found = read_keys(data)
        assert read_keys(write_keys(found)) == found


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    make_folder(folder)
    return folder


RUNS = itertools.count(1)


@fuzz(100)
@given(data=spoil(b"".join(FRAMES), st.binary(max_size=40)))
def test_a_spoilt_spool_gives_up_what_is_whole(spool: Path, data: bytes) -> None:
    """It ends, it leaves nothing behind, and a record whose bytes are all there in one piece is found."""
    (spool / f"{next(RUNS):016x}.000001.spool").write_bytes(data)
    assert spool_state(spool).waiting_bytes == len(data)
    found = {each.seq for each in waiting_records(spool)}
    drainer = Drainer(spool, spool.parent / JOURNAL_NAME)
    drainer.round()
    assert not segments(spool)
    assert found >= {
        number for number, each in enumerate(FRAMES) if data.startswith(b"".join(FRAMES[: number + 1]))
    }
    assert found <= set(range(len(FRAMES)))
