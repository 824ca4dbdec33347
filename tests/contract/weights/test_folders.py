"""Folders of weights from every kind of source: torn, wrong in one file of many, on a full disk, by two at once."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.weights.hub import COMMIT, Hub, serving_hub
from contract.weights.origin import Origin, serving
from freehold.core.errors import Permanent, Temporary
from freehold.weights.blobs import RECORD, WeightsState
from freehold.weights.fetch_folder import AT_ONCE
from freehold.weights.retry import Backoff
from freehold.weights.store import Store, WrongHash
from freehold.weights.transfer import DiskFull, FetchStage, Progress
from freehold.weights.tree import manifest, tree_hash
from waiting import wait_until

DICE = random.Random(4)
SHARDS = {f"model-0000{number}-of-00006.safetensors": DICE.randbytes(200_000) for number in range(1, 7)}
FILES = SHARDS | {"config.json": b"{}", "sub/tokenizer.json": DICE.randbytes(500), "README.md": b"words"}
LEFT_OUT = {"pytorch_model.bin": DICE.randbytes(3000), ".gitattributes": b"x", "sub/.hidden/x": b"x"}
HASHES = {path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()}
TREE = tree_hash(HASHES)
ONE = "model-00003-of-00006.safetensors"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Store:
    return Store(root, backoff=Backoff(attempts=2, first_s=0.01))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return put(tmp_path / "here", FILES | LEFT_OUT)


@pytest.fixture
def origin() -> Iterator[Origin]:
    files = {f"/llama/{path}": data for path, data in FILES.items()}
    etags = {path: f'"{path}"' for path in files}
    with serving(
        Origin(files=files | {"/llama/SHA256SUMS": manifest(HASHES).encode()}, etags=etags)
    ) as running:
        yield running


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving_hub(Hub(files=FILES | LEFT_OUT)) as running:
        yield running


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def states(store: Store) -> list[WeightsState]:
    return [line.state for line in store.list_models()]


# file://


def test_a_folder_of_this_machine(store: Store, here: Path, root: Path) -> None:
    seen: list[Progress] = []
    path = store.fetch(f"file://{here}/", TREE, on_progress=seen.append)
    assert contents(path) == FILES
    assert path == root / "blobs" / TREE / "here"
    total = sum(map(len, FILES.values()))
    assert seen[-1] == Progress(stage=FetchStage.COPYING, done_bytes=total, total_bytes=total)
    assert [done.done_bytes for done in seen] == sorted(done.done_bytes for done in seen)
    (here / ONE).write_bytes(b"changed later")
    assert store.fetch("https://host/never-asked/SHA256SUMS", TREE) == path
    assert list((root / "incoming").iterdir()) == []
    (line,) = store.list_models()
    assert (line.state, line.size_bytes, line.name) == (WeightsState.VERIFIED, total, "here")


def test_a_folder_beside_the_config_and_a_choice_of_files(store: Store, here: Path) -> None:
    chosen = {path: digits for path, digits in HASHES.items() if path.endswith(".json")}
    path = store.fetch(f"file://{here.name}?include=*.json", tree_hash(chosen), base_dir=here.parent)
    assert sorted(contents(path)) == sorted(chosen)


def test_a_wrong_folder_is_quarantined_whole(store: Store, here: Path, root: Path) -> None:
    (here / ONE).write_bytes(b"other")
    with pytest.raises(WrongHash, match=TREE) as caught:
        store.fetch(f"file://{here}/", TREE)
    assert states(store) == [WeightsState.QUARANTINED]
    kept = root / "quarantine" / caught.value.got_sha256 / "here"
    assert contents(kept)[ONE] == b"other"
    assert kept.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("target", ["/etc/hostname", "config.json"])
def test_a_link_in_a_folder_is_refused(store: Store, here: Path, target: str) -> None:
    (here / "link.json").symlink_to(target)
    with pytest.raises(Permanent, match=r"link\.json"):
        store.fetch(f"file://{here}/", TREE)
    assert states(store) in ([], [WeightsState.INCOMPLETE])


@pytest.mark.parametrize(
    ("name", "told"),
    [("missing", "is not a folder"), ("here/config.json", "is not a folder"), ("empty", "no file")],
)
def test_no_folder_is_an_error_that_names_it(store: Store, here: Path, name: str, told: str) -> None:
    (here.parent / "empty").mkdir()
    with pytest.raises(Permanent, match=told) as caught:
        store.fetch(f"file://{here.parent}/{name}/", TREE)
    assert caught.value.hint


def test_names_that_differ_only_in_case_are_refused(store: Store, here: Path) -> None:
    (here / "Config.JSON").write_bytes(b"{}")
    with pytest.raises(Permanent, match="upper and lower case"):
        store.fetch(f"file://{here}/", TREE)


# GGUF in parts


def parts_of(data: bytes, count: int) -> dict[str, bytes]:
    step = len(data) // count
    return {f"m-0000{n + 1}-of-0000{count}.gguf": data[n * step : (n + 1) * step] for n in range(count)}


def test_all_parts_come_and_the_first_is_handed_out(store: Store, tmp_path: Path, origin: Origin) -> None:
    parts = parts_of(DICE.randbytes(30_000), 3)
    sha256 = tree_hash({name: hashlib.sha256(data).hexdigest() for name, data in parts.items()})
    put(tmp_path / "parts", parts)
    path = store.fetch(f"file://{tmp_path}/parts/m-00001-of-00003.gguf", sha256)
    assert path.name == "m-00001-of-00003.gguf"
    assert contents(path.parent) == parts
    assert store.fetch(f"file://{tmp_path}/parts/m-00001-of-00003.gguf", sha256) == path
    origin.files |= {f"/{name}": data for name, data in parts.items()}
    other = Store(tmp_path / "other").fetch(f"{origin.url}/m-00001-of-00003.gguf", sha256)
    assert contents(other.parent) == parts


def test_a_missing_part_is_named(store: Store, tmp_path: Path) -> None:
    parts = parts_of(DICE.randbytes(30_000), 3)
    put(tmp_path, {name: data for name, data in parts.items() if "00002" not in name})
    with pytest.raises(Permanent, match="m-00002-of-00003"):
        store.fetch(f"file://{tmp_path}/m-00001-of-00003.gguf", TREE)


# https://


def test_a_folder_by_its_list_of_hashes(store: Store, origin: Origin) -> None:
    path = store.fetch(f"{origin.url}/llama/SHA256SUMS", TREE)
    assert contents(path) == FILES
    assert path.name == "llama"


def test_a_torn_file_is_taken_up_and_only_what_is_missing_is_fetched(store: Store, origin: Origin) -> None:
    origin.cuts = [len(manifest(HASHES)), *[90_000] * 40]
    with pytest.raises(Temporary):
        store.fetch(f"{origin.url}/llama/SHA256SUMS", TREE)
    (line,) = store.list_models()
    assert line.state is WeightsState.INCOMPLETE
    origin.cuts = []
    sent_before = origin.sent_bytes
    assert contents(store.fetch(f"{origin.url}/llama/SHA256SUMS", TREE)) == FILES
    everything = sum(map(len, FILES.values())) + len(manifest(HASHES))
    assert origin.sent_bytes - sent_before < everything * 0.9


def test_one_wrong_file_of_many_is_named_and_all_is_quarantined(store: Store, origin: Origin) -> None:
    origin.files[f"/llama/{ONE}"] = DICE.randbytes(200_000)
    with pytest.raises(Permanent, match=ONE):
        store.fetch(f"{origin.url}/llama/SHA256SUMS", TREE)
    assert states(store) == [WeightsState.QUARANTINED]
    origin.files[f"/llama/{ONE}"] = FILES[ONE]
    assert contents(store.fetch(f"{origin.url}/llama/SHA256SUMS", TREE)) == FILES


def test_another_list_is_refused_before_any_file_is_fetched(store: Store, origin: Origin) -> None:
    origin.files["/llama/SHA256SUMS"] = manifest(HASHES | {ONE: "0" * 64}).encode()
    with pytest.raises(Permanent, match="other files than the hash asks for"):
        store.fetch(f"{origin.url}/llama/SHA256SUMS", TREE)
    assert [path for _, path, _ in origin.requests] == ["/llama/SHA256SUMS"]


@pytest.mark.parametrize("line", ["../../etc/passwd", "/etc/passwd", "Config.json"])
def test_a_list_that_leads_out_of_the_folder_is_refused(store: Store, origin: Origin, line: str) -> None:
    origin.files["/llama/SHA256SUMS"] = (manifest(HASHES) + f"{'0' * 64}  {line}\n").encode()
    with pytest.raises(Permanent, match="SHA256SUMS"):
        store.fetch(f"{origin.url}/llama/SHA256SUMS", TREE)


# hf://, each in a process of its own: the library reads its settings when it is imported

CHILD = """
import json, resource, sys
from pathlib import Path
from freehold.core.errors import FreeholdError
from freehold.weights.store import Store
root, source, sha256, limit_bytes = sys.argv[1:]
if int(limit_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit_bytes), int(limit_bytes)))
try:
    tell = lambda progress: print(progress.stage, flush=True)
    if sha256:
        path = Store(Path(root)).fetch(source, sha256, on_progress=tell)
    else:
        sha256, path = Store(Path(root)).adopt(source, on_progress=tell)
    print(json.dumps({"path": str(path), "sha256": sha256}))
