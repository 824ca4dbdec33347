"""docs/roles.md names the role of each command, of each request to the controller and of each path of the gateway itself."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from freehold.cli.main import cli as program
from freehold.cli.serve.logs import _OWN
from freehold.fleet.control.roles import LEAST, Role
from freehold.gateway.server.builtin_routes import _ROUTES
from freehold.spec.shapes import LOG_NAMES
from freehold.stack.controller import Controller

ROOT = Path(__file__).parents[3]
COMMAND_OF = {"stop": "down", "set_healthy": "health set-healthy"}
"""Commands that are called otherwise than their request."""


def rows(title: str) -> dict[str, set[str]]:
    """Return the rows of the table below a title: from its first cell to what its second names in backticks."""
    text = (ROOT / "docs" / "roles.md").read_text(encoding="utf-8")
    body = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| ([^|]+) \| ([^|]*)", body, re.MULTILINE)
    return {needs: set(re.findall(r"`([^`]+)`", named)) for needs, named in found if "`" in named}


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield " ".join(words)
        return
    if words and command.invoke_without_command:
        yield " ".join(words)
    with click.Context(command) as context:
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*words, name))


def test_each_command_is_in_the_table() -> None:
    named = [command for each in rows("What each command needs").values() for command in each]
    assert sorted(named) == sorted(commands(program))


def test_each_request_of_the_controller_has_a_role() -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(Controller._answer)))
    answered = {ast.literal_eval(node.value) for node in ast.walk(tree) if isinstance(node, ast.MatchValue)}
    assert answered == LEAST.keys()


def test_each_request_that_a_command_sends_has_the_role_of_the_table() -> None:
    told = rows("What each command needs")
    for operation, role in LEAST.items():
        assert (
            COMMAND_OF.get(operation, operation)
            in told[next(needs for needs in told if needs.startswith(str(role)))]
        )
    assert set(LEAST.values()) == {Role.VIEWER, Role.OPERATOR, Role.ADMIN}
    sent = set()
    for path in [*ROOT.glob("freehold/cli/**/*.py"), *ROOT.glob("freehold/stack/*.py")]:
        sent |= set(re.findall(r'"op": "(\w+)"', path.read_text(encoding="utf-8")))
    assert sent == LEAST.keys()


def test_each_path_of_the_gateway_itself_is_in_the_table() -> None:
    named = {path for each in rows("What each path of the gateway needs").values() for path in each}
    assert named == _ROUTES.keys() | {"/v1/models/{id}"}


def test_no_model_has_the_name_of_a_log_that_is_read_as_freeholds_own() -> None:
    assert _OWN == LOG_NAMES
