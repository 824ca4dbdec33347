"""YAML text as plain values, with the line and column of every key and value, and every mistake of form.

Only the plain part of YAML 1.2 is read: maps with text keys, lists, scalars, anchors, aliases and merge keys (`<<`).
Tags that make objects are refused, and so is anything that would unfold without bound. Nothing here knows what
freehold.yaml should contain. All limits are our own, some hundred times what a large file needs.
"""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

_OVERFLOW = "this unfolds to more than freehold.yaml may hold"
_INDENTATION = "check the indentation: keys of one map begin in the same column, and `-` with a space begins an entry of a list"
_SYNTAX = (
    ("mapping values are not allowed", "a `:` stands where no key can be",
     "check the indentation, or put a text that has `: ` in it in quotes"),
    ("found another document", "a second document begins here", "write one document: remove the line ---"),
    (r"undefined alias (.*)", "*{1} stands for nothing, since no &{1} is above it", "put a text that begins with * in quotes"),
    (r"found character '\\t'", "a tab stands where only spaces may", "indent with spaces"),
    (r"found character (.*) that cannot start", "a text cannot begin with {1}", "put the text in quotes"),
    (r"unknown escape character (.*)", "a backslash before {1} means nothing in double quotes",
     "write \\\\ for a backslash, or use single quotes"),
    ("quoted scalar.*unexpected end", "the text that begins in line {line} has no closing quote", "close it with the same quote"),
    ("flow (sequence|mapping).*expected ','", "the bracket in line {line} is not closed, or a comma is missing",
     "close it with ] or }}, and put a comma between entries"),
    ("flow node.*stream end", "the bracket in line {line} is not closed", "close it with ] or }}"),
    ("expected the node content, but found (.*)", "a value is missing before {1}", "write the value, or put {1} in quotes"),
    ("could not find expected ':'", "line {line} has a key without a `:`", "write KEY: VALUE, with a space after the colon"),
    ("expected <block end>.*'<scalar>'", "a text goes on after its closing quote", "write a quote inside of single quotes twice"),
    ("expected <block end>", "this line is not in step with the block that begins in line {line}", _INDENTATION),
)  # fmt: skip
"""What the parser says of a mistake, what it means, and what to do. Source: the messages of ruamel.yaml, each provoked by a
test; {1} is what was found and {line} where the unfinished thing begins. Any other message is shown as it is."""
MAX_VALUES = 20_000
"""Values that one file may unfold to, aliases counted each time they are used."""
MAX_DEPTH = 32
"""How deep values may nest; freehold.yaml itself needs five levels."""

Path = tuple[str | int, ...]
"""The way to a value: keys and list positions from the top, for example `("models", 0, "name")`."""

_TAG = "tag:yaml.org,2002:"  # YAML 1.2.2, chapter 10
_MERGE = _TAG + "merge"
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]{0,99}|0o[0-7]{1,99}|0x[0-9a-fA-F]{1,99}")


def dotted(path: Path) -> str:
    """Return a path as people write it: `models[0].name`; empty: `the file`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the file"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something was written: a line and column (1-based) of a named text, or a flag or variable (line 0)."""

    line: int
    column: int
    name: str

    def __str__(self) -> str:
        """Return `name:line:column`, or only the name."""
        return f"{self.name}:{self.line}:{self.column}" if self.line else self.name


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """A problem that still knows its place, so that problems can be put in the order of the file."""

    place: Place
    message: str
    hint: str = ""


@dataclass(slots=True, kw_only=True)
class Tree:
    """Plain values (dict, list, str, int, float, bool, None) with the places they came from."""

    name: str
    data: object = None
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def key_place(self, path: Path) -> Place:
        """Return the place of the key (or list entry) at `path`, or of the nearest thing around it."""
        return self._nearest(self.keys, path)

    def value_place(self, path: Path) -> Place:
        """Return the place of the value at `path`, or of the nearest thing around it."""
        return self._nearest(self.values, path)

    def at_key(self, path: Path, message: str, hint: str) -> Mistake:
        """Return a mistake at the key at `path`, whose name `message` continues."""
        return Mistake(self.key_place(path), dotted(path) + message, hint)

    def at_value(self, path: Path, message: str, hint: str) -> Mistake:
        """Return a mistake at the value at `path`, whose name `message` continues."""
        return Mistake(self.value_place(path), dotted(path) + message, hint)

    def _nearest(self, places: dict[Path, Place], path: Path) -> Place:
        for end in range(len(path), 0, -1):
            if path[:end] in places:
                return places[path[:end]]
        return Place(1, 1, self.name)