except FreeholdError as error:
    print(json.dumps({"error": type(error).__name__, "message": error.message, "hint": error.hint}))
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, root: Path, hub: Hub) -> Iterator[Start]:
    children: list[subprocess.Popen[str]] = []

    def begin(source: str, sha256: str = TREE, limit_bytes: int = 0, **env: str) -> subprocess.Popen[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        command = [sys.executable, "-c", CHILD, str(root), source, sha256, str(limit_bytes)]
        children.append(
            subprocess.Popen(command, env=clean | settings | env, stdout=subprocess.PIPE, text=True)
        )
        return children[-1]

    yield begin
    for child in children:
        child.kill()
        child.communicate()


def result(child: subprocess.Popen[str]) -> dict[str, str]:
    return json.loads(child.communicate(timeout=50)[0].splitlines()[-1])


def test_a_repository_of_a_hub_at_one_commit_a_few_files_at_once(start: Start, hub: Hub) -> None:
    found = result(start("hf://org/repo@main"))
    assert contents(Path(found["path"])) == FILES
    fetched = [path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]
    assert len(fetched) == len(FILES)
    assert all(f"/resolve/{COMMIT}/" in path for path in fetched)
    assert 1 <= hub.most_at_once <= AT_ONCE


def test_a_folder_in_a_repository(start: Start) -> None:
    sha256 = tree_hash({"tokenizer.json": HASHES["sub/tokenizer.json"]})
    assert contents(Path(result(start("hf://org/repo@main/sub/", sha256))["path"])) == {
        "tokenizer.json": FILES["sub/tokenizer.json"]
    }


def test_pickles_come_only_when_they_are_named(start: Start) -> None:
    data = LEFT_OUT["pytorch_model.bin"]
    sha256 = tree_hash({"pytorch_model.bin": hashlib.sha256(data).hexdigest()})
    found = result(start("hf://org/repo@main?include=*.bin", sha256))
    assert contents(Path(found["path"])) == {"pytorch_model.bin": data}


def test_the_hash_of_a_folder_that_nobody_knows_is_told_and_holds(start: Start, root: Path) -> None:
    found = result(start(f"hf://org/repo@{COMMIT}", ""))
    assert found["sha256"] == TREE
    assert contents(Path(found["path"])) == FILES
    assert result(start(f"hf://org/repo@{COMMIT}", TREE))["path"] == found["path"]
    assert list((root / "incoming").iterdir()) == []


@pytest.mark.parametrize("name", [ONE, "config.json"])
def test_one_wrong_file_of_a_hub_is_named(start: Start, hub: Hub, name: str, store: Store) -> None:
    hub.listed = {name: bytes(reversed(FILES[name] + b"x"))[: len(FILES[name])]}
    found = result(start("hf://org/repo@main"))
    assert found["error"] == "WrongFile"
    assert name in found["message"]
    assert states(store) == [WeightsState.QUARANTINED]


def test_a_killed_fetch_keeps_the_files_that_were_whole(start: Start, hub: Hub, root: Path) -> None:
    hub.held = ONE
    child = start("hf://org/repo@main")
    done = root / "incoming" / TREE / "done.jsonl"
    wait_until(lambda: done.exists() and done.read_bytes().count(b"\n") >= 2)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL
    had = {json.loads(line)["path"] for line in done.read_bytes().splitlines() if line.endswith(b"}")}
    with done.open("ab") as file:
        file.write(b'{"path": "torn')
    hub.held = ""
    hub.let_go.set()
    hub.requests.clear()
    assert contents(Path(result(start("hf://org/repo@main"))["path"])) == FILES
    asked = {path.rpartition(f"{COMMIT}/")[2] for method, path, _ in hub.requests if method == "GET"}
    assert not had & asked


def test_two_processes_fetch_a_folder_once(start: Start, hub: Hub) -> None:
    hub.hold_at = 1
    first = start("hf://org/repo@main")
    wait_until(lambda: hub.sent_bytes >= 1)
    second = start("hf://org/repo@main")
    assert second.stdout is not None
    assert second.stdout.readline().strip() == FetchStage.WAITING
    hub.let_go.set()
    assert result(first) == result(second)
    assert len([1 for method, path, _ in hub.requests if method == "GET" and ONE in path]) == 1


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(start: Start, root: Path) -> None:
    found = result(start("hf://org/repo@main", limit_bytes=100_000))
    assert found["error"] == "DiskFull"
    assert [path for path in root.rglob("*") if path.is_file() and path.parent.name != "locks"] == []


def test_the_users_hub_cache_is_enough_offline(start: Start, hub: Hub, tmp_path: Path) -> None:
    repo = tmp_path / "hf" / "hub" / "models--org--repo"
    put(repo / "blobs", {digits: FILES[path] for path, digits in HASHES.items()})
    snapshot = repo / "snapshots" / COMMIT
    for path, digits in HASHES.items():
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path).symlink_to(repo / "blobs" / digits)  # as the library has it
    put(repo, {"refs/main": COMMIT.encode()})
    found = result(start("hf://org/repo@main", HF_HUB_OFFLINE="1"))
    assert contents(Path(found["path"])) == FILES
    assert not any(path.is_symlink() for path in Path(found["path"]).rglob("*"))
    assert hub.requests == []


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("hf://org/other@main", "no repository org/other"),
        ("hf://org/repo@nowhere", "no revision nowhere"),
        ("hf://org/gated@main", "org/gated is gated"),
        ("hf://org/repo@main?include=*.nothing", "no file that matches"),
    ],
)
def test_what_a_hub_has_not_is_named(start: Start, source: str, told: str) -> None:
    found = result(start(source))
    assert found["error"] == "Permanent"
    assert told in found["message"]
    assert found["hint"]


