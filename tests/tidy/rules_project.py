"""Rules on the project's files other than code: locks, documents, contracts, modules that nobody uses."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping

from tidy.source import Source, Violation

PURE = (
    *("freehold.engines", "freehold.*.decide", "freehold.*.diagnose", "freehold.*.state"),
    *("freehold.gateway.queue", "freehold.gateway.endpoints", "freehold.gateway.callers"),
    *("freehold.gateway.answers", "freehold.gateway.wire", "freehold.gateway.counters"),
)
"""What must be listed as pure in pyproject.toml; DESIGN section 2 and the pure parts of the floors so far."""
PURE_ROOMS = ("freehold.sizing", "freehold.cost.model", "freehold.bench.analysis", "freehold.ledger.records")
"""Rooms that are pure as a whole, from the day they exist."""
REGISTRIES = ("freehold/engines/", "freehold/health/checks/", "freehold/drills/", "freehold/cost/lines/")
"""Folders whose files are found by scanning: nobody imports them by name."""
ADDRESS = re.compile(r"https?://|--(?:extra-)?index-url|--find-links|--trusted-host|\bgit\+|(?<!@)\bwww\.")
PIN = re.compile(r"^([A-Za-z0-9_.\[\]-]+)==([^\s;\\]+)", re.MULTILINE)
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
MACHINE_PATHS = re.compile(
    "|".join(("/" + "work/", "/" + "root/", "/" + "tmp/[a-z]{1,3}/", "python" + "hosted"))
)
LEFT_OVER = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")) + r")\b")


def machine_paths(path: str, text: str) -> Iterator[Violation]:
    """No file names a path of the machine that it was written on, nor a package host."""
    yield from _lines_with(
        MACHINE_PATHS, path, text, rule="machine_paths", message="take it from the environment"
    )


def left_overs(path: str, text: str) -> Iterator[Violation]:
    """No note to do it later: do it, or file an issue."""
    yield from _lines_with(LEFT_OVER, path, text, rule="left_overs", message="do it, or file an issue")


def _lines_with(
    pattern: re.Pattern[str], path: str, text: str, *, rule: str, message: str
) -> Iterator[Violation]:
    for number, line in enumerate(text.splitlines(), start=1):
        found = pattern.search(line)
        if found:
            yield Violation(path=path, line=number, rule=rule, subject=found[0], message=message)


def lock_addresses(path: str, text: str) -> Iterator[Violation]:
    """A lock file has no address: where packages come from is the installer's business."""
    yield from _lines_with(ADDRESS, path, text, rule="lock_addresses", message="make lock writes none")


def lock_hashes(path: str, text: str) -> Iterator[Violation]:
    """Every pin of a lock has a hash."""
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text):
        pin = PIN.match(entry)
        if pin and "--hash=sha256:" not in entry:
            yield Violation(
                path=path, line=1, rule="lock_hashes", subject=pin[1], message="has no hash: make lock"
            )


def requirements_agree(pyproject: str, inputs: Mapping[str, str]) -> Iterator[Violation]:
    """`run.in` lists the dependencies of pyproject.toml (and what builds freehold), `EXTRA.in` those of each extra."""
    project = tomllib.loads(pyproject)
    wanted = {"run": [*project["project"]["dependencies"], *project["build-system"]["requires"], "wheel"]}
    wanted |= project["project"].get("optional-dependencies", {})
    for name, requirements in wanted.items():
        listed = {_plain(line) for line in inputs.get(name, "").splitlines()} - {""}
        for requirement in listed ^ {_plain(item) for item in requirements}:
            message = "pyproject.toml and this file disagree: make them the same, then make lock"
            yield Violation(
                path=f"requirements/{name}.in",
                line=1,
                rule="requirements_agree",
                subject=requirement,
                message=message,
            )


def _plain(requirement: str) -> str:
    wanted = requirement.split("#", maxsplit=1)[0].strip()
    return "" if wanted.startswith("-") else wanted.replace("'", '"').replace(" ", "")


def locks_agree(locks: Mapping[str, str]) -> Iterator[Violation]:
    """What is tested is what runs: every lock pins a package that the run lock pins at the same version."""
    run = dict(PIN.findall(locks["run"]))
    for name in ("dev", *sorted(set(locks) - {"run", "dev"})):
        pins = dict(PIN.findall(locks[name]))
        for package, version in run.items():
            if pins.get(package, version) != version or (name == "dev" and package not in pins):
                message = f"run.txt has {version}, this {pins.get(package, 'none')}: make lock"
                yield Violation(
                    path=f"requirements/{name}.txt",
                    line=1,
                    rule="locks_agree",
                    subject=package,
                    message=message,
                )


