"""The keys file on disk: whole or not at all, nobody else's, followed through links, changed by one at a time."""

import os
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from freehold.core.errors import Permanent, Temporary
from freehold.gateway.callers.keys import BadKeysError, KeyRecord, KeysFile
from freehold.gateway.storage import key_store
from freehold.gateway.storage.background_loop import BackgroundLoop
from freehold.gateway.storage.key_store import KeyStore
from freehold.gateway.storage.key_watch import KeyWatch
from waiting import wait_until


def record(number: int) -> KeyRecord:
    return KeyRecord(id=f"key-{number}", name=f"n{number}", hash=f"{number:064x}", created_s=number)


def add(store: KeyStore, number: int) -> None:
    store.change(lambda before: (*before, record(number)))


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "new" / "keys.json")


def test_no_file_is_no_keys(store: KeyStore):
    assert store.read() == KeysFile()
    assert store.mark() is None
    assert not store.path.parent.exists()


def test_only_its_owner_may_look(store: KeyStore):
    add(store, 1)
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.path.parent.stat().st_mode & 0o777 == 0o700
    store.path.chmod(0o640)
    assert store.read().keys == (record(1),)  # others may read hashes: what they open is nothing
    add(store, 2)
    assert store.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_who_can_write_it_could_let_himself_in(mode: int, store: KeyStore):
    add(store, 1)
    store.path.chmod(mode)
    with pytest.raises(Permanent, match="can be written by others") as told:
        store.read()
    assert told.value.hint == "chmod 600"
    with pytest.raises(Permanent, match="can be written by others"):
        add(store, 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_too_trusts_no_file_of_another_user(store: KeyStore):
    add(store, 1)
    os.chown(store.path, 12345, -1)
    with pytest.raises(Permanent, match="belongs to another user"):
        store.read()


def test_a_folder_in_which_others_could_swap_the_file_is_not_trusted(store: KeyStore):
    add(store, 1)
    store.path.parent.chmod(0o777)
    with pytest.raises(Permanent, match=r"is in the folder .* can be written by others"):
        store.read()
    store.path.parent.chmod(0o1777)  # sticky, as a mounted secret's: the file cannot be swapped
    assert store.read().keys == (record(1),)


def test_a_broken_file_is_never_replaced(store: KeyStore):
    add(store, 1)
    store.path.write_bytes(b"{")
    with pytest.raises(Permanent, match="is broken"):
        add(store, 2)
    assert store.path.read_bytes() == b"{"


def test_a_change_that_fails_changes_nothing(store: KeyStore):
    add(store, 1)
    before = store.path.read_bytes()

    def fail(_: tuple[KeyRecord, ...]) -> tuple[KeyRecord, ...]:
        raise LookupError

    with pytest.raises(LookupError):
        store.change(fail)
    with pytest.raises(BadKeysError, match="the same id"):  # a mistake of ours, found before it is written
        store.change(lambda keys: (*keys, *keys))
    assert store.path.read_bytes() == before
    assert [path.name for path in store.path.parent.iterdir() if "lock" not in path.name] == ["keys.json"]


def test_a_change_of_nothing_writes_nothing(store: KeyStore):
    add(store, 1)
    mark = store.mark()
    store.change(lambda before: before)
    assert store.mark() == mark


def test_a_link_stays_a_link(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "keys.json")
    add(KeyStore(tmp_path / "link.json"), 1)
    assert (tmp_path / "link.json").is_symlink()
    assert KeyStore(tmp_path / "real" / "keys.json").read().keys == (record(1),)


def test_a_link_that_is_turned_elsewhere_is_another_version(tmp_path: Path):
    for name, number in (("one", 1), ("two", 2)):
        add(KeyStore(tmp_path / name), number)
    link = tmp_path / "link"
    link.symlink_to("one")
    store = KeyStore(link)
    first = store.mark()
    (tmp_path / "fresh").symlink_to("two")
    (tmp_path / "fresh").replace(link)
    assert store.mark() != first
    assert store.read().keys == (record(2),)


def test_changes_at_once_are_all_there(store: KeyStore):
    threads = [threading.Thread(target=add, args=(KeyStore(store.path), number)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.id for key in store.read().keys} == {f"key-{number}" for number in range(12)}


def test_a_lock_that_is_never_given_back_is_told(store: KeyStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(key_store, "_LOCK_S", 0.05)
    add(store, 1)
    with FileLock(f"{store.path}.lock"), pytest.raises(Temporary, match="another process holds"):
        add(store, 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_what_root_changes_stays_the_gateways(store: KeyStore):
    add(store, 1)
    os.chown(store.path, 12345, 12345)
    add(store, 2)
    assert (store.path.stat().st_uid, store.path.stat().st_gid) == (12345, 12345)


def test_a_watch_tells_each_thing_once(store: KeyStore):
    told: list[tuple[KeysFile | None, str]] = []
    watch = KeyWatch(store, lambda keys, problem: told.append((keys, problem)))
    watch.look()
    watch.look()
    assert told == [(None, "is not there, or cannot be reached")]
    add(store, 1)
    for _ in range(3):
        watch.look()
    assert told[1:] == [(KeysFile(keys=(record(1),)), "")]
    store.path.touch()
    watch.look()
    store.path.unlink()
    watch.look()
    add(store, 1)
    watch.look()
    assert told[2:] == [told[0], told[1]]


def test_a_change_that_leaves_the_times_as_they_are_is_seen(store: KeyStore):
    """Two writes within one step of the file system's clock, of the same length, in place."""
    told: list[KeysFile | None] = []
    watch = KeyWatch(store, lambda keys, _: told.append(keys))
    add(store, 1)
    mark = store.mark()
    assert mark is not None
    watch.look()
    store.path.write_bytes(store.path.read_bytes().replace(b"key-1", b"key-2"))
    watch._seen = store.mark()  # as if nothing had changed
    watch.look()
    assert told[-1] is not None
    assert told[-1].keys[0].id == "key-2"


def test_work_that_hangs_shows_and_holds_up_nothing():
    go_on, done = threading.Event(), threading.Event()

    def work() -> None:
        done.set()
        go_on.wait()

    beside = BackgroundLoop("test", work, period_s=0.01)
    assert done.wait(1)
    wait_until(lambda: beside.silent_s > 0.1, timeout_s=1)
    beside.stop(last_s=0.01)
    go_on.set()
    wait_until(lambda: beside.silent_s < 0.1, timeout_s=1)
