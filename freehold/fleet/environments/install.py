"""Make and remove the environments that engines run in: a virtual environment, its pinned distributions, its manifest.

pip is what installs, as the user has configured it (indexes, proxies, find-links, offline), and with a hash for every file. A folder
is used only when its manifest is there, which is written last; a half-made one is continued. It deliberately
does not resolve anything: the requirements are complete, and dependencies are not considered.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from freehold.core.clock import monotonic_s, wall_s
from freehold.core.errors import FreeholdError, Permanent, Temporary
from freehold.core.whole_file import replace_file
from freehold.engines.base import Recipe
from freehold.engines.shared.flag_list import FlagList
from freehold.fleet.environments.ask_program import ask_flags, foreign_env, run
from freehold.fleet.environments.lookup import (
    MANIFEST,
    Environment,
    Manifest,
    find,
    path_of,
    requirements_of,
    requirements_sha256,
)
from freehold.fleet.processes.launch_process import replica_of

Tell = Callable[[str], object]
_LOCK_ASK_S = 1.0  # between two checks of a waiting installer for cancellation
_LAST_LINES = 40
"""Lines of pip's output kept for a failure. Source: our own choice; its errors take some ten."""
_SHOWN_CHARS = 300  # of a line of pip's: two lines of a terminal
_PINS = re.compile(r"^[A-Za-z0-9][\w.-]*==", re.MULTILINE)
_TAKEN = re.compile(r"^(?:Collecting|Processing|Requirement already satisfied:) (\S+)")


def install(recipe: Recipe, root: Path, tell: Tell) -> Environment:
    """Make a recipe's environment, or return the present one; `tell` gets a progress line now and then.

    Raises Temporary where the package index cannot be reached and Permanent for everything else, with the place and what to do. Only
    one installer works on it at a time; another one waits.
    """
    python = _interpreter(recipe)
    root.mkdir(parents=True, exist_ok=True)
    with _alone(recipe, root, tell):
        found = find(recipe, root)
        if found is not None and found.manifest.requirements_sha256 == requirements_sha256(recipe):
            tell(f"{recipe.name} {recipe.version} is there already: {found.path}")
            return found
        path = path_of(recipe, root)
        _refuse_while_used(path)
        _check_space(recipe, root)
        made = _make(recipe, path, python, tell)
    if found is not None:
        tell(
            f"{found.path} stays for the replicas that run in it. Run `freehold reload` to use the new one, then `freehold engine remove {found.path.name}`"
        )
    return made


