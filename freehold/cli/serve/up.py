"""`freehold up`: check everything first, then fetch weights, start engines and gateway, and serve.

In the foreground Ctrl-C drains and ends the stack; a second Ctrl-C ends it at once. With `-d` a child process runs the same
blueprint in the background (`cli/serve/background`), and this command returns when the stack is ready. Nothing is decided here.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from freehold.cli.serve.background import start_in_background
from freehold.cli.terminal.config import accepted
from freehold.cli.terminal.fetch_progress import showing
from freehold.cli.terminal.output import duration_text
from freehold.cli.terminal.place import StackPlace, json_option, stack_options
from freehold.cli.terminal.start_progress import StartProgress
from freehold.core.clock import monotonic_s, wall_s
from freehold.core.errors import Permanent
from freehold.fleet.control.state_dir import StateDir
from freehold.gateway.callers.keys import why_refused
from freehold.stack.blueprint import write_blueprint
from freehold.stack.config import Config
from freehold.stack.key_file import read_keys_of
from freehold.stack.resolve import Resolved, fetch, resolve, restore
from freehold.stack.run import claimed, run

_WAYS_OUT = """keys and prompts can be read on the network. Three ways out:
  1. gateway.tls: {{certificate: FILE, key: FILE}} in freehold.yaml (`freehold ca` can issue them)
  2. listen on 127.0.0.1 and put nginx or Caddy with TLS in front (examples/03-web-server)
  3. listen on 127.0.0.1 and use a tunnel: ssh -L {port}:127.0.0.1:{port} HOST"""


@click.command("up")
@stack_options
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    help="Where the gateway listens, instead of the file's gateway.listen.",
)
@click.option(
    "--detach", "-d", is_flag=True, help="Return when everything is ready and go on in the background."
)
@click.option("--from-blueprint", is_flag=True, hidden=True, help="Run what lies in the state folder.")
@json_option
def command(
    stack: StackPlace, *, listen: str | None, detach: bool, from_blueprint: bool, as_json: bool
) -> int:
    """Fetch the weights, start the engines and the gateway, and serve."""
    progress = StartProgress(started_s=monotonic_s(), as_json=as_json)
    path, state = stack.config_path, StateDir(stack.state_path)
    resolved = accepted(restore(state)) if from_blueprint else _resolved(path, state, listen, as_json=as_json)
    with _claimed(state, resolved.config):
        if not from_blueprint:
            with showing(quiet=as_json) as show:
                resolved = accepted(fetch(resolved, show))
        if not detach:
            try:
                run(resolved, state, progress)
            finally:
                progress.close()
            return 1 if progress.hopeless else 0
        write_blueprint(resolved.blueprint, state.path)
    return start_in_background(state, progress)


def _resolved(path: Path | None, state: StateDir, listen: str | None, *, as_json: bool) -> Resolved:
    """Return the blueprint of the file, and print what a person should know of it on stderr."""
    resolved = accepted(resolve(path, state, overrides={"gateway.listen": listen}))
    if path is None and not as_json:
        click.echo("No freehold.yaml here: running the built-in example (freehold init writes it).", err=True)
    if resolved.config.spec.gateway.auth == "keys":
        _check_keys(resolved.config)
    for note in resolved.blueprint.notes:
        click.echo(note, err=True)
    return resolved


def _check_keys(config: Config) -> None:
    """Print warnings about API keys before anything starts; raise Permanent if their file is damaged."""
    if not any(not why_refused(record, wall_s()) for record in read_keys_of(config)):
        click.echo("No API key is accepted yet. Next: freehold key create NAME", err=True)
    gateway = config.spec.gateway
    if not gateway.address.loopback and gateway.tls is None:
        click.echo(
            f"WARNING: {gateway.listen} is plain HTTP: {_WAYS_OUT.format(port=gateway.address.port)}",
            err=True,
        )


@contextlib.contextmanager
def _claimed(state: StateDir, config: Config) -> Iterator[None]:
    """Hold the state folder; raise Permanent that names the stack that holds it already."""
    with claimed(state, config.name) as other:
        if other is not None:
            age = f" for {duration_text(wall_s() - other.since_wall_s)}" if other.since_wall_s else ""
            raise Permanent(
                f"{other.config_path or 'a stack'} is already up{age} (pid {other.pid or 'unknown'})",
                hint="freehold status shows it, freehold down ends it; --state-dir runs another beside it",
            )
        yield