def decisions(names: Iterable[str], texts: Mapping[str, str]) -> Iterator[Violation]:
    """Decision records are `NNNN-words.md`, numbered without a gap, with title, date and status."""
    for expected, name in enumerate(sorted(names), start=1):
        path = f"docs/decisions/{name}"
        if not re.fullmatch(rf"{expected:04d}-[a-z0-9-]+\.md", name):
            yield Violation(
                path=path, line=1, rule="decisions", subject=name, message=f"expected {expected:04d}-words.md"
            )
        head = texts[name][:400]
        if not head.startswith(f"# {expected}. ") or not re.search(
            r"(?m)^Date: \d{4}-\d\d-\d\d\. Status: \w+", head
        ):
            message = f"open with `# {expected}. Title` and `Date: YYYY-MM-DD. Status: word.`"
            yield Violation(path=path, line=1, rule="decisions", subject=name, message=message)


def changelog(text: str) -> Iterator[Violation]:
    """CHANGELOG.md has the Keep-a-Changelog shape: Unreleased first, dated versions, the six section names."""

    def fault(line: int, subject: str, message: str) -> Violation:
        return Violation(path="CHANGELOG.md", line=line, rule="changelog", subject=subject, message=message)

    lines = list(enumerate(text.splitlines(), start=1))
    releases = [(number, line) for number, line in lines if line.startswith("## ")]
    if not text.startswith("# Changelog\n"):
        yield fault(1, "title", "open with `# Changelog`")
    if not releases or releases[0][1] != "## [Unreleased]":
        yield fault(1, "Unreleased", "the first release heading is `## [Unreleased]`")
    for number, line in releases[1:]:
        if not re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", line):
            yield fault(number, line, "write `## [1.2.3] - YYYY-MM-DD`")
    for number, line in lines:
        if line.startswith("### ") and line[4:] not in SECTIONS:
            yield fault(number, line, f"one of {', '.join(sorted(SECTIONS))}")


def architecture(text: str, rooms: Iterable[str]) -> Iterator[Violation]:
    """docs/ARCHITECTURE.md names each room that exists, and no other."""
    path = "docs/ARCHITECTURE.md"
    named = set(re.findall(r"\bfreehold/([a-z_]+)/", text))
    for room in sorted(named ^ set(rooms)):
        message = (
            "a room without a word in the document" if room not in named else "a room that does not exist"
        )
        yield Violation(path=path, line=1, rule="architecture", subject=f"freehold/{room}/", message=message)


def pure_list(pyproject: str, modules: Iterable[str]) -> Iterator[Violation]:
    """The contract on pure modules lists every name that DESIGN calls pure, and each pure room that exists."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    listed = {
        module
        for row in contracts
        if row["name"].startswith("Pure modules")
        for module in row["source_modules"]
    }
    wanted = {*PURE, *(room for room in PURE_ROOMS if room in set(modules))}
    for name in sorted(wanted - listed):
        message = "list it in the contract on pure modules"
        yield Violation(path="pyproject.toml", line=1, rule="pure_list", subject=name, message=message)


def dead_modules(package: list[Source], others: list[Source], pyproject: str) -> Iterator[Violation]:
    """Every module is imported, named as a program, or found by its folder; only `testing` may live for tests."""
    for source in package:
        users = [user for user in package if user is not source]
        if source.path.startswith("freehold/testing/"):
            users += others
        if not _is_found(source) and not _is_used(source, users) and f'"{source.module}:' not in pyproject:
            yield source.violation(
                "dead_modules", 1, subject=source.module, message="nobody imports or starts it"
            )


def _is_found(source: Source) -> bool:
    return source.path.endswith(("__init__.py", "__main__.py")) or source.path.startswith(REGISTRIES)


def _is_used(source: Source, users: list[Source]) -> bool:
    """Return whether somebody imports it, or names it in quotes: the whole name, or a neighbour its last part.

    A program in a folder `programs` is a neighbour of the files beside that folder.
    """
    room, _, last = source.module.rpartition(".")
    room = room.removesuffix(".programs")
    for user in users:
        if source.module in user.imported_modules or f'"{source.module}"' in user.text:
            return True
        if user.module.startswith(room) and (f'"{last}"' in user.text or f'"{last}.py"' in user.text):
            return True
    return False
