"""The rules of the house (DESIGN section 5) on every file that is there. Each rule is itself tested in test_rules."""

import inspect
import statistics
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tidy import rules_calls, rules_house, rules_project, rules_shape
from tidy.debt import DEBT, DEBT_MOST
from tidy.source import ROOT, Source, Violation, body_lines

BODY_MEDIAN_MOST = 6
BODY_P90_MOST = 25


@cache
def tracked() -> tuple[Path, ...]:
    """Return the files of the project: what git tracks or would track, or all files outside a checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.splitlines()]
    else:
        hidden = (".venv", ".git", "__pycache__", "egg-info", "_cache")
        paths = [path for path in ROOT.rglob("*") if not any(word in path.as_posix() for word in hidden)]
    return tuple(path for path in paths if path.is_file())


@cache
def sources(top: str) -> tuple[Source, ...]:
    folder = ROOT / top
    return tuple(
        Source.read(path)
        for path in sorted(tracked())
        if path.suffix == ".py" and path.is_relative_to(folder)
    )


def text_of(name: str) -> str:
    path = ROOT / name
    assert path.exists(), f"{name} is missing"
    return path.read_text(encoding="utf-8")


def texts_of(pattern: str) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob(pattern))}


def in_code() -> Iterator[Violation]:
    for source in sources("freehold"):
        for rule in (*rules_shape.ON_PACKAGE, *rules_calls.ON_PACKAGE):
            yield from rule(source)
    for top in ("tests", "benchmarks"):
        for source in sources(top):
            for rule in (*rules_shape.ON_TESTS, *rules_calls.ON_TESTS):
                yield from () if top == "benchmarks" and rule is rules_calls.banned_in_tests else rule(source)


def in_texts() -> Iterator[Violation]:
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        yield from rules_project.machine_paths(name, text)
        yield from rules_project.left_overs(name, text)


def in_locks() -> Iterator[Violation]:
    inputs, locks = texts_of("requirements/*.in"), texts_of("requirements/*.txt")
    yield from rules_project.requirements_agree(text_of("pyproject.toml"), inputs)
    yield from rules_project.locks_agree(locks)
    for name, text in locks.items():
        yield from rules_project.lock_addresses(f"requirements/{name}.txt", text)
        yield from rules_project.lock_hashes(f"requirements/{name}.txt", text)


def in_modules() -> Iterator[Violation]:
    package, others = list(sources("freehold")), [*sources("tests"), *sources("benchmarks")]
    yield from rules_project.dead_modules(package, others, text_of("pyproject.toml"))
    for rule in rules_house.ON_ALL:
        yield from rule(package)
    yield from rules_project.pure_list(text_of("pyproject.toml"), {source.module for source in package})


def rooms() -> set[str]:
    parts = (source.path.split("/") for source in sources("freehold"))
    return {path[1] for path in parts if len(path) > 2}


def in_documents() -> Iterator[Violation]:
    records = {path.name: path.read_text() for path in (ROOT / "docs/decisions").glob("*")}
    yield from rules_project.decisions(records, records)
    yield from rules_project.changelog(text_of("CHANGELOG.md"))
    yield from rules_project.architecture(text_of("docs/ARCHITECTURE.md"), rooms())


def rules() -> dict[str, str]:
    """Return each rule's name and the first line of its docstring."""
    modules = (rules_shape, rules_calls, rules_house, rules_project)
    found = [rule for module in modules for rule in vars(module).values() if inspect.isfunction(rule)]
    own = [
        rule
        for rule in found
        if rule.__module__.startswith("tidy.rules_") and not rule.__name__.startswith("_")
    ]
    return {rule.__name__: (rule.__doc__ or "").splitlines()[0] for rule in own}


def test_contributing_lists_every_rule_in_its_own_words() -> None:
    rows = {f"| `{name}` | {words} |" for name, words in rules().items()}
    listed = {line for line in text_of("CONTRIBUTING.md").splitlines() if line.startswith("| `")}
    assert listed == rows, "the table of CONTRIBUTING.md is the rules' first lines:\n" + "\n".join(
        sorted(rows)
    )


@pytest.mark.parametrize("check", [in_code, in_texts, in_locks, in_modules, in_documents])
def test_no_rule_is_broken_beyond_the_known_debt(check: object) -> None:
    new = [str(violation) for violation in check() if violation.key not in DEBT]
    assert not new, "\n" + "\n".join(new)


def test_the_debt_only_shrinks() -> None:
    checks = (in_code, in_texts, in_locks, in_modules, in_documents)
    present = {violation.key for check in checks for violation in check()} if DEBT else set()
    assert not [key for key in DEBT if key not in present], (
        "these entries are paid: take them out of tests/tidy/debt.py"
    )
    assert len(DEBT) <= DEBT_MOST, "the debt list may only shrink: keep the rule instead"


def test_functions_are_short_on_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    lines = sorted(body_lines(function) for source in sources("freehold") for function in source.functions())
    median, p90 = statistics.median(lines), lines[len(lines) * 9 // 10]
    with capsys.disabled():
        print(f"\n  {len(lines)} functions: body median {median:g}, p90 {p90}, longest {lines[-1]} lines")
    assert median <= BODY_MEDIAN_MOST
    assert p90 <= BODY_P90_MOST
