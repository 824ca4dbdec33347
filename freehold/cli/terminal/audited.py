"""Acts of commands that need no controller, written into the audit log of their stack. A failure is shown and prevents nothing."""

from pathlib import Path

import click

from freehold.fleet.control import audit
from freehold.fleet.control.peer import Peer
from freehold.fleet.control.state_dir import StateDir


def record_act(state_path: Path, act: str, **detail: object) -> None:
    """Append an act of this process's user to the audit log of the stack with this state folder."""
    try:
        audit.append(StateDir(state_path).logs, act, peer=Peer.myself(), detail=detail)
    except OSError as exc:
        click.echo(f"not in the audit log of {state_path}: {exc.strerror or exc}", err=True)
