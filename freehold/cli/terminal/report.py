"""What a running stack looks like to people: a table, and a summary of a start.

Lines are never cut: `table` wraps them. It asks no stack: `StackStatus` has all that is shown.
"""

import click

from freehold.cli.terminal.output import duration_text, show_lines, styled
from freehold.cli.terminal.table import Row, paragraph, table, terminal_columns
from freehold.core.clock import wall_s
from freehold.core.events import ReplicaState, ReplicaStatus
from freehold.core.plain_text import one_line
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
_NUMBERS = frozenset({"tokens/s", "restarts", "pid"})


def note(replica: ReplicaStatus) -> str:
    """Return why a replica is where it is and what to do, in one line; empty when there is nothing to say."""
    return one_line("; ".join(filter(None, (replica.reason, replica.hint))))


def state_colour(replica: ReplicaStatus) -> str:
    """Return the colour that says at a glance how a replica is."""
    return _COLOURS.get(replica.state, "cyan")


def state_text(replica: ReplicaStatus) -> str:
    """Return the state's word in its colour."""
    return styled(replica.state.value, colour=state_colour(replica))


def show_status(status: StackStatus) -> None:
    """Print the gateway and a row per replica; what is unknown says so."""
    gateway, columns = status.gateway, terminal_columns()
    workers = f"{gateway.workers_live} of {gateway.workers} workers live, " * (gateway.workers > 1)
    doing = "draining" if gateway.draining else "not running" if gateway.pid is None else "serving"
    head = [styled("gateway", bold=True), f"{gateway.url} ", f"{doing}, {workers}{_gateway_load(gateway)}"]
    show_lines(table([Row(head)], columns))
    # Without GPUs their column is left out.
    heads = _HEADS if any(replica.gpus for replica in status.replicas) else _HEADS[:-1]
    rows = [Row(_row(replica)[: len(heads)], _notes(replica)) for replica in status.replicas]
    show_lines(table(rows, columns, heads=heads, numbers=_NUMBERS))
    age = duration_text(max(0.0, wall_s() - status.started_wall_s))
    foot = f"{status.config}{_in_force(status.in_force)}; up {age}, pid {status.pid}"
    show_lines(styled(line, dim=True) for line in paragraph(foot, columns))
    if status.in_force.refused:
        refused = f"the last reload was {styled('refused', colour='red')}: {status.in_force.refused}"
        show_lines(paragraph(refused, columns))


def _in_force(config: ConfigStatus) -> str:
    if not config.hash:
        return ""
    age = duration_text(max(0.0, wall_s() - config.since_wall_s))
    return f" ({config.hash}{f', reloaded {age} ago' if config.generation > 1 else ''})"


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
        state_text(replica),
        "" if since is None else duration_text(max(0.0, wall_s() - since)),
        speed if replica.state is ReplicaState.READY else "",
        str(replica.restarts),
        "" if replica.pid is None else str(replica.pid),
        ", ".join(map(str, replica.gpus or ())),
    )


def _notes(replica: ReplicaStatus) -> list[str]:
    well = replica.state is ReplicaState.READY and replica.reason != EJECTED
    said = "" if well else note(replica)
    return list(filter(None, (said, _history(replica, said))))


def _history(replica: ReplicaStatus, said: str) -> str:
    """Return how often it was restarted, and why and when last; empty: never, or `said` has the cause."""
    cause, ended_s = one_line(replica.last_end), replica.last_end_wall_s
    if not replica.restarts or ended_s is None or cause in said:
        return ""
    times = "once" if replica.restarts == 1 else f"{replica.restarts} times"
    return f"restarted {times}, last: {cause}, {duration_text(max(0.0, wall_s() - ended_s))} ago"


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
                click.echo(f"                     {replica.id} {state_text(replica)}: {line}")


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"
