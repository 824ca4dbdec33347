"""What a running stack looks like: one record for scripts, a table and a summary for people."""

import msgspec
from rich.console import Console
from rich.table import Table

from freehold.cli.say import duration_text
from freehold.core.clock import wall_s
from freehold.core.events import ReplicaState, ReplicaStatus

_GOOD = {ReplicaState.READY: "green", ReplicaState.STARTING: "yellow", ReplicaState.PENDING: "yellow"}
_BAD = {ReplicaState.CRASH_LOOP: "red", ReplicaState.BACKOFF: "red"}


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway as its controller sees it."""

    url: str
    """Base URL of the OpenAI API."""
    pid: int | None
    restarts: int
    in_flight: int | None
    """Requests under way; None is unknown."""
    requests_total: int | None
    errors_total: int | None
    draining: bool


class StackStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`freehold status --json`."""

    config: str
    state_dir: str
    pid: int
    """The controller's process id."""
    started_wall_s: float
    """Unix seconds."""
    gateway: GatewayStatus
    replicas: tuple[ReplicaStatus, ...]

    @property
    def all_ready(self) -> bool:
        """Return whether every replica takes traffic."""
        return all(replica.state is ReplicaState.READY for replica in self.replicas)

    @property
    def hopeless(self) -> tuple[ReplicaStatus, ...]:
        """Return the replicas that were given up, when no other is left or on its way."""
        looping = tuple(r for r in self.replicas if r.state is ReplicaState.CRASH_LOOP)
        return looping if len(looping) == len(self.replicas) else ()


def show_status(status: StackStatus) -> None:
    """Print the gateway and a row per replica; what is unknown says so."""
    console = Console(highlight=False)
    gateway = status.gateway
    doing = "draining" if gateway.draining else "not running" if gateway.pid is None else "serving"
    console.print(f"[bold]gateway[/]  {gateway.url}   {doing}, {_gateway_load(gateway)}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("replica", "engine", "state", "uptime", "tokens/s", "restarts", "pid", "note"):
        table.add_column(name, justify="right" if name in {"tokens/s", "restarts", "pid"} else "left")
    for replica in status.replicas:
        table.add_row(*_row(replica))
    console.print(table)
    console.print(
        f"[dim]{status.config}; up {duration_text(wall_s() - status.started_wall_s)}, pid {status.pid}[/]"
    )


def _gateway_load(gateway: GatewayStatus) -> str:
    if gateway.in_flight is None:
        return "load unknown"
    return f"{gateway.in_flight} requests under way, {gateway.requests_total} so far, {gateway.errors_total} failed"


def _row(replica: ReplicaStatus) -> tuple[str, ...]:
    colour = _GOOD.get(replica.state) or _BAD.get(replica.state) or "cyan"
    since = replica.ready_wall_s
    speed = "unknown" if replica.tokens_per_s is None else f"{replica.tokens_per_s:.1f}"
    return (
        replica.id,
        replica.engine,
        f"[{colour}]{replica.state.value}[/]",
        "" if since is None else duration_text(max(0.0, wall_s() - since)),
        speed if replica.state is ReplicaState.READY else "",
        str(replica.restarts),
        "" if replica.pid is None else str(replica.pid),
        ""
        if replica.state is ReplicaState.READY
        else "; ".join(filter(None, (replica.reason, replica.hint))),
    )


def show_ready(status: StackStatus, *, took_s: float) -> None:
    """Print the summary that `up` ends its progress with."""
    console = Console(highlight=False)
    console.print(f"[bold]freehold[/]  gateway    [link]{status.gateway.url}[/link]      (OpenAI API)")
    for model in dict.fromkeys(replica.model for replica in status.replicas):
        mine = [replica for replica in status.replicas if replica.model == model]
        ready = sum(replica.state is ReplicaState.READY for replica in mine)
        count = f"{ready} of {len(mine)} replicas" if ready != len(mine) else _replicas(len(mine))
        console.print(f"          model      {model}   {mine[0].engine}   {count}   ready in {took_s:.1f} s")


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"
