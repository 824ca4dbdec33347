"""Environments are made by the real pip, from wheels that the test makes: whole or not at all, and every failure says what to do."""

import dataclasses
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from freehold.core.errors import FreeholdError, Permanent, Temporary
from freehold.engines.base import Recipe
from freehold.fleet.environments import ask_program, install, lookup
from freehold.fleet.environments.lookup import MANIFEST, Environment, find, path_of
from freehold.fleet.processes.launch_process import minder_argv
from waiting import wait_until

pytestmark = pytest.mark.timeout(120)
FLAGS = {
    "program": "tool",
    "version": "1.0",
    "source": "itself",
    "flags": [{"flag": "--size", "type": "int"}],
}
TOOL = "import sys\ndef main():\n    print('tool', *sys.argv[1:])\n"
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
ASK = "import json, importlib.metadata as m\nimport tool\nm.version('other')\nprint(json.dumps({flags!r}))\n"


def wheel(folder: Path, name: str, files: dict[str, str]) -> str:
    """Write a wheel and return its hash."""
    info = f"{name}-1.0.dist-info"
    whole = {
        **files,
        f"{info}/METADATA": METADATA.format(name=name),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if "entry" in whole:
        whole[f"{info}/entry_points.txt"] = whole.pop("entry")
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in whole.items():
            archive.writestr(zipfile.ZipInfo(inside), text)
        archive.writestr(
            zipfile.ZipInfo(f"{info}/RECORD"),
            "".join(f"{inside},,\n" for inside in [*whole, f"{info}/RECORD"]),
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a virtual environment with nothing but pip: to make one takes seconds, to copy it does not."""
    path = tmp_path_factory.mktemp("empty") / "environment"
    subprocess.run([sys.executable, "-m", "venv", path], check=True)
    return path


class Shop:
    """A recipe, its list and its wheels, all of the test's own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, empty: Path) -> None:
        self.empty = empty
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        self.root = folder / "data" / "engines"
        self.told: list[str] = []
        entry = "[console_scripts]\ntool = tool:main\n"
        sha256 = wheel(self.wheels, "tool", {"tool.py": TOOL, "entry": entry})
        self.text = f"tool==1.0 --hash=sha256:{sha256}\n"
        self.recipe = Recipe(
            name="tool-cpu",
            version="1.0",
            summary="a tool",
            requirements="none.txt",
            program="bin/tool",
            also_named=(("tool", "other", "1.0+cpu"),),
            asks="ask.py",
            disk_bytes=1000,
            needs="pip must know the index of tools",
        )
        (folder / "programs").mkdir()
        (folder / "programs" / "ask.py").write_text(ASK.format(flags=FLAGS))
        for module in (lookup, install):
            monkeypatch.setattr(module, "requirements_of", lambda _recipe: self.text, raising=False)
        monkeypatch.setattr(ask_program, "files", lambda _package: folder)
        # Nothing but the wheels of the test, whatever this machine's pip is set up with.
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        for name, value in {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
        }.items():
            monkeypatch.setenv(name, value)

    def install(self, **change: Any) -> Environment:
        recipe = dataclasses.replace(self.recipe, **change)
        if not change:
            self.begin()
        return install.install(recipe, self.root, self.told.append)

    def begin(self) -> None:
        """Leave what an installation leaves that ended early."""
        if not path_of(self.recipe, self.root).exists():
            shutil.copytree(self.empty, path_of(self.recipe, self.root), symlinks=True)

    def failure(self, **change: Any) -> FreeholdError:
        with pytest.raises(FreeholdError) as caught:
            self.install(**change)
        assert find(self.recipe, self.root) is None, "what failed is never used"
        return caught.value


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: Path) -> Shop:
    return Shop(tmp_path, monkeypatch, empty)


def test_it_is_made_asked_and_found(shop: Shop) -> None:
    made = shop.install(summary="from nothing")
    assert "making a virtual environment" in shop.told[0]
    assert find(shop.recipe, shop.root) == made
    assert made.manifest.flags == msgspec.convert(FLAGS, lookup.FlagList)
    assert made.manifest.python == ".".join(map(str, sys.version_info[:3]))
    said = subprocess.run(
        [made.path / "bin" / "tool", "hi"], capture_output=True, text=True, check=True
    ).stdout
    assert said == "tool hi\n"
    assert any("1 of 1: tool" in line for line in shop.told)
    again = shop.install()
    assert again == made
    assert "is there already" in shop.told[-1]


def test_a_list_that_changed_is_installed_anew(shop: Shop) -> None:
    first = shop.install()
    shop.text += "# changed\n"
    second = shop.install()
    assert second.manifest.requirements_sha256 != first.manifest.requirements_sha256
    assert second.path != first.path, "what runs in the first imports from it still"
    assert lookup.read(first.path) == first
    assert f"freehold engine remove {first.path.name}" in shop.told[-1]
    assert find(shop.recipe, shop.root) == second


def test_nothing_is_installed_under_a_replica_that_runs(shop: Shop, tmp_path: Path) -> None:
    made = shop.install()
    (made.path / MANIFEST).unlink()  # so that it would be gone on with
    spec = {
        "argv": [str(made.path / "bin" / "python"), "-c", "import sys, time; print('up', flush=True); time.sleep(60)"],
        "folder": str(tmp_path / "files"), "log": str(tmp_path / "log"), "log_max_bytes": 9999, "grace_s": 0.1, "name": "m/x-0",
    }  # fmt: skip
    with subprocess.Popen(minder_argv("m/x-0"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as minder:
        assert minder.stdin is not None
        minder.stdin.write(msgspec.json.encode(spec) + b"\n")
        minder.stdin.flush()
        wait_until(lambda: (tmp_path / "log").exists() and "up" in (tmp_path / "log").read_text(), what="it")
        for refused in (lambda: install.remove(made.path, shop.root), shop.install):
            with pytest.raises(Permanent, match=r"is in use by m/x-0$"):
                refused()
        minder.stdin.close()
        minder.wait(10)
    assert shop.install().path == made.path


def test_half_of_it_is_gone_on_with(shop: Shop) -> None:
    made = shop.install()
    (made.path / MANIFEST).unlink()
    assert find(shop.recipe, shop.root) is None
    assert shop.install().path == made.path


def test_a_distribution_whose_unpacking_was_cut_off_is_unpacked_again(shop: Shop) -> None:
    made = shop.install()
    (made.path / MANIFEST).unlink()
    (site,) = made.path.glob("lib/python3*/site-packages")
    (site / "tool.py").write_text("import sys\n")  # as far as it came
    for name in ("INSTALLER", "RECORD"):  # which pip writes last
        (site / "tool-1.0.dist-info" / name).unlink()
    again = shop.install()
    said = subprocess.run([again.path / "bin" / "tool"], capture_output=True, text=True, check=True).stdout
    assert said == "tool\n"


def test_nothing_is_built_from_source(shop: Shop) -> None:
    """What builds a source distribution comes from the index without a hash."""
    archive = shop.wheels / "source-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        for name, text in {
            "setup.py": "raise SystemExit('it ran')\n",
            "PKG-INFO": METADATA.format(name="source"),
        }.items():
            info = tarfile.TarInfo(f"source-1.0/{name}")
            info.size = len(text)
            packed.addfile(info, io.BytesIO(text.encode()))
    shop.text = f"source==1.0 --hash=sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}\n"
    assert "pip finds no source==1.0" in shop.failure().message


def test_a_virtual_environment_that_got_no_pip_is_made_anew(shop: Shop) -> None:
    shop.begin()
    for path in path_of(shop.recipe, shop.root).glob("lib/python3*/site-packages/pip*"):
        shutil.rmtree(path)
    made = shop.install()
    assert find(shop.recipe, shop.root) == made


@pytest.mark.parametrize(
    ("break_it", "words", "hint"),
    [
        (lambda shop: setattr(shop, "text", shop.text[:-10] + "0" * 9 + "\n"), "got another file than the list of tool-cpu names", "pip cache purge"),
        (lambda shop: setattr(shop, "text", f"nowhere==1.0 --hash=sha256:{'0' * 64}\n"), "pip finds no nowhere==1.0", "the index of tools"),
        (lambda shop: (shop.root.parent.parent / "programs" / "ask.py").write_text("import nothing_like_this\n"), "No module named 'nothing_like_this'", ""),
        (lambda shop: (shop.root.parent.parent / "programs" / "ask.py").write_text(f"print({str(FLAGS | {'version': '9'})!r}.replace(chr(39), chr(34)))"), "has version 9", "install it anew"),
        (lambda shop: (shop.root.parent.parent / "programs" / "ask.py").write_text("print('[]')"), "does not report the flags", ""),
    ],
)  # fmt: skip
def test_failures_are_told(shop: Shop, break_it: Callable[[Shop], object], words: str, hint: str) -> None:
    break_it(shop)
    failure = shop.failure()
    assert words in failure.message
    assert hint in failure.hint


def test_an_index_that_cannot_be_reached_may_be_there_later(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PIP_NO_INDEX": "0",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "1",
    }.items():
        monkeypatch.setenv(name, value)
    shop.text = f"nowhere==1.0 --hash=sha256:{'0' * 64}\n"
    failure = shop.failure()
    assert isinstance(failure, Temporary)
    assert "PIP_FIND_LINKS" in failure.hint


def test_room_is_looked_for_first(shop: Shop) -> None:
    failure = shop.failure(disk_bytes=10**18)
    assert "GB free, and tool-cpu needs" in failure.message
    assert "FREEHOLD_DATA_DIR" in failure.hint
    assert not path_of(shop.recipe, shop.root).exists()


def test_another_python_is_asked_for(shop: Shop) -> None:
    failure = shop.failure(python="3.4")
    assert "no python3.4 is in PATH" in failure.message


def test_two_installers_make_it_once(shop: Shop) -> None:
    made: list[Environment] = []
    shop.begin()
    threads = [threading.Thread(target=lambda: made.append(shop.install())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made[0] == made[1]
    assert sum("distributions, each by its hash" in line for line in shop.told) == 1


def test_removal_waits_for_nobody_and_takes_nothing_that_runs(shop: Shop) -> None:
    made = shop.install()
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen([made.path / "bin" / "python", "-c", code], stdin=subprocess.PIPE) as user:
        try:
            wait_until(
                lambda: str(made.path).encode() in Path(f"/proc/{user.pid}/cmdline").read_bytes(),
                what="its start",
            )
            with pytest.raises(Permanent, match=f"in use by process {user.pid}"):
                install.remove(made.path, shop.root)
        finally:
            user.kill()
    assert find(shop.recipe, shop.root) == made
    install.remove(made.path, shop.root)
    assert not made.path.exists()


def test_the_interpreter_behind_a_program(tmp_path: Path) -> None:
    script = tmp_path / "tool"
    script.write_text(f"#!{sys.executable}\n")
    script.chmod(0o755)
    assert ask_program.python_behind(str(script)) == Path(sys.executable)
    assert ask_program.python_behind("/bin/ls") is None
    assert ask_program.python_behind(str(tmp_path / "nothing")) is None


def test_a_program_that_hangs_is_given_up() -> None:
    with pytest.raises(Permanent, match=r"no answer within 0\.5 s"):
        ask_program.run(
            [sys.executable, "-c", "import sys; sys.stdin = open('/dev/zero'); sys.stdin.read()"],
            timeout_s=0.5,
        )


def test_a_program_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(Permanent, match=r"exit code 1.*no way"):
        ask_program.run([sys.executable, "-c", "raise SystemExit('no way')"])