def test_an_endpoint_that_is_no_hub_says_so(start: Start, hub: Hub) -> None:
    hub.is_hub = False
    found = result(start("hf://org/repo@main"))
    assert found["error"] == "Permanent"
    assert "HF_ENDPOINT" in found["hint"]


def test_a_list_with_names_that_clash_is_refused(start: Start, hub: Hub) -> None:
    hub.files["Config.json"] = b"[]"
    assert "upper and lower case" in result(start("hf://org/repo@main"))["message"]


# what is stored


@pytest.fixture
def stored(store: Store, here: Path) -> Path:
    return store.fetch(f"file://{here}/", TREE)


def rot(file: Path) -> None:
    file.chmod(0o644)
    file.write_bytes(bytes(len(file.read_bytes())))


@pytest.mark.parametrize("where", [ONE, "config.json", "sub/tokenizer.json"])
def test_verify_names_the_file_that_has_decayed(store: Store, stored: Path, where: str) -> None:
    (sound,) = store.verify()
    assert (sound.healthy, sound.got_sha256) == (True, TREE)
    rot(stored / where)
    assert states(store) == [WeightsState.CHANGED]
    (rotten,) = store.verify(TREE)
    assert not rotten.healthy
    assert f"{where} is changed" in rotten.message
    assert not stored.exists()


