"""`hf://`: a file of a Hugging Face hub through `huggingface_hub`, the extra `hub`.

The one file that uses that library: it is imported only when such a source is fetched, and its exceptions are mapped
here. It reads HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE itself. A file that the user's own hub cache has
already, with the right hash, is cloned or copied from there without a request. The library resumes after a broken
connection; after a killed process it starts the file anew (it keeps no partial files since its version 1).
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from freehold.core.errors import FreeholdError, Permanent, Temporary
from freehold.weights.fetch_file import copy_in
from freehold.weights.fetch_https import TRANSPORT_ERRORS, status_error, transport_error
from freehold.weights.source import HubFolder, HubSource, Member
from freehold.weights.transfer import Fetched, FetchJob, FetchStage, Reporter, hash_file
from freehold.weights.tree import wanted


def fetch(source: HubSource, job: FetchJob) -> Fetched:
    """Return the file from the user's hub cache or from the hub; raises `Permanent`, `Temporary` or OSError."""
    hub = _library()
    return _from_cache(hub, source, job) or _from_hub(hub, source, job)


def listing(source: HubFolder, report: Reporter) -> list[Member]:
    """Return the wanted files of a repository at one commit, even if a branch moves meanwhile; offline: those of the cache.

    Raises `Permanent` or `Temporary`.
    """
    hub = _library()
    report(FetchStage.FETCHING, detail="asking the hub")
    with _mapped(hub, source):
        if hub.constants.HF_HUB_OFFLINE:
            return _listed_in_cache(hub, source)
        found = hub.HfApi(library_name="freehold").model_info(
            source.repo, revision=source.revision, files_metadata=True
        )
    return [
        _member(source, found.sha, each, path)
        for each in found.siblings or ()
        if (path := _path_below(source, each.rfilename)) is not None
    ]


def _listed_in_cache(hub: Any, source: HubFolder) -> list[Member]:
    """Return the files of the repository in the user's hub cache; the tree hash shows whether they are complete."""
    snapshot = Path(hub.snapshot_download(source.repo, revision=source.revision, local_files_only=True))
    files = (each.relative_to(snapshot).as_posix() for each in snapshot.rglob("*") if each.is_file())
    return [
        Member(path=path, source=HubSource(repo=source.repo, revision=snapshot.name, file=file))
        for file in sorted(files)
        if (path := _path_below(source, file)) is not None
    ]


def _path_below(source: HubFolder, file: str) -> str | None:
    """Return the path that a file of the repository has in the folder, or None: it is not wanted."""
    below = source.below + "/" if source.below else ""
    path = file.removeprefix(below)
    return path if file.startswith(below) and wanted(path, source.include) else None


def _member(source: HubFolder, commit: str, sibling: Any, path: str) -> Member:
    """Return one file as the hub describes it: SHA-256 for what lies in its large store, git's own name for the rest."""
    large = sibling.lfs
    return Member(
        path=path,
        source=HubSource(repo=source.repo, revision=commit, file=sibling.rfilename),
        size_bytes=sibling.size,
        sha256=large.sha256 if large else "",
        git_sha1="" if large else sibling.blob_id or "",
    )


def _library() -> Any:
    try:
        hub = importlib.import_module("huggingface_hub")
        for part in ("constants", "errors"):  # it loads its parts when they are first used
            importlib.import_module(f"huggingface_hub.{part}")
    except ModuleNotFoundError as error:
        message = f"hf:// needs a package that is not installed: {error.name}"
        raise Permanent(message, hint=install_command(Path(sys.prefix), Path(sys.executable))) from error
    return hub


def install_command(prefix: Path, python: Path) -> str:
    """Return the command that adds the hub's client to Freehold's own environment, by what made that environment.

    Source: pipx writes `pipx_metadata.json` and `uv tool` writes `uv-receipt.toml` into the environment; `uv venv`, whose
    environments have no pip, names itself in `pyvenv.cfg`.
    """
    if (prefix / "pipx_metadata.json").exists():
        return "pipx inject freehold huggingface_hub"
    if (prefix / "uv-receipt.toml").exists():
        return "uv tool install --with huggingface_hub freehold"
    config = prefix / "pyvenv.cfg"
    if config.exists() and "\nuv = " in config.read_text():
        return f"uv pip install --python {python} huggingface_hub"
    return f"{python} -m pip install huggingface_hub"