def read_tree(text: str, name: str) -> Tree:
    """Return what `text` says; `name` is the file's name in places. Never raises: mistakes are in the tree.

    After a mistake of syntax `data` is None; after others it is what could be read.
    """
    tree = Tree(name=name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # YAML 1.2 allows it: the last one counts
            node = YAML(typ="safe", pure=True).compose(text)
    except (
        YAMLError,
        RecursionError,
        ValueError,
    ) as exc:  # ValueError: a number in a directive or escape too large
        tree.mistakes.append(_syntax_mistake(exc, text, name))
        return tree
    if node is not None:
        tree.data = _Reader(tree).value(node, ())
    return tree


def text_place(text: str, offset: int, name: str) -> Place:
    """Return the place of the character at `offset` of `text`."""
    before = text[:offset]
    return Place(before.count("\n") + 1, offset - before.rfind("\n"), name)


def _syntax_mistake(exc: Exception, text: str, name: str) -> Mistake:
    if isinstance(exc, MarkedYAMLError):
        mark = exc.problem_mark or exc.context_mark
        place = Place(mark.line + 1, mark.column + 1, name) if mark else Place(1, 1, name)
        said = ", ".join(str(part) for part in (exc.context, exc.problem) if part)
        line = (exc.context_mark or mark).line + 1 if mark else 1
        for pattern, meaning, hint in _SYNTAX:
            if found := re.search(pattern, said):
                words = ("", *(each.strip("'") for each in found.groups()))
                said, what_to_do = (each.format(*words, line=line) for each in (meaning, hint))
                return Mistake(place, f"this is not YAML: {said}", what_to_do)
        return Mistake(place, f"this is not YAML: {said}")
    if isinstance(exc, ReaderError):
        place = text_place(text, exc.position, name)
        return Mistake(place, f"the character U+{exc.character:04X} is not allowed in YAML", "remove it")
    reason = "it nests too deep" if isinstance(exc, RecursionError) else str(exc)
    return Mistake(Place(1, 1, name), f"this is not YAML: {reason}")


_SCALARS = {"null", "bool", "int", "float", "str", "timestamp"}


def _scalar(kind: str, text: str) -> object:
    """Return the value of a scalar; a text that does not fit its kind stays text."""
    if kind == "null":
        return None
    if kind == "bool" and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if kind == "int" and _INTEGER.fullmatch(text):
        plain = text.replace("_", "")
        return int(plain, {"0o": 8, "0x": 16}.get(plain[:2], 10))
    if kind == "float":
        return _float(text)
    return text


def _float(text: str) -> float | str:
    try:
        return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan").lower())
    except ValueError:
        return text


@dataclass(slots=True)
class _Reader:
    """Turns nodes into plain values; counts them, so that aliases cannot unfold without end."""

    tree: Tree
    left: int = MAX_VALUES
    above: list[Node] = field(default_factory=list)

    def value(self, node: Node, path: Path) -> object:
        """Return the plain value of `node`; None after a mistake."""
        place = self._place(node)
        self.tree.values.setdefault(path, place)
        self.left -= 1
        if self.left <= 0 or len(self.above) >= MAX_DEPTH or any(node is upper for upper in self.above):
            self._overflow(place)
            return None
        self.above.append(node)
        value = self._container(node, path, str(node.tag).removeprefix(_TAG))
        self.above.pop()
        return value

    def _container(self, node: Node, path: Path, kind: str) -> object:
        if isinstance(node, MappingNode) and kind == "map":
            return self._map(node, path)
        if isinstance(node, SequenceNode) and kind == "seq":
            return [self._entry(entry, (*path, index)) for index, entry in enumerate(node.value)]
        if isinstance(node, ScalarNode) and kind in _SCALARS:
            return _scalar(kind, node.value)
        self._mistake(self._place(node), f"the tag {kind} is not read here", "remove it")
        return None

    def _entry(self, node: Node, path: Path) -> object:
        self.tree.keys[path] = self._place(node)
        return self.value(node, path)

    def _map(self, node: MappingNode, path: Path) -> dict[str, object]:
        result: dict[str, object] = {}
        for key_node, value_node, merged in self._pairs(node, 0):
            self._pair(key_node, value_node, path, result, merged=merged)
        return result

    def _pairs(self, node: MappingNode, depth: int) -> Iterator[tuple[Node, Node, bool]]:
        """Yield the map's own keys and values, then those that its merge keys bring, nearest first."""
        self.left -= 1
        merges = [(key, value) for key, value in node.value if key.tag == _MERGE]
        yield from ((key, value, depth > 0) for key, value in node.value if key.tag != _MERGE)
        for key, value in merges:
            for source in value.value if isinstance(value, SequenceNode) else [value]:
                if not isinstance(source, MappingNode):
                    self._mistake(self._place(key), "<< takes a map or a list of maps")
                elif self.left <= 0 or depth >= MAX_DEPTH:
                    self._overflow(self._place(key))
                else:
                    yield from self._pairs(source, depth + 1)

    def _pair(
        self, key_node: Node, value_node: Node, path: Path, result: dict[str, object], *, merged: bool
    ) -> None:
        place = self._place(key_node)
        key = key_node.value
        if not isinstance(key, str) or key_node.tag != _TAG + "str":
            self._mistake(place, "a key must be text", "put it in quotes" if isinstance(key, str) else "")
        elif key not in result:
            self.tree.keys[*path, key] = place
            result[key] = self.value(value_node, (*path, key))
            if value_node.tag == _TAG + "null":  # an empty value stands nowhere
                self.tree.values[*path, key] = place
        elif not merged:
            first = self.tree.keys[*path, key]
            self._mistake(
                place, f"key {key!r} stands here a second time", f"the first is in line {first.line}"
            )

    def _overflow(self, place: Place) -> None:
        if not any(mistake.message == _OVERFLOW for mistake in self.tree.mistakes):
            self._mistake(place, _OVERFLOW, "write it out without so many aliases")

    def _mistake(self, place: Place, message: str, hint: str = "") -> None:
        self.tree.mistakes.append(Mistake(place, message, hint))

    def _place(self, node: Node) -> Place:
        return Place(node.start_mark.line + 1, node.start_mark.column + 1, self.tree.name)
