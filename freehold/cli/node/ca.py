"""`freehold ca`: the small CA of a fleet. Here are flags and words.

It makes and keeps no certificate (`stack/ca/` does), prints no key, and copies nothing to a node.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from freehold.cli.terminal.audited import record_act
from freehold.cli.terminal.output import UserMistakes, answer, duration_text, say_json, show_lines
from freehold.cli.terminal.place import StackPlace, json_option, require_config, stack_options
from freehold.cli.terminal.table import Row, table, terminal_columns
from freehold.core.clock import wall_s
from freehold.core.problems import Problem
from freehold.stack.ca.ca_folder import CaFolder, IssuedFile, ca_folder_for, is_node_name
from freehold.stack.ca.certificates import is_host

_HOST_HELP = "Another DNS name or IP address of it; repeatable [default: those of its last certificate]"


@click.group("ca")
def command() -> None:
    """The CA of this stack, and the certificates with which its nodes prove to each other who they are."""


@command.command("init", short_help="Make the CA, or a new one beside it.")
@click.option(
    "--beside", is_flag=True, help="Make a new CA that signs from now on; the old one stays trusted."
)
@stack_options
@json_option
def init(*, beside: bool, stack: StackPlace, as_json: bool) -> None:
    """Make the CA: a key and a certificate for ten years, in a folder that only this user can read."""
    made = _folder(stack).init(beside=beside)
    record_act(stack.state_path, "ca_created", ca=made.certificate.name, beside=beside)
    text = f"{made.path} is good until {_end(made)}. Next: freehold ca issue NAME"
    answer(_shown(made), text, as_json=as_json)


@command.command("issue", short_help="Write a node's file: key, certificate, trusted CAs.")
@click.argument("name")
@click.option("--host", "hosts", multiple=True, metavar="HOST", help=_HOST_HELP)
@stack_options
@json_option
def issue(*, name: str, hosts: tuple[str, ...], stack: StackPlace, as_json: bool) -> None:
    """Write the file of node NAME (a DNS name or IPv4 address): a new key, a certificate for 30 days, the trusted CAs.

    To renew it, run this again and copy the file to the node. Other nodes need no change.
    """
    wrong = [] if is_node_name(name) else [("NAME", "a DNS name or IPv4 address of 1 to 64 characters", name)]
    wrong += [("--host", "a DNS name or IP address", host) for host in hosts if not is_host(host)]
    if wrong:
        problems = (Problem(where=at, message=f"must be {what}, not {text!r}") for at, what, text in wrong)
        raise UserMistakes(problems)
    made = _folder(stack).issue(name, hosts)
    names, until = ", ".join(made.certificate.hosts), _end(made)
    record_act(stack.state_path, "certificate_issued", name=name, hosts=names, until=until)
    text = f"{made.path} holds the key and certificate of {names}, good until {until}."
    if len(made.certificate.hosts) == 1:
        text += f" It has no other name: freehold ca issue {name} --host HOST adds one."
    answer(_shown(made), text, as_json=as_json)


@command.command("show", short_help="Show how long each CA and node's certificate is good.")
@stack_options
@json_option
def show(*, stack: StackPlace, as_json: bool) -> int:
    """Show each CA and node's certificate, and how long it is good. Exit code 3: one has to be renewed."""
    folder = _folder(stack)
    authorities, nodes = folder.authorities(), folder.nodes()
    if as_json:
        found = {"authorities": authorities, "nodes": nodes}
        say_json(
            {"path": str(folder.path), **{kind: list(map(_shown, each)) for kind, each in found.items()}}
        )
    elif not authorities:
        click.echo(f"No CA in {folder.path}. Next: freehold ca init")
    else:
        rows = [_row(each, "init --beside" * (each is authorities[0])) for each in authorities]
        rows += [_row(each, f"issue {each.certificate.name}") for each in nodes]
        show_lines(table(rows, terminal_columns(), heads=("NAME", "ENDS", "LEFT", "SIGNED BY", "FILE")))
    return 3 if any(each.is_due(wall_s()) for each in authorities[:1] + nodes) else 0


def _folder(stack: StackPlace) -> CaFolder:
    require_config(stack)
    return CaFolder(ca_folder_for(stack.config_path))


def _row(each: IssuedFile, renewal: str) -> Row:
    """Return a row and, when it is time, the command that renews the certificate; empty: an older CA needs none."""
    left_s = each.certificate.ends_s - wall_s()
    left = duration_text(left_s) if left_s > 0 else "expired"
    below = [f"do: freehold ca {renewal}"] if renewal and each.is_due(wall_s()) else []
    return Row((each.certificate.name, _end(each), left, each.certificate.signed_by, str(each.path)), below)


def _shown(each: IssuedFile) -> dict[str, Any]:
    return {"path": str(each.path), "is_due": each.is_due(wall_s()), **asdict(each.certificate)}


def _end(each: IssuedFile) -> str:
    return datetime.fromtimestamp(each.certificate.ends_s, UTC).strftime("%Y-%m-%d %H:%M")
