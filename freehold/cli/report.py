"""What a running stack looks like to people: a table, and a summary of a start.

Lines are never cut: a table too wide for the terminal becomes one block per replica, and off a terminal a line is as
long as it must be, so that `grep` and `cut` work.
"""

import os
import shutil
import sys
from collections.abc import Sequence

import click

from freehold.cli.output import duration_text, styled
from freehold.core.clock import wall_s
from freehold.core.events import ReplicaState, ReplicaStatus
from freehold.stack.status import EJECTED, ConfigStatus, GatewayStatus, StackStatus

_COLOURS = {
    ReplicaState.READY: "green",
    ReplicaState.ASLEEP: "yellow",
    ReplicaState.STARTING: "yellow",
    ReplicaState.PENDING: "yellow",
    ReplicaState.CRASH_LOOP: "red",
    ReplicaState.BACKOFF: "red",
}
_HEADS = ("replica", "engine", "state", "uptime", "tokens/s", "restarts", "pid", "GPUs")
_STATE = _HEADS.index("state")
_NUMBERS = frozenset({"tokens/s", "restarts", "pid"})


def note(replica: ReplicaStatus) -> str:
    """Return why a replica is where it is and what to do, in one line; empty when there is nothing to say."""
    return "; ".join(filter(None, (replica.reason, replica.hint)))


def state_colour(replica: ReplicaStatus) -> str:
    """Return the colour that says at a glance how a replica is."""
    return _COLOURS.get(replica.state, "cyan")


def state_text(replica: ReplicaStatus) -> str:
    """Return the state's word in its colour."""
    return styled(replica.state.value, colour=state_colour(replica))


def show_status(status: StackStatus) -> None:
    """Print the gateway and a row per replica; what is unknown says so."""
    gateway = status.gateway
    workers = f"{gateway.workers_live} of {gateway.workers} workers live, " * (gateway.workers > 1)
    doing = "draining" if gateway.draining else "not running" if gateway.pid is None else "serving"
    click.echo(f"{styled('gateway', bold=True)}  {gateway.url}   {doing}, {workers}{_gateway_load(gateway)}")
    rows = _without_empty_end([_HEADS, *(_row(replica) for replica in status.replicas)])
    show = _table if _fits(rows, _terminal_columns()) else _blocks
    for line in show(rows, status.replicas):
        click.echo(line)
    age = duration_text(max(0.0, wall_s() - status.started_wall_s))
    click.echo(styled(f"{status.config}{_in_force(status.in_force)}; up {age}, pid {status.pid}", dim=True))
    if status.in_force.refused:
        click.echo(f"the last reload was {styled('refused', colour='red')}: {status.in_force.refused}")


def _in_force(config: ConfigStatus) -> str:
    if not config.hash:
        return ""
    age = duration_text(max(0.0, wall_s() - config.since_wall_s))
    return f" ({config.hash}{f', reloaded {age} ago' if config.generation > 1 else ''})"


def _terminal_columns() -> int | None:
    """Return the terminal's width; None: the output is no terminal, so a line may have any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or os.environ.get("COLUMNS") else None


def _gateway_load(gateway: GatewayStatus) -> str:
    if gateway.in_flight is None:
        return "load unknown"
    return f"{gateway.in_flight} requests under way, {gateway.requests_total} so far, {gateway.errors_total} failed"


def _row(replica: ReplicaStatus) -> tuple[str, ...]:
    since = replica.ready_wall_s
    speed = "unknown" if replica.tokens_per_s is None else f"{replica.tokens_per_s:.1f}"
    return (
        replica.id,
        replica.engine,
        replica.state.value,
        "" if since is None else duration_text(max(0.0, wall_s() - since)),
        speed if replica.state is ReplicaState.READY else "",
        str(replica.restarts),
        "" if replica.pid is None else str(replica.pid),
        ", ".join(map(str, replica.gpus or ())),
    )


def _without_empty_end(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return a table, heads first, without its last column where nothing stands in it: who has no GPUs need not read of them."""
    last = None if any(row[-1] for row in rows[1:]) else -1
    return [row[:last] for row in rows]


def _widths(rows: Sequence[tuple[str, ...]]) -> list[int]:
    """Return the width of each column; the first row has the heads."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _fits(rows: Sequence[tuple[str, ...]], columns: int | None) -> bool:
    widths = _widths(rows)
    return columns is None or sum(widths) + 2 * (len(widths) - 1) <= columns


def _table(rows: Sequence[tuple[str, ...]], replicas: Sequence[ReplicaStatus]) -> list[str]:
    widths = _widths(rows)
    lines = [styled("  ".join(_cells(rows[0], widths)).rstrip(), bold=True)]
    for row, replica in zip(rows[1:], replicas, strict=True):
        cells = _cells(row, widths)
        cells[_STATE] = styled(
            cells[_STATE], colour=state_colour(replica)
        )  # codes have a length but no width
        lines.append("  ".join(cells).rstrip())
        lines += _notes(replica)
    return lines


def _cells(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    columns = zip(_HEADS[: len(row)], row, widths, strict=True)
    return [cell.rjust(width) if head in _NUMBERS else cell.ljust(width) for head, cell, width in columns]


def _blocks(rows: Sequence[tuple[str, ...]], replicas: Sequence[ReplicaStatus]) -> list[str]:
    lines: list[str] = []
    for row, replica in zip(rows[1:], replicas, strict=True):
        lines.append(f"{styled(replica.id, bold=True)}  {state_text(replica)}")
        facts = zip(_HEADS[1 : len(row)], row[1:], strict=True)
        lines += [f"  {head:8}  {cell}" for head, cell in facts if cell and head != "state"]
        lines += _notes(replica)
    return lines


def _notes(replica: ReplicaStatus) -> list[str]:
    well = replica.state is ReplicaState.READY and replica.reason != EJECTED
    said = "" if well else note(replica)
    return [f"    {said}"] if said else []


def show_ready(status: StackStatus, *, took_s: float) -> None:
    """Print the summary that `up` ends its progress with."""
    click.echo(f"{styled('freehold', bold=True)}  gateway    {status.gateway.url}      (OpenAI API)")
    for model in status.models:
        mine = [replica for replica in status.replicas if replica.model == model]
        ready = sum(replica.state is ReplicaState.READY for replica in mine)
        count = f"{ready} of {_replicas(len(mine))}" if ready != len(mine) else _replicas(len(mine))
        when = f"ready in {took_s:.1f} s" if ready else styled("not ready", colour="red")
        click.echo(f"          model      {model}   {mine[0].engine}   {count}   {when}")
        if mine[0].adapters:
            click.echo(f"          adapters   {', '.join(mine[0].adapters)}")
        for replica in mine:
            for line in _notes(replica):
                click.echo(f"                     {replica.id} {state_text(replica)}: {line.strip()}")


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"
