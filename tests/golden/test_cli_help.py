"""The help of every command, word for word: what people read is changed on purpose or not at all."""

from collections.abc import Callable, Iterator

import click
from click.testing import CliRunner

from freehold.cli.main import COMMANDS, cli


def every_command() -> Iterator[tuple[str, ...]]:
    """Yield the way to each command: (), ("up",), ("model",), ("model", "pull")…"""
    yield ()
    context = click.Context(cli)
    for name in COMMANDS:
        yield (name,)
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((name, below) for below in sorted(command.commands))


def help_text(way: tuple[str, ...], *, columns: int) -> str:
    shown = CliRunner().invoke(cli, [*way, "--help"], prog_name="freehold", terminal_width=columns)
    assert shown.exit_code == 0, shown.output
    return shown.output


def test_help(golden: Callable[[str, str], None]) -> None:
    texts = [
        f"$ freehold {' '.join((*way, '--help'))}\n{help_text(way, columns=100)}" for way in every_command()
    ]
    assert not any("\\" in text for text in texts)
    golden("cli_help.txt", "\n".join(texts))


def test_help_in_a_narrow_terminal_is_whole() -> None:
    for way in every_command():
        narrow, wide = help_text(way, columns=40), help_text(way, columns=100)
        assert "".join(narrow.split()) == "".join(wide.split()), way
        assert max(map(len, narrow.splitlines())) <= 50  # click makes no column narrower than that allows


def test_every_command_answers_in_json_too() -> None:
    for way in every_command():
        text = help_text(way, columns=100)
        is_group = "Commands:" in text
        assert is_group or "--json" in text, way


def test_the_list_says_what_each_command_says_of_itself() -> None:
    context = click.Context(cli)
    for name, lazy in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert lazy.summary.endswith(".")
