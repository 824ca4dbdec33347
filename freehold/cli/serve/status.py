"""`freehold status`: how the running stack is. Exit code 0: it runs; 1: it does not."""

from pathlib import Path

import click

from freehold.cli.terminal.output import say_json
from freehold.cli.terminal.place import config_option, find_config, json_option, start_hint, state_dir_option
from freehold.cli.terminal.report import show_status
from freehold.core.errors import Permanent
from freehold.stack.folders import state_dir_for
from freehold.stack.status import running_status


@click.command("status")
@config_option
@state_dir_option
@json_option
def command(config_flag: Path | None, state_dir: Path | None, *, as_json: bool) -> None:
    """Show the gateway and every replica: state, uptime, tokens/s.

    A request failed where the stack could not answer it (HTTP 500 or above), or only in part. A client's mistake (4xx)
    is not a failure.
    """
    config_path = find_config(config_flag)
    state_path = state_dir_for(state_dir, config_path)
    status = running_status(state_path)
    if status is None:
        raise Permanent(
            f"no stack runs here ({state_path})", hint=start_hint("status", config_path, state_path)
        )
    if as_json:
        say_json(status)
    else:
        show_status(status)
