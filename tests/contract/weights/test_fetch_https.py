import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.weights.origin import Origin, serving
from freehold.core.errors import Permanent, Temporary
from freehold.weights.retry import Backoff
from freehold.weights.store import Store, WrongHash
from freehold.weights.transfer import FetchStage, Progress

DATA = random.Random(1).randbytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
CUT = 100_000
QUICK = Backoff(attempts=3, first_s=0.01, patience_s=2)


@pytest.fixture
def origin():
    with serving(Origin(files={"/m.gguf": DATA}, etags={"/m.gguf": '"one"'})) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path):
    return Store(tmp_path / "store", backoff=QUICK)


def fetch(store: Store, origin: Origin, **options: Any):
    return store.fetch(f"{origin.url}/m.gguf", SHA256, **options)


def test_a_file_is_fetched_once_and_then_present(store: Store, origin: Origin) -> None:
    seen: list[Progress] = []
    path = fetch(store, origin, on_progress=seen.append)
    assert path.read_bytes() == DATA
    assert path.name == "m.gguf"
    assert seen[-1] == Progress(stage=FetchStage.FETCHING, done_bytes=len(DATA), total_bytes=len(DATA))
    assert fetch(store, origin) == path
    assert len(origin.requests) == 1


def test_a_cut_line_is_taken_up_again(store: Store, origin: Origin) -> None:
    origin.cuts = [CUT]
    assert fetch(store, origin).read_bytes() == DATA
    first, second = origin.gets()
    assert "Range" not in first
    assert second["If-Range"] == '"one"'
    assert origin.sent_bytes <= len(DATA) + CUT // 2  # what was on the wire at the cut may be lost


def test_a_weak_etag_is_no_validator_and_the_hash_decides(store: Store, origin: Origin) -> None:
    origin.etags["/m.gguf"] = 'W/"one"'
    origin.cuts = [CUT]
    assert fetch(store, origin).read_bytes() == DATA
    assert "If-Range" not in origin.gets()[1]


def test_a_server_that_ignores_range_is_read_from_the_start(store: Store, origin: Origin) -> None:
    origin.ranges = False
    origin.cuts = [CUT]
    assert fetch(store, origin).read_bytes() == DATA
    assert origin.sent_bytes == len(DATA) + CUT


def test_a_file_that_changed_meanwhile_is_read_from_the_start(store: Store, origin: Origin) -> None:
    old = bytes(reversed(DATA))
    origin.files["/m.gguf"] = old
    origin.cuts = [CUT, 0, 0]
    with pytest.raises(Temporary):
        fetch(store, origin)
    origin.files["/m.gguf"], origin.etags["/m.gguf"] = DATA, '"two"'
    assert fetch(store, origin).read_bytes() == DATA


def test_a_file_that_changed_unseen_is_fetched_once_more_before_it_is_refused(
    store: Store, origin: Origin
) -> None:
    origin.files["/m.gguf"] = bytes(reversed(DATA))
    origin.cuts = [CUT, 0, 0]
    with pytest.raises(Temporary):
        fetch(store, origin)
    origin.files["/m.gguf"] = DATA  # the same ETag: a server that lies
    assert fetch(store, origin).read_bytes() == DATA


def test_a_shorter_file_than_the_one_begun_starts_anew(store: Store, origin: Origin) -> None:
    origin.files["/m.gguf"] = DATA + DATA
    origin.etags.clear()
    origin.cuts = [len(DATA) + CUT, 0, 0]
    with pytest.raises(Temporary):
        fetch(store, origin)
    origin.files["/m.gguf"] = DATA
    assert fetch(store, origin).read_bytes() == DATA
    assert "Range" in origin.gets()[-2]  # answered 416
    assert "Range" not in origin.gets()[-1]


def test_another_mirror_goes_on_where_the_first_broke_off(store: Store, origin: Origin) -> None:
    origin.cuts = [CUT, 0, 0]
    with pytest.raises(Temporary):
        fetch(store, origin)
    with serving(Origin(files={"/copy.gguf": DATA}, etags={"/copy.gguf": '"other"'})) as mirror:
        path = store.fetch(f"{mirror.url}/copy.gguf", SHA256)
        assert path.read_bytes() == DATA
        assert mirror.sent_bytes < len(DATA)


@pytest.mark.parametrize("length", [len(DATA) + 5, len(DATA) - 5])
def test_a_wrong_content_length_never_becomes_a_blob(store: Store, origin: Origin, length: int) -> None:
    origin.headers["Content-Length"] = str(length)
    origin.ranges = False
    with pytest.raises((Temporary, WrongHash)):
        fetch(store, origin)
    assert not list(store_files(store, "blobs"))


