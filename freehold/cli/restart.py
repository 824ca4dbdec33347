"""`freehold restart NAME`: replace a model's replicas one by one, or stop and start one replica.

For a model, each new replica is ready before an old one is stopped: that needs memory for one more, and no request waits. A
single replica, named by its id, is drained first; its model has one replica less meanwhile.
"""

from pathlib import Path

import click

from freehold.cli import shell_values
from freehold.cli.output import say_json
from freehold.cli.place import config_option, find_config, json_option, state_dir_option, timeout_option
from freehold.cli.reload import obeyed
from freehold.stack.folders import state_dir_for


@click.command("restart")
@click.argument("name", shell_complete=shell_values.models_and_replicas)
@config_option
@state_dir_option
@click.option("--no-wait", is_flag=True, help="Return before the new ones are ready.")
@timeout_option(600.0, "Longest wait.")
@json_option
def command(
    name: str,
    config_flag: Path | None,
    state_dir: Path | None,
    *,
    no_wait: bool,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Restart NAME: a model (its replicas one by one, without a gap) or one replica by its id."""
    config_path = find_config(config_flag)
    state_path = state_dir_for(state_dir, config_path)
    request = {"op": "restart", "name": name, "wait": not no_wait}
    last: dict[str, object] = {}
    for line in obeyed(state_path, request, timeout_s=timeout_s, config_path=config_path):
        last = line
        if "replicas" in line and not as_json:
            click.echo("  ".join(f"{each} {state}" for each, state in line["replicas"].items()), err=True)
    if as_json:
        say_json({"name": name, "replicas": last.get("replicas")})
    else:
        click.echo("Restarting." if no_wait else "Restarted.")