def _from_cache(hub: Any, source: HubSource, job: FetchJob) -> Fetched | None:
    with _mapped(hub, source):
        found = hub.try_to_load_from_cache(source.repo, source.file, revision=source.revision)
    if not isinstance(found, str):
        return None
    if job.want_sha256 not in ("", hash_file(Path(found), job.report)):
        return None  # without an expected hash it is one file of several, and the tree hash decides
    with Path(found).open("rb", buffering=0) as original:
        return copy_in(original, job)


def _from_hub(hub: Any, source: HubSource, job: FetchJob) -> Fetched:
    job.report(FetchStage.FETCHING, detail="asking the hub")
    with _mapped(hub, source):
        # Not retried here: the library does that by itself, for about 23 s without an answer.
        path = hub.hf_hub_download(
            source.repo,
            source.file,
            revision=source.revision,
            local_dir=job.scratch / "hub",
            library_name="freehold",
            tqdm_class=_bar_class(hub, job.report),
        )
    return Fetched(path=Path(path), sha256=hash_file(Path(path), job.report))


def _bar_class(hub: Any, report: Reporter) -> Any:
    """Return the library's own progress bar, made silent, that calls `report` instead."""

    class SilentBar(hub.utils.tqdm):  # type: ignore[misc]  # a class of an optional library
        def __init__(self, *args: Any, **options: Any) -> None:
            self._done_bytes = int(options.get("initial") or 0)
            self._total_bytes = options.get("total")
            super().__init__(*args, **(options | {"disable": True}))

        def update(self, n: float | None = 1) -> None:
            self._done_bytes += int(n or 0)
            report(FetchStage.FETCHING, self._done_bytes, total_bytes=self._total_bytes)

    return SilentBar


@contextmanager
def _mapped(hub: Any, source: HubSource | HubFolder) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, hub.errors.EntryNotFoundError, *TRANSPORT_ERRORS) as error:
        ours = _explained(hub.errors, error, source)
        if ours is None:
            raise
        raise ours from error


_PERMANENT = (
    ("GatedRepoError", "{s.repo} is gated", "accept its terms on the hub and set HF_TOKEN"),
    (
        "RepositoryNotFoundError",
        "the hub shows no repository {s.repo}",
        "check the name; if private, set HF_TOKEN",
    ),
    ("RevisionNotFoundError", "{s.repo} has no revision {s.revision}", "check the part behind @"),
    ("RemoteEntryNotFoundError", "{s.repo}@{s.revision} has no file {s.file}", "check the path of the file"),
    (
        "HFValidationError",
        "{s} is not a valid repository of a hub",
        "write hf://OWNER/NAME@REVISION/FILE, or without /FILE for all files",
    ),
    (
        "OfflineModeIsEnabled",
        "{s} is not in the hub cache, and HF_HUB_OFFLINE is set",
        "unset HF_HUB_OFFLINE, or bring the file into the hub cache first",
    ),
    (
        "FileMetadataError",
        "{s}: the answer lacks what identifies a file of a hub",
        "check HF_ENDPOINT: the server there is not a hub",
    ),
)
"""The library's exceptions for which a retry does not help, the narrower before the wider; `s` is the source."""


def _explained(errors: Any, error: BaseException, source: HubSource | HubFolder) -> FreeholdError | None:
    """Return Freehold's error for one of the library or its connection; None: it is an error of the disk, or unknown."""
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        return _explained(errors, error.__cause__, source) or Temporary(f"{source}: {error}")
    for name, message, hint in _PERMANENT:
        if isinstance(error, getattr(errors, name)):
            return Permanent(message.format(s=source), hint=hint)
    if isinstance(error, errors.HfHubHTTPError):
        return status_error(error.response)
    if isinstance(error, TRANSPORT_ERRORS):
        return transport_error(error, str(source))
    if isinstance(error, OSError) and error.errno is None:  # raised for a file of the wrong size
        return Temporary(f"{source}: {error}")
    if isinstance(error, JSONDecodeError):  # where a list of files was asked for
        return Permanent(f"{source}: the server is not a hub: {error}", hint="check HF_ENDPOINT")
    return None