def _make(recipe: Recipe, path: Path, python: str, tell: Tell) -> Environment:
    started_s = monotonic_s()
    (path / MANIFEST).unlink(missing_ok=True)  # until it is complete again
    if not _has_pip(path):
        tell(f"making a virtual environment in {path}")
        run([python, "-m", "venv", "--clear", str(path)])
    _drop_halves(path)
    _pip(recipe, path, tell)
    for source, name, version in recipe.also_named:
        _copy_metadata(path, source, name, version)
    flags: FlagList | None = None
    if recipe.asks:
        tell("asking the program for its flags")
        flags = _asked(recipe, path)
    manifest = Manifest(
        recipe=recipe.name,
        version=recipe.version,
        python=run(
            [str(path / "bin" / "python"), "-I", "-c", "import platform; print(platform.python_version())"]
        )
        .decode()
        .strip(),
        requirements_sha256=requirements_sha256(recipe),
        made_at=datetime.fromtimestamp(wall_s(), UTC).isoformat(timespec="seconds"),
        seconds=round(monotonic_s() - started_s, 1),
        flags=flags,
    )
    replace_file(path / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    tell(f"{recipe.name} {recipe.version} is installed: {path}")
    return Environment(path=path, manifest=manifest)


_RECORDER = "INSTALLER"
"""What pip writes into a distribution's folder once its files are there. Source: PEP 376, and pip's wheel.py, which writes it and RECORD last."""


def _sites(path: Path) -> list[Path]:
    return sorted(path.glob("lib/python3*/site-packages"))


def _has_pip(path: Path) -> bool:
    """Return whether there is a Python with a complete pip: a killed installer may have left either unfinished."""
    whole = any(info for site in _sites(path) for info in site.glob(f"pip-*.dist-info/{_RECORDER}"))
    return whole and (path / "bin" / "python").exists()


def _drop_halves(path: Path) -> None:
    """Remove distributions whose unpacking was cut off: pip treats them as installed once their name and version are there."""
    for site in _sites(path):
        for info in site.glob("*.dist-info"):
            if not (info / _RECORDER).exists():
                shutil.rmtree(info)


def _asked(recipe: Recipe, path: Path) -> FlagList:
    """Return the flags of the installed program; raises Permanent if it cannot be imported or has the wrong version."""
    flags = ask_flags(path / "bin" / "python", recipe)
    if flags.version != recipe.version:
        raise Permanent(
            f"{path} has version {flags.version} of {recipe.name}, not {recipe.version}",
            hint=f"freehold engine remove {recipe.name}, then install it anew",
        )
    return flags


@contextlib.contextmanager
def _alone(recipe: Recipe, root: Path, tell: Tell) -> Iterator[None]:
    lock = FileLock(root / f".{path_of(recipe, root).name}.lock", mode=0o600, fallback_to_soft=False)
    reported = False
    while True:
        try:
            lock.acquire(timeout=_LOCK_ASK_S)
            break
        except Timeout:
            if not reported:
                tell(f"another process works on {path_of(recipe, root)}: waiting for it")
            reported = True
        except OSError as exc:
            raise Permanent(f"{root} cannot be written: {exc.strerror or exc}", hint=_OTHER_PLACE) from exc
    try:
        yield
    finally:
        lock.release()


_OTHER_PLACE = "FREEHOLD_DATA_DIR names another folder for environments"


def _interpreter(recipe: Recipe) -> str:
    """Return a Python of the version that the recipe's wheels are for."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if recipe.python in ("", own):
        return sys.executable
    found = shutil.which(f"python{recipe.python}")
    if found is None:
        raise Permanent(
            f"{recipe.name} {recipe.version} is made of wheels for Python {recipe.python}; this is {own}, and no "
            f"python{recipe.python} is in PATH",
            hint=f"install Python {recipe.python} (with its venv module) beside it",
        )
    return found


def _check_space(recipe: Recipe, root: Path) -> None:
    free = shutil.disk_usage(root).free
    there = path_of(recipe, root)
    missing = recipe.disk_bytes - free
    if missing > 0 and not there.exists():
        raise Permanent(
            f"{root} has {free / 1e9:.1f} GB free, and {recipe.name} needs {recipe.disk_bytes / 1e9:.1f} GB while it is installed",
            hint=f"make room, or: {_OTHER_PLACE}",
        )


# --- pip ------------------------------------------------------------------------------------------------------------


def _pip(recipe: Recipe, path: Path, tell: Tell) -> None:
    text = requirements_of(recipe)
    count = len(_PINS.findall(text))
    tell(f"installing {count} distributions, each by its hash")
    with tempfile.NamedTemporaryFile("w", prefix=f"{recipe.name}-", suffix=".txt") as file:
        file.write(text)
        file.flush()
        argv = [
            str(path / "bin" / "python"),
            "-I",
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--no-input",
            "install",
        ]
        argv += [
            "--no-deps",
            "--require-hashes",
            # A source distribution is built with tools whose hashes are not checked, and runs any code while it is.
            "--only-binary",
            ":all:",
            "--progress-bar",
            "off",
            "--no-warn-script-location",
            "-r",
            file.name,
        ]
        code, last = _follow(argv, count, tell)
    if code != 0:
        raise _explained(recipe, path, last)


def _follow(argv: list[str], count: int, tell: Tell) -> tuple[int, list[str]]:
    """Run pip to its end; return its exit code and its last lines."""
    last: deque[str] = deque(maxlen=_LAST_LINES)
    taken = 0
    with subprocess.Popen(
        argv,
        env=foreign_env(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as pip:
        assert pip.stdout is not None
        with contextlib.ExitStack() as cancelled:
            cancelled.callback(pip.kill)  # a cancelled installer leaves no pip behind
            for line in pip.stdout:
                last.append(line.rstrip())
                if named := _TAKEN.match(line):
                    taken += 1
                    tell(f"{taken} of {count}: {_short(named[1])}")
                elif line.startswith("Installing collected packages"):
                    tell("unpacking")
            cancelled.pop_all()
    return pip.returncode, list(last)


def _short(named: str) -> str:
    return named.rsplit("/", 1)[-1].split("-cp", 1)[0].split("-py", 1)[0]


_NO_INDEX = re.compile(
    r"Could not fetch URL|Failed to establish a new connection|Max retries exceeded|Temporary failure in name resolution|ReadTimeout"
    r"|Connection (?:refused|reset|timed out)|ProxyError"
)
_NOT_FOUND = re.compile(r"No matching distribution found for (\S+)")
_HASHES = "DO NOT MATCH THE HASHES"
_FULL = "No space left on device"
# Messages of pip. Source: pip 23 to 25, and errno 28 of the operating system; tests/contract/fleet/test_install.py provokes them.


def _explained(recipe: Recipe, path: Path, last: list[str]) -> FreeholdError:
    """Return a failure of pip as an error with the next step."""
    text = "\n".join(last)
    at = f"{recipe.name} {recipe.version} in {path}"
    if _FULL in text:
        return Permanent(
            f"no room on the disk for {at}", hint=f"make room, or: {_OTHER_PLACE}; then install it again"
        )
    if _HASHES in text:
        named = next((line.strip() for line in last if line.strip().endswith(":") and "==" in line), "a file")
        return Permanent(
            f"pip got another file than the list of {recipe.name} names: {named[:_SHOWN_CHARS]}",
            hint="`pip cache purge` and try again; if it stays so, the index or find-links of `pip config list` gives other files",
        )
    if _NO_INDEX.search(text):
        return Temporary(
            f"pip cannot reach its package index for {at}",
            hint="`pip config list` shows what it asks; without a network: pip download elsewhere and PIP_FIND_LINKS=FOLDER",
        )
    if named_pin := _NOT_FOUND.search(text):
        return Permanent(
            f"pip finds no {named_pin[1]} for {at}",
            hint=recipe.needs or "`pip config list` shows where it looks",
        )
    said = next(
        (line for line in reversed(last) if "ERROR" in line or "Error" in line), last[-1] if last else ""
    )
    return Permanent(
        f"pip failed for {at}: {said[:_SHOWN_CHARS] or 'it printed nothing'}",
        hint="run `freehold engine install` again: it continues where it ended",
    )


def _copy_metadata(path: Path, source: str, name: str, version: str) -> None:
    """Copy a distribution's metadata under another name and version; the files stay its own."""
    (site,) = _sites(path)[:1]
    wanted = source.replace("-", "_")
    found = sorted(site.glob(f"{wanted}-*.dist-info"))
    if not found:
        raise Permanent(
            f"{path} has no distribution {source}", hint="freehold engine remove it, then install it anew"
        )
    copy = site / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = (found[0] / "METADATA").read_text()
    metadata = re.sub(r"^Name: .*$", f"Name: {name}", metadata, count=1, flags=re.MULTILINE)
    metadata = re.sub(r"^Version: .*$", f"Version: {version}", metadata, count=1, flags=re.MULTILINE)
    copy.mkdir(exist_ok=True)
    (copy / "METADATA").write_text(metadata)
    (copy / "INSTALLER").write_text("freehold\n")


# --- removal --------------------------------------------------------------------------------------------------------


def remove(path: Path, root: Path) -> None:
    """Remove an environment; raises Permanent where a process runs in it or it cannot be removed. `path` is a folder in `root`."""
    assert path.parent == root, f"{path} is no environment of {root}"
    lock = FileLock(root / f".{path.name}.lock", mode=0o600, fallback_to_soft=False)
    try:
        with lock.acquire(timeout=_LOCK_ASK_S):
            _refuse_while_used(path)
            (path / MANIFEST).unlink(missing_ok=True)  # first: half of an environment is never used
            shutil.rmtree(path)
    except Timeout as exc:
        raise Permanent(f"another process works on {path}", hint="wait for its end") from exc
    except OSError as exc:
        raise Permanent(f"{path} cannot be removed: {exc.strerror or exc}") from exc


def _refuse_while_used(path: Path) -> None:
    """Raise Permanent if processes run from an environment, with the replicas' names or the pids of others."""
    pids: list[int] = []
    marker = os.fsencode(path) + b"/"
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(folder.name) != os.getpid() and marker in (folder / "cmdline").read_bytes():
                pids.append(int(folder.name))
    if pids:
        users = sorted({replica_of(pid) or f"process {pid}" for pid in pids})
        raise Permanent(
            f"{path} is in use by {', '.join(users)}", hint="run `freehold down` to end the stack"
        )
