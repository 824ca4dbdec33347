"""Benchmarks run by hand and seldom: what they take from Freehold must be there all the same."""

import ast
import importlib

from tidy.source import Source
from tidy.test_tidy import sources


def missing(source: Source) -> list[str]:
    """Return each name that a file imports from Freehold and that is not there."""
    wanted = (
        (node.module, alias.name)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("freehold")
        for alias in node.names
    )
    return [f"{source.path}: {module}.{name}" for module, name in wanted if not _is_there(str(module), name)]


def _is_there(module: str, name: str) -> bool:
    try:
        return hasattr(importlib.import_module(module), name) or bool(
            importlib.import_module(f"{module}.{name}")
        )
    except ModuleNotFoundError:
        return False


def test_what_benchmarks_import_is_there() -> None:
    assert [found for source in sources("benchmarks") for found in missing(source)] == []


def test_a_missing_name_is_found() -> None:
    text = "from freehold.core import clock\nfrom freehold.core.clock import wall_s, sundial\n"
    assert missing(Source("benchmarks/a.py", text)) == ["benchmarks/a.py: freehold.core.clock.sundial"]
