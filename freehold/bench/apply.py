"""The winner into freehold.yaml: its engine and options, and other weights if it had some, under its model; nothing else is touched.

The places of the values are found with ruamel.yaml and only they are written anew, since a round trip through it drops the
comments behind a key that goes. The result is read again and must say what was meant and no more. A file that changed since
the bench is not written. The old file is kept beside the new one.
"""

import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, SequenceNode

from freehold.bench.analysis.results import Candidate, Scalar
from freehold.core.places import read_tree
from freehold.core.problems import Problem

BACKUP = ".before-bench"
"""What the old file's name gets added."""


def left_out(candidate: Candidate) -> str:
    """Return what of a candidate does not get into the file, in words: weights whose hash is not known; empty: nothing."""
    if not candidate.weights or candidate.weights_sha256:
        return ""
    return (
        f"it was measured with {candidate.weights}, which --weights named and whose hash is not known (a folder with links has none); the "
        "model's source stays as it is, and a stack serves that: name weights with a hash (freehold model hash)"
    )


def unmeasured(text: str, winner: Candidate) -> list[str]:
    """Return, in words, what the winner's model has in this freehold.yaml that was otherwise while it was measured."""
    model = _models(text).get(winner.model, {})
    named, gpus = model.get("adapters"), model.get("gpus")
    said = []
    if isinstance(named, list) and named:
        names = ", ".join(str(each.get("name")) for each in named if isinstance(each, dict))
        said.append(
            f"{winner.model} was measured without its adapters ({names}), which cost memory and time; whether {winner.engine} loads them "
            "as they are, freehold reload shows"
        )
    if type(gpus) is int and winner.gpus is not None and len(winner.gpus) != gpus:
        said.append(f"gpus: {gpus} stays for each replica, and it was measured with {len(winner.gpus)}")
    return said


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
        if os.geteuid() == 0:  # only root may give a file away
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
    values = {"engine": winner.engine, **_weights(before, winner, path)}
    after = with_values(before, winner.model, values=values, options=winner.options)
    wrong = _says_otherwise(before, after, winner, values)
    if wrong:
        return Problem(
            where=str(path), message=wrong, hint=f"write {', '.join([*values, 'engine_options'])} by hand"
        )
    return Applied(path=path, before=before, after=after)


def _weights(text: str, winner: Candidate, path: Path) -> dict[str, str]:
    """Return the source and hash that the winner's weights need; nothing where the model's own source brings them.

    A source that was relative to freehold.yaml stays so where the new weights lie beside it, so that both can move together.
    """
    if not winner.weights_source:
        return {}
    found, source = _models(text).get(winner.model, {}).get("source"), winner.weights_source
    beside = f"file://{path.resolve().parent}/"
    relative = isinstance(found, str) and found.startswith("file://") and found[7:8] not in {"/", "~"}
    if relative and source.startswith(beside) and source != beside:
        source = f"file://{source.removeprefix(beside)}"
    return {"source": source, "sha256": winner.weights_sha256}


def _models(text: str) -> dict[str, dict[str, Any]]:
    tree = read_tree(text, "freehold.yaml").data
    return {each["name"]: each for each in tree["models"]} if isinstance(tree, dict) else {}


def with_values(text: str, model: str, *, values: Mapping[str, str], options: Mapping[str, Scalar]) -> str:
    """Return the text of a freehold.yaml in which the model has these values (engine first) and exactly these options.

    Only the places of those values are written; whoever calls reads the result again, for a text that is strangely laid out.
    """
    entry = _entry(text, model)
    edits: list[_Edit] = []
    if entry is not None:
        pairs = {key.value: (key, value) for key, value in entry.value}
        for name, wanted in values.items():
            if name not in pairs:
                edits.append(_new_line(text, entry, pairs["engine"], f"{name}: {_plain(wanted)}"))
            elif pairs[name][1].value != wanted:
                place = pairs[name][1]
                edits.append(_Edit(place.start_mark.index, place.end_mark.index, _plain(wanted)))
        if "engine_options" in pairs:
            edits += _changed_options(text, *pairs["engine_options"], options)
        elif options:
            edits.append(_new_line(text, entry, pairs["engine"], f"engine_options: {_flow(options)}"))
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
            edits.append(_Edit(text.rfind("\n", 0, name.start_mark.index) + 1, _line_end(text, value), ""))
        elif _scalar(options[name.value]) != text[value.start_mark.index : value.end_mark.index]:
            edits.append(_Edit(value.start_mark.index, value.end_mark.index, _scalar(options[name.value])))
    fresh = {name: value for name, value in options.items() if name not in has}
    indent = " " * node.value[0][0].start_mark.column
    last = _line_end(text, node.value[-1][1])
    edits += [_Edit(last, last, f"{indent}{name}: {_scalar(value)}\n") for name, value in fresh.items()]
    if not options:
        edits.append(_Edit(key.end_mark.index + 1, key.end_mark.index + 1, " {}"))
    return edits


def _new_line(text: str, entry: Any, engine: tuple[Any, Any], said: str) -> _Edit:
    """Return a key that the model did not have, behind its engine."""
    key, value = engine
    if entry.flow_style:
        return _Edit(value.end_mark.index, value.end_mark.index, f", {said}")
    at = _line_end(text, value)
    return _Edit(at, at, f"{' ' * key.start_mark.column}{said}\n")


def _line_end(text: str, node: Any) -> int:
    """Return where the next line begins."""
    end = text.find("\n", node.end_mark.index)
    return len(text) if end < 0 else end + 1


def _flow(options: Mapping[str, Scalar]) -> str:
    return "{" + ", ".join(f"{name}: {_scalar(value)}" for name, value in options.items()) + "}"


def _scalar(value: Scalar) -> str:
    """Return a value as YAML: a JSON scalar is one."""
    return json.dumps(value, ensure_ascii=False)


_BARE = re.compile(r"[a-z][a-z0-9-]*(?:://[\w./=@+~-]+)?", re.ASCII)
"""Names of engines and usual sources, which YAML takes as they are; a hash of digits alone it would take for a number."""


def _plain(text: str) -> str:
    return text if _BARE.fullmatch(text) and not _SHA256.fullmatch(text) else _scalar(text)


_SHA256 = re.compile(r"[0-9a-f]{64}")


def _says_otherwise(before: str, after: str, winner: Candidate, values: Mapping[str, str]) -> str:
    """Return what the new text says besides what was meant; empty: nothing."""
    was, now = read_tree(before, "before"), read_tree(after, "after")
    if now.mistakes or not isinstance(was.data, dict):
        return f"would not be read any more: {now.mistakes[0].message}" if now.mistakes else "is not a map"
    for model in was.data["models"]:
        if model.get("name") == winner.model:
            model |= {**values, "engine_options": dict(winner.options)}
    for tree in (was.data, now.data):
        for model in tree["models"] if isinstance(tree, dict) else ():
            if not model.get("engine_options"):
                model.pop("engine_options", None)  # none, or an empty map: the same
    return "" if was.data == now.data else "would change in more than what the winner is"
