"""`freehold reload`: the running stack reads freehold.yaml again and applies it; no stream is cut.

The controller does it all, with the environment and the flags that it was started with; this asks and shows. SIGHUP to
a controller without a terminal does the same, without anybody to show it to. Exit code 2: the file is wrong, or asks
for what cannot change while the stack runs; then nothing was done. 1: something that was started did not get ready.
"""

from collections.abc import Iterator
from typing import Any

import click

from freehold.cli.terminal.output import UserMistakes, say_json, show_lines
from freehold.cli.terminal.place import StackPlace, json_option, stack_options, start_hint, timeout_option
from freehold.core.clock import monotonic_s
from freehold.core.errors import Permanent, Temporary
from freehold.core.problems import Problem
from freehold.fleet.control.client import NotRunning, ask


@click.command("reload")
@stack_options
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--no-wait", is_flag=True, help="Return before replicas are started or drained.")
@timeout_option(600.0, "Longest wait for replicas.")
@json_option
def command(stack: StackPlace, *, dry_run: bool, no_wait: bool, timeout_s: float, as_json: bool) -> None:
    """Apply a changed freehold.yaml: settings at once, replicas one by one, no stream cut."""
    request = {"op": "reload", "dry_run": dry_run, "wait": not no_wait}
    applied: dict[str, Any] = {}
    for line in obeyed(stack, request, timeout_s=timeout_s):
        if "changes" in line:
            applied = line
        if as_json:
            continue
        if "changes" in line:
            show_lines(change["text"] for change in line["changes"])
        elif "replicas" in line and applied.get("changes"):
            click.echo("  ".join(f"{name} {state}" for name, state in line["replicas"].items()), err=True)
    if as_json:
        say_json({name: applied.get(name) for name in ("changes", "dry_run", "generation")})
    elif not applied.get("changes") or dry_run:
        click.echo("Nothing was changed." if dry_run else "Nothing has changed.")
    else:
        click.echo("Reloading continues." if no_wait else "Reloaded.")


def obeyed(stack: StackPlace, request: dict[str, Any], *, timeout_s: float) -> Iterator[dict[str, Any]]:
    """Yield the controller's lines; raise what it found wrong, what failed, and that it took too long."""
    deadline_s = monotonic_s() + timeout_s
    try:
        for line in ask(stack.state_path, request):
            if "problems" in line:
                raise UserMistakes([Problem(**problem) for problem in line["problems"]])
            if "error" in line:
                raise Permanent(line["error"], hint=line.get("hint", ""))
            yield line
            if monotonic_s() > deadline_s:
                raise Temporary(f"not done within {timeout_s:g} s", hint="it continues; see freehold status")
    except NotRunning as exc:
        hint = start_hint(request["op"], stack)
        raise Permanent(f"no stack runs here ({stack.state_path})", hint=hint) from exc
