"""The status of a running stack: one record that its controller makes and commands request.

It deliberately shows nothing: that is the command line's business.
"""

import contextlib
import errno
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from freehold.core.errors import FreeholdError
from freehold.core.events import ReplicaState, ReplicaStatus
from freehold.fleet.control.client import NotRunning, ask
from freehold.fleet.control.state_dir import locked_directories
from freehold.spec.shapes import EXTERNAL
from freehold.stack.folders import Elsewhere, elsewhere

_GATEWAY_TRIES = 3
"""Starts of a gateway that never reported before the stack is called hopeless. Source: our own choice: one failure may be an
accident, three are not."""
EJECTED = "ejected: it failed, so the gateway tries it with one request now and then"
"""The reason that a ready replica receives no requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A replica or gateway that cannot be started, with the cause, and what to do if that is known."""

    name: str
    reason: str
    hint: str


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway as its controller sees it."""

    url: str
    """Base URL of the OpenAI API."""
    pid: int | None
    """Process id of the first running worker; None: no worker runs."""
    restarts: int
    in_flight: int | None
    """Requests under way; None is unknown."""
    requests_total: int | None
    errors_total: int | None
    draining: bool
    workers: int = 1
    """Configured gateway processes."""
    workers_live: int = 1
    """Running gateway processes."""


class ConfigStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Which configuration is in force."""

    generation: int = 1
    """Counts from 1, the configuration that the stack was started with."""
    hash: str = ""
    """Twelve hexadecimal digits that identify the settings."""
    since_wall_s: float = 0.0
    refused: str = ""
    """Why the last reload was rejected; empty: it was not, or there was none."""


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
    in_force: ConfigStatus = ConfigStatus()

    @property
    def models(self) -> tuple[str, ...]:
        """Return the models in the order of the file."""
        return tuple(dict.fromkeys(replica.model for replica in self.replicas))

    @property
    def unserved(self) -> tuple[str, ...]:
        """Return the models that no ready replica serves."""
        ready = {replica.model for replica in self.replicas if replica.state is ReplicaState.READY}
        return tuple(model for model in self.models if model not in ready)

    @property
    def hopeless(self) -> tuple[Failure, ...]:
        """Return why the stack can never serve; empty: it serves or may serve later."""
        if self.gateway.in_flight is None and self.gateway.restarts >= _GATEWAY_TRIES:
            why = f"it ended {self.gateway.restarts} times before it served"
            return (
                Failure(name="gateway", reason=why, hint="freehold logs gateway.stderr shows what it wrote"),
            )
        looping = tuple(r for r in self.replicas if r.state is ReplicaState.CRASH_LOOP)
        if len(looping) < len(self.replicas):
            return ()
        return tuple(Failure(name=r.id, reason=r.reason, hint=r.hint) for r in looping)

    def settled(self, *, waited_s: float, patience_s: float) -> bool:
        """Return whether the start is over: the gateway serves, and each replica is ready, asleep or in a crash loop.

        An external endpoint is awaited for at most `patience_s` seconds, since Freehold does not start it.
        """
        done = {ReplicaState.READY, ReplicaState.ASLEEP, ReplicaState.CRASH_LOOP}
        patient = waited_s < patience_s
        replicas = all(r.state in done or (r.engine == EXTERNAL and not patient) for r in self.replicas)
        return replicas and self.gateway.in_flight is not None


def with_ejected(replicas: Sequence[ReplicaStatus], ejected: Collection[str]) -> tuple[ReplicaStatus, ...]:
    """Return the replicas, with the reason for those that the gateway has ejected."""
    return tuple(
        msgspec.structs.replace(each, reason=EJECTED, hint="")
        if each.id in ejected and each.state is ReplicaState.READY
        else each
        for each in replicas
    )


def stack_on_port(port: int) -> Elsewhere | None:
    """Return the stack of this user whose gateway has a port; None: none has, or it does not answer."""
    for folder in locked_directories():
        with contextlib.suppress(FreeholdError):
            status = running_status(folder)
            if status is not None and urlsplit(status.gateway.url).port == port:
                return elsewhere(folder, config=status.config, pid=status.pid)
    return None


def listen_hint(error: OSError, port: int, otherwise: str) -> str:
    """Return what to do about an address that cannot be listened on; `otherwise`: another program has the port."""
    if error.errno in {errno.EADDRNOTAVAIL, errno.EINVAL}:
        return "this machine has no such address: `ip address` lists those that it has"
    if error.errno == errno.EACCES:
        return "a port below 1024 needs root or the capability CAP_NET_BIND_SERVICE"
    found = stack_on_port(port)
    if found is None:
        return otherwise
    return f"the stack of {found.config} (pid {found.pid}) has it: freehold down {found.flags} ends that one"


def running_status(state_path: Path) -> StackStatus | None:
    """Return the status of the stack with this state folder, or None if no stack runs there."""
    try:
        for answer in ask(state_path, {"op": "status"}):
            return msgspec.convert(answer, StackStatus)
    except NotRunning:
        pass
    return None
