"""The winner into freehold.yaml: its engine and options under its model, and nothing else touched.

The places of the values are found with ruamel.yaml and only they are written anew, since a round trip through it drops the
comments behind a key that goes. The result is read again and must say what was meant and no more. A file that changed since
the bench is not written. The old file is kept beside the new one.
"""

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, SequenceNode

from freehold.bench.results import Candidate, Scalar
from freehold.core.places import read_tree
from freehold.core.problems import Problem

BACKUP = ".before-bench"
"""What the old file's name gets added."""


def left_out(candidate: Candidate) -> str:
    """Return what of a candidate does not get into the file, in words: weights that `--weights` named; empty: nothing."""
    if not candidate.weights or candidate.weights_sha256:
        return ""
    return (
        f"it was measured with {candidate.weights}, which --weights named; the model's source stays as it is, and a stack "
        "serves that: name these weights as source and sha256 (freehold model hash)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What a file was and what it is to be."""

    path: Path
    before: str
    after: str

    @property
    def changed(self) -> bool:
        """Return whether there is anything to write."""
        return self.before != self.after

    def diff(self) -> str:
        """Return the difference as `diff -u` shows it."""
        lines = difflib.unified_diff(
            self.before.splitlines(keepends=True),
            self.after.splitlines(keepends=True),
            f"{self.path.name} (now)",
            f"{self.path.name} (with the winner)",
        )
        return "".join(lines)

    def write(self) -> Path:
        """Write the new file in one move and return where the old one is kept; raises OSError.

        Where the path is a symbolic link, it stays one: what it points at is written. Neither file can be read by more people than
        the old one, at no moment.
        """
        path = self.path.resolve(strict=True)
        seen = path.stat()
        backup = path.with_name(path.name + BACKUP)
        backup.unlink(missing_ok=True)
        _write_as(backup, self.before, seen)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            _write_as(fresh, self.after, seen)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
        return backup


_OWNER_ONLY = 0o600  # rw------- of chmod(2): until the file has the rights that it shall have


def _write_as(path: Path, text: str, like: os.stat_result) -> None:
    """Write a new file with the owner and rights of another, on the disk when this returns."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        file.write(text)
        if os.geteuid() == 0:  # nobody else may give a file away
            os.fchown(file.fileno(), like.st_uid, like.st_gid)
        os.fchmod(file.fileno(), like.st_mode & 0o7777)
        file.flush()
        os.fsync(file.fileno())


def file_sha256(path: Path) -> str:
    """Return the hash of a file's bytes; raises OSError."""
    return sha256(path.read_bytes()).hexdigest()


def prepared(path: Path, winner: Candidate, *, wanted_sha256: str) -> Applied | Problem:
    """Return the file with the winner in it, or why that cannot be; nothing is written."""
    try:
        data = path.read_bytes()
    except OSError as exc:
        return Problem(where=str(path), message=f"cannot be read: {exc.strerror or exc}")
    if sha256(data).hexdigest() != wanted_sha256:
        hint = "measure again, or write the winner's engine and engine_options by hand"
        return Problem(where=str(path), message="changed since it was benched", hint=hint)
    try:
        before = data.decode("utf-8")
    except UnicodeDecodeError:
        return Problem(
            where=str(path), message="is not UTF-8", hint="write engine and engine_options by hand"
        )
    before = before if before.endswith("\n") else f"{before}\n"
    after = with_engine(before, winner.model, engine=winner.engine, options=winner.options)
    wrong = _says_otherwise(before, after, winner)
    if wrong:
        return Problem(where=str(path), message=wrong, hint="write engine and engine_options by hand")
    return Applied(path=path, before=before, after=after)


def with_engine(text: str, model: str, *, engine: str, options: Mapping[str, Scalar]) -> str:
    """Return the text of a freehold.yaml in which the model has this engine and exactly these options.

    Only the places of those values are written; whoever calls reads the result again, for a text that is strangely laid out.
    """
    entry = _entry(text, model)
    edits: list[_Edit] = []
    if entry is not None:
        pairs = {key.value: (key, value) for key, value in entry.value}
        key, value = pairs["engine"]
        if value.value != engine:
            edits.append(_Edit(value.start_mark.index, value.end_mark.index, engine))
        if "engine_options" in pairs:
            edits += _changed_options(text, *pairs["engine_options"], options)
        elif options:
            edits.append(_new_options(text, entry, (key, value), options))
    for edit in sorted(edits, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


@dataclass(frozen=True, slots=True, order=True)
class _Edit:
    start: int
    end: int
    text: str


def _entry(text: str, model: str) -> Any:
    root = YAML(typ="safe", pure=True).compose(text)
    models = next((value for key, value in root.value if key.value == "models"), None)
    for entry in models.value if isinstance(models, SequenceNode) else ():
        if isinstance(entry, MappingNode) and any(
            key.value == "name" and value.value == model for key, value in entry.value
        ):
            return entry
    return None


def _changed_options(text: str, key: Any, node: Any, options: Mapping[str, Scalar]) -> list[_Edit]:
    if not isinstance(node, MappingNode):  # `engine_options:` with nothing behind it
        return [_Edit(key.end_mark.index + 1, key.end_mark.index + 1, f" {_flow(options)}")]
    if node.flow_style:
        return [_Edit(node.start_mark.index, node.end_mark.index, _flow(options))]
    edits, has = [], {}
    for name, value in node.value:
        has[name.value] = value
        if name.value not in options:
            edits.append(_Edit(_line_start(text, name), _line_end(text, value), ""))
        elif _scalar(options[name.value]) != text[value.start_mark.index : value.end_mark.index]:
            edits.append(_Edit(value.start_mark.index, value.end_mark.index, _scalar(options[name.value])))
    fresh = {name: value for name, value in options.items() if name not in has}
    indent = " " * node.value[0][0].start_mark.column
    last = _line_end(text, node.value[-1][1])
    edits += [_Edit(last, last, f"{indent}{name}: {_scalar(value)}\n") for name, value in fresh.items()]
    if not options:
        edits.append(_Edit(key.end_mark.index + 1, key.end_mark.index + 1, " {}"))
    return edits


def _new_options(text: str, entry: Any, engine: tuple[Any, Any], options: Mapping[str, Scalar]) -> _Edit:
    key, value = engine
    said = f"engine_options: {_flow(options)}"
    if entry.flow_style:
        return _Edit(value.end_mark.index, value.end_mark.index, f", {said}")
    at = _line_end(text, value)
    return _Edit(at, at, f"{' ' * key.start_mark.column}{said}\n")


def _line_start(text: str, node: Any) -> int:
    return text.rfind("\n", 0, node.start_mark.index) + 1


def _line_end(text: str, node: Any) -> int:
    """Return where the next line begins."""
    end = text.find("\n", node.end_mark.index)
    return len(text) if end < 0 else end + 1


def _flow(options: Mapping[str, Scalar]) -> str:
    return "{" + ", ".join(f"{name}: {_scalar(value)}" for name, value in options.items()) + "}"


def _scalar(value: Scalar) -> str:
    """Return a value as YAML: a JSON scalar is one."""
    return json.dumps(value, ensure_ascii=False)


def _says_otherwise(before: str, after: str, winner: Candidate) -> str:
    """Return what the new text says besides what was meant; empty: nothing."""
    was, now = read_tree(before, "before"), read_tree(after, "after")
    if now.mistakes or not isinstance(was.data, dict):
        return f"would not be read any more: {now.mistakes[0].message}" if now.mistakes else "is no map"
    for model in was.data["models"]:
        if model.get("name") == winner.model:
            model |= {"engine": winner.engine, "engine_options": dict(winner.options)}
    for tree in (was.data, now.data):
        for model in tree["models"] if isinstance(tree, dict) else ():
            if not model.get("engine_options"):
                model.pop("engine_options", None)  # none, or an empty map: the same
    return "" if was.data == now.data else "would change in more than the engine and its options"
