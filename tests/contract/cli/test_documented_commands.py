"""Every `freehold …` line of the docs names a command, subcommand and options that exist. It runs none of them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from freehold.cli.main import cli as program

ROOT = Path(__file__).parents[3]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/*.md")),
    *ROOT.glob("examples/*/README.md"),
]
LINES = re.compile(r"`(freehold [^`]+)`|^(?:\$ )?(freehold (?:.+\\\n)*.+)$", re.MULTILINE)
LINES_LEAST = 150
"""So many the pages have at least: a pattern that finds none would pass too."""


def documented(page: Path) -> Iterator[str]:
    for inline, block in LINES.findall(page.read_text(encoding="utf-8")):
        line = (inline or block).replace("\\\n", " ").replace("\\|", "|")
        line = re.split(r"\s#\s|  +| \| (?!\w+ \|)", line)[0]
        if "…" not in line.split(" ")[1]:
            yield line


def wrong(line: str) -> str | None:
    """Return what of a line does not exist, or None."""
    words = shlex.split(line.replace("`", ""), posix=False)[1:]
    command: click.Command = program
    with click.Context(program) as context:
        while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
            found = command.get_command(context, words[0])
            if found is None:
                return words[0]
            command, words = found, words[1:]
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    known |= {"--help", "-h", "--version", "-V"}
    given = {word.split("=")[0].rstrip(",.;:)") for word in words if re.match(r"--?[a-z]", word)}
    return ", ".join(sorted(given - known)) or None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_documented_commands_exist(page: Path) -> None:
    found = [f"{line}: {what}" for line in documented(page) if (what := wrong(line))]
    assert not found, f"{page.relative_to(ROOT)} documents what does not exist:\n" + "\n".join(found)


def commands_below(command: click.Command, way: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command."""
    if way:
        yield way
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands_below(below, (*way, name))


def test_the_page_of_commands_has_each_command_and_no_option_that_is_not() -> None:
    """A row begins with `freehold COMMAND …`; more commands and options follow in code of their own."""
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    missing = set(commands_below(program))
    for cell in re.findall(r"^\| (`freehold .+?) \| ", page, re.MULTILINE):
        first, *more = re.findall(r"`([^`]+)`", cell)
        way = tuple(word for word in first.split()[1:] if re.fullmatch(r"[a-z][a-z-]*", word))
        missing -= {way[:1], way}
        for code in more:
            if not code.startswith("-"):
                way = (*way[:-1], code.split()[0])
                missing.discard(way)
            assert wrong(" ".join(("freehold", *way, code))) is None, cell
    assert not missing


def test_lines_are_found_and_mistakes_are_seen() -> None:
    assert sum(len(list(documented(page))) for page in PAGES) >= LINES_LEAST
    assert wrong("freehold plan --html page.html") is None
    assert wrong("freehold model pull") is None
    assert wrong("freehold plann") == "plann"
    assert wrong("freehold health diagnos") == "diagnos"
    assert wrong("freehold plan --htm page.html") == "--htm"
