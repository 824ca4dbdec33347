"""A source file as the tidy rules see it: path, text, syntax tree, comments, and what each name was imported as."""

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A broken rule. `key` names it without line numbers, so that an entry in the debt list survives other edits."""

    path: str
    line: int
    rule: str
    subject: str
    message: str

    @property
    def key(self) -> str:
        return f"{self.path} {self.rule} {self.subject}"

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.subject}: {self.message}"


@dataclass(frozen=True)
class Source:
    """One Python file; `path` is relative to the repository, with `/`."""

    path: str
    text: str

    @classmethod
    def read(cls, path: Path, root: Path = ROOT) -> "Source":
        return cls(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))

    @property
    def module(self) -> str:
        """Return the dotted name, a package's `__init__` being the package."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def comment_lines(self) -> set[int]:
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {token.start[0] for token in tokens if token.type == tokenize.COMMENT}

    @cached_property
    def imports(self) -> dict[str, str]:
        """Return local name → dotted name for every import anywhere in the file."""
        names: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    names[alias.asname or alias.name.split(".")[0]] = (
                        alias.name if alias.asname else alias.name.split(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return names

    @cached_property
    def imported_modules(self) -> set[str]:
        """Return every dotted name that an import statement mentions, with and without the imported name."""
        mentioned: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                mentioned |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                mentioned |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        return mentioned

    def functions(self) -> Iterator[Function]:
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node

    def dotted(self, node: ast.expr) -> str | None:
        """Return what a name or attribute chain refers to, through this file's imports; None when it is local."""
        if isinstance(node, ast.Name):
            return self.imports.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.dotted(node.value)
            return f"{owner}.{node.attr}" if owner else None
        return None

    def violation(self, rule: str, node: ast.AST | int, *, subject: str, message: str) -> Violation:
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return Violation(path=self.path, line=line, rule=rule, subject=subject, message=message)


def body_lines(function: Function) -> int:
    """Return the lines from the first statement after the docstring to the last; 0 for a body of only a docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0