def test_a_file_that_was_added_or_removed_is_noticed_at_the_next_use(
    store: Store, stored: Path, here: Path
) -> None:
    (stored / "extra.json").write_bytes(b"{}")
    assert states(store) == [WeightsState.CHANGED]
    assert contents(store.fetch(f"file://{here}/", TREE)) == FILES
    (stored / ONE).unlink()
    assert contents(store.fetch(f"file://{here}/", TREE)) == FILES
    assert states(store)[0] is WeightsState.VERIFIED


def test_a_link_put_into_a_stored_folder_is_damage(store: Store, stored: Path) -> None:
    (stored / "config.json").unlink()
    (stored / "config.json").symlink_to("/etc/hostname")
    (verdict,) = store.verify()
    assert not verdict.healthy
    assert "config.json" in verdict.message


def test_a_touched_but_sound_folder_costs_one_hash(store: Store, stored: Path) -> None:
    os.utime(stored / ONE, (0, 0))
    assert states(store) == [WeightsState.CHANGED]
    assert store.fetch("https://host/never-asked/SHA256SUMS", TREE) == stored
    assert states(store) == [WeightsState.VERIFIED]


def test_a_damaged_record_of_a_folder_is_not_trusted_but_mended(store: Store, stored: Path) -> None:
    (stored.parent / RECORD).write_bytes(b'{"name": "here", "source": "", "fetched_at": "", "files": [')
    assert store.fetch("https://host/never-asked/SHA256SUMS", TREE) == stored
    assert states(store) == [WeightsState.VERIFIED]


def test_a_record_of_a_file_has_no_list_of_files(store: Store, tmp_path: Path, root: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    sha256 = hashlib.sha256(b"GGUF").hexdigest()
    path = store.fetch(f"file://{tmp_path}/m.gguf", sha256)
    record = json.loads((path.parent / RECORD).read_bytes())
    assert set(record) == {"name", "source", "fetched_at", "stamp", "seal"}
    assert store.fetch("https://host/never-asked.gguf", sha256) == path


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


def test_a_folder_too_large_for_the_disk_is_known_before_the_first_byte(small_disk: Path, here: Path) -> None:
    with pytest.raises(DiskFull, match="1,200,"):
        Store(small_disk / "weights").fetch(f"file://{here}/", TREE)
    assert [path for path in small_disk.rglob("*") if path.is_file() and path.parent.name != "locks"] == []
