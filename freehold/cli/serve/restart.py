"""`freehold restart NAME`: replace a model's replicas one by one, or stop and start one replica.

For a model, each new replica is ready before an old one is stopped: that needs memory for one more, and no request waits. A
single replica, named by its id, is drained first; its model has one replica less meanwhile.
"""

import click

from freehold.cli.serve.reload import obeyed
from freehold.cli.terminal import shell_values
from freehold.cli.terminal.output import answer
from freehold.cli.terminal.place import StackPlace, json_option, stack_options, timeout_option


@click.command("restart")
@click.argument("name", shell_complete=shell_values.models_and_replicas)
@stack_options
@click.option("--no-wait", is_flag=True, help="Return before the new ones are ready.")
@timeout_option(600.0, "Longest wait.")
@json_option
def command(name: str, stack: StackPlace, *, no_wait: bool, timeout_s: float, as_json: bool) -> None:
    """Restart NAME: a model (its replicas one by one, without a gap) or one replica by its id."""
    request = {"op": "restart", "name": name, "wait": not no_wait}
    last: dict[str, object] = {}
    for line in obeyed(stack, request, timeout_s=timeout_s):
        last = line
        if "replicas" in line and not as_json:
            click.echo("  ".join(f"{each} {state}" for each, state in line["replicas"].items()), err=True)
    text = "Restarting." if no_wait else "Restarted."
    answer({"name": name, "replicas": last.get("replicas")}, text, as_json=as_json)
