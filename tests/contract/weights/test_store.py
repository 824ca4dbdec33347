"""The store as processes meet it: killed in the middle, two at once, a full disk, decay on the disk."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.weights.origin import Origin, serving
from freehold.core.errors import Permanent, Temporary
from freehold.weights.blobs import WeightsState
from freehold.weights.retry import Backoff
from freehold.weights.store import Store, store_root
from freehold.weights.transfer import DiskFull, FetchStage, Progress
from waiting import wait_until

DATA = random.Random(2).randbytes(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
HOLD_BYTES = 1_000_000
PRESENT_S = 0.005
"""A present blob is found in less than this; the store's own promise."""

CHILD = """
import json, resource, sys
from pathlib import Path
from freehold.core.errors import FreeholdError
from freehold.weights.retry import Backoff
from freehold.weights.store import Store
root, source, sha256, limit_bytes = sys.argv[1:]
if int(limit_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit_bytes), int(limit_bytes)))
try:
    path = Store(Path(root)).fetch(source, sha256, on_progress=lambda progress: print(progress.stage, flush=True))
    print(json.dumps({"path": str(path)}))
except FreeholdError as error:
    print(json.dumps({"error": type(error).__name__, "message": error.message, "hint": error.hint}))
"""


@pytest.fixture
def origin() -> Iterator[Origin]:
    with serving(Origin(files={"/m.gguf": DATA}, etags={"/m.gguf": '"one"'})) as running:
        yield running


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "weights"


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(root: Path, origin: Origin) -> Iterator[Start]:
    """Start a fetch in a process of its own."""
    children: list[subprocess.Popen[str]] = []

    def begin(limit_bytes: int = 0) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CHILD, str(root), f"{origin.url}/m.gguf", SHA256, str(limit_bytes)]
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return children[-1]

    yield begin
    for child in children:
        child.kill()
        child.communicate()


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and path.parent.name != "locks"]


def result(child: subprocess.Popen[str]) -> tuple[list[str], dict[str, str]]:
    *stages, last = child.communicate(timeout=30)[0].splitlines()
    return stages, json.loads(last)


def test_a_killed_fetch_is_taken_up_where_it_ended(root: Path, origin: Origin, start: Start) -> None:
    origin.hold_at = HOLD_BYTES
    child = start()
    partial = root / "incoming" / SHA256 / "data"
    wait_until(lambda: partial.exists() and partial.stat().st_size >= HOLD_BYTES)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL
    assert not (root / "blobs").exists()
    (line,) = Store(root).list_models()
    assert (line.state, line.name) == (WeightsState.INCOMPLETE, "m.gguf")

    had_bytes = partial.stat().st_size
    origin.hold_at = None
    origin.let_go.set()
    _, found = result(start())
    assert Path(found["path"]).read_bytes() == DATA
    assert origin.gets()[-1]["Range"] == f"bytes={had_bytes}-"
    assert origin.bodies[-1] == len(DATA) - had_bytes


def test_a_second_process_waits_and_nothing_is_fetched_twice(
    root: Path, origin: Origin, start: Start
) -> None:
    origin.hold_at = HOLD_BYTES
    first = start()
    wait_until(lambda: origin.sent_bytes >= HOLD_BYTES)
    second = start()
    assert second.stdout is not None
    assert second.stdout.readline().strip() == FetchStage.WAITING
    origin.let_go.set()
    (_, one), (_, two) = result(first), result(second)
    assert one == two
    assert len(origin.gets()) == 1


def test_a_waiter_takes_over_from_one_that_was_killed(root: Path, origin: Origin, start: Start) -> None:
    origin.hold_at = HOLD_BYTES
    first = start()
    wait_until(lambda: origin.sent_bytes >= HOLD_BYTES)
    second = start()
    assert second.stdout is not None
    assert second.stdout.readline().strip() == FetchStage.WAITING
    first.kill()
    origin.let_go.set()
    _, found = result(second)
    assert Path(found["path"]).read_bytes() == DATA


def test_a_file_size_limit_is_a_clear_error_and_leaves_nothing(root: Path, start: Start) -> None:
    _, found = result(start(limit_bytes=HOLD_BYTES))
    assert found["error"] == "DiskFull"
    assert "FREEHOLD_CACHE_DIR" in found["hint"]
    assert files(root) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a small tmpfs; the file size limit tests the same path")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_too_small_is_known_before_the_first_byte(small_disk: Path, origin: Origin) -> None:
    with pytest.raises(DiskFull, match="3,000,000"):
        Store(small_disk / "weights").fetch(f"{origin.url}/m.gguf", SHA256)
    assert files(small_disk) == []


