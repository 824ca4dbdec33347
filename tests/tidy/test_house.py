"""The counted bars of the house that only move one way: lines, names that stand twice, one word that hides the verb."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable

import pytest

from tidy.source import ROOT, Source
from tidy.test_tidy import sources

PRODUCT_LINES_MAX = 81_475
"""Lower it with every clean-up. A change that needs more says in its commit why not less."""
DATA_LINES_MAX = 7_500
"""Tables and texts beside the code (YAML, TOML, templates) are kept by hand too: what moves there is not gone."""
TESTS_TO_CODE_MIN = 0.8
REPEATED_CLASSES_MAX = 10
TOLD_LINES_MAX = 20


def lines_of(top: str) -> int:
    return sum(source.text.count("\n") for source in sources(top))


def repeated_classes(package: Iterable[Source]) -> dict[str, list[str]]:
    """Return each class name that stands in more than one file, with the files."""
    files: dict[str, list[str]] = defaultdict(list)
    for source in package:
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef):
                files[node.name].append(source.path)
    return {name: paths for name, paths in sorted(files.items()) if len(paths) > 1}


def test_product_and_test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    product, tests = lines_of("freehold"), lines_of("tests")
    with capsys.disabled():
        print(f"\n  {product} lines of product, {tests} of tests: {tests / product:.2f}")
    assert product <= PRODUCT_LINES_MAX, f"{product} lines: which file does this already, or which library?"
    assert tests >= TESTS_TO_CODE_MIN * product


def test_data_lines() -> None:
    kept = [path for kind in ("yaml", "toml", "j2") for path in (ROOT / "freehold").rglob(f"*.{kind}")]
    lines = sum(path.read_text().count("\n") for path in kept)
    assert lines <= DATA_LINES_MAX, f"{lines} lines of data kept by hand"


def test_a_class_name_stands_for_one_thing() -> None:
    repeated = repeated_classes(sources("freehold"))
    rows = [f"{name}: {', '.join(paths)}" for name, paths in repeated.items()]
    assert len(repeated) <= REPEATED_CLASSES_MAX, "\n" + "\n".join(rows)


def test_the_field_has_better_verbs_than_to_tell() -> None:
    found = [
        f"{source.path}:{number}: {line.strip()}"
        for source in sources("freehold")
        for number, line in enumerate(source.text.splitlines(), start=1)
        if re.search(r"\btold\b", line)
    ]
    assert len(found) <= TOLD_LINES_MAX, "report, return, reject, log, show:\n" + "\n".join(found)


def test_repeated_classes_are_found() -> None:
    files = {"freehold/a.py": "class X: ...", "freehold/b.py": "class X: ...\nclass Y: ..."}
    found = repeated_classes(Source(path, text) for path, text in files.items())
    assert found == {"X": list(files)}
