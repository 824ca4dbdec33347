"""`freehold status`: how the running stack is. Exit code 0: it runs; 1: it does not."""

import click

from freehold.cli.terminal.output import say_json
from freehold.cli.terminal.place import StackPlace, json_option, stack_options, start_hint
from freehold.cli.terminal.report import show_status
from freehold.core.errors import Permanent
from freehold.stack.status import running_status


@click.command("status")
@stack_options
@json_option
def command(stack: StackPlace, *, as_json: bool) -> None:
    """Show the gateway and every replica: state, uptime, tokens/s.

    A request failed where the stack could not answer it (HTTP 500 or above), or only in part. A client's mistake (4xx)
    is not a failure.
    """
    status = running_status(stack.state_path)
    if status is None:
        raise Permanent(f"no stack runs here ({stack.state_path})", hint=start_hint("status", stack))
    if as_json:
        say_json(status)
    else:
        show_status(status)