def test_a_file_without_a_length_is_fetched(store: Store, origin: Origin) -> None:
    origin.chunked = True
    seen: list[Progress] = []
    assert fetch(store, origin, on_progress=seen.append).read_bytes() == DATA
    assert seen[-1].total_bytes is None


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(store: Store, origin: Origin, status: int) -> None:
    origin.failures = [(status, {"Retry-After": "0"}), (status, {})]
    seen: list[Progress] = []
    assert fetch(store, origin, on_progress=seen.append).read_bytes() == DATA
    assert any(progress.stage is FetchStage.RETRYING and str(status) in progress.detail for progress in seen)


def test_a_server_that_stays_busy_is_given_up(store: Store, origin: Origin) -> None:
    origin.failures = [(503, {})] * 9
    with pytest.raises(Temporary, match="503"):
        fetch(store, origin)
    assert len(origin.requests) == QUICK.attempts


def test_a_server_that_asks_for_an_hour_is_told_to_the_caller(store: Store, origin: Origin) -> None:
    origin.failures = [(429, {"Retry-After": "3600"})]
    with pytest.raises(Temporary) as caught:
        fetch(store, origin)
    assert caught.value.retry_after_s == 3600
    assert len(origin.requests) == 1


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "netrc"), (403, "netrc"), (404, "address"), (410, "address")]
)
def test_a_refusal_is_final_and_says_what_to_do(store: Store, origin: Origin, status: int, hint: str) -> None:
    origin.failures = [(status, {})]
    with pytest.raises(Permanent, match=str(status)) as caught:
        fetch(store, origin)
    assert hint in caught.value.hint
    assert len(origin.requests) == 1


def test_a_server_that_is_not_there_is_temporary(store: Store, free_port: int) -> None:
    with pytest.raises(Temporary) as caught:
        store.fetch(f"http://127.0.0.1:{free_port}/m.gguf", SHA256)
    assert caught.value.__cause__ is not None


def test_a_redirect_is_followed_but_not_off_to_plain_http(store: Store, origin: Origin) -> None:
    origin.failures = [(302, {"Location": f"{origin.url}/m.gguf"})]
    assert store.fetch(f"{origin.url}/old", SHA256).read_bytes() == DATA
    other = hashlib.sha256(b"x").hexdigest()
    origin.failures = [(302, {"Location": "http://example.invalid/m.gguf"})]
    with pytest.raises(Permanent, match="loopback"):
        store.fetch(f"{origin.url}/old", other)


def test_a_redirect_to_where_clouds_keep_their_metadata_is_refused(store: Store, origin: Origin) -> None:
    origin.failures = [(302, {"Location": "https://169.254.169.254/m.gguf"})]
    with pytest.raises(
        Permanent, match=r"from 127\.0\.0\.1 to 169\.254\.169\.254, which is on this machine's link"
    ):
        store.fetch(f"{origin.url}/old", SHA256)


def test_a_wrong_hash_is_refused_and_quarantined(store: Store, origin: Origin) -> None:
    origin.files["/m.gguf"] = b"not the weights"
    with pytest.raises(WrongHash) as caught:
        fetch(store, origin)
    got = hashlib.sha256(b"not the weights").hexdigest()
    assert (caught.value.expected_sha256, caught.value.got_sha256) == (SHA256, got)
    assert SHA256 in caught.value.message
    assert got in caught.value.message
    assert [file.read_bytes() for file in store_files(store, "quarantine")] == [b"not the weights"]
    assert not list(store_files(store, "blobs"))
    origin.files["/m.gguf"] = DATA
    assert fetch(store, origin).read_bytes() == DATA


def test_a_compressed_answer_is_refused(store: Store, origin: Origin) -> None:
    origin.headers["Content-Encoding"] = "gzip"
    with pytest.raises(Permanent, match="compressed"):
        fetch(store, origin)


def test_a_login_comes_from_netrc_and_a_query_stays_out_of_the_records(
    store: Store, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    store.fetch(f"{origin.url}/m.gguf?sig=secret", SHA256)
    assert origin.gets()[0]["Authorization"].startswith("Basic ")
    for record in (tmp_path / "store").rglob(".*.json"):
        assert "secret" not in record.read_text()


def test_the_caller_cancels_by_raising_and_the_rest_is_fetched_later(store: Store, origin: Origin) -> None:
    class Cancelled(Exception):
        pass

    def cancel(progress: Progress) -> None:
        if progress.stage is FetchStage.RETRYING:
            raise Cancelled

    origin.cuts = [CUT]
    with pytest.raises(Cancelled):
        fetch(store, origin, on_progress=cancel)
    assert fetch(store, origin).read_bytes() == DATA
    assert "Range" in origin.gets()[1]


def store_files(store: Store, room: str) -> Iterator[Path]:
    return (
        path for path in (store._root / room).rglob("*") if path.is_file() and not path.name.startswith(".")
    )
