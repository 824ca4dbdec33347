"""`freehold help`, `version`, and the commands that other programs have."""

import json
import shutil
import subprocess

import click
import pytest

from freehold import __version__
from freehold.cli.help import manual
from freehold.cli.main import COMMANDS, cli, main


@pytest.mark.parametrize("arguments", [["-V"], ["--version"], ["version"]])
def test_the_version_is_said_whichever_way_it_is_asked(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"freehold {__version__}\n"


def test_help_of_a_command_is_what_its_flag_prints(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["status"], ["key", "create"]):
        assert main([*words, "--help"]) == 0
        by_flag = capsys.readouterr().out
        assert main(["help", *words]) == 0
        assert capsys.readouterr().out == by_flag
    assert main(["help", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["help"].startswith("Usage: freehold status")


def test_help_of_what_is_not_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "statsu"]) == 2
    assert "did you mean 'status'?" in capsys.readouterr().err
    assert main(["help", "status", "now"]) == 2
    assert "freehold status has no commands" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "right"),
    [
        ("stop", "freehold down"),
        ("start", "freehold up -d"),
        ("serve", "freehold up"),
        ("ps", "freehold status"),
    ],
)
def test_a_command_of_other_programs_names_ours(
    word: str, right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word]) == 2
    assert right in capsys.readouterr().err


@pytest.fixture(scope="module")
def page() -> str:
    """Make the page, which imports every command."""
    return "\n".join(manual(click.Context(cli, info_name="freehold")))


def test_the_manual_page_has_every_command_and_flag(page: str) -> None:
    headings = {line.removeprefix(".SH \\&") for line in page.splitlines() if line.startswith(".SH ")}
    assert {f"FREEHOLD {name.upper()}" for name in COMMANDS} <= headings
    assert "FREEHOLD KEY CREATE" in headings
    assert ".B \\&\\-\\-state\\-dir DIRECTORY\n" in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_the_manual_page_is_roff_without_a_warning(page: str) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z"], input=page, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