def test_a_disk_that_fills_up_is_a_clear_error_and_leaves_nothing(small_disk: Path, origin: Origin) -> None:
    origin.chunked = True  # no length: nobody can know before
    with pytest.raises(DiskFull):
        Store(small_disk / "weights").fetch(f"{origin.url}/m.gguf", SHA256)
    assert files(small_disk) == []
    (small_disk / "free").write_bytes(bytes(900_000))  # the room is there again


def test_a_disk_too_small_for_the_rest_keeps_what_is_there(small_disk: Path, origin: Origin) -> None:
    origin.chunked, origin.cuts = True, [500_000]
    store = Store(small_disk / "weights", backoff=Backoff(attempts=1))
    with pytest.raises(Temporary):
        store.fetch(f"{origin.url}/m.gguf", SHA256)
    origin.chunked = False
    with pytest.raises(DiskFull):
        store.fetch(f"{origin.url}/m.gguf", SHA256)
    (line,) = store.list_models()
    assert line.state is WeightsState.INCOMPLETE
    assert line.size_bytes > 0


def test_a_small_disk_and_a_file_of_this_machine(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(DATA)
    with pytest.raises(DiskFull):
        Store(small_disk / "weights").fetch(f"file://{tmp_path}/m.gguf", SHA256)
    assert files(small_disk) == []


@pytest.fixture
def stored(root: Path, tmp_path: Path) -> Path:
    (tmp_path / "m.gguf").write_bytes(DATA)
    return Store(root).fetch(f"file://{tmp_path}/m.gguf", SHA256)


def decay(blob: Path) -> None:
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.seek(1000)
        file.write(b"rot")
    blob.chmod(0o444)


def test_a_present_blob_is_found_quickly_and_without_a_write(root: Path, stored: Path) -> None:
    store, before = Store(root), sorted(files(root))
    times_s = []
    for _ in range(5):
        started_s = time.perf_counter()
        assert store.fetch("https://host/never-asked.gguf", SHA256.upper()) == stored
        times_s.append(time.perf_counter() - started_s)
    assert min(times_s) < PRESENT_S
    assert sorted(files(root)) == before


def test_verify_finds_decay_and_puts_it_away(root: Path, stored: Path) -> None:
    store = Store(root)
    seen: list[Progress] = []
    (sound,) = store.verify(on_progress=seen.append)
    assert sound.healthy
    assert seen[-1] == Progress(stage=FetchStage.CHECKING, done_bytes=len(DATA), total_bytes=len(DATA))
    decay(stored)
    (rotten,) = store.verify(SHA256)
    assert not rotten.healthy
    assert rotten.got_sha256 not in {"", SHA256}
    assert not stored.exists()
    assert [line.state for line in store.list_models()] == [WeightsState.QUARANTINED]
    assert store.verify() == []


def test_a_changed_blob_is_never_handed_out_but_fetched_again(
    root: Path, stored: Path, tmp_path: Path
) -> None:
    decay(stored)
    path = Store(root).fetch(f"file://{tmp_path}/m.gguf", SHA256)
    assert path.read_bytes() == DATA
    states = {line.state for line in Store(root).list_models()}
    assert states == {WeightsState.VERIFIED, WeightsState.QUARANTINED}


def test_a_touched_but_sound_blob_is_kept_without_asking_the_source(root: Path, stored: Path) -> None:
    os.utime(stored, (0, 0))
    assert [line.state for line in Store(root).list_models()] == [WeightsState.CHANGED]
    assert Store(root).fetch("https://host/never-asked.gguf", SHA256) == stored
    assert [line.state for line in Store(root).list_models()] == [WeightsState.VERIFIED]


def test_verify_of_what_is_not_there_is_an_error(root: Path) -> None:
    assert Store(root).verify() == []
    with pytest.raises(Permanent, match="nothing is stored"):
        Store(root).verify(SHA256)


@pytest.mark.parametrize(
    ("source", "sha256"), [("file:///m.gguf", "short"), ("nonsense", SHA256), ("pypi://a==1/../b", SHA256)]
)
def test_a_source_or_hash_that_means_nothing_is_refused_before_anything(
    root: Path, source: str, sha256: str
) -> None:
    with pytest.raises(Permanent) as caught:
        Store(root).fetch(source, sha256)
    assert caught.value.hint
    assert not root.exists()


def test_a_store_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "m.gguf").write_bytes(DATA)
    with pytest.raises(Permanent, match="file"):
        Store(tmp_path / "file" / "weights").fetch(f"file://{tmp_path}/m.gguf", SHA256)


def test_the_store_is_in_the_cache_folder_of_the_user_or_where_told() -> None:
    assert store_root({"FREEHOLD_CACHE_DIR": "/big/disk"}) == Path("/big/disk/weights")
    assert store_root({}).parts[-2:] == ("freehold", "weights")
