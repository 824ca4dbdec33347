"""`freehold completion SHELL`: the lines that make a shell complete commands, flags and names after Tab.

It writes into no file of the user's: the help says where the lines belong. The names come from `shell_values`.
"""

import click
from click.shell_completion import get_completion_class

from freehold.cli.terminal.output import say_json
from freehold.cli.terminal.place import json_option

VARIABLE = "_FREEHOLD_COMPLETE"
"""What the lines set to ask for completions. Source: click derives it from the program's name."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
@click.pass_context
def command(ctx: click.Context, *, shell: str, as_json: bool) -> None:
    """Print what makes SHELL complete Freehold's commands, flags, models, replicas and keys.

    In ~/.bashrc: eval "$(freehold completion bash)"

    In ~/.zshrc, after compinit: eval "$(freehold completion zsh)"

    For fish: freehold completion fish > ~/.config/fish/completions/freehold.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, shell
    lines = kind(ctx.find_root().command, {}, "freehold", VARIABLE).source()
    if as_json:
        say_json({"shell": shell, "script": lines})
    else:
        click.echo(lines)
