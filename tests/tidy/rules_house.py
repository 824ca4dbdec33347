"""Rules on the package as a whole: circles, folders, names that stand twice, inheritance. None of them looks into a body."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import combinations

from tidy.source import Source, Violation

FOLDER_MODULES_MAX = 20
WIDE_FOLDERS = ("freehold/health/checks", "freehold/health/collectors", "freehold/cost/lines")
"""Registries: one file more is one check, one collector, one cost line more."""
ENDINGS = re.compile(r"(ings?|ers?|ed|es|s)$")
PREFIX_MAX = 3
STEM_MIN = 3
GATEWAY = "freehold/gateway/"
INHERITANCE_MAX = 2


def circles(package: Sequence[Source]) -> Iterator[Violation]:
    """No files import each other in a circle, not even for a type."""
    imports = _imports(package)
    while imports:
        try:
            TopologicalSorter(imports).prepare()
        except CycleError as found:
            circle: list[str] = found.args[1]
            source = next(each for each in package if each.module == circle[0])
            message = f"{' <- '.join(circle)}: move what both need into a file below them"
            yield source.violation("circles", 1, subject=circle[0], message=message)
            imports = {name: used for name, used in imports.items() if name not in circle}
        else:
            return


def _imports(package: Sequence[Source]) -> dict[str, set[str]]:
    """Return module → modules that it imports; `from package import module` counts as the module alone."""
    modules = {source.module for source in package}
    graph: dict[str, set[str]] = {}
    for source in package:
        used: set[str] = set()
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import):
                used |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                used |= names & modules or {node.module}
        graph[source.module] = (used & modules) - {source.module}
    return graph


def full_folders(package: Sequence[Source]) -> Iterator[Violation]:
    """A folder holds at most 20 modules; the registries of checks, collectors and cost lines may hold more."""
    folders: dict[str, list[Source]] = defaultdict(list)
    for source in package:
        folder, _, name = source.path.rpartition("/")
        if name != "__init__.py":
            folders[folder].append(source)
    for folder, held in folders.items():
        if len(held) > FOLDER_MODULES_MAX and folder not in WIDE_FOLDERS:
            message = f"{len(held)} modules, at most {FOLDER_MODULES_MAX}: give it folders, with an order among them"
            yield held[0].violation("full_folders", 1, subject=folder, message=message)


def near_names(package: Sequence[Source]) -> Iterator[Violation]:
    """No two siblings differ only by a plural, by `-ing` or `-er`, or by a prefix of up to three letters."""
    siblings: dict[str, set[str]] = defaultdict(set)
    for source in package:
        parts = source.module.split(".")
        for depth in range(1, len(parts)):
            siblings[".".join(parts[:depth])].add(parts[depth])
    for folder, names in sorted(siblings.items()):
        for first, second in combinations(sorted(names), 2):
            if _near(first, second):
                message = "a reader takes one for the other: name what each holds"
                subject = f"{folder}: {first}, {second}"
                path = f"{folder.replace('.', '/')}/{first}"
                yield Violation(path=path, line=1, rule="near_names", subject=subject, message=message)


def _near(first: str, second: str) -> bool:
    shorter, longer = sorted((first.strip("_"), second.strip("_")), key=len)
    if longer.endswith(shorter) and len(shorter) > STEM_MIN:
        prefix = longer.removesuffix(shorter)
        return len(prefix) <= PREFIX_MAX and not prefix.endswith("_")
    return _stem(shorter) == _stem(longer)


def _stem(name: str) -> str:
    stem = ENDINGS.sub("", name)
    if len(stem) < STEM_MIN:
        return name
    doubled = len(stem) > STEM_MIN and stem != name and stem[-1] == stem[-2]
    return stem[:-1] if doubled else stem.removesuffix("e")


def deep_inheritance(package: Iterable[Source]) -> Iterator[Violation]:
    """In the gateway a class has at most one ancestor of the gateway, and no method that only subclasses have."""
    inside = [source for source in package if source.path.startswith(GATEWAY)]
    classes = {
        node.name: (source, node)
        for source in inside
        for node in source.tree.body
        if isinstance(node, ast.ClassDef)
    }
    bases = {name: _base_names(node) & classes.keys() for name, (_, node) in classes.items()}
    for name, (source, node) in classes.items():
        if _depth(name, bases) > INHERITANCE_MAX:
            message = f"more than {INHERITANCE_MAX} classes deep: let it have what it now is"
            yield source.violation("deep_inheritance", node, subject=name, message=message)
        if any(isinstance(part, ast.Name) and part.id == "NotImplementedError" for part in ast.walk(node)):
            message = "a hook for subclasses: pass what differs in"
            yield source.violation("deep_inheritance", node, subject=name, message=message)


def _base_names(node: ast.ClassDef) -> set[str]:
    return {part.id for base in node.bases for part in ast.walk(base) if isinstance(part, ast.Name)}


def _depth(name: str, bases: Mapping[str, set[str]]) -> int:
    return 1 + max((_depth(base, bases) for base in bases[name]), default=0)


ON_ALL = (circles, full_folders, near_names, deep_inheritance)
